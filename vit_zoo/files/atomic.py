"""Atomic writes of single files: a file is written next to its target, synced to the disk and then renamed.

After a crash at any moment, the target is the old or the new complete file. The next write removes the temporary files of
dead processes. `file_set` does the same for several files, `folder` for a whole folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from vit_zoo.errors import FORCE, CannotWrite, InputError
from vit_zoo.files.disk import check_space, writing
from vit_zoo.files.temporary import clear_stale, put_in_place, release, temporary


class Staged:
    """A file that is being written, as a context manager; `commit` renames it to its target.

    It has a temporary name in the target's folder or, if `folder` is given, its final name in that staging folder. Leaving
    the block without `commit` removes it. `need` is the expected size in bytes. Raises CannotWrite if the target
    is a folder or a link, if its folder is read-only, or if there is too little space; InputError if the folder is missing.
    """

    def __init__(self, target: str | os.PathLike[str], *, need: int = 0, folder: Path | None = None) -> None:
        self.target = Path(target)
        check_target(self.target)
        with writing(self.target):
            if folder is None:
                clear_stale(self.target.parent)
            check_space(self.target.parent, need)
            self.path = temporary(self.target) if folder is None else folder / self.target.name
            self.path.touch(exist_ok=False)  # reserves the name; the umask sets the mode

    def write(self, fill: Callable[[BinaryIO], object]) -> None:
        """Call `fill` with the open file to write the content, then sync it to the disk."""
        with writing(self.target), self.path.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())

    def append(self, content: bytes) -> None:
        """Add bytes at the end of the written file, then sync it to the disk."""
        with writing(self.target), self.path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def commit(self) -> None:
        """Rename the file to its target, replacing an existing file."""
        with writing(self.target):
            put_in_place(self.path, self.target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        release(self.path)


@contextlib.contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Make a temporary folder next to the target, for files that refer to each other by their final names; then remove it."""
    check_target(target)
    with writing(target):
        clear_stale(target.parent)
        folder = temporary(target)
        folder.mkdir()
    try:
        yield folder
    finally:
        release(folder)


def check_target(target: Path) -> None:
    """Raise CannotWrite or InputError if a file cannot be written there; called before slow work."""
    with writing(target):
        if target.is_symlink():
            raise CannotWrite("is a symbolic link; cannot write through links", where=target)
        if target.is_dir():
            raise CannotWrite("expected a file, got a folder", where=target)
        if target.exists() and not target.is_file():
            raise CannotWrite("not a regular file", where=target)
        if not target.parent.is_dir():
            raise InputError("no such folder", where=target.parent)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise CannotWrite("the folder is not writable", where=target.parent)


def would_replace(target: Path, cause: str = "already exists") -> CannotWrite:
    """Return the error about something in the place of a file that is replaced only by force."""
    return CannotWrite(cause, where=target, hint=f"{FORCE} replaces it", options=[FORCE])


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write a small text file atomically, replacing an existing one."""
    with Staged(target) as staged:
        staged.write(lambda file: file.write(text.encode()))
        staged.commit()


def copy_file(path: Path, target: Path) -> None:
    """Copy a file atomically."""
    with Staged(target, need=path.stat().st_size) as staged, path.open("rb") as file:
        staged.write(lambda out: shutil.copyfileobj(file, out, 1 << 20))
        staged.commit()
