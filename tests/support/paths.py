"""Paths of the checkout, for tests in any folder."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
CASES = TESTS / "data" / "cases"
CLIENTS = TESTS / "clients"  # programs of child processes
NODE = TESTS / "node"
HELD_OUT = ROOT / "zoo" / "vit_digits" / "held_out"
PHOTOS = ROOT / "zoo" / "photos"
