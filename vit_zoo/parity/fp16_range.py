"""Headroom of float16 files: how far their largest inner value is from the limit of float16, above which it is infinite."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.formats.structure import MATRIX_PRODUCTS
from vit_zoo.parity.bisect import MOST_READ, chunks, inner_values_of

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.sessions import Sessions

LIMIT = 65504.0  # the largest float16
HALF = 10  # TensorProto.DataType


def headroom(checked: Sessions, images: Array, batch: int) -> float | None:
    """Return the factor by which the largest float16 value in the graph could grow before it overflows.

    The file runs on the images in batches of size `batch`. The factor covers the inputs and results of matrix products, but
    not weights. It is None if the graph computes nothing in float16, or too many values to read them all.
    """
    graph = skeleton(checked.path)
    activations = {value.name for value in graph.proto.graph.input}
    halves: list[str] = []
    for node in graph.nodes:
        if not activations & set(node.input):
            continue
        activations |= set(node.output)
        cast = [a.i for a in node.attribute if a.name == "to"]
        if cast == [HALF] or node.op_type in MATRIX_PRODUCTS:
            halves += node.output
    largest = 0.0
    if len(halves) > MOST_READ:
        return None
    stack = np.resize(images, (-(-len(images) // batch) * batch, *images.shape[1:]))  # repeats images to fill the last batch
    for names, x in product(chunks(halves), np.split(stack, len(stack) // batch)):
        for value in inner_values_of(checked, graph.proto.graph, names, x).values():
            if value.dtype == np.float16:
                largest = max(largest, float(np.abs(value.astype("<f4")).max(initial=0)))
    return LIMIT / largest if largest else None
