"""Standalone checkers, which repositories carry beside their ONNX files: one program for each language."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "checkers"
PUBLISHED = ("selfcheck.py", "selfcheck.mjs")


def checker_files() -> dict[str, Path]:
    """Return the checkers that `publish` copies, by name."""
    return {name: FOLDER / name for name in PUBLISHED}


def is_checker(path: Path) -> bool:
    """Return whether a file is one of these, byte for byte."""
    known = checker_files().get(path.name)
    return known is not None and path.stat().st_size == known.stat().st_size and path.read_bytes() == known.read_bytes()
