"""Writing a graph to disk, with its weights in the file, in an `.onnx_data` file next to it, or in `model.safetensors`.

Weights are streamed: protobuf's wire format is written by hand around them, so that memory never holds a copy of them all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, BinaryIO

from vit_zoo.errors import NotRepresentable
from vit_zoo.files import Staged, Stored
from vit_zoo.files.stored import ONNX_TYPES, describe
from vit_zoo.files.wire import GRAPH, INITIALIZER, METADATA, RAW_DATA, tag
from vit_zoo.graph.build import Graph
from vit_zoo.progress import BYTES, Step, step

if TYPE_CHECKING:
    import onnx

PROTO_LIMIT = 2**31 - 1  # bytes of one protobuf message


def inline_size(graph: Graph) -> int:
    """Estimate the size of the file with the weights inside, in bytes, without its metadata."""
    structure: int = graph.proto.ByteSize() + 256 * len(graph.weights)
    return sum(w.stop - w.start for w in graph.weights.values()) + structure


def write_inline(graph: Graph, staged: Staged, metadata: Mapping[str, str]) -> None:
    """Write model and weights to one file. Raises NotRepresentable if it would exceed 2 GiB."""
    if inline_size(graph) > PROTO_LIMIT:
        raise NotRepresentable("an ONNX file holds at most 2 GiB", where=staged.target, hint="use external data")
    headers = {name: _tensor(graph, name).SerializeToString(deterministic=True) for name in graph.weights}

    def fill(file: BinaryIO) -> None:
        digest = hashlib.sha256()
        lengths = {}
        for name, weight in graph.weights.items():
            size = weight.stop - weight.start
            lengths[name] = len(headers[name]) + len(tag(RAW_DATA, size)) + size
        body = graph.proto.graph.SerializeToString(deterministic=True)
        total = len(body) + sum(len(tag(INITIALIZER, length)) + length for length in lengths.values())
        file.write(_frame(graph.proto) + tag(GRAPH, total) + body)
        for name, pieces in _pieces(graph, digest, progress):
            size = graph.weights[name].stop - graph.weights[name].start
            file.write(tag(INITIALIZER, lengths[name]) + headers[name] + tag(RAW_DATA, size))
            file.writelines(pieces)
        file.write(_metadata(metadata, digest.hexdigest()))

    with _writing(graph, staged) as progress:
        staged.write(fill)


def write_external(graph: Graph, staged: Staged, data: Staged, metadata: Mapping[str, str]) -> None:
    """Write the weights to a second file. It ends with the content hash, so that a stale one is detected on opening."""
    digest = hashlib.sha256()
    offsets: dict[str, int] = {}

    def fill(file: BinaryIO) -> None:
        for name, pieces in _pieces(graph, digest, progress):
            file.write(b"\0" * (-file.tell() % 64))
            offsets[name] = file.tell()
            file.writelines(pieces)
        file.write(digest.hexdigest().encode())

    with _writing(graph, data) as progress:
        data.write(fill)
    places = {name: (data.target.name, offsets[name]) for name in graph.weights}
    _write_references(graph, staged, places, metadata, digest.hexdigest())


def write_shared(graph: Graph, staged: Staged, metadata: Mapping[str, str], weights_sha256: str | None) -> None:
    """Write a model that refers to offsets in the safetensors file of the same folder, whose bytes are not read.

    Raises NotRepresentable if a weight is not stored there.
    """
    places = {}
    folder = staged.target.resolve().parent
    files = {stored.span.file for stored in graph.tensors.values() if stored.span is not None}
    shared = {file for file in files if file.resolve().parent == folder}
    for name, weight in graph.weights.items():
        span = graph.tensors[weight.key].span
        if span is None or span.file not in shared:
            raise NotRepresentable("shared weights need a safetensors file in the same folder", where=staged.target)
        places[name] = (span.file.name, span.start + weight.start)
    _write_references(graph, staged, places, metadata, weights_sha256)


def _write_references(
    graph: Graph, staged: Staged, places: Mapping[str, tuple[str, int]], metadata: Mapping[str, str], sha256: str | None
) -> None:
    """Write a model whose weights are references to (file, offset)."""
    body = type(graph.proto.graph)()
    body.CopyFrom(graph.proto.graph)
    for name, weight in graph.weights.items():
        tensor = _tensor(graph, name)
        tensor.data_location = type(tensor).EXTERNAL
        location, offset = places[name]
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(weight.stop - weight.start))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        body.initializer.append(tensor)
    serialised = body.SerializeToString(deterministic=True)
    model = _frame(graph.proto) + tag(GRAPH, len(serialised)) + serialised + _metadata(metadata, sha256)
    staged.write(lambda file: file.write(model))


def _writing(graph: Graph, staged: Staged) -> AbstractContextManager[Step]:
    return step(f"writing {staged.target.name}", sum(tensor.nbytes for tensor in graph.tensors.values()), BYTES)


def _pieces(graph: Graph, digest: Any, progress: Step) -> Iterator[tuple[str, Iterator[memoryview]]]:
    """Yield each initializer with its bytes, and update `digest` in the order of `digest_of`.

    A piece is hashed in a second thread while the caller writes it.
    """
    parts: dict[str, list[str]] = {key: [] for key in sorted(graph.tensors)}
    for name, weight in graph.weights.items():
        parts[weight.key].append(name)

    def hashed(stored: Stored, start: int, stop: int) -> Iterator[memoryview]:
        for piece in stored.chunks(start, stop):
            done = pool.submit(digest.update, piece)
            yield piece
            done.result()
            progress.advance(len(piece))

    with ThreadPoolExecutor(max_workers=1) as pool:
        for key, names in parts.items():
            stored = graph.tensors[key]
            digest.update(describe(key, stored))
            for name in sorted(names, key=lambda name: graph.weights[name].start):
                yield name, hashed(stored, graph.weights[name].start, graph.weights[name].stop)
            if not names:
                for _ in hashed(stored, 0, stored.nbytes):
                    pass


def _tensor(graph: Graph, name: str) -> onnx.TensorProto:
    """Return an initializer without its data."""
    from onnx import TensorProto

    weight = graph.weights[name]
    return TensorProto(name=name, dims=weight.shape, data_type=ONNX_TYPES[graph.tensors[weight.key].dtype])


def _frame(proto: onnx.ModelProto) -> bytes:
    """Serialise the model's fields other than the graph."""
    frame = type(proto)()
    frame.CopyFrom(proto)
    frame.ClearField("graph")
    return frame.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _metadata(metadata: Mapping[str, str], weights_sha256: str | None) -> bytes:
    """Serialise the metadata, with the hash of the weights added to the export details."""
    entries = dict(metadata)
    if weights_sha256 is not None:
        export = json.loads(entries["vit_zoo.export"])
        entries["vit_zoo.export"] = json.dumps({**export, "weights_sha256": weights_sha256}, sort_keys=True)
    return b"".join(metadata_entry(key, value) for key, value in sorted(entries.items()))


def metadata_entry(key: str, value: str) -> bytes:
    """Serialise an entry of a model's metadata. At the end of a file it is one more entry: repeated fields are concatenated."""
    from onnx import StringStringEntryProto

    entry: bytes = StringStringEntryProto(key=key, value=value).SerializeToString(deterministic=True)
    return tag(METADATA, len(entry)) + entry
