"""Which class an image belongs to, by an artifact alone (no torch, no side file) or by a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, RefusedContent
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
    """The likeliest classes of one image, best first, with their probabilities."""

    file: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(
    model: Any, images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, top: int = 5, threads: int | None = None
) -> list[Prediction]:
    """Classify image files with an exported file, or with anything that `load` takes.

    Raises InputError if the model has no classes or says nothing of its preprocessing, RefusedContent for a file that
    is not an image.
    """
    files = [images] if isinstance(images, str | os.PathLike) else list(images)
    return classify(model, files, top=top, threads=threads)[1]


def classify(
    model: Any, images: Sequence[str | os.PathLike[str]], *, top: int, threads: int | None
) -> tuple[ModelConfig, list[Prediction]]:
    """The predictions, and what the model says of itself."""
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    if not images:
        raise InputError("no images")
    config, logits, prepares = _classifier(model, threads)
    if not config.spec.num_classes:
        raise InputError("has no classes: it gives features", where=config.name)
    if config.preprocess is None:
        hint = "a variant of the zoo says it: export NAME --weights FILE, and use that file"
        raise InputError("does not say how images are prepared", where=config.name, hint=hint)
    labels = config.labels or tuple(f"class {i}" for i in range(config.spec.num_classes))
    found = []
    size = 1 if prepares else BATCH  # whole images are of many sizes
    for start in range(0, len(images), size):
        files = [Path(image) for image in images[start : start + size]]
        ready = [_read(config.preprocess.whole if prepares else config.preprocess, file) for file in files]
        for file, row in zip(files, logits(_stack(ready)), strict=True):
            best = _softmax(row, len(labels), model if isinstance(model, str | os.PathLike) else config.name)
            order = (-best).argsort(kind="stable")[:top]
            found.append(Prediction(str(file), tuple(labels[i] for i in order), tuple(float(best[i]) for i in order)))
    return config, found


def _classifier(model: Any, threads: int | None) -> tuple[ModelConfig, Callable[[Array], Array], bool]:
    """What a model says of itself, its logits for a batch, and whether it prepares whole images itself."""
    if isinstance(model, str | os.PathLike) and isinstance(parse_locator(model), ExportedFile):
        artifact = open_artifact(model, threads=threads)
        given = next((name for name in ("logits", "probabilities") if name in artifact.outputs), None)
        if given is None:
            raise InputError(f"gives {', '.join(artifact.outputs)}, no logits", where=model)
        return artifact.config, lambda images: _as_logits(artifact.run(images)[given], given), "include" in artifact.about.export
    if threads is not None:
        raise InputError("threads are onnxruntime's; torch has its own setting")
    import torch

    from vit_zoo.api import load

    live = load(model).eval()

    def logits(images: Array) -> Array:
        with torch.inference_mode():
            found = live(torch.from_numpy(images).to(next(live.parameters()).dtype))
        return found.float().numpy()  # type: ignore[no-any-return]

    return live.config, logits, False


def _as_logits(rows: Array, name: str) -> Array:
    """Probabilities as the logits that give them, up to a constant."""
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


def _softmax(row: Array, classes: int, where: object) -> Array:
    import numpy as np

    if row.shape != (classes,):
        raise RefusedContent(f"gives logits of shape {list(row.shape)} for {classes} classes", where=where)
    if not np.isfinite(row).all():
        raise RefusedContent("gives values that are not finite", where=where)
    powers = np.exp(row.astype(np.float64) - row.max())
    return powers / powers.sum()  # type: ignore[no-any-return]
