"""Tests of graphs as text: those of every kind of model are the committed ones, and any tool's file can be shown."""

from __future__ import annotations

import importlib.util

import pytest
from onnx import TensorProto, helper

from support.families import KINDS
from support.foreign_onnx import classifier, constant, node
from support.paths import TESTS
from vit_zoo.formats.graph_text import graph_lines
from vit_zoo.formats.onnx_skeleton import skeleton

spec = importlib.util.spec_from_file_location("graph_texts", TESTS / "graph" / "graph_texts.py")
graph_texts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(graph_texts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_of_every_kind_is_the_committed_one(kind):
    """`python tests/graph/graph_texts.py` writes them again: look at the difference before you commit it."""
    for form, text in graph_texts.texts(kind).items():
        assert text == (graph_texts.GRAPHS / kind / f"{form}.txt").read_text(), f"{kind}/{form}"


def test_no_other_graphs_are_committed():
    assert sorted(path.name for path in graph_texts.GRAPHS.iterdir()) == sorted(KINDS)


def lines_of(model, folder):
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return list(graph_lines(skeleton(folder / "m.onnx")))


def test_a_file_of_another_tool(folder, cli):
    nodes = [
        node("Clip", ["x", "", "high"], ["a"]),
        node("Constant", [], ["c"], value=helper.make_tensor("t", TensorProto.FLOAT, [2], [1.5, 2.0])),
        node("Resize", ["a", "", "scales"], ["b"], mode="nearest", name="evil\nline"),
        node("FusedThing", ["b"], ["x\ny"], domain="other", alphas=[0.1, 2.0]),
    ]
    model = classifier(nodes, "b", constants=[constant("high", [6.0]), constant("scales", [1.0] * 4)], domains=("other",))
    found = lines_of(model, folder)
    assert found[:6] == [
        "opset ai.onnx 17, other 1",
        "input x float32 [b, 3, 8, 8]",
        "a = Clip(x, -, high f64[6])",
        "c = Constant(value=f32[1.5 2])",
        "b = Resize(a, -, scales f64[1 1 1 1], mode=nearest)",
        "x\\ny = other.FusedThing(b, alphas=[0.1 2])",
    ]
    assert found[-1] == "output logits float32 [b, 10]"
    assert "logits = MatMul(flat, W f32[192,10])" in found
    done = cli("show", "m.onnx", "--graph")
    assert done.out.splitlines() == found


def test_branches_are_counted(folder):
    branch = helper.make_graph([node("Identity", ["x"], ["y"])], "branch", [], [helper.make_tensor_value_info("y", 1, None)])
    nodes = [node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch)]
    model = classifier(nodes, "z", constants=[constant("yes", True)])
    assert "z = If(yes bool[True], else_branch=graphs of 1 operators, then_branch=graphs of 1 operators)" in lines_of(
        model, folder
    )


def test_what_has_no_graph_is_refused(folder, cli):
    for arguments, message in (
        (["vit_digits", "--graph"], "--graph needs an ONNX file"),
        ([".", "--graph"], "--graph needs an ONNX file"),
        (["m.onnx", "--graph", "--code"], "contradict each other"),
        (["m.onnx", "--graph", "--set", "heads=3"], "--set does not apply"),
    ):
        (folder / "m.onnx").write_bytes(classifier().SerializeToString())
        done = cli("show", *arguments)
        assert done.code == 2
        assert message in done.err
