"""Small file systems, to fill them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def small_disk_at(folder, size):
    """Mount a file system of a size, such as `600k`. Skips the test where that is not permitted, as in most containers."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
