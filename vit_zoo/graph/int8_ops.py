"""Int8 layers in standard operators, in three kinds:

`int8-static`   QuantizeLinear, DequantizeLinear, Gemm: onnxruntime runs one integer product; input ranges are calibrated
`int8-dynamic`  DynamicQuantizeLinear, MatMulInteger: the input range is that of the batch, so its images are rounded alike
`int8-weights`  Cast, Mul: dequantised when the file is loaded, then as fast and as large in memory as float32

Weights have the layout of float32, a row for each output, with a scale for each row. Biases are int32 where they are added
to integer sums. In the first two kinds no CPU's kernel can saturate: see `int8_weights.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.files import Stored
from vit_zoo.files.stored import as_float
from vit_zoo.graph.int8_weights import Rounded, nearest, row_steps
from vit_zoo.graph.onnx_ops import OnnxOps
from vit_zoo.graph.values import FLOAT, Heads, Scope, Value

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array
    from vit_zoo.model.spec import ViTSpec

BIAS = 2**30  # largest integer of a bias: half of int32's range is left for the sum of products


@dataclass(frozen=True)
class Layer:
    """Quantisation parameters of a linear layer."""

    scale: float = 1.0  # of the input: x = scale (q - zero)
    zero: int = 0
    bias_correction: Array | None = None  # added to the bias: the mean error of the outputs that rounding causes
    weight: Rounded | None = None  # the matrix, where calibration chose its integers; None: round to nearest


@dataclass(frozen=True)
class Quantisation:
    """Quantisation parameters of a model."""

    layers: Mapping[str, Layer]  # the layers that compute in int8, by path
    smoothing: Mapping[str, Array] = field(default_factory=dict)  # divisors of the channels of their inputs, by path


def quantisable(spec: ViTSpec) -> tuple[str, ...]:
    """List the layers to quantise: those of blocks and attention pooling, but not the patch projection and the heads."""
    names = ("attn.qkv", *(["attn.proj"] if spec.attn_out else []), "mlp.fc1", "mlp.fc2")
    pooling = ("kv", "proj", "mlp.fc1", "mlp.fc2") if spec.pool == "map" else ()
    return (*(f"blocks.{i}.{name}" for i in range(spec.depth) for name in names), *(f"attn_pool.{name}" for name in pooling))


def smoothable(path: str, spec: ViTSpec) -> str | None:
    """Return the path of the norm or layer before this one that can absorb factors of its input channels; None: there is none."""
    block, _, name = path.rpartition(".attn." if ".attn." in path else ".mlp.")
    if not block.startswith("blocks."):
        return None
    if name == "fc2":
        return f"{block}.mlp.fc1" if spec.mlp == "swiglu" else None  # a plain MLP has the activation between them
    return {"qkv": f"{block}.norm1", "fc1": f"{block}.norm2", "proj": f"{block}.attn.qkv"}[name]


def smoothed(tensors: Mapping[str, Stored], spec: ViTSpec, factors: Mapping[str, Array]) -> dict[str, Stored]:
    """Divide channels of layer inputs by `factors` and multiply the layers' columns by them: the function stays the same."""
    changed = dict(tensors)

    def change(name: str, function: Callable[[Array], Array]) -> None:
        if name in changed:
            changed[name] = Stored("F32", changed[name].shape, partial(_changed, changed[name], function))

    for path, by in factors.items():
        before = smoothable(path, spec)
        assert before is not None
        rows = slice(None) if "norm" in before else slice(-len(by), None)  # the values of qkv, the gated half of fc1
        for name in (f"{before}.weight", f"{before}.bias", *([f"{before.removesuffix('qkv')}v_bias"] if "qkv" in before else [])):
            change(name, partial(_divided, by=by, rows=rows))
        change(f"{path}.weight", partial(_multiplied, by=by))
    return changed


