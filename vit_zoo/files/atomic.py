"""Atomic writes: a file is written next to its target, synced to the disk and then renamed.

After a crash at any moment, the target is the old or the new complete file. The next write removes the temporary files of
dead processes.
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
STALE = re.compile(r"\..*\.vitzoo-(\d+)-[0-9a-f]{8}\.tmp")  # name of a temporary file or folder, with its process id


class Staged:
    """A file that is being written, as a context manager; `commit` renames it to its target.

    It has a temporary name in the target's folder or, if `folder` is given, its final name in that staging folder. Leaving
    the block without `commit` or `reject` removes it. `need` is the expected size in bytes. Raises CannotWrite if the target
    is a folder or a link, if its folder is read-only, or if there is too little space; InputError if the folder is missing.
    """

    def __init__(self, target: str | os.PathLike[str], *, need: int = 0, folder: Path | None = None) -> None:
        self.target = Path(target)
        check_target(self.target)
        with writing(self.target):
            free = shutil.disk_usage(self.target.parent).free
            if need > free:
                raise CannotWrite(f"not enough space: needs {need:,} bytes, {free:,} are free", where=self.target.parent)
            if folder is None:
                _clear_stale(self.target.parent)
            self.path = _temporary(self.target) if folder is None else folder / self.target.name
            self.path.touch(exist_ok=False)  # reserves the name; the umask sets the mode

    def write(self, fill: Callable[[BinaryIO], object]) -> None:
        """Call `fill` with the open file to write the content, then sync it to the disk."""
        with writing(self.target), self.path.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())

    def commit(self) -> None:
        """Rename the file to its target, replacing an existing file."""
        self._rename(self.target)

    def reject(self) -> Path:
        """Rename the file to `NAME.rejected` and return that path; an existing target stays."""
        rejected = self.target.with_name(self.target.name + ".rejected")
        self._rename(rejected)
        return rejected

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
    """Make a temporary folder next to the target, for files that refer to each other by their final names; then remove it."""
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


def check_folder(folder: Path, *, force: bool | None = None) -> None:
    """Raise CannotWrite or InputError if a folder cannot be made, or is not empty without `force`; called before slow work.

    `force` is None in calls that have no such option.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CannotWrite("not a folder", where=folder)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        hint = f"use {FORCE} to replace the model in it, or {OUT} to choose another folder"
        hint = "choose another folder" if force is None else hint
        raise CannotWrite("folder is not empty", where=folder, hint=hint, options=[FORCE, OUT])
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
    """Write a small text file atomically, replacing an existing one."""
    with Staged(target) as staged:
        staged.write(lambda file: file.write(text.encode()))
        staged.commit()


def copy_file(path: Path, target: Path) -> None:
    """Copy a file atomically."""
    with Staged(target, need=path.stat().st_size) as staged, path.open("rb") as file:
        staged.write(lambda out: shutil.copyfileobj(file, out, 1 << 20))
        staged.commit()


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn any OSError in the block into CannotWrite for the target."""
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
    """Remove the temporary files and folders of processes that no longer run."""
    for entry in os.scandir(folder):
        match = STALE.fullmatch(entry.name)
        if match and not _alive(int(match[1])):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # another process may remove it at the same time, or another user may own it
                    Path(entry.path).unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
