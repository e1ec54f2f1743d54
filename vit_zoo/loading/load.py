"""Torch models and checkpoints with weights, and the writing of models into folders, which is checked by reading back."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vit_zoo.errors import CannotWrite, HubError, InputError, RefusedContent
from vit_zoo.files import Staged, Stored, digest_of, write_safetensors, write_text
from vit_zoo.files.atomic import made_folder
from vit_zoo.files.stored import as_float
from vit_zoo.loading.source import Architecture, Checkpoint, ModelLike, default_weights, find_source, of_module, shipped, tell
from vit_zoo.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from vit_zoo.model.vit import ViT


# tensors that a model can do without, and the field and value of the spec that state it
DROPPABLE = {"head.weight": ("num_classes", 0), "pre_logits.weight": ("representation", 0)}


def random_model(config: ModelConfig, seed: int, *, device: Any = None, dtype: torch.dtype | None = None) -> ViT:
    """Return a torch model with random weights."""
    from vit_zoo.model.vit import ViT, initialise

    model = ViT.empty(config)
    if dtype is not None:
        model.to(dtype)
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
        model.mark_random()
    return model


def without(source: Checkpoint, patterns: Sequence[str]) -> tuple[ModelConfig, Mapping[str, Stored], tuple[str, ...]]:
    """Drop the tensors that match the patterns. Raises InputError for a pattern without a match, or if the model needs them."""
    from vit_zoo.weights.candidates import matches

    config, tensors = source.config, dict(source.tensors)
    for pattern in patterns:
        matching = fnmatch.filter(tensors, pattern)
        if not matching and not any(matches(name, pattern) for name in source.unwanted):
            raise InputError(f"no tensor matches '{pattern}'", where=source.path)
        for name in matching:
            del tensors[name]
    spec = config.spec
    for name, (field, value) in DROPPABLE.items():
        if name in source.tensors and name not in tensors:
            spec = spec.replace(**{field: value}, **({"head_bias": True} if field == "num_classes" else {}))
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
    return config.replace(spec=spec, labels=labels), tensors, dropped


def reduced(source: Checkpoint, patterns: Sequence[str]) -> Checkpoint:
    """Return the checkpoint without the tensors that match the patterns. Raises as `without`."""
    config, tensors, dropped = without(source, patterns)
    return replace(source, config=config, tensors=tensors, digest=None) if dropped else source


def check_content(source: Checkpoint) -> None:
    """Read every value. Raises RefusedContent for values that are not finite, and for a hash other than the file states."""
    import numpy as np

    for name, stored in source.tensors.items():
        values = as_float(stored.dtype, stored.copied())
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise RefusedContent(f"{name!r} has {bad:,} values that are not finite", where=source.path)
    if source.digest is not None and digest_of(source.tensors) != source.digest:
        raise RefusedContent("weights have changed since the file was written: the content hash differs", where=source.path)


def shipped_or_random_weights(architecture: Architecture, name: str, seed: int | None) -> Checkpoint:
    """Return the weights that ship with a name, or random ones, marked as such, if there are none or `seed` is given."""
    own = shipped(name, architecture.config.spec) if seed is None else None
    return own or of_module(random_model(architecture.config, seed or 0), check=False)


def find_weights(
    model: ModelLike,
    *,
    offline: bool | None = None,
    file_size: tuple[int, int] | Literal["any"] | None = None,
    allow_drop: Sequence[str] = (),
    **facts: Any,
) -> Checkpoint:
    """Resolve a model with weights: its own, those that ship with its name, or those of the name's default tag.

    Raises HubError if there are none or they cannot be fetched, and otherwise as `find_source`.
    """
    source = find_source(model, offline=offline, file_size=file_size, allow_drop=allow_drop, **facts)
    if isinstance(source, Checkpoint):
        return source
    name = str(model)
    hint = f"name a folder or a checkpoint file; `vitzoo create {name}` writes a folder with random weights"
    try:
        checkpoint = shipped(name, source.config.spec) or default_weights(name, offline=offline, allow_drop=allow_drop, **facts)
    except HubError as error:
        raise type(error)(error.message, where=error.where, hint=error.hint or hint) from None
    if checkpoint is None:
        raise HubError("no published weights", where=name, hint=hint)
    return checkpoint


def write_model(config: ModelConfig, tensors: Mapping[str, Stored], folder: Path) -> None:
    """Write model.safetensors and config.json into a folder."""
    document = json.dumps(config.document(), sort_keys=True)
    metadata = {"format": "pt", "vit_zoo": document, "vit_zoo.sha256": digest_of(tensors)}
    with Staged(folder / "model.safetensors", need=sum(tensor.nbytes for tensor in tensors.values())) as staged:
        write_safetensors(staged, tensors, metadata)
        _read_back(staged.path, tensors)
        staged.commit()
    write_text(folder / "config.json", config.dumps())


def save_model(model: ViT, folder: Path) -> Path:
    """Write a model into a folder, which is created if it does not exist, and removed again if writing fails."""
    source = of_module(model)
    tell(source)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CannotWrite("not a folder", where=folder)
    with made_folder(folder):
        write_model(source.config, {name: source.tensors[name] for name in source.config.spec.shapes()}, folder)
    return folder


def _read_back(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Raise CannotWrite unless the safetensors library reads every tensor from the file with its shape and type."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name, stored in tensors.items():
            part = file.get_slice(name)
            if tuple(part.get_shape()) != stored.shape or part.get_dtype() != stored.dtype:
                raise CannotWrite(f"{name!r} was not written correctly", where=path)
