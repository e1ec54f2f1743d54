"""Static proof that a file's integer products are the same on every CPU, or a list of the layers that can saturate.

On x86 without VNNI, onnxruntime and OpenVINO multiply uint8 activations by int8 weights with VPMADDUBSW. It adds the products
of an even input channel and the next odd one in 16 bits, with saturation. The result differs from that of other CPUs where two
such neighbouring weights have the same sign and their magnitudes add up to more than 128.

* Int8 activations that the graph dequantises saturate too: both runtimes make them unsigned.
* Unsigned weights never saturate, nor do products whose operands the graph itself declares as int8 and int8.
* ConvInteger never saturates: its weights are the other operand of the instruction.
* QLinearConv orders the input channels within each position of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from vit_zoo.formats.onnx_skeleton import Skeleton, lies_in_file, skeleton, values_of
from vit_zoo.formats.structure import operator_label
from vit_zoo.graph.int8_weights import PAIR, pair_sums

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array

KERNELS = ("onnxruntime, x86 without VNNI", "OpenVINO, x86 without VNNI")
UINT8, INT8 = 2, 3  # TensorProto.DataType
WORK = 16  # how often all weights together may be looked at: a sound graph needs a transposition of each, and its products
MOST_STEPS, MOST_COMPUTED = 8, 5_000  # operators between a weight and its product, and operators that are computed
SHORT = 8  # the most elements that a shape or a list of axes has
# Positions of each operator's activations and weights among its inputs. FUSED operators multiply floats, but runtimes turn them
# into integer products where both inputs are dequantised.
FUSED = ("MatMul", "Gemm", "Conv")
OPERANDS = dict.fromkeys(FUSED, (0, 1))
OPERANDS |= dict.fromkeys(("MatMulInteger", "MatMulIntegerToFloat", "ConvInteger", "DynamicQuantizeMatMul", "QAttention"), (0, 1))
QLINEAR = ("QLinearMatMul", "QLinearConv", "QGemm")  # each operand is followed by its scale and zero point
OPERANDS |= dict.fromkeys(QLINEAR, (0, 3))
REORDERING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")  # they change no values


class SaturatingLayer(BaseModel):
    """An integer product that can saturate: the share of its pairs of neighbouring weights, and the kernels concerned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: str
    pairs: int
    share: float
    kernels: tuple[str, ...] = KERNELS

    def __str__(self) -> str:
        return f"{self.layer}, {100 * self.share:.2g} % of {self.pairs:,} pairs"


