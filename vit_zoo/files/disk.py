"""Errors of the disk, in words, and what must reach it before a rename counts."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vit_zoo.errors import CannotWrite, VitzooError, cause_of
from vit_zoo.files.names import final_path


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn any OSError in the block into CannotWrite for the target."""
    try:
        yield
    except VitzooError:
        raise
    except OSError as error:
        raise CannotWrite(cause_of(error), where=final_path(target)) from None


def check_space(folder: Path, need: int) -> None:
    """Raise CannotWrite unless the file system of a folder has `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise CannotWrite(f"not enough disk space: needs {need:,} bytes, {free:,} are free", where=final_path(folder))


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, so that a rename in it survives a power cut. Windows cannot open a folder for that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
