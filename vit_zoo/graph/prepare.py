"""Preprocessing as a part of the graph: bytes of an image of any size in, the model's input out.

Two forms. `preprocess` resizes by Resize operators on bytes, an axis at a time, which onnxruntime computes in integers as
Pillow does, but with other rounding. `preprocess-exact` has Pillow's own arithmetic: weights in units of 2^-22, bytes
between the two axes (Resample.c, its 8-bit passes); also before opset 18, whose Resize has no antialias. Which axis
comes first decides about a level in 2 % of the pixels; the rule is in `_vertical_first`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_zoo.errors import InputError
from vit_zoo.graph.kernels import cubic, linear
from vit_zoo.graph.onnx_ops import OnnxOps
from vit_zoo.graph.values import BATCH, DOUBLE, FLOAT, INT64, Value
from vit_zoo.preprocess import Preprocess

if TYPE_CHECKING:
    from vit_zoo.graph.form import Form

IMAGE = "image"  # b h w c, uint8
UNIT = 2.0**-22
CUBIC = -0.5  # the a of Pillow's bicubic


def prepared(op: OnnxOps, how: Preprocess | None, form: Form, name: str) -> Value:
    """The input of the graph; nodes are added that make the value `name`, b c H W float32, of it."""
    if how is None:
        raise InputError("does not say how images are prepared, so that cannot be included")
    exact = form.include == "preprocess-exact"
    if not exact and form.opset < 18:
        raise InputError(f"preprocess at opset {form.opset}: Resize has no antialias before 18 (preprocess-exact does without)")
    image = Value(IMAGE, (BATCH, "height", "width", len(how.mean)))
    with op._in("preprocess"):
        given = op._node("Shape", IMAGE, start=1, end=3)
        scaled = _scaled(op, given, how)
        first = _vertical_first(op, given, scaled)
        offset = _offset(op, scaled, how.size)
        levels = (_exact if exact else _resized)(op, given, scaled, first, offset, how)
        scale = op._floats(*(1 / (255 * std) for std in how.std))
        shift = op._floats(*(mean / std for mean, std in zip(how.mean, how.std, strict=True)))
        normalised = op._node("Sub", op._node("Mul", levels, scale), shift)
        op._emit("Transpose", (normalised,), (name,), perm=[0, 3, 1, 2])
    return image


def _scaled(op: OnnxOps, given: str, how: Preprocess) -> str:
    """(height, width) before the crop, int64."""
    if not isinstance(how.resize_to, int):
        return op._ints(*(how.resize_to or how.size))
    return op._node("Div", op._node("Mul", given, op._ints(how.resize_to)), op._node("ReduceMin", given, keepdims=1))


def _offset(op: OnnxOps, scaled: str, size: tuple[int, int]) -> str:
    """Where the crop begins, rounded half to even."""
    spare = op._node("Cast", op._node("Sub", scaled, op._ints(*size)), to=FLOAT)
    return op._node("Cast", op._node("Round", op._node("Mul", spare, op._float(0.5))), to=INT64)


def _vertical_first(op: OnnxOps, given: str, scaled: str) -> str:
    """Whether Pillow resizes the columns before the rows: where the height shrinks by more than twice what the width does.

    Read off its results: 4,844 random resizes by Pillow 13.0 in which the order shows.
    """
    shrinks = op._node("Sub", given, scaled)
    height, width = (op._node("Gather", shrinks, op._int(axis)) for axis in (0, 1))
    more = op._node("Greater", height, op._node("Mul", width, op._int(2)))
    return op._node("And", op._node("Greater", height, op._int(0)), more)


def _resized(op: OnnxOps, given: str, scaled: str, first: str, offset: str, how: Preprocess) -> str:
    """b H W c, whole levels in float32."""
    more = {"cubic_coeff_a": CUBIC} if how.interpolation == "bicubic" else {}
    mode = "cubic" if how.interpolation == "bicubic" else "linear"
    batch = op._node("Shape", IMAGE, start=0, end=1)
    axes = op._node("Reshape", first, op._ints(1)), op._node("Reshape", op._node("Not", first), op._ints(1))
    between = op._node("Where", op._node("Concat", *axes, axis=0), scaled, given)  # one axis of each
    x = IMAGE
    for size in (between, scaled):
        sizes = op._node("Concat", batch, size, op._ints(len(how.mean)), axis=0)
        x = op._node("Resize", x, "", "", sizes, mode=mode, antialias=1, exclude_outside=1, **more)
    if how.resize_to is not None:
        x = op._node("Slice", x, offset, op._node("Add", offset, op._ints(*how.size)), op._ints(1, 2))
    return op._node("Cast", x, to=FLOAT)


def _exact(op: OnnxOps, given: str, scaled: str, first: str, offset: str, how: Preprocess) -> str:
    """The same, by a matrix product for each axis; only what the crop keeps is computed.

    Both orders are in the graph, and the whole batch goes through one of them, none of it through the other.
    """
    rows, columns = (_weights(op, given, scaled, offset, axis, how) for axis in (0, 1))
    batch = op._node("Shape", IMAGE, start=0, end=1)
    cut = op._node("Mul", batch, op._node("Cast", first, to=INT64))
    tall = op._node("Cast", op._node("Slice", IMAGE, op._ints(0), cut, op._ints(0)), to=DOUBLE)
    wide = op._node("Cast", op._node("Slice", IMAGE, cut, batch, op._ints(0)), to=DOUBLE)
    tall = _passes(op, op._node("Transpose", tall, perm=[0, 3, 2, 1]), rows, columns)  # b c H W
    wide = _passes(op, op._node("Transpose", wide, perm=[0, 3, 1, 2]), columns, rows)  # b c W H
    parts = op._node("Transpose", tall, perm=[0, 2, 3, 1]), op._node("Transpose", wide, perm=[0, 3, 2, 1])
    return op._node("Cast", op._node("Concat", *parts, axis=0), to=FLOAT)


def _passes(op: OnnxOps, x: str, last: str, other: str) -> str:
    """The last axis resized, then the one before it; the two trade places.

    The weights are on the right, and no Transpose is in front of a product that it would be fused with: onnxruntime 1.30
    refuses a batch of none in either.
    """
    x = _levels(op, op._node("Transpose", op._node("MatMul", x, last), perm=[0, 1, 3, 2]))
    return _levels(op, op._node("MatMul", x, other))


def _levels(op: OnnxOps, x: str) -> str:
    """Sums of units as bytes. The half is added before they are scaled: onnxruntime would else scale inside the product."""
    whole = op._node("Floor", op._node("Mul", op._node("Add", x, op._double(0.5 / UNIT)), op._double(UNIT)))
    return op._node("Clip", whole, op._double(0.0), op._double(255.0))


def _weights(op: OnnxOps, given: str, scaled: str, offset: str, axis: int, how: Preprocess) -> str:
    """The share of each given row (or column) in each that is kept: given x kept, double, in whole units."""
    old, new, start = (op._node("Gather", x, op._int(axis)) for x in (given, scaled, offset))
    step = op._node("Div", op._node("Cast", old, to=DOUBLE), op._node("Cast", new, to=DOUBLE))
    places = op._node("Add", start, op._ints(*range(how.size[axis])))
    centres = op._node("Mul", op._node("Add", op._node("Cast", places, to=DOUBLE), op._double(0.5)), step)
    pixels = op._node("Cast", op._node("Range", op._int(0), old, op._int(1)), to=DOUBLE)
    pixels = op._node("Reshape", op._node("Add", pixels, op._double(0.5)), op._ints(-1, 1))
    apart = op._node("Abs", op._node("Sub", pixels, centres))
    apart = op._node("Div", apart, op._node("Max", step, op._double(1.0)))
    raw = cubic(op, apart, CUBIC) if how.interpolation == "bicubic" else linear(op, apart)
    shares = op._node("Div", raw, op._node("ReduceSum", raw, op._ints(0), keepdims=1))
    return op._node("Floor", op._node("Add", op._node("Mul", shares, op._double(1 / UNIT)), op._double(0.5)))
