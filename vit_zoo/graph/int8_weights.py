"""Rounding of weights to 8 bits such that integer products are the same on every CPU.

x86 without VNNI multiplies unsigned activations by signed weights with VPMADDUBSW, which adds two neighbouring products in
16 bits and saturates at 32,767. Activations reach 255, so the magnitudes of two neighbouring weights of a row (an even
input channel and the odd one after it) may add up to 128 at most: 255 * 128 = 32,640. The step of each row is chosen
accordingly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

LARGEST = 127  # symmetric: -128 is not used
PAIR = 128  # largest sum of two neighbours' magnitudes
DAMPING = 0.3  # share of the mean variance; the best of 0.1, 0.3, 1 and 3 on images not used for calibration
BLOCK = 64  # columns that are rounded before the later ones are updated


@dataclass(frozen=True)
class Rounded:
    """A matrix as int8 integers with a float32 step for each row."""

    integers: Array
    steps: Array

    @property
    def values(self) -> Array:
        """The dequantised matrix, float32."""
        return self.integers * self.steps[:, None]


def row_steps(matrix: Array, *, paired: bool = True, least: Array | float = 0.0) -> Array:
    """Return the step of each row, float32; 1 for a row of zeros.

    `paired` limits neighbouring weights to `PAIR`, as integer products require. `least` is the smallest step of a row.
    """
    magnitudes = np.abs(matrix)
    largest = magnitudes.max(axis=1)
    if paired:  # rounding both adds 1 at most to a pair of 127
        largest = np.maximum(largest, pair_sums(magnitudes).max(axis=1))
    steps = np.maximum(largest / LARGEST, least)
    return np.where(steps >= np.finfo("<f4").tiny, steps, 1).astype("<f4")


def pair_sums(matrix: Array) -> Array:
    """Add to each even column the odd one after it; with an odd number of columns the last one is unchanged."""
    sums = matrix[:, ::2].copy()
    sums[:, : matrix.shape[1] // 2] += matrix[:, 1::2]
    return sums


def nearest(matrix: Array, steps: Array) -> Rounded:
    """Round each value to the nearest multiple of its row's step."""
    return Rounded(np.clip(np.rint(matrix / steps[:, None]), -LARGEST, LARGEST).astype(np.int8), steps)


def compensated(matrix: Array, steps: Array, inputs: Array) -> Rounded:
    """Round such that products with `inputs`, recorded rows of the layer's input, stay close to the matrix's products.

    Columns are rounded one after the other. The error of each is compensated by the columns that are not rounded yet, as
    far as their inputs correlate (GPTQ: Frantar et al., 2023, section 3). No pair exceeds `PAIR`.
    """
    rows, width = matrix.shape
    moments = inputs.T.astype("<f8") @ inputs
    diagonal = np.diagonal(moments).mean() * DAMPING
    if not 0 < diagonal < np.inf:  # no inputs, or none that are finite
        return nearest(matrix, steps)
    moments[np.diag_indices(width)] += diagonal
    shares = np.linalg.cholesky(np.linalg.inv(moments)).T.astype("<f4")  # upper triangular: shares of an error for later columns
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
