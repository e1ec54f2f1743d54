"""Results of an evaluation: accuracy, errors of each class, calibration, and the difference between two files."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vit_zoo.errors import InputError, MissingDependency
from vit_zoo.inference.evaluate import metrics

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

PAIRS = 10  # confusions that are listed
Kind = Literal["classification", "neighbours", "multi-label", "regression"]


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Share(_Result):
    """A share of images with its 95 % confidence interval by Wilson's method."""

    count: int
    of: int
    share: float
    low: float
    high: float

    @classmethod
    def of_images(cls, count: int, of: int) -> Self:
        low, high = metrics.wilson(count, of)
        return cls(count=count, of=of, share=count / of, low=low, high=high)

    def __str__(self) -> str:
        decimals = decimals_for(self.of)
        return f"{percent(self.share, decimals)} ({100 * self.low:.{decimals}f} to {100 * self.high:.{decimals}f})"


class ClassResult(_Result):
    """One class: its images, the share of them that was found, and the share of images predicted as it that are of it."""

    label: str
    images: int
    recall: float | None  # null without images of the class
    precision: float | None  # null if no image was predicted as it
    average_precision: float | None = None  # of classes of which several can apply


class Confusion(_Result):
    """Images of one class that were predicted as another."""

    label: str
    predicted: str
    images: int


class Bin(_Result):
    """Images whose predicted class has a probability above `low` and up to `high`, with its mean, and their accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


class Calibration(_Result):
    """Expected calibration error: the difference between probability and accuracy over 15 bins of equal width, by images."""

    error: float
    bins: tuple[Bin, ...]

    @classmethod
    def of_images(cls, confidence: Array, correct: Array) -> Self:
        rows = metrics.calibration(confidence, correct)
        bins = tuple(Bin(low=a, high=b, images=n, confidence=sure, accuracy=right) for a, b, n, sure, right in rows)
        error = sum(each.images * abs(each.confidence - each.accuracy) for each in bins) / len(confidence)
        return cls(error=error, bins=bins)


class Difference(_Result):
    """Two files on the images that both could read; which of them are right on how many, and the difference of the shares.

    `low` and `high` are a 95 % confidence interval (Newcombe's method 10 for paired shares), and `p` is that of McNemar's
    exact test.
    """

    images: int
    both: int
    only_this: int
    only_other: int
    neither: int
    difference: float  # this file's share less the other's
    low: float
    high: float
    p: float
    same: float  # share of images with the same prediction

    @classmethod
    def of_images(cls, this: Array, other: Array, same: Array) -> Self:
        both, only_this, only_other = (int(x.sum()) for x in (this & other, this & ~other, other & ~this))
        neither = len(this) - both - only_this - only_other
        difference, low, high = metrics.paired_difference(both, only_other, only_this, neither)
        return cls(
            images=len(this), both=both, only_this=only_this, only_other=only_other, neither=neither, difference=difference,
            low=low, high=high, p=metrics.mcnemar(only_this, only_other), same=float(same.mean()),
        )  # fmt: skip


class SharedNeighbours(_Result):
    """The mean share of each image's `k` nearest neighbours, by cosine, that are among the `k` nearest by the other file."""

    k: int
    share: float


class ValueResult(_Result):
    """One value of a regression: mean absolute error, root of the mean squared error, and coefficient of determination."""

    label: str
    mean_absolute_error: float
    root_mean_squared_error: float
    r_squared: float | None  # null if all images have the same value


class Failure(_Result):
    """An image that was not measured."""

    path: str
    reason: str


@dataclass(frozen=True)
class Table:
    """One row for each image that was measured."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def csv(self) -> str:
        """Return the table as CSV text, with true and false in small letters."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in self.rows)
        return out.getvalue()


class Evaluation(_Result):
    """How well a file does on images whose classes or values are known; `str` of it is the text that the command prints.

    Attributes:
        file: The file.
        kind: `classification`, `multi-label`, `regression`, or for features `neighbours`: the class of each image is predicted
            by the classes of its nearest neighbours among the others.
        images: The number of images that were measured.
        failures: The images that could not be read, or whose outputs are not finite.
        accuracy: The share of right predictions; of several labels, the share of images on which all of them are right.
        top5: The share of images whose class is among the five first; None with five classes or less, and for other kinds.
        calibration: Of a classification.
        mean_average_precision: Of several labels: the mean over the classes that apply to some image.
        classes: The classes that some image has or was predicted as.
        confusions: The most frequent ones.
        values: Of a regression.
        k: The number of nearest neighbours, for features.
        against: The other file on the same images.
        difference: How this file's accuracy differs from the other's.
        shared_neighbours: For features, how many neighbours stay.
        table: A row for each image.
    """

    file: str
    kind: Kind
    images: int
    failures: tuple[Failure, ...] = ()
    accuracy: Share | None = None
    top5: Share | None = None
    calibration: Calibration | None = None
    mean_average_precision: float | None = None
    classes: tuple[ClassResult, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    values: tuple[ValueResult, ...] = ()
    k: int | None = None
    against: Evaluation | None = None
    difference: Difference | None = None
    shared_neighbours: SharedNeighbours | None = None
    table: Table = Field(exclude=True, repr=False)

    def __str__(self) -> str:
        from vit_zoo.inference.evaluate.text import text_of

        return text_of(self)

    def to_pandas(self, rows: Literal["images", "classes"] = "images") -> Any:
        """Return a pandas data frame with a row for each image, or for each class. Raises MissingDependency without pandas."""
        if rows not in ("images", "classes"):
            raise InputError(f"unknown rows {rows!r}; choose from images, classes")
        try:
            import pandas as pd
        except ImportError:
            raise MissingDependency("a data frame needs pandas", hint="pip install pandas") from None
        if rows == "images":
            return pd.DataFrame(list(self.table.rows), columns=list(self.table.columns))
        return pd.DataFrame([row.model_dump() for row in self.classes], columns=list(ClassResult.model_fields))


def decimals_for(images: int) -> int:
    """Return the decimals of a percentage that so many images can tell."""
    return 1 if images < 5000 else 2


def percent(share: float, decimals: int = 1) -> str:
    return f"{100 * share:.{decimals}f} %"
