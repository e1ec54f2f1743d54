"""Validated configs of registry rows: spec and preprocessing, the origin of each field, and costs.

A row is validated when its config is first used, together with the rows that it extends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, did_you_mean
from vit_zoo.registry.catalog import families, zoo
from vit_zoo.registry.family_file import Variant
from vit_zoo.registry.labels import has_names, label_names
from vit_zoo.registry.lookup import find, get_variant, is_alias, is_name
from vit_zoo.registry.pretrained_tags import Tag

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.preprocess import Preprocess
    from vit_zoo.model.spec import ViTSpec

TAG_FIELDS = ("top1", "top1_by", "licence", "repo", "file", "revision", "dialect", "labels")  # of published weights, in a row


def _bases(variant: Variant) -> Iterator[Variant]:
    """Yield the variants that this one extends, the nearest first."""
    while variant.base is not None:
        variant = get_variant(variant.base)
        yield variant


def _fields(variant: Variant, seen: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a variant, including those that it inherits; `seen` holds the names already followed."""
    if variant.base is None:
        return variant.fields
    if variant.base in seen:
        raise InputError(f"extends itself: {' -> '.join([*seen, variant.base])}", where=variant.file)
    try:
        base = get_variant(variant.base)
    except InputError as error:
        raise InputError(f"extends '{variant.base}': {error.message}", where=variant.file, hint=error.hint) from None
    return {**_fields(base, (*seen, variant.base)), **variant.fields}


def _by_size(value: Any, side: int) -> Any:
    """Return the entry for an image size, or for "other", if the value is a table."""
    return value.get(str(side), value.get("other")) if isinstance(value, dict) else value


def resize_to_of(table: Mapping[str, Any], size: tuple[int, int], *, where: object) -> Any:
    """Return the size of the image before the crop, as `Preprocess.resize_to` has it, from a table's `crop` or `resize_to`.

    `crop` is the fraction of the resized image that the crop keeps, like timm's crop_pct, and the edge is rounded down;
    `resize_to` is the length of the shorter edge. Both may be tables by image size. With `squash`, the result is a square,
    (edge, edge), or None where nothing is cropped. Without `crop` and `resize_to`, or if `size` is not square, the result is
    None: the image is squashed to `size`. Raises InputError for a fraction that is none.
    """
    height, width = size
    if height != width:
        return None
    crop, edge = (_by_size(table.get(key), height) for key in ("crop", "resize_to"))
    if crop is None:
        return edge
    if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0 < crop <= 1:
        raise InputError(f"preprocess.crop = {crop!r}: must be above 0 and at most 1", where=where)
    edge = math.floor(height / crop)
    return edge if not table.get("squash") else None if edge == height else (edge, edge)


def _preprocess(variant: Variant, table: Mapping[str, Any] | None, spec: ViTSpec, *, own_channels: bool) -> Any:
    """Return the preprocessing at the spec's image size, from the table or else from the nearest base that has one.

    Returns None if the number of means is not the number of channels, as when the user overrides `channels`. The mismatch
    stays, for validation to report it, if the table and the number of channels (`own_channels`) are both the variant's own.
    """
    own_table = table is not None
    if table is None:
        table = next((base.preprocess for base in _bases(variant) if base.preprocess is not None), None)
    if table is None:
        return None
    preprocess = preprocess_of_table(table, spec.image_size, where=variant.file)
    fits = len(preprocess.mean) == spec.channels
    return preprocess if fits or (own_channels and own_table) else None


def preprocess_of_table(table: Mapping[str, Any], size: tuple[int, int], *, where: object) -> Preprocess:
    """Return the preprocessing at an image size that a table `preprocess` of a zoo file states.

    Raises InputError with all faults; `where` is the file of the table.
    """
    fields = {key: value for key, value in table.items() if key not in ("crop", "squash", "resize_to")}
    return checked_preprocess({**fields, "size": size, "resize_to": resize_to_of(table, size, where=where)}, where=where)


