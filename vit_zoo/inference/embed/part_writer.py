"""Workers that write their results themselves, into a folder of partial results, and return only how much is done.

On a cluster, the folder must have the same path on every machine.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vit_zoo.errors import InputError
from vit_zoo.files.partial import RUN, Partial
from vit_zoo.files.stored_list import Piece
from vit_zoo.inference.embed.parts import Part
from vit_zoo.inference.engine import Worker
from vit_zoo.inference.worker import Chunk, Rows


@dataclass(frozen=True)
class PartWriters:
    """Function that opens a writer of parts; it can be sent to another process or machine.

    Attributes:
        open_worker: Function that opens the worker of a writer.
        folder: The folder of partial results.
    """

    open_worker: Callable[[], Worker[Chunk, Rows]]
    folder: Path

    def __call__(self) -> PartWriter:
        return PartWriter(self)


class PartWriter:
    """A function from a piece of the list of images to the number of images in it, after writing its part."""

    def __init__(self, options: PartWriters) -> None:
        self.partial = visible(options.folder)
        self.worker = options.open_worker()

    def __call__(self, piece: Piece) -> int:
        if not self.partial.has(piece.number):  # a worker that died may have written it
            rows = self.worker(Chunk(piece.number, piece.images()))
            self.partial.write_part(piece.number, Part.of(rows).content())
        return piece.count

    def close(self) -> None:
        self.worker.close()


def visible(folder: Path) -> Partial:
    """Return a folder of partial results. Raises InputError if this machine does not see it."""
    if not (folder / RUN).is_file():
        hint = "images, file and result must be on a shared file system, with the same paths everywhere"
        raise InputError(f"the machine {platform.node()} does not see this folder", where=folder, hint=hint)
    return Partial(folder)
