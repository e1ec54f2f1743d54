"""Which names there are, and what each stands for: rows of `zoo/*.toml`, users' files, parametric names, aliases, tags.

Listing names reads TOML and nothing else; a row becomes a spec, and is validated, when it is asked for.
"""

from __future__ import annotations

import fnmatch
import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.aliases import Alias, ambiguous, read_aliases
from vit_zoo.errors import InputError
from vit_zoo.names import parts_of, variant_of
from vit_zoo.tags import Tag, read_labels, read_tags
from vit_zoo.zoo_files import Family, Variant, checked_name, read_toml, read_zoo_file

if TYPE_CHECKING:
    from vit_zoo.model_config import ModelConfig
    from vit_zoo.vit_spec import ViTSpec


@dataclass(frozen=True)
class Zoo:
    """What the zoo's folders hold."""

    folders: tuple[Path, ...]
    variants: dict[str, Variant]
    families: dict[str, Family]


@dataclass(frozen=True)
class Named:
    """What a name stands for: an architecture, how it was called, and perhaps published weights of it."""

    variant: Variant
    alias: Alias | None = None
    tag: Tag | None = None


@dataclass
class Registered:
    """What this process added."""

    variants: dict[str, Variant] = field(default_factory=dict)
    families: dict[str, Family] = field(default_factory=dict)


_registered = Registered()
_extra: list[Path] = []  # folders beside the zoo's own and that of VITZOO_PATH
_zoo: Zoo | None = None


def zoo_folder() -> Path:
    """The folder of the zoo's data: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "zoo" if (here / "zoo").is_dir() else here.parent / "zoo"


def use_folder(folder: str | os.PathLike[str]) -> None:
    """Add a folder of zoo files, as VITZOO_PATH does, and check each.

    Raises InputError for a folder that is not there, and with every fault of the first file that has some.
    """
    global _zoo
    if not Path(folder).is_dir():
        raise InputError("no such folder of zoo files", where=folder)
    _extra.append(Path(folder))
    _zoo = None
    try:
        files = sorted(Path(folder).glob("*.toml"))
        for file in files:  # each alone, before any of them extends another
            check_shape(file)
        for file in files:
            check_file(file)
    except BaseException:
        forget_folder(folder)
        raise


def forget_folder(folder: str | os.PathLike[str]) -> None:
    """Take back what `use_folder` added."""
    global _zoo
    _extra.remove(Path(folder))
    _zoo = None


def zoo() -> Zoo:
    """The files of every folder, read once."""
    global _zoo
    if _zoo is None:
        _zoo = _read_folders()  # all or nothing: an error must not leave a part of the zoo behind
    return _zoo


def _read_folders() -> Zoo:
    folders = [zoo_folder(), *([Path(os.environ["VITZOO_PATH"])] if os.environ.get("VITZOO_PATH") else []), *_extra]
    found = Zoo(tuple(folders), {}, {})
    for folder in folders:
        if not folder.is_dir():
            raise InputError("no such folder", where=folder, hint="VITZOO_PATH names it")
        for file in sorted(folder.glob("*.toml")):
            _add_file(found.variants, found.families, *read_zoo_file(file))
    return found


def _add_file(into: dict[str, Variant], families: dict[str, Family], family: Family | None, rows: Sequence[Variant]) -> None:
    if family is not None:
        if family.name in families:
            raise InputError(f"the family '{family.name}' is also in {families[family.name].file}", where=family.file)
        families[family.name] = family
    for variant in rows:
        if variant.name in into:
            raise InputError(f"the name '{variant.name}' is also in {into[variant.name].file}", where=variant.file)
        into[variant.name] = variant


def variants() -> dict[str, Variant]:
    """Every row by name: ours, then those of users' folders, then the registered ones."""
    return {**zoo().variants, **_registered.variants}


def families() -> dict[str, Family]:
    """Every family by name."""
    return {**zoo().families, **_registered.families}


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
    from vit_zoo.conditions import parse_condition

    holds = parse_condition(where, row_fields())
    kept = [name for name in chosen if holds(row_of(variants()[name]))]
    if not kept:
        raise InputError(f"no variant has {where[:96]}", hint="see `vitzoo list --long`")
    return kept


