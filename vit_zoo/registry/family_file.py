"""Reader of zoo files: TOML files with a family, its sizes and forms, and its variants.

Only the types that reading needs are checked here. `schema` defines the complete file format in pydantic, and `configs`
validates the values. This module imports only the standard library, because listing names must be instant.

A form is the change of spec fields that a suffix of a name stands for: `reg`, `gap` or `map`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError, shown

NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,95}")
SIZE = re.compile(r"[a-z0-9]{0,31}[a-z]")  # must not end in a digit, because the patch size follows it in a name
FORMS = ("reg", "gap", "map")  # the suffixes that a family can define
# keys of a variant that are not fields of the spec
ROW_KEYS = {"size": str, "form": list, "params": int, "gmacs": int | float, "weights": str}
FAMILY_KEYS = ("name", "title", "use", "conventions", "labels", "problem_type")
TABLES = ("family", "spec", "preprocess", "suffix", "size", "variant")
MAX_FILE = 262_144  # bytes; the largest file in the zoo has 60 kB
KEY = r"""(?:[\w-]++|"[^"\n]*"|'[^'\n]*')"""
DEEP_KEY = re.compile(rf"(?<![\w-])(?:{KEY}[ \t]*+\.[ \t]*+){{9}}")  # tomllib needs 8 s for a key of 20,000 parts

Fields = dict[str, Any]
Layers = tuple[tuple[str, Fields], ...]


@dataclass(frozen=True)
class Family:
    """A family of variants: the spec fields that they share, and the fields of each size and form.

    `base` is the variant that the family extends. `about` has its title, what it is good for (`use`), conventions and label set.
    """

    name: str
    file: Path
    about: dict[str, str]
    base: str | None
    shared: Fields
    sizes: dict[str, Fields]
    forms: dict[str, Fields]
    preprocess: Fields | None


@dataclass(frozen=True)
class Variant:
    """One named architecture as its file has it, not yet validated.

    `layers` holds groups of fields, each with its origin; later ones override earlier ones. `base` is the variant that this
    one extends. `row` has the keys of the file's row that are not fields of the spec: size, form, params, gmacs, weights.
    """

    name: str
    family: str
    file: Path
    base: str | None
    layers: Layers
    preprocess: Fields | None
    row: Fields = field(default_factory=dict)

    @property
    def fields(self) -> Fields:
        """The fields of all layers, without those inherited from `base`."""
        return {name: value for _, layer in self.layers for name, value in layer.items()}

    @property
    def origin(self) -> dict[str, str]:
        """The origin of each field."""
        return {name: origin for origin, layer in self.layers for name in layer}

    @property
    def weights(self) -> Path | None:
        """The folder of the weights that ship with this variant, or None."""
        folder = self.row.get("weights")
        return None if folder is None else self.file.parent / folder


def read_zoo_file(file: Path) -> tuple[Family | None, list[Variant]]:
    """Read a family file, which has the table `variant`, or a file for a single variant; return its family and variants.

    The tables of a family file are family, spec, preprocess, suffix, size and variant. Raises InputError.
    """
    data = read_toml(file)
    if "variant" not in data:
        return None, [_single(file, data)]
    family = _family(file, data)
    return family, list(_rows(family, data["variant"]))


def read_variant(file: Path) -> Variant:
    """Read a user's file with one variant. Raises InputError if it has more or none."""
    variants = read_zoo_file(file)[1]
    if len(variants) != 1:
        hint = "register the file, then use the name of a variant"
        raise InputError(f"expected one variant, got {len(variants)}", where=file, hint=hint)
    return variants[0]


