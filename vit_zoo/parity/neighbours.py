"""Nearest neighbours of features by cosine: how many of them stay where the features are rounded, and the classes they vote for.

n images, the rows of features n d · k neighbours
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

TIE = 1e-6  # difference of two cosines that is rounding
BLOCK = 2**22  # cosines that are in memory at a time


def fewest_images(k: int) -> int:
    """Return the number of images of which a random choice of `k` neighbours shares at most half with another."""
    return 2 * k + 1


def shared_neighbours(found: Array, wanted: Array, k: int, count: int | None = None) -> Array:
    """Return for each image which share of its `k` nearest neighbours by `found` are among the `k` nearest by `wanted`.

    Both have one row for each image. `count`: only for so many images, the first ones, but with neighbours among all. One that is
    as near as the kth neighbour counts, so that of several copies of an image it does not matter which one was chosen.
    """
    shares = []
    for near, expected in zip(_cosines(found, count), _cosines(wanted, count), strict=True):
        chosen = np.take_along_axis(expected, _largest(near, k), axis=1)
        least = np.partition(expected, -k, axis=1)[:, -k, None]
        shares.append((chosen >= least - TIE).mean(axis=1))
    return np.concatenate(shares)


def votes(rows: Array, classes: Array, k: int) -> tuple[Array, Array]:
    """Return the class of each image by its `k` nearest neighbours among the others, and the share of them that voted for it.

    `classes` are numbers from 0. Of two classes with as many votes it is the one with the lower number, as in scikit-learn.
    """
    chosen, share = [], []
    for near in _cosines(rows, None):
        voting = classes[_largest(near, k)]
        counts = np.zeros((len(voting), int(classes.max()) + 1), dtype=int)
        np.add.at(counts, (np.arange(len(voting))[:, None], voting), 1)
        chosen.append(counts.argmax(axis=1))
        share.append(counts.max(axis=1) / k)
    return np.concatenate(chosen), np.concatenate(share)


def _cosines(rows: Array, count: int | None) -> Iterator[Array]:
    """Yield blocks of the cosine of each image with all images; an image is no neighbour of itself."""
    rows = rows.astype("<f8")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1)
    size = max(1, BLOCK // len(rows))
    for start in range(0, len(rows) if count is None else count, size):
        block = rows[start : start + size][: None if count is None else count - start]
        near = block @ rows.T
        near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf
        yield near


def _largest(near: Array, k: int) -> Array:
    """Return the positions of the `k` largest values of each row, in no order."""
    return np.argpartition(near, -k, axis=1)[:, -k:]