def sort_names(names: Sequence[str], field: str) -> list[str]:
    """Names by a field of `row_of`, the smallest first, or the largest with `-field`; equal ones stay in order."""
    key = field.removeprefix("-")
    if key not in row_fields():
        from vit_zoo.vit_spec import did_you_mean

        raise InputError(f"sort: unknown field '{key[:48]}'{did_you_mean(key, row_fields())}")
    values = {name: row_of(variants()[name])[key] for name in names}

    def order(name: str) -> tuple[bool, Any]:  # text after numbers: qkv_bias is either
        value = values[name]
        return isinstance(value, str), value

    return sorted(names, key=order, reverse=field.startswith("-"))


def row_fields() -> list[str]:
    """What `where` and `row_of` know of a variant."""
    from vit_zoo.vit_spec import ViTSpec

    return ["name", "family", "params", "gmacs", "tokens", *ViTSpec.model_fields]


def row_of(variant: Variant) -> dict[str, Any]:
    """A variant with its family, costs, tokens, and every field of its spec."""
    spec = config_of(variant).spec
    costs = {"params": spec.params, "gmacs": round(spec.macs / 1e9, 3), "tokens": spec.tokens}
    return {"name": variant.name, "family": variant.family, **costs, **{f: getattr(spec, f) for f in type(spec).model_fields}}


def is_name(name: str) -> bool:
    """Whether this is a name of ours for an architecture: a row, or parametric. Aliases and tags are not."""
    try:
        return _of_ours(name) is not None
    except InputError:
        return False


def is_alias(name: str) -> bool:
    """Whether another library calls something so, with or without a tag, or several do."""
    known, unclear = _aliases()
    return any(
        part in known or part in unclear for text in (name, name.removeprefix("timm/")) for part in (text, text.split(".")[0])
    )


def _of_ours(name: str) -> Variant | None:
    row = variants().get(name)
    if row is not None:
        return row
    try:
        parts = parts_of(name, families())
    except InputError as error:
        raise _unknown(name, error.hint) from None
    return None if parts is None else variants().get(parts.canonical) or variant_of(parts)


def find(name: str) -> Named:
    """What a name stands for: a row, a parametric name, another library's name, or one of these with `.TAG`.

    Raises InputError with the nearest names, or the candidates of an ambiguous one.
    """
    named = _without_tag(name)
    if named is not None:
        return named
    base, dot, tag = name.partition(".")
    named = _without_tag(base) if dot else None
    if named is None:
        raise _unknown(name, "see `vitzoo list`")
    known = tags(named.variant.name)
    if tag not in known:
        from vit_zoo.vit_spec import did_you_mean

        near = did_you_mean(tag, list(known))
        hint = f"see `vitzoo show {named.variant.name}`" if known else "it has no published weights that we know of"
        raise InputError(f"no tag '{tag[:96]}' of '{named.variant.name}'{near}", hint=hint)
    return Named(named.variant, named.alias, known[tag])


def _without_tag(name: str) -> Named | None:
    refused = None
    try:
        ours = _of_ours(name)
    except InputError as error:  # of the form of our names, but none of them: perhaps another library's
        ours, refused = None, error
    if ours is not None:
        return Named(ours)
    known, unclear = _aliases()
    if name in unclear:
        raise ambiguous(name, *unclear[name])
    alias = known.get(name) or known.get(name.removeprefix("timm/"))
    if alias is not None:
        found = find(alias.name)
        return Named(found.variant, alias, found.tag)
    if refused is not None:
        raise refused
    return None


def _unknown(name: str, hint: str | None) -> InputError:
    from vit_zoo.vit_spec import did_you_mean

    near = did_you_mean(name[:200], list(variants())) or did_you_mean(name[:200], list(_aliases()[0]))
    return InputError(f"no variant '{name[:96]}'{near}", hint=hint)


