"""Lists of images in a file, a line for each: what was listed at the start of a long run, without holding it in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from vit_zoo.files.atomic import Staged
from vit_zoo.files.image_list import ImageRef
from vit_zoo.files.sniff import reading
from vit_zoo.progress import step


def store_list(target: Path, images: Iterable[ImageRef]) -> tuple[int, str]:
    """Write a list of images, without their labels.

    Returns their number, and a SHA-256 of their names, and of the sizes and times of change of their files: it is another one if
    one of the images is. Raises CannotWrite, and the errors of the iterable.
    """
    digest, count = hashlib.sha256(), 0

    def fill(file: BinaryIO) -> None:
        nonlocal count
        path, state = "", b""
        for image in images:
            if image.path != path:  # the members of an archive have one file
                path, state = image.path, _state(image.path)
            line = _line(image)
            file.write(line)
            digest.update(line + state)
            count += 1
            progress.advance()

    with Staged(target) as staged, step("listing images", None, "images") as progress:
        staged.write(fill)
        staged.commit()
    return count, digest.hexdigest()


@dataclass(frozen=True)
class Piece:
    """Consecutive images of a stored list: a few numbers, which can be sent to another process or machine.

    Attributes:
        number: The number of the piece.
        path: The list.
        offset: Where the piece begins in it.
        size: Its bytes there.
        count: The number of images in it.
    """

    number: int
    path: Path
    offset: int
    size: int
    count: int

    def images(self) -> tuple[ImageRef, ...]:
        """Read the images."""
        with reading(self.path), self.path.open("rb") as file:
            file.seek(self.offset)
            lines = file.read(self.size).splitlines()
        fields = map(json.loads, lines)
        return tuple(ImageRef(*each) if isinstance(each, list) else ImageRef(each, each) for each in fields)


def pieces(path: Path, size: int) -> Iterator[Piece]:
    """Cut a stored list into pieces of so many images; the last may have less."""
    with reading(path), path.open("rb") as file:
        number = offset = 0
        while lengths := [len(line) for line in islice(file, size)]:
            yield Piece(number, path, offset, sum(lengths), len(lengths))
            number, offset = number + 1, offset + sum(lengths)


def _line(image: ImageRef) -> bytes:
    whole = image.size is None and image.path == image.name
    return json.dumps(image.name if whole else [image.name, image.path, image.offset, image.size]).encode() + b"\n"


def _state(path: str) -> bytes:
    """Return size and time of change of a file; of one that does not exist, nothing."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of millions of names takes as long as the call
    except (OSError, ValueError):
        return b"\n"
    return b"%d %d\n" % (status.st_size, status.st_mtime_ns)
