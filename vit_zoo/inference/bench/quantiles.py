"""Order of the measurements, and quantiles with confidence intervals that assume no distribution.

The interval of a quantile lies between two of the sorted measurements. Which two follows from the binomial distribution of the
number of measurements below the quantile (order statistics), so it holds for every distribution, at least with the confidence
that is stated. Too few measurements have no such interval: of a median at least 6 are needed, of a 95th percentile 72.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Quantile:
    """A quantile of measurements, and its confidence interval; a limit is None where there are too few measurements for it."""

    value: float
    low: float | None
    high: float | None


def quantile(values: Sequence[float], q: float) -> Quantile:
    """Return a quantile of independent measurements, interpolated linearly, with its interval of CONFIDENCE."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    low, high = _ranks(len(ordered), q)
    return Quantile(
        value=ordered[below] + (at - below) * (ordered[above] - ordered[below]),
        low=None if low is None else ordered[low],
        high=None if high is None else ordered[high],
    )


def _ranks(count: int, q: float) -> tuple[int | None, int | None]:
    """Return the indices of the sorted measurements between which the quantile lies, each missed in (1 - CONFIDENCE) / 2."""
    tail = (1 - CONFIDENCE) / 2
    below, low, high = 0.0, None, None
    for i in range(count + 1):  # i measurements are below the quantile
        if below <= tail and i:
            low = i - 1
        below += math.comb(count, i) * q**i * (1 - q) ** (count - i)
        if high is None and 1 - below <= tail and i < count:
            high = i
    return low, high


def shuffled_rounds(rows: int, seed: int = 0) -> Iterator[list[int]]:
    """Yield the order of the rows in each round, without end: each row once, in an order that the seed determines."""
    order, shuffle = list(range(rows)), random.Random(seed)  # noqa: S311 - no secret
    while True:
        shuffle.shuffle(order)
        yield list(order)
