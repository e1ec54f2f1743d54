"""Weights that a user gives for a model: they must fit it, and are described by their own folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vit_zoo.errors import InputError, notice
from vit_zoo.files.checkpoints import NAMES
from vit_zoo.loading.checkpoint import Checkpoint, ModelLike
from vit_zoo.loading.facts import of_model_facts
from vit_zoo.loading.from_module import of_module
from vit_zoo.loading.locator import ConfigFile, RegistryName, TaggedName, parse_locator, shadowed_name
from vit_zoo.loading.source import fitting, resolve
from vit_zoo.model.config import LABELS, PREPROCESS, ModelConfig
from vit_zoo.registry.catalog import zoo_folder
from vit_zoo.registry.configs import config_of, preprocess_file
from vit_zoo.registry.family_file import read_variant
from vit_zoo.registry.lookup import Named, is_name, tag_of_file, tags_of


def with_weights(
    model: ModelLike,
    weights: str | os.PathLike[str],
    *,
    offline: bool | None = None,
    stated: Collection[str] = (),
    **facts: Any,
) -> Checkpoint:
    """Read a checkpoint of the architecture of `model`. Raises RefusedContent if it has another one.

    With `num_classes` in the facts, the checkpoint may have another number of classes. What the registry or a folder states
    about its own weights (preprocessing, labels, licence) is not transferred to others; a config file is a statement. `stated`
    names what the caller states itself, whose absence is not told.
    """
    named: Named | None = None
    of_model = of_model_facts(facts)
    if not isinstance(model, str | os.PathLike):
        config = of_module(model, **of_model).config
    else:
        locator = parse_locator(model)
        shadowed = shadowed_name(str(model), locator)
        if shadowed is not None:
            notice(shadowed)
        match locator:
            case RegistryName() | TaggedName():
                named = locator.named
                config = config_of(named.variant, named.tag, **of_model)
            case ConfigFile(path) if path.suffix == ".toml":
                named = Named(read_variant(path))
                config = config_of(named.variant, **of_model)
            case ConfigFile():
                config = resolve(locator, of_model, offline).config
                return _described(config, fitting(config, weights, facts, offline))
            case _:
                others = {name: value for name, value in of_model.items() if name != "num_classes"}
                config = resolve(locator, others, offline).config
    source = fitting(config, weights, facts, offline)
    if named is not None:
        return _described_by_row(named, config, source, weights, facts, stated)
    return _not_described(config, source, weights, stated)


def _described(config: ModelConfig, source: Checkpoint) -> Checkpoint:
    """Describe weights by the user's own config; what it leaves open comes from the folder of the weights."""
    own = source.config
    labels = config.labels if config.labels is not None and len(config.labels) == own.spec.num_classes else own.labels
    if None not in (config.preprocess, own.preprocess) and config.preprocess != own.preprocess:
        notice(f"{config.name}: preprocessing is that of the config; the folder of the weights states another")
    preprocess, licence = config.preprocess or own.preprocess, own.licence or config.licence
    return replace(source, config=own.replace(preprocess=preprocess, labels=labels, licence=licence))


def _described_by_row(
    named: Named,
    config: ModelConfig,
    source: Checkpoint,
    weights: str | os.PathLike[str],
    facts: Mapping[str, Any],
    stated: Collection[str],
) -> Checkpoint:
    """Describe weights that are used with a name of the registry.

    A row describes its published weights: its preprocessing and labels are used if the user states by a tag that the weights
    are those, and their dialect agrees. What the folder of the weights states comes first. A row of the user's own zoo files is
    the user's statement.
    """
    variant, own = named.variant, source.config
    stated_in = preprocess_file(variant)
    if named.tag is None and stated_in is not None and zoo_folder() not in stated_in.parents:
        return _described(config, source)
    file = "" if source.path is None else source.path.name
    tag = named.tag
    if tag is not None and tag.has_dialect(source.dialect):
        other = None if file in NAMES else tag_of_file(variant.name, file)
        if other is not None and other != tag:
            raise InputError(f"is the file of {other.full_name}, not of {tag.full_name}", where=weights)
        row = config_of(variant, tag, **{**of_model_facts(facts), "num_classes": own.spec.num_classes})
        if Path(tag.file).name != file and own.preprocess is None:
            notice(f"{weights}: preprocessing is that of {tag.full_name}, whose file is {Path(tag.file).name}")
        licence = own.licence or (tag.licence if own.spec.num_classes == tag.num_classes else None)
        description = {"preprocess": own.preprocess or row.preprocess, "labels": own.labels or row.labels, "licence": licence}
        return replace(source, config=own.replace(**description))
    published = tags_of(variant.name).values() if is_name(variant.name) else ()
    fitting = next((tag.full_name for tag in published if tag.has_dialect(source.dialect)), None)
    tags = "" if fitting is None else f", or name published weights, such as {fitting}"
    return _not_described(config, source, weights, stated, tags)


def _not_described(
    config: ModelConfig, source: Checkpoint, weights: str | os.PathLike[str], stated: Collection[str], or_tags: str = ""
) -> Checkpoint:
    """Return weights with the description of their own folder, and tell what a config of other weights would have added."""
    parts = {"preprocess": ("preprocessing", PREPROCESS), "labels": ("labels", LABELS)}
    known = {name for name in parts if getattr(source.config, name) is not None or name in stated}
    lost = [part for name, part in parts.items() if getattr(config, name) is not None and name not in known]
    if lost:
        texts, options = zip(*lost, strict=True)
        way = f"state {'it' if len(lost) == 1 else 'them'}: {'; '.join(map(str, options))}{or_tags}"
        notice(f"{weights}: {' and '.join(texts)} left out: what {config.name} states is of other weights; {way}", options)
    return source
