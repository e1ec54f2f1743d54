"""Model names of other libraries, with the registry names that they correspond to; data in `zoo/aliases/*.toml`.

The files are read only to resolve a name that is not in the registry, or to show a model; listing names does not read them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError
from vit_zoo.registry.family_file import read_toml


@dataclass(frozen=True)
class Alias:
    """A model name of another library and the registry name of the same architecture.

    `differs` maps a field to the value that the library uses where it is not the registry's value.
    """

    alias: str
    library: str
    name: str
    differs: dict[str, Any]
    note: str | None = None

    @property
    def is_repository(self) -> bool:
        """Whether the name is that of a repository of the Hugging Face Hub."""
        return self.library == "transformers" and "/" in self.alias

    @property
    def sentence(self) -> str:
        """The alias, its registry name and all differences, in one line."""
        return f"'{self.alias}' in {self.library} is {self.name}{self.difference}"

    @property
    def difference(self) -> str:
        """The differences as the end of a sentence; empty if there are none."""
        fields = ", ".join(f"{field} = {_toml_text(value)}" for field, value in self.differs.items())
        return (f", but {self.library} has {fields}" if fields else "") + (f"; {self.note}" if self.note else "")


@functools.cache
def read_aliases(folders: tuple[Path, ...]) -> tuple[dict[str, Alias], dict[str, tuple[str, list[str]]]]:
    """Return all aliases, and all ambiguous names with the reason and the candidates.

    Reads `aliases/*.toml` in each of the folders, once. Raises InputError for a file with missing keys or a duplicate alias.
    """
    aliases: dict[str, Alias] = {}
    ambiguous_names: dict[str, tuple[str, list[str]]] = {}
    for file in (file for folder in folders for file in sorted((folder / "aliases").glob("*.toml"))):
        data = read_toml(file)
        try:
            for entry in data.get("ambiguous", []):
                why, candidates = _text(entry["why"]), [_text(name) for name in entry["candidates"]]
                ambiguous_names |= {_text(name): (why, candidates) for name in entry["names"]}
            new = list(_grouped_aliases(data))
        except (KeyError, TypeError, AttributeError):
            raise InputError("expected 'library', and groups with 'names' and 'differs'", where=file) from None
        for alias in new:
            if alias.alias in aliases or alias.alias in ambiguous_names:
                raise InputError(f"duplicate alias '{alias.alias}'", where=file)
            aliases[alias.alias] = alias
    return aliases, ambiguous_names


def _grouped_aliases(data: dict[str, Any]) -> Iterator[Alias]:
    for group in data.get("group", []):
        differs, note = group.get("differs", {}), group.get("note")
        if not isinstance(differs, dict):
            raise TypeError
        for alias, name in group["names"].items():
            yield Alias(alias, _text(data["library"]), _text(name), differs, None if note is None else _text(note))


def _text(value: object) -> str:
    """Return a text. Raises TypeError for another type."""
    if not isinstance(value, str):
        raise TypeError
    return value


def ambiguous(name: str, why: str, candidates: Sequence[str]) -> InputError:
    """Return the error for a name that other libraries use for different models."""
    return InputError(f"'{name[:96]}' is ambiguous: {why}", hint=f"choose from {', '.join(candidates)}")


def _toml_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
