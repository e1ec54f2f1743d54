"""Weights in whatever container they come: which file of a folder they are, and its tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files.pickles import read_torch
from vit_zoo.files.safetensors import SafetensorsFile
from vit_zoo.files.sniff import sniff
from vit_zoo.files.stored import Stored

CHECKPOINTS = ("safetensors", "torch", "old torch", "torchscript", "npz", "hdf5")
# what libraries call the weights of a folder, the first that is there; an index names the parts of a divided file
NAMES = (
    "model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin", "model.weights.h5",
)  # fmt: skip


def checkpoint_in(folder: Path) -> Path:
    """The weights of a folder. Raises InputError if there are none, or several and none has a usual name."""
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    found = [path for path in sorted(folder.iterdir()) if path.is_file() and sniff(path) in CHECKPOINTS]
    if len(found) > 1:
        raise InputError(f"holds several checkpoints: {', '.join(path.name for path in found)}", where=folder, hint="name one")
    if not found:
        what = "holds no model" if any(folder.iterdir()) else "is empty"
        raise InputError(f"{what}: no config.json and model.safetensors, and no other checkpoint", where=folder)
    return found[0]


def read_checkpoint(path: Path, kind: str | None = None) -> Mapping[str, Stored]:
    """The tensors of a checkpoint of any container, lazily. Raises RefusedContent for what is none."""
    kind = kind or sniff(path)
    match kind:
        case "safetensors":
            return SafetensorsFile(path).tensors
        case "torch" | "old torch":
            return read_torch(path, zipped=kind == "torch")
        case "torchscript":
            from vit_zoo.files.torchscript import read_torchscript

            return read_torchscript(path)
        case "npz":
            from vit_zoo.files.npz import read_npz

            return read_npz(path)
        case "hdf5":
            from vit_zoo.files.hdf5 import read_hdf5

            return read_hdf5(path)
        case "index":
            from vit_zoo.files.sharded import read_sharded

            return read_sharded(path, read_checkpoint)
    raise RefusedContent(f"is of kind '{kind}'; a checkpoint is wanted", where=path)
