"""Programs and packages that pip does not install."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def required(program: str, place: Path | None = None) -> str:
    """Where a program is, or a package in `place`. The test is skipped without it, or fails where VITZOO_REQUIRE names it."""
    found = shutil.which(program) if place is None else str(place) if place.exists() else None
    if found is None:
        missing = pytest.fail if program in os.environ.get("VITZOO_REQUIRE", "").split(",") else pytest.skip
        missing(f"{program} is not installed")
    return str(found)
