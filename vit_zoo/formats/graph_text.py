"""ONNX graph as text, one line for each operator, so that two graphs can be compared line by line.

    blocks.0.norm1/LayerNormalization = LayerNormalization(patch_embed/Add, blocks.0.norm1.weight f32[48], ..., axis=-1)

A weight is shown with its type and shape, a constant of few values by these values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.errors import printable
from vit_zoo.formats.onnx_skeleton import Skeleton, values_of
from vit_zoo.formats.onnx_summary import STANDARD, describe_value, type_name

if TYPE_CHECKING:
    import onnx

MOST_VALUES = 8  # of a constant that is shown by its values
DIGITS = 7
SHORT = {
    "float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16",
    "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "u8",
}  # fmt: skip


def graph_lines(read: Skeleton) -> Iterator[str]:
    """Yield the operator sets, the inputs, the operators in order, and the outputs of a graph."""
    graph = read.proto.graph
    versions = (f"{printable(entry.domain) or STANDARD[1]} {entry.version}" for entry in read.proto.opset_import)
    yield f"opset {', '.join(versions)}"
    held = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    yield from (f"input {printable(str(describe_value(value)))}" for value in graph.input if value.name not in held)
    for node in graph.node:
        inputs = [f"{printable(name)}{held.get(name, '')}" if name else "-" for name in node.input]
        attributes = [f"{printable(a.name)}={_attribute(a)}" for a in sorted(node.attribute, key=lambda a: str(a.name))]
        kind = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
        outputs = ", ".join(printable(name) if name else "-" for name in node.output)
        yield f"{outputs} = {printable(kind)}({', '.join([*inputs, *attributes])})"
    yield from (f"output {printable(str(describe_value(value)))}" for value in graph.output)


def _tensor(tensor: onnx.TensorProto) -> str:
    """Return the values of a small constant, or else its type and shape, to follow its name."""
    kind = type_name(tensor.data_type)
    shape = ",".join(map(str, tensor.dims))
    values = values_of(tensor) if int(np.prod([max(d, 0) for d in tensor.dims], dtype=float)) <= MOST_VALUES else None
    if values is None:
        return f" {SHORT.get(kind, kind)}[{shape}]"
    return f" {SHORT.get(kind, kind)}[{' '.join(_number(value) for value in values.reshape(-1).tolist())}]"


def _attribute(attribute: onnx.AttributeProto) -> str:
    for field in ("ints", "floats", "strings"):
        if values := list(getattr(attribute, field)):
            return f"[{' '.join(_value(value) for value in values)}]"
    if attribute.HasField("t"):
        return _tensor(attribute.t).strip()
    if attribute.HasField("g") or attribute.graphs:
        graphs = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        return f"graphs of {' and '.join(str(len(graph.node)) for graph in graphs)} operators"
    for field in ("f", "i", "s"):
        if attribute.HasField(field):
            return _value(getattr(attribute, field))
    return "[]"


def _value(value: Any) -> str:
    return printable(value.decode(errors="replace")) if isinstance(value, bytes) else _number(value)


def _number(value: Any) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
