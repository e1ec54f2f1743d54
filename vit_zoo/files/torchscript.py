"""Reader of the tensors in TorchScript archives, the format of OpenAI's CLIP files.

The unpickler replaces all objects with stubs, so that no code of the archive is run.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent
from vit_zoo.files.npz import member_offset
from vit_zoo.files.pickles import check_zip
from vit_zoo.files.stored import DTYPES, Span, Stored, refuse_type

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

MAX_PICKLE = 64 << 20  # bytes; that of the largest published CLIP has 0.2 MB
MAX_DEPTH = 100
STORAGES = {"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64"}


class Stub:
    """A placeholder for any object of the program, with the state that the pickle sets on it."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class TensorRecord:
    """The pickled description of a tensor: its storage, and its offset, shape and strides in that storage."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)


def read_torchscript(path: Path) -> dict[str, Stored]:
    """Return the parameters and buffers of a saved program by name, or the tensors of a saved state dict.

    Raises RefusedContent for a damaged archive and for a pickle that contains anything else.
    """
    check_zip(path, program=True)
    with zipfile.ZipFile(path) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1] or [""]
        if not name or archive.getinfo(name).file_size > MAX_PICKLE:
            raise RefusedContent(f"data.pkl is missing or larger than {MAX_PICKLE:,} bytes", where=path)
        content, root = archive.read(name), name.removesuffix("data.pkl")
        members = {info.filename: info for info in archive.infolist()}
    try:
        top = _Unpickler(io.BytesIO(content), path).load()
    except RefusedContent:
        raise
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        raise RefusedContent(f"cannot be read as a TorchScript archive ({type(error).__name__})", where=path) from None
    tensors: dict[str, Stored] = {}
    _walk(top, "", tensors, members, root, path, 0)
    return tensors


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return Stub
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return TensorRecord if name == "_rebuild_tensor_v2" else _first
        if module == "torch.jit._pickle" and name in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist"):
            return list
        if module == "torch.jit._pickle" and name == "restore_type_tag":
            return _first
        if module == "torch" and name.endswith("Storage"):
            return name
        raise RefusedContent(f"would run code when loaded: it refers to {module}.{name}", where=self.path)

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", str(kind), str(key), _, int(count)):
                return STORAGES.get(kind, kind), key, count
        raise RefusedContent("contains a reference that is not a tensor storage", where=self.path)


def _first(value: Any, *rest: Any) -> Any:
    return value


def _walk(
    item: Any, name: str, tensors: dict[str, Stored], members: dict[str, zipfile.ZipInfo], root: str, path: Path, depth: int
) -> None:
    """Collect the tensors of an unpickled object; names are joined with dots."""
    if depth > MAX_DEPTH:
        raise RefusedContent("is nested too deeply", where=path)
    if isinstance(item, TensorRecord):
        tensors[name] = _stored(item, name, members, root, path)
    elif isinstance(item, Stub) and isinstance(getattr(item, "state", None), dict):
        _walk(item.state, name, tensors, members, root, path, depth + 1)
    elif isinstance(item, dict):
        for key, value in item.items():
            _walk(value, f"{name}.{key}" if name else str(key), tensors, members, root, path, depth + 1)


def _stored(item: TensorRecord, name: str, members: dict[str, zipfile.ZipInfo], root: str, path: Path) -> Stored:
    numbers = (item.offset, *item.shape, *item.strides)
    if not isinstance(item.storage, tuple) or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise RefusedContent(f"{name!r} has an impossible shape or offset", where=path)
    dtype, key, _ = item.storage
    if dtype not in DTYPES:
        return Stored(dtype, item.shape, partial(refuse_type, name, dtype, path))
    member = members.get(f"{root}data/{key}")
    if member is None:
        raise RefusedContent(f"no values for {name!r}", where=path)
    width = DTYPES[dtype][0]
    strides = item.strides
    last = item.offset + sum((n - 1) * s for n, s in zip(item.shape, strides, strict=True)) if 0 not in item.shape else -1
    if (last + 1) * width > member.file_size or len(strides) != len(item.shape):
        raise RefusedContent(f"{name!r} claims more values than the file contains", where=path)
    start = member_offset(path, member) + item.offset * width
    contiguous = all(s == math.prod(item.shape[i + 1 :]) for i, s in enumerate(strides) if item.shape[i] > 1)
    span = Span(path, start, math.prod(item.shape) * width) if contiguous else None
    return Stored(dtype, item.shape, partial(_array, path, start, last - item.offset + 1, dtype, item.shape, strides), span)


def _array(path: Path, start: int, count: int, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    import numpy as np

    width, kind = DTYPES[dtype]
    if not count:
        return np.zeros(shape, kind)
    flat = np.asarray(np.memmap(path, kind, "c", start, (count,)))
    return np.lib.stride_tricks.as_strided(flat, shape, [s * width for s in strides])
