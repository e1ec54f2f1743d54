"""The model registry: list and sort names, get a spec or config by name, and register and check a user's models.

Listing names only reads TOML. A row becomes a validated spec when it is first used.
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
    """Return the names of the registry, in the zoo's order.

    Args:
        pattern: A shell-style pattern, such as `dinov2_*`, or several, of which a name must match one.
        where: A condition on the fields of the spec and on `name`, `family`, `params`, `gmacs` and `tokens`, such as
            `"params<30M and patch_size==16"`.

    Raises:
        InputError: A pattern or the condition matches nothing.
    """
    names = list(variants())
    matched: set[str] = set()
    for one in [pattern] if isinstance(pattern, str) else pattern:
        matches = fnmatch.filter(names, one)
        if not matches:
            raise InputError(f"no variant matches '{one[:96]}'", hint="see `vitzoo list`")
        matched.update(matches)
    names = [name for name in names if name in matched]
    if where is None:
        return names
    from vit_zoo.registry.query import parse_condition

    holds = parse_condition(where, row_fields())
    names = [name for name in names if holds(row_of(variants()[name]))]
    if not names:
        raise InputError(f"no variant satisfies {where[:96]}", hint="see `vitzoo list --long`")
    return names


def sort_names(names: Sequence[str], field: str) -> list[str]:
    """Sort names by a field of `row_of`, ascending, or descending with `-field`; equal ones keep their order."""
    key = field.removeprefix("-")
    if key not in row_fields():
        raise InputError(f"sort: unknown field '{key[:48]}'{did_you_mean(key, row_fields())}")
    values = {name: row_of(variants()[name])[key] for name in names}

    def order(name: str) -> tuple[bool, Any]:  # qkv_bias is a bool or text: text sorts last
        value = values[name]
        return isinstance(value, str), value

    return sorted(names, key=order, reverse=field.startswith("-"))


def get_config(name: str, **overrides: Any) -> ModelConfig:
    """Return the validated config of a name, with some fields of the spec replaced.

    If the name has a tag, the config also has the labels, source and licence of the published weights.
    """
    named = find(name)
    return config_of(named.variant, named.tag, **overrides)


def get_spec(name_or_path: str | os.PathLike[str], **overrides: Any) -> ViTSpec:
    """Return the spec of a model.

    Args:
        name_or_path: A registry name, alone or with a tag, another library's name, or a TOML file with one variant.
        **overrides: Fields of the spec to replace, such as `num_classes=10`.

    Raises:
        InputError: The name, the file or a field does not exist, or sizes do not fit together.
    """
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
    """Register the variants of a TOML file, or a spec, in this process; return their names.

    Args:
        path_or_spec: A zoo file, or a spec.
        name: The name of the spec; a file states its names.

    Raises:
        InputError: A name is taken or missing, or the file has faults, which are listed. Nothing is registered then.
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
