"""Kernels of interpolation as nodes, on distances in double precision."""

from __future__ import annotations

from vit_zoo.graph.builder import GraphBuilder


def linear(g: GraphBuilder, x: str) -> str:
    return g.node("Max", g.node("Sub", g.double(1.0), x), g.double(0.0))


def cubic(g: GraphBuilder, x: str, a: float) -> str:
    """Keys' kernel: ((a + 2) x - (a + 3)) x^2 + 1 up to 1, a (x - 1) (x - 2)^2 up to 2."""
    one = g.double(1.0)
    near = g.node("Sub", g.node("Mul", x, g.double(a + 2)), g.double(a + 3))
    near = g.node("Add", g.node("Mul", g.node("Mul", near, x), x), one)
    short = g.node("Min", g.node("Sub", x, g.double(2.0)), g.double(0.0))
    far = g.node("Mul", g.node("Mul", g.node("Sub", x, one), g.double(a)), g.node("Mul", short, short))
    return g.node("Where", g.node("Less", x, one), near, far)
