"""Positions for a grid of patches that is known when the graph runs: learned ones interpolated, others computed.

A resize along an axis is a product with a matrix, new x old, whose rows hold the kernel's weights. That spells the recipe of
every source at every opset, where Resize lacks antialias before opset 18 and is slow without it. Grids and weights are
double, so that the reference, which interpolates in double, is met to float32's rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vit_zoo.graph.builder import GraphBuilder
from vit_zoo.graph.interpolation import cubic, linear
from vit_zoo.graph.values import BATCH, DOUBLE, FLOAT, PATCHES, Value, plus
from vit_zoo.model.positions import frequencies, periods
from vit_zoo.model.resize_recipes import Recipe
from vit_zoo.model.spec import ViTSpec

SIDES = "rows", "columns"  # each an int64 of one element, and the names of these axes


@dataclass
class FreeGrid:
    """How patches and their positions follow the image; no recipe: positions are computed."""

    spec: ViTSpec
    recipe: Recipe | None
    sides: tuple[str, str] = SIDES
    _angles: str | None = field(default=None, init=False)

    def patches(self, g: GraphBuilder, image: Value, size: tuple[int, int]) -> Value:
        """b (h w) (c p q). Where the patch does not divide the image, a Reshape fails whose name says so."""
        (p, q), (rows, columns), c = size, self.sides, int(image.shape[1])
        with g.scope("sizes"):
            whole = g.node("Div", g.node("Shape", image.name, start=2, end=4), g.ints(p, q))
            g.emit("Split", (whole, g.ints(1, 1)), self.sides, axis=0)
            g.emit("Mul", self.sides, (PATCHES,))
            shape = g.node("Concat", g.ints(0, c), rows, g.ints(p), columns, g.ints(q), axis=0)
        with g.scope(f"height and width must be multiples of {p} and {q}"):
            x = g.node("Reshape", image.name, shape)
        x = g.node("Reshape", g.node("Transpose", x, perm=[0, 2, 4, 1, 3, 5]), g.ints(-1, c * p * q))
        return Value(x, (BATCH, PATCHES, c * p * q), flat=True)

    def learned(self, g: GraphBuilder, table: str) -> Value:
        """The stored table 1 (prefix + rows x columns) d for the grid at hand; the entries of the prefix as they are."""
        assert self.recipe is not None
        d, (h0, w0) = self.spec.dim, self.spec.grid
        prefix = self.spec.shapes()["pos_embed"][1] - h0 * w0
        with g.scope("pos_embed"):
            rest = g.node("Slice", table, g.ints(prefix), g.ints(prefix + h0 * w0), g.ints(1)) if prefix else table
            same = g.node("And", *(g.node("Equal", n, g.ints(n0)) for n, n0 in zip(SIDES, (h0, w0), strict=True)))
            high, wide = (g.node("Cast", self._weights(g, n, n0, same), to=FLOAT) for n, n0 in zip(SIDES, (h0, w0), strict=True))
            x = g.node("MatMul", high, g.node("Reshape", rest, g.ints(h0, w0 * d)))
            x = g.node("MatMul", wide, g.node("Reshape", x, g.ints(-1, w0, d)))
            x = g.node("Reshape", x, g.ints(1, -1, d))
            if prefix:
                first = g.node("Slice", table, g.ints(0), g.ints(prefix), g.ints(1))
                x = g.node("Concat", first, x, axis=1)
        return Value(x, (1, plus(PATCHES, prefix), d))

    def table(self, g: GraphBuilder, path: str) -> Value:
        """Sines and cosines of `positions.py`: `pos_embed` 1 t d, `rope_cos` or `rope_sin` t 1 e/2."""
        if path == "pos_embed":
            return self._sincos(g)
        with g.scope("rope"):
            turned = g.node("Cos" if path == "rope_cos" else "Sin", self._rotary(g))
            shape = (plus(PATCHES, self.spec.prefix_tokens), 1, self.spec.dim_head // 2)
            return Value(g.node("Cast", turned, to=FLOAT), shape)

    def _weights(self, g: GraphBuilder, n: str, n0: int, same: str) -> str:
        """n x n0."""
        assert self.recipe is not None
        how = self.recipe
        places, count = _range(g, n), g.node("Cast", n, to=DOUBLE)
        if how.align_corners:
            gaps = g.node("Max", g.node("Sub", count, g.double(1.0)), g.double(1.0))
            step = g.node("Div", g.double(float(n0 - 1)), gaps)
            x = g.node("Mul", places, step)
        else:
            if how.offset:
                count = g.node("Add", count, g.node("Where", same, g.double(0.0), g.double(how.offset)))
            step = g.node("Div", g.double(float(n0)), count)
            half = g.double(0.5)
            x = g.node("Sub", g.node("Mul", g.node("Add", places, half), step), half)
        pad = 0 if how.antialias else 2 if how.mode == "bicubic" else 1  # neighbours outside, which count as the edge
        sources = g.doubles(*map(float, range(-pad, n0 + pad)))
        apart = g.node("Abs", g.node("Sub", g.node("Reshape", x, g.ints(-1, 1)), sources))
        if how.antialias:
            apart = g.node("Div", apart, g.node("Max", step, g.double(1.0)))
        weights = cubic(g, apart, -0.5 if how.antialias else -0.75) if how.mode == "bicubic" else linear(g, apart)
        if how.antialias:
            return g.node("Div", weights, g.node("ReduceSum", weights, g.ints(1), keepdims=1))
        clamped = np.eye(n0)[np.clip(np.arange(-pad, n0 + pad), 0, n0 - 1)]
        matrix = g.node("Reshape", g.doubles(*clamped.ravel().tolist()), g.ints(*clamped.shape))
        return g.node("MatMul", weights, matrix)

    def _sincos(self, g: GraphBuilder) -> Value:
        with g.scope("pos_embed"):
            steps = frequencies(self.spec.dim, last_included=self.spec.pos == "sincos_moco")
            y, x = (g.node("Mul", _column(g, _range(g, n)), g.doubles(*steps)) for n in SIDES)
            parts = [g.node(f, angle) for angle in (x, y) for f in ("Sin", "Cos")]
            whole = _over_the_grid(g, [(part, 1 - i // 2) for i, part in enumerate(parts)], len(steps))
            table = g.node("Cast", g.node("Reshape", whole, g.ints(1, -1, 4 * len(steps))), to=FLOAT)
        return Value(table, (1, PATCHES, 4 * len(steps)))

    def _rotary(self, g: GraphBuilder) -> str:
        """Angles t 1 e/2; those of the prefix are zero."""
        if self._angles is None:
            turns = (2 * np.pi / periods(self.spec.dim_head)).tolist()
            angles = []
            for n in SIDES:
                doubled = g.node("Add", g.node("Mul", _range(g, n), g.double(2.0)), g.double(1.0))
                centres = g.node("Sub", g.node("Div", doubled, g.node("Cast", n, to=DOUBLE)), g.double(1.0))
                angles.append(g.node("Mul", _column(g, centres), g.doubles(*turns)))
            whole = _over_the_grid(g, [(angles[0], 0), (angles[1], 1)], len(turns))
            whole = g.node("Reshape", whole, g.ints(-1, 1, 2 * len(turns)))
            if self.spec.prefix_tokens:
                still = g.doubles(*[0.0] * (self.spec.prefix_tokens * 2 * len(turns)))
                still = g.node("Reshape", still, g.ints(self.spec.prefix_tokens, 1, 2 * len(turns)))
                whole = g.node("Concat", still, whole, axis=0)
            self._angles = whole
        return self._angles


def _range(g: GraphBuilder, n: str) -> str:
    """0 to n - 1, double."""
    return g.node("Cast", g.node("Range", g.int_(0), g.node("Squeeze", n), g.int_(1)), to=DOUBLE)


def _column(g: GraphBuilder, x: str) -> str:
    return g.node("Reshape", x, g.ints(-1, 1))


def _over_the_grid(g: GraphBuilder, parts: list[tuple[str, int]], width: int) -> str:
    """Values of rows (axis 0) or columns (axis 1), each n x width, side by side for every patch: h w (parts width)."""
    shape = g.node("Concat", *SIDES, g.ints(width), axis=0)
    laid = [
        g.node("Expand", g.node("Reshape", part, g.ints(*((-1, 1) if axis == 0 else (1, -1)), width)), shape)
        for part, axis in parts
    ]
    return g.node("Concat", *laid, axis=2)
