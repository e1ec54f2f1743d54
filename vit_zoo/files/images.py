"""Images as a person would see them: upright, opaque, eight bits, and never larger than a stated limit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files.sniff import sniff

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow opens more, some of them through other programs
MAX_PIXELS, MAX_SIDE = 64_000_000, 16_384
BACKGROUND = (255, 255, 255)  # behind transparent pixels


def read_image(path: Path) -> Image:
    """The image in a file: turned as its EXIF says, on white where transparent, 16-bit grey scaled to 8.

    Raises InputError if there is none, RefusedContent for damaged, animated, float and oversized ones.
    """
    from PIL import Image, ImageOps

    if sniff(path) == "folder":
        raise InputError("is a folder, not an image", where=path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow only warns of large images; here they are refused
            with Image.open(path, formats=FORMATS) as image:
                if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
                    limit = f"{MAX_PIXELS:,} pixels, {MAX_SIDE:,} a side"
                    raise RefusedContent(f"has {image.width}x{image.height} pixels; the limit is {limit}", where=path)
                if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a phone's photo with a second view
                    raise RefusedContent("is an animation; give a single image", where=path)
                image.load()
                return _opaque(ImageOps.exif_transpose(image), path)
    except (RefusedContent, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise RefusedContent(f"has too many pixels; the limit is {MAX_PIXELS:,}", where=path) from None
    except Exception as error:  # decoders raise anything on damaged input
        raise RefusedContent(f"cannot be read as an image ({type(error).__name__})", where=path) from None


def _opaque(upright: Image, path: Path) -> Image:
    """Eight bits a channel, grey or RGB, on white."""
    import numpy as np
    from PIL import Image

    if upright.mode == "F":
        raise RefusedContent("holds floating-point pixels, whose range nobody states", where=path)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise RefusedContent("holds pixels outside 0..65535", where=path)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (*BACKGROUND, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright if upright.mode in ("L", "RGB") else upright.convert("RGB")
