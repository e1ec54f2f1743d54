"""Tests of what is refused before an ONNX file runs: each by name, on the wire, without torch, onnx or onnxruntime."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import vit_zoo
from support.foreign_onnx import SIZE, WEIGHT, chain, classifier, constant, node, raw_tensor, reversed_nodes, summed, value
from support.paths import TESTS
from vit_zoo.errors import RefusedContent
from vit_zoo.files.wire import tag
from vit_zoo.formats.onnx_admission import LIMITS, check_runnable
from vit_zoo.formats.onnx_skeleton import length_of, weight_of

F = TensorProto.FLOAT
TRUE, HALF = constant("yes", np.bool_(True)), constant("half", np.float32(0.5))


def loop(*extra):
    body = helper.make_graph(
        [node("Identity", ["on"], ["still"]), *extra, node("Identity", ["a"], ["b"])], "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("a", F, None)],
        [value("still", TensorProto.BOOL, []), value("b", F, None)],
    )  # fmt: skip
    return classifier([node("Loop", ["", "yes", "x"], ["y"], "n", body=body)], "y", constants=[TRUE])


def branch():
    graphs = {name: helper.make_graph([node("Relu", ["x"], [name])], name, [], [value(name, F, None)]) for name in ("a", "b")}
    return classifier([node("If", ["yes"], ["y"], then_branch=graphs["a"], else_branch=graphs["b"])], "y", constants=[TRUE])


def laughs():
    """Functions of which each calls the one before ten times: 10^11 operators."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = [helper.make_function("f", "L0", ["a"], ["z"], [node("Relu", ["a"], ["z"])], opsets)]
    for i in range(1, 12):
        names = ["a", *(f"m{j}" for j in range(9)), "z"]
        calls = [node(f"L{i - 1}", [a], [b], domain="f") for a, b in pairwise(names)]
        functions.append(helper.make_function("f", f"L{i}", ["a"], ["z"], calls, opsets))
    return classifier([node("L11", ["x"], ["y"], domain="f")], "y", functions=functions, domains=["f"])


def large(op, inputs, *constants, **attributes):
    return summed([node(op, inputs, ["big"], **attributes)], "big", *constants)


def one(op, **attributes):
    return classifier([node(op, ["x"], ["y"], **attributes)], "y")


def with_constant(tensor):
    return classifier([node("Constant", [], ["c"], value=tensor)])


def scalar(tensor):
    return classifier(constants=[tensor])


def taking(*axes, kind=F):
    return classifier(inputs=[value("x", kind, axes)])


def returning(*outputs, nodes=()):
    return classifier(nodes, outputs=[value("logits", F, ["b", 10]), *outputs])


def sequence_output():
    return returning(helper.make_tensor_sequence_value_info("s", F, None), nodes=[node("SequenceConstruct", ["x"], ["s"])])


def optional_output():
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(F, None))
    return returning(helper.make_value_info("o", kind))


def text_output():
    last = [node("Flatten", ["x"], ["flat"]), node("MatMul", ["flat", "W"], ["z"]), node("Cast", ["z"], ["logits"], to=8)]
    return classifier(last, tail=False, constants=[constant("W", WEIGHT)], outputs=[value("logits", 8, ["b", 10])])


def changed(change):
    model = classifier()
    change(model)
    return model


def doubled():
    graph = classifier().graph.SerializeToString()
    return classifier().SerializeToString() + tag(7, len(graph)) + graph


def nested():
    """A graph in a graph in a graph, deeper than any decoder goes."""
    graph = classifier().graph.SerializeToString()
    for _ in range(2_000):
        attribute = b"\x0a\x01g" + tag(6, len(graph)) + graph
        operator = b"\x22\x02If" + tag(5, len(attribute)) + attribute
        graph = tag(1, len(operator)) + operator
    return b"\x08\x08\x12\x00" + tag(7, len(graph)) + graph


def hollow(field):
    """A graph with ten million empty parts, two bytes each."""
    graph = classifier().graph.SerializeToString() + bytes([field << 3 | 2, 0]) * 10_000_000
    return b"\x08\x08\x12\x00" + tag(7, len(graph)) + graph


def integers(name, *values):
    return constant(name, np.array(values, "<i8"))


