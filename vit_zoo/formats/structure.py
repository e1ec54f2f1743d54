"""What can be read in an artifact where numbers are blind: LayerNorm's epsilon, GELU's form, operator sets, precision.

An epsilon of 1e-12 for 1e-6 changes a healthy model's output by 1e-6, as much as rounding does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.formats.onnx_skeleton import Skeleton, lies_in_file, skeleton

if TYPE_CHECKING:
    import onnx

    from vit_zoo.parity.reference import Reference

DOMAINS = ("", "ai.onnx", "com.microsoft")
COSTLY = ("Gemm", "MatMul", "Conv", "Attention", "FusedMatMul", "MultiHeadAttention")  # where precision is lost or kept
QUANTISED = ("integer", "quanti", "qlinear", "qattention", "qgemm", "nbits", "bnb4")  # in the names of operators
PRECISIONS = ("fp32", "fp16", "bf16")  # finest first
HALVES = {10: "fp16", 16: "bf16"}  # TensorProto.DataType
INTEGERS = (2, 3)  # of eight bits, TensorProto.DataType
NORMS = ("LayerNormalization", "SkipLayerNormalization")


@dataclass(frozen=True)
class Found:
    """An epsilon or an activation, and the operator that holds it."""

    value: float | str
    node: str


@dataclass(frozen=True)
class Structure:
    """What a graph states. `precision` is the coarsest in which it multiplies, `stored` that of its weights."""

    norm_eps: tuple[Found, ...]
    acts: tuple[Found, ...]
    precision: str
    stored: frozenset[str]


def read_onnx(path: Path) -> tuple[Structure, list[str]]:
    """The structure of an ONNX file, any tool's, and what is wrong with it whatever the model is."""
    read = skeleton(path)
    faults = [
        f"uses operators of the domain '{opset.domain}'"
        for opset in read.proto.opset_import
        if opset.domain not in DOMAINS and opset.domain not in {function.domain for function in read.proto.functions}
    ]
    faults += [f"does not hold the bytes of {name!r}" for name, stored in read.weights.items() if not lies_in_file(stored)][:1]
    values = _constants(read)
    structure = Structure(
        norm_eps=tuple(_epsilons(read, values)),
        acts=tuple(_activations(read, values)),
        precision=_precision(read),
        stored=frozenset(stored.dtype for stored in read.weights.values() if len(stored.shape) > 1),
    )
    return structure, faults


def read_torchscript(program: Any) -> Structure:
    """The structure of a TorchScript program."""
    graph = program.inlined_graph
    norms = [(node, list(node.inputs())[4]) for node in graph.findAllNodes("aten::layer_norm")]
    gelus = [(node, list(node.inputs())[1]) for node in graph.findAllNodes("aten::gelu")]
    acts = [Found("gelu_tanh" if form.toIValue() == "tanh" else "gelu", node.scopeName()) for node, form in gelus]
    acts += [Found("quick_gelu", node.scopeName()) for node in graph.findAllNodes("aten::sigmoid")]
    return Structure(
        tuple(Found(eps.toIValue(), node.scopeName()) for node, eps in norms), tuple(acts), "fp32", frozenset({"F32"})
    )


def read_pt2(module: Any) -> Structure:
    """The structure of an exported program's graph."""
    norms, acts = [], []
    for node in module.graph.nodes:
        target = str(node.target)
        if target == "aten.layer_norm.default":
            norms.append(Found(node.args[4] if len(node.args) > 4 else 1e-5, node.name))
        elif target == "aten.gelu.default":
            acts.append(Found("gelu_tanh" if node.kwargs.get("approximate") == "tanh" else "gelu", node.name))
        elif target == "aten.sigmoid.default":
            acts.append(Found("quick_gelu", node.name))
    return Structure(tuple(norms), tuple(acts), "fp32", frozenset({"F32"}))


