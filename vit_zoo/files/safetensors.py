"""Reader and writer of safetensors files. The reader checks the header strictly and memory-maps the data.

The safetensors library is not used: its writer sets mode 0600 and orders metadata at random, and its reader accepts duplicate
names. Tests compare this module with it in both directions. Format: README of safetensors 0.8.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vit_zoo.errors import RefusedContent
from vit_zoo.files.atomic import Staged
from vit_zoo.files.sniff import HINTS, reading, sniff
from vit_zoo.files.stored import DTYPES, Span, Stored, check_shape, refuse_type
from vit_zoo.progress import BYTES, step

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

MAX_HEADER = 4_194_304  # bytes; the library needs 8 s for a 20 MB header of 300,000 empty tensors
MAX_TENSORS = 20_000
# bytes per value of the types of counters and buffers, which checkpoints contain and which are ignored
NON_WEIGHT_TYPES = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class SafetensorsFile:
    """A safetensors file: its tensors by name and its metadata, read from the header; data is mapped when it is used.

    Raises RefusedContent for a file that is not a valid safetensors file. A tensor whose type is not floating-point raises it
    when its values are used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = sniff(path)
        if kind not in ("safetensors", "unknown"):
            raise RefusedContent(f"expected a safetensors file, got a file of kind '{kind}'", where=path, hint=HINTS.get(kind))
        with reading(path), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise RefusedContent("is truncated: its header ends beyond the file", where=path)
            if length > MAX_HEADER:
                raise RefusedContent(f"has a header of {length:,} bytes; the limit is {MAX_HEADER:,}", where=path)
            header = file.read(length)
        self.data_start = 8 + length
        self.header_sha256 = hashlib.sha256(header).hexdigest()
        entries = self._parse(header)
        metadata = entries.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise RefusedContent("has metadata that is not text", where=path)
        self.metadata: dict[str, str] = metadata
        if len(entries) > MAX_TENSORS:
            raise RefusedContent(f"has {len(entries):,} tensors; the limit is {MAX_TENSORS:,}", where=path)
        self.tensors = {name: self._stored(name, entry) for name, entry in entries.items()}
        self._check_coverage(size)

    def _parse(self, header: bytes) -> dict[str, Any]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            entries: dict[str, Any] = {}
            for name, entry in pairs:
                if name in entries:
                    raise RefusedContent(f"contains {name!r} twice", where=self.path)
                entries[name] = entry
            return entries

        try:
            entries = json.loads(header, object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            if isinstance(error, RefusedContent):
                raise
            raise RefusedContent("header is not valid JSON", where=self.path) from None
        if not isinstance(entries, dict):
            raise RefusedContent("header is not a JSON object", where=self.path)
        return entries

    def _stored(self, name: str, entry: Any) -> Stored:
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)], **rest} if not rest:
                numbers = [start, stop]
            case _:
                raise RefusedContent(f"malformed entry for {name!r} in the header", where=self.path)
        if dtype not in DTYPES and dtype not in NON_WEIGHT_TYPES:
            raise RefusedContent(f"{name!r} has type {dtype}; expected one of {', '.join(DTYPES)}", where=self.path)
        if not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
            raise RefusedContent(f"{name!r} has an impossible offset", where=self.path)
        check_shape(name, shape, self.path)
        width, numpy_type = DTYPES.get(dtype) or (NON_WEIGHT_TYPES[dtype], "")
        if stop - start != math.prod(shape) * width:
            raise RefusedContent(f"{name!r} has {stop - start:,} bytes for shape {shape} of {dtype}", where=self.path)
        span = Span(self.path, self.data_start + start, stop - start)
        if dtype in NON_WEIGHT_TYPES:
            return Stored(dtype, tuple(shape), partial(refuse_type, name, dtype, self.path), span)
        return Stored(dtype, tuple(shape), partial(self._array, span, tuple(shape), numpy_type), span)

    def _check_coverage(self, size: int) -> None:
        """Raise RefusedContent unless the tensors fill the file without holes, overlaps or trailing bytes."""
        at = self.data_start
        for name, tensor in sorted(self.tensors.items(), key=lambda item: (item[1].span.start, item[1].span.length)):  # type: ignore[union-attr]
            if tensor.span is None or tensor.span.start != at:
                raise RefusedContent(f"{name!r} overlaps its neighbour or leaves a hole", where=self.path)
            at += tensor.span.length
        if at != size:
            what = "is truncated" if at > size else "has bytes after its last tensor"
            raise RefusedContent(f"{what}: the file has {size:,} bytes, its header describes {at:,}", where=self.path)

    @cached_property
    def _map(self) -> mmap.mmap:
        # a private, writable map: tensors can be trained in place without changing the file
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def _array(self, span: Span, shape: tuple[int, ...], numpy_type: str) -> Array:
        import numpy as np

        return np.frombuffer(self._map, numpy_type, math.prod(shape), span.start).reshape(shape)


def write_safetensors(staged: Staged, tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """Write tensors to a staged file as a stream, in the given order; the same input always gives the same bytes."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)

    def fill(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for piece in tensor.chunks():
                file.write(piece)
                progress.advance(len(piece))

    with step(f"writing {staged.target.name}", at, BYTES) as progress:
        staged.write(fill)
