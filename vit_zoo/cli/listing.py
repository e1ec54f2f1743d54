"""Tables of `vitzoo list`: models, and published weights."""

from __future__ import annotations

from collections.abc import Sequence

from vit_zoo.cli.text import size_text, table
from vit_zoo.registry.configs import row_of
from vit_zoo.registry.lookup import find

COSTS = {"image": "image_size", "patch": "patch_size", "parameters": "params", "GMACs": "gmacs"}


def table_of(names: Sequence[str], *, long: bool, pretrained: bool) -> str:
    """Return a table with sizes and costs (`long`), and with accuracy, licence and repository of weights (`pretrained`)."""
    head = ["name", *(COSTS if long else ()), *(("top-1", "classes", "licence", "source") if pretrained else ())]
    rows = [[name, *(_costs(name) if long else ()), *(_published(name) if pretrained else ())] for name in names]
    return table([head, *rows])


def _costs(name: str) -> list[str]:
    named = find(name)
    known = {**named.variant.fields, **named.variant.row}
    if named.tag is not None or not set(COSTS.values()) <= set(known):  # a user's row may lack the costs
        known = row_of(named.variant, named.tag)
    image, patch, params, gmacs = (known[field] for field in COSTS.values())
    return [size_text(image), size_text(patch), f"{params:,}", f"{gmacs:.3f}"]


def _published(name: str) -> list[str]:
    tag = find(name).tag
    assert tag is not None
    classes = str(tag.num_classes) if tag.num_classes else "features"
    return ["" if tag.top1 is None else f"{tag.top1:g} %", classes, tag.licence, tag.repo]
