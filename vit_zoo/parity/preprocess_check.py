"""Files with their preprocessing inside: what they make of images of odd sizes, against Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from vit_zoo.formats.onnx_file import inner_values
from vit_zoo.graph.build import INPUT
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.parity.inputs import photograph

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

ALLOWED = {"preprocess": (2, 0.005), "preprocess-exact": (0, 0.0)}  # levels of 255, and the share of values that is off
# height and width as multiples of the model's, and the batch: shrunk, tall (columns before rows), grown, wide, one axis each
SHAPES = ((1.37, 1.93, 2), (4.31, 1.27, 1), (0.61, 0.43, 3), (1.21, 3.7, 1), (0.7, 1.9, 2), (2.3, 0.8, 1))


class Preparation(BaseModel):
    """How far the pixels that a file prepares are from Pillow's: in levels of 255, and which share of them is off.

    `difference` is the largest relative difference of the model's first output that comes of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: str
    images: int
    levels: int
    share: float
    difference: float

    @property
    def ok(self) -> bool:
        levels, share = ALLOWED[self.form]
        return self.levels <= levels and self.share <= share

    def __str__(self) -> str:
        off = f", {100 * self.share:.2f} % of them off" if self.levels else ""
        return f"pixels within {self.levels} of 255 levels of Pillow's{off}, output within {self.difference:.1e}"


def pictures(how: Preprocess, count: int) -> Iterator[Array]:
    """Batches of whole images, b h w c, uint8: photographs in odd shapes, and noise, which overshoots most."""
    random = np.random.default_rng(0)
    for high, wide, batch in SHAPES[:count]:
        h, w = (int(factor * side) | 1 for factor, side in zip((high, wide), how.size, strict=True))
        found = [photograph(name).resize((w, h), Image.Resampling.BICUBIC) for name in ("coffee", "cat")]
        found.append(Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)))
        yield np.stack([how.whole(found[-1 - i]) for i in range(batch)])


def by_pillow(how: Preprocess, images: Array) -> Array:
    """The model's input for these images: b c H W."""
    return np.stack([how(Image.fromarray(x if x.shape[-1] == 3 else x[..., 0])) for x in images])


def inside(path: Path, images: Array) -> Array:
    """What the file makes of them before its model sees them: b c H W."""
    return inner_values(path, [INPUT], images)[INPUT]


def levels_apart(how: Preprocess, given: Array, wanted: Array) -> Array:
    """Whole levels of 255 between two inputs of the model."""
    scale = 255 * np.reshape(how.std, (-1, 1, 1))
    found: Array = np.rint(np.abs(given - wanted) * scale).astype(int)
    return found
