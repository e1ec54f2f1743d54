"""How far the float16 values in a file are from float16's limit, where they would become infinite."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.formats.structure import COSTLY
from vit_zoo.parity.bisect import chunks, values_in

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

LIMIT = 65504.0  # the largest float16
HALF = 10  # TensorProto.DataType


def headroom(path: Path, images: Array, batch: int) -> float | None:
    """By which factor the largest float16 value that these images cause, in such batches, could grow; None: there is none.

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
    stack = np.resize(images, (-(-len(images) // batch) * batch, *images.shape[1:]))  # the first again, to fill the last batch
    for names, some in product(chunks(halves), np.split(stack, len(stack) // batch)):
        for value in values_in(path, read.proto.graph, names, some).values():
            if value.dtype == np.float16:
                largest = max(largest, float(np.abs(value.astype("<f4")).max(initial=0)))
    return LIMIT / largest if largest else None