def get_variant(name: str) -> Variant:
    """The architecture of a name. Raises InputError with the nearest names for one that does not exist."""
    return find(name).variant


def aliases_of(name: str) -> list[Alias]:
    """What other libraries call a name."""
    return [alias for alias in _aliases()[0].values() if alias.name.partition(".")[0] == name]


def _aliases() -> tuple[dict[str, Alias], dict[str, tuple[str, list[str]]]]:
    return _read_aliases(zoo().folders)


_read_aliases = functools.cache(read_aliases)


def tags(name: str) -> dict[str, Tag]:
    """The published weights of a name by tag, the default first; empty where none are known."""
    variant = get_variant(name)
    file = variant.file.parent / "tags" / f"{variant.family}.toml"
    return _read_tags(file).get(variant.name, {})


_read_tags = functools.cache(read_tags)


def label_set(name: str) -> dict[str, Any]:
    """How many classes a label set has, and in which order: `classes`, `order`. Raises InputError for an unknown one."""
    sets = read_toml(zoo_folder() / "labels" / "sets.toml")
    if name not in sets:
        raise InputError(f"no label set '{name[:96]}'; there are {', '.join(sets)}")
    found: dict[str, Any] = sets[name]
    return found


def label_names(name: str) -> tuple[str, ...]:
    """The class names of a label set in the order of the logits. Raises InputError for a set without names."""
    return read_labels(zoo_folder() / "labels", name)


def get_config(name: str, **overrides: Any) -> ModelConfig:
    """The spec and preprocessing that a name stands for, with some fields of the spec replaced, validated.

    With a tag also its labels, source and licence.
    """
    named = find(name)
    return config_of(named.variant, named.tag, **overrides)


def config_of(variant: Variant, tag: Tag | None = None, /, **overrides: Any) -> ModelConfig:
    """A row as a validated config, or that of published weights of it.

    Raises InputError naming the file and every fault in it.
    """
    from vit_zoo.model_config import ModelConfig
    from vit_zoo.vit_spec import ViTSpec

    zoo()  # a broken file must not be blamed on the variant
    blamed = variant.name if overrides or variant.file == Path() else variant.file
    fields = _fields(variant, ())
    published = {} if tag is None else {"num_classes": tag.num_classes, **tag.spec}
    spec = ViTSpec.parse({**fields, **published, **overrides}, where=blamed)
    table = variant.preprocess if tag is None else tag.preprocess
    preprocess = _preprocess(variant, table, spec, stated=fields.get("channels") == spec.channels)
    config = {"name": variant.name, "spec": spec, "preprocess": preprocess}
    if tag is not None:
        config |= {"source": f"{tag.address} ({tag.dialect})", "licence": tag.licence, "labels": _labels(tag, spec)}
    return ModelConfig.checked(config, where=blamed)


def _labels(tag: Tag, spec: ViTSpec) -> tuple[str, ...] | None:
    """The words of a tag's classes: of the sets that have names, unless the head is another."""
    if tag.labels is None or spec.num_classes != tag.num_classes or not (zoo_folder() / "labels" / f"{tag.labels}.tsv").is_file():
        return None
    return label_names(tag.labels)


def get_spec(name_or_path: str | os.PathLike[str], **overrides: Any) -> ViTSpec:
    """The spec of a name, of other libraries' too, or of a user's TOML file, with some fields replaced."""
    if str(name_or_path).endswith(".toml"):
        return config_of(read_variant(Path(name_or_path)), **overrides).spec
    return get_config(str(name_or_path), **overrides).spec


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
        owner = _owner(variant, family)
        if owner is not None:
            taken = f"the name '{variant.name}' is taken" + (f", by {owner.file}" if owner.file != Path() else "")
            raise InputError(taken, where=None if variant.file == Path() else variant.file)
        config_of(variant)
    _add_file(_registered.variants, _registered.families, family, new)
    return [variant.name for variant in new]