REFUSED = {
    "loop": (loop, "contains Loop (node 'n', operator 0): control flow is not supported"),
    "if": (branch, "contains If (operator 0): control flow is not supported"),
    "subgraph of another operator": (
        lambda: one("Relu", body=helper.make_graph([], "g", [], [])), "contains Relu (operator 0): control flow is"),
    "functions": (laughs, "defines 12 functions of its own: functions are not supported"),
    "random": (lambda: large("RandomNormal", [], shape=[2**31]), "contains RandomNormal (operator 0): random numbers are"),
    "bernoulli": (lambda: one("Bernoulli"), "contains Bernoulli (operator 0): random numbers are not supported"),
    "dropout": (
        lambda: classifier([node("Dropout", ["x", "half", "yes"], ["y"])], "y", constants=[TRUE, HALF]),
        "contains Dropout (operator 0): random numbers"),
    "old dropout": (lambda: classifier([node("Dropout", ["x"], ["y"])], "y", opset=6), "contains Dropout (operator 0): random"),
    "sequence": (sequence_output, "contains SequenceConstruct (operator 0): sequences are not supported"),
    "optional": (
        lambda: one("Optional", type=helper.make_tensor_type_proto(F, None)), "contains Optional (operator 0): optional values"),
    "cast to text": (text_output, "contains Cast (operator 2): strings are not supported"),
    "text": (lambda: one("StringNormalizer"), "contains StringNormalizer (operator 0): strings are not supported"),
    "text constant": (
        lambda: classifier([node("Constant", [], ["c"], value_strings=["a"])]), "contains Constant (operator 0): strings"),
    "code": (lambda: one("EPContext", domain="com.microsoft"), "contains com.microsoft.EPContext (operator 0): code outside"),
    "domain": (
        lambda: one("Foo", domain="com.acme"), "com.acme.Foo (operator 0): operators of the domain 'com.acme' are not supported"),
    "sparse": (lambda: changed(lambda m: m.graph.sparse_initializer.add()), "contains sparse tensors"),
    "training": (lambda: changed(lambda m: m.training_info.add()), "contains a training graph"),
    "opset": (lambda: classifier(opset=99), "operator set 99 or IR version 8 is newer than the installed version"),
    "constant of 8 GB": (
        lambda: large("ConstantOfShape", ["n"], integers("n", 2**31)),
        "contains ConstantOfShape (operator 0): its result has 2,147,483,648 values; at most 134,217,728 are supported"),
    "constant of 8 GB by an operator": (
        lambda: summed([node("Constant", [], ["n"], value_ints=[8, 2**28]), node("ConstantOfShape", ["n"], ["big"])], "big"),
        "contains ConstantOfShape (operator 1)"),
    "expand": (lambda: large("Expand", ["half", "n"], HALF, integers("n", 2**31)), "contains Expand (operator 0)"),
    "tile": (
        lambda: large("Tile", ["o", "n"], integers("n", 2**21), constant("o", np.ones(1024, "<f4"))),
        "contains Tile (operator 0): its result has 2,147,483,648 values"),
    "tile of the image": (
        lambda: classifier([node("Tile", ["x", "n"], ["big"])], constants=[integers("n", 1, 1, 1024, 1024)]),
        "contains Tile (operator 0): its result has 201,326,592 values"),
    "range": (
        lambda: large("Range", ["a", "n", "d"], *(constant(k, np.float32(v)) for k, v in (("a", 0), ("n", 2**31), ("d", 1)))),
        "contains Range (operator 0)"),
    "resize": (
        lambda: large("Resize", ["x", "", "s"], constant("s", np.array([1, 1, 20_000, 20_000], "<f4"))), "contains Resize"),
    "resize to": (lambda: large("Resize", ["x", "", "", "s"], integers("s", 1, 3, 20_000, 20_000)), "contains Resize"),
    "pad": (lambda: large("Pad", ["x", "p"], integers("p", 0, 0, 0, 0, 0, 0, 30_000, 30_000)), "contains Pad"),
    "padding of a convolution": (
        lambda: large("Conv", ["x", "w"], constant("w", np.ones((1, 3, 1, 1), "<f4")), pads=[20_000] * 4), "contains Conv"),
    "one-hot": (
        lambda: large("OneHot", ["i", "n", "v"], integers("i", *range(1024)), integers("n", 2**21), integers("v", 0, 1)),
        "contains OneHot"),
    "many constants": (
        lambda: classifier([node("ConstantOfShape", ["n"], [f"c{i}"]) for i in range(9)], constants=[integers("n", 2**27)]),
        "contains operators that make more than 1,073,741,824 values of constants"),
    "complex": (lambda: with_constant(raw_tensor(14, [1], bytes(8))), "contains the tensor 'c' of type 14"),
    "undefined": (lambda: with_constant(raw_tensor(0, [1], bytes(4))), "contains the tensor 'c' of type 0"),
    "type 999": (lambda: with_constant(raw_tensor(999, [1], bytes(4))), "contains the tensor 'c' of type 999"),
    "strings": (lambda: with_constant(helper.make_tensor("c", 8, [1], [b"x"])), "contains the tensor 'c' of strings"),
    "no values": (lambda: with_constant(raw_tensor(F, [1])), "does not contain the data of tensor 'c'"),
    "scalar of no values": (lambda: scalar(raw_tensor(F, [1])), "does not contain the data of tensor 'c'"),
    "scalar of strings": (lambda: scalar(helper.make_tensor("c", 8, [1], [b"x"])), "contains the tensor 'c' of strings"),
    "too few bytes": (lambda: scalar(raw_tensor(F, [3], bytes(4))), "does not contain the data of tensor 'c'"),
    "negative shape": (lambda: scalar(raw_tensor(F, [-1], bytes(4))), "contains the tensor 'c' of shape [-1]"),
    "9 axes": (lambda: scalar(raw_tensor(F, [1] * 9, bytes(4))), "contains the tensor 'c' of 9 axes"),
    "5,000 axes": (lambda: scalar(raw_tensor(F, [1] * 5_000, bytes(4))), "a tensor has 5,000 axes, more than 64"),
    "no outputs": (
        lambda: classifier([node("Constant", [], [], value=constant("c", 1.0))]), "Constant (operator 0) without outputs"),
    "batch": (lambda: taking(10**12, *SIZE), "input 'x' has 192,000,000,000,000 values; at most 134,217,728 are supported"),
    "batch of large images": (lambda: taking(4096, 3, 224, 224), "input 'x' has 616,562,688 values"),
    "batch as a name": (lambda: taking("9" * 15, *SIZE), "input 'x' has 191,999,999,999,999,808 values"),
    "axis of 5,000 digits": (lambda: taking("9" * 5_000, *SIZE), "has a name of 5,000 characters; at most 4,096 are read"),
    "negative axis": (lambda: taking(-1, *SIZE), "input 'x' has an axis of length -1"),
    "no pixels": (lambda: taking("b", 3, 0, 8), "input 'x' has an axis of length 0"),
    "40 axes": (lambda: taking(*[1] * 40), "input 'x' has 40 axes; at most 8 are supported"),
    "integer input": (lambda: taking("b", *SIZE, kind=7), "input 'x' is a tensor of type 7; expected a tensor of float32"),
    "text input": (lambda: taking("b", *SIZE, kind=8), "input 'x' is a tensor of strings; expected"),
    "no type": (lambda: changed(lambda m: m.graph.input[0].ClearField("type")), "input 'x' has no type"),
    "two inputs": (
        lambda: classifier([node("Add", ["x", "q"], ["y"])], "y", inputs=[value(n, F, ["b", *SIZE]) for n in "xq"]),
        "expected one input, got 2"),
    "no outputs of the graph": (lambda: changed(lambda m: m.graph.output.pop()), "has no output of floating-point numbers"),
    "optional output": (optional_output, "output 'o' is of the type optional"),
    "huge output": (lambda: returning(value("h", F, [1, 10**12])), "output 'h' has 1,000,000,000,000 values"),
    "cycle": (
        lambda: classifier([node("Add", ["x", "q"], ["p"]), node("Relu", ["p"], ["q"])], "p"), "contains a cycle"),
    "twice": (lambda: classifier([node("Relu", ["x"], ["p"]), node("Abs", ["x"], ["p"])], "p"), "computes 'p' twice"),
    "nothing computes it": (lambda: classifier([node("Add", ["x", "q"], ["p"])], "p"), "which reads 'q': nothing computes that"),
    "100,000 operators": (lambda: classifier(*chain(100_000)), "has more than 30,000 operators"),
    "ten million operators": (lambda: hollow(1), "has more than 30,000 operators"),
    "ten million values": (lambda: hollow(13), "has more than 500,000 fields"),
    "long name": (lambda: classifier([node("Relu", ["x"], ["y"], "n" * 10_000)], "y"), "has a name of 10,000 characters"),
    "not UTF-8": (
        lambda: classifier([node("Relu", ["x"], ["y"], "QQQ")], "y").SerializeToString().replace(b"QQQ", b"\xff\xfe\xff"),
        "not a complete ONNX file: a name is not UTF-8"),
    "two graphs": (doubled, "not a complete ONNX file: the model has parts that occur twice"),
    "deep": (nested, "not a complete ONNX file: nested too deeply"),
}  # fmt: skip