class IntegerProducts(BaseModel):
    """Integer products of a file: their number, those that can saturate, and those whose weights the file does not contain."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    products: int
    saturating: tuple[SaturatingLayer, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def proven(self) -> bool:
        """Whether all CPUs are proven to compute the same integers."""
        return not self.saturating and not self.unknown

    def __str__(self) -> str:
        if self.saturating:
            worst = max(self.saturating, key=lambda layer: layer.share)
            count = f"{len(self.saturating)} of {self.products} integer products"
            return f"{count} can saturate on x86 without VNNI; worst: {worst}"
        if self.unknown:
            count = f"{len(self.unknown)} of {self.products} integer products"
            return f"same integers on every CPU: not proven for {count}, such as {self.unknown[0]}"
        return f"same integers on every CPU: proven for {self.products} integer products"


def integer_products(path: Path, read: Skeleton | None = None) -> IntegerProducts | None:
    """Return the integer products of any tool's ONNX file, or None if it has none. Raises RefusedContent for a damaged file.

    `read` is the file's skeleton, if it has been read before.
    """
    return _read(_Graph(skeleton(path) if read is None else read, path))


def _read(graph: _Graph) -> IntegerProducts | None:
    products, saturating, unknown = 0, [], []
    for where, paired, weights in graph.products():
        products += 1
        if paired and weights is None:
            unknown.append(where)
        elif paired and weights is not None:
            too_large = np.abs(pair_sums(weights.astype(np.int16))) > PAIR
            if too_large.any():
                saturating.append(SaturatingLayer(layer=where, pairs=too_large.size, share=float(too_large.mean())))
    return IntegerProducts(products=products, saturating=tuple(saturating), unknown=tuple(unknown)) if products else None


class _Graph:
    """Values of a graph by name: the operators that compute them, their integer types, and the constants."""

    def __init__(self, read: Skeleton, path: Path) -> None:
        self.nodes, self.weights = read.nodes, read.weights
        self.opset = max((opset.version for opset in read.proto.opset_import if not opset.domain), default=20)
        self.producers = {output: node for node in read.nodes for output in node.output}
        tensors = read.proto.graph.initializer
        self.types = {value.name: value.type.tensor_type.elem_type for value in read.proto.graph.input}
        self.types |= {tensor.name: tensor.data_type for tensor in tensors}
        # `weights` leaves out some types, among them int64, the type of shapes and axes
        others = (tensor for tensor in tensors if tensor.name not in self.weights)
        self.short = {tensor.name: tensor for tensor in others if math.prod(tensor.dims) <= SHORT}
        self.computed: dict[str, Array | None] = {}
        self.sources: dict[str, str] = {}
        self.known_types: dict[str, int] = {}
        # a file may use a constant any number of times, and each use has to be looked at
        files = {path} | {stored.span.file for stored in self.weights.values() if stored.span is not None}
        self.values_left = WORK * sum(file.stat().st_size for file in files)
        self.operators_left = MOST_COMPUTED

    def products(self) -> Iterator[tuple[str, bool, Array | None]]:
        """Yield the name of each integer product, whether pairs are added in 16 bits, and its weights (outputs by inputs).

        The weights are None if they are unsigned or not constant.
        """
        for index, node in enumerate(self.nodes):
            operands = OPERANDS.get(node.op_type)
            if operands is None or len(node.input) <= max(operands) + 2 * (node.op_type in QLINEAR):
                continue
            left, right = (node.input[i] for i in operands)
            if node.op_type in FUSED and not (self.is_dequantised(left) and self.is_dequantised(right)):
                continue
            kinds = (node.input[i + 2] for i in operands) if node.op_type in QLINEAR else (left, right)
            # of an unknown type, assume the one that can saturate
            x, w = (self.type_of(name) or worst for name, worst in zip(kinds, (UINT8, INT8), strict=True))
            if node.op_type == "DynamicQuantizeMatMul":
                x = UINT8
            if not {x, w} <= {UINT8, INT8}:
                continue
            weights = self.rows(node, right) if w == INT8 else None
            paired = (x, w) == (UINT8, INT8) and node.op_type != "ConvInteger"
            if node.op_type in FUSED:  # runtimes make the activations unsigned, also if they are the right operand
                paired = weights is not None
            yield operator_label(node, index), paired, weights

    def is_dequantised(self, name: str) -> bool:
        """Return whether a value is the result of DequantizeLinear, possibly reordered."""
        node = self.producers.get(self._source(name))
        return node is not None and node.op_type == "DequantizeLinear"

    def _source(self, name: str) -> str:
        """Return the value that a value is a reordering of, possibly itself."""
        passed = []
        while name not in self.sources:
            self.sources[name] = name  # where a cycle ends
            passed.append(name)
            node = self.producers.get(name)
            if node is None or node.op_type not in REORDERING or not node.input:
                break
            name = node.input[0]
        source = self.sources[name]
        self.sources |= dict.fromkeys(passed, source)
        return source

    def type_of(self, name: str) -> int:
        """Return the type of a value, or of its integers if it is dequantised; 0 if the type is not known."""
        passed = []
        while name not in self.known_types:
            self.known_types[name] = 0  # of a cycle
            passed.append(name)
            type_ = self._stated_type(name)
            if isinstance(type_, int):
                self.known_types[name] = type_
                break
            name = type_
        known = self.known_types[name]
        self.known_types |= dict.fromkeys(passed, known)
        return known

    def _stated_type(self, name: str) -> int | str:
        """Return the type that an operator gives its result, or the name of the value of the same type."""
        node = self.producers.get(name)
        if node is None:
            return int(self.types.get(name, 0))
        attributes: dict[str, Any] = {a.name: a for a in node.attribute}
        match node.op_type:
            case "QuantizeLinear" | "DequantizeLinear" if len(node.input) > 2 and node.input[2]:
                return str(node.input[2])
            case "QuantizeLinear":
                return int(attributes["output_dtype"].i) if "output_dtype" in attributes else UINT8
            case "DynamicQuantizeLinear":
                return UINT8
            case "Constant":
                return int(attributes["value"].t.data_type) if "value" in attributes else 0
            case kind if (kind == "DequantizeLinear" or kind in REORDERING) and node.input:
                return str(node.input[0])
        return 0

    def rows(self, node: onnx.NodeProto, name: str) -> Array | None:
        """Return constant weights as rows over the input channels, in the order in which they are multiplied, or None."""
        weights = self.constant(name)
        if weights is None or weights.ndim < 2 or weights.dtype.kind not in "iu" or not self._may_use(weights):
            return None
        if node.op_type.endswith("Conv"):  # outputs, channels, positions: the channels of one position are neighbours
            return np.moveaxis(weights, 1, -1).reshape(len(weights), -1)
        if any(a.name == "transB" and a.i for a in node.attribute):
            return weights
        return weights.swapaxes(-1, -2).reshape(-1, weights.shape[-2])

    def constant(self, name: str, depth: int = 0) -> Array | None:
        """Return the values of a constant, or None.

        Values that the graph computes from constants in a few operators count too. Of a dequantised constant, its integers are
        returned.
        """
        if name in self.short:
            return values_of(self.short[name])
        if name in self.weights:
            return self.weights[name].array() if lies_in_file(self.weights[name]) else None
        node = self.producers.get(name)
        if node is None or depth == MOST_STEPS:
            return None
        if node.op_type == "DequantizeLinear":
            return self.constant(node.input[0], depth + 1) if node.input else None
        if node.op_type not in (*REORDERING, "QuantizeLinear", "Constant"):  # before its inputs: there may be many paths to them
            return None
        if name not in self.computed:
            self.computed[name] = None  # of a cycle
            self.computed[name] = self._computed(node, depth + 1)
        return self.computed[name]

    def _computed(self, node: onnx.NodeProto, depth: int) -> Array | None:
        inputs = {name: self.constant(name, depth) for name in node.input[:MOST_STEPS] if name}
        known = {name: value for name, value in inputs.items() if value is not None}
        if len(known) < len(inputs) or not self.operators_left:
            return None
        self.operators_left -= 1
        values = _evaluated(node, known, self.opset)
        return values if values is not None and self._may_use(values) else None

    def _may_use(self, values: Array) -> bool:
        """Return whether there is work left for these values, which are not empty."""
        self.values_left -= values.size
        return values.size > 0 and self.values_left >= 0


def _evaluated(node: onnx.NodeProto, inputs: dict[str, Array], opset: int) -> Array | None:
    """Return the result of one operator on constants, or None if it cannot be computed."""
    from onnx import helper, reference

    values = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in inputs.items()]
    graph = helper.make_graph([node], "constant", values, [helper.make_empty_tensor_value_info(node.output[0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        (result,) = reference.ReferenceEvaluator(model).run(None, inputs)
    except Exception:  # anything that numpy raises for wrong shapes, which no runtime can compute either
        return None
    return np.asarray(result)
