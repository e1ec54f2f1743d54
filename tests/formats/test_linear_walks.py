"""Tests of walks over graphs of any shape: each part is looked at once, so large, unsorted or broken graphs take no longer.

Quadratic work on these graphs would take minutes to hours, so it exceeds the limit whatever else the machine does.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from support.foreign_onnx import chain, classifier, constant, node, raw_tensor, reversed_nodes
from vit_zoo.formats.onnx_admission import check_runnable
from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.formats.onnx_summary import summarise
from vit_zoo.formats.structure import read_onnx
from vit_zoo.parity.saturation import integer_products
from vit_zoo.parity.value_search import _first_after, _image_dependent

COUNT = 20_000
SECONDS = 30  # of CPU; each takes about one


@pytest.fixture(autouse=True)
def _limited():
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def saved(model):
    Path("m.onnx").write_bytes(model.SerializeToString())
    return Path("m.onnx")


def dequantised(count, *, backwards=False):
    """A product of a dequantised image and of weights that pass `count` operators which change nothing."""
    nodes = [node("DequantizeLinear", ["q", "s"], ["d0"])]
    nodes += [node("Identity", [f"d{i}"], [f"d{i + 1}"]) for i in range(count)]
    nodes += [node("QuantizeLinear", ["x", "s", "z"], ["xq"]), node("DequantizeLinear", ["xq", "s", "z"], ["xd"])]
    nodes += [node("Flatten", ["xd"], ["f"]), node("MatMul", ["f", f"d{count}"], ["logits"])]
    weights = [constant("q", np.full((192, 10), 127, "i1")), constant("s", np.float32(0.1)), constant("z", np.uint8(0))]
    model = classifier(nodes, constants=weights, tail=False)
    return reversed_nodes(model) if backwards else model


GRAPHS = {
    "a chain": lambda: classifier(*chain(COUNT)),
    "a chain backwards": lambda: reversed_nodes(classifier(*chain(COUNT))),
    "side by side": lambda: classifier([node("Relu", ["x"], [f"w{i}"]) for i in range(COUNT)]),
    "many inputs": lambda: classifier([node("Max", ["x"] * 200_000, ["y"])], "y"),
    "sigmoids of one product": lambda: classifier(
        [node("Mul", ["x"] * (COUNT // 2), ["m"]), *(node("Sigmoid", ["m"], [f"s{i}"]) for i in range(COUNT // 2))]
    ),
    "names that occur often": lambda: classifier([node("Relu", ["x"], ["y"]) for _ in range(COUNT)], "y"),
    "scalars": lambda: classifier(constants=[constant(f"c{i}", np.float32(i)) for i in range(COUNT)]),
    "reordered weights": lambda: dequantised(COUNT),
    "reordered weights backwards": lambda: dequantised(COUNT, backwards=True),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_large_graphs_are_described(name, folder):
    path = saved(GRAPHS[name]())
    summary = summarise(path)
    assert sum(summary.operators.values()) == len(skeleton(path).nodes)
    integer_products(path)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_search_for_a_value_visits_each_operator_once(backwards):
    graph = classifier(*chain(COUNT)).graph
    graph = reversed_nodes(classifier(*chain(COUNT))).graph if backwards else graph
    producers = _image_dependent(graph)
    assert len(producers) == COUNT + 3
    assert _first_after(graph, {producers[f"v{COUNT - 1}"]}) == min(producers["flat"], producers["logits"])


def test_a_reversed_graph_of_an_admitted_size_is_sorted_in_one_pass(folder):
    check_runnable(saved(reversed_nodes(classifier(*chain(25_000)))))


BROKEN = {
    "no inputs": [node(kind, [], [kind]) for kind in ("Tanh", "Sigmoid", "Add", "Mul", "Gelu", "MatMul", "Transpose")],
    "chain of no inputs": [
        node("Sub", [], ["a"]), node("Pow", ["a"], ["b"]), node("ReduceMean", ["b"], ["c"]), node("Add", ["c"], ["d"]),
        node("Mul", [], ["e"]), node("Tanh", ["e"], ["f"]), node("DequantizeLinear", [], ["g"]),
        node("MatMul", ["g", "g"], ["h"]),
    ],
    "no outputs": [node("Constant", [], [], value=constant("c", np.float32(1))), node("Tanh", ["x"], [])],
    "no attributes": [node("Constant", [], ["c"]), node("LayerNormalization", ["x"], ["y"])],
    "other attributes": [node("Constant", [], ["c"], value=1), node("Constant", [], ["d"], value_strings=["a"])],
    "a cycle": [node("Identity", ["b"], ["a"]), node("Identity", ["a"], ["b"]), node("MatMul", ["a", "b"], ["c"])],
}  # fmt: skip
TENSORS = {
    "complex": raw_tensor(14, [1], bytes(8)), "undefined": raw_tensor(0, [1], bytes(4)), "999": raw_tensor(999, [1], bytes(4)),
    "empty": raw_tensor(1, [1]), "short": raw_tensor(1, [1], bytes(3)), "negative": raw_tensor(1, [-1], bytes(4)),
    "huge": raw_tensor(1, [2**62, 2**62], bytes(4)), "strings": onnx.helper.make_tensor("c", 8, [1], [b"x"]),
    "empty integers": raw_tensor(7, [1]), "negative bytes": raw_tensor(3, [-1]), "half": raw_tensor(10, [1]),
    "brain": raw_tensor(16, [1], bytes(2)), "other field": onnx.TensorProto(name="c", data_type=1, dims=[1], int32_data=[1]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_operators_without_their_parts_are_described(name, folder):
    path = saved(classifier(BROKEN[name]))
    assert sum(summarise(path).operators.values()) == len(BROKEN[name]) + 2
    integer_products(path)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("inline", [False, True], ids=["initializer", "operator"])
def test_constants_of_any_type_and_size_are_described(name, inline, folder):
    tensor = TENSORS[name]
    nodes = [node("Constant", [], ["c"], value=tensor)] if inline else []
    nodes += [node("MatMulInteger", ["x", "c"], ["p"]), node("Add", ["x", "c"], ["q"]), node("Identity", ["c"], ["r"])]
    path = saved(classifier(nodes, constants=[] if inline else [tensor]))
    structure, _ = read_onnx(path)
    assert structure.precision in ("fp32", "int8")
    summarise(path)
    integer_products(path)


def test_reordered_weights_are_followed_for_a_few_operators(folder):
    """All weights are 127, so that each pair can saturate; after many operators it is not known."""
    few, many = (integer_products(saved(dequantised(count))) for count in (3, 500))
    assert few.saturating
    assert many is None or not many.saturating
