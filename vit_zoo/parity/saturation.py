"""Static proof that a file's integer products are the same on every CPU, or the layers whose sums some CPUs cut off.

On x86 without VNNI, onnxruntime and OpenVINO multiply uint8 activations by int8 weights with VPMADDUBSW: the products of an
even and the next odd input channel are added in 16 bits, with saturation. Weights of which two such neighbours, of one sign,
add up to more than 128 give other numbers there. Where the graph dequantises int8 activations, both runtimes make them
unsigned and saturate as well. Unsigned weights never saturate, nor do products that the graph itself states of int8 and int8,
nor ConvInteger, which takes its weights on the other side. QLinearConv orders channels within positions of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from vit_zoo.errors import RefusedContent
from vit_zoo.formats.onnx_skeleton import Skeleton, lies_in_file, skeleton
from vit_zoo.formats.structure import label
from vit_zoo.graph.int8_weights import PAIR, pair_sums

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array

KERNELS = ("onnxruntime, x86 without VNNI", "OpenVINO, x86 without VNNI")
UINT8, INT8 = 2, 3  # TensorProto.DataType
SHORT = 8  # values of a shape or of axes
# Where an operator has its activations and its weights. The first three multiply floats, in integers where a runtime fuses
# them with what dequantises both sides.
FUSED = ("MatMul", "Gemm", "Conv")
OPERANDS = dict.fromkeys(FUSED, (0, 1))
OPERANDS |= dict.fromkeys(("MatMulInteger", "MatMulIntegerToFloat", "ConvInteger", "DynamicQuantizeMatMul", "QAttention"), (0, 1))
STATED = ("QLinearMatMul", "QLinearConv", "QGemm")  # scale and zero point follow each operand
OPERANDS |= dict.fromkeys(STATED, (0, 3))
TURNED = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")  # the same numbers in another order


class SaturatingLayer(BaseModel):
    """An integer product whose sums can be cut off: the share of its neighbouring weights, and on which kernels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: str
    pairs: int
    share: float
    kernels: tuple[str, ...] = KERNELS

    def __str__(self) -> str:
        return f"{self.layer}, {100 * self.share:.2g} % of {self.pairs:,} pairs"


class IntegerProducts(BaseModel):
    """The integer products of a file: how many were read, those that can saturate, and those whose weights are not in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    products: int
    saturating: tuple[SaturatingLayer, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def proven(self) -> bool:
        """Whether every CPU computes the same integers."""
        return not self.saturating and not self.unknown

    def __str__(self) -> str:
        if self.saturating:
            worst = max(self.saturating, key=lambda layer: layer.share)
            count = f"{len(self.saturating)} of {self.products} integer products"
            return f"{count} can saturate on x86 without VNNI, most of all in {worst}"
        if self.unknown:
            count = f"{len(self.unknown)} of {self.products} integer products"
            return f"same integers on every CPU: not proven for {count}, such as {self.unknown[0]}"
        return f"same integers on every CPU: proven for {self.products} integer products"


def integer_products(path: Path) -> IntegerProducts | None:
    """The integer products of an ONNX file, any tool's; None where it has none. Raises RefusedContent for a damaged file."""
    try:
        return _read(_Graph(skeleton(path)))
    except RecursionError:
        raise RefusedContent("its graph has a cycle", where=path) from None


def _read(graph: _Graph) -> IntegerProducts | None:
    products, saturating, unknown = 0, [], []
    for where, paired, weights in graph.products():
        products += 1
        if paired and weights is None:
            unknown.append(where)
        elif paired and weights is not None:
            can = np.abs(pair_sums(weights.astype(np.int16))) > PAIR
            if can.any():
                saturating.append(SaturatingLayer(layer=where, pairs=can.size, share=float(can.mean())))
    return IntegerProducts(products=products, saturating=tuple(saturating), unknown=tuple(unknown)) if products else None


