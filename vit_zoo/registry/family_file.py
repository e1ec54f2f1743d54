"""What a zoo file says: families with their sizes and forms, and variants, as TOML; nothing is validated but its shape.

Only the standard library: listing names must stay instant. `schema.py` says the same in pydantic, for whole files.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError

NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,95}")
SIZE = re.compile(r"[a-z0-9]{0,31}[a-z]")  # a size may not end in a digit: the patch follows it
FORMS = ("reg", "gap", "map")  # the suffixes that a family may give a meaning
ROW = {"size": str, "form": list, "params": int, "gmacs": int | float, "weights": str}  # beside fields of the spec
FAMILY = ("name", "title", "conventions", "labels")
TABLES = ("family", "spec", "preprocess", "suffix", "size", "variant")
MAX_FILE = 262_144  # bytes; the largest of ours has 60 kB
KEY = r"""(?:[\w-]++|"[^"\n]*"|'[^'\n]*')"""
DOTTED = re.compile(rf"(?<![\w-])(?:{KEY}[ \t]*+\.[ \t]*+){{9}}")  # a key of 20,000 parts keeps tomllib busy for 8 s

Fields = dict[str, Any]
Layers = tuple[tuple[str, Fields], ...]


@dataclass(frozen=True)
class Family:
    """What the variants of a file share, and what the parts of a name stand for."""

    name: str
    file: Path
    about: dict[str, str]  # title, conventions, labels
    base: str | None
    shared: Fields
    sizes: dict[str, Fields]
    forms: dict[str, Fields]
    preprocess: Fields | None


@dataclass(frozen=True)
class Variant:
    """One named architecture, as its file states it; `layers` say where each field comes from, the last one wins."""

    name: str
    family: str
    file: Path
    base: str | None
    layers: Layers
    preprocess: Fields | None
    row: Fields = field(default_factory=dict)

    @property
    def fields(self) -> Fields:
        """Not validated yet, and without those of `base`."""
        return {name: value for _, layer in self.layers for name, value in layer.items()}

    @property
    def origin(self) -> dict[str, str]:
        return {name: where for where, layer in self.layers for name in layer}

    @property
    def weights(self) -> Path | None:
        """The folder of the weights that ship with this variant."""
        folder = self.row.get("weights")
        return None if folder is None else self.file.parent / folder


def read_zoo_file(file: Path) -> tuple[Family | None, list[Variant]]:
    """A family file (tables family, spec, preprocess, suffix, size, variant), or a file for a single variant."""
    data = read_toml(file)
    if "variant" not in data:
        return None, [_single(file, data)]
    family = _family(file, data)
    return family, list(_rows(family, data["variant"]))


def read_variant(file: Path) -> Variant:
    """The one variant of a user's file. Raises InputError for a file that holds another number of them."""
    found = read_zoo_file(file)[1]
    if len(found) != 1:
        raise InputError(f"holds {len(found)} variants; a model is one", where=file, hint="register the file and use a name")
    return found[0]


def _family(file: Path, data: Fields) -> Family:
    unknown = set(data) - set(TABLES)
    if unknown or not all(isinstance(data.get(table, {}), dict) for table in TABLES):
        raise InputError(f"unknown table '{min(unknown)}'" if unknown else f"{', '.join(TABLES)} are tables", where=file)
    about = dict(data.get("family", {}))
    for key, value in about.items():
        if key not in FAMILY:
            raise InputError(f"unknown field 'family.{key}'; there are {', '.join(FAMILY)}", where=file)
        if not isinstance(value, str):
            raise InputError(f"family.{key} must be text", where=file)
    forms = data.get("suffix", {})
    for form in forms:
        if form not in FORMS:
            raise InputError(f"unknown field 'suffix.{form}'; there are {', '.join(FORMS)}", where=file)
    shared = dict(data.get("spec", {}))
    base = _base(shared.pop("extends", None), file)
    name = checked_name(about.pop("name", file.stem.lower().replace("-", "_")), file)
    return Family(name, file, about, base, shared, data.get("size", {}), forms, data.get("preprocess"))


def _rows(family: Family, rows: Fields) -> Iterator[Variant]:
    for name, row in rows.items():
        if not isinstance(row, dict):
            raise InputError(f"variant '{name}' must be a table", where=family.file)
        for key, kind in ROW.items():
            if key in row and not (isinstance(row[key], kind) and not isinstance(row[key], bool)):
                raise InputError(f"variant '{name}': {key} = {row[key]!r} is of the wrong type", where=family.file)
        layers = layers_of(family, row.get("size"), row.get("form", []), variant=name)
        own = {key: value for key, value in row.items() if key not in ROW}
        beside = {key: value for key, value in row.items() if key in ROW}
        checked_name(name, family.file)
        yield Variant(name, family.name, family.file, family.base, (*layers, ("the variant", own)), family.preprocess, beside)


def layers_of(family: Family, size: str | None, forms: list[str], *, variant: str) -> Layers:
    """The fields of a family, of forms of it and of a size, in the order in which they override each other."""
    layers: list[tuple[str, Fields]] = [(f"family {family.name}", family.shared)]
    for form in forms:
        found = family.forms.get(form) if isinstance(form, str) else None
        if not isinstance(found, dict):
            raise InputError(f"variant '{variant}' names a form {form!r} that the file does not have", where=family.file)
        layers.append((f"form {form}", found))
    if size is not None:
        fields = family.sizes.get(size)
        if not isinstance(fields, dict):
            raise InputError(f"variant '{variant}' names a size '{size}' that the file does not have", where=family.file)
        layers.append((f"size {size}", fields))
    return tuple(layers)


def _single(file: Path, data: Fields) -> Variant:
    """A user's variant: fields of the spec at top level, most of them inherited by `extends`."""
    fields = dict(data)
    name = checked_name(fields.pop("name", file.stem), file)
    base, preprocess = _base(fields.pop("extends", None), file), fields.pop("preprocess", None)
    if preprocess is not None and not isinstance(preprocess, dict):
        raise InputError("preprocess must be a table", where=file)
    return Variant(name, "user", file, base, (("the variant", fields),), preprocess)


def _base(name: Any, file: Path) -> str | None:
    if name is not None and not isinstance(name, str):
        raise InputError(f"extends = {name!r}: the name of a variant is wanted", where=file)
    return name


def checked_name(name: Any, file: Path) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(f"{str(name)[:96]!r} is not a name: lower-case letters, digits and underscores, at most 96", where=file)
    return name


def read_toml(file: Path) -> Fields:
    """A TOML file within limits. Raises InputError naming it."""
    try:
        if not file.is_file():
            raise InputError("is not a regular file" if file.exists() else "no such file", where=file)
        size = file.stat().st_size
        if size > MAX_FILE:
            raise InputError(f"has {size:,} bytes; a zoo file has at most {MAX_FILE:,}", where=file)
        text = file.read_text(encoding="utf-8")
        if DOTTED.search(text):
            raise InputError("not valid for a zoo file: a key has more than 8 dots", where=file)
        return tomllib.loads(text)
    except InputError:
        raise
    except RecursionError:
        raise InputError("not valid TOML: nested too deeply", where=file) from None
    except ValueError as error:  # TOML, UTF-8, integers of thousands of digits
        raise InputError(f"not valid TOML: {error}", where=file) from None
    except OSError as error:
        raise InputError(error.strerror or str(error), where=file) from None
