"""Catalogue of all known families and variants: the zoo's folders, read once, and those registered in this process.

`KNOWN` holds all of this module's state.
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
    """Variants and families by name, and the folders that they were read from."""

    folders: tuple[Path, ...] = ()
    variants: dict[str, Variant] = field(default_factory=dict)
    families: dict[str, Family] = field(default_factory=dict)

    def add(self, family: Family | None, rows: Sequence[Variant]) -> None:
        """Add the contents of one file. Raises InputError for a name that already exists."""
        if family is not None:
            if family.name in self.families:
                other = self.families[family.name].file
                raise InputError(f"family '{family.name}' is already defined in {other}", where=family.file)
            self.families[family.name] = family
        for variant in rows:
            if variant.name in self.variants:
                other = self.variants[variant.name].file
                raise InputError(f"variant '{variant.name}' is already defined in {other}", where=variant.file)
            self.variants[variant.name] = variant


@dataclass
class Known:
    """The state of the zoo in this process."""

    read: Zoo | None = None  # the contents of the folders, None until they are first used
    registered: Zoo = field(default_factory=Zoo)  # added by `registry.register`; has no folders
    extra: list[Path] = field(default_factory=list)  # folders in addition to the zoo's own and VITZOO_PATH


KNOWN = Known()


def zoo_folder() -> Path:
    """Return the folder of the zoo's data: inside the installed package, or next to the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "zoo" if (package / "zoo").is_dir() else package.parent / "zoo"


def add_folder(folder: str | os.PathLike[str]) -> None:
    """Add a folder of zoo files, as VITZOO_PATH does, without reading it yet."""
    KNOWN.extra.append(Path(folder))
    KNOWN.read = None


def forget_folder(folder: str | os.PathLike[str]) -> None:
    """Remove a folder that `add_folder` added."""
    KNOWN.extra.remove(Path(folder))
    KNOWN.read = None


def zoo() -> Zoo:
    """Return the contents of all folders, read once. Raises InputError for a missing folder or an invalid file."""
    if KNOWN.read is None:
        KNOWN.read = _read_folders()  # assigned only after all files are read, so that an error leaves no partial zoo
    return KNOWN.read


def _read_folders() -> Zoo:
    user_folders = [Path(os.environ["VITZOO_PATH"])] if os.environ.get("VITZOO_PATH") else []
    contents = Zoo((zoo_folder(), *user_folders, *KNOWN.extra))
    for folder in contents.folders:
        if not folder.is_dir():
            raise InputError("no such folder", where=folder, hint="check VITZOO_PATH")
        for file in sorted(folder.glob("*.toml")):
            contents.add(*read_zoo_file(file))
    return contents


def variants() -> dict[str, Variant]:
    """Return all variants by name: the zoo's own, then those in users' folders, then the registered ones."""
    return {**zoo().variants, **KNOWN.registered.variants}


def families() -> dict[str, Family]:
    """Return all families by name."""
    return {**zoo().families, **KNOWN.registered.families}
