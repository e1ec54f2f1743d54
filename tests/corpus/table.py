"""All entries of the corpus."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from corpus import configs, documents, images, metadata, onnx_files, pickles, weights
from corpus.entry import Entry

MODULES = (pickles, weights, configs, documents, metadata, onnx_files, images)
ENTRIES: tuple[Entry, ...] = tuple(entry for module in MODULES for entry in module.ENTRIES)


def matching(*patterns: str) -> list[Entry]:
    """Return the entries whose names match one of the patterns, or all without patterns."""
    return [entry for entry in ENTRIES if not patterns or any(fnmatch(entry.name, pattern) for pattern in patterns)]


def sampled(entries: list[Entry], count: int) -> list[Entry]:
    """Return all former faults, and up to `count` other entries of each kind, evenly spaced, without those that are slow."""
    entries = [entry for entry in entries if not entry.slow]
    kinds: dict[str, list[Entry]] = {}
    for entry in entries:
        kinds.setdefault(entry.name.partition("/")[0], []).append(entry)
    chosen = {entry.name for entry in entries if entry.former}
    for group in kinds.values():
        others = [entry for entry in group if not entry.former]
        chosen |= {entry.name for entry in others[:: max(1, -(-len(others) // count))]}
    return [entry for entry in entries if entry.name in chosen]


def make_all(folder: Path, entries: list[Entry]) -> None:
    """Write the valid files to `folder`/base and each entry to `folder`/files/NAME."""
    from corpus.base import make_base

    if not (folder / "base").exists():
        make_base(folder / "base")
    for entry in entries:
        place = folder / "files" / entry.name.replace("/", "-")
        if not place.exists():
            place.mkdir(parents=True)
            entry.make(place)
