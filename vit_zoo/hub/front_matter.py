"""What a repository's README.md says in its front matter, YAML between two lines of `---`: the Hub's model card."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_zoo.errors import RefusedContent

FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
MAX_FRONT = 262_144  # characters
MAX_README = 4_194_304  # bytes


@dataclass(frozen=True)
class Terms:
    """The licence of a repository, by its name, and where its text is."""

    licence: str | None = None
    licence_link: str | None = None


def terms_of(folder: Path) -> Terms:
    """From the card in a folder; nothing where there is none, or none that can be read."""
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
    """The README.md of a folder, or nothing. Raises RefusedContent."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    if path.stat().st_size > MAX_README:
        raise RefusedContent(f"has {path.stat().st_size:,} bytes; the limit is {MAX_README:,}", where=path)
    return path.read_bytes().decode(errors="replace")


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """The front matter, and the text behind it. Raises RefusedContent for YAML that is none, or that refers to itself."""
    import yaml

    match = FRONT.match(text)
    if match is None:
        return {}, text
    front, rest = match[1], text[match.end() :]
    try:
        if len(front) > MAX_FRONT:
            raise RefusedContent(f"its front matter has {len(front):,} characters", where="README.md")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(front, Loader=yaml.SafeLoader)):
            raise RefusedContent("its front matter refers to itself", where="README.md")  # a small one may unfold to gigabytes
        found = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, RefusedContent):
            raise
        raise RefusedContent(f"its front matter is not YAML: {str(error).splitlines()[0]}", where="README.md") from None
    return (found if isinstance(found, dict) else {}), rest


def joined_card(front: dict[str, Any], text: str) -> str:
    """A card: what `split_card` takes apart."""
    import yaml

    matter = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{matter}---\n{text}"
