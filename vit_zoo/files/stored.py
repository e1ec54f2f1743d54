"""Tensors in files: type and shape are known at once, values are read when they are used."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent, shown
from vit_zoo.progress import BYTES, LARGE, step

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# types of weights by safetensors' name: bytes per value, NumPy type (bfloat16 as uint16)
DTYPES = {"F32": (4, "<f4"), "F16": (2, "<f2"), "BF16": (2, "<u2"), "F64": (8, "<f8")}
# types of tensors in a graph
TYPES = DTYPES | {"I8": (1, "|i1"), "U8": (1, "|u1"), "I32": (4, "<i4")}
ONNX_TYPES = {"F32": 1, "F16": 10, "BF16": 16, "F64": 11, "I8": 3, "U8": 2, "I32": 6}  # onnx.TensorProto.DataType
CHUNK = 1 << 20  # bytes
MAX_AXES = 32  # NumPy's own limit before 2.0
MAX_NAME = 1000  # characters: names of nested dictionaries, joined, can be longer than the file
# Compressed weights are hardly smaller than plain ones; zeros are a thousand times smaller.
MAX_EXPANSION, EXPANSION_SLACK = 20, 256 << 20  # bytes


@dataclass(frozen=True)
class Span:
    """The position of a tensor's bytes: a file, an offset and a length in bytes."""

    file: Path
    start: int
    length: int


@dataclass(frozen=True)
class Stored:
    """A tensor with its type, its shape and a function that returns its values; a bfloat16 array is returned as uint16.

    `span` is the position of the same values in a file, if they are stored there little-endian and in row-major order.
    """

    dtype: str
    shape: tuple[int, ...]
    array: Callable[[], Array]
    span: Span | None = None
    absent: bool = False  # the file does not contain the tensor; its values are zeros

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * TYPES[self.dtype][0]

    def widened(self, dtype: str) -> Stored:
        """Return the same values in a wider type, F32 or F64."""
        return self if dtype == self.dtype else Stored(dtype, self.shape, partial(_widened, self, dtype))

    def single(self, name: str, *, where: object) -> Stored:
        """Return F64 values rounded to F32, others unchanged. Reading values beyond F32's range raises RefusedContent."""
        return self if self.dtype != "F64" else Stored("F32", self.shape, partial(_single, self, name, where))

    def halved(self, dtype: str) -> Stored:
        """Return the values rounded to the nearest F16 or BF16; values beyond the range of F16 become infinite."""
        return self if dtype == self.dtype else Stored(dtype, self.shape, partial(_halved, self, dtype))

    def copied(self) -> Array:
        """Return a copy of the values. A memory-mapped array would stay in memory in addition to what is computed from it."""
        import numpy as np

        if self.span is None:
            return self.array()
        values, at = np.empty(self.nbytes, np.uint8), 0
        for piece in self.chunks():
            values[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        return values.view(TYPES[self.dtype][1]).reshape(self.shape)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """Yield the bytes `start` to `stop` in pieces, little-endian and in row-major order, without mapping the file.

        A piece is valid until the next one is read.
        """
        stop = self.nbytes if stop is None else stop
        if self.span is None:
            import numpy as np

            yield np.ascontiguousarray(self.array()).reshape(-1).view(np.uint8).data[start:stop]
            return
        descriptor = os.open(self.span.file, os.O_RDONLY)
        try:
            at, end = self.span.start + start, self.span.start + stop
            # one buffer for all pieces: a new one for each costs 60,000 page faults for ViT-B/16
            buffer = memoryview(bytearray(min(CHUNK, end - at)))
            while at < end:
                count = os.preadv(descriptor, [buffer[: end - at]], at)
                if not count:
                    raise RefusedContent("became shorter while being read", where=self.span.file)
                yield buffer[:count]
                at += count
        finally:
            os.close(descriptor)


def check_shape(name: str, shape: Sequence[Any], where: object) -> tuple[int, ...]:
    """Return the shape of a tensor. Raises RefusedContent for one that no tensor can have."""
    if len(shape) > MAX_AXES or not all(type(length) is int and 0 <= length < 2**48 for length in shape):
        raise RefusedContent(f"{name!r} has an impossible shape: {shown(list(shape))}", where=where)
    return tuple(shape)


def check_expansion(unpacked: int, size: int, where: object) -> None:
    """Raise RefusedContent for compressed tensors that would be far larger in memory than their file of `size` bytes."""
    if unpacked > MAX_EXPANSION * size + EXPANSION_SLACK:
        cause = f"has {size:,} bytes and would take {unpacked:,} in memory; at most {MAX_EXPANSION} times as much is read"
        raise RefusedContent(cause, where=where)


def as_float(dtype: str, values: Array) -> Array:
    """Return values in a NumPy float type: bfloat16, which NumPy does not have, as float32."""
    import numpy as np

    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values


def refuse_type(name: str, dtype: str, where: object) -> Array:
    """Raise RefusedContent for a type that weights cannot have. As a `Stored.array`, it fails only if the values are used."""
    raise RefusedContent(f"{name!r} has type {dtype}; expected one of {', '.join(DTYPES)}", where=where)


def _widened(stored: Stored, dtype: str) -> Array:
    return as_float(stored.dtype, stored.array()).astype(DTYPES[dtype][1])


def _single(stored: Stored, name: str, where: object) -> Array:
    import numpy as np

    values = stored.array()
    with np.errstate(over="ignore"):
        rounded = values.astype("<f4")
    if bool((np.isinf(rounded) & np.isfinite(values)).any()):
        raise RefusedContent(f"{name!r} has values beyond the range of float32", where=where)
    return rounded


def _halved(stored: Stored, dtype: str) -> Array:
    import numpy as np

    values = as_float(stored.dtype, stored.array())
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    bits = np.ascontiguousarray(values, "<f4").view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")  # round to nearest, ties to even


def digest_of(tensors: Mapping[str, Stored]) -> str:
    """Return the content hash of weights: SHA-256 over name, type, shape and bytes of each tensor, sorted by name."""
    digest = hashlib.sha256()
    with step("hashing weights", sum(tensor.nbytes for tensor in tensors.values()), BYTES, least=LARGE) as progress:
        for name in sorted(tensors):
            digest.update(describe(name, tensors[name]))
            for piece in tensors[name].chunks():
                digest.update(piece)
                progress.advance(len(piece))
    return digest.hexdigest()


def describe(name: str, tensor: Stored) -> bytes:
    """Return the bytes that `digest_of` hashes before those of a tensor."""
    return f"{name}\0{tensor.dtype}\0{','.join(map(str, tensor.shape))}\0".encode()
