"""Torch models and checkpoints with weights, and the writing of models into folders, which is checked by reading back."""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import CannotWrite, HubError, InputError, Option, RefusedContent, notice
from vit_zoo.files import Staged, Stored, digest_of, write_safetensors, write_text
from vit_zoo.files.folder import written_folder
from vit_zoo.files.stored import as_float
from vit_zoo.loading.checkpoint import Architecture, Checkpoint, FileSize, ModelLike, settle_size, tell
from vit_zoo.loading.facts import parsed, patterns
from vit_zoo.loading.from_module import of_module
from vit_zoo.loading.given_weights import with_weights
from vit_zoo.loading.locator import ConfigFile, RegistryName, parse_locator, shadowed_name
from vit_zoo.loading.source import find_architecture, find_source, published_weights
from vit_zoo.loading.stated import Description
from vit_zoo.model.config import ModelConfig
from vit_zoo.progress import BYTES, LARGE, step
from vit_zoo.registry.lookup import tags_of

if TYPE_CHECKING:
    import torch

    from vit_zoo.model.vit import ViT

RANDOM, WEIGHTS = Option("random"), Option("weights", "'FILE'", "--weights FILE")


def random_model(config: ModelConfig, seed: int, *, device: Any = None, dtype: torch.dtype | None = None) -> ViT:
    """Return a torch model with random weights."""
    from vit_zoo.model.vit import ViT, initialise

    model = ViT.empty(config)
    if dtype is not None:
        model.to(dtype)
    with step(f"making {config.spec.params:,} random weights for {config.name}"):
        model.to_empty(device=device or "cpu")
        initialise(model, seed)
    return model


def model_of(source: Checkpoint) -> ViT:
    """Return the torch model of a checkpoint. Tensors in files are memory-mapped, so they are read on use."""
    import torch

    from vit_zoo.model.vit import ViT

    model = ViT.empty(source.config)
    state = {}
    with torch.inference_mode(False):  # parameters stay trainable if the caller is in inference mode
        for name, stored in source.tensors.items():
            tensor = torch.from_numpy(stored.array())
            state[name] = tensor.view(torch.bfloat16) if stored.dtype == "BF16" else tensor
        model.load_state_dict(state, assign=True)
    if source.config.random_seed is not None:
        model.mark_random(source.config.random_part, source.digest)
    return model


def without(source: Checkpoint, patterns: Sequence[str]) -> tuple[ModelConfig, Mapping[str, Stored], tuple[str, ...]]:
    """Drop the tensors that match the patterns. Raises InputError for a pattern without a match, or if the model needs them."""
    from vit_zoo.weights.translate import matches
    from vit_zoo.weights.write import DROPPABLE

    config, tensors = source.config, dict(source.tensors)
    for pattern in patterns:
        matching = fnmatch.filter(tensors, pattern)
        if not matching and not any(matches(name, pattern) for name in source.unwanted):
            raise InputError(f"no tensor matches '{pattern}'", where=source.path)
        for name in matching:
            del tensors[name]
    absent = {field for layer, field in DROPPABLE.items() if f"{layer}.weight" in set(source.tensors) - set(tensors)}
    if "num_classes" in absent and config.spec.projection and "projection" not in absent:
        cause = "cannot drop 'head.weight': it reads what the projection computes"
        raise InputError(cause, where=source.path, hint="drop 'projection.*' with it")
    without_head = {"head_bias": True, "cosine_head": False} if "num_classes" in absent else {}
    spec = config.spec.replace(**dict.fromkeys(absent, 0), **without_head) if absent else config.spec
    if spec.num_classes and spec.representation != config.spec.representation:
        cause = "cannot drop 'pre_logits.weight': the head reads its output"
        raise InputError(cause, where=source.path, hint="drop 'head.*' with it")
    shapes = spec.shapes()
    wrong = [name for name in (*shapes, *tensors) if (name in shapes) != (name in tensors)]
    wrong += [name for name in shapes if name in tensors and shapes[name] != tensors[name].shape]
    dropped = tuple(name for name in source.tensors if name not in tensors)
    if wrong:
        needed = next((name for name in (*wrong, *dropped) if name not in tensors), wrong[0])
        hint = "only all of 'head.*' or 'pre_logits.*' can be dropped"
        raise InputError(f"cannot drop {needed!r}: the model would be incomplete", where=source.path, hint=hint)
    if not dropped:
        return config, source.tensors, ()
    labels = config.labels if spec.num_classes else None
    problem_type = config.problem_type if spec.num_classes else None
    return config.replace(spec=spec, labels=labels, problem_type=problem_type), tensors, dropped


