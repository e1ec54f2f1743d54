"""Preprocessing as a part of the graph: bytes of an image of any size in, the model's input out.

Two forms. `preprocess` resizes by Resize operators on bytes, an axis at a time, which onnxruntime computes in integers as
Pillow does, but with other rounding. `preprocess-exact` has Pillow's own arithmetic: weights in units of 2^-22, bytes
between the two axes (Resample.c, its 8-bit passes); also before opset 18, whose Resize has no antialias. Which axis
comes first decides about a level in 2 % of the pixels; the rule is in `_vertical_first`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_zoo.errors import InputError
from vit_zoo.graph.builder import GraphBuilder
from vit_zoo.graph.interpolation import cubic, linear
from vit_zoo.graph.values import BATCH, DOUBLE, FLOAT, INT64, Value
from vit_zoo.model.preprocess import Preprocess

if TYPE_CHECKING:
    from vit_zoo.graph.options import Form

IMAGE = "image"  # b h w c, uint8
UNIT = 2.0**-22
CUBIC = -0.5  # the a of Pillow's bicubic


def prepared(g: GraphBuilder, how: Preprocess | None, form: Form, name: str) -> Value:
    """The input of the graph; nodes are added that make the value `name`, b c H W float32, of it."""
    if how is None:
        raise InputError("does not say how images are prepared, so that cannot be included")
    exact = form.include == "preprocess-exact"
    if not exact and form.opset < 18:
        raise InputError(f"preprocess at opset {form.opset}: Resize has no antialias before 18 (preprocess-exact does without)")
    image = Value(IMAGE, (BATCH, "height", "width", len(how.mean)))
    with g.scope("preprocess"):
        given = g.node("Shape", IMAGE, start=1, end=3)
        scaled = _scaled(g, given, how)
        first = _vertical_first(g, given, scaled)
        offset = _offset(g, scaled, how.size)
        levels = (_exact if exact else _resized)(g, given, scaled, first, offset, how)
        scale = g.floats(*(1 / (255 * std) for std in how.std))
        shift = g.floats(*(mean / std for mean, std in zip(how.mean, how.std, strict=True)))
        normalised = g.node("Sub", g.node("Mul", levels, scale), shift)
        g.emit("Transpose", (normalised,), (name,), perm=[0, 3, 1, 2])
    return image


def _scaled(g: GraphBuilder, given: str, how: Preprocess) -> str:
    """(height, width) before the crop, int64."""
    if not isinstance(how.resize_to, int):
        return g.ints(*(how.resize_to or how.size))
    return g.node("Div", g.node("Mul", given, g.ints(how.resize_to)), g.node("ReduceMin", given, keepdims=1))


def _offset(g: GraphBuilder, scaled: str, size: tuple[int, int]) -> str:
    """Where the crop begins, rounded half to even."""
    spare = g.node("Cast", g.node("Sub", scaled, g.ints(*size)), to=FLOAT)
    return g.node("Cast", g.node("Round", g.node("Mul", spare, g.float_(0.5))), to=INT64)


def _vertical_first(g: GraphBuilder, given: str, scaled: str) -> str:
    """Whether Pillow resizes the columns before the rows: where the height shrinks by more than twice what the width does.

    Read off its results: 4,844 random resizes by Pillow 13.0 in which the order shows.
    """
    shrinks = g.node("Sub", given, scaled)
    height, width = (g.node("Gather", shrinks, g.int_(axis)) for axis in (0, 1))
    more = g.node("Greater", height, g.node("Mul", width, g.int_(2)))
    return g.node("And", g.node("Greater", height, g.int_(0)), more)


def _resized(g: GraphBuilder, given: str, scaled: str, first: str, offset: str, how: Preprocess) -> str:
    """b H W c, whole levels in float32."""
    more = {"cubic_coeff_a": CUBIC} if how.interpolation == "bicubic" else {}
    mode = "cubic" if how.interpolation == "bicubic" else "linear"
    batch = g.node("Shape", IMAGE, start=0, end=1)
    axes = g.node("Reshape", first, g.ints(1)), g.node("Reshape", g.node("Not", first), g.ints(1))
    between = g.node("Where", g.node("Concat", *axes, axis=0), scaled, given)  # one axis of each
    x = IMAGE
    for size in (between, scaled):
        sizes = g.node("Concat", batch, size, g.ints(len(how.mean)), axis=0)
        x = g.node("Resize", x, "", "", sizes, mode=mode, antialias=1, exclude_outside=1, **more)
    if how.resize_to is not None:
        x = g.node("Slice", x, offset, g.node("Add", offset, g.ints(*how.size)), g.ints(1, 2))
    return g.node("Cast", x, to=FLOAT)


def _exact(g: GraphBuilder, given: str, scaled: str, first: str, offset: str, how: Preprocess) -> str:
    """The same, by a matrix product for each axis; only what the crop keeps is computed.

    Both orders are in the graph, and the whole batch goes through one of them, none of it through the other.
    """
    rows, columns = (_weights(g, given, scaled, offset, axis, how) for axis in (0, 1))
    batch = g.node("Shape", IMAGE, start=0, end=1)
    cut = g.node("Mul", batch, g.node("Cast", first, to=INT64))
    tall = g.node("Cast", g.node("Slice", IMAGE, g.ints(0), cut, g.ints(0)), to=DOUBLE)
    wide = g.node("Cast", g.node("Slice", IMAGE, cut, batch, g.ints(0)), to=DOUBLE)
    tall = _passes(g, g.node("Transpose", tall, perm=[0, 3, 2, 1]), rows, columns)  # b c H W
    wide = _passes(g, g.node("Transpose", wide, perm=[0, 3, 1, 2]), columns, rows)  # b c W H
    parts = g.node("Transpose", tall, perm=[0, 2, 3, 1]), g.node("Transpose", wide, perm=[0, 3, 2, 1])
    return g.node("Cast", g.node("Concat", *parts, axis=0), to=FLOAT)


def _passes(g: GraphBuilder, x: str, last: str, other: str) -> str:
    """The last axis resized, then the one before it; the two trade places.

    The weights are on the right, and no Transpose is in front of a product that it would be fused with: onnxruntime 1.30
    refuses a batch of none in either.
    """
    x = _levels(g, g.node("Transpose", g.node("MatMul", x, last), perm=[0, 1, 3, 2]))
    return _levels(g, g.node("MatMul", x, other))


def _levels(g: GraphBuilder, x: str) -> str:
    """Sums of units as bytes. The half is added before they are scaled: onnxruntime would else scale inside the product."""
    whole = g.node("Floor", g.node("Mul", g.node("Add", x, g.double(0.5 / UNIT)), g.double(UNIT)))
    return g.node("Clip", whole, g.double(0.0), g.double(255.0))


def _weights(g: GraphBuilder, given: str, scaled: str, offset: str, axis: int, how: Preprocess) -> str:
    """The share of each given row (or column) in each that is kept: given x kept, double, in whole units."""
    old, new, start = (g.node("Gather", x, g.int_(axis)) for x in (given, scaled, offset))
    step = g.node("Div", g.node("Cast", old, to=DOUBLE), g.node("Cast", new, to=DOUBLE))
    places = g.node("Add", start, g.ints(*range(how.size[axis])))
    centres = g.node("Mul", g.node("Add", g.node("Cast", places, to=DOUBLE), g.double(0.5)), step)
    pixels = g.node("Cast", g.node("Range", g.int_(0), old, g.int_(1)), to=DOUBLE)
    pixels = g.node("Reshape", g.node("Add", pixels, g.double(0.5)), g.ints(-1, 1))
    apart = g.node("Abs", g.node("Sub", pixels, centres))
    apart = g.node("Div", apart, g.node("Max", step, g.double(1.0)))
    raw = cubic(g, apart, CUBIC) if how.interpolation == "bicubic" else linear(g, apart)
    shares = g.node("Div", raw, g.node("ReduceSum", raw, g.ints(0), keepdims=1))
    return g.node("Floor", g.node("Add", g.node("Mul", shares, g.double(1 / UNIT)), g.double(0.5)))
