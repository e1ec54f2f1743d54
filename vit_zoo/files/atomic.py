"""Outputs that are there whole or not at all: written beside the target, synced, then renamed.

A crash at any moment leaves the old file or the new one; the next run clears what a dead process left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from vit_zoo.errors import FORCE, CannotWrite, InputError, Option, VitzooError

OUT = Option("out", "FOLDER", flag="-o")
STALE = re.compile(r"\..*\.vitzoo-(\d+)-[0-9a-f]{8}\.tmp")


class Staged:
    """A file in the making, under a temporary name in the target's folder, or its own name in a staging folder.

    Leaving the block without `commit` or `reject` removes it. Raises CannotWrite for a folder or a link in the way,
    a missing or read-only folder, and too little space for `need` bytes.
    """

    def __init__(self, target: str | os.PathLike[str], *, need: int = 0, folder: Path | None = None) -> None:
        self.target = Path(target)
        check_target(self.target)
        with writing(self.target):
            free = shutil.disk_usage(self.target.parent).free
            if need > free:
                raise CannotWrite(f"needs {need:,} bytes, {free:,} are free", where=self.target.parent)
            if folder is None:
                _clear_stale(self.target.parent)
            self.path = _temporary(self.target) if folder is None else folder / self.target.name
            self.path.touch(exist_ok=False)  # claims the name, with the umask's mode

    def write(self, fill: Callable[[BinaryIO], object]) -> None:
        """Let `fill` write the content, then sync it to the disk."""
        with writing(self.target), self.path.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())

    def commit(self) -> None:
        """Put the file at its final name, in place of a regular file that may be there."""
        self._rename(self.target)

    def reject(self) -> Path:
        """Set the file aside as `NAME.rejected`; whatever had the final name stays."""
        aside = self.target.with_name(self.target.name + ".rejected")
        self._rename(aside)
        return aside

    def _rename(self, name: Path) -> None:
        with writing(name):
            self.path.replace(name)
            sync_folder(name.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target for files that refer to each other by their final names; gone afterwards."""
    check_target(target)
    with writing(target):
        _clear_stale(target.parent)
        folder = _temporary(target)
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_target(target: Path) -> None:
    """Raise before any slow work if a file cannot be put there."""
    with writing(target):
        if target.is_symlink():
            raise CannotWrite("is a symbolic link; it is not written through", where=target)
        if target.is_dir():
            raise CannotWrite("is a folder", where=target)
        if target.exists() and not target.is_file():
            raise CannotWrite("is not a regular file", where=target)
        if not target.parent.is_dir():
            raise InputError("no such folder", where=target.parent)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise CannotWrite("the folder is not writable", where=target.parent)


def check_folder(folder: Path, *, force: bool | None = None) -> None:
    """Raise before any slow work if a folder cannot be made or filled; one that holds something wants `force`.

    None: the caller does not offer `force`.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CannotWrite("is not a folder", where=folder)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        hint = "name another folder" if force is None else f"{FORCE} replaces the model in it, {OUT} names another folder"
        raise CannotWrite("is not empty", where=folder, hint=hint, options=[FORCE, OUT])
    if not folder.resolve().parent.is_dir():
        raise InputError("no such folder", where=folder.parent)


@contextlib.contextmanager
def made_folder(folder: Path, *, clear: bool = False) -> Iterator[None]:
    """Make a folder if it does not exist. If the block fails, one that was made is removed, unless something is in it.

    `clear` removes it with its content.
    """
    made = not folder.exists()
    with writing(folder):
        folder.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        if made and clear:
            shutil.rmtree(folder, ignore_errors=True)
        elif made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()
        raise


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Replace a small text file atomically."""
    with Staged(target) as staged:
        staged.write(lambda file: file.write(text.encode()))
        staged.commit()


def copy_file(path: Path, target: Path) -> None:
    """Another file of the same bytes, atomically."""
    with Staged(target, need=path.stat().st_size) as staged, path.open("rb") as file:
        staged.write(lambda out: shutil.copyfileobj(file, out, 1 << 20))
        staged.commit()


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one error that names the target."""
    try:
        yield
    except VitzooError:
        raise
    except OSError as error:
        cause = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise CannotWrite(cause, where=target) from None


def _temporary(target: Path) -> Path:
    return target.parent / f".{target.name}.vitzoo-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _clear_stale(folder: Path) -> None:
    for entry in os.scandir(folder):
        match = STALE.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # a neighbour may clear it at the same time, or it is another user's
                    Path(entry.path).unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
