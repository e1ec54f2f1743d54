"""How far the float16 values in a file are from float16's limit, where they would become infinite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.formats.skeleton import skeleton
from vit_zoo.parity.parting import chunks, values_in
from vit_zoo.parity.structure import COSTLY

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

LIMIT = 65504.0  # the largest float16
HALF = 10  # TensorProto.DataType


def headroom(path: Path, images: Array) -> float | None:
    """By which factor the largest float16 value that these images cause could grow; None: there is none.

    Looked at are the results of matrix products and what goes into them, weights left out.
    """
    read = skeleton(path)
    live = {value.name for value in read.proto.graph.input}
    halves: list[str] = []
    for node in read.nodes:
        if not live & set(node.input):
            continue
        live |= set(node.output)
        cast = [a.i for a in node.attribute if a.name == "to"]
        if cast == [HALF] or node.op_type in COSTLY:
            halves += node.output
    largest = 0.0
    for names in chunks(halves):
        for value in values_in(path, read.proto.graph, names, images).values():
            if value.dtype == np.float16:
                largest = max(largest, float(np.abs(value.astype("<f4")).max(initial=0)))
    return LIMIT / largest if largest else None
