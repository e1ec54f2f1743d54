"""Test images of a self-check, and the numbers that an output is reduced to, in arithmetic that any language can repeat.

Everything is made from a hash of 32-bit integers. docs/selfcheck.md is the specification; the standalone checkers in
`checkers/` repeat this file in Python, JavaScript and C++.

Shapes: b batch · c channels · H W image
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

IMAGES = ("noise", "pattern")
WEIGHTS, PLACES = 1 << 30, 1 << 31  # added to an index before it is hashed: numbers of two purposes are unrelated


def hashed(x: Array) -> Array:
    """Return a hash of each number, uint32: Wellons' lowbias32 (2018)."""
    x = x.astype(np.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))  # type: ignore[no-any-return]


def image_bytes(channels: int, height: int, width: int) -> Array:
    """Return both images as uint8: 2 c H W.

    The first is noise. The second has ramps that differ between rows and columns and between channels, so that a wrong layout,
    order of channels or order of patches shows.
    """
    count = channels * height * width
    noise = (hashed(np.arange(count)) >> np.uint32(24)).reshape(channels, height, width)
    c, y, x = np.ogrid[:channels, :height, :width]
    ramps = (c + 1) * x * 256 // width + (c + 2) * y * 256 // height
    return np.stack([noise, ramps % 256]).astype(np.uint8)


def as_pixels(images: Array) -> Array:
    """Return the pixels that bytes stand for, from -2 to 127/64: float32, exact in float16."""
    return ((images.astype(np.float32) - 128) / 64).astype(np.float32)


def batches(shape: Sequence[int], kind: str) -> Iterator[Array]:
    """Yield the inputs to run, of this shape: float32 b c H W, or uint8 b H W c.

    Row i of a batch holds image i modulo 2. A batch of one image is run twice, the second time with the second image.
    """
    size = shape[0]
    if kind == "uint8":
        images = np.moveaxis(image_bytes(shape[3], shape[1], shape[2]), 1, -1)
    else:
        images = as_pixels(image_bytes(*shape[1:]))
    for first in range(2 if size == 1 else 1):
        yield np.ascontiguousarray(images[(np.arange(size) + first) % 2])


def places(values: int, count: int) -> Array:
    """Return the positions of `count` values to compare among `values`; all of them, in order, if there are no more."""
    chosen = hashed(np.arange(count) + PLACES).astype(np.int64) % values
    return np.arange(values) if values <= count else chosen


class Reduced(NamedTuple):
    """What the output of one image is compared by: the values at `places`, the L2 norm, and a weighted sum of all values."""

    values: tuple[float, ...]
    norm: float
    projection: float


def reduced(output: Array, count: int) -> Reduced:
    """Reduce the output of one image, of any shape, in double precision. The weights of the sum are from -1 to 127/128."""
    x = output.reshape(-1).astype(np.float64)
    weights = (hashed(np.arange(x.size) + WEIGHTS) >> np.uint32(24)).astype(np.float64) / 128 - 1
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity differ from everything expected
        return Reduced(tuple(x[places(x.size, count)].tolist()), math.sqrt(float(x @ x)), float(weights @ x))
