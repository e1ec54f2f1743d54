"""Image classification with an exported file alone (no torch, no other file) or with a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option, RefusedContent
from vit_zoo.files import read_image
from vit_zoo.formats import open_artifact
from vit_zoo.loading.locator import ExportedFile, parse_locator

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from PIL import Image

    from vit_zoo.model.config import ModelConfig

    Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 8


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, in descending order, with their probabilities (0 to 1)."""

    file: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(
    model: Any, images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, top: int = 5, threads: int | None = None
) -> list[Prediction]:
    """Classify image files.

    Images are prepared as the model requires: by its config, or by the exported file itself if it includes preprocessing.

    Args:
        model: An exported ONNX file, which needs no torch, or anything that `load` takes.
        images: One image file, or several.
        top: Number of classes to return for each image.
        threads: Number of onnxruntime threads; ONNX files only.

    Raises:
        InputError: The model has no classes, its config has no preprocessing, or a file does not exist.
        RefusedContent: A file is not an image, or the model's output is not finite.
    """
    files = [images] if isinstance(images, str | os.PathLike) else list(images)
    return classify(model, files, top=top, threads=threads)[1]


def classify(
    model: Any, images: Sequence[str | os.PathLike[str]], *, top: int, threads: int | None
) -> tuple[ModelConfig, list[Prediction]]:
    """Return the config of the model and the predictions. Arguments and errors are as in `predict`."""
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    if not images:
        raise InputError("no images given")
    config, logits, prepares = _classifier(model, threads)
    if not config.spec.num_classes:
        raise InputError("the model has no classes: it computes features", where=config.name)
    if config.preprocess is None:
        weights = Option("weights", "FILE")
        hint = f"export with {weights} a TOML file that has a table [preprocess], or the tag of the published weights"
        raise InputError("the config has no preprocessing", where=config.name, hint=hint, options=[weights])
    labels = config.labels or tuple(f"class {i}" for i in range(config.spec.num_classes))
    predictions = []
    batch_size = 1 if prepares else BATCH  # images that are not prepared yet differ in size
    for start in range(0, len(images), batch_size):
        files = [Path(image) for image in images[start : start + batch_size]]
        ready = [_read(config.preprocess.whole if prepares else config.preprocess, file) for file in files]
        for file, row in zip(files, logits(_stack(ready)), strict=True):
            probabilities = _probabilities(row, len(labels), model if isinstance(model, str | os.PathLike) else config.name)
            order = (-probabilities).argsort(kind="stable")[:top]
            best = tuple(float(probabilities[i]) for i in order)
            predictions.append(Prediction(str(file), tuple(labels[i] for i in order), best))
    return config, predictions


def _classifier(model: Any, threads: int | None) -> tuple[ModelConfig, Callable[[Array], Array], bool]:
    """Return the config of a model, a function from a batch of images to logits, and whether the model prepares images."""
    if isinstance(model, str | os.PathLike) and isinstance(parse_locator(model), ExportedFile):
        artifact = open_artifact(model, threads=threads)
        output = next((name for name in ("logits", "probabilities") if name in artifact.outputs), None)
        if output is None:
            raise InputError(f"expected the output 'logits' or 'probabilities', got {', '.join(artifact.outputs)}", where=model)
        return (
            artifact.config,
            lambda images: _as_logits(artifact.run(images)[output], output),
            "include" in artifact.about.export,
        )
    if threads is not None:
        raise InputError("threads applies to ONNX files only; use torch.set_num_threads for a model")
    import torch

    from vit_zoo.api import load

    module = load(model).eval()

    def logits(images: Array) -> Array:
        with torch.inference_mode():
            rows = module(torch.from_numpy(images).to(next(module.parameters()).dtype))
        return rows.float().numpy()  # type: ignore[no-any-return]

    return module.config, logits, False


def _as_logits(rows: Array, name: str) -> Array:
    """Return logits, up to a constant, for an output that is called `name`."""
    import numpy as np

    return np.log(np.maximum(rows, np.finfo("<f4").tiny)) if name == "probabilities" else rows


def _stack(images: list[Array]) -> Array:
    import numpy as np

    return np.stack(images)


def _read(prepare: Callable[[Image.Image], Array], file: Path) -> Array:
    try:
        return prepare(read_image(file))
    except InputError as error:
        raise error if error.where else InputError(error.message, where=file, hint=error.hint) from None


def _probabilities(row: Array, classes: int, where: object) -> Array:
    import numpy as np

    from vit_zoo.parity.tolerance import softmax

    if row.shape != (classes,):
        raise RefusedContent(f"expected logits of shape [{classes}], got {list(row.shape)}", where=where)
    if not np.isfinite(row).all():
        raise RefusedContent("the outputs are not finite", where=where)
    return softmax(row)
