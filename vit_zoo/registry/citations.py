"""BibTeX entry of each family's paper; data in `zoo/citations.bib`."""

from __future__ import annotations

import functools
import re

from vit_zoo.registry.catalog import zoo_folder

ENTRY = re.compile(r"^@\w+\{(\w+),$.*?^\}$", re.DOTALL | re.MULTILINE)
OTHER_KEYS = re.compile(r"^  ids = \{([\w, ]+)\},\n", re.MULTILINE)  # biblatex's field for the other keys of an entry


@functools.cache
def _entries() -> dict[str, str]:
    text = (zoo_folder() / "citations.bib").read_text(encoding="utf-8")
    entries: dict[str, str] = {}
    for match in ENTRY.finditer(text):
        other_keys = OTHER_KEYS.search(match[0])
        entry = OTHER_KEYS.sub("", match[0])
        entries |= dict.fromkeys([match[1], *(other_keys[1].replace(" ", "").split(",") if other_keys else [])], entry)
    return entries


def citation_of(family: str | None) -> str:
    """Return the BibTeX entry of a family's paper, or the Vision Transformer's if the family has none."""
    entries = _entries()
    return entries.get(family or "vit", entries["vit"])
