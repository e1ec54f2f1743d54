"""Which classes a label set has, in the order of the logits: the data of `zoo/labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError
from vit_zoo.registry.catalog import zoo_folder
from vit_zoo.registry.family_file import read_toml


def _folder() -> Path:
    return zoo_folder() / "labels"


def _names_file(name: str) -> Path:
    return _folder() / f"{name}.tsv"


def has_names(name: str) -> bool:
    """Whether the classes of a label set have names here."""
    return _names_file(name).is_file()


def label_set(name: str) -> dict[str, Any]:
    """How many classes a label set has, and in which order: `classes`, `order`. Raises InputError for an unknown one."""
    sets = read_toml(_folder() / "sets.toml")
    if name not in sets:
        raise InputError(f"no label set '{name[:96]}'; there are {', '.join(sets)}")
    found: dict[str, Any] = sets[name]
    return found


def label_names(name: str) -> tuple[str, ...]:
    """The class names of a label set in the order of the logits: `WNID<tab>name` a line, `#` comments.

    Raises InputError for a set without names.
    """
    if not has_names(name):
        raise InputError(f"no names for the label set '{name}'", where=_folder())
    lines = [line for line in _names_file(name).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return tuple(line.partition("\t")[2] for line in lines)
