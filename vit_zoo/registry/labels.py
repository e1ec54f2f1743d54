"""Label sets: class names in the order of the logits; data in `zoo/labels`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError
from vit_zoo.registry.catalog import zoo_folder
from vit_zoo.registry.family_file import NAME, read_toml


def _folder() -> Path:
    return zoo_folder() / "labels"


def _names_file(name: str) -> Path:
    return _folder() / f"{name}.tsv"


def has_names(name: str) -> bool:
    """Return whether `zoo/labels` has the class names of a label set."""
    return NAME.fullmatch(name) is not None and _names_file(name).is_file()


def label_set(name: str) -> dict[str, Any]:
    """Return the entry of a label set: its number of `classes` and their `order`. Raises InputError for an unknown name."""
    sets = read_toml(_folder() / "sets.toml")
    if name not in sets:
        raise InputError(f"unknown label set '{name[:96]}'; choose from {', '.join(sets)}")
    entry: dict[str, Any] = sets[name]
    return entry


def label_names(name: str) -> tuple[str, ...]:
    """Return the class names of a label set in the order of the logits.

    Raises InputError for a set without names.
    """
    return tuple(name for _, name in _rows(name))


def wordnet_ids(name: str) -> tuple[str, ...]:
    """Return the WordNet ids of a label set in the order of the logits. Raises InputError for a set without names."""
    return tuple(wnid for wnid, _ in _rows(name))


def _rows(name: str) -> list[tuple[str, str]]:
    """Return the WordNet id and the name of each class.

    The file has one `WNID<tab>name` per line; lines that start with `#` are comments.
    """
    if not has_names(name):
        raise InputError(f"no class names for label set '{name}'", where=_folder())
    lines = [line for line in _names_file(name).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [(wnid, words) for wnid, _, words in (line.partition("\t") for line in lines)]
