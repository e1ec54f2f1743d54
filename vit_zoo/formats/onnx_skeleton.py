"""ONNX graph without its weights, for checks, and the location of each weight in its file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vit_zoo.errors import RefusedContent
from vit_zoo.files import Stored
from vit_zoo.files.stored import ONNX_TYPES, TYPES, Span
from vit_zoo.files.wire import GRAPH, INITIALIZER, RAW_DATA, fields, tag

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array

SMALL = 64  # bytes; constants up to this size, such as shapes and factors, stay in the graph
_NAME = re.compile(r"([^\[\]]+)(?:\[(\d+):(\d+)\])?")
_BYTES = {code: TYPES[dtype][0] for dtype, code in ONNX_TYPES.items()}


def weights_in(path: Path, shapes: Mapping[str, tuple[int, ...]], unread: tuple[str, ...]) -> dict[str, Stored]:
    """Return the weights that a file of ours contains or refers to, under the names and shapes of the state dict.

    Weights whose names start with one of `unread` come after the last output and may be missing; zeros replace them.
    Raises RefusedContent if any other is missing: then the file contradicts its metadata.
    """
    parts: dict[str, list[tuple[int, Stored]]] = {}
    for name, stored in skeleton(path).weights.items():
        if found := weight_of(name):
            key, rows = found
            parts.setdefault(key, []).append((rows.start or 0, stored))
    weights = {}
    for key, shape in shapes.items():
        if key not in parts and key.startswith(unread):
            weights[key] = Stored("F32", shape, partial(_zeros, shape), absent=True)
            continue
        if key not in parts:
            raise RefusedContent(f"weight {key!r} is missing", where=path)
        pieces = [stored for _, stored in sorted(parts[key], key=lambda part: part[0])]
        if not all(lies_in_file(piece) for piece in pieces):
            raise RefusedContent(f"does not contain the data of {key!r}", where=path)
        if sum(piece.nbytes for piece in pieces) != math.prod(shape) * TYPES[pieces[0].dtype][0]:
            raise RefusedContent(f"the size of {key!r} contradicts the metadata", where=path)
        weights[key] = Stored(pieces[0].dtype, shape, partial(_joined, pieces, shape))
    return weights


def weight_of(name: str) -> tuple[str, slice] | None:
    """Return the weight that an initializer of our files stands for by its name, and which rows of it; None for other names.

    Other tools append to our names: `blocks.0.attn.qkv.weight[0:48]_scale` is no weight.
    """
    match = _NAME.fullmatch(name)
    return None if match is None else (match[1], slice(*(None if row is None else int(row) for row in match.group(2, 3))))


def external_files(path: Path) -> set[str]:
    """Return the names of the files next to a graph that hold weights of it."""
    spans = (stored.span for stored in skeleton(path).weights.values())
    return {span.file.name for span in spans if span is not None and span.file != path}


def lies_in_file(piece: Stored) -> bool:
    """Return whether a weight's bytes lie within the file that should contain them."""
    span = piece.span
    return span is None or (span.length == piece.nbytes and 0 <= span.start <= span.file.stat().st_size - span.length)


def _joined(pieces: list[Stored], shape: tuple[int, ...]) -> Array:
    import numpy as np

    return np.concatenate([piece.array().reshape(-1) for piece in pieces]).reshape(shape)


def _zeros(shape: tuple[int, ...]) -> Array:
    import numpy as np

    return np.zeros(shape, "<f4")


@dataclass(frozen=True)
class Skeleton:
    """An ONNX model without the bytes of its initializers; `weights` are the initializers of float types."""

    proto: onnx.ModelProto
    weights: dict[str, Stored]

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The operators in order: the graph's, then those of the functions that the model defines."""
        return [*self.proto.graph.node, *(node for function in self.proto.functions for node in function.node)]


