"""Image classification with an exported file alone (no torch, no other file) or with a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option, RefusedContent
from vit_zoo.files import read_image
from vit_zoo.formats import open_artifact
from vit_zoo.loading.locator import ExportedFile, parse_locator
from vit_zoo.progress import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from PIL import Image

    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.ops import Activation

    Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 8


@dataclass(frozen=True)
class Prediction:
    """The classes of one image with the highest scores, in descending order; of a regression, every output in its order.

    A score is a probability (0 to 1), or the value itself for a regression. Probabilities of classes of which one applies sum
    to 1 over all classes; those of classes that each apply or not need not.
    """

    file: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    activation: Activation | None = "softmax"  # the function that makes scores of the model's outputs; None for a regression

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The scores. Raises InputError for a regression."""
        if self.activation is None:
            raise InputError("a regression has values, no probabilities: read `scores`", where=self.file)
        return self.scores


def predict(
    model: Any,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    top: int | None = None,
    threads: int | None = None,
    **facts: Any,
) -> list[Prediction]:
    """Classify image files, or compute the values of a regression.

    Images are prepared as the model requires: by its config, or by the exported file itself if it includes preprocessing. The
    function from outputs to scores follows the config's `problem_type`, as in transformers: softmax by default, the sigmoid of
    each class for `multi_label_classification`, none for `regression`.

    Args:
        model: An exported ONNX file, which needs no torch, or anything that `load` takes.
        images: One image file, or several.
        top: Number of classes to return for each image; 5 by default. It does not apply to a regression.
        threads: Number of onnxruntime threads; ONNX files only.
        **facts: Facts about the model, as in `load`. For an exported file only `problem_type`, if the file does not state it.

    Raises:
        InputError: The model has no classes, its config has no preprocessing, nothing states what its one output stands for, or
            a file does not exist.
        RefusedContent: A file is not an image, or the model's output is not finite.
    """
    files = [images] if isinstance(images, str | os.PathLike) else list(images)
    return classify(model, files, top=top, threads=threads, facts=facts, default_top=5)[1]


def classify(
    model: Any,
    images: Sequence[str | os.PathLike[str]],
    *,
    top: int | None,
    threads: int | None,
    facts: Mapping[str, Any],
    default_top: int,
) -> tuple[ModelConfig, list[Prediction]]:
    """Return the config of the model and the predictions. Arguments and errors are as in `predict`."""
    if top is not None and top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    if not images:
        raise InputError("no images given")
    classifier = _classifier(model, threads, facts)
    config = classifier.config
    activation = None if config.problem_type == "regression" else config.class_activation()
    if activation is None and top is not None:
        raise InputError("top applies to classes; of a regression every value is returned", where=config.name)
    if config.preprocess is None:
        weights = Option("weights", "FILE")
        hint = f"export with {weights} a TOML file that has a table [preprocess], or the tag of the published weights"
        raise InputError("the config has no preprocessing", where=config.name, hint=hint, options=[weights])
    outputs = activation is None or config.spec.num_classes == 1  # one output is not one of several classes
    labels = config.labels or tuple(f"{'output' if outputs else 'class'} {i}" for i in range(config.spec.num_classes))
    predictions = []
    batch_size = 1 if classifier.prepares else BATCH  # images that are not prepared yet differ in size
    starts = range(0, len(images), batch_size)
    for start in counted(starts, "predicting", len(images), "images", lambda start: batch_size):
        files = [Path(image) for image in images[start : start + batch_size]]
        ready = [_read(config.preprocess.whole if classifier.prepares else config.preprocess, file) for file in files]
        for file, row in zip(files, classifier.run(_stack(ready)), strict=True):
            _check_row(row, len(labels), model if isinstance(model, str | os.PathLike) else config.name)
            scores = row if classifier.output == "probabilities" else _scores(row, activation)
            order = range(len(labels)) if activation is None else (-scores).argsort(kind="stable")[: top or default_top]
            best = tuple(float(scores[i]) for i in order)
            predictions.append(Prediction(str(file), tuple(labels[i] for i in order), best, activation))
    return config, predictions


@dataclass(frozen=True)
class Classifier:
    """A model that gives one row of outputs for each image."""

    config: ModelConfig
    output: str  # logits or probabilities
    run: Callable[[Array], Array]  # from a batch of images to the output
    prepares: bool = False  # whether the model prepares images


def _classifier(model: Any, threads: int | None, facts: Mapping[str, Any]) -> Classifier:
    if isinstance(model, str | os.PathLike) and isinstance(parse_locator(model), ExportedFile):
        artifact = open_artifact(model, threads=threads)
        output = next((name for name in ("logits", "probabilities") if name in artifact.outputs), None)
        if output is None:
            raise InputError(f"expected the output 'logits' or 'probabilities', got {', '.join(artifact.outputs)}", where=model)
        config = _with_stated(artifact.config, output, facts, model)
        return Classifier(config, output, lambda images: artifact.run(images)[output], "include" in artifact.about.export)
    if threads is not None:
        raise InputError("threads applies to ONNX files only; use torch.set_num_threads for a model")
    import torch

    from vit_zoo.api import load

    module = load(model, **facts).eval()

    def logits(images: Array) -> Array:
        with torch.inference_mode():
            rows = module(torch.from_numpy(images).to(next(module.parameters()).dtype))
        return rows.float().numpy()  # type: ignore[no-any-return]

    return Classifier(module.config, "logits", logits)


def _with_stated(config: ModelConfig, output: str, facts: Mapping[str, Any], where: object) -> ModelConfig:
    """Return the config of an exported file with the problem type that the user states. Raises InputError for other facts."""
    other = next((name for name in facts if name != "problem_type"), None)
    if other is not None:
        raise InputError(f"cannot set {other}: an exported file contains its own config", where=where)
    stated = config.with_problem_type(facts.get("problem_type"))
    if output == "probabilities" and stated.problem_type != config.problem_type:
        raise InputError("cannot set problem_type: the file computes the softmax already; export the model again", where=where)
    return stated


def _stack(images: list[Array]) -> Array:
    import numpy as np

    return np.stack(images)


def _read(prepare: Callable[[Image.Image], Array], file: Path) -> Array:
    try:
        return prepare(read_image(file))
    except InputError as error:
        raise error if error.where else InputError(error.message, where=file, hint=error.hint) from None


def _check_row(row: Array, classes: int, where: object) -> None:
    """Raise RefusedContent for outputs of another shape, or that are not finite."""
    import numpy as np

    if row.shape != (classes,):
        raise RefusedContent(f"expected logits of shape [{classes}], got {list(row.shape)}", where=where)
    if not np.isfinite(row).all():
        raise RefusedContent("the outputs are not finite", where=where)


def _scores(row: Array, activation: Activation | None) -> Array:
    from vit_zoo.parity.tolerance import sigmoid, softmax

    return row if activation is None else sigmoid(row) if activation == "sigmoid" else softmax(row)