def reduced(source: Checkpoint, patterns: Sequence[str]) -> Checkpoint:
    """Return the checkpoint without the tensors that match the patterns. Raises as `without`."""
    config, tensors, dropped = without(source, patterns)
    return replace(source, config=config, tensors=tensors, digest=None) if dropped else source


def check_content(source: Checkpoint) -> None:
    """Read every value. Raises RefusedContent for values that are not finite, and for a hash other than the file states."""
    import numpy as np

    with step("reading weights", sum(stored.nbytes for stored in source.tensors.values()), BYTES, least=LARGE) as progress:
        for name, stored in source.tensors.items():
            values = as_float(stored.dtype, stored.copied())
            bad = values.size - int(np.isfinite(values).sum())
            if bad:
                raise RefusedContent(f"{name!r} has {bad:,} values that are not finite", where=source.path)
            progress.advance(stored.nbytes)
    if source.digest is not None and digest_of(source.tensors) != source.digest:
        raise RefusedContent("weights have changed since the file was written: the content hash differs", where=source.path)


def find_weights(
    model: ModelLike,
    *,
    weights: str | os.PathLike[str] | None = None,
    random: bool = False,
    seed: int | None = None,
    offline: bool | None = None,
    file_size: FileSize = None,
    allow_drop: Sequence[str] = (),
    ways: Sequence[Option] = (),
    **facts: Any,
) -> Checkpoint:
    """Resolve a model with weights: its own, or for a name those that it means, as in `published_weights`.

    * `weights`: a checkpoint of the same architecture, in place of the model's own.
    * `random`, `seed`: random weights for a name or a config file.
    * `ways`: the caller's options that the error for a name without weights suggests.
    * `file_size`, `allow_drop`, `facts`: as in `find_source`. With another `num_classes` than the weights have, the classifier is
      replaced by a new one.

    Raises HubError if there are no weights or they cannot be fetched, and otherwise as `find_source`.
    """
    facts, allow_drop = parsed(facts), patterns(allow_drop)
    description = Description.taken_from(facts)
    if allow_drop:
        facts["allow_drop"] = allow_drop
    if random:
        if allow_drop:
            dropped = Option("allow_drop", "[...]", "--allow-drop")
            raise InputError(f"{dropped} applies to weights of a file, not to random ones", where=str(model), options=[dropped])
        source = _random_weights(model, 0 if seed is None else seed, weights, facts)
    elif seed is not None:
        hint, options = f"add {RANDOM}", [RANDOM]
        raise InputError("seed applies only to random weights", hint=hint, options=options)
    elif weights is not None:
        source = with_weights(model, weights, offline=offline, stated=description.stated, **facts)
        source = _with_classes(settle_size(source, file_size), facts.get("num_classes"))
    else:
        classes = facts.pop("num_classes", None)
        source = _with_classes(_own_weights(model, offline, file_size, ways, facts), classes)
    return replace(source, config=description.of(source.config))


def _own_weights(
    model: ModelLike, offline: bool | None, file_size: FileSize, ways: Sequence[Option], facts: Mapping[str, Any]
) -> Checkpoint:
    """Return the weights of a model, or those that a name means."""
    locator = parse_locator(model) if isinstance(model, str | os.PathLike) else None
    shadowed = None if locator is None else shadowed_name(str(model), locator)
    if shadowed is not None:
        notice(shadowed)
    if isinstance(locator, RegistryName):
        return settle_size(_of_name(locator, facts, offline, ways), file_size)
    found = find_source(model, offline=offline, file_size=file_size, **facts)
    if isinstance(found, Architecture):
        raise HubError("no published weights", where=str(model), hint=_ways_on(str(model), (), ways), options=ways)
    return found


def _of_name(locator: RegistryName, facts: Mapping[str, Any], offline: bool | None, ways: Sequence[Option]) -> Checkpoint:
    name = locator.named.variant.name
    hint = _ways_on(locator.text, tags_of(name), ways)
    try:
        checkpoint = published_weights(locator.named, facts, offline)
    except HubError as error:
        cause = f"{error.where}: {error.message}" + ("" if error.hint is None else f" ({error.hint})")
        again = type(error)(cause, where=locator.text, hint=hint, options=[*error.options, *ways])
        again.passing = error.passing
        raise again from None
    if checkpoint is None:
        of = "" if locator.named.alias is None else f" by {locator.named.alias.library}"
        raise HubError(f"no published weights{of} are known", where=locator.text, hint=hint, options=ways)
    return checkpoint


