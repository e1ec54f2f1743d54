"""Images in every form that users have them in: files, folders, and Pillow images, arrays or tensors in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError
from vit_zoo.files.images import as_viewed, image_files, read_image
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
    """An image that is read when it is needed. `name` is its path, or its number in the list for an image in memory."""

    name: str
    read: Callable[[], Image.Image]


def image_inputs(images: Any) -> list[ImageInput]:
    """List images. `images` is one of these, or an iterable of them:

    the path of an image file, or of a folder, which stands for the images in it and its subfolders, sorted;
    a Pillow image;
    a NumPy array, uint8, height x width x channels or height x width, or a batch of the former;
    a torch tensor, uint8, channels x height x width or height x width, or a batch of the former.

    Raises InputError for anything else, and for no image at all.
    """
    inputs: list[ImageInput] = []
    for item in _flat(images):
        if isinstance(item, str | os.PathLike):
            path = Path(item)
            files = image_files(path) if sniff(path) == "folder" else [path]
            inputs += [ImageInput(str(file), partial(read_image, file)) for file in files]
            continue
        for image in _in_memory(item, f"image {len(inputs)}"):
            name = getattr(image, "filename", "") or f"image {len(inputs)}"  # Pillow knows the file that it opened
            inputs.append(ImageInput(str(name), partial(as_viewed, image, name)))
    if not inputs:
        raise InputError("no images given")
    return inputs


def _flat(images: Any) -> Iterator[Any]:
    """Yield the items of nested lists. Arrays, tensors and paths are items."""
    if isinstance(images, str | bytes | os.PathLike | Mapping) or hasattr(images, "dtype") or not isinstance(images, Iterable):
        yield images
        return
    for each in images:
        yield from _flat(each)


def _in_memory(item: Any, name: str) -> Iterator[Image.Image]:
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
