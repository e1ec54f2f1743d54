"""Patch projections that are stored flat, so that the file holds only the product of rows, columns and channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vit_zoo.errors import InputError, fact
from vit_zoo.weights.infer import pair


def flat_patch(length: int, facts: Mapping[str, Any]) -> dict[str, int]:
    """The rows p, columns q and channels c of a patch: square, with three channels, unless the facts state otherwise.

    `length` is their product. Raises InputError for facts that do not give it.
    """
    channels = facts.get("channels", 3)
    area = length // channels
    p, q = pair(facts.get("patch_size", math.isqrt(area)))
    if p * q * channels != length:
        cause = f"cannot infer the patch size of {length} values in {channels} channels"
        size = fact("patch_size", "HEIGHT,WIDTH")
        raise InputError(cause, hint=f"state {size}, and channels if there are not three", options=[size])
    return {"p": p, "q": q, "c": channels}
