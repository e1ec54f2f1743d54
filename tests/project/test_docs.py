"""Tests of the README and docs/: quotes are in the sources, and code blocks run."""

from __future__ import annotations

import pytest

from support.pages import BLOCK, PAGES, QUOTE, run_blocks, runnable
from support.paths import ROOT

TUTORIALS = ("fine-tune.md", "browser.md")  # run, and their results used, by test_tutorials.py


def lines(text):
    return [line.strip() for line in text.strip().splitlines()]


def test_quotes_are_in_the_sources():
    quotes = [(page, *quote) for page in PAGES for quote in QUOTE.findall(page.read_text())]
    assert len(quotes) >= 5
    for page, file, quote in quotes:
        source, wanted = lines((ROOT / file).read_text()), lines(quote)
        found = any(source[i : i + len(wanted)] == wanted for i in range(len(source)))
        assert found, f"{page.name} quotes what {file} does not say: {wanted[0]}"


RUN = [page for page in PAGES if runnable(page) and page.name not in TUTORIALS]


@pytest.mark.parametrize("page", RUN, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_blocks_run(page, folder):
    """The blocks of each page run in order, in an empty folder with the zoo."""
    run_blocks(page, folder)


def test_reasons_not_to_run_are_given():
    for page in PAGES:
        for reason, _, _ in BLOCK.findall(page.read_text()):
            assert not reason or len(reason) > len("<!-- no-run: x -->\n"), page