def skeleton(path: Path) -> Skeleton:
    """Read an ONNX file of any tool without its weights. Raises RefusedContent for a damaged file."""
    try:
        return _skeleton(path)
    except RefusedContent:
        raise
    except Exception:  # protobuf's errors, and ours for malformed numbers
        raise RefusedContent("not a complete ONNX file", where=path) from None


def declared(path: Path) -> tuple[tuple[str, ...], tuple[int | str, ...]]:
    """Return the names of a file's outputs and the shape of its one input: lengths, and names of free axes."""
    graph = skeleton(path).proto.graph
    held = {tensor.name for tensor in graph.initializer}  # older files list their weights as inputs too
    inputs = [value for value in graph.input if value.name not in held]
    if len(inputs) != 1:
        raise RefusedContent(f"expected one input, got {len(inputs)}", where=path)
    axes = tuple(length_of(axis.dim_value or axis.dim_param) for axis in inputs[0].type.tensor_type.shape.dim)
    return tuple(value.name for value in graph.output), axes


def length_of(axis: Any) -> Any:
    """Return an axis as a length, which some exporters write as a string of digits, or as the name of a free axis."""
    return int(axis) if isinstance(axis, str) and axis.isdecimal() else axis


def _skeleton(path: Path) -> Skeleton:
    from onnx import ModelProto

    types = {code: dtype for dtype, code in ONNX_TYPES.items()}
    top, graph, tensors, weights = b"", b"", [], {}
    with path.open("rb") as file:
        for number, length in fields(file, os.fstat(file.fileno()).st_size):
            if number != GRAPH:
                top += tag(number, length) + file.read(length)
                continue
            end = file.tell() + length
            for part, width in fields(file, end):
                if part != INITIALIZER:
                    graph += tag(part, width) + file.read(width)
                    continue
                tensor, span = _tensor(file, file.tell() + width, path)
                tensors.append(tensor)
                if tensor.data_type in types:
                    dtype, shape = types[tensor.data_type], tuple(tensor.dims)
                    read = partial(_typed, tensor) if span is None else partial(_read, span, dtype, shape)
                    weights[tensor.name] = Stored(dtype, shape, read, span)
    model = ModelProto.FromString(top)
    model.graph.MergeFromString(graph)
    model.graph.initializer.extend(tensors)
    return Skeleton(model, weights)


def _tensor(file: BinaryIO, end: int, path: Path) -> tuple[onnx.TensorProto, Span | None]:
    """Read a TensorProto, without raw bytes of more than SMALL, and their location; None if its values are in another field."""
    from onnx import TensorProto

    begin, span, kept = file.tell(), None, b""
    for part, width in fields(file, end):
        at = file.tell()
        if part == RAW_DATA:
            span = Span(path, at, width)
        if part == RAW_DATA and width > SMALL:
            file.seek(begin)
            kept += file.read(at - begin - len(tag(part, width)))
            begin = at + width
        file.seek(at + width)
    file.seek(begin)
    kept += file.read(end - begin)
    tensor = TensorProto.FromString(kept)
    if tensor.external_data:
        place = {entry.key: entry.value for entry in tensor.external_data}
        name = place["location"]
        if Path(name).name != name:
            raise RefusedContent(f"refers to weights in {name!r}, outside its folder", where=path)
        if not (path.parent / name).is_file():
            raise RefusedContent(f"needs {name}, which is not in the same folder", where=path)
        size = math.prod(tensor.dims) * _BYTES.get(tensor.data_type, 1)
        span = Span(path.parent / name, int(place.get("offset", 0)), int(place.get("length", size)))
    return tensor, span


def _read(span: Span, dtype: str, shape: tuple[int, ...]) -> Array:
    import numpy as np

    if not math.prod(shape):
        return np.zeros(shape, TYPES[dtype][1])
    return np.memmap(span.file, TYPES[dtype][1], "c", span.start, shape)


def _typed(tensor: onnx.TensorProto) -> Array:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)
