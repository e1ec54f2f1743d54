"""Patch projections that are stored flat: how long the rows and columns of a patch are, the file does not say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vit_zoo.errors import InputError
from vit_zoo.weights.infer import pair


def flat_patch(length: int, facts: Mapping[str, Any]) -> dict[str, int]:
    """Rows p, columns q and channels c, whose product the file holds: square and of three unless the facts say more."""
    channels = facts.get("channels", 3)
    area = length // channels
    p, q = pair(facts.get("patch_size", math.isqrt(area)))
    if p * q * channels != length:
        raise InputError(f"a patch has {area} pixels of {channels} channels: state patch_size (and channels)")
    return {"p": p, "q": q, "c": channels}
