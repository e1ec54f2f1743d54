"""Images in every form that users have them in: files, folders, and Pillow images, arrays or tensors in memory."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError
from vit_zoo.files.image_list import ImageRef, list_images
from vit_zoo.files.images import as_viewed
from vit_zoo.files.sniff import sniff

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    Array = np.ndarray[Any, np.dtype[Any]]

    ImageLike = str | os.PathLike[str] | Image.Image | Array | torch.Tensor
    Images = ImageLike | Iterable["Images"]

CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency


@dataclass(frozen=True)
class ImageInput:
    """An image that is read when it is needed.

    Attributes:
        name: Its path, or its number in the list for an image in memory.
        read: Returns it, upright and opaque.
        file: Where it is stored; None for an image in memory.
    """

    name: str
    read: Callable[[], Image.Image]
    file: ImageRef | None = None


def counted_inputs(images: Any) -> tuple[Iterable[ImageInput], int | None]:
    """Return what `image_inputs` yields, and their number; None for a generator, which is not read ahead."""
    if isinstance(images, Iterator):
        return image_inputs(images), None
    inputs = list(image_inputs(images))
    return inputs, len(inputs)


def image_inputs(images: Any) -> Iterator[ImageInput]:
    """Yield images. `images` is one of these, or an iterable of them:

    a path, as `image_list.list_images` takes it: an image file, a folder, which stands for the images in it and its subfolders,
        sorted, or a pattern;
    a Pillow image;
    a NumPy array, uint8, height x width x channels or height x width, or a batch of the former;
    a torch tensor, uint8, channels x height x width or height x width, or a batch of the former.

    an `ImageInput`.

    Raises InputError for anything else, and for no image at all.
    """
    count = 0
    for item in _flat(images):
        if isinstance(item, ImageInput):
            named: Iterable[ImageInput] = [item]
        else:
            named = _listed(Path(item)) if isinstance(item, str | os.PathLike) else _in_memory(item, count)
        for image in named:
            yield image
            count += 1
    if not count:
        raise InputError("no images given")


def _listed(path: Path) -> Iterator[ImageInput]:
    """Yield the images that a path stands for."""
    if not glob.has_magic(str(path)):
        sniff(path)  # a file that the user names must exist
    for image in list_images(path):
        yield ImageInput(image.name, image.read, image)


def _in_memory(item: Any, start: int) -> Iterator[ImageInput]:
    """Yield images in memory, numbered from `start`."""
    for number, image in enumerate(_pillow_images(item, f"image {start}"), start):
        named = getattr(image, "filename", "") or f"image {number}"  # Pillow knows the file that it opened
        yield ImageInput(str(named), partial(as_viewed, image, named))


def _flat(images: Any) -> Iterator[Any]:
    """Yield the items of nested lists. Arrays, tensors and paths are items."""
    if isinstance(images, str | bytes | os.PathLike | Mapping) or hasattr(images, "dtype") or not isinstance(images, Iterable):
        yield images
        return
    for each in images:
        yield from _flat(each)


def _pillow_images(item: Any, name: str) -> Iterator[Image.Image]:
    """Yield the Pillow images of an object in memory."""
    import numpy as np
    from PIL import Image

    torch = sys.modules.get("torch")  # a tensor can only exist where it is imported
    if isinstance(item, Image.Image):
        yield item
        return
    tensor = torch is not None and isinstance(item, torch.Tensor)
    if not tensor and not isinstance(item, np.ndarray):
        raise InputError(f"expected an image, got {type(item).__name__}", where=name)
    dtype = str(item.dtype).removeprefix("torch.")
    if dtype != "uint8":
        hint = "images that are normalised already go to the model itself, or to `run` of an opened file"
        raise InputError(f"expected pixels from 0 to 255 as uint8, got {dtype}", where=name, hint=hint)
    order = "[channels, height, width]" if tensor else "[height, width, channels]"
    pixels = np.moveaxis(item.detach().cpu().numpy(), -3, -1) if tensor and item.ndim > 2 else np.asarray(item)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim not in (3, 4) or pixels.shape[-1] not in CHANNELS or not pixels.size:
        fault = f"expected shape {order} with 1, 3 or 4 channels, or a batch of them, got {list(item.shape)}"
        raise InputError(fault, where=name)
    for image in pixels if pixels.ndim == 4 else [pixels]:
        yield Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))