def _owner(variant: Variant, family: Family | None) -> Variant | None:
    """What has this name already: a row, or a parametric name of a family that is known."""
    try:
        return _of_ours(variant.name)
    except InputError:  # of the form of a name, but of none that is there
        return None


def check_shape(file: str | os.PathLike[str]) -> None:
    """Raise one InputError with every unknown name and wrong value of a zoo file."""
    from vit_zoo.zoo_schema import faults_of_file

    faults = list(faults_of_file(Path(file)))
    if faults:
        raise InputError("; ".join(faults), where=file)


def check_file(file: str | os.PathLike[str]) -> None:
    """Raise one InputError with every fault of a zoo file: those of `check_shape`, or else what contradicts itself."""
    check_shape(file)
    faults = []
    for variant in read_zoo_file(Path(file))[1]:
        try:
            config_of(variant)
        except InputError as error:
            faults.append(f"{variant.name}: {error.message}")
    if faults:
        raise InputError("; ".join(faults), where=file)


def read_variant(file: Path) -> Variant:
    """The one variant of a user's file."""
    found = read_zoo_file(file)[1]
    if len(found) != 1:
        raise InputError(f"holds {len(found)} variants; a model is one", where=file, hint="register the file and use a name")
    return found[0]


def origin_of(variant: Variant) -> dict[str, str]:
    """Where each field of a variant's spec comes from: its row, its size, a form, its family, or what it extends."""
    found = dict(variant.origin)
    for base in _bases(variant):
        found = {**dict.fromkeys(base.fields, f"extends {variant.base}"), **found}
    return found


def _bases(variant: Variant) -> Iterator[Variant]:
    while variant.base is not None:
        variant = get_variant(variant.base)
        yield variant


def _fields(variant: Variant, seen: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a variant over those of what it extends."""
    if variant.base is None:
        return variant.fields
    if variant.base in seen:
        raise InputError(f"extends itself: {' -> '.join([*seen, variant.base])}", where=variant.file)
    try:
        base = get_variant(variant.base)
    except InputError as error:
        raise InputError(f"extends '{variant.base}': {error.message}", where=variant.file, hint=error.hint) from None
    return {**_fields(base, (*seen, variant.base)), **variant.fields}


def _preprocess(variant: Variant, table: Mapping[str, Any] | None, spec: ViTSpec, *, stated: bool) -> Any:
    """The preprocessing that a table states, or that of what the variant extends, at this spec's size.

    None where channels differ, unless the variant states both.
    """
    own = table is not None
    if table is None:
        table = next((base.preprocess for base in _bases(variant) if base.preprocess is not None), None)
    if table is None:
        return None
    from pydantic import ValidationError

    from vit_zoo.preprocess import Preprocess

    plain = {key: value for key, value in table.items() if key not in ("crop", "squash", "resize_to")}
    try:
        found = Preprocess.model_validate({**plain, "size": spec.image_size, "resize_to": _resize_to(table, spec.image_size)})
    except ValidationError as error:
        faults = "; ".join(f"preprocess.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise InputError(faults, where=variant.file) from None
    except ValueError as error:
        raise InputError(f"preprocess.{error}", where=variant.file) from None
    fits = len(found.mean) == spec.channels
    return found if fits or (stated and own) else None


def _resize_to(table: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """What the image is resized to before the crop: its shorter edge, a size to squash it to, or None for the crop's own.

    `crop` is the fraction of the resized image that the crop keeps, by image size where it is a table, as timm's crop_pct
    (rounded down); `resize_to` is the edge itself. Neither, or an image that is not square: squashed to the size.
    """
    height, width = size
    if height != width:
        return None
    crop, edge = (_by_size(table.get(key), height) for key in ("crop", "resize_to"))
    if crop is None:
        return edge
    if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
        raise ValueError(f"crop = {crop!r}: a fraction above 0 and up to 1 is wanted")
    edge = math.floor(height / crop)
    return edge if not table.get("squash") else None if edge == height else (edge, edge)


def _by_size(value: Any, side: int) -> Any:
    return value.get(str(side), value.get("other")) if isinstance(value, dict) else value
