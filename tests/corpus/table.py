"""All entries of the corpus."""

from __future__ import annotations

from fnmatch import fnmatch

from corpus import configs, images, onnx_files, weights
from corpus.entry import Entry

ENTRIES: tuple[Entry, ...] = (*weights.ENTRIES, *configs.ENTRIES, *onnx_files.ENTRIES, *images.ENTRIES)


def matching(*patterns: str) -> list[Entry]:
    """Return the entries whose names match one of the patterns, or all without patterns."""
    return [entry for entry in ENTRIES if not patterns or any(fnmatch(entry.name, pattern) for pattern in patterns)]


def make_all(folder, entries) -> None:
    """Write the valid files to `folder`/base and each entry to `folder`/files/NAME."""
    from corpus.base import make_base

    if not (folder / "base").exists():
        make_base(folder / "base")
    for entry in entries:
        place = folder / "files" / entry.name.replace("/", "-")
        if not place.exists():
            place.mkdir(parents=True)
            entry.make(place)
