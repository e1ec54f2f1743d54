"""Measures of predictions against known classes or values, with their confidence intervals, in NumPy.

n images · c classes
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

CONFIDENCE = 0.95
BINS = 15  # of equal width, as in Guo et al., On Calibration of Modern Neural Networks (2017)
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def wilson(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share by Wilson's score method, without continuity correction."""
    share, square = count / of, _Z**2 / of
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    # at 0 and at all the limit is the share itself, which rounding would miss
    return (0.0 if count == 0 else centre - half), (1.0 if count == of else centre + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test: two-sided, binomial over the images that only one of two files gets right."""
    n = only_first + only_second
    term = total = 1
    for i in range(min(only_first, only_second)):
        term = term * (n - i) // (i + 1)  # the binomial coefficient n over i + 1
        total += term
    p: float = 2 * total / 2**n  # exact integers up to here
    return min(1.0, p)


def paired_difference(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float, float]:
    """Return the difference of two shares on the same images, second less first, and its 95 % confidence interval.

    The interval is Newcombe's (1998, method 10): Wilson's limits of both shares, combined with their correlation.
    """
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    down1, up1, down2, up2 = first / n - low1, high1 - first / n, second / n - low2, high2 - second / n
    product = both * neither - only_first * only_second
    corrected = max(product - n / 2, 0.0) if product > 0 else product
    margins = first * (n - first) * second * (n - second)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    difference = (only_second - only_first) / n
    below = math.sqrt(max(0.0, down2**2 - 2 * phi * down2 * up1 + up1**2))
    above = math.sqrt(max(0.0, up2**2 - 2 * phi * up2 * down1 + down1**2))
    return difference, difference - below, difference + above


def rank(scores: Array, classes: Array) -> Array:
    """Return how many classes each image scores higher than its own (n c, n): 0 where it is the first.

    Of two classes with the same score the one with the lower number comes first, as in predictions.
    """
    own = scores[np.arange(len(scores)), classes][:, None]
    before = np.arange(scores.shape[1]) < classes[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(axis=1)  # type: ignore[no-any-return]


def confusion(actual: Array, predicted: Array, count: int) -> Array:
    """Return how many images of each class (rows) were predicted as each class (columns): c c."""
    return np.bincount(actual * count + predicted, minlength=count**2).reshape(count, count)


def calibration(confidence: Array, correct: Array) -> Iterator[tuple[float, float, int, float, float]]:
    """Yield each bin of confidences that has images: its limits (low exclusive), their number, mean confidence, and accuracy."""
    number = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    for i in np.unique(number):
        inside = number == i
        yield i / BINS, (i + 1) / BINS, int(inside.sum()), float(confidence[inside].mean()), float(correct[inside].mean())


def average_precision(scores: Array, applies: Array) -> float | None:
    """Return the average precision of one class, the precision at each score weighted by the gain in recall; None without images.

    Images with the same score are taken together, and nothing is interpolated, as in scikit-learn.
    """
    if not applies.any():
        return None
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last image of each score
    hits = np.cumsum(applies[order])[last]
    return float((np.diff(hits, prepend=0) / hits[-1] * hits / (last + 1)).sum())


def r_squared(values: Array, wanted: Array) -> float | None:
    """Return the coefficient of determination of a regression; None where all wanted values are the same."""
    spread = float(np.square(wanted - wanted.mean()).sum())
    return 1 - float(np.square(values - wanted).sum()) / spread if spread else None
