"""What a row says: its spec and preprocessing, validated, where each field comes from, and what it costs.

A row is validated when it is asked for, over the rows that it extends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError
from vit_zoo.registry.catalog import zoo
from vit_zoo.registry.family_file import Variant
from vit_zoo.registry.labels import has_names, label_names
from vit_zoo.registry.lookup import get_variant
from vit_zoo.registry.pretrained_tags import Tag

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import ViTSpec


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


def _by_size(value: Any, side: int) -> Any:
    return value.get(str(side), value.get("other")) if isinstance(value, dict) else value


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

    from vit_zoo.model.preprocess import Preprocess

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


def _labels(tag: Tag, spec: ViTSpec) -> tuple[str, ...] | None:
    """The words of a tag's classes: of the sets that have names, unless the head is another."""
    if tag.labels is None or spec.num_classes != tag.num_classes or not has_names(tag.labels):
        return None
    return label_names(tag.labels)


def config_of(variant: Variant, tag: Tag | None = None, /, **overrides: Any) -> ModelConfig:
    """A row as a validated config, or that of published weights of it.

    Raises InputError naming the file and every fault in it.
    """
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import ViTSpec

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


def origin_of(variant: Variant) -> dict[str, str]:
    """Where each field of a variant's spec comes from: its row, its size, a form, its family, or what it extends."""
    found = dict(variant.origin)
    for base in _bases(variant):
        found = {**dict.fromkeys(base.fields, f"extends {variant.base}"), **found}
    return found


def row_of(variant: Variant) -> dict[str, Any]:
    """A variant with its family, costs, tokens, and every field of its spec."""
    spec = config_of(variant).spec
    costs = {"params": spec.params, "gmacs": round(spec.macs / 1e9, 3), "tokens": spec.tokens}
    return {"name": variant.name, "family": variant.family, **costs, **{f: getattr(spec, f) for f in type(spec).model_fields}}


def row_fields() -> list[str]:
    """The fields of `row_of`, which conditions are on."""
    from vit_zoo.model.spec import ViTSpec

    return ["name", "family", "params", "gmacs", "tokens", *ViTSpec.model_fields]
