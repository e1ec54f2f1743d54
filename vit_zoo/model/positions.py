"""Positions of a grid of patches that are not learned: sines and cosines, and rows of tables of relative biases, in numpy.

Patches are in row-major order. Tables are computed in float64 and rounded once to float32. The original implementations,
except MAE's, compute in float32 and differ by up to 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.model.spec import ViTSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True)
class Rotation:
    """A form of rotary positions: of an angle for each of e/4 frequencies, for rows and for columns.

    * `base`: the frequencies fall from 1 to nearly 1 / base.
    * `centred`: coordinates are those of the patches' centres, from -2 pi to 2 pi; otherwise the numbers of rows and columns.
    * `columns_first`: the angles of columns come before those of rows.
    * `after_class`: the class token has number 0, so that rows and columns are counted from 1.
    """

    base: float
    centred: bool = False
    columns_first: bool = True
    after_class: bool = False


# the values of `spec.rope`. Sources: Siméoni et al., 2025; Fang et al., 2023; Bolya et al., 2025; Heo et al., 2024
ROTATIONS = {
    "dinov3": Rotation(100.0, centred=True, columns_first=False),
    "eva02": Rotation(10_000.0, columns_first=False),
    "pe": Rotation(10_000.0, after_class=True),
    "axial": Rotation(100.0),
}


def tables(spec: ViTSpec) -> dict[str, Table]:
    """Return the tables that a model holds in addition to its weights, by name, in float32.

    `pos_embed` 1 t d for sine-cosine positions, `rope_cos` and `rope_sin` t 1 e/2 for rotary ones, or `rope_places` 2 t 1 1,
    columns and rows, where frequencies are learned; `relative_rows` t t, int64, for relative biases; none for others.
    """
    result: dict[str, Table] = {}
    if spec.pos.startswith("sincos"):
        result["pos_embed"] = sincos(spec.grid, spec.dim, last_included=spec.pos == "sincos_moco")[None].astype(np.float32)
    if spec.rotates:
        angles = places(spec.grid) if spec.rope == "mixed" else rotary(spec)
        prefix = np.zeros((spec.prefix_tokens, *angles.shape[1:]))  # class token and registers are not rotated
        angles = np.concatenate([prefix, angles])
        if spec.rope == "mixed":
            result["rope_places"] = np.ascontiguousarray(angles.T[:, :, None, None], np.float32)
        else:
            result = {
                "rope_cos": np.cos(angles)[:, None].astype(np.float32),
                "rope_sin": np.sin(angles)[:, None].astype(np.float32),
            }
    if spec.relative_bias != "none":
        result["relative_rows"] = relative_rows(spec.grid)
    return result


def sincos(grid: tuple[int, int], dim: int, *, last_included: bool) -> NDArray[np.float64]:
    """Return sin x, cos x, sin y, cos y of each patch at `dim / 4` frequencies from 1 down to 1/10000: t d.

    `last_included`: the last frequency is 1/10000 (MoCo v3, big_vision, vit-pytorch), otherwise one step above it (MAE).
    """
    factors = frequencies(dim, last_included=last_included)
    y, x = (axis.reshape(-1, 1) * factors for axis in np.meshgrid(*map(np.arange, grid), indexing="ij"))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


def frequencies(dim: int, *, last_included: bool) -> NDArray[np.float64]:
    """Return the frequencies of `sincos`, in descending order: dim / 4."""
    steps = dim // 4
    return 10_000.0 ** -(np.arange(steps) / (steps - last_included))


def rotary(spec: ViTSpec) -> NDArray[np.float64]:
    """Return the angles by which the queries and keys of each patch are rotated: t e/2, the form is `spec.rope`."""
    rotation = ROTATIONS[spec.rope]
    axes = [coordinates(count, axis, spec) for axis, count in enumerate(spec.grid)]
    y, x = (axis.reshape(-1, 1) * rope_frequencies(spec) for axis in np.meshgrid(*axes, indexing="ij"))
    return np.concatenate([x, y] if rotation.columns_first else [y, x], axis=1)


def coordinates(count: int, axis: int, spec: ViTSpec) -> NDArray[np.float64]:
    """Return the coordinates of `count` rows (axis 0) or columns (axis 1)."""
    if ROTATIONS[spec.rope].centred:
        return 2 * np.pi * ((2 * np.arange(count, dtype=np.float64) + 1) / count - 1)
    scale = 1.0 if spec.rope_grid is None else spec.rope_grid[axis] / count
    return (np.arange(count, dtype=np.float64) + first_place(spec)) * scale


def first_place(spec: ViTSpec) -> int:
    """Return the number of the first row and column."""
    return int(ROTATIONS[spec.rope].after_class and spec.class_token)


def rope_frequencies(spec: ViTSpec) -> NDArray[np.float64]:
    """Return the frequencies of `rotary`, in descending order: e/4."""
    return ROTATIONS[spec.rope].base ** (-4 * np.arange(spec.dim_head // 4) / spec.dim_head)


def places(grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return column and row of each patch: t 2."""
    y, x = np.meshgrid(*map(np.arange, grid), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


def relative_rows(grid: tuple[int, int]) -> NDArray[np.int64]:
    """Return the row of a table of relative biases for each pair of tokens, the class token first: t t (Bao et al., 2022).

    The table has a row for each distance between patches, from those above and left, then rows for the class token to a patch,
    a patch to the class token, and the class token to itself.
    """
    height, width = grid
    y, x = (np.subtract.outer(axis.ravel(), axis.ravel()) for axis in np.meshgrid(*map(np.arange, grid), indexing="ij"))
    patches = (y + height - 1) * (2 * width - 1) + x + width - 1
    distances = (2 * height - 1) * (2 * width - 1)
    result = np.full((1 + height * width,) * 2, distances, np.int64)
    result[1:, 0] = distances + 1
    result[0, 0] = distances + 2
    result[1:, 1:] = patches
    return result
