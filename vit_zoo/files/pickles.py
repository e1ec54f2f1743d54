"""Reader and writer of PyTorch checkpoints; reading runs no code from the file.

The reader is torch's restricted unpickler, with checks for what it accepts: compressed members that expand to gigabytes,
views that claim terabytes of a small storage, and flipped bits, because torch ignores the CRC.
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

# keys under which training scripts store the state dict; the first that exists is used
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "student")


def read_torch(path: Path, *, zipped: bool = True) -> dict[str, Stored]:
    """Return the tensors of a state dict that `torch.save` wrote. Raises RefusedContent for anything else.

    `zipped=False` reads the format of torch before 1.6, which is a sequence of pickles.
    """
    import torch

    if zipped:
        check_zip(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about content that is refused here
        try:
            # training scripts store their arguments, a Namespace, with the weights
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:  # a hostile file can make the unpickler raise anything
            raise RefusedContent(_cause(error, path), where=path) from None
    return tensors_of(_unwrapped(content), where=path)


def tensors_of(state: Any, *, where: object) -> dict[str, Stored]:
    """Return the tensors of a state dict in memory as `Stored`. Raises RefusedContent if a value is not a tensor."""
    import torch

    if not isinstance(state, Mapping) or not all(isinstance(k, str) for k in state):
        raise RefusedContent(f"expected a state dict, got {type(state).__name__}", where=where)
    others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        kind = type(state[others[0]]).__name__
        raise RefusedContent(f"{others[0]!r}: expected a tensor, got {kind}", where=where)
    return {name: stored(name, tensor, where=where) for name, tensor in state.items()}


def stored(name: str, tensor: torch.Tensor, *, where: object) -> Stored:
    """Return a torch tensor as `Stored`. Raises RefusedContent if it is sparse, has no values or is larger than its storage."""
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
        raise RefusedContent(f"{name!r} claims more values than the file contains", where=where)
    return Stored(types[tensor.dtype], tuple(tensor.shape), partial(_array, tensor))


def _array(tensor: torch.Tensor) -> Array:
    import torch

    tensor = tensor.detach().cpu()
    raw = tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor
    return raw.numpy()


def check_zip(path: Path, *, program: bool = False) -> None:
    """Raise RefusedContent for a zip archive with compressed or damaged members.

    With `program`, only the data members of a TorchScript archive are checked, because its code is never read.
    """
    damaged = None
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not program or "/data/" in m.filename or m.filename.endswith("/data.pkl")]
            compressed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
            if compressed or sum(m.file_size for m in members) > path.stat().st_size:
                raise RefusedContent("contains compressed members, which torch never writes", where=path)
            if any(m.CRC for m in members):  # all are 0 if torch was set not to compute them
                damaged = next((m.filename for m in members if not _has_its_checksum(archive, m)), None)
    except RefusedContent:
        raise
    except Exception as error:  # zipfile raises undocumented errors: RuntimeError, struct.error, ...
        raise RefusedContent(f"not a complete zip archive: {error}", where=path) from None
    if damaged is not None:
        raise RefusedContent(f"is damaged: the checksum of {damaged!r} is wrong", where=path)


def _has_its_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Return whether a member has the CRC of the zip directory; zipfile compares them at the end of the member."""
    try:
        with archive.open(member) as file:
            while file.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _cause(error: Exception, path: Path) -> str:
    """Return the reason why torch refused a file: the code that it refers to, or else the type of the error."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    names: list[str] = []
    with contextlib.suppress(Exception):  # it reads the same hostile file; if it fails, the first error is reported
        names = get_unsafe_globals_in_checkpoint(path)
    if names:
        return f"would run code when loaded: it refers to {', '.join(sorted(names)[:3])}"
    return f"cannot be read as a torch checkpoint ({type(error).__name__})"


def _unwrapped(content: Any) -> Any:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    return content


def write_torch(staged: Staged, tensors: Mapping[str, Stored], wrapper: str | None = None) -> None:
    """Write a state dict with `torch.save`, under the key `wrapper` if one is given."""
    import torch

    state = {}
    for name, stored in tensors.items():
        tensor = torch.from_numpy(stored.copied())
        state[name] = tensor.view(torch.bfloat16) if stored.dtype == "BF16" else tensor
    staged.write(lambda file: torch.save(state if wrapper is None else {wrapper: state}, file))
