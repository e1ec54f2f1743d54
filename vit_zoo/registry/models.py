"""The model registry: list and sort names, get a spec or config by name, and register and check a user's models.

Listing names only reads TOML. A row becomes a validated spec when it is first used.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option, did_you_mean
from vit_zoo.registry.catalog import KNOWN, add_folder, families, forget_folder, variants
from vit_zoo.registry.configs import TAG_FIELDS, config_of, row_fields, row_of
from vit_zoo.registry.family_file import Family, Variant, checked_name, read_variant, read_zoo_file
from vit_zoo.registry.lookup import find, is_alias, owner_of, tags_of
from vit_zoo.registry.search import search

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import ViTSpec


def list_models(pattern: str | list[str] = "*", *, where: str | None = None, pretrained: bool = False) -> list[str]:
    """Return the names that a pattern matches, or any of several, in the zoo's order.

    Args:
        pattern: A shell-style pattern for whole names, such as `"vit_b*"`; or a part of a name or of a family, such as
            `"dino"`. Where no name here matches, names of other libraries are searched, and a warning says which ones match.
        where: A condition on the fields of the spec and on `name`, `family`, `params`, `gmacs` and `tokens`, such as
            `"params<30M and patch_size==16"`; with `pretrained`, also on `top1`, `licence`, `repo` and `dialect`. A
            comparison with an accuracy that is not known does not hold.
        pretrained: Return the names of published weights, `NAME.TAG`, which a pattern with a dot is compared with.

    Raises InputError if a pattern or the condition matches nothing.
    """
    patterns = [pattern] if isinstance(pattern, str) else pattern
    if pretrained:
        names = _published(patterns)
    else:
        matched = {name for one in patterns for name in search(one)}
        names = [name for name in variants() if name in matched]
    if where is None:
        return names
    from vit_zoo.registry.query import parse_condition

    holds = parse_condition(where, row_fields(pretrained=pretrained))
    names = [name for name in names if holds(row_of_name(name))]
    if not names:
        what = "published weights satisfy" if pretrained else "variant satisfies"
        raise InputError(f"no {what} {where[:96]}", hint="see `vitzoo list --long`")
    return names


def _published(patterns: Sequence[str]) -> list[str]:
    """Return the names of the published weights whose own name or whose model's name matches one of the patterns."""
    every = {tag.full_name: name for name in variants() for tag in tags_of(name).values()}
    matched: set[str] = set()
    for one in patterns:
        own = set(fnmatch.filter(every, one)) if "." in one else set()  # the name of a model has no dot
        if not own and "." in one and is_alias(one):
            named = find(one)
            own = set() if named.tag is None else {named.tag.full_name}
        names = set() if own else set(search(one))
        tags = own | {full_name for full_name, name in every.items() if name in names}
        if not tags:
            raise InputError(f"no published weights are known for '{one[:96]}'", hint="see `vitzoo list --pretrained`")
        matched |= tags
    return [name for name in every if name in matched]


def row_of_name(name: str) -> dict[str, Any]:
    """Return the fields of a name or of published weights, as `row_of` does."""
    named = find(name)
    return row_of(named.variant, named.tag)


def sort_names(names: Sequence[str], field: str) -> list[str]:
    """Sort names by a field of `row_of`, ascending, or descending with `-field`; equal ones keep their order.

    Names without a value, such as an accuracy that is not known, come last.
    """
    key, rows = field.removeprefix("-"), {name: row_of_name(name) for name in names}
    known = list(next(iter(rows.values())))
    if key not in known:
        pretrained = Option("pretrained")
        hint = f"with {pretrained} it is one" if key in TAG_FIELDS else None
        raise InputError(f"sort: unknown field '{key[:48]}'{did_you_mean(key, known)}", hint=hint, options=[pretrained])

    def order(name: str) -> tuple[bool, Any]:  # qkv_bias is a bool or text: text sorts last
        value = rows[name][key]
        return isinstance(value, str), value

    missing = [name for name in names if rows[name][key] is None]
    return [*sorted((name for name in names if name not in missing), key=order, reverse=field.startswith("-")), *missing]


def get_config(name: str, **overrides: Any) -> ModelConfig:
    """Return the validated config of a name, with some fields of the spec replaced.

    If the name has a tag, the config also has the labels, source and licence of the published weights.
    """
    named = find(name)
    return config_of(named.variant, named.tag, **overrides)


def get_spec(name_or_path: str | os.PathLike[str], **overrides: Any) -> ViTSpec:
    """Return the spec of a registry name, of an alias, or of a user's TOML file, with some fields replaced."""
    if str(name_or_path).endswith(".toml"):
        return config_of(read_variant(Path(name_or_path)), **overrides).spec
    return get_config(str(name_or_path), **overrides).spec


def _check_shape(file: str | os.PathLike[str]) -> None:
    """Raise one InputError with all unknown names and wrong types in a zoo file."""
    from vit_zoo.registry.schema import faults_of_file

    faults = list(faults_of_file(Path(file)))
    if faults:
        raise InputError("; ".join(faults), where=file)


def check_file(file: str | os.PathLike[str]) -> None:
    """Raise one InputError with all faults of a zoo file.

    Unknown names and wrong types are reported first. A file without these is checked for rows whose values contradict each other.
    """
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
    """Add a folder of zoo files, as VITZOO_PATH does, and check each file; `forget_folder` undoes it.

    Raises InputError if the folder does not exist, or with all faults of the first invalid file.
    """
    if not Path(folder).is_dir():
        raise InputError("no such folder", where=folder)
    add_folder(folder)
    try:
        files = sorted(Path(folder).glob("*.toml"))
        for file in files:  # all of them before `check_file`, because a variant may extend one in another file
            _check_shape(file)
        for file in files:
            check_file(file)
    except BaseException:
        forget_folder(folder)
        raise


def register(path_or_spec: str | os.PathLike[str] | ViTSpec, *, name: str | None = None) -> list[str]:
    """Register the variants of a TOML file, or a spec under `name`, in this process; return the names.

    Raises InputError for a name that is taken, or with all faults of the file. Nothing is registered then.
    """
    family: Family | None = None
    if isinstance(path_or_spec, str | os.PathLike):
        file = Path(path_or_spec)
        check_file(file)
        family, new = read_zoo_file(file)
    elif name is None:
        raise InputError("a spec needs a name: register(spec, name='...')")
    else:
        layers = (("the spec", path_or_spec.model_dump()),)
        new = [Variant(checked_name(name, Path()), "registered", Path(), None, layers, None)]
    if family is not None and family.name in families():
        raise InputError(f"family '{family.name}' is already defined in {families()[family.name].file}", where=family.file)
    for variant in new:
        owner = owner_of(variant.name)
        if owner is not None:
            message = f"the name '{variant.name}' is taken" + (f" by {owner.file}" if owner.file != Path() else "")
            raise InputError(message, where=None if variant.file == Path() else variant.file)
        config_of(variant)
    KNOWN.registered.add(family, new)
    return [variant.name for variant in new]
