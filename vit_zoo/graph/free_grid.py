"""Positions for a grid of patches that is known when the graph runs: learned ones interpolated, others computed.

A resize along an axis is a product with a matrix, new x old, whose rows hold the kernel's weights. That spells the recipe of
every source at every opset, where Resize lacks antialias before opset 18 and is slow without it. Grids and weights are
double, so that the reference, which interpolates in double, is met to float32's rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vit_zoo.graph.kernels import cubic, linear
from vit_zoo.graph.onnx_ops import OnnxOps
from vit_zoo.graph.values import BATCH, DOUBLE, FLOAT, PATCHES, Value, plus
from vit_zoo.positions import frequencies, periods
from vit_zoo.recipes import Recipe
from vit_zoo.vit_spec import ViTSpec

SIDES = "rows", "columns"  # each an int64 of one element, and the names of these axes


@dataclass
class FreeGrid:
    """How patches and their positions follow the image; no recipe: positions are computed."""

    spec: ViTSpec
    recipe: Recipe | None
    sides: tuple[str, str] = SIDES
    _angles: str | None = field(default=None, init=False)

    def patches(self, op: OnnxOps, image: Value, size: tuple[int, int]) -> Value:
        """b (h w) (c p q). Where the patch does not divide the image, a Reshape fails whose name says so."""
        (p, q), (rows, columns), c = size, self.sides, int(image.shape[1])
        with op._in("sizes"):
            whole = op._node("Div", op._node("Shape", image.name, start=2, end=4), op._ints(p, q))
            op._emit("Split", (whole, op._ints(1, 1)), self.sides, axis=0)
            op._emit("Mul", self.sides, (PATCHES,))
            shape = op._node("Concat", op._ints(0, c), rows, op._ints(p), columns, op._ints(q), axis=0)
        with op._in(f"height and width must be multiples of {p} and {q}"):
            x = op._node("Reshape", image.name, shape)
        x = op._node("Reshape", op._node("Transpose", x, perm=[0, 2, 4, 1, 3, 5]), op._ints(-1, c * p * q))
        return Value(x, (BATCH, PATCHES, c * p * q), flat=True)

    def learned(self, op: OnnxOps, table: str) -> Value:
        """The stored table 1 (prefix + rows x columns) d for the grid at hand; the entries of the prefix as they are."""
        assert self.recipe is not None
        d, (h0, w0) = self.spec.dim, self.spec.grid
        prefix = self.spec.shapes()["pos_embed"][1] - h0 * w0
        with op._in("pos_embed"):
            rest = op._node("Slice", table, op._ints(prefix), op._ints(prefix + h0 * w0), op._ints(1)) if prefix else table
            same = op._node("And", *(op._node("Equal", n, op._ints(n0)) for n, n0 in zip(SIDES, (h0, w0), strict=True)))
            high, wide = (
                op._node("Cast", self._weights(op, n, n0, same), to=FLOAT) for n, n0 in zip(SIDES, (h0, w0), strict=True)
            )
            x = op._node("MatMul", high, op._node("Reshape", rest, op._ints(h0, w0 * d)))
            x = op._node("MatMul", wide, op._node("Reshape", x, op._ints(-1, w0, d)))
            x = op._node("Reshape", x, op._ints(1, -1, d))
            if prefix:
                first = op._node("Slice", table, op._ints(0), op._ints(prefix), op._ints(1))
                x = op._node("Concat", first, x, axis=1)
        return Value(x, (1, plus(PATCHES, prefix), d))

    def table(self, op: OnnxOps, path: str) -> Value:
        """Sines and cosines of `positions.py`: `pos_embed` 1 t d, `rope_cos` or `rope_sin` t 1 e/2."""
        if path == "pos_embed":
            return self._sincos(op)
        with op._in("rope"):
            turned = op._node("Cos" if path == "rope_cos" else "Sin", self._rotary(op))
            shape = (plus(PATCHES, self.spec.prefix_tokens), 1, self.spec.dim_head // 2)
            return Value(op._node("Cast", turned, to=FLOAT), shape)

    def _weights(self, op: OnnxOps, n: str, n0: int, same: str) -> str:
        """n x n0."""
        assert self.recipe is not None
        how = self.recipe
        places, count = _range(op, n), op._node("Cast", n, to=DOUBLE)
        if how.align_corners:
            gaps = op._node("Max", op._node("Sub", count, op._double(1.0)), op._double(1.0))
            step = op._node("Div", op._double(float(n0 - 1)), gaps)
            x = op._node("Mul", places, step)
        else:
            if how.offset:
                count = op._node("Add", count, op._node("Where", same, op._double(0.0), op._double(how.offset)))
            step = op._node("Div", op._double(float(n0)), count)
            half = op._double(0.5)
            x = op._node("Sub", op._node("Mul", op._node("Add", places, half), step), half)
        pad = 0 if how.antialias else 2 if how.mode == "bicubic" else 1  # neighbours outside, which count as the edge
        sources = op._doubles(*map(float, range(-pad, n0 + pad)))
        apart = op._node("Abs", op._node("Sub", op._node("Reshape", x, op._ints(-1, 1)), sources))
        if how.antialias:
            apart = op._node("Div", apart, op._node("Max", step, op._double(1.0)))
        weights = cubic(op, apart, -0.5 if how.antialias else -0.75) if how.mode == "bicubic" else linear(op, apart)
        if how.antialias:
            return op._node("Div", weights, op._node("ReduceSum", weights, op._ints(1), keepdims=1))
        clamped = np.eye(n0)[np.clip(np.arange(-pad, n0 + pad), 0, n0 - 1)]
        matrix = op._node("Reshape", op._doubles(*clamped.ravel().tolist()), op._ints(*clamped.shape))
        return op._node("MatMul", weights, matrix)

    def _sincos(self, op: OnnxOps) -> Value:
        with op._in("pos_embed"):
            steps = frequencies(self.spec.dim, last_included=self.spec.pos == "sincos_moco")
            y, x = (op._node("Mul", _column(op, _range(op, n)), op._doubles(*steps)) for n in SIDES)
            parts = [op._node(f, angle) for angle in (x, y) for f in ("Sin", "Cos")]
            whole = _over_the_grid(op, [(part, 1 - i // 2) for i, part in enumerate(parts)], len(steps))
            table = op._node("Cast", op._node("Reshape", whole, op._ints(1, -1, 4 * len(steps))), to=FLOAT)
        return Value(table, (1, PATCHES, 4 * len(steps)))

    def _rotary(self, op: OnnxOps) -> str:
        """Angles t 1 e/2; those of the prefix are zero."""
        if self._angles is None:
            turns = (2 * np.pi / periods(self.spec.dim_head)).tolist()
            angles = []
            for n in SIDES:
                doubled = op._node("Add", op._node("Mul", _range(op, n), op._double(2.0)), op._double(1.0))
                centres = op._node("Sub", op._node("Div", doubled, op._node("Cast", n, to=DOUBLE)), op._double(1.0))
                angles.append(op._node("Mul", _column(op, centres), op._doubles(*turns)))
            whole = _over_the_grid(op, [(angles[0], 0), (angles[1], 1)], len(turns))
            whole = op._node("Reshape", whole, op._ints(-1, 1, 2 * len(turns)))
            if self.spec.prefix_tokens:
                still = op._doubles(*[0.0] * (self.spec.prefix_tokens * 2 * len(turns)))
                still = op._node("Reshape", still, op._ints(self.spec.prefix_tokens, 1, 2 * len(turns)))
                whole = op._node("Concat", still, whole, axis=0)
            self._angles = whole
        return self._angles


def _range(op: OnnxOps, n: str) -> str:
    """0 to n - 1, double."""
    return op._node("Cast", op._node("Range", op._int(0), op._node("Squeeze", n), op._int(1)), to=DOUBLE)


def _column(op: OnnxOps, x: str) -> str:
    return op._node("Reshape", x, op._ints(-1, 1))


def _over_the_grid(op: OnnxOps, parts: list[tuple[str, int]], width: int) -> str:
    """Values of rows (axis 0) or columns (axis 1), each n x width, side by side for every patch: h w (parts width)."""
    shape = op._node("Concat", *SIDES, op._ints(width), axis=0)
    laid = [
        op._node("Expand", op._node("Reshape", part, op._ints(*((-1, 1) if axis == 0 else (1, -1)), width)), shape)
        for part, axis in parts
    ]
    return op._node("Concat", *laid, axis=2)
