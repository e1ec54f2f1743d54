"""Partial results: a folder `OUT.partial` next to a file `OUT` that is being made, with a part for each finished piece of work.

Whoever makes `OUT` again after an interruption, with the same description of the work, needs to make only the missing parts.
Every part is written atomically, and so is the folder itself, so that it is of use after a crash at any moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from vit_zoo.errors import FORCE, CannotWrite, InputError, VitzooError
from vit_zoo.files import journal
from vit_zoo.files.atomic import Staged, write_text
from vit_zoo.files.disk import writing
from vit_zoo.files.journal import inode_of
from vit_zoo.files.sniff import read_json, reading
from vit_zoo.files.temporary import clear_stale, put_in_place, release, remove, temporary

RUN, PUT, PART = "run.json", "put.json", ".part"


class Partial:
    """A folder of finished parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, target: Path) -> Self:
        """Return the folder of the partial result of a file, which need not exist."""
        return cls(target.with_name(f"{target.name}.partial"))

    def exists(self) -> bool:
        """Return whether there is something in this place."""
        return os.path.lexists(self.folder)

    def run(self) -> dict[str, Any]:
        """Return the description of the work. Raises CannotWrite if the folder is not one of partial results."""
        try:
            return read_json(self.folder / RUN)
        except VitzooError:
            cause = "is in the place of partial results, but is none of vitzoo's"
            raise CannotWrite(cause, where=self.folder, hint="move it away") from None

    def done(self) -> set[int]:
        """Return the numbers of the finished parts."""
        with reading(self.folder), os.scandir(self.folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(PART)]
        return {int(stem) for name in names if (stem := name.removesuffix(PART)).isdecimal()}

    def has(self, number: int) -> bool:
        """Return whether a part is finished."""
        return self._part(number).exists()

    def write_part(self, number: int, content: bytes) -> None:
        """Write a part. Raises CannotWrite."""
        self.write_file(self._part(number), lambda file: file.write(content))

    def write_file(self, target: Path, fill: Callable[[BinaryIO], object]) -> None:
        """Write a file in the folder, or in a folder of it, atomically. Raises CannotWrite.

        Other processes may write others at the same time, on other machines too: what is temporary has a name that tells nothing
        about its process, since the number of one on another machine means nothing here.
        """
        with writing(self.folder):
            made = self.folder / f".{secrets.token_hex(8)}"
            made.mkdir()
        try:
            with Staged(target, folder=made) as staged:
                staged.write(fill)
                staged.commit()
        finally:
            remove(made)

    def read_part(self, number: int) -> bytes:
        """Return the content of a part."""
        path = self._part(number)
        with reading(path):
            return path.read_bytes()

    def drop_part(self, number: int) -> None:
        """Remove a part."""
        self._part(number).unlink(missing_ok=True)

    def will_put(self, files: Mapping[Path, Path]) -> None:
        """Record that complete temporary files are about to get their names, given by name."""
        write_text(self.folder / PUT, json.dumps({name.name: inode_of(path) for name, path in files.items()}))

    def is_put(self) -> bool:
        """Return whether the files that are made of the parts have their names already."""
        path = self.folder / PUT
        if not path.is_file():
            return False
        inodes = read_json(path)
        return bool(inodes) and all(inode_of(self.folder.parent / name) == inode for name, inode in inodes.items())

    def discard(self) -> None:
        """Remove the folder; after a crash meanwhile, it has a temporary name, and the next write in its folder removes it."""
        with writing(self.folder):
            old = temporary(self.folder)
            self.folder.replace(old)
            remove(old)

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:06}{PART}"


@contextlib.contextmanager
def partial_result(target: Path, prepare: Callable[[Path], Mapping[str, Any]], *, force: bool = False) -> Iterator[Partial]:
    """Open the folder of the partial result of a file, or begin a new one, and lock it for this process within the block.

    Args:
        target: The file.
        prepare: Function that writes files into a new folder, and returns a description of the work, as values of JSON. Parts of
            an earlier run are used only if its description is the same.
        force: Remove the parts of an earlier run with another description.

    Raises:
        InputError: There are parts of a run with another description.
        CannotWrite: Another process is at work on them, something else is in this place, or nothing can be written there.
    """
    partial = Partial.of(target)
    folder = partial.folder
    with writing(folder):
        clear_stale(folder.parent)
        made = temporary(folder)
        made.mkdir()
    try:
        with writing(folder):
            run = json.loads(json.dumps(prepare(made)))
            write_text(made / RUN, json.dumps(run, indent=2) + "\n")
            if partial.exists():
                _discard_other(partial, run, force=force)
            if not partial.exists():
                put_in_place(made, folder)
    finally:
        release(made)
    with _locked(folder):
        yield partial


def _discard_other(partial: Partial, run: Mapping[str, Any], *, force: bool) -> None:
    """Remove the folder of a run with another description, or one that ended but for this removal."""
    known = partial.run()
    different = [name for name in {**run, **known} if run.get(name, ...) != known.get(name, ...)]
    if not different:
        return
    with _locked(partial.folder):
        if force or partial.is_put():
            partial.discard()
            return
    names = " and ".join(filter(None, [", ".join(different[:-1]), different[-1]]))
    hint = f"finish it with its own command, or start again with {FORCE}"
    cause = f"is a partial result of another run, with other {names}"
    raise InputError(cause, where=partial.folder, hint=hint, options=[FORCE])


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder. Windows and some network file systems have no such locks."""
    if sys.platform == "win32":
        yield
        return
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            journal.lock(descriptor)
        except BlockingIOError:
            raise CannotWrite("another process is at work on it", where=folder) from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
