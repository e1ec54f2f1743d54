"""Which paper a family is from: the data of `zoo/citations.bib`."""

from __future__ import annotations

import functools
import re

from vit_zoo.registry.catalog import zoo_folder

ENTRY = re.compile(r"^@\w+\{(\w+),$.*?^\}$", re.DOTALL | re.MULTILINE)
ALSO = re.compile(r"^  ids = \{([\w, ]+)\},\n", re.MULTILINE)  # biblatex's field for further keys


@functools.cache
def _entries() -> dict[str, str]:
    text = (zoo_folder() / "citations.bib").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for match in ENTRY.finditer(text):
        also = ALSO.search(match[0])
        entry = ALSO.sub("", match[0])
        found |= dict.fromkeys([match[1], *(also[1].replace(" ", "").split(",") if also else [])], entry)
    return found


def citation_of(family: str | None) -> str:
    """The BibTeX entry of a family; that of the Vision Transformer for one that has none of its own."""
    entries = _entries()
    return entries.get(family or "vit", entries["vit"])
