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
from vit_zoo.formats.external_data import data_file, data_range
from vit_zoo.formats.onnx_wire import check_structure
from vit_zoo.graph.patch_inputs import NAMES

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array

SMALL = 64  # bytes; constants up to this size, such as shapes and factors, stay in the graph
MOST_DIGITS = 18  # of a length; a longer string of digits is a name, since no tensor has so many values
_NAME = re.compile(rf"([^\[\]]+)(?:\[([0-9]{{1,{MOST_DIGITS}}}):([0-9]{{1,{MOST_DIGITS}}})\])?")
_BYTES = {code: TYPES[dtype][0] for dtype, code in ONNX_TYPES.items()}
# fields that the checks read: of the model, its producer, operator sets and functions; of the graph, all but inner shapes
_OF_MODEL, _OF_GRAPH = (2, 3, 8, 25), (1, 2, 11, 12)
_TYPED = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}  # others: int32_data
_SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # bytes of each value, by type


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
    return span is None or (span.length == piece.nbytes >= 0 and 0 <= span.start <= span.file.stat().st_size - span.length)


def values_of(tensor: onnx.TensorProto) -> Array | None:
    """Return the values of a constant in a graph; None if they are no numbers, or not as many as its shape states."""
    return _typed(tensor) if _is_complete(tensor) else None


def _is_complete(tensor: onnx.TensorProto) -> bool:
    size = _SIZES.get(tensor.data_type)
    elsewhere = tensor.external_data or tensor.data_location or tensor.HasField("segment")
    if size is None or elsewhere or any(length < 0 for length in tensor.dims):
        return False
    count = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        return bool(len(tensor.raw_data) == count * size)
    return bool(len(getattr(tensor, _TYPED.get(tensor.data_type, "int32_data"))) == count)


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
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    check_structure(path)
    try:
        return _skeleton(path)
    except (ValueError, DecodeError) as error:
        if isinstance(error, RefusedContent):
            raise
        raise RefusedContent(f"not a complete ONNX file: {error}", where=path) from None


def declared(path: Path) -> tuple[tuple[str, ...], tuple[int | str, ...]]:
    """Return the names of a file's outputs and the shape of its input: lengths, and names of free axes.

    Of a file for patches of images, whose inputs are those of `graph.patch_inputs`, it is the shape of the patches.
    """
    graph = skeleton(path).proto.graph
    held = {tensor.name for tensor in graph.initializer}  # older files list their weights as inputs too
    inputs = [value for value in graph.input if value.name not in held]
    if len(inputs) != 1 and tuple(value.name for value in inputs) != NAMES:
        raise RefusedContent(f"expected one input, got {len(inputs)}", where=path)
    axes = tuple(length_of(axis.dim_value or axis.dim_param) for axis in inputs[0].type.tensor_type.shape.dim)
    return tuple(value.name for value in graph.output), axes


def length_of(axis: Any) -> Any:
    """Return an axis as a length, which some exporters write as a string of digits, or as the name of a free axis."""
    is_number = isinstance(axis, str) and axis.isascii() and axis.isdecimal() and len(axis) <= MOST_DIGITS
    return int(axis) if is_number else axis


def _skeleton(path: Path) -> Skeleton:
    from onnx import ModelProto

    types = {code: dtype for dtype, code in ONNX_TYPES.items()}
    top: list[bytes] = []
    graph: list[bytes] = []
    tensors, weights = [], {}
    with path.open("rb") as file:
        for number, length in fields(file, os.fstat(file.fileno()).st_size):
            if number != GRAPH:
                _keep(file, number, length, top if number in _OF_MODEL else None)
                continue
            end = file.tell() + length
            for part, width in fields(file, end):
                if part != INITIALIZER:
                    _keep(file, part, width, graph if part in _OF_GRAPH else None)
                    continue
                tensor, span = _tensor(file, file.tell() + width, path)
                tensors.append(tensor)
                if tensor.data_type in types:
                    dtype, shape = types[tensor.data_type], tuple(tensor.dims)
                    if span is None and not _is_complete(tensor):
                        span = Span(path, 0, -1)  # its values are nowhere, as `lies_in_file` finds
                    read = partial(_typed, tensor) if span is None else partial(_read, span, dtype, shape)
                    weights[tensor.name] = Stored(dtype, shape, read, span)
    model = ModelProto.FromString(b"".join(top))
    model.graph.MergeFromString(b"".join(graph))
    model.graph.initializer.extend(tensors)
    return Skeleton(model, weights)


def _keep(file: BinaryIO, number: int, length: int, parts: list[bytes] | None) -> None:
    """Append a field whose content is next in the file to `parts`; skip it if they are None."""
    if parts is None:
        file.seek(length, os.SEEK_CUR)
    else:
        parts.append(tag(number, length) + file.read(length))


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
        size = math.prod(tensor.dims) * _BYTES.get(tensor.data_type, 1)
        location = {entry.key: entry.value for entry in tensor.external_data}
        name, offset, length = data_range(path, location, size)
        span = Span(data_file(path, name), offset, length)
    return tensor, span


def _read(span: Span, dtype: str, shape: tuple[int, ...]) -> Array:
    import numpy as np

    if not math.prod(shape):
        return np.zeros(shape, TYPES[dtype][1])
    return np.memmap(span.file, TYPES[dtype][1], "c", span.start, shape)


def _typed(tensor: onnx.TensorProto) -> Array:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    return values.view("<u2") if tensor.data_type == ONNX_TYPES["BF16"] else values
