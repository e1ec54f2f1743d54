"""Interpolation kernels as nodes: weights from distances, in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vit_zoo.graph.builder import GraphBuilder
from vit_zoo.model.resize_recipes import Recipe


def axis_weights(g: GraphBuilder, places: str, count: str, n0: int, recipe: Recipe, same: str) -> str:
    """Return the weights with which `n0` stored values of an axis make those at `places`, 0 to `count` - 1, of a resized axis.

    The last axis of `places` and of `count`, double, has length 1, and that of the result `n0`. `same`: whether `count` is `n0`.
    """
    if recipe.align_corners:
        gaps = g.node("Max", g.node("Sub", count, g.double(1.0)), g.double(1.0))
        step = g.node("Div", g.double(float(n0 - 1)), gaps)
        x = g.node("Mul", places, step)
    else:
        if recipe.offset:
            count = g.node("Add", count, g.node("Where", same, g.double(0.0), g.double(recipe.offset)))
        step = g.node("Div", g.double(float(n0)), count)
        half = g.double(0.5)
        x = g.node("Sub", g.node("Mul", g.node("Add", places, half), step), half)
    pad = 0 if recipe.antialias else 2 if recipe.mode == "bicubic" else 1  # positions outside, which repeat the edge
    sources = g.doubles(*map(float, range(-pad, n0 + pad)))
    distances = g.node("Abs", g.node("Sub", x, sources))

    def kernel(x: str) -> str:
        return cubic(g, x, -0.5 if recipe.antialias else -0.75) if recipe.mode == "bicubic" else linear(g, x)

    if recipe.antialias:
        return antialiased(g, distances, step, kernel, axis=-1)
    weights = kernel(distances)
    clamped = np.eye(n0)[np.clip(np.arange(-pad, n0 + pad), 0, n0 - 1)]
    matrix = g.node("Reshape", g.doubles(*clamped.ravel().tolist()), g.ints(*clamped.shape))
    return g.node("MatMul", weights, matrix)


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