class _Graph:
    """The values of a graph by name: what makes them, their integer types, and those that are constant."""

    def __init__(self, read: Skeleton) -> None:
        from onnx import numpy_helper

        self.nodes, self.weights = read.nodes, read.weights
        self.opset = max((opset.version for opset in read.proto.opset_import if not opset.domain), default=20)
        self.made = {output: node for node in read.nodes for output in node.output}
        tensors = read.proto.graph.initializer
        self.types = {value.name: value.type.tensor_type.elem_type for value in read.proto.graph.input}
        self.types |= {tensor.name: tensor.data_type for tensor in tensors}
        # of the types that `weights` leaves out, these hold shapes and axes
        short = [tensor for tensor in tensors if tensor.name not in self.weights and np.prod(tensor.dims) <= SHORT]
        self.small = {tensor.name: numpy_helper.to_array(tensor) for tensor in short}

    def products(self) -> Iterator[tuple[str, bool, Array | None]]:
        """Each integer product: its name, whether pairs are added in 16 bits, and its weights, outputs by inputs.

        No weights: they are unsigned, or not constant.
        """
        for index, node in enumerate(self.nodes):
            operands = OPERANDS.get(node.op_type)
            if operands is None or len(node.input) <= max(operands) + 2 * (node.op_type in STATED):
                continue
            left, right = (node.input[i] for i in operands)
            if node.op_type in FUSED and not (self.is_dequantised(left) and self.is_dequantised(right)):
                continue
            kinds = (node.input[i + 2] for i in operands) if node.op_type in STATED else (left, right)
            x, w = (self.type_of(name) or worst for name, worst in zip(kinds, (UINT8, INT8), strict=True))
            if node.op_type == "DynamicQuantizeMatMul":
                x = UINT8
            if not {x, w} <= {UINT8, INT8}:
                continue
            weights = self.rows(node, right) if w == INT8 else None
            paired = (x, w) == (UINT8, INT8) and node.op_type != "ConvInteger"
            if node.op_type in FUSED:  # activations are made unsigned, also on the right
                paired = weights is not None
            yield label(node, index), paired, weights

    def is_dequantised(self, name: str) -> bool:
        """Whether a value is made of integers by DequantizeLinear, in whatever order."""
        node = self.made.get(name)
        if node is not None and node.op_type in TURNED:
            return self.is_dequantised(node.input[0])
        return node is not None and node.op_type == "DequantizeLinear"

    def type_of(self, name: str) -> int:
        """The type of a value; of a dequantised one, that of its integers. 0: not known."""
        node = self.made.get(name)
        if node is None:
            return int(self.types.get(name, 0))
        attributes: dict[str, Any] = {a.name: a for a in node.attribute}
        match node.op_type:
            case "QuantizeLinear" | "DequantizeLinear" if len(node.input) > 2 and node.input[2]:
                return self.type_of(node.input[2])
            case "QuantizeLinear":
                return int(attributes["output_dtype"].i) if "output_dtype" in attributes else UINT8
            case "DynamicQuantizeLinear":
                return UINT8
            case "Constant":
                return int(attributes["value"].t.data_type) if "value" in attributes else 0
            case kind if kind == "DequantizeLinear" or kind in TURNED:
                return self.type_of(node.input[0])
        return 0

    def rows(self, node: onnx.NodeProto, name: str) -> Array | None:
        """Weights as rows over the input channels, in the order in which they are multiplied."""
        weights = self.constant(name)
        if weights is None or weights.ndim < 2:
            return None
        if node.op_type.endswith("Conv"):  # outputs, channels, positions: channels of one position are neighbours
            return np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
        if any(a.name == "transB" and a.i for a in node.attribute):
            return weights
        return weights.swapaxes(-1, -2).reshape(-1, weights.shape[-2])

    def constant(self, name: str) -> Array | None:
        """The values of a constant, also of one that the graph computes from constants; the integers of a dequantised one."""
        if name in self.small:
            return self.small[name]
        if name in self.weights:
            return self.weights[name].array() if lies_in_file(self.weights[name]) else None
        node = self.made.get(name)
        if node is None:
            return None
        if node.op_type == "DequantizeLinear":
            return self.constant(node.input[0])
        inputs = {given: self.constant(given) for given in node.input if given}
        if node.op_type not in (*TURNED, "QuantizeLinear", "Constant"):
            return None
        known = {given: value for given, value in inputs.items() if value is not None}
        return _evaluated(node, known, self.opset) if len(known) == len(inputs) else None


def _evaluated(node: onnx.NodeProto, inputs: dict[str, Array], opset: int) -> Array | None:
    """The result of one operator on constants; None where it has none."""
    from onnx import helper, reference

    values = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in inputs.items()]
    graph = helper.make_graph([node], "constant", values, [helper.make_empty_tensor_value_info(node.output[0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        (result,) = reference.ReferenceEvaluator(model).run(None, inputs)
    except Exception:  # whatever numpy raises for shapes that do not fit: no runtime computes it either
        return None
    return np.asarray(result)
