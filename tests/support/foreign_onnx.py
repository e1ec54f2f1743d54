"""Small ONNX classifiers as another tool would write them, with one thing changed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES = (3, 8, 8), 10
WEIGHT = np.random.default_rng(0).normal(size=(3 * 8 * 8, CLASSES)).astype("<f4")

value, node = helper.make_tensor_value_info, helper.make_node


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def raw_tensor(kind, dims, data=b"", name="c"):
    """A tensor with any type, shape and bytes, which need not fit each other."""
    tensor = onnx.TensorProto(name=name, data_type=kind, raw_data=data)
    tensor.dims.extend(dims)
    return tensor


def classifier(
    nodes=(), last="x", *, constants=(), inputs=None, outputs=None, tail=True, opset=17, ir_version=8, domains=(), functions=()
):
    """A model that computes `nodes` of the image x, flattens the value `last`, and multiplies it by a matrix."""
    nodes, constants = list(nodes), list(constants)
    if tail:
        nodes += [node("Flatten", [last], ["flat"]), node("MatMul", ["flat", "W"], ["logits"])]
        constants.append(constant("W", WEIGHT))
    graph = helper.make_graph(
        nodes, "theirs", inputs or [value("x", TensorProto.FLOAT, ["b", *SIZE])],
        outputs or [value("logits", TensorProto.FLOAT, ["b", CLASSES])], constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions))


def summed(nodes, name, *constants):
    """A classifier that adds the sum of a value, which may be large, to the image."""
    nodes = [*nodes, node("ReduceSum", [name], ["sum"], keepdims=0), node("Add", ["x", "sum"], ["more"])]
    return classifier(nodes, "more", constants=constants)


def chain(count):
    """Operators that each read the one before, and the name of the last value."""
    names = ["x", *(f"v{i}" for i in range(count))]
    return [node("Relu", [a], [b]) for a, b in pairwise(names)], names[-1]


def reversed_nodes(model):
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
