"""A tensor as it lies in a file: its type and shape at once, its bytes when asked for."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# safetensors' names for the types that weights may have: bytes of one value, numpy's type (bfloat16 as raw halves)
DTYPES = {"F32": (4, "<f4"), "F16": (2, "<f2"), "BF16": (2, "<u2"), "F64": (8, "<f8")}
# and those that a graph makes of them
TYPES = DTYPES | {"I8": (1, "|i1"), "U8": (1, "|u1"), "I32": (4, "<i4")}
ONNX_TYPES = {"F32": 1, "F16": 10, "BF16": 16, "F64": 11, "I8": 3, "U8": 2, "I32": 6}  # onnx.TensorProto.DataType
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Span:
    """Where the bytes of a tensor lie."""

    file: Path
    start: int
    length: int


@dataclass(frozen=True)
class Stored:
    """Type, shape, and either a span of a file or a way to compute the array; bfloat16 arrays are raw uint16."""

    dtype: str
    shape: tuple[int, ...]
    array: Callable[[], Array]
    span: Span | None = None
    absent: bool = False  # nothing is stored: zeros stand for it

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * TYPES[self.dtype][0]

    def widened(self, dtype: str) -> Stored:
        """The same values as F32 or F64, which holds them all."""
        return self if dtype == self.dtype else Stored(dtype, self.shape, partial(_widened, self, dtype))

    def halved(self, dtype: str) -> Stored:
        """The values rounded to the nearest of F16 or BF16; beyond F16's range they become infinite."""
        return self if dtype == self.dtype else Stored(dtype, self.shape, partial(_halved, self, dtype))

    def copied(self) -> Array:
        """The values in memory of their own: a mapped file would count beside whatever is made of it."""
        import numpy as np

        if self.span is None:
            return self.array()
        values, at = np.empty(self.nbytes, np.uint8), 0
        for piece in self.chunks():
            values[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        return values.view(TYPES[self.dtype][1]).reshape(self.shape)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes, little-endian and row-major, in pieces that are valid until the next; a file is not mapped."""
        stop = self.nbytes if stop is None else stop
        if self.span is None:
            import numpy as np

            yield np.ascontiguousarray(self.array()).reshape(-1).view(np.uint8).data[start:stop]
            return
        descriptor = os.open(self.span.file, os.O_RDONLY)
        try:
            at, end = self.span.start + start, self.span.start + stop
            # one buffer: a fresh one for every piece costs 60,000 page faults for ViT-B/16
            buffer = memoryview(bytearray(min(CHUNK, end - at)))
            while at < end:
                count = os.preadv(descriptor, [buffer[: end - at]], at)
                if not count:
                    raise RefusedContent("became shorter while it was read", where=self.span.file)
                yield buffer[:count]
                at += count
        finally:
            os.close(descriptor)


def as_float(dtype: str, values: Array) -> Array:
    """Values as numpy knows them: bfloat16, which it does not, as float32."""
    import numpy as np

    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values


def refuse_type(name: str, dtype: str, where: object) -> Array:
    """The array of a tensor that is no weight: its type is told only where somebody wants its values."""
    raise RefusedContent(f"{name!r} has type {dtype}; weights are {', '.join(DTYPES)}", where=where)


def _widened(stored: Stored, dtype: str) -> Array:
    return as_float(stored.dtype, stored.array()).astype(DTYPES[dtype][1])


def _halved(stored: Stored, dtype: str) -> Array:
    import numpy as np

    values = as_float(stored.dtype, stored.array())
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    bits = np.ascontiguousarray(values, "<f4").view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")  # to the nearest, ties to even


def digest_of(tensors: Mapping[str, Stored]) -> str:
    """The content hash of weights: SHA-256 over each tensor's name, type, shape and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(describe(name, tensors[name]))
        for piece in tensors[name].chunks():
            digest.update(piece)
    return digest.hexdigest()


def describe(name: str, tensor: Stored) -> bytes:
    """What `digest_of` hashes in front of a tensor's bytes."""
    return f"{name}\0{tensor.dtype}\0{','.join(map(str, tensor.shape))}\0".encode()
