"""What other libraries call our names, and what such a name hides: the data of `zoo/aliases/*.toml`.

Read when a name is unknown, or when a name is shown; never to list names.
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
    """A name of another library for one of ours; `differs` is what that library does with it, where it is not what we do."""

    alias: str
    library: str
    name: str
    differs: dict[str, Any]
    note: str | None = None

    @property
    def sentence(self) -> str:
        """What it stands for and what differs, in one line."""
        return f"'{self.alias}' of {self.library} is {self.name}{self.difference}"

    @property
    def difference(self) -> str:
        """What differs, as the rest of a sentence; empty where nothing does."""
        fields = ", ".join(f"{field} = {_plain(value)}" for field, value in self.differs.items())
        return (f", but there {fields}" if fields else "") + (f"; {self.note}" if self.note else "")


@functools.cache
def read_aliases(folders: tuple[Path, ...]) -> tuple[dict[str, Alias], dict[str, tuple[str, list[str]]]]:
    """Every alias, and every ambiguous name with its reason and its candidates, of `aliases/` in each folder; read once."""
    found: dict[str, Alias] = {}
    unclear: dict[str, tuple[str, list[str]]] = {}
    for file in (file for folder in folders for file in sorted((folder / "aliases").glob("*.toml"))):
        data = read_toml(file)
        try:
            unclear |= {
                name: (entry["why"], list(entry["candidates"])) for entry in data.get("ambiguous", []) for name in entry["names"]
            }
            new = list(_of_groups(data))
        except (KeyError, TypeError, AttributeError):
            raise InputError("an alias file has 'library' and groups with 'names' and 'differs'", where=file) from None
        for alias in new:
            if alias.alias in found or alias.alias in unclear:
                raise InputError(f"the alias '{alias.alias}' is there twice", where=file)
            found[alias.alias] = alias
    return found, unclear


def _of_groups(data: dict[str, Any]) -> Iterator[Alias]:
    for group in data.get("group", []):
        for alias, name in group["names"].items():
            yield Alias(alias, data["library"], name, dict(group.get("differs", {})), group.get("note"))


def ambiguous(name: str, why: str, candidates: Sequence[str]) -> InputError:
    """The refusal of a name that means different models in different places."""
    return InputError(f"'{name[:96]}' is ambiguous: {why}", hint=f"one of {', '.join(candidates)}")


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
