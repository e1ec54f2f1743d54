"""Names of temporary files and folders: `.NAME.vitzoo-PID-HEX.tmp`, in the folder of `NAME`."""

from __future__ import annotations

import re
from pathlib import Path

TEMPORARY = re.compile(r"\.(.*)\.vitzoo-(\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)  # with the target's name and a process id


def target_name(path: Path) -> str:
    """Return a file's name, or the one that a temporary file will have."""
    match = TEMPORARY.fullmatch(path.name)
    return path.name if match is None else match[1]


def final_path(path: Path) -> Path:
    """Return the path that a file will have when every temporary folder in its path has its name."""
    names = [name if (match := TEMPORARY.fullmatch(name)) is None else match[1] for name in path.parts]
    return Path(*filter(None, names))  # a temporary folder inside its target has no name of its own
