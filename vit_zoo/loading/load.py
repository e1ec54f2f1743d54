"""From a source to a torch model, and from tensors to a folder: filled once, read back after writing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import CannotWrite, HubError, RefusedContent
from vit_zoo.files import Staged, Stored, digest_of, write_safetensors, write_text
from vit_zoo.files.atomic import made_folder
from vit_zoo.files.stored import as_float
from vit_zoo.loading.source import Architecture, Checkpoint, ModelLike, default_weights, find_source, of_module, shipped
from vit_zoo.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from vit_zoo.model.vit import ViT


def random_model(config: ModelConfig, seed: int, *, device: Any = None, dtype: torch.dtype | None = None) -> ViT:
    from vit_zoo.model.vit import ViT, initialise

    model = ViT.empty(config)
    if dtype is not None:
        model.to(dtype)
    model.to_empty(device=device or "cpu")
    initialise(model, seed)
    return model


def filled(source: Checkpoint) -> ViT:
    """The torch model over the source's tensors, which stay where they are until they are used."""
    import torch

    from vit_zoo.model.vit import ViT

    model = ViT.empty(source.config)
    state = {}
    with torch.inference_mode(False):  # whoever loads inside one still gets parameters that can be trained
        for name, stored in source.tensors.items():
            tensor = torch.from_numpy(stored.array())
            state[name] = tensor.view(torch.bfloat16) if stored.dtype == "BF16" else tensor
        model.load_state_dict(state, assign=True)
    if source.config.random_seed is not None:
        model.mark_random()
    return model


def check_content(source: Checkpoint) -> None:
    """Read every value: finite, and of the hash that the file states."""
    import numpy as np

    for name, stored in source.tensors.items():
        values = as_float(stored.dtype, stored.copied())
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise RefusedContent(f"{name!r} holds {bad:,} values that are not finite", where=source.path)
    if source.digest is not None and digest_of(source.tensors) != source.digest:
        raise RefusedContent("its weights are not those that were written: the content hash differs", where=source.path)


def with_some_weights(architecture: Architecture, name: str, seed: int | None) -> Checkpoint:
    """An architecture with weights: those that ship with the name, else random ones, which are stamped."""
    ready = shipped(name, architecture.config.spec) if seed is None else None
    return ready or of_module(random_model(architecture.config, seed or 0))


def find_weights(model: ModelLike, *, offline: bool | None = None, **facts: Any) -> Checkpoint:
    """A source with weights: its own, those that ship with a name, or those of its default tag.

    Raises HubError where there are none, or they cannot be had; else as `find_source`.
    """
    source = find_source(model, offline=offline, **facts)
    if isinstance(source, Checkpoint):
        return source
    name = str(model)
    hint = f"`vitzoo create {name}` makes a folder with random ones; name a folder or a checkpoint file"
    try:
        found = shipped(name, source.config.spec) or default_weights(name, offline=offline, **facts)
    except HubError as error:
        raise type(error)(error.message, where=error.where, hint=error.hint or hint) from None
    if found is None:
        raise HubError("no weights of it are published", where=name, hint=hint)
    return found


def write_model(config: ModelConfig, tensors: Mapping[str, Stored], folder: Path) -> None:
    document = json.dumps(config.document(), sort_keys=True)
    metadata = {"format": "pt", "vit_zoo": document, "vit_zoo.sha256": digest_of(tensors)}
    with Staged(folder / "model.safetensors", need=sum(tensor.nbytes for tensor in tensors.values())) as staged:
        write_safetensors(staged, tensors, metadata)
        _read_back(staged.path, tensors)
        staged.commit()
    write_text(folder / "config.json", config.dumps())


def save_model(model: ViT, folder: Path) -> Path:
    """Write a model into a folder, which is made if it does not exist, and removed again if writing fails."""
    source = of_module(model)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CannotWrite("is not a folder", where=folder)
    with made_folder(folder):
        write_model(source.config, {name: source.tensors[name] for name in source.config.spec.shapes()}, folder)
    return folder


def _read_back(path: Path, tensors: Mapping[str, Stored]) -> None:
    """What was written is a file that the safetensors library reads, with every tensor in its place."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name, stored in tensors.items():
            part = file.get_slice(name)
            if tuple(part.get_shape()) != stored.shape or part.get_dtype() != stored.dtype:
                raise CannotWrite(f"{name!r} came out wrong", where=path)