def _ways_on(name: str, tags: Iterable[str], ways: Sequence[Option]) -> str:
    """Return how the user can go on where a name has no weights."""
    tag = next((f"a tag, such as {name}.{tag}" for tag in tags), None)
    if not ways:
        ways_on = ["name a folder or a checkpoint file", f"`vitzoo create {name}` writes a folder with random weights"]
        return "; ".join([*ways_on, *([f"or name {tag}"] if tag else [])])
    texts = [f"{way} for random weights" if way.name.startswith("random") else f"{way} for weights of yours" for way in ways]
    return "; ".join([*texts, *([f"or {tag}"] if tag else [])])


def _random_weights(model: ModelLike, seed: int, weights: str | os.PathLike[str] | None, facts: Mapping[str, Any]) -> Checkpoint:
    """Return random weights for a name or a config. Raises InputError for a model that has weights."""
    if weights is not None:
        raise InputError("random weights and given ones contradict each other", where=str(weights))
    if not isinstance(model, str | os.PathLike):
        raise InputError("random weights are for a name or a config, not for a module", where=type(model).__name__)
    shadowed = shadowed_name(str(model), parse_locator(model, names_first=True))
    if shadowed is not None:
        notice(shadowed)
    config = find_architecture(model, **facts)
    random = config.replace(random_seed=seed, random_part=None)
    notice(f"{random.name} has {random.random_text}: it is not trained")  # before they are made
    return of_module(random_model(config, seed), check=False)


def _with_classes(source: Architecture | Checkpoint, classes: Any) -> Checkpoint:
    """Return weights with a classifier for this number of classes, a new one if they have another number."""
    assert isinstance(source, Checkpoint)
    before = source.config.spec.num_classes
    if classes is None or classes == before:
        return source
    model = model_of(source)
    model.set_head(classes)
    if classes and source.config.random_seed is None:
        notice(
            f"{source.config.name}: the weights have {before or 'no'} classes; the classifier for {classes} classes is new, with "
            "random weights, and needs training"
        )
    return replace(of_module(model, check=False), unwanted=source.unwanted)


def is_random_by_itself(model: ModelLike) -> bool:
    """Return whether a model is a config file, which has no weights but random ones."""
    return isinstance(model, str | os.PathLike) and isinstance(parse_locator(model), ConfigFile)


def has_weights(model: ModelLike) -> bool:
    """Return whether a model has weights of its own: it is no config, and no name of which only published ones are known."""
    if not isinstance(model, str | os.PathLike):
        return True
    locator = parse_locator(model)
    if isinstance(locator, RegistryName):
        return locator.named.variant.weights is not None
    return not isinstance(locator, ConfigFile)


def write_model(config: ModelConfig, tensors: Mapping[str, Stored], folder: Path) -> None:
    """Write model.safetensors and config.json into a folder."""
    digest = digest_of(tensors)
    config = config.for_weights(digest)
    document = json.dumps(config.document(), sort_keys=True)
    metadata = {"format": "pt", "vit_zoo": document, "vit_zoo.sha256": digest}
    with Staged(folder / "model.safetensors", need=sum(tensor.nbytes for tensor in tensors.values())) as staged:
        write_safetensors(staged, tensors, metadata)
        _read_back(staged.path, tensors)
        staged.commit()
    write_text(folder / "config.json", config.dumps())


def save_model(model: ViT, folder: Path) -> Path:
    """Write a model into a folder, which is created if it does not exist; its files appear in one step."""
    source = of_module(model)
    tell(source)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CannotWrite("not a folder", where=folder)
    with written_folder(folder) as made:
        write_model(source.config, {name: source.tensors[name] for name in source.config.spec.shapes()}, made)
    return folder


def _read_back(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Raise CannotWrite unless the safetensors library reads every tensor from the file with its shape and type."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name, stored in tensors.items():
            part = file.get_slice(name)
            if tuple(part.get_shape()) != stored.shape or part.get_dtype() != stored.dtype:
                raise CannotWrite(f"{name!r} was not written correctly", where=path)
