"""Rewriting of torch's zip archives: equal models give equal files, without traces of the machine.

torch writes into them a random number, class numbers that depend on the process, and source lines with their paths.
"""

from __future__ import annotations

import re
import zipfile
from typing import BinaryIO

ALIGNED = 64  # bytes: torch's own alignment of tensors, so that they can be memory-mapped
LEFT_OUT = re.compile(r"\.debug_pkl$|/\.data/serialization_id$")
NUMBERED = re.compile(rb"___torch_mangle_(\d+)")
LOCAL_HEADER, EXTRA_HEADER = 30, 4  # bytes
PADDING = b"FB"  # the extra field that torch pads with


def write_again(archive: BinaryIO, file: BinaryIO) -> None:
    """Copy the entries in order, without dates or traces of the process, and with classes numbered by first appearance."""
    numbers: dict[bytes, bytes] = {}

    def numbered(match: re.Match[bytes]) -> bytes:
        return b"___torch_mangle_" + numbers.setdefault(match[1], str(len(numbers)).encode())

    with zipfile.ZipFile(archive) as given, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as made:
        names = [name for name in given.namelist() if not LEFT_OUT.search(name)]
        for name in names:
            content = given.read(name)
            if name.endswith((".py", "/data.pkl")):
                content = NUMBERED.sub(numbered, content)
            renamed = NUMBERED.sub(numbered, name.encode()).decode()
            entry = zipfile.ZipInfo(renamed, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 0
            start = file.tell() + LOCAL_HEADER + len(renamed.encode()) + EXTRA_HEADER
            pad = -start % ALIGNED
            entry.extra = PADDING + pad.to_bytes(2, "little") + b"\0" * pad
            made.writestr(entry, content)
