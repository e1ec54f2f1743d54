"""Reader of image files, as a viewer would show them: upright, opaque, 8 bits per channel, and of limited size."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files.sniff import reading, sniff

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow opens more formats, some of them with external programs
MAX_PIXELS, MAX_SIDE = 64_000_000, 16_384
ORIENTATION, UPRIGHT = 0x0112, 1  # a tag of EXIF, and its value for an image that is stored as it is seen
BACKGROUND = (255, 255, 255)  # behind transparent pixels
NOWHERE = logging.NullHandler()


def read_image(path: Path) -> Image:
    """Read an image file as `as_viewed` does.

    Raises InputError if there is no such file, RefusedContent for a damaged, animated, floating-point or oversized image.
    """
    from PIL import Image

    if sniff(path) == "folder":
        raise InputError("expected an image, got a folder", where=path)
    with _decoding(path), Image.open(path, formats=FORMATS) as image:
        return _checked(image, path)


def read_embedded_image(path: Path, offset: int, size: int, name: str) -> Image:
    """Read an image that is `size` bytes of a file, such as a member of a tar archive, as `read_image` does a whole file.

    `name` is what errors are about.
    """
    from PIL import Image

    with reading(path), path.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise RefusedContent("is truncated: the file ends within it", where=name)
    with _decoding(name), Image.open(BytesIO(content), formats=FORMATS) as image:
        return _checked(image, name)


def as_viewed(image: Image, where: object) -> Image:
    """Rotate an image as its EXIF orientation requires, put it on white if transparent, and scale 16-bit grey to 8 bits.

    Raises RefusedContent as `read_image`; `where` is the image's name.
    """
    with _decoding(where):
        return _checked(image, where)


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted; hidden files are left out. Raises InputError for none."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".") and sniff(path) == "image"
    )
    if not files:
        raise InputError("contains no images", where=folder)
    return files


class _Silence:
    """Keeps Pillow's warnings and log from the user while a thread decodes: what they are about is refused, or shown by viewers.

    Python's filters of warnings belong to all threads, so the first one to decode changes them and the last one restores them.
    """

    def __init__(self) -> None:
        self._lock, self._threads = threading.Lock(), 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._threads += 1
            if self._threads == 1:
                logging.getLogger("PIL").addHandler(NOWHERE)  # without any handler, Python prints errors to stderr
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._filters.__exit__(None, None, None)


_SILENCE = _Silence()


@contextmanager
def _decoding(where: object) -> Iterator[None]:
    """Turn every error of a decoder into RefusedContent."""
    from PIL import Image

    try:
        with _SILENCE:
            yield
    except (RefusedContent, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise RefusedContent(f"has too many pixels; the limit is {MAX_PIXELS:,}", where=where) from None
    except Exception as error:  # decoders raise anything on damaged input
        raise RefusedContent(f"cannot be read as an image ({type(error).__name__})", where=where) from None


def _checked(image: Image, where: object) -> Image:
    """Return the image upright and opaque. Raises RefusedContent for one that is too large or animated."""
    from PIL import ImageOps

    if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
        limit = f"{MAX_PIXELS:,} pixels, {MAX_SIDE:,} a side"
        raise RefusedContent(f"has {image.width}x{image.height} pixels; the limit is {limit}", where=where)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a phone's photo with a second view
        raise RefusedContent("is an animation; expected a single image", where=where)
    image.load()
    turned = image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT
    return _opaque(ImageOps.exif_transpose(image) if turned else image, where)  # which copies an upright one too


def _opaque(upright: Image, where: object) -> Image:
    """Return the image as 8-bit grey or RGB, with white behind transparent pixels."""
    import numpy as np
    from PIL import Image

    if upright.mode == "F":
        raise RefusedContent("contains floating-point pixels, whose range is unknown", where=where)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise RefusedContent("contains pixels outside 0..65535", where=where)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (*BACKGROUND, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright if upright.mode in ("L", "RGB") else upright.convert("RGB")
