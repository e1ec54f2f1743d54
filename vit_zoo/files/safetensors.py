"""safetensors files: a strict reader of the header that maps the data, and a writer that streams it.

The library's own writer leaves mode 0600 and orders metadata by chance, and its reader takes the last of two equal
names; both files are checked against it in tests. Format: safetensors 0.8, README.
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
from vit_zoo.files.sniff import reading, sniff
from vit_zoo.files.stored import DTYPES, Span, Stored, refuse_type

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

MAX_HEADER = 4_194_304  # bytes; 300,000 empty tensors in a 20 MB header keep the library busy for 8 s
MAX_TENSORS = 20_000
# bytes of the types that counters and buffers have, which stand beside weights and are left out
FOREIGN = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class SafetensorsFile:
    """The tensors of a file by name, read from its header alone; data is mapped when it is asked for.

    Raises RefusedContent for anything that is not exactly a safetensors file of floating-point tensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = sniff(path)
        if kind not in ("safetensors", "unknown"):
            hint = "`git lfs pull` brings the file" if kind == "git-lfs pointer" else None
            raise RefusedContent(f"is of kind '{kind}', not a safetensors file", where=path, hint=hint)
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
            found = dict(pairs)
            if len(found) != len(pairs):
                twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
                raise RefusedContent(f"holds {twice!r} twice", where=self.path)
            return found

        try:
            entries = json.loads(header, object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            if isinstance(error, RefusedContent):
                raise
            raise RefusedContent("has a header that is not valid JSON", where=self.path) from None
        if not isinstance(entries, dict):
            raise RefusedContent("has a header that is not a JSON object", where=self.path)
        return entries

    def _stored(self, name: str, entry: Any) -> Stored:
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)], **rest} if not rest:
                numbers = [start, stop, *shape]
            case _:
                raise RefusedContent(f"has a malformed entry for {name!r}", where=self.path)
        if dtype not in DTYPES and dtype not in FOREIGN:
            raise RefusedContent(f"{name!r} has type {dtype}; weights are {', '.join(DTYPES)}", where=self.path)
        if not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
            raise RefusedContent(f"{name!r} has an impossible shape or place", where=self.path)
        width, numpy_type = DTYPES.get(dtype) or (FOREIGN[dtype], "")
        if stop - start != math.prod(shape) * width:
            raise RefusedContent(f"{name!r} has {stop - start:,} bytes for shape {shape} of {dtype}", where=self.path)
        span = Span(self.path, self.data_start + start, stop - start)
        if dtype in FOREIGN:
            return Stored(dtype, tuple(shape), partial(refuse_type, name, dtype, self.path), span)
        return Stored(dtype, tuple(shape), partial(self._array, span, tuple(shape), numpy_type), span)

    def _check_coverage(self, size: int) -> None:
        """The tensors fill the file: no hole, no overlap, nothing behind them."""
        at = self.data_start
        for name, tensor in sorted(self.tensors.items(), key=lambda item: (item[1].span.start, item[1].span.length)):  # type: ignore[union-attr]
            if tensor.span is None or tensor.span.start != at:
                raise RefusedContent(f"{name!r} overlaps its neighbour or leaves a hole", where=self.path)
            at += tensor.span.length
        if at != size:
            what = "is truncated" if at > size else "has bytes behind its last tensor"
            raise RefusedContent(f"{what}: {size:,} bytes, the header says {at:,}", where=self.path)

    @cached_property
    def _map(self) -> mmap.mmap:
        # private and writable: tensors can be trained in place, and the file never changes
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def _array(self, span: Span, shape: tuple[int, ...], numpy_type: str) -> Array:
        import numpy as np

        return np.frombuffer(self._map, numpy_type, math.prod(shape), span.start).reshape(shape)


def write_safetensors(staged: Staged, tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> None:
    """Stream tensors into a staged file, in the order given; the same input gives the same bytes."""
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
            file.writelines(tensor.chunks())

    staged.write(fill)
