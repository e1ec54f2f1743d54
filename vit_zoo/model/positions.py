"""Positions that are computed, not learned: sines and cosines for a grid of patches, row by row, in plain numpy.

In float64, rounded once to float32. The originals work in float32 where MAE does not; they differ by up to 1e-6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.model.spec import ViTSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Table = NDArray[np.float32]

THETA = 100.0  # of DINOv3's rotation; its longest period spans the image a hundred times over


def tables(spec: ViTSpec) -> dict[str, Table]:
    """What a model holds beside its weights: `pos_embed` 1 t d, or `rope_cos` and `rope_sin` t 1 e/2; else nothing."""
    if spec.pos.startswith("sincos"):
        return {"pos_embed": sincos(spec.grid, spec.dim, last_included=spec.pos == "sincos_moco")[None].astype(np.float32)}
    if spec.pos == "rope":
        angles = rotary(spec.grid, spec.dim_head)
        still = np.zeros((spec.prefix_tokens, *angles.shape[1:]))  # class token and registers are not turned
        angles = np.concatenate([still, angles])[:, None]
        return {"rope_cos": np.cos(angles).astype(np.float32), "rope_sin": np.sin(angles).astype(np.float32)}
    return {}


def sincos(grid: tuple[int, int], dim: int, *, last_included: bool) -> NDArray[np.float64]:
    """sin x, cos x, sin y, cos y of each patch at `dim / 4` frequencies from 1 down to 1/10000: t d.

    The last frequency is 1/10000 itself (MoCo v3, big_vision, vit-pytorch) or the one before it (MAE).
    """
    steps = frequencies(dim, last_included=last_included)
    y, x = (axis.reshape(-1, 1) * steps for axis in np.meshgrid(*map(np.arange, grid), indexing="ij"))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


def frequencies(dim: int, *, last_included: bool) -> NDArray[np.float64]:
    """Of `sincos`."""
    steps = dim // 4
    return 10_000.0 ** -(np.arange(steps) / (steps - last_included))


def periods(width: int) -> NDArray[np.float64]:
    """Of `rotary`."""
    return THETA ** (4 * np.arange(width // 4) / width)


def rotary(grid: tuple[int, int], width: int) -> NDArray[np.float64]:
    """The angles by which DINOv3 turns a head's queries and keys, first y, then x: t e/2 (Siméoni et al., 2025)."""
    centres = [(2 * np.arange(n) + 1) / n - 1 for n in grid]  # from -1 to 1, each side by itself
    angles = [2 * np.pi * axis.reshape(-1, 1) / periods(width) for axis in np.meshgrid(*centres, indexing="ij")]
    return np.concatenate(angles, axis=1)
