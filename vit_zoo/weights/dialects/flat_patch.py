"""Patch projections that are stored flat, so that the file holds only the product of rows, columns and channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vit_zoo.errors import InputError, RefusedContent, fact
from vit_zoo.weights.dialect import Shapes
from vit_zoo.weights.infer import pair


def flat_patch(shapes: Shapes, kernel: str, axis: int, facts: Mapping[str, Any]) -> dict[str, int]:
    """The rows p, columns q and channels c of a patch: square, with three channels, unless the facts state otherwise.

    Their product is the length of this axis of the kernel, which has two. Raises InputError for facts that do not give it,
    RefusedContent for a kernel of another shape.
    """
    if len(shapes.get(kernel, ())) != 2:
        raise RefusedContent(f"has no usable tensor {kernel!r}: expected a patch projection with 2 axes")
    length, channels = shapes[kernel][axis], facts.get("channels", 3)
    area = length // channels
    p, q = pair(facts.get("patch_size", math.isqrt(area)))
    if p * q * channels != length:
        cause = f"cannot infer the patch size of {length} values in {channels} channels"
        size = fact("patch_size", "HEIGHT,WIDTH")
        raise InputError(cause, hint=f"state {size}, and channels if there are not three", options=[size])
    return {"p": p, "q": q, "c": channels}
