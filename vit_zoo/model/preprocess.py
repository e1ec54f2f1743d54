"""Preprocessing of images to the model's input; the sidecars for other libraries and the ONNX preprocessing derive from it.

It needs only NumPy and Pillow, so that an installation without torch prepares images exactly as training did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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


class Preprocess(BaseModel):
    """Resize, centre crop to `size` (height, width), scale to 0..1, subtract `mean` and divide by `std` per channel.

    `resize_to` is the length of the shorter edge before the crop, or the (height, width) to which the image is squashed
    before the crop; None squashes it to `size` without a crop. One mean stands for grey images, three for RGB.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    size: Size
    resize_to: Edge | None
    interpolation: Literal["bilinear", "bicubic"]
    mean: Mean
    std: Mean

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.mean) != len(self.std) or len(self.mean) == 2 or min(self.std) <= 0:
            raise ValueError("mean and std must have one or three values each, std above 0")
        edges = (self.resize_to, self.resize_to) if isinstance(self.resize_to, int) else self.resize_to
        # the shorter edge must cover the longer side of the crop; a squashed image must cover each side
        needed = (max(self.size),) * 2 if isinstance(self.resize_to, int) else self.size
        if edges is not None and (edges[0] < needed[0] or edges[1] < needed[1]):
            raise ValueError(f"resize_to {self.resize_to} is smaller than the crop {self.size[0]}x{self.size[1]}")
        return self

    def for_size(self, size: tuple[int, int]) -> Self:
        """Return the preprocessing for another input size, which crops the same fraction of the image."""
        if self.resize_to is None or size[0] != size[1]:
            return self.model_copy(update={"size": size, "resize_to": None})
        edges = (self.resize_to,) * 2 if isinstance(self.resize_to, int) else self.resize_to
        scaled = tuple(round(edge * new / old) for edge, new, old in zip(edges, size, self.size, strict=True))
        return self.model_copy(update={"size": size, "resize_to": max(scaled) if isinstance(self.resize_to, int) else scaled})

    def __call__(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the model's input for one image: float32, channels x height x width."""
        import numpy as np
        from PIL import Image

        height, width = self.size
        image = self._converted(image)
        resample = Image.Resampling[self.interpolation.upper()]
        if self.resize_to is None:
            image = image.resize((width, height), resample)
        else:
            scaled = self._scaled(image.width, image.height)
            image = image.resize(scaled, resample)
            # as in torchvision, offsets are rounded half to even
            left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, dtype=np.float32).reshape(height, width, -1)
        scale = 1 / (255 * np.asarray(self.std, dtype=np.float64))
        shift = np.asarray(self.mean, dtype=np.float64) / np.asarray(self.std, dtype=np.float64)
        return np.ascontiguousarray((pixels * scale - shift).astype(np.float32).transpose(2, 0, 1))

    def whole(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the input of a file with embedded preprocessing: all pixels of the image, uint8, height x width x channels."""
        import numpy as np

        if self.resize_to is not None:
            self._scaled(image.width, image.height)
        return np.asarray(self._converted(image)).reshape(image.height, image.width, -1)

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
