"""Makers of ONNX files: the valid model after a change, and small ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from corpus.entry import Maker, content

Change = Callable[[onnx.ModelProto], None]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
GIB_8 = [2, 2**15, 2**15]  # floats: 8 GiB


def valid(folder: Path) -> onnx.ModelProto:
    """Return the valid model, as another tool would have written it."""
    return onnx.load(folder.parent.parent / "base" / "foreign.onnx")


def write(folder: Path, model: onnx.ModelProto, name: str = "m.onnx") -> None:
    (folder / name).write_bytes(model.SerializeToString(deterministic=True))


def changed(change: Change) -> Maker:
    """Return a maker of the valid model after a change."""

    def make(folder: Path) -> None:
        model = valid(folder)
        change(model)
        write(folder, model)

    return make


def raw(change: Callable[[bytes], bytes]) -> Maker:
    """Return a maker of the valid model's bytes after a change."""
    return lambda folder: content("m.onnx", change(valid(folder).SerializeToString(deterministic=True)))(folder)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(","), outputs.split(","), **attributes)


def tensor(name: str, values: Any, dtype: Any = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def extra(*nodes: onnx.NodeProto, weights: list[TensorProto] | None = None, place: int = 0) -> Maker:
    """Return a maker of the valid model with more nodes, which read `pixel_values`.

    Where a node has the output `more`, its sum times zero is added to the logits, so that the runtime cannot leave it out.
    """

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        graph.initializer.extend(weights or [])
        before = list(graph.node)
        inner = list(nodes)
        if any("more" in one.output for one in nodes):
            last = next(one for one in before if "logits" in one.output)
            last.output[0] = "logits_before"
            graph.initializer.append(tensor("nought", 0, np.float32))
            last_nodes = [
                node("ReduceSum", "more", "more_sum", keepdims=0), node("Mul", "more_sum,nought", "more_zero"),
                node("Add", "logits_before,more_zero", "logits"),
            ]  # fmt: skip
        else:
            last_nodes = []
        del graph.node[:]
        graph.node.extend([*before[:place], *inner, *before[place:], *last_nodes])

    return changed(change)


def graph_of(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any] = [], **model: Any) -> Maker:  # noqa: B006
    """Return a maker of a model of its own."""

    def make(folder: Path) -> None:
        graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
        write(folder, helper.make_model(graph, **{"opset_imports": [helper.make_opsetid("", 20)], "ir_version": 9} | model))

    return make


def value(name: str, shape: Any, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


IMAGES = value("pixel_values", ["batch", 3, 16, 16])
LOGITS = value("logits", ["batch", 3])
# images to logits, as simply as possible
HEAD = [node("GlobalAveragePool", "pixel_values", "pooled"), node("Flatten", "pooled", "logits")]


def small(*nodes: onnx.NodeProto, inputs: list[Any] | None = None, outputs: list[Any] | None = None, **rest: Any) -> Maker:
    """Return a maker of a small model: images to their mean colours, and more nodes."""
    return graph_of([*HEAD, *nodes], inputs or [IMAGES], outputs or [LOGITS], **rest)
