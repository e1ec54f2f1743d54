"""The calls on names: list and sort them, get the spec or the config of one, register and check what a user adds.

Listing names reads TOML and nothing else; a row becomes a spec, and is validated, when it is asked for.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, did_you_mean
from vit_zoo.registry.catalog import KNOWN, add_folder, families, forget_folder, variants
from vit_zoo.registry.configs import config_of, row_fields, row_of
from vit_zoo.registry.family_file import Family, Variant, checked_name, read_variant, read_zoo_file
from vit_zoo.registry.lookup import find, owner_of

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import ViTSpec


def list_models(pattern: str | list[str] = "*", *, where: str | None = None) -> list[str]:
    """Names that match a shell-style pattern, or any of several, in the zoo's order; `where` is a condition on fields.

    `where` compares fields of the spec and of `row_of`: `"params<30M and patch_size==16"`.
    Raises InputError if a pattern or the condition matches nothing.
    """
    names = list(variants())
    found: set[str] = set()
    for wanted in [pattern] if isinstance(pattern, str) else pattern:
        matches = fnmatch.filter(names, wanted)
        if not matches:
            raise InputError(f"no variant matches '{wanted[:96]}'", hint="see `vitzoo list`")
        found.update(matches)
    chosen = [name for name in names if name in found]
    if where is None:
        return chosen
    from vit_zoo.registry.query import parse_condition

    holds = parse_condition(where, row_fields())
    kept = [name for name in chosen if holds(row_of(variants()[name]))]
    if not kept:
        raise InputError(f"no variant has {where[:96]}", hint="see `vitzoo list --long`")
    return kept


def sort_names(names: Sequence[str], field: str) -> list[str]:
    """Names by a field of `row_of`, the smallest first, or the largest with `-field`; equal ones stay in order."""
    key = field.removeprefix("-")
    if key not in row_fields():
        raise InputError(f"sort: unknown field '{key[:48]}'{did_you_mean(key, row_fields())}")
    values = {name: row_of(variants()[name])[key] for name in names}

    def order(name: str) -> tuple[bool, Any]:  # text after numbers: qkv_bias is either
        value = values[name]
        return isinstance(value, str), value

    return sorted(names, key=order, reverse=field.startswith("-"))


def get_config(name: str, **overrides: Any) -> ModelConfig:
    """The spec and preprocessing that a name stands for, with some fields of the spec replaced, validated.

    With a tag also its labels, source and licence.
    """
    named = find(name)
    return config_of(named.variant, named.tag, **overrides)


def get_spec(name_or_path: str | os.PathLike[str], **overrides: Any) -> ViTSpec:
    """The spec of a name, of other libraries' too, or of a user's TOML file, with some fields replaced."""
    if str(name_or_path).endswith(".toml"):
        return config_of(read_variant(Path(name_or_path)), **overrides).spec
    return get_config(str(name_or_path), **overrides).spec


def _check_shape(file: str | os.PathLike[str]) -> None:
    from vit_zoo.registry.schema import faults_of_file

    faults = list(faults_of_file(Path(file)))
    if faults:
        raise InputError("; ".join(faults), where=file)


def check_file(file: str | os.PathLike[str]) -> None:
    """Raise one InputError with every fault of a zoo file: unknown names and wrong values, or else what contradicts itself."""
    _check_shape(file)
    faults = []
    for variant in read_zoo_file(Path(file))[1]:
        try:
            config_of(variant)
        except InputError as error:
            faults.append(f"{variant.name}: {error.message}")
    if faults:
        raise InputError("; ".join(faults), where=file)


def use_folder(folder: str | os.PathLike[str]) -> None:
    """Add a folder of zoo files, as VITZOO_PATH does, and check each; `forget_folder` takes it back.

    Raises InputError for a folder that is not there, and with every fault of the first file that has some.
    """
    if not Path(folder).is_dir():
        raise InputError("no such folder of zoo files", where=folder)
    add_folder(folder)
    try:
        files = sorted(Path(folder).glob("*.toml"))
        for file in files:  # each alone, before any of them extends another
            _check_shape(file)
        for file in files:
            check_file(file)
    except BaseException:
        forget_folder(folder)
        raise


def register(path_or_spec: str | os.PathLike[str] | ViTSpec, *, name: str | None = None) -> list[str]:
    """Make the variants of a TOML file, or a spec under `name`, known by name in this process; returns the names.

    Raises InputError for a name that is taken, and for every fault of the file, before anything is registered.
    """
    family: Family | None = None
    if isinstance(path_or_spec, str | os.PathLike):
        file = Path(path_or_spec)
        check_file(file)
        family, new = read_zoo_file(file)
    elif name is None:
        raise InputError("a spec is registered under a name: register(spec, name='...')")
    else:
        layers = (("the spec", path_or_spec.model_dump()),)
        new = [Variant(checked_name(name, Path()), "registered", Path(), None, layers, None)]
    if family is not None and family.name in families():
        raise InputError(f"the family '{family.name}' is also in {families()[family.name].file}", where=family.file)
    for variant in new:
        owner = owner_of(variant.name)
        if owner is not None:
            taken = f"the name '{variant.name}' is taken" + (f", by {owner.file}" if owner.file != Path() else "")
            raise InputError(taken, where=None if variant.file == Path() else variant.file)
        config_of(variant)
    KNOWN.registered.add(family, new)
    return [variant.name for variant in new]
