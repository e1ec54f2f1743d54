"""Summary of an ONNX file of any tool: inputs, outputs, operators, weights and precision, read without running it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.files.wire import IR_VERSION, integer_field
from vit_zoo.formats.onnx_skeleton import Skeleton, length_of, skeleton
from vit_zoo.formats.structure import structure_of

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.structure import Fact

STANDARD = ("", "ai.onnx")  # names of the domain of the standard operators
BITS = {
    "float64": 64,
    "int64": 64,
    "uint64": 64,
    "float32": 32,
    "int32": 32,
    "uint32": 32,
    "int4": 4,
    "uint4": 4,
    "float4e2m1": 4,
} | dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 16)  # all others have 8

INDICES = ("int64", "bool")  # types of shapes, indices and masks


@dataclass(frozen=True)
class Value:
    """An input or output. An axis is a length, the name of a free axis, or None for a free axis without a name."""

    name: str
    type: str  # "float32", or "sequence" and the like for values that are no tensors
    shape: tuple[int | str | None, ...] | None  # None: the file does not state it

    def __str__(self) -> str:
        shape = (
            "of any shape" if self.shape is None else f"[{', '.join('?' if axis is None else str(axis) for axis in self.shape)}]"
        )
        return f"{self.name} {self.type} {shape}"

    @property
    def free_axes(self) -> tuple[str, ...]:
        """The free axes by their names, or by their position if they have none."""
        return tuple(
            f"axis {i}" if axis is None else str(axis) for i, axis in enumerate(self.shape or ()) if not isinstance(axis, int)
        )


@dataclass(frozen=True)
class Weights:
    """The weights of one type: the number of tensors and of values, and their size in bytes."""

    type: str
    tensors: int
    values: int
    bytes: int


@dataclass(frozen=True)
class OnnxSummary:
    """What a file declares and contains; `operators` counts operators by type, with those of other domains as DOMAIN.TYPE."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    opsets: dict[str, int]
    ir_version: int
    producer: str | None
    operators: dict[str, int]
    precision: str
    norm_eps: tuple[float, ...]
    activations: tuple[str, ...]
    weights: tuple[Weights, ...]
    data_files: dict[str, int]  # the size in bytes of each file next to the graph that has weights
    faults: tuple[str, ...]

    @property
    def batch(self) -> int | str | None:
        """The first axis of the only input: a number of images, the name of a free axis, or None if it is not known."""
        shape = self.inputs[0].shape if len(self.inputs) == 1 else None
        return shape[0] if shape else None

    @property
    def batch_is_fixed(self) -> bool:
        return isinstance(self.batch, int)


def summarise(path: Path, read: Skeleton | None = None) -> OnnxSummary:
    """Read an ONNX file without the values of its weights. Raises RefusedContent for a damaged file.

    `read` is the file's skeleton, if it has been read before.
    """
    read = skeleton(path) if read is None else read
    model, graph = read.proto, read.proto.graph
    structure, faults = structure_of(read)
    held = {tensor.name for tensor in graph.initializer}  # older files list their weights as inputs too
    files = {_location(tensor) for tensor in graph.initializer} - {None}
    return OnnxSummary(
        inputs=tuple(describe_value(value) for value in graph.input if value.name not in held),
        outputs=tuple(describe_value(value) for value in graph.output),
        opsets={_domain(entry.domain): entry.version for entry in model.opset_import},
        ir_version=_ir_version(path),
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))) or None,
        operators=dict(Counter(_kinds(model)).most_common()),
        precision=structure.precision,
        norm_eps=_different(structure.norm_eps),
        activations=_different(structure.acts),
        weights=tuple(_weights(graph)),
        data_files={name: (path.parent / name).stat().st_size for name in sorted(map(str, files))},
        faults=tuple(faults),
    )


def _ir_version(path: Path) -> int:
    """Return the version of the file format, which a skeleton lacks: it has no integers of the top level."""
    with path.open("rb") as file:
        return integer_field(file, os.fstat(file.fileno()).st_size, IR_VERSION)


def describe_value(value: onnx.ValueInfoProto) -> Value:
    """Return an input or output of a graph, as the file declares it."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Value(value.name, (kind or "unknown").removesuffix("_type"), None)
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return Value(value.name, type_name(tensor.elem_type), None)
    axes = (
        axis.dim_value if axis.WhichOneof("value") == "dim_value" else length_of(axis.dim_param) or None
        for axis in tensor.shape.dim
    )
    return Value(value.name, type_name(tensor.elem_type), tuple(axes))


def type_name(code: int) -> str:
    """Return the name of an element type as numpy and the ONNX specification write it, such as `float32`."""
    from onnx import TensorProto

    name = str(TensorProto.DataType.Name(code)).lower() if code in TensorProto.DataType.values() else f"type {code}"
    return {"float": "float32", "double": "float64"}.get(name, name)


def _domain(name: str) -> str:
    return STANDARD[1] if name in STANDARD else name


def _kinds(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the type of each operator, in branches and loop bodies and in the functions that the model defines too."""
    nodes = [node for graph in reversed((model.graph, *model.functions)) for node in reversed(graph.node)]
    while nodes:
        node = nodes.pop()
        yield node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
        for attribute in reversed(node.attribute):
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *reversed(attribute.graphs)):
                nodes += reversed(inner.node)


def _different(facts: tuple[Fact, ...]) -> Any:
    """Return the different values, the most frequent first."""
    return tuple(value for value, _ in Counter(fact.value for fact in facts).most_common())


def _weights(graph: onnx.GraphProto) -> Iterator[Weights]:
    """Yield the weights by type, the largest first. Scalars, shapes and indices, of which graphs have many, are no weights."""
    tensors: dict[str, list[int]] = {}
    for tensor in graph.initializer:
        values = 1
        for length in tensor.dims:
            values *= max(length, 0)
        kind = type_name(tensor.data_type)
        if values > 1 and kind not in INDICES:
            tensors.setdefault(kind, []).append(values)
    sizes = [Weights(kind, len(counts), sum(counts), sum(counts) * BITS.get(kind, 8) // 8) for kind, counts in tensors.items()]
    yield from sorted(sizes, key=lambda weights: -weights.bytes)


def _location(tensor: onnx.TensorProto) -> str | None:
    return {entry.key: str(entry.value) for entry in tensor.external_data}.get("location")
