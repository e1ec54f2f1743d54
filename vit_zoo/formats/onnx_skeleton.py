"""An ONNX file without its weights: the graph for those who check it, and where each weight lies."""

from __future__ import annotations

import math
import os
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

SMALL = 64  # bytes of a constant that stays in the graph: a shape, a factor
_BYTES = {code: TYPES[dtype][0] for dtype, code in ONNX_TYPES.items()}


def weights_in(path: Path, shapes: Mapping[str, tuple[int, ...]], unread: tuple[str, ...]) -> dict[str, Stored]:
    """The weights that a file of ours holds or refers to, under the names and shapes of the state dict.

    Those that begin with `unread`, behind the last output, need not be in it: zeros stand for them.
    Raises RefusedContent if one is missing: then the file is not what its metadata says.
    """
    parts: dict[str, list[tuple[int, Stored]]] = {}
    for name, stored in skeleton(path).weights.items():
        key, _, rows = name.partition("[")
        start = rows.partition(":")[0] or "0"
        if not start.isdecimal():
            raise RefusedContent(f"holds a weight of the name {name!r}", where=path)
        parts.setdefault(key, []).append((int(start), stored))
    found = {}
    for key, shape in shapes.items():
        if key not in parts and key.startswith(unread):
            found[key] = Stored("F32", shape, partial(_zeros, shape), absent=True)
            continue
        if key not in parts:
            raise RefusedContent(f"holds no weight {key!r}", where=path)
        pieces = [stored for _, stored in sorted(parts[key], key=lambda part: part[0])]
        if not all(lies_in_file(piece) for piece in pieces):
            raise RefusedContent(f"does not hold the bytes of {key!r}", where=path)
        if sum(piece.nbytes for piece in pieces) != math.prod(shape) * TYPES[pieces[0].dtype][0]:
            raise RefusedContent(f"holds {key!r} in another size than its metadata says", where=path)
        found[key] = Stored(pieces[0].dtype, shape, partial(_whole, pieces, shape))
    return found


def lies_in_file(piece: Stored) -> bool:
    """Whether the file that should hold a weight's bytes has that many there."""
    span = piece.span
    return span is None or (span.length == piece.nbytes and 0 <= span.start <= span.file.stat().st_size - span.length)


def _whole(pieces: list[Stored], shape: tuple[int, ...]) -> Array:
    import numpy as np

    return np.concatenate([piece.array().reshape(-1) for piece in pieces]).reshape(shape)


def _zeros(shape: tuple[int, ...]) -> Array:
    import numpy as np

    return np.zeros(shape, "<f4")


@dataclass(frozen=True)
class Skeleton:
    """An ONNX model as it is written, but for the bytes of its initializers; `weights` are those of float types."""

    proto: onnx.ModelProto
    weights: dict[str, Stored]

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The operators in order, those of the model's own functions after the graph's."""
        return [*self.proto.graph.node, *(node for function in self.proto.functions for node in function.node)]


def skeleton(path: Path) -> Skeleton:
    """The model of an ONNX file, any tool's, read without its weights. Raises RefusedContent for a damaged one."""
    try:
        return _skeleton(path)
    except RefusedContent:
        raise
    except Exception:  # protobuf's errors, and ours on numbers that are none
        raise RefusedContent("is not a whole ONNX file", where=path) from None


def declared(path: Path) -> tuple[tuple[str, ...], tuple[int | str, ...]]:
    """The names of a file's outputs, and the shape of its one input: lengths, and names of axes that are free."""
    graph = skeleton(path).proto.graph
    held = {tensor.name for tensor in graph.initializer}  # older files list their weights as inputs too
    inputs = [value for value in graph.input if value.name not in held]
    if len(inputs) != 1:
        raise RefusedContent(f"takes {len(inputs)} inputs; images are one", where=path)
    axes = tuple(length_of(axis.dim_value or axis.dim_param) for axis in inputs[0].type.tensor_type.shape.dim)
    return tuple(value.name for value in graph.output), axes


def length_of(axis: Any) -> Any:
    """An axis as a file declares it: a length, which some exporters write as a name of digits, or the name of a free one."""
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
    """A TensorProto without its raw bytes, if they are many, and where those are; None: its values are in another field."""
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
            raise RefusedContent(f"keeps its weights in {name!r}, outside its folder", where=path)
        if not (path.parent / name).is_file():
            raise RefusedContent(f"needs {name}, which is not beside it", where=path)
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
