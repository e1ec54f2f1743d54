"""Inputs of graphs that take the patches of images of any grids: their names, and the arrays for images of one size.

The names and layouts are those of transformers' Siglip2 with NaFlex: patches in row-major order, each (row, column, channel),
padded to the longest sequence of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError
from vit_zoo.graph.values import BATCH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vit_zoo.model.spec import ViTSpec

    Array = np.ndarray[Any, np.dtype[Any]]

VALUES, MASK, GRIDS = "pixel_values", "pixel_attention_mask", "spatial_shapes"  # b t (p q c), b t, b 2
NAMES = (VALUES, MASK, GRIDS)


def image_axes(spec: ViTSpec) -> tuple[int | str, ...]:
    """Return the axes of images whose patches are the input."""
    return BATCH, spec.channels, "height", "width"


def flat_patches(image: Array, patch_size: tuple[int, int]) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Cut a prepared image, c H W, into flat patches, t (p q c). Return them with the grid. Raises InputError for a remainder."""
    import numpy as np
    from einops import rearrange

    (height, width), (p, q) = image.shape[1:], patch_size
    if height % p or width % q or not height or not width:
        raise InputError(f"expected height and width that are multiples of {p} and {q}, got {height}x{width}")
    patches = rearrange(image, "c (h p) (w q) -> (h w) (p q c)", p=p, q=q)
    return np.ascontiguousarray(patches, dtype=np.float32), (height // p, width // q)


def grid_for(size: tuple[int, int], patch_size: tuple[int, int], most: int) -> tuple[int, int]:
    """Return rows and columns of the largest image of this size's aspect ratio, rounded up to patches, with `most` of them."""
    (height, width), (p, q) = size, patch_size
    by_rows = ((Fraction(n * p, height), n, -(-width * n * p // (height * q))) for n in range(1, most + 1))
    by_columns = ((Fraction(n * q, width), -(-height * n * q // (width * p)), n) for n in range(1, most + 1))
    _, rows, columns = max(grid for grid in chain(by_rows, by_columns) if grid[1] * grid[2] <= most)
    return rows, columns


def checked(inputs: Mapping[str, Array], spec: ViTSpec, where: object) -> dict[str, Array]:
    """Return the inputs in their types. Raises InputError if they do not fit the model or each other."""
    import numpy as np

    if set(inputs) != set(NAMES):
        raise InputError(f"expected the inputs {', '.join(NAMES)}, got {', '.join(map(str, inputs))}", where=where)
    values, mask, grids = (np.asarray(inputs[name]) for name in NAMES)
    width = spec.channels * spec.patch_size[0] * spec.patch_size[1]
    if values.ndim != 3 or values.shape[2] != width or mask.shape != values.shape[:2] or grids.shape != (len(values), 2):
        wanted = f"[images, patches, {width}], [images, patches] and [images, 2]"
        shapes = ", ".join(str(list(x.shape)) for x in (values, mask, grids))
        raise InputError(f"expected the shapes {wanted}, got {shapes}", where=where)
    lengths = grids.prod(1)
    first = np.arange(values.shape[1]) < lengths[:, None]
    wrong = np.flatnonzero((grids < 1).any(1) | (lengths > values.shape[1]) | (mask.astype(bool) != first).any(1))
    if len(wrong):
        grid, count = "x".join(map(str, grids[wrong[0]])), int(mask[wrong[0]].astype(bool).sum())
        raise InputError(f"image {wrong[0]}: a grid of {grid} does not fit a mask of {count} patches", where=where)
    return {VALUES: values.astype(np.float32), MASK: mask.astype(bool).astype(np.int32), GRIDS: grids.astype(np.int64)}


def padded(images: Sequence[Array], patch_size: tuple[int, int]) -> dict[str, Array]:
    """Return the inputs for prepared images, each c H W of any size, in one batch."""
    import numpy as np

    cut = [flat_patches(image, patch_size) for image in images]
    longest = max((len(patches) for patches, _ in cut), default=0)
    values = np.zeros((len(cut), longest, cut[0][0].shape[1] if cut else 0), np.float32)
    mask = np.zeros((len(cut), longest), np.int32)
    for row, (patches, _) in enumerate(cut):
        values[row, : len(patches)] = patches
        mask[row, : len(patches)] = 1
    return {VALUES: values, MASK: mask, GRIDS: np.array([grid for _, grid in cut], np.int64).reshape(-1, 2)}