ADMITTED = {
    "a classifier": classifier,
    "dropout in inference": lambda: classifier(
        [node("Dropout", ["x", "half", "no"], ["y"])], "y", constants=[HALF, constant("no", np.bool_(False))]
    ),
    "operators in any order": lambda: reversed_nodes(classifier(*chain(20_000))),
    "an operator with 50,000 inputs": lambda: classifier([node("Max", ["x"] * 50_000, ["y"])], "y"),
    "classes beside the logits": lambda: returning(
        value("label", TensorProto.INT64, ["b"]), nodes=[node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0)]
    ),
    "an empty constant": lambda: scalar(raw_tensor(F, [0])),
    "an axis of 4,000 digits": lambda: taking("9" * 4_000, *SIZE),
    "onnxruntime's domain": lambda: one("QuickGelu", domain="com.microsoft"),
    "numbers in other fields": lambda: classifier(
        constants=[helper.make_tensor(f"c{kind}", kind, [2, 2], [1, 0, 1, 0]) for kind in (*range(1, 8), *range(9, 14), 16)]
    ),
}  # fmt: skip


def write(model, path="m.onnx"):
    Path(path).write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return Path(path)


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_content_is_refused_by_name(name, folder):
    make, text = REFUSED[name]
    with pytest.raises(RefusedContent) as error:
        check_runnable(write(make()))
    assert str(error.value).startswith("m.onnx: ")
    assert text in error.value.message
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ADMITTED)
def test_what_a_classifier_may_contain(name, folder):
    assert check_runnable(write(ADMITTED[name]())) == 0


