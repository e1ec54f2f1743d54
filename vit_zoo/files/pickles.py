"""torch's zip checkpoints, read without running anything: torch's restricted unpickler, behind our own checks.

What it lets through: deflated bombs, views of one storage that claim terabytes, and flipped bits (it skips the CRC).
"""

from __future__ import annotations

import argparse
import contextlib
import warnings
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent
from vit_zoo.files.atomic import Staged
from vit_zoo.files.stored import Stored, refuse_type

if TYPE_CHECKING:
    import torch

    from vit_zoo.files.stored import Array

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "student")  # the first that is there


def read_torch(path: Path, *, zipped: bool = True) -> dict[str, Stored]:
    """The tensors of a state dict saved by `torch.save`; raises RefusedContent for anything else.

    `zipped=False`: by a torch before 1.6, as one pickle after another.
    """
    import torch

    if zipped:
        check_zip(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what is refused here anyway
        try:
            with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts keep their arguments beside
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:  # the unpickler raises whatever a hostile file provokes
            raise RefusedContent(_cause(error, path), where=path) from None
    return tensors_of(_unwrapped(found), where=path)


def tensors_of(state: Any, *, where: object) -> dict[str, Stored]:
    """The tensors of a state dict in memory, as stored ones."""
    import torch

    if not isinstance(state, Mapping) or not all(isinstance(k, str) for k in state):
        raise RefusedContent(f"holds a {type(state).__name__}, not a state dict", where=where)
    strangers = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if strangers:
        kind = type(state[strangers[0]]).__name__
        raise RefusedContent(f"{strangers[0]!r} is a {kind}, not a tensor", where=where)
    return {name: stored(name, tensor, where=where) for name, tensor in state.items()}


def stored(name: str, tensor: torch.Tensor, *, where: object) -> Stored:
    """A torch tensor as a stored one; a view that claims more than its storage holds is refused."""
    import torch

    types = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
    if tensor.layout is not torch.strided:
        raise RefusedContent(f"{name!r} is not a dense tensor", where=where)
    if tensor.dtype not in types:
        kind = str(tensor.dtype).removeprefix("torch.")
        return Stored(kind, tuple(tensor.shape), partial(refuse_type, name, kind, where))
    if tensor.is_meta:
        raise RefusedContent(f"{name!r} has no values", where=where)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise RefusedContent(f"{name!r} claims more values than the file holds", where=where)
    return Stored(types[tensor.dtype], tuple(tensor.shape), partial(_array, tensor))


def _array(tensor: torch.Tensor) -> Array:
    import torch

    tensor = tensor.detach().cpu()
    raw = tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor
    return raw.numpy()


def check_zip(path: Path, *, program: bool = False) -> None:
    """Refuse an archive with packed or damaged members; of a program only those of its data, for its code is not read."""
    damaged = None
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not program or "/data/" in m.filename or m.filename.endswith("/data.pkl")]
            packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
            if packed or sum(m.file_size for m in members) > path.stat().st_size:
                raise RefusedContent("holds compressed members, which torch never writes", where=path)
            if any(m.CRC for m in members):  # torch can be told not to compute them; then all of them are 0 and say nothing
                damaged = next((m.filename for m in members if not _sound(archive, m)), None)
    except RefusedContent:
        raise
    except Exception as error:  # zipfile raises more than it documents: RuntimeError, struct.error, ...
        raise RefusedContent(f"is not a whole zip archive: {error}", where=path) from None
    if damaged is not None:
        raise RefusedContent(f"is damaged: the checksum of {damaged!r} is wrong", where=path)


def _sound(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether the bytes have the checksum of the directory, which zipfile compares when it comes to their end."""
    try:
        with archive.open(member) as file:
            while file.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _cause(error: Exception, path: Path) -> str:
    from torch.serialization import get_unsafe_globals_in_checkpoint

    names: list[str] = []
    with contextlib.suppress(Exception):  # it reads the same hostile file; then the first error is the one to tell
        names = get_unsafe_globals_in_checkpoint(path)
    if names:
        return f"would run code when loaded: it refers to {', '.join(sorted(names)[:3])}"
    return f"cannot be read as a torch checkpoint ({type(error).__name__})"


def _unwrapped(found: Any) -> Any:
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            return found[key]
    return found


def write_torch(staged: Staged, tensors: Mapping[str, Stored], wrapper: str | None = None) -> None:
    """A state dict as `torch.save` writes it, under a key if its library wraps it so."""
    import torch

    state = {}
    for name, stored in tensors.items():
        tensor = torch.from_numpy(stored.copied())
        state[name] = tensor.view(torch.bfloat16) if stored.dtype == "BF16" else tensor
    staged.write(lambda file: torch.save(state if wrapper is None else {wrapper: state}, file))
