"""Tests of the README and docs/: quotes are in the sources, and code blocks run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.pages import BLOCK, PAGES, QUOTE
from support.paths import ROOT


def lines(text):
    return [line.strip() for line in text.strip().splitlines()]


def test_quotes_are_in_the_sources():
    quotes = [(page, *quote) for page in PAGES for quote in QUOTE.findall(page.read_text())]
    assert len(quotes) >= 5
    for page, file, quote in quotes:
        source, wanted = lines((ROOT / file).read_text()), lines(quote)
        found = any(source[i : i + len(wanted)] == wanted for i in range(len(source)))
        assert found, f"{page.name} quotes what {file} does not say: {wanted[0]}"


def runnable(page):
    """Blocks without a reason not to run; the README's two set-up commands are left to CI."""
    found = [(kind, code) for reason, kind, code in BLOCK.findall(page.read_text()) if not reason]
    return [(kind, code) for kind, code in found if "venv" not in code]


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.stem)
def test_blocks_run(page, folder):
    """The blocks of each page run in order, in an empty folder with the zoo."""
    (folder / "zoo").symlink_to(ROOT / "zoo")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for kind, code in runnable(page):
        command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-euc", code]
        done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stderr}"


def test_reasons_not_to_run_are_given():
    for page in PAGES:
        for reason, _, _ in BLOCK.findall(page.read_text()):
            assert not reason or len(reason) > len("<!-- no-run: x -->\n"), page
