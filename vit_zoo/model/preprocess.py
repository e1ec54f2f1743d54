"""Preprocessing of images to the model's input; the sidecars for other libraries and the ONNX preprocessing derive from it.

The libraries differ in two points, which are fields: timm, torchvision and open_clip round half of the margin of a crop to even,
transformers rounds it down; and transformers' DINOv3 resizes floats, which are not rounded to bytes, as all others' pixels are.
All truncate the longer edge of the resized image, and all resize with antialias.

It needs only NumPy and Pillow, so that an installation without torch prepares images exactly as training did.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from vit_zoo.errors import InputError
from vit_zoo.model.spec import Size

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

Mean = Annotated[
    tuple[float, ...],
    Field(min_length=1, max_length=3),
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
]
Side = Annotated[int, Field(ge=1, le=16384)]
Edge = Annotated[Side | tuple[Side, Side], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


LARGEST = 1e6  # of a mean or std; beyond the range of float32, every input would be infinite
BICUBIC_REACH = 2  # of a kernel to either side, in pixels of the smaller image; of the bilinear one it is 1
OPTIONAL = {"crop_rounding": "even", "resize_dtype": "uint8"}  # the defaults of optional fields


class Preprocess(BaseModel):
    """Resize, centre crop to `size` (height, width), scale to 0..1, subtract `mean` and divide by `std` per channel.

    `resize_to` is the length of the shorter edge before the crop, or the (height, width) to which the image is squashed
    before the crop; None squashes it to `size` without a crop. One mean stands for grey images, three for RGB.
    `crop_rounding` is how half of the crop's margin is rounded, if the margin is odd; `resize_dtype` is the type of the resized
    pixels. Both are omitted from JSON if they have their defaults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    size: Size
    resize_to: Edge | None
    interpolation: Literal["bilinear", "bicubic"]
    mean: Mean
    std: Mean
    crop_rounding: Literal["even", "down"] = "even"
    resize_dtype: Literal["uint8", "float32"] = "uint8"

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialised: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields, without those that files of earlier versions do not have if they have their defaults."""
        fields: dict[str, Any] = serialised(self)
        return {name: value for name, value in fields.items() if OPTIONAL.get(name, ...) != value}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.mean) != len(self.std) or len(self.mean) == 2 or min(self.std) <= 0:
            raise ValueError("mean and std must have one or three values each, std above 0")
        if max(map(abs, self.mean)) > LARGEST or not 1 / LARGEST <= min(self.std) <= max(self.std) <= LARGEST:
            raise ValueError(f"mean and std must be at most {LARGEST:g}, std at least {1 / LARGEST:g}")
        edges = (self.resize_to, self.resize_to) if isinstance(self.resize_to, int) else self.resize_to
        # the shorter edge must cover the longer side of the crop; a squashed image must cover each side
        needed = (max(self.size),) * 2 if isinstance(self.resize_to, int) else self.size
        if edges is not None and (edges[0] < needed[0] or edges[1] < needed[1]):
            raise ValueError(f"resize_to {self.resize_to} is smaller than the crop {self.size[0]}x{self.size[1]}")
        return self

    def for_size(self, size: tuple[int, int]) -> Self:
        """Return the preprocessing for another input size, which crops the same fraction of the image."""
        if size == self.size:
            return self
        if self.resize_to is None or size[0] != size[1]:
            return self.model_copy(update={"size": size, "resize_to": None, "crop_rounding": "even"})
        edges = (self.resize_to,) * 2 if isinstance(self.resize_to, int) else self.resize_to
        scaled = tuple(round(edge * new / old) for edge, new, old in zip(edges, size, self.size, strict=True))
        return self.model_copy(update={"size": size, "resize_to": max(scaled) if isinstance(self.resize_to, int) else scaled})

    def with_defaults(self) -> Self:
        """Return the preprocessing with timm's rounding: half of a margin to even, and resized pixels to bytes."""
        return self.model_copy(update=OPTIONAL)

    def __call__(self, image: Image.Image, *, fast_crop: bool = False) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the model's input for one image: float32, channels x height x width.

        `fast_crop` resizes only what the crop keeps, which takes a third less time for a photo of 4:3, decoding apart. Pillow
        then rounds the coordinates differently, so that about 1 pixel in 4,000 differs by one level of 255.
        """
        import numpy as np

        height, width = self.size
        image = self._converted(image)
        scaled = (width, height) if self.resize_to is None else self._scaled(image.width, image.height)
        left, top = self._offset(scaled[0] - width), self._offset(scaled[1] - height)
        if fast_crop and self.resize_dtype == "uint8":
            pixels = self._resized_crop(image, scaled, (left, top))
        else:
            pixels = self._resized(image, scaled)[top : top + height, left : left + width]
        prepared, values = np.empty((len(self.mean), height, width), np.float32), np.empty((height, width))
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):  # in float64, without further copies
            np.multiply(pixels[..., channel], 1 / (255 * std), out=values, dtype=np.float64)
            np.subtract(values, mean / std, out=prepared[channel], casting="same_kind")
        return prepared

    def whole(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the input of a file with embedded preprocessing: all pixels of the image, uint8, height x width x channels."""
        import numpy as np

        if self.resize_to is not None:
            self._scaled(image.width, image.height)
        return np.asarray(self._converted(image)).reshape(image.height, image.width, -1)

    def kept(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part of an image of this size that the model sees: left, top, right and bottom edge, in its pixels."""
        columns, rows = self.size[::-1] if self.resize_to is None else self._scaled(width, height)
        left, top = self._offset(columns - self.size[1]), self._offset(rows - self.size[0])
        across, down = width / columns, height / rows
        return left * across, top * down, (left + self.size[1]) * across, (top + self.size[0]) * down

    @property
    def crop_can_differ(self) -> bool:
        """Whether `crop_rounding` matters for some image: for a margin of 3, 7, 11, ... pixels."""
        return isinstance(self.resize_to, int) or self.crop_differs_for(*self.size)  # the longer edge may have any length

    def crop_differs_for(self, width: int, height: int) -> bool:
        """Whether `crop_rounding` matters for an image of this size."""
        if self.resize_to is None:
            return False
        columns, rows = self._scaled(width, height)
        return (columns - self.size[1]) % 4 == 3 or (rows - self.size[0]) % 4 == 3

    def _offset(self, margin: int) -> int:
        """Return the pixels before the crop."""
        return margin // 2 if self.crop_rounding == "down" else round(margin / 2)

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> np.ndarray[Any, Any]:
        """Return the pixels of the image at a size (width, height): height x width x channels, 0 to 255, in `resize_dtype`."""
        import numpy as np
        from PIL import Image

        resample = Image.Resampling[self.interpolation.upper()]

        def resized(image: Image.Image) -> np.ndarray[Any, Any]:
            if _vertical_first(image.size, size):
                image = image.resize((image.width, size[1]), resample)
            return np.asarray(image.resize(size, resample))

        if self.resize_dtype == "uint8":
            return resized(image).reshape(size[1], size[0], -1)
        # Pillow resizes a single channel as floats, with the same kernels
        return np.stack([resized(channel.convert("F")) for channel in image.split()], axis=-1)

    def _resized_crop(self, image: Image.Image, size: tuple[int, int], offset: tuple[int, int]) -> np.ndarray[Any, Any]:
        """Return the pixels of the crop at `offset` (left, top) of the resized image, from the pixels that it needs alone."""
        import numpy as np
        from PIL import Image

        resample = Image.Resampling[self.interpolation.upper()]
        crop = self.size[::-1]
        columns, rows = (_Span.of(*axis) for axis in zip(image.size, size, offset, crop, strict=True))
        part = image.crop((columns.start, rows.start, columns.stop, rows.stop))
        across = (columns.first, 0.0, columns.last)
        if _vertical_first(image.size, size):
            part = part.resize((part.width, crop[1]), resample, box=(0, rows.first, part.width, rows.last))
            part = part.resize(crop, resample, box=(*across, crop[1]))
        else:
            part = part.resize((crop[0], part.height), resample, box=(*across, part.height))
            part = part.resize(crop, resample, box=(0, rows.first, crop[0], rows.last))
        return np.asarray(part).reshape(crop[1], crop[0], -1)

    def _converted(self, image: Image.Image) -> Image.Image:
        """Return the image as RGB or grey, as the number of means requires."""
        mode = "RGB" if len(self.mean) == 3 else "L"
        return image if image.mode == mode else image.convert(mode)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) before the crop; the longer edge is truncated to an integer, as in torchvision."""
        if isinstance(self.resize_to, tuple):
            return self.resize_to[1], self.resize_to[0]
        assert self.resize_to is not None
        short = min(width, height)
        scaled = self.resize_to * width // short, self.resize_to * height // short
        if max(scaled) > 65536:
            raise InputError(f"image of {width}x{height} is too narrow to resize to {self.resize_to}")
        return scaled


class _Span(NamedTuple):
    """The pixels of one axis that a crop of the resized image is made of, and where in them the crop begins and ends."""

    start: int
    stop: int
    first: float
    last: float

    @classmethod
    def of(cls, old: int, new: int, offset: int, length: int) -> _Span:
        scale = old / new
        reach = BICUBIC_REACH * max(scale, 1.0) + 1
        first, last = offset * scale, (offset + length) * scale
        start, stop = max(0, math.floor(first - reach)), min(old, math.ceil(last + reach))
        return cls(start, stop, first - start, min(last - start, stop - start))


def _vertical_first(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Return whether Pillow 13 resizes the height before the width, for sizes (width, height).

    It does if the height shrinks by more than twice as much as the width: a rule derived from 4,844 random resizes in which the
    order is visible. Older versions always start with the width, so the order is not left to the installed one: it changes 2 %
    of the pixels by one level.
    """
    width, height = (before - after for before, after in zip(old, new, strict=True))
    return height > 0 and height > 2 * width
