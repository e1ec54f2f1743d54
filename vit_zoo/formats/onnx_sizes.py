"""Sizes that constants in a graph state: some operators make a result of any size out of a few numbers."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping

from vit_zoo.formats.onnx_wire import MAX_AXES, VARINTS, Operator, Tensor, unpacked

# 512 MiB of float32. A batch of 128 images of 3 x 384 x 384 has 57 million values, attention maps of 16 heads over 577 tokens
# 5 million for each image
MAX_VALUES = 1 << 27
MAX_STATED = 1 << 30  # values that all operators together make out of constants

Constants = Mapping[str, tuple[float, ...]]
Shapes = Mapping[str, tuple[int, ...]]


def stated_size(operator: Operator, constants: Constants, shapes: Shapes) -> float:
    """Return the least number of values in an operator's result, as far as constants state it, else 0.

    `constants` are the values of small tensors by name, `shapes` the shapes of initializers and inputs without free axes.
    """
    size = 0.0
    position = SHAPES.get(operator.type)
    if position is not None:
        size = _product(_input(operator, position, constants))
    elif operator.type in GROWING:
        factor = GROWING[operator.type](operator, constants)
        inputs = operator.inputs[:1]
        size = factor * max(1, math.prod(shapes.get(inputs[0], ()))) if inputs else 0.0
    pads = operator.attributes.get("pads")
    return max(size, _padded(pads.integers) if pads is not None else 0.0)


def _input(operator: Operator, position: int, constants: Constants) -> tuple[float, ...]:
    return constants.get(operator.inputs[position], ()) if len(operator.inputs) > position else ()


def _product(lengths: tuple[float, ...]) -> float:
    """Return the product of lengths; 0 and -1 stand for an axis that is copied, so they count as 1."""
    return math.prod(max(1.0, length) for length in lengths) if lengths else 0.0


def _padded(pads: tuple[float, ...]) -> float:
    """Return the size of an image of one pixel with this padding, which is listed by beginnings and then by ends."""
    half = len(pads) // 2
    return _product(tuple(1 + begin + end for begin, end in zip(pads[:half], pads[half:], strict=False)))


def _range(operator: Operator, constants: Constants) -> float:
    start, limit, delta = (next(iter(_input(operator, position, constants)), math.nan) for position in range(3))
    return abs((limit - start) / delta) if delta and not math.isnan(limit - start) else 0.0


def _resized(operator: Operator, constants: Constants) -> float:
    scales = max((_product(_input(operator, position, constants)) for position in (1, 2)), default=0.0)
    return max(scales, _product(_input(operator, 3, constants)))


SHAPES = {  # the input of each that is a shape or a size
    "ConstantOfShape": 0, "Expand": 1, "CenterCropPad": 1, "Col2Im": 1, "AffineGrid": 1, "MaxUnpool": 2,
    "BlackmanWindow": 0, "HammingWindow": 0, "HannWindow": 0, "MelWeightMatrix": 0,
}  # fmt: skip
# the factor by which each makes its first input larger
GROWING: dict[str, Callable[[Operator, Constants], float]] = {
    "Tile": lambda operator, constants: _product(_input(operator, 1, constants)),
    "OneHot": lambda operator, constants: _product(_input(operator, 1, constants)),
    "Pad": lambda operator, constants: _padded(_input(operator, 1, constants)),
    "EyeLike": lambda operator, constants: 1.0,
    "Range": _range,
    "Resize": _resized,
    "Upsample": _resized,
}

CODES = {
    1: "f",
    2: "B",
    3: "b",
    4: "H",
    5: "h",
    6: "i",
    7: "q",
    9: "?",
    10: "e",
    11: "d",
    12: "I",
    13: "Q",
}  # of `struct`, by type


def numbers(tensor: Tensor, most: int = MAX_AXES) -> tuple[float, ...] | None:
    """Return the values of a tensor of numbers with at most `most` of them, or None for others, and for external data."""
    code, count = CODES.get(tensor.type), math.prod(tensor.dims)
    if code is None or tensor.is_external or not 0 <= count <= most:
        return None
    values: list[float] = []
    for number, contents in tensor.content.items():
        for content in contents:
            if isinstance(content, int):
                values.append(content)
            elif not isinstance(content, bytes):
                return None
            elif number in VARINTS:
                try:
                    values += unpacked(content)
                except ValueError:  # not a sequence of integers
                    return None
            else:
                kind = code if number == 9 else {4: "f", 10: "d"}.get(number, "")
                size = struct.calcsize(kind) if kind else 0
                if not size or len(content) % size:
                    return None
                values += struct.unpack(f"<{len(content) // size}{kind}", content)
    signed = (value - (1 << 64) if isinstance(value, int) and value >> 63 else value for value in values)
    return tuple(signed) if len(values) == count else None
