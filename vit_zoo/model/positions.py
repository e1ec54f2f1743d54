"""Fixed positions of a grid of patches: sine and cosine tables, computed in numpy.

Patches are in row-major order. Tables are computed in float64 and rounded once to float32. The original implementations,
except MAE's, compute in float32 and differ by up to 1e-6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.model.spec import ViTSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[np.float32]

THETA = 100.0  # base of DINOv3's rotation: the longest period is 100 times as long as the image


def tables(spec: ViTSpec) -> dict[str, Table]:
    """Return the tables that a model holds in addition to its weights, by name, in float32.

    `pos_embed` 1 t d for sine-cosine positions, `rope_cos` and `rope_sin` t 1 e/2 for rotary ones, none for others.
    """
    if spec.pos.startswith("sincos"):
        return {"pos_embed": sincos(spec.grid, spec.dim, last_included=spec.pos == "sincos_moco")[None].astype(np.float32)}
    if spec.pos == "rope":
        angles = rotary(spec.grid, spec.dim_head)
        prefix = np.zeros((spec.prefix_tokens, *angles.shape[1:]))  # class token and registers are not rotated
        angles = np.concatenate([prefix, angles])[:, None]
        return {"rope_cos": np.cos(angles).astype(np.float32), "rope_sin": np.sin(angles).astype(np.float32)}
    return {}


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


def periods(width: int) -> NDArray[np.float64]:
    """Return the periods of `rotary` for heads of this width, in ascending order: width / 4."""
    return THETA ** (4 * np.arange(width // 4) / width)


def rotary(grid: tuple[int, int], width: int) -> NDArray[np.float64]:
    """Return the angles of DINOv3's rotation of queries and keys (Siméoni et al., 2025): t e/2, those of y, then of x."""
    centres = [(2 * np.arange(n) + 1) / n - 1 for n in grid]  # of patches, from -1 to 1 along each axis
    angles = [2 * np.pi * axis.reshape(-1, 1) / periods(width) for axis in np.meshgrid(*centres, indexing="ij")]
    return np.concatenate(angles, axis=1)
