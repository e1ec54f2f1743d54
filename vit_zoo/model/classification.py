"""Predictions: the classes, or the values of a regression, that stand for a model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from vit_zoo.errors import InputError, Option, RefusedContent, printable
from vit_zoo.files.image_inputs import counted_inputs
from vit_zoo.model.batches import BATCH, prepared_batches
from vit_zoo.progress import counting, step

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from vit_zoo.files.image_inputs import ImageInput, Images
    from vit_zoo.model.batches import Failed
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.ops import Activation
    from vit_zoo.model.preprocess import Preprocess

    Array = np.ndarray[Any, np.dtype[Any]]

FAST_CROP = Option("fast_crop")
TOP = 5  # number of classes that are returned by default


@dataclass(frozen=True)
class Prediction:
    """The classes of one image with the highest scores, in descending order; of a regression, every output in its order.

    A score is a probability (0 to 1), or the value itself for a regression. Probabilities of classes of which one applies sum
    to 1 over all classes; those of classes that each apply or not need not.

    Attributes:
        file: The path of the image, or `image N` for the Nth image, from 0, if it was given in memory.
        labels: The names of the classes, or `class N` where the model has no names for them.
        scores: The score of each.
        activation: The function that makes scores of the model's outputs; None for a regression.
    """

    file: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    activation: Activation | None = "softmax"

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The scores. Raises InputError for a regression."""
        if self.activation is None:
            raise InputError("a regression has values, no probabilities: read `scores`", where=self.file)
        return self.scores

    def __repr__(self) -> str:
        shown = [f"{label} {self._text(score)}" for label, score in list(zip(self.labels, self.scores, strict=True))[:TOP]]
        return printable(f"<Prediction {self.file}: {', '.join(shown)}{', ...' if len(self.labels) > TOP else ''}>")

    def _text(self, score: float) -> str:
        return f"{score:.6g}" if self.activation is None else f"{100 * score:.1f} %"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model, or an opened file, that gives one row of outputs for each image."""

    config: ModelConfig
    run: Callable[[Array], Array]  # from a batch of images to the output
    where: object  # the file or name that errors are about
    activated: bool = False  # whether the output is probabilities already
    prepares: bool = False  # whether the model prepares images


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How rows of a classifier's outputs become predictions."""

    labels: tuple[str, ...]
    activation: Activation | None
    activated: bool
    top: int
    where: object

    @classmethod
    def of(cls, config: ModelConfig, top: int | None, default_top: int = TOP, *, where: object, activated: bool = False) -> Self:
        """Raises InputError for a `top` that does not apply. `where` and `activated` are as in `Classifier`."""
        if top is not None and top < 1:
            raise InputError(f"top must be at least 1, got {top}")
        activation = None if config.problem_type == "regression" else config.class_activation()
        if activation is None and top is not None:
            raise InputError("top applies to classes; of a regression every value is returned", where=config.name)
        outputs = activation is None or config.spec.num_classes == 1  # one output is not one of several classes
        labels = config.labels or tuple(f"{'output' if outputs else 'class'} {i}" for i in range(config.spec.num_classes))
        return cls(labels=labels, activation=activation, activated=activated, top=top or default_top, where=where)

    def prediction(self, name: str, row: Array) -> Prediction:
        """Return the prediction for an image. Raises RefusedContent for outputs that are not as declared, or not finite."""
        _check_row(row, len(self.labels), self.where)
        scores = row if self.activated else _scores(row, self.activation)
        order = range(len(self.labels)) if self.activation is None else (-scores).argsort(kind="stable")[: self.top]
        best = tuple(float(scores[i]) for i in order)
        return Prediction(name, tuple(self.labels[i] for i in order), best, self.activation)


def predictions(
    classifier: Classifier,
    images: Images | Sequence[ImageInput],
    *,
    top: int | None = None,
    default_top: int = TOP,
    fast_crop: bool = False,
    failed: Failed | None = None,
) -> list[Prediction]:
    """Return a prediction for each image. Arguments and errors are as in `vit_zoo.predict`, and in `prepared_batches`."""
    scoring = Scoring.of(classifier.config, top, default_top, where=classifier.where, activated=classifier.activated)
    preprocess = classifier.config.known_preprocess()
    prepare = preparation(preprocess, inside=classifier.prepares, fast_crop=fast_crop, where=classifier.where)
    batch_size = 1 if classifier.prepares else BATCH  # images that are not prepared yet differ in size
    inputs, count = counted_inputs(images)
    done: list[Prediction] = []
    with step("predicting", count, "images") as progress:
        for batch in prepared_batches(counting(inputs, progress), prepare, batch_size, failed):
            rows = classifier.run(batch.pixels)
            done += [scoring.prediction(name, row) for name, row in zip(batch.names, rows, strict=True)]
    return done


def preparation(preprocess: Preprocess, *, inside: bool, fast_crop: bool, where: object) -> Callable[[Image.Image], Array]:
    """Return the function that prepares images; `inside`: the file itself does most of it.

    Raises InputError if `fast_crop` does not apply.
    """
    if not inside:
        return partial(preprocess, fast_crop=fast_crop)
    if fast_crop:
        raise InputError(f"{FAST_CROP} does not apply: the file prepares images itself", where=where, options=[FAST_CROP])
    return preprocess.whole


def _check_row(row: Array, classes: int, where: object) -> None:
    """Raise RefusedContent for outputs of another shape, or that are not finite."""
    import numpy as np

    if row.shape != (classes,):
        raise RefusedContent(f"expected logits of shape [{classes}], got {list(row.shape)}", where=where)
    if not np.isfinite(row).all():
        raise RefusedContent("the outputs are not finite", where=where)


def _scores(row: Array, activation: Activation | None) -> Array:
    return row if activation is None else sigmoid(row) if activation == "sigmoid" else softmax(row)


def softmax(x: Array) -> Array:
    """Return the softmax of the last axis, in float64."""
    import numpy as np

    powers = np.exp(x.astype("<f8") - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def sigmoid(x: Array) -> Array:
    """Return the sigmoid of each value, in float64."""
    import numpy as np

    return (1 + np.tanh(x.astype("<f8") / 2)) / 2  # which cannot overflow
