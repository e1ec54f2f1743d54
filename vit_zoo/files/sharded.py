"""Reader of sharded checkpoints, as transformers writes them: an index file maps each tensor to one of several files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from vit_zoo.errors import RefusedContent, shown
from vit_zoo.files.sniff import read_json
from vit_zoo.files.stored import Stored

PART = re.compile(r"(?!\.{1,2}\Z)[^/\\\x00-\x1f\ud800-\udfff]+")  # a name in the index's own folder
MAX_NAME = 255  # bytes, as in file systems
MAX_PARTS = 10_000


def parts_of(index: Path) -> dict[str, str]:
    """Return the file of each tensor that an index lists. Raises RefusedContent for values of other types and other places."""
    file_of = read_json(index).get("weight_map")
    if not isinstance(file_of, dict) or not file_of or not all(isinstance(file, str) for file in file_of.values()):
        raise RefusedContent("has no weight_map from tensor names to files", where=index)
    files = dict.fromkeys(file_of.values())
    outside = next((file for file in files if not PART.fullmatch(file) or len(file.encode()) > MAX_NAME), None)
    if outside is not None:
        raise RefusedContent(f"refers to a file outside its folder: {shown(outside)}", where=index)
    if len(files) > MAX_PARTS:
        raise RefusedContent(f"refers to {len(files):,} files; the limit is {MAX_PARTS:,}", where=index)
    return file_of


def read_sharded(index: Path, open_one: Callable[[Path], Mapping[str, Stored]]) -> dict[str, Stored]:
    """Return the tensors of all files that an index lists; `open_one` reads one file.

    Raises RefusedContent if a file is missing or outside the index's folder, or if its tensors are not those in the index.
    """
    file_of = parts_of(index)
    tensors: dict[str, Stored] = {}
    for file in sorted(set(file_of.values())):
        path = index.with_name(file)
        if not path.is_file():
            raise RefusedContent(f"part {file!r} is missing", where=index)
        for name, tensor in open_one(path).items():
            if file_of.get(name) != file:
                raise RefusedContent(f"{file!r} contains {name!r}, which the index does not list there", where=index)
            tensors[name] = tensor
    missing = [name for name in file_of if name not in tensors]
    if missing:
        raise RefusedContent(f"{missing[0]!r} is not in {file_of[missing[0]]!r}", where=index)
    return tensors
