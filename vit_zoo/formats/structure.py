"""Structure of an exported file, read without running it: LayerNorm epsilons, activations, precision.

Outputs do not reveal these faults: an epsilon of 1e-12 instead of 1e-6 changes a healthy model's output by 1e-6, which is no
more than rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.formats.onnx_skeleton import Skeleton, lies_in_file, skeleton, values_of
from vit_zoo.graph.core_ops import GELU

if TYPE_CHECKING:
    import onnx

MATRIX_PRODUCTS = ("Gemm", "MatMul", "Conv", "Attention", "FusedMatMul", "MultiHeadAttention")  # they decide the precision
QUANTISED = ("integer", "quanti", "qlinear", "qattention", "qgemm", "nbits", "bnb4")  # parts of the names of int8 operators
PRECISIONS = ("fp32", "fp16", "bf16")  # finest first
HALVES = {10: "fp16", 16: "bf16"}  # TensorProto.DataType
INTEGERS = (2, 3)  # uint8 and int8, TensorProto.DataType
NORMS = (
    "LayerNormalization", "SkipLayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
)  # fmt: skip
QUICK = 1.702  # the factor in the quick GELU, x sigmoid(1.702 x)


@dataclass(frozen=True)
class Fact:
    """An epsilon or an activation, and the operator that it was read from."""

    value: float | str
    node: str


@dataclass(frozen=True)
class Structure:
    """Epsilons, activations and number formats of a graph."""

    norm_eps: tuple[Fact, ...]
    acts: tuple[Fact, ...]
    precision: str  # the coarsest precision of a matrix product
    stored: frozenset[str]  # the types of the stored weights


def read_onnx(path: Path) -> tuple[Structure, list[str]]:
    """Return the structure of any tool's ONNX file, and the faults that do not depend on the model."""
    return structure_of(skeleton(path))


def structure_of(read: Skeleton) -> tuple[Structure, list[str]]:
    """Return what `read_onnx` returns, of a file that has been read."""
    faults = [
        f"does not contain the data of tensor {name!r}" for name, stored in read.weights.items() if not lies_in_file(stored)
    ][:1]
    values = _constants(read)
    structure = Structure(
        norm_eps=tuple(_epsilons(read, values)),
        acts=tuple(_activations(read, values)),
        precision=_precision(read),
        stored=frozenset(stored.dtype for stored in read.weights.values() if len(stored.shape) > 1),
    )
    return structure, faults


def read_torchscript(program: Any) -> Structure:
    """Return the structure of a TorchScript program."""
    graph = program.inlined_graph
    norms = [(node, list(node.inputs())[4]) for node in graph.findAllNodes("aten::layer_norm")]
    gelus = [(node, list(node.inputs())[1]) for node in graph.findAllNodes("aten::gelu")]
    acts = [Fact("gelu_tanh" if form.toIValue() == "tanh" else "gelu", node.scopeName()) for node, form in gelus]
    for node in graph.findAllNodes("aten::sigmoid"):
        source = next(node.inputs()).node()
        if source.kind() == "aten::mul" and _is_quick(value.toIValue() for value in source.inputs()):
            acts.append(Fact("quick_gelu", node.scopeName()))
    return Structure(
        tuple(Fact(eps.toIValue(), node.scopeName()) for node, eps in norms), tuple(acts), "fp32", frozenset({"F32"})
    )


def read_pt2(module: Any) -> Structure:
    """Return the structure of the graph of an exported program (.pt2)."""
    norms, acts = [], []
    for node in module.graph.nodes:
        target = str(node.target)
        if target == "aten.layer_norm.default":
            norms.append(Fact(node.args[4] if len(node.args) > 4 else 1e-5, node.name))
        elif target == "aten.gelu.default":
            acts.append(Fact("gelu_tanh" if node.kwargs.get("approximate") == "tanh" else "gelu", node.name))
        elif target == "aten.sigmoid.default" and str(node.args[0].target) == "aten.mul.Tensor" and _is_quick(node.args[0].args):
            acts.append(Fact("quick_gelu", node.name))
    return Structure(tuple(norms), tuple(acts), "fp32", frozenset({"F32"}))


def _is_quick(factors: Iterable[Any]) -> bool:
    """Return whether one of the factors is that of the quick GELU; a sigmoid of anything else makes probabilities."""
    return any(isinstance(factor, float) and abs(factor - QUICK) < 1e-3 for factor in factors)


def operator_label(node: onnx.NodeProto, index: int) -> str:
    """Return an operator's name, which in our files is its place in the model, with its index and type."""
    return f"operator {index} ({node.op_type})" if not node.name else f"{node.name} (operator {index}, {node.op_type})"


