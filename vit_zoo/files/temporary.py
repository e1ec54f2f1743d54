"""Temporary files and folders: their names, and their removal, also after the process that made them died.

They have the name `.NAME.vitzoo-PID-HEX.tmp` in the folder of `NAME`, so that they are renamed within one file system.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from vit_zoo.files import journal
from vit_zoo.files.disk import sync_folder
from vit_zoo.files.journal import inode_of
from vit_zoo.files.names import TEMPORARY

_made: set[Path] = set()  # those of this process that may still exist


def temporary(target: Path) -> Path:
    """Return a new temporary name next to a target. `remove_all` removes what has it, until `forget` is called."""
    return temporary_in(target.parent, target.name)


def temporary_in(folder: Path, name: str = "") -> Path:
    """Return a new temporary name in a folder: of a target in it, or of the folder itself."""
    path = folder / f".{name}.vitzoo-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    adopt(path)
    return path


def adopt(path: Path) -> None:
    """State that a temporary name is in use, and that `remove_all` may remove what has it."""
    _made.add(path.absolute())


def forget(path: Path) -> None:
    """State that a temporary name is no longer used, or that a journal refers to it."""
    _made.discard(path.absolute())


def put_in_place(source: Path, target: Path) -> None:
    """Rename a complete temporary file or folder to its target. Raises OSError, after restoring what was there."""
    inode = inode_of(source)
    second = second_names([target] if inode_of(target) is not None else [])
    try:
        source.replace(target)
        sync_folder(target.parent)
    except BaseException:
        if target in second:
            second[target].replace(target)
        elif inode_of(target) == inode:
            target.replace(source)
        raise
    finally:
        for path in second.values():
            remove(path)
    forget(source)


def second_names(old: Iterable[Path]) -> dict[Path, Path]:
    """Give each file a second name, a temporary one; none to those after the first for which that is not possible."""
    second: dict[Path, Path] = {}
    try:
        for path in old:
            second[path] = temporary(path)
            second[path].hardlink_to(path)
    except OSError:  # the file system has no hard links, the file belongs to another user, or it is a folder
        forget(second.popitem()[1])
    except BaseException:
        for copy in second.values():
            remove(copy)
        raise
    return second


def remove(path: Path) -> None:
    """Remove a temporary file or folder, if it is still there. What cannot be removed is left to `clear_stale`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # another process may remove it at the same time, or another user may own it
            path.unlink(missing_ok=True)
    if not os.path.lexists(path):
        forget(path)


def release(path: Path) -> None:
    """Remove a temporary file or folder, unless it has got its name or a journal refers to it."""
    if path.absolute() in _made:
        remove(path)


def remove_all() -> None:
    """Remove everything temporary that this process made: it ends by a signal, which may have hit a clean-up."""
    for path in list(_made):
        match = TEMPORARY.fullmatch(path.name)
        if match and int(match[2]) == os.getpid():  # a forked process has the names of its parent
            remove(path)


def clear_stale(folder: Path) -> None:
    """Remove the temporary files and folders of processes that no longer run, after finishing what a journal asks for."""
    journal.settle(folder)
    if os.path.lexists(folder / journal.NAME):  # it belongs to another user, or is not ours: it may need its files
        return
    with os.scandir(folder) as entries:
        matches = [match for entry in entries if (match := TEMPORARY.fullmatch(entry.name))]
    for match in matches:
        if not _alive(int(match[2])):
            remove(folder / match[0])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
