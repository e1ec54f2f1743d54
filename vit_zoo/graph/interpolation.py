"""Interpolation kernels as nodes: weights from distances, in double precision."""

from __future__ import annotations

from collections.abc import Callable

from vit_zoo.graph.builder import GraphBuilder


def antialiased(g: GraphBuilder, distances: str, step: str, kernel: Callable[[str], str], axis: int) -> str:
    """Return a kernel's weights, normalised along `axis`. The kernel is widened to `step` where that is more than 1."""
    weights = kernel(g.node("Div", distances, g.node("Max", step, g.double(1.0))))
    return g.node("Div", weights, g.node("ReduceSum", weights, g.ints(axis), keepdims=1))


def linear(g: GraphBuilder, x: str) -> str:
    """Return max(1 - x, 0)."""
    return g.node("Max", g.node("Sub", g.double(1.0), x), g.double(0.0))


def cubic(g: GraphBuilder, x: str, a: float) -> str:
    """Return Keys' kernel: ((a + 2) x - (a + 3)) x^2 + 1 up to 1, a (x - 1) (x - 2)^2 up to 2, 0 beyond."""
    one = g.double(1.0)
    near = g.node("Sub", g.node("Mul", x, g.double(a + 2)), g.double(a + 3))
    near = g.node("Add", g.node("Mul", g.node("Mul", near, x), x), one)
    short = g.node("Min", g.node("Sub", x, g.double(2.0)), g.double(0.0))
    far = g.node("Mul", g.node("Mul", g.node("Sub", x, one), g.double(a)), g.node("Mul", short, short))
    return g.node("Where", g.node("Less", x, one), near, far)
