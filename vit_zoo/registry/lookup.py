"""Lookup of model names: registry rows, parametric names, aliases from other libraries, and any of these with `.TAG`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vit_zoo.errors import InputError, did_you_mean
from vit_zoo.registry.aliases import Alias, ambiguous, read_aliases
from vit_zoo.registry.catalog import families, variants, zoo
from vit_zoo.registry.family_file import NAME, Variant
from vit_zoo.registry.other_architectures import reason_by_name
from vit_zoo.registry.parametric_names import parts_of, variant_of
from vit_zoo.registry.pretrained_tags import Tag, read_tags

# dialects of the published weights of a library that names models
DIALECTS_OF = {
    "timm": ("timm",), "torchvision": ("torchvision",), "open_clip": ("open_clip",), "google": ("google", "big_vision"),
    "facebookresearch": ("dino", "dinov2", "dinov3", "mae"),
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """The result of a lookup: the architecture, the alias if the name was one, and the published weights if it had a tag."""

    variant: Variant
    alias: Alias | None = None
    tag: Tag | None = None


def licences_of(family: str) -> list[str]:
    """Return the licences of a family's published weights, the most frequent first."""
    tags = (tag for name, variant in variants().items() if variant.family == family for tag in tags_of(name).values())
    return [licence for licence, _ in Counter(tag.licence for tag in tags).most_common()]


def not_a_plain_vit(name: str, reason: str) -> InputError:
    """Return the error for the name of another architecture."""
    return InputError(f"'{name[:96]}' is not a plain ViT: {reason}", hint="see `vitzoo list`")


def _unknown(name: str, hint: str | None) -> InputError:
    """Return the error for an unknown name: why it is not a plain ViT, or similar names of ours or else of other libraries."""
    reason = reason_by_name(name)
    if reason is not None:
        return not_a_plain_vit(name, reason)
    near = did_you_mean(name[:200], list(variants())) or did_you_mean(name[:200], list(read_aliases(zoo().folders)[0]))
    return InputError(f"no variant '{name[:96]}'{near}", hint=hint)


def _own_variant(name: str) -> Variant | None:
    """Return the variant of a row or of a parametric name, or None; raises InputError for an invalid parametric name."""
    if not NAME.fullmatch(name):  # for example a path; returns before the zoo files are read
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
    """Return the variant of a row or of a parametric name; None for aliases, names with tags and unknown names."""
    try:
        return _own_variant(name)
    except InputError:
        return None


def is_name(name: str) -> bool:
    """Return whether this is a row's name or a valid parametric name. Aliases and names with tags are not."""
    return owner_of(name) is not None


def is_alias(name: str) -> bool:
    """Return whether this is an alias or an ambiguous name, with or without a tag."""
    aliases, ambiguous_names = read_aliases(zoo().folders)
    return any(
        part in aliases or part in ambiguous_names
        for text in (name, name.removeprefix("timm/"))
        for part in (text, text.split(".")[0])
    )


def _find_untagged(name: str) -> Named | None:
    """Look up a name that is not split at a dot; None if it is unknown."""
    invalid = None
    try:
        variant = _own_variant(name)
    except InputError as error:  # an invalid parametric name may still be an alias
        variant, invalid = None, error
    if variant is not None:
        return Named(variant)
    aliases, ambiguous_names = read_aliases(zoo().folders)
    if name in ambiguous_names:
        raise ambiguous(name, *ambiguous_names[name])
    alias = aliases.get(name) or aliases.get(name.removeprefix("timm/"))
    if alias is not None:
        named = find(alias.name)
        return Named(named.variant, alias, named.tag)
    if invalid is not None:
        raise invalid
    return None


def find(name: str) -> Named:
    """Look up any name. Raises InputError with the nearest names if it is unknown, with the candidates if it is ambiguous."""
    named = _find_untagged(name)
    if named is not None:
        return named
    base, dot, tag = name.partition(".")
    named = _find_untagged(base) if dot else None
    if named is None:
        raise _unknown(name, "see `vitzoo list`")
    tags = tags_of(named.variant.name)
    if tag not in tags:
        near = did_you_mean(tag, list(tags))
        hint = f"see `vitzoo show {named.variant.name}`" if tags else "no published weights are known for it"
        raise InputError(f"no tag '{tag[:96]}' for '{named.variant.name}'{near}", hint=hint)
    return Named(named.variant, named.alias, tags[tag])


def get_variant(name: str) -> Variant:
    """Return the architecture of any name. Raises InputError as `find` does."""
    return find(name).variant


def aliases_of(name: str) -> list[Alias]:
    """Return the aliases of a registry name."""
    return [alias for alias in read_aliases(zoo().folders)[0].values() if alias.name.partition(".")[0] == name]


def tags_of(name: str) -> dict[str, Tag]:
    """Return the published weights of a name by tag, the default first; empty if none are known."""
    variant = get_variant(name)
    file = variant.file.parent / "tags" / f"{variant.family}.toml"
    return read_tags(file).get(variant.name, {})


def tag_meant(named: Named) -> Tag | None:
    """Return the published weights that a name without a tag means, or None if none are known.

    They are the first ones on the Hub; another library's name means its repository, or that library's first ones.
    """
    tags, alias = tags_of(named.variant.name).values(), named.alias
    if alias is None:
        return next((tag for tag in tags if tag.is_on_hub), None)
    if alias.is_repository:
        return next((tag for tag in tags if tag.repo == alias.alias), None)
    return next((tag for tag in tags if tag.dialect in DIALECTS_OF.get(alias.library, ())), None)


def tag_of_file(name: str, file: str) -> Tag | None:
    """Return the published weights of a name whose file is called so, if no other ones have a file of this name."""
    if not is_name(name):
        return None
    tags = [tag for tag in tags_of(name).values() if tag.file.rpartition("/")[2] == file]
    return tags[0] if len(tags) == 1 else None
