"""Checkpoints of any container format: the checkpoint file in a folder, and its tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files.pickles import read_torch
from vit_zoo.files.safetensors import SafetensorsFile
from vit_zoo.files.sniff import sniff
from vit_zoo.files.stored import Stored

CHECKPOINTS = ("safetensors", "torch", "old torch", "torchscript", "npz", "hdf5")
# names that libraries give to a folder's checkpoint; the first that exists is used. An index lists the parts of a sharded one
NAMES = (
    "model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors", "pytorch_model.bin",
    "pytorch_model.bin.index.json", "open_clip_pytorch_model.bin", "model.weights.h5",
)  # fmt: skip


def checkpoint_in(folder: Path) -> Path:
    """Return the checkpoint in a folder. Raises InputError if there is none, or several and none has a usual name."""
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    checkpoints = [path for path in sorted(folder.iterdir()) if path.is_file() and sniff(path) in CHECKPOINTS]
    if len(checkpoints) > 1:
        names = ", ".join(path.name for path in checkpoints)
        raise InputError(f"contains several checkpoints: {names}", where=folder, hint="give the path of one of them")
    if not checkpoints:
        what = "contains no model" if any(folder.iterdir()) else "folder is empty"
        raise InputError(f"{what}: expected config.json and model.safetensors, or another checkpoint", where=folder)
    return checkpoints[0]


def read_checkpoint(path: Path, kind: str | None = None) -> Mapping[str, Stored]:
    """Return the tensors of a checkpoint by name; their values are read lazily.

    `kind` is the result of `sniff`, if it is known. Raises RefusedContent for a file that is not a checkpoint.
    """
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
    raise RefusedContent(f"expected a checkpoint, got a file of kind '{kind}'", where=path)