def _constants(read: Skeleton) -> dict[str, float]:
    """Return the constant scalars of a graph by name."""
    scalars: dict[str, float] = {}
    for node in read.nodes:
        if node.op_type == "Constant" and node.attribute and node.output:
            value = node.attribute[0]
            if value.name == "value" and (scalar := _scalar(value.t)) is not None:
                scalars[node.output[0]] = scalar
            elif value.name == "value_float":
                scalars[node.output[0]] = value.f
    for tensor in read.proto.graph.initializer:
        stored = read.weights.get(tensor.name)
        if stored is None or stored.dtype == "BF16" or math.prod(stored.shape) != 1:
            continue
        if (scalar := _scalar(tensor)) is not None:
            scalars[tensor.name] = scalar
        elif lies_in_file(stored):  # outside the graph
            scalars[tensor.name] = float(stored.array().reshape(()))
    return scalars


def _scalar(tensor: onnx.TensorProto) -> float | None:
    """Return the value of a tensor with one value in the graph, or None for others."""
    values = values_of(tensor) if math.prod(tensor.dims) == 1 else None
    return None if values is None else float(values.reshape(()))


def _epsilons(read: Skeleton, values: dict[str, float]) -> Iterator[Fact]:
    """Yield the epsilons of LayerNormalization operators, and of norms that are written as separate operators.

    In the latter, the epsilon is the constant that is added to the mean of squares.
    """
    producers = {output: node for node in read.nodes for output in node.output}

    def chain(name: str, *kinds: tuple[str, ...]) -> bool:
        """Return whether these kinds of operators, from the last to the first, compute a value along their first inputs."""
        for kind in kinds:
            node = producers.get(name)
            if node is None or node.op_type not in kind:
                return False
            name = _first_input(node)
        return True

    for index, node in enumerate(read.nodes):
        if node.op_type in NORMS:
            stated = [a.f for a in node.attribute if a.name == "epsilon"]
            yield Fact(stated[0] if stated else 1e-5, operator_label(node, index))
        elif node.op_type == "Add" and any(chain(name, ("ReduceMean",), ("Pow", "Mul")) for name in node.input):
            yield from (Fact(values[name], operator_label(node, index)) for name in node.input if name in values)


def _activations(read: Skeleton, values: dict[str, float]) -> Iterator[Fact]:
    """Yield the activations: Gelu operators, and forms written with erf, with tanh, or with a sigmoid of 1.702 x."""
    producers = {output: node for node in read.nodes for output in node.output}
    for index, node in enumerate(read.nodes):
        here = operator_label(node, index)
        match node.op_type:
            case "Gelu":
                yield Fact("gelu_tanh" if any(a.s == b"tanh" for a in node.attribute) else "gelu", here)
            case "Erf" | "BiasGelu":
                yield Fact("gelu", here)
            case "FastGelu":
                yield Fact("gelu_tanh", here)
            case "QuickGelu":  # x sigmoid(alpha x), which onnxruntime's optimiser also makes of x sigmoid(x)
                alpha = next((a.f for a in node.attribute if a.name == "alpha"), 1.702)
                yield Fact("silu" if alpha == 1 else "quick_gelu", here)
            case "Tanh" | "Sigmoid":
                source = producers.get(_first_input(node))
                inputs = source.input[:2] if source is not None and source.op_type == "Mul" else ()
                if node.op_type == "Sigmoid" and any(_adds(producers.get(name), values, GELU[0]) for name in inputs):
                    yield Fact("gelu", here)  # of `core_ops.py`
                factors = [values[name] for name in inputs if name in values]
                if any(abs(factor - (0.7978846 if node.op_type == "Tanh" else QUICK)) < 1e-3 for factor in factors):
                    yield Fact("gelu_tanh" if node.op_type == "Tanh" else "quick_gelu", here)


def _adds(node: onnx.NodeProto | None, values: dict[str, float], constant: float) -> bool:
    """Return whether an operator adds this constant."""
    added = [] if node is None or node.op_type != "Add" else [values[name] for name in node.input if name in values]
    return any(abs(value - constant) < 1e-6 for value in added)


def _first_input(node: onnx.NodeProto) -> str:
    """Return the name of an operator's first input, or "" if it has none."""
    return node.input[0] if node.input else ""


def _precision(read: Skeleton) -> str:
    """Return the coarsest type among the inputs of matrix products, followed from graph inputs and weights through casts."""
    types = {value.name: value.type.tensor_type.elem_type for value in read.proto.graph.input}
    types |= {tensor.name: tensor.data_type for tensor in read.proto.graph.initializer}
    if any(tensor.data_type in INTEGERS and len(tensor.dims) > 1 for tensor in read.proto.graph.initializer):
        return "int8"
    coarsest = "fp32"
    for node in read.nodes:
        if any(part in node.op_type.lower() for part in QUANTISED):
            return "int8"
        inputs = [types[name] for name in node.input if name in types]
        cast = [a.i for a in node.attribute if a.name == "to"]
        constant = [a.t.data_type for a in node.attribute if a.name == "value"]
        types |= dict.fromkeys(node.output, (cast or constant or inputs or [1])[0])
        if node.op_type in MATRIX_PRODUCTS:
            coarsest = max(coarsest, *(HALVES.get(kind, "fp32") for kind in inputs), "fp32", key=PRECISIONS.index)
    return coarsest
