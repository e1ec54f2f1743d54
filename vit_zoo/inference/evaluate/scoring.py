"""What the outputs of a file are worth: measures of each kind of output against the known classes or values of images.

n images · c classes or values · d width of features
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.errors import RefusedContent
from vit_zoo.files.image_list import AND
from vit_zoo.inference.evaluate import metrics
from vit_zoo.inference.evaluate.result import PAIRS, Calibration, ClassResult, Confusion, Kind, Share, Table, ValueResult
from vit_zoo.model.classification import sigmoid, softmax
from vit_zoo.parity.neighbours import votes

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

TOP = 5
COLUMNS = ("path", "label", "predicted", "score", "correct")


@dataclass(frozen=True)
class Scores:
    """The measures of one file.

    Attributes:
        fields: Those of an `Evaluation`.
        table: A row for each image.
        predicted: What was predicted for each image, as text.
        correct: Whether that is right, for each image; None where there is no right or wrong.
    """

    fields: dict[str, Any]
    table: Table
    predicted: tuple[str, ...] = ()
    correct: Array | None = None


class Task(ABC):
    """What is measured. `targets` has one row for each image of the list: what is known about it."""

    kind: Kind

    def __init__(self, targets: Array, labels: Sequence[str]) -> None:
        self.targets, self.labels = targets, labels

    def reduce(self, outputs: Array, at: Array) -> Array:
        """Return what has to be kept of the outputs for the images at these positions of the list: by default all."""
        return outputs

    @abstractmethod
    def scores(self, kept: Array, at: Array, paths: Sequence[str]) -> Scores:
        """Return the measures; `kept` are the results of `reduce` for the images at these positions, and `paths` their names."""

    def check(self, outputs: Array, where: object) -> None:
        """Raise RefusedContent for outputs of another number than the classes that the file declares."""
        if len(outputs) and outputs.shape[1:] != (len(self.labels),):
            expected = f"expected {len(self.labels)} values for each image"
            raise RefusedContent(f"{expected}, got {list(outputs.shape[1:])}", where=where)


class OneClass(Task):
    """Classes of which one applies to each image: `targets` n, its number."""

    kind: Kind = "classification"

    def __init__(self, targets: Array, labels: Sequence[str], *, activated: bool) -> None:
        super().__init__(targets, labels)
        self.activated = activated

    def reduce(self, outputs: Array, at: Array) -> Array:
        """Return the first class, its probability, and the rank of the right class: n 3."""
        probabilities = outputs.astype("<f8") if self.activated else softmax(outputs)
        first = outputs.argmax(axis=1)
        return np.stack([first, probabilities.max(axis=1), metrics.rank(outputs, self.targets[at])], axis=1)

    def scores(self, kept: Array, at: Array, paths: Sequence[str]) -> Scores:
        first, confidence, rank = kept[:, 0].astype(int), kept[:, 1], kept[:, 2]
        done = _of_classes(self.targets[at], first, confidence, self.labels, paths)
        top5 = Share.of_images(int((rank < TOP).sum()), len(rank)) if len(self.labels) > TOP else None
        assert done.correct is not None
        fields = {"top5": top5, "calibration": Calibration.of_images(confidence, done.correct)}
        return Scores({**done.fields, **fields}, done.table, done.predicted, done.correct)


class Neighbours(Task):
    """Features, whose nearest neighbours vote: `targets` n, the number of each image's class, or -1 where it has none."""

    kind: Kind = "neighbours"

    def __init__(self, targets: Array, labels: Sequence[str], *, k: int) -> None:
        super().__init__(targets, labels)
        self.k = k

    def check(self, outputs: Array, where: object) -> None:
        """Features have any width."""

    def scores(self, kept: Array, at: Array, paths: Sequence[str]) -> Scores:
        classes = self.targets[at]
        if not self.labels:
            return Scores({"k": self.k}, Table(("path",), tuple((path,) for path in paths)))
        done = _of_classes(classes, *votes(kept, classes, self.k), self.labels, paths)
        return Scores({**done.fields, "k": self.k}, done.table, done.predicted, done.correct)


