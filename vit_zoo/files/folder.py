"""Folders that are written completely under a temporary name, and then get their name in one step.

Where a folder is replaced, Linux exchanges the two names: a reader sees the old folder or the new one at any moment. Other files
in the old folder are in the new one too, as hard links, so the old one is complete until it is removed.

An exchange is not possible everywhere: not in another file system, for a mount point, without write access to the parent folder,
or outside Linux. And it is not wanted for the current folder, since the user's shell would be left in a removed one, or for a
folder with many other files, which is a place where somebody works. There the files are put in place by a journal (`journal`),
so that vitzoo reads all old or all new files.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vit_zoo.errors import FORCE, CannotWrite, InputError, Option
from vit_zoo.files.disk import sync_folder, writing
from vit_zoo.files.file_set import put_all_in_place
from vit_zoo.files.temporary import clear_stale, put_in_place, release, temporary, temporary_in

OUT = Option("out", "FOLDER", flag="-o")
MOST_LINKS = 1000  # other files in a folder that is exchanged
EXCHANGE, CURRENT = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux


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
def written_folder(folder: Path) -> Iterator[Path]:
    """Make a temporary folder to fill; at the end of the block, its files are in `folder`, and they appear there in one step.

    Other files in the folder stay. If the block fails, nothing changes. Raises CannotWrite if the folder cannot be written.
    """
    with writing(folder):
        target = folder.resolve()  # it may be "."
        old = target.is_dir()
        if old:
            clear_stale(target)
        apart = not old or _can_be_exchanged(target)
        if apart:
            clear_stale(target.parent)
        made = temporary(target) if apart else temporary_in(target)
        made.mkdir()
    try:
        yield made
        with writing(folder):
            if not old:
                _sync_tree(made)
                put_in_place(made, target)
            else:
                new = list(made.iterdir())
                if not (apart and _exchanged(made, target)):
                    _move_into(target, new)
    finally:
        release(made)


@contextlib.contextmanager
def private_folder(name: str) -> Iterator[Path]:
    """Make a folder for this user alone in the system's folder for temporary files, and remove it at the end of the block."""
    place = Path(tempfile.gettempdir())
    with writing(place):
        clear_stale(place)
        folder = temporary(place / name)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        release(folder)


def _can_be_exchanged(folder: Path) -> bool:
    """Return whether it makes sense to try: it is not known before whether the file system can."""
    here = Path.cwd()
    parent = folder.parent
    return (
        sys.platform == "linux"
        and here != folder
        and folder not in here.parents
        and os.access(parent, os.W_OK | os.X_OK)
        and parent.stat().st_dev == folder.stat().st_dev
    )


def _exchanged(made: Path, folder: Path) -> bool:
    """Exchange the two names, with everything else of the old folder in the new one. Return False if that is not possible."""
    try:
        _link_missing(folder, made, MOST_LINKS)
        _copy_attributes(folder, made)
        os.utime(made)
        _sync_tree(made)
        _exchange(made, folder)
        try:
            sync_folder(folder.parent)
        except BaseException:
            _exchange(made, folder)
            raise
    except OSError:  # whatever the reason, a journal is the other way
        return False
    with contextlib.suppress(OSError):  # files that somebody else wrote into the old folder meanwhile
        _link_missing(made, folder, MOST_LINKS)
    return True


def _link_missing(source: Path, target: Path, most: int) -> int:
    """Link what only the first of two folders has into the second. Return how many of `most` links are left; OSError if none."""
    with os.scandir(source) as entries:
        for entry in entries:
            other = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                is_new = not os.path.lexists(other)
                if is_new:
                    other.mkdir()
                most = _link_missing(Path(entry.path), other, most - 1)
                if is_new:
                    _copy_attributes(Path(entry.path), other)
            elif not os.path.lexists(other):
                os.link(entry.path, other, follow_symlinks=False)
                most -= 1
            if most < 0:
                raise OSError(errno.EMLINK, "too many files")
    return most


def _copy_attributes(source: Path, target: Path) -> None:
    """Copy mode, times and owner of a folder. Raises OSError."""
    shutil.copystat(source, target)
    before, after = source.stat(), target.stat()
    if (before.st_uid, before.st_gid) != (after.st_uid, after.st_gid):
        os.chown(target, before.st_uid, before.st_gid)


def _exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders. Raises OSError if the system or the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, "the C library has no renameat2")
    if rename(CURRENT, os.fsencode(one), CURRENT, os.fsencode(other), EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _move_into(folder: Path, new: list[Path]) -> None:
    """Put complete files of a temporary folder into an existing one, by a journal. Old files of these names are removed first."""
    names = [(path, folder / path.name) for path in sorted(new, key=lambda path: (path.suffix == ".json", path.name))]
    for path, name in names:
        if name.is_dir() and (path.is_file() or any(name.iterdir())):
            raise CannotWrite("is a folder, and would be replaced", where=name)
        if path.is_dir():
            _sync_tree(path)
    files = []
    try:
        for path, name in names:
            place = temporary(name)
            path.replace(place)
            files.append((place, name))
        put_all_in_place(folder, files, [name for _, name in files if name.is_file()] if len(files) > 1 else [])
    finally:
        for place, _ in files:
            release(place)


def _sync_tree(folder: Path) -> None:
    for path in folder.iterdir():
        if stat.S_ISDIR(path.lstat().st_mode):
            _sync_tree(path)
    sync_folder(folder)
