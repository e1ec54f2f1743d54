"""Check for programs and packages that pip does not install."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def required(program: str, place: Path | None = None) -> str:
    """The path of a program, or of a package in `place`. Skips the test without it, or fails it where VITZOO_REQUIRE names it."""
    found = shutil.which(program) if place is None else str(place) if place.exists() else None
    if found is None:
        missing = pytest.fail if program in os.environ.get("VITZOO_REQUIRE", "").split(",") else pytest.skip
        missing(f"{program} is not installed")
    return str(found)
