"""Resizing of position tables, relative biases and patch projections, by the recipe of their source (`resize_recipes.py`).

Patch projections: Beyer et al., 2023 (FlexiViT), section 3.4.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.model.resize_recipes import OTHER_RECIPE, Recipe, recipe_named

if TYPE_CHECKING:
    import torch

    from vit_zoo.files.stored import Array

Grid = tuple[int, int]
MAX_PATCH = 4096  # pixels of a patch that is resized; the matrix of the interpolation has the product of two such numbers


def resize_positions(table: Stored, prefix: int, old: Grid, new: Grid, recipe: str) -> Stored:
    """Resize a table 1 (prefix + rows x columns) d to another grid. The entries of the prefix stay the same bit for bit."""
    if table.shape[1] != prefix + old[0] * old[1]:
        raise RefusedContent(f"expected {prefix} + {old[0]}x{old[1]} positions, got {table.shape[1]}")
    chosen = recipe_named(recipe)
    if old == new:
        return table
    if chosen.mode == "rows" and new[0] * new[1] > old[0] * old[1]:
        cause = f"recipe '{recipe}' takes the first positions of a table: {old[0]}x{old[1]} are too few for {new[0]}x{new[1]}"
        raise InputError(cause, hint=f"another recipe interpolates: {OTHER_RECIPE}", options=[OTHER_RECIPE])
    shape = (1, prefix + new[0] * new[1], table.shape[2])
    return Stored(table.dtype, shape, partial(_positions, table, prefix, old, new, chosen))


def resize_relative_biases(table: Stored, old: Grid, new: Grid, recipe: str) -> Stored:
    """Resize a table of relative biases, distances n, to those of another grid. The class token's three rows stay the same."""
    if old == new:
        return table
    rows = math.prod(2 * side - 1 for side in new) + 3
    return Stored(table.dtype, (rows, table.shape[1]), partial(_relative_biases, table, old, new, recipe_named(recipe)))


def resize_kernel(kernel: Stored, new: Grid, recipe: str) -> Stored:
    """Resize a patch projection d c p q so that its products with resized patches stay as close as possible."""
    chosen = recipe_named(recipe)
    if kernel.shape[2:] == new:
        return kernel
    if chosen.kernel is None:
        hint = f"another recipe resizes the projection: {OTHER_RECIPE}"
        raise InputError(f"recipe '{recipe}' keeps the patch size", hint=hint, options=[OTHER_RECIPE])
    old = kernel.shape[2:]
    if max(math.prod(old), math.prod(new)) > MAX_PATCH:
        sizes = f"{old[0]}x{old[1]} to {new[0]}x{new[1]}"
        raise InputError(f"cannot resize patches of {sizes}: the limit is {MAX_PATCH:,} pixels")
    return Stored(kernel.dtype, (*kernel.shape[:2], *new), partial(_kernel, kernel, new, chosen))


def _positions(table: Stored, prefix: int, old: Grid, new: Grid, recipe: Recipe) -> Array:
    import torch
    import torch.nn.functional as F

    positions = _tensor(table)
    if recipe.mode == "rows":
        return _array(positions[:, : prefix + new[0] * new[1]])
    grid = positions[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = grid if grid.dtype is torch.float64 else grid.float()
    if recipe.offset:
        scale = tuple((n + recipe.offset) / n0 for n, n0 in zip(new, old, strict=True))
        resized = F.interpolate(grid, scale_factor=scale, mode=recipe.mode)
    else:
        resized = F.interpolate(grid, size=new, mode=recipe.mode, align_corners=recipe.align_corners, antialias=recipe.antialias)
    if tuple(resized.shape[2:]) != new:
        raise InputError(f"this recipe gives a grid of {resized.shape[2]}x{resized.shape[3]} instead of {new[0]}x{new[1]}")
    rest = resized.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return _array(torch.cat([positions[:, :prefix], rest], 1))


def _relative_biases(table: Stored, old: Grid, new: Grid, recipe: Recipe) -> Array:
    import torch
    import torch.nn.functional as F

    biases = _tensor(table)
    sizes, new_sizes = ([2 * side - 1 for side in grid] for grid in (old, new))
    patches = biases[:-3].reshape(*sizes, -1)
    patches = patches if patches.dtype is torch.float64 else patches.float()
    if recipe.relative == "bilinear":
        resized = F.interpolate(patches.permute(2, 0, 1)[None], size=new_sizes, mode="bilinear")[0].permute(1, 2, 0)
    else:
        vertical, horizontal = (
            _between_growing_steps(count, new_count).to(patches.dtype) for count, new_count in zip(sizes, new_sizes, strict=True)
        )
        resized = torch.einsum("yr,xc,rcn->yxn", vertical, horizontal, patches)
    return _array(torch.cat([resized.flatten(0, 1).to(biases.dtype), biases[-3:]]))


def _between_growing_steps(old: int, new: int) -> torch.Tensor:
    """Return the matrix of a linear interpolation, new x old, in float64 (Bao et al., 2022, fine-tuning at other sizes).

    The old values are at distances from the centre whose steps grow by a factor, so that the last is that of the new ones.
    """
    import torch

    if old == 1:
        return torch.ones(new, 1, dtype=torch.float64)
    half, end = old // 2, new // 2
    low, high = 1.01, 1.5
    factor = low
    while high - low > 1e-6:
        factor = (low + high) / 2
        low, high = (low, factor) if (1 - factor**half) / (1 - factor) > end else (factor, high)
    steps = factor ** torch.arange(half, dtype=torch.float64)
    distances = torch.cumsum(steps, 0)
    known = torch.cat([-distances.flip(0), torch.zeros(1, dtype=torch.float64), distances])
    wanted = torch.arange(-end, end + 1, dtype=torch.float64)
    right = torch.searchsorted(known, wanted).clamp(1, old - 1)
    left = right - 1
    share = ((wanted - known[left]) / (known[right] - known[left])).clamp(0, 1)
    matrix = torch.zeros(new, old, dtype=torch.float64)
    places = torch.arange(new)
    matrix[places, left] = 1 - share
    matrix[places, right] += share
    return matrix


def _kernel(kernel: Stored, new: Grid, recipe: Recipe) -> Array:
    import torch
    import torch.nn.functional as F

    weight = _tensor(kernel)
    old = (weight.shape[2], weight.shape[3])
    assert recipe.kernel is not None
    mode, antialias = recipe.kernel
    pixels = torch.eye(old[0] * old[1], dtype=torch.float64).reshape(-1, 1, *old)
    images = F.interpolate(pixels, size=new, mode=mode, antialias=antialias, align_corners=False)
    inverse = torch.linalg.pinv(images.flatten(1))  # new x old: the pseudoinverse of B transposed
    return _array((weight.double().flatten(2) @ inverse.T).reshape(*weight.shape[:2], *new).to(weight.dtype))


def _tensor(stored: Stored) -> torch.Tensor:
    import torch

    tensor = torch.from_numpy(stored.array())
    return tensor.view(torch.bfloat16) if stored.dtype == "BF16" else tensor


def _array(tensor: torch.Tensor) -> Array:
    import torch

    raw = tensor.contiguous()
    return (raw.view(torch.uint16) if raw.dtype is torch.bfloat16 else raw).numpy()