def adapted(quantisation: Quantisation, spec: ViTSpec) -> dict[str, Layer]:
    """Return the layers of a quantisation, divided as `smoothed` divides weights where they absorb factors."""
    layers = dict(quantisation.layers)
    for path, by in quantisation.smoothing.items():
        before = smoothable(path, spec)
        layer = layers.get(before or "")
        if before is None or layer is None:
            continue
        rows = slice(-len(by), None)
        weight = layer.weight and Rounded(layer.weight.integers, _divided(layer.weight.steps, by=by, rows=rows))
        correction = None if layer.bias_correction is None else _divided(layer.bias_correction, by=by, rows=rows)
        layers[before] = replace(layer, bias_correction=correction, weight=weight)
    return layers


def quantised(tensors: Mapping[str, Stored], kind: str, layers: Mapping[str, Layer]) -> dict[str, Stored]:
    """Return the tensors of an int8 file of this kind.

    Each layer has `.weight` in I8 and `.weight_scale`; a static one also `.weight_zero`, `.bias` in I32 and `.bias_scale`.
    """
    result = dict(tensors)
    for path, layer in layers.items():
        stored = tensors[f"{path}.weight"]
        rows = stored.shape[0]
        own = bias_of(tensors, path)
        bias = partial(_corrected_bias, own, layer, rows)
        weight = partial(_rounded, stored, kind, layer, bias)
        result[f"{path}.weight"] = Stored("I8", stored.shape, partial(_integers, weight, stored.shape))
        shape = (rows, 1) if kind == "int8-weights" else (rows,)
        result[f"{path}.weight_scale"] = Stored("F32", shape, partial(_steps, weight, shape))
        if kind == "int8-static":
            result[f"{path}.weight_zero"] = Stored("I8", (rows,), partial(np.zeros, rows, np.int8))
        if kind == "int8-weights" or (own is None and layer.bias_correction is None):
            continue
        for name in ("q_bias", "v_bias"):
            result.pop(f"{path.removesuffix('qkv')}{name}", None)
        if kind == "int8-dynamic":
            result[f"{path}.bias"] = Stored("F32", (rows,), bias)
        else:
            result[f"{path}.bias"] = Stored("I32", (rows,), partial(_bias_integers, bias, weight, layer))
            result[f"{path}.bias_scale"] = Stored("F32", (rows,), partial(_bias_scales, weight, layer))
    return result


def bias_of(tensors: Mapping[str, Stored], path: str) -> Callable[[], Array] | None:
    """Return a function that reads a layer's bias, joined from `q_bias`, zeros and `v_bias` where those are stored."""
    parent = path.removesuffix("qkv")
    if f"{path}.bias" in tensors:
        return partial(values_of, tensors[f"{path}.bias"])
    if parent != path and f"{parent}q_bias" in tensors:
        return partial(_joined, tensors[f"{parent}q_bias"], tensors[f"{parent}v_bias"])
    return None