class SeveralClasses(Task):
    """Classes that each apply or not: `targets` n c."""

    kind: Kind = "multi-label"

    def __init__(self, targets: Array, labels: Sequence[str], *, activated: bool) -> None:
        super().__init__(targets, labels)
        self.activated = activated

    def reduce(self, outputs: Array, at: Array) -> Array:
        return outputs.astype("<f8") if self.activated else sigmoid(outputs)

    def scores(self, kept: Array, at: Array, paths: Sequence[str]) -> Scores:
        applies, decided = self.targets[at], kept > 0.5
        found, correct = (applies & decided).sum(axis=0), (applies == decided).all(axis=1)
        precisions = [metrics.average_precision(kept[:, i], applies[:, i]) for i in range(len(self.labels))]
        rows = zip(self.labels, applies.sum(axis=0), found, decided.sum(axis=0), precisions, strict=True)
        classes = [
            ClassResult(
                label=label, images=int(images), recall=_share(right, images), precision=_share(right, chosen),
                average_precision=precision,
            )
            for label, images, right, chosen, precision in rows
            if images or chosen
        ]  # fmt: skip
        measured = [precision for precision in precisions if precision is not None]
        fields = {
            "accuracy": Share.of_images(int(correct.sum()), len(correct)),
            "mean_average_precision": sum(measured) / len(measured) if measured else None,
            "classes": tuple(classes),
        }
        actual, predicted = ([self._names(row) for row in x] for x in (applies, decided))
        probabilities = [AND.join(f"{x:.6g}" for x in row[chosen]) for row, chosen in zip(kept, decided, strict=True)]
        table = Table(COLUMNS, tuple(zip(paths, actual, predicted, probabilities, correct.tolist(), strict=True)))
        return Scores(fields, table, tuple(predicted), correct)

    def _names(self, row: Array) -> str:
        return AND.join(self.labels[i] for i in np.flatnonzero(row).tolist())


class Values(Task):
    """The values of a regression: `targets` n c."""

    kind: Kind = "regression"

    def scores(self, kept: Array, at: Array, paths: Sequence[str]) -> Scores:
        wanted, values = self.targets[at], kept.astype("<f8")
        errors = values - wanted
        results = tuple(
            ValueResult(
                label=label,
                mean_absolute_error=float(np.abs(errors[:, i]).mean()),
                root_mean_squared_error=float(np.sqrt(np.square(errors[:, i]).mean())),
                r_squared=metrics.r_squared(values[:, i], wanted[:, i]),
            )
            for i, label in enumerate(self.labels)
        )
        texts = ([AND.join(f"{x:.7g}" for x in row) for row in each] for each in (wanted, values))
        worst = np.abs(errors).max(axis=1).tolist()
        return Scores(
            {"values": results}, Table(("path", "label", "predicted", "error"), tuple(zip(paths, *texts, worst, strict=True)))
        )


def _of_classes(actual: Array, predicted: Array, scores: Array, labels: Sequence[str], paths: Sequence[str]) -> Scores:
    """Return the measures of predictions of one class each (n, n, n)."""
    counts = metrics.confusion(actual, predicted, len(labels))
    rows = zip(labels, counts.sum(axis=1), np.diag(counts), counts.sum(axis=0), strict=True)
    classes = [
        ClassResult(label=label, images=int(images), recall=_share(right, images), precision=_share(right, chosen))
        for label, images, right, chosen in rows
        if images or chosen
    ]
    np.fill_diagonal(counts, 0)
    pairs = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
    confusions = [(*divmod(int(pair), len(labels)), int(counts.flat[pair])) for pair in pairs]
    correct = actual == predicted
    fields = {
        "accuracy": Share.of_images(int(correct.sum()), len(correct)),
        "classes": tuple(classes),
        "confusions": tuple(Confusion(label=labels[i], predicted=labels[j], images=n) for i, j, n in confusions if n),
    }
    names, chosen = ([labels[i] for i in x] for x in (actual, predicted))
    table = Table(COLUMNS, tuple(zip(paths, names, chosen, scores.tolist(), correct.tolist(), strict=True)))
    return Scores(fields, table, tuple(chosen), correct)


def _share(part: Any, of: Any) -> float | None:
    return int(part) / int(of) if of else None