def differences(found: Structure, reference: Reference) -> list[tuple[str, str]]:
    """Where the structure contradicts the reference: what, and the operator. Only what both sides know is compared."""
    wrong: list[tuple[str, str]] = []
    if reference.norm_eps:
        known = {np.float32(eps) for eps in reference.norm_eps}
        wanted = " or ".join(f"{eps:g}" for eps in sorted(reference.norm_eps))
        wrong += [
            (f"LayerNorm epsilon {eps.value:g}, the model has {wanted}", eps.node)
            for eps in found.norm_eps
            if np.float32(eps.value) not in known
        ]
    if reference.acts:
        wanted = " or ".join(sorted(reference.acts))
        wrong += [
            (f"activation {act.value}, the model has {wanted}", act.node) for act in found.acts if act.value not in reference.acts
        ]
    return wrong


def label(node: onnx.NodeProto, index: int) -> str:
    """How an operator is named to people: its name, which in our files is its place in the model, and its index."""
    return f"operator {index} ({node.op_type})" if not node.name else f"{node.name} (operator {index}, {node.op_type})"


def _constants(read: Skeleton) -> dict[str, float]:
    """Scalars by the name of the value that holds them."""
    from onnx import numpy_helper

    found: dict[str, float] = {}
    tensors = []
    for node in read.nodes:
        if node.op_type == "Constant" and node.attribute:
            value = node.attribute[0]
            if value.name == "value":
                tensors.append((node.output[0], value.t))
            elif value.name == "value_float":
                found[node.output[0]] = value.f
    for name, tensor in tensors:
        if np.prod(tensor.dims) == 1:
            found[name] = float(numpy_helper.to_array(tensor).reshape(()))
    for name, stored in read.weights.items():
        if np.prod(stored.shape) == 1 and stored.dtype != "BF16" and lies_in_file(stored):
            found[name] = float(stored.array().reshape(()))
    return found


def _epsilons(read: Skeleton, values: dict[str, float]) -> Iterator[Found]:
    """Of LayerNormalization, and of the norms spelled out: what is added to the mean of squared differences."""
    made = {output: node for node in read.nodes for output in node.output}

    def chain(name: str, *kinds: tuple[str, ...]) -> bool:
        """Whether a value is made by these kinds of operators, the last one first, along their first inputs."""
        node = made.get(name)
        return not kinds or (node is not None and node.op_type in kinds[0] and chain(node.input[0], *kinds[1:]))

    for index, node in enumerate(read.nodes):
        if node.op_type in NORMS:
            stated = [a.f for a in node.attribute if a.name == "epsilon"]
            yield Found(stated[0] if stated else 1e-5, label(node, index))
        elif node.op_type == "Add" and any(chain(name, ("ReduceMean",), ("Pow", "Mul"), ("Sub",)) for name in node.input):
            yield from (Found(values[name], label(node, index)) for name in node.input if name in values)


def _activations(read: Skeleton, values: dict[str, float]) -> Iterator[Found]:
    """Of Gelu, and of the forms spelled out: by erf, by tanh, by a sigmoid of 1.702 x."""
    made = {output: node for node in read.nodes for output in node.output}
    for index, node in enumerate(read.nodes):
        here = label(node, index)
        match node.op_type:
            case "Gelu":
                yield Found("gelu_tanh" if any(a.s == b"tanh" for a in node.attribute) else "gelu", here)
            case "Erf" | "BiasGelu":
                yield Found("gelu", here)
            case "FastGelu":
                yield Found("gelu_tanh", here)
            case "QuickGelu":
                yield Found("quick_gelu", here)
            case "Tanh" | "Sigmoid" if node.input[0] in made and made[node.input[0]].op_type == "Mul":
                factors = [values[name] for name in made[node.input[0]].input if name in values]
                if any(abs(factor - (0.7978846 if node.op_type == "Tanh" else 1.702)) < 1e-3 for factor in factors):
                    yield Found("gelu_tanh" if node.op_type == "Tanh" else "quick_gelu", here)


def _precision(read: Skeleton) -> str:
    """The coarsest type that goes into a matrix product, followed from inputs and weights through casts."""
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
        held = [a.t.data_type for a in node.attribute if a.name == "value"]
        types |= dict.fromkeys(node.output, (cast or held or inputs or [1])[0])
        if node.op_type in COSTLY:
            coarsest = max(coarsest, *(HALVES.get(kind, "fp32") for kind in inputs), "fp32", key=PRECISIONS.index)
    return coarsest
