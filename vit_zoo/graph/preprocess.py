"""Preprocessing inside the graph: from an image of any size, uint8, to the model's input.

There are two kinds. `preprocess` resizes by Resize operators on bytes, one axis at a time, which onnxruntime computes in
integers as Pillow does, but with different rounding. `preprocess-exact` has Pillow's own arithmetic: weights in units of
2^-22, and bytes between the two axes (the 8-bit passes of Resample.c). It also works before opset 18, whose Resize is the
first with antialias. The order of the axes changes 2 % of the pixels by one level; `_vertical_first` has the rule.

Where the config states that floats are resized, both resize floats: nothing is rounded or clipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_zoo.errors import InputError
from vit_zoo.graph.builder import GraphBuilder
from vit_zoo.graph.interpolation import antialiased, cubic, linear
from vit_zoo.graph.values import BATCH, DOUBLE, FLOAT, INT64, Value
from vit_zoo.model.config import PREPROCESS
from vit_zoo.model.preprocess import Preprocess

if TYPE_CHECKING:
    from vit_zoo.graph.options import GraphOptions

IMAGE = "image"  # b h w c, uint8
UNIT = 2.0**-22
FAR = 1e6  # beyond all levels, which overshoot 0 to 255 a little
CUBIC = -0.5  # coefficient a of Pillow's bicubic kernel


def add_preprocessing(g: GraphBuilder, how: Preprocess | None, options: GraphOptions, name: str) -> Value:
    """Add the preprocessing `how`, which computes the value `name`, b c H W float32, and return the graph's input.

    Raises InputError if the model has no preprocessing, or if the opset is too low for `preprocess`.
    """
    if how is None:
        raise InputError("the config has no preprocessing to include", hint=f"state it: {PREPROCESS}", options=[PREPROCESS])
    exact = options.include == "preprocess-exact"
    if not exact and options.opset < 18:
        raise InputError(f"'preprocess' needs opset 18 or later, got {options.opset}; 'preprocess-exact' works at every opset")
    image = Value(IMAGE, (BATCH, "height", "width", len(how.mean)))
    with g.scope("preprocess"):
        original = g.node("Shape", IMAGE, start=1, end=3)
        scaled = _scaled(g, original, how)
        first = _vertical_first(g, original, scaled)
        offset = _offset(g, scaled, how)
        levels = (_exact if exact else _resized)(g, original, scaled, first, offset, how)
        scale = g.floats(*(1 / (255 * std) for std in how.std))
        shift = g.floats(*(mean / std for mean, std in zip(how.mean, how.std, strict=True)))
        normalised = g.node("Sub", g.node("Mul", levels, scale), shift)
        g.emit("Transpose", (normalised,), (name,), perm=[0, 3, 1, 2])
    return image


def _scaled(g: GraphBuilder, original: str, how: Preprocess) -> str:
    """Return (height, width) before the crop, int64."""
    if not isinstance(how.resize_to, int):
        return g.ints(*(how.resize_to or how.size))
    return g.node("Div", g.node("Mul", original, g.ints(how.resize_to)), g.node("ReduceMin", original, keepdims=1))


def _offset(g: GraphBuilder, scaled: str, how: Preprocess) -> str:
    """Return the top left corner of the crop, rounded as the config states, int64."""
    margin = g.node("Sub", scaled, g.ints(*how.size))
    if how.crop_rounding == "down":
        return g.node("Div", margin, g.int_(2))
    half = g.node("Mul", g.node("Cast", margin, to=FLOAT), g.float_(0.5))
    return g.node("Cast", g.node("Round", half), to=INT64)


def _vertical_first(g: GraphBuilder, original: str, scaled: str) -> str:
    """Return whether the height is resized before the width: the rule of `model/preprocess.py`."""
    shrinks = g.node("Sub", original, scaled)
    height, width = (g.node("Gather", shrinks, g.int_(axis)) for axis in (0, 1))
    more = g.node("Greater", height, g.node("Mul", width, g.int_(2)))
    return g.node("And", g.node("Greater", height, g.int_(0)), more)


def _resized(g: GraphBuilder, original: str, scaled: str, first: str, offset: str, how: Preprocess) -> str:
    """Resize by Resize operators, and crop: b H W c, float32; integers if bytes are resized."""
    more = {"cubic_coeff_a": CUBIC} if how.interpolation == "bicubic" else {}
    mode = "cubic" if how.interpolation == "bicubic" else "linear"
    batch = g.node("Shape", IMAGE, start=0, end=1)
    axes = g.node("Reshape", first, g.ints(1)), g.node("Reshape", g.node("Not", first), g.ints(1))
    between = g.node("Where", g.node("Concat", *axes, axis=0), scaled, original)  # one axis is scaled, the other is not yet
    x = IMAGE if how.resize_dtype == "uint8" else g.node("Cast", IMAGE, to=FLOAT)
    for size in (between, scaled):
        sizes = g.node("Concat", batch, size, g.ints(len(how.mean)), axis=0)
        x = g.node("Resize", x, "", "", sizes, mode=mode, antialias=1, exclude_outside=1, **more)
    if how.resize_to is not None:
        x = g.node("Slice", x, offset, g.node("Add", offset, g.ints(*how.size)), g.ints(1, 2))
    return g.node("Cast", x, to=FLOAT) if how.resize_dtype == "uint8" else x


def _exact(g: GraphBuilder, original: str, scaled: str, first: str, offset: str, how: Preprocess) -> str:
    """Resize by a matrix product for each axis, for the pixels inside the crop only: b H W c, float32.

    The values are integers if bytes are resized.
    The graph holds both orders of the axes. All images go through one of them, an empty batch through the other.
    """
    rows, columns = (_weights(g, original, scaled, offset, axis, how) for axis in (0, 1))
    batch = g.node("Shape", IMAGE, start=0, end=1)
    cut = g.node("Mul", batch, g.node("Cast", first, to=INT64))
    tall = g.node("Cast", g.node("Slice", IMAGE, g.ints(0), cut, g.ints(0)), to=DOUBLE)
    wide = g.node("Cast", g.node("Slice", IMAGE, cut, batch, g.ints(0)), to=DOUBLE)
    rounded = how.resize_dtype == "uint8"
    tall = _passes(g, g.node("Transpose", tall, perm=[0, 3, 2, 1]), rows, columns, rounded=rounded)  # b c H W
    wide = _passes(g, g.node("Transpose", wide, perm=[0, 3, 1, 2]), columns, rows, rounded=rounded)  # b c W H
    parts = g.node("Transpose", tall, perm=[0, 2, 3, 1]), g.node("Transpose", wide, perm=[0, 3, 2, 1])
    return g.node("Cast", g.node("Concat", *parts, axis=0), to=FLOAT)


def _passes(g: GraphBuilder, x: str, last: str, other: str, *, rounded: bool) -> str:
    """Resize the last axis, then the one before it, and swap the two; `rounded`: the sums are in units and become bytes.

    The weights are on the right, and no Transpose precedes a product that it could be fused with: onnxruntime 1.30 rejects
    an empty batch in both cases, and before 1.29 it has no kernel for the fused product of doubles.
    """
    between = _levels if rounded else _separated
    x = g.node("Transpose", g.node("MatMul", x, last), perm=[0, 1, 3, 2])
    x = g.node("MatMul", between(g, x), other)
    return _levels(g, x) if rounded else x


def _separated(g: GraphBuilder, x: str) -> str:
    """Return the same values behind an operator that onnxruntime neither removes nor fuses."""
    return g.node("Clip", x, g.double(-FAR), g.double(FAR))


def _levels(g: GraphBuilder, x: str) -> str:
    """Round sums of units to bytes. The half is added before scaling: otherwise onnxruntime scales inside the product."""
    rounded = g.node("Floor", g.node("Mul", g.node("Add", x, g.double(0.5 / UNIT)), g.double(UNIT)))
    return g.node("Clip", rounded, g.double(0.0), g.double(255.0))


def _weights(g: GraphBuilder, original: str, scaled: str, offset: str, axis: int, how: Preprocess) -> str:
    """Return the weight of each row (or column) of the image in each row of the crop: old x new, double.

    They are integers, in units, if bytes are resized.
    """
    old, new, start = (g.node("Gather", x, g.int_(axis)) for x in (original, scaled, offset))
    step = g.node("Div", g.node("Cast", old, to=DOUBLE), g.node("Cast", new, to=DOUBLE))
    places = g.node("Add", start, g.ints(*range(how.size[axis])))
    centres = g.node("Mul", g.node("Add", g.node("Cast", places, to=DOUBLE), g.double(0.5)), step)
    pixels = g.node("Cast", g.node("Range", g.int_(0), old, g.int_(1)), to=DOUBLE)
    pixels = g.node("Reshape", g.node("Add", pixels, g.double(0.5)), g.ints(-1, 1))
    distances = g.node("Abs", g.node("Sub", pixels, centres))

    def kernel(x: str) -> str:
        return cubic(g, x, CUBIC) if how.interpolation == "bicubic" else linear(g, x)

    weights = antialiased(g, distances, step, kernel, axis=0)
    if how.resize_dtype == "float32":
        return weights
    return g.node("Floor", g.node("Add", g.node("Mul", weights, g.double(1 / UNIT)), g.double(0.5)))
