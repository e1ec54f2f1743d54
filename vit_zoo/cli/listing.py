"""Texts of `vitzoo list`: families, and tables of models and of published weights."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from vit_zoo.cli.text import size_text, table
from vit_zoo.registry.catalog import families, variants
from vit_zoo.registry.configs import row_of
from vit_zoo.registry.lookup import find, licences_of

WIDTH = 100  # characters of a line of names
COSTS = {"image": "image_size", "patch": "patch_size", "parameters": "params", "GMACs": "gmacs"}


def table_of(names: Sequence[str], *, long: bool, pretrained: bool) -> str:
    """Return a table with sizes and costs (`long`), and with accuracy, licence and repository of weights (`pretrained`)."""
    head = ["name", *(COSTS if long else ()), *(("top-1", "classes", "licence", "source") if pretrained else ())]
    rows = [[name, *(_costs(name) if long else ()), *(_published(name) if pretrained else ())] for name in names]
    return table([head, *rows])


def overview() -> str:
    """Return all models by family, with what each family is good for and the licences of its weights."""
    grouped: dict[str, list[str]] = {name: [] for name in families()}
    for model, variant in variants().items():
        grouped.setdefault(variant.family if variant.family in families() else "", []).append(model)
    parts = []
    for name, models in grouped.items():
        about = families()[name].about if name else {"title": "Models without a family"}
        licences = f" ({', '.join(licences_of(name)) or 'no published weights'})" if name else ""
        parts += [f"{about.get('title', name)}{licences}", *([about["use"]] if "use" in about else [])]
        parts += [textwrap.fill("  ".join(models), WIDTH, initial_indent="  ", subsequent_indent="  "), ""]
    return "\n".join(parts[:-1])


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
