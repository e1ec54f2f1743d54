"""What a name stands for: a row, what a parametric name says, another library's name, or one of these with `.TAG`."""

from __future__ import annotations

from dataclasses import dataclass

from vit_zoo.errors import InputError, did_you_mean
from vit_zoo.registry.aliases import Alias, ambiguous, read_aliases
from vit_zoo.registry.catalog import families, variants, zoo
from vit_zoo.registry.family_file import NAME, Variant
from vit_zoo.registry.parametric_names import parts_of, variant_of
from vit_zoo.registry.pretrained_tags import Tag, read_tags


@dataclass(frozen=True)
class Named:
    """What a name stands for: an architecture, how it was called, and perhaps published weights of it."""

    variant: Variant
    alias: Alias | None = None
    tag: Tag | None = None


def _unknown(name: str, hint: str | None) -> InputError:
    near = did_you_mean(name[:200], list(variants())) or did_you_mean(name[:200], list(read_aliases(zoo().folders)[0]))
    return InputError(f"no variant '{name[:96]}'{near}", hint=hint)


def _of_ours(name: str) -> Variant | None:
    """A row, or what a parametric name says; raises InputError for one that says what its family does not have."""
    if not NAME.fullmatch(name):  # a path, say: no file of the zoo need be read
        return None
    row = variants().get(name)
    if row is not None:
        return row
    try:
        parts = parts_of(name, families())
    except InputError as error:
        raise _unknown(name, error.hint) from None
    return None if parts is None else variants().get(parts.canonical) or variant_of(parts)


def owner_of(name: str) -> Variant | None:
    """What has a name of ours: a row, or what a parametric name says; None for aliases, tags, and where nothing has it."""
    try:
        return _of_ours(name)
    except InputError:
        return None


def is_name(name: str) -> bool:
    """Whether this is a name of ours for an architecture: a row, or parametric. Aliases and tags are not."""
    return owner_of(name) is not None


def is_alias(name: str) -> bool:
    """Whether another library calls something so, with or without a tag, or several do."""
    known, unclear = read_aliases(zoo().folders)
    return any(
        part in known or part in unclear for text in (name, name.removeprefix("timm/")) for part in (text, text.split(".")[0])
    )


def _without_tag(name: str) -> Named | None:
    refused = None
    try:
        ours = _of_ours(name)
    except InputError as error:  # of the form of our names, but none of them: perhaps another library's
        ours, refused = None, error
    if ours is not None:
        return Named(ours)
    known, unclear = read_aliases(zoo().folders)
    if name in unclear:
        raise ambiguous(name, *unclear[name])
    alias = known.get(name) or known.get(name.removeprefix("timm/"))
    if alias is not None:
        found = find(alias.name)
        return Named(found.variant, alias, found.tag)
    if refused is not None:
        raise refused
    return None


def find(name: str) -> Named:
    """What any name stands for. Raises InputError with the nearest names, or the candidates of an ambiguous one."""
    named = _without_tag(name)
    if named is not None:
        return named
    base, dot, tag = name.partition(".")
    named = _without_tag(base) if dot else None
    if named is None:
        raise _unknown(name, "see `vitzoo list`")
    known = tags_of(named.variant.name)
    if tag not in known:
        near = did_you_mean(tag, list(known))
        hint = f"see `vitzoo show {named.variant.name}`" if known else "it has no published weights that we know of"
        raise InputError(f"no tag '{tag[:96]}' of '{named.variant.name}'{near}", hint=hint)
    return Named(named.variant, named.alias, known[tag])


def get_variant(name: str) -> Variant:
    """The architecture of a name. Raises InputError with the nearest names for one that does not exist."""
    return find(name).variant


def aliases_of(name: str) -> list[Alias]:
    """What other libraries call a name."""
    return [alias for alias in read_aliases(zoo().folders)[0].values() if alias.name.partition(".")[0] == name]


def tags_of(name: str) -> dict[str, Tag]:
    """The published weights of a name by tag, the default first; empty where none are known."""
    variant = get_variant(name)
    file = variant.file.parent / "tags" / f"{variant.family}.toml"
    return read_tags(file).get(variant.name, {})
