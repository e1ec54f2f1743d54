"""Which architectures are known: the files of the zoo's folders, read once, and what this process registered.

Everything that a process remembers of the zoo is in `KNOWN`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vit_zoo.errors import InputError
from vit_zoo.registry.family_file import Family, Variant, read_zoo_file


@dataclass(frozen=True)
class Zoo:
    """Variants and families by name, and the folders that they are from."""

    folders: tuple[Path, ...] = ()
    variants: dict[str, Variant] = field(default_factory=dict)
    families: dict[str, Family] = field(default_factory=dict)

    def add(self, family: Family | None, rows: Sequence[Variant]) -> None:
        """What a file holds. Raises InputError for a name that is there already."""
        if family is not None:
            if family.name in self.families:
                raise InputError(f"the family '{family.name}' is also in {self.families[family.name].file}", where=family.file)
            self.families[family.name] = family
        for variant in rows:
            if variant.name in self.variants:
                raise InputError(f"the name '{variant.name}' is also in {self.variants[variant.name].file}", where=variant.file)
            self.variants[variant.name] = variant


@dataclass
class Known:
    """What a process knows of the zoo."""

    read: Zoo | None = None  # what the folders hold, once it was asked for
    registered: Zoo = field(default_factory=Zoo)  # without folders
    extra: list[Path] = field(default_factory=list)  # folders beside the zoo's own and that of VITZOO_PATH


KNOWN = Known()


def zoo_folder() -> Path:
    """The folder of the zoo's data: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "zoo" if (package / "zoo").is_dir() else package.parent / "zoo"


def add_folder(folder: str | os.PathLike[str]) -> None:
    """Add a folder of zoo files, as VITZOO_PATH does, unread."""
    KNOWN.extra.append(Path(folder))
    KNOWN.read = None


def forget_folder(folder: str | os.PathLike[str]) -> None:
    """Take back what `add_folder` added."""
    KNOWN.extra.remove(Path(folder))
    KNOWN.read = None


def zoo() -> Zoo:
    """The files of every folder, read once. Raises InputError for a folder that is not there, and for a file that is wrong."""
    if KNOWN.read is None:
        KNOWN.read = _read_folders()  # all or nothing: an error must not leave a part of the zoo behind
    return KNOWN.read


def _read_folders() -> Zoo:
    users = [Path(os.environ["VITZOO_PATH"])] if os.environ.get("VITZOO_PATH") else []
    found = Zoo((zoo_folder(), *users, *KNOWN.extra))
    for folder in found.folders:
        if not folder.is_dir():
            raise InputError("no such folder", where=folder, hint="VITZOO_PATH names it")
        for file in sorted(folder.glob("*.toml")):
            found.add(*read_zoo_file(file))
    return found


def variants() -> dict[str, Variant]:
    """Every row by name: ours, then those of users' folders, then the registered ones."""
    return {**zoo().variants, **KNOWN.registered.variants}


def families() -> dict[str, Family]:
    """Every family by name."""
    return {**zoo().families, **KNOWN.registered.families}
