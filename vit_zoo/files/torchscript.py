"""Reader of the tensors in TorchScript archives, the format of OpenAI's CLIP files.

The unpickler replaces all objects with stubs, so that no code of the archive is run.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent
from vit_zoo.files.npz import member_offset
from vit_zoo.files.pickles import check_zip
from vit_zoo.files.stored import DTYPES, MAX_NAME, Span, Stored, check_shape, refuse_type

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

MAX_PICKLE = 64 << 20  # bytes; that of the largest published CLIP has 0.2 MB
MAX_DEPTH, MAX_ITEMS, MAX_TENSORS = 100, 100_000, 20_000
STORAGES = {"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64"}


class Stub:
    """A placeholder for any object of the program, with the state that the pickle sets on it."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class TensorRecord:
    """The pickled description of a tensor: its storage, and its offset, shape and strides in that storage.

    The pickle makes it with values of any type, and may set others on it afterwards: `_stored` checks them.
    """

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


def read_torchscript(path: Path) -> dict[str, Stored]:
    """Return the parameters and buffers of a saved program by name, or the tensors of a saved state dict.

    Raises RefusedContent for a damaged archive and for a pickle that contains anything else.
    """
    check_zip(path, program=True)
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(names) != 1 or archive.getinfo(names[0]).file_size > MAX_PICKLE:
            raise RefusedContent(f"data.pkl is missing, there twice, or larger than {MAX_PICKLE:,} bytes", where=path)
        name = names[0]
        content, root = archive.read(name), name.removesuffix("data.pkl")
        members = {info.filename: info for info in archive.infolist()}
    try:
        top = _Unpickler(io.BytesIO(content), path).load()
    except RefusedContent:
        raise
    except Exception as error:  # a hostile pickle can make the unpickler raise anything
        raise RefusedContent(f"cannot be read as a TorchScript archive ({type(error).__name__})", where=path) from None
    tensors: dict[str, Stored] = {}
    for key, record in _records(top, "", 0, iter(range(MAX_ITEMS)), path):
        tensors[key] = _stored(record, key, members, root, path)
        if len(tensors) > MAX_TENSORS:
            raise RefusedContent(f"contains more than {MAX_TENSORS:,} tensors", where=path)
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


def _records(item: Any, name: str, depth: int, budget: Iterator[int], path: Path) -> Iterator[tuple[str, TensorRecord]]:
    """Yield the tensors of an unpickled object; names are joined with dots. An object may be in several places, and in itself."""
    if depth > MAX_DEPTH or len(name) > MAX_NAME or next(budget, None) is None:
        raise RefusedContent("is nested too deeply", where=path)
    if isinstance(item, TensorRecord):
        yield name, item
        return
    state = vars(item).get("state") if isinstance(item, Stub) else item
    # not `state.items()`, which a pickle can replace
    for key, value in dict.items(state) if isinstance(state, dict) else ():
        if isinstance(value, TensorRecord | Stub | dict):
            if not isinstance(key, str | int):
                raise RefusedContent("contains a tensor whose name is not text", where=path)
            yield from _records(value, f"{name}.{key}" if name else str(key), depth + 1, budget, path)


def _stored(item: TensorRecord, name: str, members: dict[str, zipfile.ZipInfo], root: str, path: Path) -> Stored:
    match item.storage, item.offset, item.shape, item.strides:
        case (str(dtype), str(key), int()), int(offset), (list() | tuple()) as shape, (list() | tuple()) as strides:
            if type(offset) is not int or not 0 <= offset < 2**48:
                raise RefusedContent(f"{name!r} has an impossible offset", where=path)
            shape, strides = check_shape(name, shape, path), check_shape(name, strides, path)
        case _:
            raise RefusedContent(f"{name!r} is not a tensor", where=path)
    if len(strides) != len(shape):
        raise RefusedContent(f"{name!r} has {len(strides)} strides for {len(shape)} axes", where=path)
    if dtype not in DTYPES:
        return Stored(dtype, shape, partial(refuse_type, name, dtype, path))
    member = members.get(f"{root}data/{key}")
    if member is None:
        raise RefusedContent(f"no values for {name!r}", where=path)
    width = DTYPES[dtype][0]
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if 0 not in shape else -1
    if (last + 1) * width > member.file_size or math.prod(shape) * width > member.file_size:
        raise RefusedContent(f"{name!r} claims more values than the file contains", where=path)
    start = member_offset(path, member) + offset * width
    contiguous = all(s == math.prod(shape[i + 1 :]) for i, s in enumerate(strides) if shape[i] > 1)
    span = Span(path, start, math.prod(shape) * width) if contiguous else None
    return Stored(dtype, shape, partial(_array, path, start, last - offset + 1, dtype, shape, strides), span)


def _array(path: Path, start: int, count: int, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    import numpy as np

    width, kind = DTYPES[dtype]
    if not count:
        return np.zeros(shape, kind)
    flat = np.asarray(np.memmap(path, kind, "c", start, (count,)))
    return np.lib.stride_tricks.as_strided(flat, shape, [s * width for s in strides])