@dataclass
class Int8Ops(OnnxOps):
    """The operations with the products of `layers` in integers; the tensors are those of `quantised`, of the same kind."""

    kind: str = "int8-static"
    layers: Mapping[str, Layer] = field(default_factory=dict)
    _inputs: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)  # quantised, by layer and value

    def qkv(
        self, m: Scope, x: Value, heads: int, rows: tuple[int, int] | None, biases: tuple[Scope, Scope] | None
    ) -> tuple[Heads, Heads, Heads]:
        joined = m.path in self.layers and self.kind != "int8-weights"  # `quantised` has joined the biases
        return super().qkv(m, x, heads, rows, None if joined else biases)

    def product(self, m: Scope, x: str, start: int, stop: int, bias: str | None) -> str:
        layer = self.layers.get(m.path)
        if layer is None:
            return super().product(m, x, start, stop, bias)
        weight = self.initializer(f"{m.path}.weight", start, stop, matrix=True)
        scale = self.initializer(f"{m.path}.weight_scale", start, stop)
        added = [] if bias is None else [bias]
        if self.kind == "int8-weights":
            floats = self.node("Mul", self.node("Cast", weight, to=FLOAT), scale)
            return self.node("Gemm", x, floats, *added, transB=1)
        if self.kind == "int8-dynamic":
            integers, step, zero = self._rounded(m.path, layer, x)
            weight = self.node("Transpose", weight, perm=[1, 0])  # folded when the file is loaded
            sums = self.node("Cast", self.node("MatMulInteger", integers, weight, zero), to=FLOAT)
            products = self.node("Mul", sums, self.node("Mul", step, scale))
            return self.node("Add", products, *added) if added else products
        (x,) = self._rounded(m.path, layer, x)
        # onnxruntime makes an integer product only with zero points. Each layer has its own, because the session option
        # session.x64quantprecision, which makes weights unsigned, replaces them layer by layer.
        zeros = self.initializer(f"{m.path}.weight_zero", start, stop)
        return self.node("Gemm", x, self.node("DequantizeLinear", weight, scale, zeros, axis=0), *added, transB=1)

    def _rounded(self, path: str, layer: Layer, x: str) -> tuple[str, ...]:
        """Quantise a layer's input: dequantised integers, or integers, step and zero. Done once for queries, keys and values."""
        if (path, x) not in self._inputs:
            if self.kind == "int8-dynamic":
                names = self.results("DynamicQuantizeLinear", 3, x)
            else:
                step, zero = self.float_(layer.scale), self.byte(layer.zero)
                names = (self.node("DequantizeLinear", self.node("QuantizeLinear", x, step, zero), step, zero),)
            self._inputs[path, x] = names
        return self._inputs[path, x]

    def bias(self, m: Scope, start: int, stop: int) -> str | None:
        if m.path not in self.layers or self.kind != "int8-static" or f"{m.path}.bias" not in self.tensors:
            return super().bias(m, start, stop)
        bias, scale = (self.initializer(f"{m.path}.{name}", start, stop) for name in ("bias", "bias_scale"))
        return self.node("DequantizeLinear", bias, scale, axis=0)


def values_of(stored: Stored) -> Array:
    """Read the values in float32."""
    return as_float(stored.dtype, stored.array()).astype("<f4", copy=False)


def least_steps(bias: Array | float, scale: float) -> Array:
    """Return the smallest steps of a static layer's rows with which the integers of its bias stay below `BIAS`."""
    return np.maximum(np.abs(bias) / BIAS, np.finfo("<f4").tiny) / np.float32(scale)


def _rounded(stored: Stored, kind: str, layer: Layer, bias: Callable[[], Array]) -> Rounded:
    if layer.weight is not None:
        return layer.weight
    matrix = values_of(stored).reshape(stored.shape[0], -1)
    if kind == "int8-weights":  # computed in float32
        return nearest(matrix, row_steps(matrix, paired=False))
    least = least_steps(bias(), layer.scale) if kind == "int8-static" else 0.0
    return nearest(matrix, row_steps(matrix, least=least))


def _integers(weight: Callable[[], Rounded], shape: tuple[int, ...]) -> Array:
    return weight().integers.reshape(shape)


def _steps(weight: Callable[[], Rounded], shape: tuple[int, ...]) -> Array:
    return weight().steps.reshape(shape)


def _bias_scales(weight: Callable[[], Rounded], layer: Layer) -> Array:
    return (weight().steps * np.float32(layer.scale)).astype("<f4")


def _corrected_bias(bias: Callable[[], Array] | None, layer: Layer, rows: int) -> Array:
    values = np.zeros(rows, "<f4") if bias is None else bias()
    return values if layer.bias_correction is None else (values + layer.bias_correction).astype("<f4")


def _bias_integers(bias: Callable[[], Array], weight: Callable[[], Rounded], layer: Layer) -> Array:
    return np.clip(np.rint(bias().astype("<f8") / _bias_scales(weight, layer)), -(2**31), 2**31 - 1).astype("<i4")


def _joined(q: Stored, v: Stored) -> Array:
    parts = [values_of(q), np.zeros(q.shape, "<f4"), values_of(v)]
    return np.concatenate(parts)


def _changed(stored: Stored, function: Callable[[Array], Array]) -> Array:
    return function(values_of(stored))


def _divided(values: Array, *, by: Array, rows: Any) -> Array:
    divided = values.copy()
    divided[rows] = (values[rows].T / by).T
    return divided


def _multiplied(values: Array, *, by: Array) -> Array:
    return values * by
