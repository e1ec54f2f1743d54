"""ONNX operations for patches of images of any grids, padded to one length: positions of each image's grid, and a mask.

What is padded has no part in attention and pooling, so that the result for an image does not depend on the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_zoo.graph.interpolation import axis_weights
from vit_zoo.graph.onnx_ops import OnnxOps
from vit_zoo.graph.patch_inputs import GRIDS, MASK
from vit_zoo.graph.values import BATCH, DOUBLE, FLOAT, PATCHES, Dim, Heads, Scope, Value, plus
from vit_zoo.model.resize_recipes import Recipe

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

MASKED = -1e9  # added to the scores of tokens that are padding: their weights are exactly zero


class PatchOps(OnnxOps):
    """The operations for flat patches, b t (p q c)."""

    spec: ViTSpec
    recipe: Recipe  # of the positions, which are learned
    masks: dict[Dim, str]  # by the number of tokens
    biases: dict[Dim, str]

    def patches(self, image: Value, size: tuple[int, int]) -> Value:
        """Reorder the values of each patch: b t (p q c) -> b t (c p q)."""
        (p, q), c = size, self.spec.channels
        with self.scope("sizes"):
            self.emit("Shape", (image.name,), (PATCHES,), start=1, end=2)
        x = self.node("Transpose", self.node("Reshape", image.name, self.ints(-1, p * q, c)), perm=[0, 2, 1])
        return Value(self.node("Reshape", x, self.ints(-1, c * p * q)), image.shape, flat=True)

    def weight(self, m: Scope) -> Value:
        return self._positions(self.float_weight(m.path)) if m.path == "pos_embed" else super().weight(m)

    def mean(self, x: Value) -> Value:
        x = self.unflatten(x)
        mask = self.node("Unsqueeze", self._mask(x.shape[1]), self.ints(2))
        total = self._sum(self.node("Mul", x.name, mask))
        return Value(self.node("Div", total, self._sum(mask)), (x.shape[0], x.shape[2]))

    def attend(self, q: Heads, k: Heads, v: Heads, dropout: float, bias: Value | None = None) -> Value:
        bias = self._score_bias(k)
        if self.fuses_attention:  # onnxruntime's operator repeats a mask for the heads, but not for the queries
            queries = q.x.shape[1]
            shape = self._shape(1, queries, k.x.shape[1])
            with self.scope("mask"):
                shape = self.node("Concat", self.lengths(MASK, 0, 1), shape, axis=0)
                bias = Value(self.node("Expand", bias.name, shape), (BATCH, 1, queries, k.x.shape[1]))
        return super().attend(q, k, v, dropout, bias)

    def attention_weights(self, q: Heads, k: Heads, bias: Value | None = None) -> Value:
        return super().attention_weights(q, k, self._score_bias(k))

    def _sum(self, x: str) -> str:
        return self.node("ReduceSum", x, self.ints(1), keepdims=0)

    def _mask(self, tokens: Dim) -> str:
        """Return 1 for tokens and 0 for padding: b t, with the tokens before the patches where `tokens` counts them."""
        if tokens not in self.masks:
            with self.scope("mask"):
                mask = self.node("Cast", MASK, to=FLOAT)
                if tokens != PATCHES:
                    prefix = self.spec.prefix_tokens
                    shape = self.node("Concat", self.lengths(MASK, 0, 1), self.ints(prefix), axis=0)
                    mask = self.node("Concat", self.node("Expand", self.float_(1.0), shape), mask, axis=1)
                self.masks[tokens] = mask
        return self.masks[tokens]

    def _score_bias(self, k: Heads) -> Value:
        """Return what is added to the scores of tokens: 0, or `MASKED` for padding."""
        tokens = k.x.shape[1]
        if tokens not in self.biases:
            mask = self._mask(tokens)
            with self.scope("mask"):
                bias = self.node("Mul", self.node("Sub", self.float_(1.0), mask), self.float_(MASKED))
                self.biases[tokens] = self.node("Unsqueeze", bias, self.ints(1, 2))
        return Value(self.biases[tokens], (BATCH, 1, 1, tokens))

    def _positions(self, table: str) -> Value:
        """Interpolate the stored positions, 1 (prefix + rows x columns) d, for the grid of each image: b (prefix + t) d."""
        d, (h0, w0) = self.spec.dim, self.spec.grid
        prefix = self.spec.shapes()["pos_embed"][1] - h0 * w0
        with self.scope("pos_embed"):
            rest = self.node("Slice", table, self.ints(prefix), self.ints(prefix + h0 * w0), self.ints(1)) if prefix else table
            height, width = self.results("Split", 2, GRIDS, self.ints(1, 1), axis=1)  # b 1
            numbers = self.node("Range", self.int_(0), self.node("Squeeze", PATCHES), self.int_(1))  # of the patches
            row = self.node("Min", self.node("Div", numbers, width), self.node("Sub", height, self.int_(1)))  # b t
            column = self.node("Mod", numbers, width)
            sizes = (height, h0), (width, w0)
            same = self.node("And", *(self.node("Equal", length, self.int_(n0)) for length, n0 in sizes))
            weights = [self._weights(place, *size, same) for place, size in zip((row, column), sizes, strict=True)]  # b t n0
            vertical, horizontal = (self.node("Unsqueeze", each, self.ints(3 - i)) for i, each in enumerate(weights))
            both = self.node("Reshape", self.node("Mul", vertical, horizontal), self.ints(0, 0, h0 * w0))
            x = self.node("MatMul", both, self.node("Reshape", rest, self.ints(h0 * w0, d)))
            value = Value(x, (BATCH, PATCHES, d))
            if not prefix:
                return value
            first = self.node("Slice", table, self.ints(0), self.ints(prefix), self.ints(1))
            first = self._expand(Value(first, (1, prefix, d))).name
            return Value(self.node("Concat", first, x, axis=1), (BATCH, plus(PATCHES, prefix), d))

    def _weights(self, place: str, length: str, n0: int, same: str) -> str:
        """Return the weights of the stored rows or columns for each patch, b t n0, from its own one and their number."""
        place, length = (self.node("Unsqueeze", self.node("Cast", x, to=DOUBLE), self.ints(2)) for x in (place, length))
        same = self.node("Unsqueeze", same, self.ints(2))
        return self.node("Cast", axis_weights(self, place, length, n0, self.recipe, same), to=FLOAT)


def patch_ops(ops: type[OnnxOps], spec: ViTSpec, recipe: Recipe) -> type[OnnxOps]:
    """Return operations for patches: those of a precision, for images of any grids."""
    more: dict[str, Any] = {"spec": spec, "recipe": recipe, "masks": {}, "biases": {}}
    return type(f"Patch{ops.__name__}", (PatchOps, ops), more)
