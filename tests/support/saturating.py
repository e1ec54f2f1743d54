"""Integer products as x86 CPUs without VNNI compute them, in numpy, to compare with CPUs of either kind.

VPMADDUBSW multiplies bytes without a sign by bytes with one, and adds each even product to the next in 16 bits, with
saturation. Only then are the sums added in 32 bits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun


def product(x, w, *, saturating):
    """x, uint8 [rows, channels], times w, int8 [channels, outputs]: int32."""
    x, w = x.astype(np.int32), w.astype(np.int32)
    if not saturating:
        return x @ w
    total = np.zeros((len(x), w.shape[1]), np.int32)
    for channel in range(0, len(w), 2):
        total += np.clip(x[:, channel : channel + 2] @ w[channel : channel + 2], -(2**15), 2**15 - 1)
    return total


def run(path, images, *, saturating):
    """The first output of an ONNX file for images, by onnx's own evaluator, its integer products by `product`.

    What onnxruntime fuses to one integer product is one here too: MatMulInteger, and Gemm of two dequantised inputs.
    """

    class IntegerProduct(OpRun):
        op_domain = "emulated"

        def _run(self, x, w, zero):
            return (product(x, w, saturating=saturating) - np.int32(zero) * w.astype(np.int32).sum(axis=0),)

    class IntegerGemm(OpRun):
        op_domain = "emulated"

        def _run(self, x, step, zero, w, steps, *bias):
            sums = product(x, w.T, saturating=saturating) - np.int32(zero) * w.astype(np.int32).sum(axis=1)
            return ((sums * (step * steps) + sum(bias)).astype("<f4"),)

    model = onnx.load(path)
    made = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "MatMulInteger":
            node.op_type, node.domain = "IntegerProduct", "emulated"
            continue
        before = [made[name] for name in node.input[:2] if name in made]
        if node.op_type == "Gemm" and [one.op_type for one in before] == ["DequantizeLinear"] * 2:
            inputs = [*before[0].input, *before[1].input[:2], *node.input[2:]]
            node.CopyFrom(helper.make_node("IntegerGemm", inputs, node.output, node.name, domain="emulated"))
    model.opset_import.append(helper.make_opsetid("emulated", 1))
    evaluator = ReferenceEvaluator(model, new_ops=[IntegerProduct, IntegerGemm])
    return evaluator.run(None, {model.graph.input[0].name: images})[0]


def decibels(found, wanted):
    """Signal to noise over all values."""
    found, wanted = found.astype("<f8"), wanted.astype("<f8")
    noise = np.square(found - wanted).sum()
    return 10 * np.log10(np.square(wanted).sum() / noise) if noise else np.inf


def pairs(path):
    """The sums of magnitudes of neighbouring channels of every int8 matrix in a file, by its name."""
    found = {}
    for tensor in onnx.load(Path(path)).graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2:
            magnitudes = np.abs(onnx.numpy_helper.to_array(tensor).astype(np.int32))
            even, odd = magnitudes[:, ::2], magnitudes[:, 1::2]
            found[tensor.name] = even + np.pad(odd, ((0, 0), (0, even.shape[1] - odd.shape[1])))
    return found