def _family(file: Path, data: Fields) -> Family:
    unknown = set(data) - set(TABLES)
    if unknown or not all(isinstance(data.get(table, {}), dict) for table in TABLES):
        known = ", ".join(TABLES)
        message = f"unknown table '{min(unknown)}'; choose from {known}" if unknown else f"{known} must be tables"
        raise InputError(message, where=file)
    about = dict(data.get("family", {}))
    for key, value in about.items():
        if key not in FAMILY_KEYS:
            raise InputError(f"unknown field 'family.{key}'; choose from {', '.join(FAMILY_KEYS)}", where=file)
        if not isinstance(value, str):
            raise InputError(f"family.{key} must be a string", where=file)
    forms = data.get("suffix", {})
    for form in forms:
        if form not in FORMS:
            raise InputError(f"unknown field 'suffix.{form}'; choose from {', '.join(FORMS)}", where=file)
    shared = dict(data.get("spec", {}))
    base = _base(shared.pop("extends", None), file)
    name = checked_name(about.pop("name", file.stem.lower().replace("-", "_")), file)
    return Family(name, file, about, base, shared, data.get("size", {}), forms, data.get("preprocess"))


def _rows(family: Family, rows: Fields) -> Iterator[Variant]:
    for name, row in rows.items():
        if not isinstance(row, dict):
            raise InputError(f"variant '{name}' must be a table", where=family.file)
        for key, kind in ROW_KEYS.items():
            if key in row and not (isinstance(row[key], kind) and not isinstance(row[key], bool)):
                raise InputError(f"variant '{name}': {key} = {row[key]!r} has the wrong type", where=family.file)
        layers = layers_of(family, row.get("size"), row.get("form", []), variant=name)
        own = {key: value for key, value in row.items() if key not in ROW_KEYS}
        others = {key: value for key, value in row.items() if key in ROW_KEYS}
        checked_name(name, family.file)
        yield Variant(name, family.name, family.file, family.base, (*layers, ("the variant", own)), family.preprocess, others)


def layers_of(family: Family, size: str | None, forms: list[str], *, variant: str) -> Layers:
    """Return the fields of a family, of some of its forms and of a size, in the order in which they override each other."""
    layers: list[tuple[str, Fields]] = [(f"family {family.name}", family.shared)]
    for form in forms:
        fields = family.forms.get(form) if isinstance(form, str) else None
        if not isinstance(fields, dict):
            raise InputError(f"variant '{variant}': the file defines no form {form!r}", where=family.file)
        layers.append((f"form {form}", fields))
    if size is not None:
        fields = family.sizes.get(size)
        if not isinstance(fields, dict):
            raise InputError(f"variant '{variant}': the file defines no size '{size}'", where=family.file)
        layers.append((f"size {size}", fields))
    return tuple(layers)


def _single(file: Path, data: Fields) -> Variant:
    """Return the variant of a file that has the fields of its spec at the top level, and `extends` for those that it inherits."""
    fields = dict(data)
    name = checked_name(fields.pop("name", file.stem), file)
    base, preprocess = _base(fields.pop("extends", None), file), fields.pop("preprocess", None)
    if preprocess is not None and not isinstance(preprocess, dict):
        raise InputError("preprocess must be a table", where=file)
    return Variant(name, "user", file, base, (("the variant", fields),), preprocess)


def _base(name: Any, file: Path) -> str | None:
    if name is not None and not isinstance(name, str):
        raise InputError(f"extends = {name!r}: must be the name of a variant", where=file)
    return name


def checked_name(name: Any, file: Path) -> str:
    """Return the name. Raises InputError if it is not a valid one."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        cause = f"{shown(name)} is not a valid name: use lower-case letters, digits and underscores, at most 96"
        raise InputError(cause, where=file)
    return name


def read_toml(file: Path) -> Fields:
    """Read a TOML file. Raises InputError if it is missing, too large, nested too deeply or not valid TOML."""
    try:
        if not file.is_file():
            raise InputError("not a regular file" if file.exists() else "no such file or folder", where=file)
        size = file.stat().st_size
        if size > MAX_FILE:
            raise InputError(f"has {size:,} bytes; the limit is {MAX_FILE:,}", where=file)
        text = file.read_text(encoding="utf-8")
        if DEEP_KEY.search(text):
            raise InputError("a key has more than 8 dots", where=file)
        return tomllib.loads(text)
    except InputError:
        raise
    except RecursionError:
        raise InputError("not valid TOML: nested too deeply", where=file) from None
    except ValueError as error:  # invalid TOML or UTF-8, or an integer of thousands of digits
        raise InputError(f"not valid TOML: {error}", where=file) from None
    except OSError as error:
        raise InputError(error.strerror or str(error), where=file) from None
