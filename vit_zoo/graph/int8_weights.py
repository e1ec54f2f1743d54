"""Weights in 8 bits whose integer products are the same on every CPU.

x86 without VNNI multiplies unsigned activations by signed weights with VPMADDUBSW, which adds two neighbouring products in
16 bits and cuts the sum off at 32,767. Activations reach 255, so the magnitudes of two neighbouring weights of a row (an
even input channel and the odd one after it) may add up to 128 at most: 255 * 128 = 32,640. The step of each row is chosen
so that they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

LARGEST = 127  # symmetric: -128 stays unused
PAIR = 128  # the largest sum of two neighbours' magnitudes
DAMPING = 0.3  # of the mean variance; of 0.1, 0.3, 1 and 3 the best on images that were not calibrated with
BLOCK = 64  # columns between two updates of the rest


@dataclass(frozen=True)
class Rounded:
    """A matrix as integers, I8, and the step of each of its rows, float32."""

    integers: Array
    steps: Array

    @property
    def values(self) -> Array:
        """The matrix that the integers stand for, float32."""
        return self.integers * self.steps[:, None]


def row_steps(matrix: Array, *, paired: bool = True, least: Array | float = 0.0) -> Array:
    """The step of each row's integers, float32; 1 for a row of zeros.

    `paired` limits neighbours as integer products need it. `least` is the smallest step that a row may have.
    """
    magnitudes = np.abs(matrix)
    largest = magnitudes.max(axis=1)
    if paired:  # rounding both adds 1 at most to a pair of 127
        largest = np.maximum(largest, pair_sums(magnitudes).max(axis=1))
    steps = np.maximum(largest / LARGEST, least)
    return np.where(steps >= np.finfo("<f4").tiny, steps, 1).astype("<f4")


def pair_sums(matrix: Array) -> Array:
    """Each even column plus the odd one after it; the last column of an odd number stays alone."""
    sums = matrix[:, ::2].copy()
    sums[:, : matrix.shape[1] // 2] += matrix[:, 1::2]
    return sums


def nearest(matrix: Array, steps: Array) -> Rounded:
    """Each value at the nearest integer of its row."""
    return Rounded(np.clip(np.rint(matrix / steps[:, None]), -LARGEST, LARGEST).astype(np.int8), steps)


def compensated(matrix: Array, steps: Array, inputs: Array) -> Rounded:
    """Integers whose products with `inputs` (rows of what the layer sees) are near those of the matrix.

    Columns are rounded one after the other, and the columns that are left take up each one's error as far as they vary
    together (GPTQ: Frantar et al., 2023, section 3). A pair is never larger than `PAIR`.
    """
    rows, width = matrix.shape
    moments = inputs.T.astype("<f8") @ inputs
    diagonal = np.diagonal(moments).mean() * DAMPING
    if not 0 < diagonal < np.inf:  # nothing was seen, or nothing that is finite
        return nearest(matrix, steps)
    moments[np.diag_indices(width)] += diagonal
    shares = np.linalg.cholesky(np.linalg.inv(moments)).T.astype("<f4")  # upper: how an error spreads to later columns
    left = matrix.astype("<f4") / steps[:, None]
    integers = np.zeros((rows, width), np.int8)
    last = np.zeros(rows, "<f4")
    for start in range(0, width, BLOCK):
        stop = min(start + BLOCK, width)
        errors = np.empty((rows, stop - start), "<f4")
        for column in range(start, stop):
            most = LARGEST if column % 2 == 0 else np.minimum(LARGEST, PAIR - np.abs(last))
            last = np.clip(np.rint(left[:, column]), -most, most)
            integers[:, column] = last
            errors[:, column - start] = error = (left[:, column] - last) / shares[column, column]
            left[:, column + 1 : stop] -= np.outer(error, shares[column, column + 1 : stop])
        left[:, stop:] -= errors @ shares[start:stop, stop:]
    return Rounded(integers, steps)
