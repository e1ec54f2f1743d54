"""Kernels of interpolation as nodes, on distances in double precision."""

from __future__ import annotations

from vit_zoo.graph.onnx_ops import OnnxOps


def linear(op: OnnxOps, x: str) -> str:
    return op._node("Max", op._node("Sub", op._double(1.0), x), op._double(0.0))


def cubic(op: OnnxOps, x: str, a: float) -> str:
    """Keys' kernel: ((a + 2) x - (a + 3)) x^2 + 1 up to 1, a (x - 1) (x - 2)^2 up to 2."""
    one = op._double(1.0)
    near = op._node("Sub", op._node("Mul", x, op._double(a + 2)), op._double(a + 3))
    near = op._node("Add", op._node("Mul", op._node("Mul", near, x), x), one)
    short = op._node("Min", op._node("Sub", x, op._double(2.0)), op._double(0.0))
    far = op._node("Mul", op._node("Mul", op._node("Sub", x, one), op._double(a)), op._node("Mul", short, short))
    return op._node("Where", op._node("Less", x, one), near, far)
