"""Patches and positions for images of any size: learned positions are interpolated in the graph, others computed.

A resize along an axis is a product with a matrix, new x old, whose rows hold the kernel's weights. This covers the recipes
of all sources at every opset; Resize lacks antialias before opset 18 and is slow without it. Grids and weights are in double
precision, as in the reference, so that results agree with it to float32's rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vit_zoo.graph.builder import GraphBuilder
from vit_zoo.graph.interpolation import axis_weights
from vit_zoo.graph.values import BATCH, COLUMNS, DOUBLE, FLOAT, PATCHES, ROWS, Value, plus
from vit_zoo.model.positions import ROTATIONS, first_place, frequencies, rope_frequencies
from vit_zoo.model.resize_recipes import Recipe
from vit_zoo.model.spec import ViTSpec

GRID = ROWS, COLUMNS  # the grid's numbers of rows and columns, each an int64 vector of one element


@dataclass
class DynamicGrid:
    """Patches and positions of a model for images of any size."""

    spec: ViTSpec
    recipe: Recipe | None  # of learned positions; None: positions are computed
    _angles: str | None = field(default=None, init=False)

    def patches(self, g: GraphBuilder, image: Value, size: tuple[int, int]) -> Value:
        """Cut an image into flat patches: b c (h p) (w q) -> b (h w) (c p q).

        If the patch size does not divide the image, a Reshape fails whose name states the condition.
        """
        (p, q), c = size, int(image.shape[1])
        with g.scope("sizes"):
            grid = g.node("Div", g.node("Shape", image.name, start=2, end=4), g.ints(p, q))
            g.emit("Split", (grid, g.ints(1, 1)), GRID, axis=0)
            g.emit("Mul", GRID, (PATCHES,))
            shape = g.node("Concat", g.ints(0, c), ROWS, g.ints(p), COLUMNS, g.ints(q), axis=0)
        with g.scope(f"height and width must be multiples of {p} and {q}"):
            x = g.node("Reshape", image.name, shape)
        x = g.node("Reshape", g.node("Transpose", x, perm=[0, 2, 4, 1, 3, 5]), g.ints(-1, c * p * q))
        return Value(x, (BATCH, PATCHES, c * p * q), flat=True)

    def learned(self, g: GraphBuilder, table: str) -> Value:
        """Interpolate the stored table, 1 (prefix + rows x columns) d, for the image's grid; the prefix is left unchanged."""
        assert self.recipe is not None
        d, (h0, w0) = self.spec.dim, self.spec.grid
        prefix = self.spec.shapes()["pos_embed"][1] - h0 * w0
        with g.scope("pos_embed"):
            rest = g.node("Slice", table, g.ints(prefix), g.ints(prefix + h0 * w0), g.ints(1)) if prefix else table
            axes = list(zip(GRID, (h0, w0), strict=True))
            same = g.node("And", *(g.node("Equal", n, g.ints(n0)) for n, n0 in axes))
            vertical, horizontal = (g.node("Cast", self._weights(g, n, n0, same), to=FLOAT) for n, n0 in axes)
            x = g.node("MatMul", vertical, g.node("Reshape", rest, g.ints(h0, w0 * d)))
            x = g.node("MatMul", horizontal, g.node("Reshape", x, g.ints(-1, w0, d)))
            x = g.node("Reshape", x, g.ints(1, -1, d))
            if prefix:
                first = g.node("Slice", table, g.ints(0), g.ints(prefix), g.ints(1))
                x = g.node("Concat", first, x, axis=1)
        return Value(x, (1, plus(PATCHES, prefix), d))

    def table(self, g: GraphBuilder, path: str) -> Value:
        """Compute a table of `positions.py`: `pos_embed` 1 t d, `rope_cos` or `rope_sin` t 1 e/2, `rope_places` 2 t 1 1."""
        if path == "pos_embed":
            return self._sincos(g)
        with g.scope("rope"):
            if path == "rope_places":
                return self._places(g)
            values = g.node("Cos" if path == "rope_cos" else "Sin", self._rotary(g))
            shape = (plus(PATCHES, self.spec.prefix_tokens), 1, self.spec.dim_head // 2)
            return Value(g.node("Cast", values, to=FLOAT), shape)

    def _weights(self, g: GraphBuilder, n: str, n0: int, same: str) -> str:
        """Return the interpolation matrix of one axis, n x n0. `same`: whether the grid is that of the stored table."""
        assert self.recipe is not None
        return axis_weights(g, _column(g, _range(g, n)), g.node("Cast", n, to=DOUBLE), n0, self.recipe, same)

    def _sincos(self, g: GraphBuilder) -> Value:
        with g.scope("pos_embed"):
            factors = frequencies(self.spec.dim, last_included=self.spec.pos == "sincos_moco")
            y, x = (g.node("Mul", _column(g, _range(g, n)), g.doubles(*factors)) for n in GRID)
            parts = [g.node(f, angle) for angle in (x, y) for f in ("Sin", "Cos")]
            grid = _over_the_grid(g, [(part, 1 - i // 2) for i, part in enumerate(parts)], len(factors))
            table = g.node("Cast", g.node("Reshape", grid, g.ints(1, -1, 4 * len(factors))), to=FLOAT)
        return Value(table, (1, PATCHES, 4 * len(factors)))

    def _rotary(self, g: GraphBuilder) -> str:
        """Return the angles of all tokens, t 1 e/2; those of the prefix are zero."""
        if self._angles is None:
            factors = rope_frequencies(self.spec).tolist()
            coordinates = [self._coordinates(g, axis) for axis in (0, 1)]
            parts = [(g.node("Mul", _column(g, x), g.doubles(*factors)), axis) for axis, x in enumerate(coordinates)]
            parts = parts[::-1] if ROTATIONS[self.spec.rope].columns_first else parts
            angles = _over_the_grid(g, parts, len(factors))
            angles = g.node("Reshape", angles, g.ints(-1, 1, 2 * len(factors)))
            if self.spec.prefix_tokens:
                prefix = g.doubles(*[0.0] * (self.spec.prefix_tokens * 2 * len(factors)))
                prefix = g.node("Reshape", prefix, g.ints(self.spec.prefix_tokens, 1, 2 * len(factors)))
                angles = g.node("Concat", prefix, angles, axis=0)
            self._angles = angles
        return self._angles

    def _coordinates(self, g: GraphBuilder, axis: int) -> str:
        """Return the coordinates of rows (axis 0) or columns (axis 1), as `positions.coordinates` does."""
        n = GRID[axis]
        count = g.node("Cast", n, to=DOUBLE)
        if ROTATIONS[self.spec.rope].centred:
            doubled = g.node("Add", g.node("Mul", _range(g, n), g.double(2.0)), g.double(1.0))
            return g.node("Mul", g.node("Sub", g.node("Div", doubled, count), g.double(1.0)), g.double(2 * np.pi))
        places, first = _range(g, n), first_place(self.spec)
        places = g.node("Add", places, g.double(float(first))) if first else places
        if self.spec.rope_grid is None:
            return places
        return g.node("Mul", places, g.node("Div", g.double(float(self.spec.rope_grid[axis])), count))

    def _places(self, g: GraphBuilder) -> Value:
        """Return column and row of each token, 2 t 1 1; those of the prefix are zero."""
        parts = [(_column(g, _range(g, GRID[axis])), axis) for axis in (1, 0)]
        places = g.node("Reshape", _over_the_grid(g, parts, 1), g.ints(-1, 2))
        prefix = self.spec.prefix_tokens
        if prefix:
            zeros = g.node("Reshape", g.doubles(*[0.0] * (2 * prefix)), g.ints(prefix, 2))
            places = g.node("Concat", zeros, places, axis=0)
        places = g.node("Reshape", g.node("Transpose", places, perm=[1, 0]), g.ints(2, -1, 1, 1))
        return Value(g.node("Cast", places, to=FLOAT), (2, plus(PATCHES, prefix), 1, 1))


def _range(g: GraphBuilder, n: str) -> str:
    """Return 0 to n - 1, double."""
    return g.node("Cast", g.node("Range", g.int_(0), g.node("Squeeze", n), g.int_(1)), to=DOUBLE)


def _column(g: GraphBuilder, x: str) -> str:
    """Reshape a vector to n x 1."""
    return g.node("Reshape", x, g.ints(-1, 1))


def _over_the_grid(g: GraphBuilder, parts: list[tuple[str, int]], width: int) -> str:
    """Concatenate values of rows (axis 0) or columns (axis 1), each n x width, for every patch: h w (parts width)."""
    shape = g.node("Concat", *GRID, g.ints(width), axis=0)
    expanded = [
        g.node("Expand", g.node("Reshape", part, g.ints(*((-1, 1) if axis == 0 else (1, -1)), width)), shape)
        for part, axis in parts
    ]
    return g.node("Concat", *expanded, axis=2)
