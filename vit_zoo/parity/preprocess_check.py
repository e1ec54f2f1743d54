"""Preprocessing inside exported files: the pixels that they prepare from images of odd sizes, compared with Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from vit_zoo.graph.build import INPUT
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.parity.inputs import photograph

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.sessions import Sessions

ALLOWED = {"preprocess": (2, 0.005), "preprocess-exact": (0, 0.0)}  # levels out of 255, and the share of values that differ
ROUNDING = 0.02  # levels
# Height and width as multiples of the model's, and the batch size. In turn: both axes shrink; tall, where Pillow resizes columns
# before rows; both axes grow; wide; and twice, only one axis shrinks.
SHAPES = ((1.37, 1.93, 2), (4.31, 1.27, 1), (0.61, 0.43, 3), (1.21, 3.7, 1), (0.7, 1.9, 2), (2.3, 0.8, 1))


class Preparation(BaseModel):
    """Difference between the pixels that a file prepares and Pillow's: in levels out of 255, and the share that differs.

    `difference` is the largest relative difference that this causes in the model's first output.
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
        share = f" ({100 * self.share:.2f} % of them)" if self.levels else ""
        return f"pixels{share} differ from Pillow's by up to {self.levels} of 255 levels, the output by {self.difference:.1e}"


def raw_batches(preprocess: Preprocess, count: int) -> Iterator[Array]:
    """Yield the first `count` batches of raw images, b h w c, uint8: photographs in odd shapes, and noise.

    Noise comes first in each batch, since it overshoots most when it is resized. If the shorter edge is resized, the crop of at
    least one batch, the second, depends on `crop_rounding`.
    """
    random = np.random.default_rng(0)
    shapes = [
        (*(int(factor * side) | 1 for factor, side in zip((high, wide), preprocess.size, strict=True)), batch)
        for high, wide, batch in SHAPES[:count]
    ]
    edge, side = preprocess.resize_to, preprocess.size[0]
    if isinstance(edge, int) and count > 1 and not any(preprocess.crop_differs_for(w, h) for h, w, _ in shapes):
        tall = 3 * edge + (side + 3 - 3 * edge) % 4  # with a margin of 4n + 3
        shapes[1] = (2 * tall, 2 * edge, 1)
    for h, w, batch in shapes:
        images = [photograph(name).resize((w, h), Image.Resampling.BICUBIC) for name in ("coffee", "cat")]
        images.append(Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)))
        yield np.stack([preprocess.whole(images[-1 - i]) for i in range(batch)])


def prepare_by_pillow(preprocess: Preprocess, images: Array) -> Array:
    """Return the model's input for raw images, as Pillow prepares it: b c H W."""
    return np.stack([preprocess(Image.fromarray(x if x.shape[-1] == 3 else x[..., 0])) for x in images])


def prepare_in_file(checked: Sessions, images: Array) -> Array:
    """Return the model's input for raw images, as the file itself prepares it: b c H W."""
    return checked.inner_values([INPUT], images)[INPUT]


def level_differences(preprocess: Preprocess, actual: Array, expected: Array) -> Array:
    """Return the difference of two model inputs, in whole levels out of 255, rounded up.

    Where bytes are resized, differences are whole levels; ROUNDING is allowed for the arithmetic of floats.
    """
    scale = 255 * np.reshape(preprocess.std, (-1, 1, 1))
    levels: Array = np.ceil(np.abs(actual - expected) * scale - ROUNDING).astype(int)
    return levels
