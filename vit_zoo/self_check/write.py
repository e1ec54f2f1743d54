"""Making of a self-check from expected outputs: what is kept of them, and the tolerance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.self_check.document import LARGEST, LONGEST, Input, Output, SelfCheckDocument
from vit_zoo.self_check.recipe import reduced

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

# Smallest tolerances, relative to the largest value. onnxruntime, OpenVINO and onnxruntime-web differ from float64 by 2e-7 to
# 2e-6, the tanh form of GELU by 5e-5 or more. bf16 files compute in float32 with weights that are rounded in the expected
# values too. An int8 file is compared with itself: its integers are the same everywhere, but a float just before rounding may
# fall on the other side. The bytes that Resize makes of an image differ by one level between runtimes.
RELATIVE = {"fp32": 5e-6, "bf16": 5e-6, "fp16": 5e-3, "int8": 3e-2, "preprocess": 1e-2}
FLOOR_FACTOR = 4  # onnxruntime differed by at most 2.9 times as much from float64 as torch in float32
ILL_CONDITIONED = 2e-2  # largest tolerance, for outputs that float32 cannot compute any better
COUNTS = (16, 8, 4)  # values of each image that are compared one by one, the most that fit
DIGITS = 9


def tolerance(precision: str, floor: float) -> float:
    """Return the relative difference allowed for a precision in `RELATIVE`.

    `floor` is the relative difference of float32 from float64. It varies a little between machines, so what it allows is rounded
    up to a power of ten: equal models then give equal files.
    """
    wanted = FLOOR_FACTOR * floor
    if not wanted > RELATIVE[precision]:  # or NaN, of values that are not finite
        return RELATIVE[precision]
    return min(float(f"1e{math.ceil(math.log10(wanted) - 1e-9)}"), ILL_CONDITIONED)


def selfcheck_of(
    input_: Input, expected: Mapping[str, Array], tolerances: Mapping[str, float], batch: int
) -> SelfCheckDocument | None:
    """Return the self-check of a file; None if an output is not finite, or if all of them are too large.

    `expected` holds the outputs of both images, each 2 ..., in the file's order. If the document would be longer than 4 KiB, it
    has fewer values of each output, and then fewer of the inner outputs such as `block.3`. Outputs of more than LARGEST values
    are left out too.
    """
    if not all(np.isfinite(x).all() for x in expected.values()):
        return None
    names = [name for name, x in expected.items() if batch * x[0].size <= LARGEST]
    left_out = [name for name in expected if name not in names]
    while names:
        for count in COUNTS:
            outputs = tuple(_output(name, expected[name], tolerances[name], batch, count) for name in names)
            document = SelfCheckDocument(input=input_, outputs=outputs, left_out=tuple(left_out))
            if len(document.dumps()) <= LONGEST:
                return document
        inner = [name for name in names if "." in name] or names
        names.remove(inner[-1])
        left_out.insert(0, inner[-1])
    return None


def _output(name: str, expected: Array, allowed: float, batch: int, count: int) -> Output:
    images = [reduced(image, count) for image in expected]
    return Output(
        name=name,
        shape=(batch, *expected.shape[1:]),
        tolerance=allowed,
        largest=_pair([float(np.abs(image).max()) for image in expected]),
        norm=_pair([image.norm for image in images]),
        projection=_pair([image.projection for image in images]),
        values=(_rounded(images[0].values), _rounded(images[1].values)),
    )


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)


def _pair(values: Sequence[float]) -> tuple[float, float]:
    first, second = _rounded(values)
    return first, second
