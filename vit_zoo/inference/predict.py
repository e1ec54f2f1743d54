"""Image classification with an exported file alone (no torch, no other file) or with a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from vit_zoo.errors import InputError
from vit_zoo.formats import child_for, open_in
from vit_zoo.formats.artifact import Artifact
from vit_zoo.formats.classifier import artifact_classifier
from vit_zoo.formats.declared import Declared, declared
from vit_zoo.formats.limits import MEMORY, TIME, Limits
from vit_zoo.inference.engine import Engine, engine_of
from vit_zoo.inference.preparation import free_size
from vit_zoo.loading.locator import ExportedFile, parse_locator
from vit_zoo.loading.stated import Description
from vit_zoo.model.classification import Classifier, Prediction, predictions

if TYPE_CHECKING:
    from vit_zoo.files.image_inputs import Images
    from vit_zoo.loading.checkpoint import ModelLike
    from vit_zoo.loading.stated import Labels, PreprocessLike
    from vit_zoo.model.classification import Array
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.vit import ViT

__all__ = ["Prediction", "classifier_of", "described", "opened_model", "predict"]


def predict(
    model: ModelLike | Artifact,
    images: Images,
    *,
    top: int | None = None,
    threads: int | None = None,
    fast_crop: bool = False,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    labels: Labels | None = None,
    preprocess: PreprocessLike | None = None,
    **facts: Any,
) -> list[Prediction]:
    """Classify images, or compute the values of a regression.

    Images are prepared as the model requires: by its config, or by the exported file itself if it includes preprocessing. The
    function from outputs to scores follows the config's `problem_type`, as in transformers: softmax by default, the sigmoid of
    each class for `multi_label_classification`, none for `regression`.

    Args:
        model: An exported ONNX file, which needs no torch, or an opened one, which keeps its session; a `ViT`; or anything else
            that `load` takes. ONNX classifiers of other tools need `preprocess`.
        images: One image, or an iterable of images, such as a list or a generator: paths of files; folders, which stand for all
            images in them; patterns such as `photos/*.jpg`, and other lists that `embed` takes; Pillow images; NumPy arrays,
            uint8 [height, width, channels]; torch tensors, uint8 [channels, height, width]. An array or a tensor can have a batch
            axis in front.
        top: Number of classes to return for each image; 5 by default. It does not apply to a regression.
        threads: Number of onnxruntime threads; ONNX files only.
        fast_crop: Resize only what the crop keeps, which takes about a fifth less time for the JPEG file of a photo;
            single pixels differ by one level of 255.
        workers: For an ONNX file and image files, both given by their paths: the number of images that are prepared and run at
            the same time, each with one thread. By default, one session runs batch after batch with all threads.
        engine: `local`, or `ray`, as in `embed`, which needs the same as `workers`; one worker for each core by default.
        address: The address of the Ray cluster, as in `embed`.
        time_limit: ONNX files only, which run in a child process: seconds that the file may take for all images, by default 15,
            and more by its size and the number of images. With `workers`, for one batch.
        memory_limit: ONNX files only: GB that the child process may use, by default as in `open`.
        labels: Names of the classes, as in `load`.
        preprocess: How images are prepared, as in `load`.
        **facts: Facts about the model, as in `load`. For an exported file or a `ViT` only `problem_type`, if it is not stated.

    Raises:
        InputError: The model has no classes, its config has no preprocessing, nothing states what its one output stands for, an
            image is no uint8 pixels, or a file does not exist.
        RefusedContent: A file is not an image, or the model's output is not finite.
        Stopped: The file reached a limit, or onnxruntime crashed.
    """
    description = {**facts, "labels": labels, "preprocess": preprocess}
    if workers is not None or engine != "local" or address is not None:
        return _by_workers(
            model, images, top=top, threads=threads, fast_crop=fast_crop, run_on=engine_of(engine, address, workers),
            facts=description, time_limit=time_limit, memory_limit=memory_limit,
        )  # fmt: skip
    opened, stated = opened_model(model, threads, Limits.of(time_limit, memory_limit), description)
    return predictions(classifier_of(opened, stated), images, top=top, fast_crop=fast_crop)


def _by_workers(
    model: ModelLike | Artifact, images: Images, *, top: int | None, threads: int | None, run_on: Engine,
    facts: Mapping[str, Any], **settings: Any,
) -> list[Prediction]:  # fmt: skip
    """Return predictions by the workers of an engine. Arguments and errors are as in `predict`."""
    from vit_zoo.files.image_inputs import image_inputs
    from vit_zoo.inference.predict_files import FilePredictor

    if threads is not None:
        raise InputError("threads does not apply: each worker has one thread")
    if not is_exported_file(model):
        raise InputError("workers and engine apply to an exported ONNX file, given by its path")
    with closing(run_on):
        return FilePredictor.of(declared(model), facts, top=top, **settings).predictions(list(image_inputs(images)), run_on)


def is_exported_file(model: ModelLike | Artifact) -> TypeGuard[str | PathLike[str]]:
    """Return whether a model is given as the path of an exported file."""
    return isinstance(model, str | PathLike) and isinstance(parse_locator(model), ExportedFile)


def opened_model(
    model: ModelLike | Artifact, threads: int | None, limits: Limits, facts: Mapping[str, Any]
) -> tuple[Artifact | ViT, dict[str, Any]]:
    """Open an exported file or load a model, and return it with the facts that do not apply to loading.

    Arguments and errors are as in `predict`.
    """
    if is_exported_file(model):
        path = Path(model)
        model, threads, limits = open_in(child_for(path, limits), path, threads=threads), None, Limits()
    if limits != Limits():
        cause = "time_limit and memory_limit apply to ONNX files only, given by their path"
        raise InputError(cause, options=[TIME, MEMORY])
    if threads is not None:
        raise InputError("threads applies to ONNX files only; use torch.set_num_threads for a model")
    if isinstance(model, Artifact):
        return model, dict(facts)
    from vit_zoo.model.vit import ViT

    if isinstance(model, ViT):
        return model, dict(facts)
    from vit_zoo.api import load

    return load(model, **facts), {}


def classifier_of(model: Artifact | ViT, facts: dict[str, Any]) -> Classifier:
    """Return a model, or an opened file, as a classifier. Raises InputError if it has no classes, or a fact does not apply."""
    if isinstance(model, Artifact):
        size = free_size(model, facts.get("preprocess"))
        return artifact_classifier(model, lambda config: described(model, config, facts), size)
    return _of_model(model, described(model, model.config, facts))


def described(model: Artifact | Declared | ViT, config: ModelConfig, facts: Mapping[str, Any]) -> ModelConfig:
    """Return a config with what the user states about the model. Raises InputError for a fact that does not apply."""
    rest = dict(facts)
    description = Description.taken_from(rest)
    if isinstance(model, Artifact | Declared):
        _refuse(rest, "an exported file contains its own config", model.path)
    else:
        _refuse(rest, "the model has its own config", config.name)
    return description.of(config)


def _refuse(facts: Mapping[str, Any], reason: str, where: object) -> None:
    """Raise InputError for a fact that does not apply."""
    other = next(iter(facts), None)
    if other is not None:
        raise InputError(f"cannot set {other}: {reason}", where=where)


def _of_model(model: ViT, config: ModelConfig) -> Classifier:
    import torch

    def logits(images: Array) -> Array:
        like = next(model.parameters())
        with torch.inference_mode(), in_eval_mode(model):
            rows = model(torch.from_numpy(images).to(like.device, like.dtype))
        return rows.float().cpu().numpy()  # type: ignore[no-any-return]

    return Classifier(config=config, run=logits, where=config.name)


@contextmanager
def in_eval_mode(model: ViT) -> Iterator[None]:
    """Set eval mode, and afterwards the mode that each part had."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