def checked_preprocess(fields: Mapping[str, Any], *, where: object) -> Preprocess:
    """Return the preprocessing with these fields. Raises InputError with all faults; `where` is their source."""
    from pydantic import ValidationError

    from vit_zoo.model.preprocess import Preprocess

    cropped = fields["resize_to"] is not None
    try:
        return Preprocess.model_validate({name: value for name, value in fields.items() if cropped or name != "crop_rounding"})
    except ValidationError as error:
        faults = [f"{'.'.join(('preprocess', *map(str, e['loc'])))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise InputError("; ".join(faults), where=where) from None


PRESETS = {"imagenet": "deit", "half": "vit"}  # names for the preprocessing of families


def presets() -> tuple[str, ...]:
    """Return the names of preprocessing: those of `PRESETS`, and the families that state theirs."""
    return (*PRESETS, *(name for name, family in families().items() if family.preprocess is not None))


def preprocess_named(name: str, size: tuple[int, int]) -> Preprocess:
    """Return the preprocessing of a preset, a family, a model or a tag at an image size.

    Raises InputError for an unknown name, and for one that states no preprocessing.
    """
    family = families().get(PRESETS.get(name, name))
    if family is not None and family.preprocess is not None:
        return preprocess_of_table(family.preprocess, size, where=family.file)
    if not (is_name(name) or is_alias(name) or "." in name):
        near = did_you_mean(name, list(presets()))
        raise InputError(f"no file and no preset '{name[:96]}'{near}", hint=f"choose from {', '.join(presets())}")
    named = find(name)
    preprocess = config_of(named.variant, named.tag).preprocess
    if preprocess is None:
        raise InputError("states no preprocessing", where=name)
    return preprocess.for_size(size)


def preprocess_file(variant: Variant) -> Path | None:
    """Return the zoo file that states a variant's preprocessing, its own or that of a variant that it extends, or None."""
    return next((row.file for row in (variant, *_bases(variant)) if row.preprocess is not None), None)


def _labels(tag: Tag, spec: ViTSpec) -> tuple[str, ...] | None:
    """Return the class names of a tag's label set; None if it has no names, or if the head was replaced."""
    if tag.labels is None or spec.num_classes != tag.num_classes or not has_names(tag.labels):
        return None
    return label_names(tag.labels)


def config_of(variant: Variant, tag: Tag | None = None, /, **overrides: Any) -> ModelConfig:
    """Return the validated config of a variant, or of its published weights if a tag is given.

    `overrides` replace fields of the spec. Raises InputError with the file and all its faults.
    """
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import ViTSpec

    zoo()  # so that an error in some other zoo file is not reported as one of this variant
    where = variant.name if overrides or variant.file == Path() else variant.file
    fields = _fields(variant, ())
    tag_fields = {} if tag is None else {"num_classes": tag.num_classes, **tag.spec}
    spec = ViTSpec.parse({**fields, **tag_fields, **overrides}, where=where)
    table = variant.preprocess if tag is None else tag.preprocess
    preprocess = _preprocess(variant, table, spec, own_channels=fields.get("channels") == spec.channels)
    config = {"name": variant.name, "spec": spec, "preprocess": preprocess}
    if tag is not None:
        config |= {"source": f"{tag.address} ({tag.dialect})", "licence": tag.licence, "labels": _labels(tag, spec)}
    return ModelConfig.checked(config, where=where)


def origin_of(variant: Variant) -> dict[str, str]:
    """Return the origin of each spec field of a variant: its row, its size, a form, its family, or a variant that it extends."""
    origin = dict(variant.origin)
    for base in _bases(variant):
        origin = {**dict.fromkeys(base.fields, f"extends {variant.base}"), **origin}
    return origin


def row_of(variant: Variant, tag: Tag | None = None) -> dict[str, Any]:
    """Return a variant's name, family, costs and number of tokens, and all fields of its spec.

    With published weights, the name is `NAME.TAG`, the spec is that of the weights, and their `TAG_FIELDS` are added.
    """
    spec = config_of(variant, tag).spec
    row = {"name": variant.name if tag is None else tag.full_name, "family": variant.family}
    row |= {} if tag is None else {name: getattr(tag, name) for name in TAG_FIELDS}
    costs = {"params": spec.params, "gmacs": round(spec.macs / 1e9, 3), "tokens": spec.tokens}
    return {**row, **costs, **{f: getattr(spec, f) for f in type(spec).model_fields}}


def row_fields(*, pretrained: bool = False) -> list[str]:
    """Return the names of the fields of `row_of`, which `--where` and `--sort` can use."""
    from vit_zoo.model.spec import ViTSpec

    return ["name", "family", *(TAG_FIELDS if pretrained else ()), "params", "gmacs", "tokens", *ViTSpec.model_fields]
