"""Front matter of model cards: the YAML between two `---` lines at the start of a repository's README.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_zoo.errors import RefusedContent

FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
MAX_FRONT_MATTER = 262_144  # characters
MAX_README = 4_194_304  # bytes


@dataclass(frozen=True)
class Terms:
    """The name of a repository's licence, and a link to its text."""

    licence: str | None = None
    licence_link: str | None = None


def terms_of(folder: Path) -> Terms:
    """Return the licence that the card in a folder states; empty if there is no card or it cannot be read."""
    try:
        front = split_card(read_card(folder))[0]
    except RefusedContent:
        return Terms()
    name = front.get("license")
    if name == "other":
        name = front.get("license_name", name)
    if isinstance(name, list):
        name = ", ".join(map(str, name))
    link = front.get("license_link")
    return Terms(name if isinstance(name, str) else None, link if isinstance(link, str) else None)


def read_card(folder: Path) -> str:
    """Return the text of a folder's README.md, empty if there is none. Raises RefusedContent if it is too large."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    if path.stat().st_size > MAX_README:
        raise RefusedContent(f"has {path.stat().st_size:,} bytes; the limit is {MAX_README:,}", where=path)
    return path.read_bytes().decode(errors="replace")


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Split a card into its front matter and the text after it. Raises RefusedContent for invalid YAML or YAML with aliases."""
    import yaml

    match = FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    front, rest = match[1], text[match.end() :]
    try:
        if len(front) > MAX_FRONT_MATTER:
            limit = f"the limit is {MAX_FRONT_MATTER:,}"
            raise RefusedContent(f"front matter has {len(front):,} characters; {limit}", where="README.md")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(front, Loader=yaml.SafeLoader)):
            raise RefusedContent("front matter contains YAML aliases", where="README.md")  # they can expand to gigabytes
        fields = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, RefusedContent):
            raise
        raise RefusedContent(f"front matter is not valid YAML: {str(error).splitlines()[0]}", where="README.md") from None
    return (fields if isinstance(fields, dict) else {}), rest


def joined_card(front: dict[str, Any], text: str) -> str:
    """Join front matter and text to a card; the inverse of `split_card`."""
    import yaml

    front_matter = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front_matter}---\n{text}"