def test_the_name_of_an_operator_does_not_move_the_cursor(folder):
    with pytest.raises(RefusedContent) as error:
        check_runnable(write(classifier([node("Loop", ["x"], ["y"], "\x1b[31m\nn")], "y")))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["inline.onnx", "external.onnx", "model/model.onnx", "int8_dynamic.onnx", "preprocess.onnx"])
def test_files_of_ours_are_admitted(name):
    path = TESTS / "data" / "version_0_1" / name
    assert (check_runnable(path) > 0) == bool(onnx.load(path, load_external_data=False).graph.initializer[-1].external_data)


def test_our_metadata_do_not_admit_a_file(folder):
    model = onnx.load(TESTS / "data" / "version_0_1" / "inline.onnx")
    model.graph.node[0].op_type = "RandomNormalLike"
    with pytest.raises(RefusedContent, match="random numbers are not supported"):
        vit_zoo.open(write(model))


@pytest.mark.parametrize("verb", [["verify", "m.onnx", "--against", "vit_digits", "--random"], ["predict", "m.onnx", "i.png"]])
def test_a_refusal_comes_before_torch_and_leaves_no_file(verb, folder):
    """Without a limit of time, which a busy machine would break: what takes seconds is the imports."""
    write(loop())
    Path("i.png").write_bytes(b"")
    code = (
        "import sys\nfrom vit_zoo.cli.entry_point import run\n"
        f"code = run({verb!r})\nheavy = {{'torch', 'onnx', 'onnxruntime'}} & set(sys.modules)\n"
        "print(sorted(heavy)); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 7
    assert result.stderr == "vitzoo: error: m.onnx: contains Loop (node 'n', operator 0): control flow is not supported\n"
    assert result.stdout == "[]\n"
    assert {path.name for path in folder.iterdir()} == {"i.png", "m.onnx"}


def test_a_reference_is_checked_first_too(folder, cli):
    write(loop(), "reference.onnx")
    write(classifier())
    code, _, err = cli("verify", "m.onnx", "--against", "reference.onnx")
    assert (code, err.partition(" (")[0]) == (7, "vitzoo: error: reference.onnx: contains Loop")
    assert not Path("m.onnx.parity.json").exists()


def test_a_changed_file_is_checked_again(folder):
    path = write(classifier())
    check_runnable(path)
    write(loop())
    with pytest.raises(RefusedContent, match="control flow"):
        check_runnable(path)


def test_digits_of_an_axis_are_a_number_only_if_it_can_be_one():
    assert length_of("224") == 224
    for name in ("9" * 5_000, "²", "٣", "batch", ""):
        assert length_of(name) == name


def test_rows_in_names_are_ascii_digits():
    assert weight_of("a.weight[0:48]") == ("a.weight", slice(0, 48))
    for name in ("a[²:3]", "a[٣:٤]", "a[b:c]", f"a[{'9' * 5_000}:3]"):
        assert weight_of(name) is None


def test_limits_are_far_above_an_export():
    """ViT-g/14 of torch's exporter: 40 blocks of 60 operators, with 12 fields each."""
    assert LIMITS["operator"] > 10 * 40 * 60
    assert LIMITS["fields"] > 10 * 40 * 60 * 12
