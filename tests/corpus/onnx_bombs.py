"""ONNX files that hang or fill the memory: control flow, functions, large values, and very many nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpus.entry import Maker, later
from corpus.onnx_models import (
    FLOAT,
    GIB_8,
    IMAGES,
    INT64,
    LOGITS,
    Change,
    changed,
    extra,
    node,
    small,
    tensor,
    value,
)

# --- control flow, functions, and operators that fill the memory ---


def _loop(count: int | None, body_output: Any, *body: onnx.NodeProto, scans: bool = False) -> list[onnx.NodeProto]:
    """Return the nodes of a loop over `start`: `count` rounds, or for ever."""
    carried = [] if scans else [helper.make_tensor_value_info("v_in", FLOAT, None)]
    graph = helper.make_graph(
        [node("Identity", "cond_in", "cond_out"), *body],
        "body",
        [value("i", [], INT64), value("cond_in", [], TensorProto.BOOL), *carried],
        [value("cond_out", [], TensorProto.BOOL), helper.make_tensor_value_info("v_out", FLOAT, body_output)],
    )
    trip = "" if count is None else "trips"
    constants = [node("Constant", "", "always", value=tensor("", True, np.bool_))]
    constants[0].ClearField("input")
    if count is not None:
        constants.append(helper.make_node("Constant", [], ["trips"], value=tensor("", count)))
    start = [] if scans else ["start"]
    return [*constants, helper.make_node("Loop", [trip, "always", *start], ["more"], body=graph)]


START = helper.make_node("ReduceMean", ["pixel_values"], ["start"])
CONSTANT_START = helper.make_node("Constant", [], ["start"], value=tensor("", [0.5], np.float32))
PLUS = node("Add", "v_in,v_in", "v_out")
DOUBLE = node("Concat", "v_in,v_in", "v_out", axis=0)
LONG_BODY = helper.make_node("Identity", ["pixel_values"], ["v_out"])


def _if() -> list[onnx.NodeProto]:
    def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info("b", FLOAT, None)])

    then = branch("then", *[*_loop(None, None, PLUS)[:-1]], node("Identity", "start", "b"))
    other = branch("else", node("Neg", "start", "b"))
    return [
        START,
        helper.make_node("Greater", ["start", "start"], ["which"]),
        helper.make_node("If", ["which"], ["more"], then_branch=then, else_branch=other),
    ]


def _scan() -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [node("Identity", "s_in", "s_out"), node("Identity", "x", "y")], "scan",
        [helper.make_tensor_value_info("s_in", FLOAT, None), helper.make_tensor_value_info("x", FLOAT, None)],
        [helper.make_tensor_value_info("s_out", FLOAT, None), helper.make_tensor_value_info("y", FLOAT, None)],
    )  # fmt: skip
    return [START, helper.make_node("Scan", ["start", "pixel_values"], ["unused", "more"], body=body, num_scan_inputs=1)]


def _functions(levels: int, *, fan: int = 2, recursive: bool = False) -> Change:
    """Return a change that adds functions, each of which calls the next one `fan` times."""

    def change(model: onnx.ModelProto) -> None:
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
        for level in range(levels):
            callee = level + 1
            if callee == levels:
                callee = 0 if recursive else -1
            nodes = []
            for turn in range(fan):
                before, after = ("x" if turn == 0 else f"t{turn}"), ("y" if turn == fan - 1 else f"t{turn + 1}")
                one = helper.make_node("Identity" if callee < 0 else f"F{callee}", [before], [after])
                one.domain = "" if callee < 0 else "local"
                nodes.append(one)
            model.functions.append(helper.make_function("local", f"F{level}", ["x"], ["y"], nodes, opsets))
        model.opset_import.append(helper.make_opsetid("local", 1))
        call = helper.make_node("F0", ["pixel_values"], ["pixels_2"], domain="local")
        for one in model.graph.node:
            for number, name in enumerate(one.input):
                if name == "pixel_values":
                    one.input[number] = "pixels_2"
        model.graph.node.insert(0, call)

    return change


def _shadowing(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Softmax", ["x"], ["y"], body, [helper.make_opsetid("", 20)]))


def _filled(shape: list[int]) -> list[onnx.NodeProto]:
    return [helper.make_node("Constant", [], ["size"], value=tensor("", shape)), node("ConstantOfShape", "size", "filled")]


BIG = helper.make_node("Constant", [], ["big"], value=tensor("", GIB_8))
BOMBS: dict[str, Maker] = {
    "loop_inf": extra(START, *_loop(None, None, PLUS)),
    "loop_fold": extra(CONSTANT_START, *_loop(2**62, None, PLUS)),
    "loop_mem": extra(START, *_loop(2**62, None, DOUBLE)),
    "loop_scans": extra(*_loop(2**62, None, LONG_BODY, scans=True)),
    "loop_of_3": extra(START, *_loop(3, None, PLUS)),
    "if": extra(*_if()),
    "scan": extra(*_scan()),
    "fn_laughs": changed(_functions(40)),
    "fn_laughs_wide": changed(_functions(6, fan=100)),
    "fn_recursive": changed(_functions(2, recursive=True)),
    "fn_one": changed(_functions(1)),
    "fn_1000": changed(_functions(1000, fan=1)),
    "fn_shadows": changed(_shadowing),
    "cos_8gb": extra(*_filled(GIB_8), node("Identity", "filled", "more")),
    "cos_2_to_the_62": extra(*_filled([2**62]), node("Identity", "filled", "more")),
    "cos_overflow": extra(*_filled([2**40, 2**40]), node("Identity", "filled", "more")),
    "cos_negative": extra(*_filled([-1, 4]), node("Identity", "filled", "more")),
    "cos_unused": extra(*_filled(GIB_8)),
    "cos_many": extra(*(one for i in range(64) for one in (
        helper.make_node("Constant", [], [f"size{i}"], value=tensor("", [2**27])),
        node("ConstantOfShape", f"size{i}", f"filled{i}"))),
        helper.make_node("Sum", [f"filled{i}" for i in range(64)], ["more"])),
    "random_normal": extra(helper.make_node("RandomNormal", [], ["more"], shape=GIB_8)),
    "random_uniform": extra(helper.make_node("RandomUniform", [], ["more"], shape=GIB_8)),
    "random_normal_like": extra(node("RandomNormalLike", "pixel_values", "more")),
    "random_small": extra(helper.make_node("RandomNormal", [], ["more"], shape=[3])),
    "bernoulli": extra(node("Bernoulli", "pixel_values", "more")),
    "dropout_training": extra(
        helper.make_node("Constant", [], ["half"], value=tensor("", 0.5, np.float32)),
        helper.make_node("Constant", [], ["train"], value=tensor("", True, np.bool_)),
        node("Dropout", "pixel_values,half,train", "more"),
    ),
    "expand_8gb": extra(START, BIG, node("Reshape", "start,one", "flat"), node("Expand", "flat,big", "more"),
        weights=[tensor("one", [1])]),
    "tile_8gb": extra(node("Tile", "pixel_values,many", "more"), weights=[tensor("many", [1, 1, 2**10, 2**14])]),
    "range_8gb": extra(node("Range", "from,to,by", "numbers"), node("Cast", "numbers", "more", to=FLOAT),
        weights=[tensor("from", 0), tensor("to", 2**30), tensor("by", 1)]),
    "range_by_0": extra(node("Range", "from,to,by", "numbers"), node("Cast", "numbers", "more", to=FLOAT),
        weights=[tensor("from", 0), tensor("to", 2**30), tensor("by", 0)]),
    "pad_8gb": extra(node("Pad", "pixel_values,pads", "more"), weights=[tensor("pads", [0, 0, 0, 0, 0, 0, 2**14, 2**14])]),
    "resize_8gb": extra(node("Resize", "pixel_values,,scales", "more"),
        weights=[tensor("scales", [1, 1, 1000, 1000], np.float32)]),
    "one_hot_8gb": extra(node("Cast", "pixel_values", "ints", to=INT64), node("OneHot", "ints,deep,on_off", "more"),
        weights=[tensor("deep", 2**20), tensor("on_off", [0, 1], np.float32)]),
    "eye_8gb": extra(*_filled([2**15, 2**15]), node("EyeLike", "filled", "more")),
    "matmul_bomb": extra(*_filled([3000, 3000]), *(node("MatMul", f"{'filled' if i == 0 else f'p{i}'},filled",
        f"p{i + 1}") for i in range(300)),
        node("Identity", "p300", "more")),
    "matmul_of_images": extra(node("Reshape", "pixel_values,column", "x0"), node("Transpose", "x0", "x1", perm=[1, 0]),
        node("MatMul", "x0,x1", "outer0"), *(node("MatMul", f"outer{i},outer{i}", f"outer{i + 1}") for i in range(60)),
        node("Identity", "outer60", "more"), weights=[tensor("column", [-1, 1])]),
    "conv_huge_pads": extra(helper.make_node("MaxPool", ["pixel_values"], ["more"], kernel_shape=[1, 1], strides=[1, 1],
        pads=[0, 0, 0, 0], dilations=[2**31, 1])),
    "upsample_laughs": extra(*(node("Concat",
        f"{'pixel_values' if i == 0 else f'c{i}'},{'pixel_values' if i == 0 else f'c{i}'}", f"c{i + 1}", axis=3)
        for i in range(40)), node("Identity", "c40", "more")),
    "sequence": extra(node("SequenceConstruct", "pixel_values", "seq"), node("ConcatFromSequence", "seq", "more", axis=0)),
    "optional": extra(node("Optional", "pixel_values", "opt"), node("OptionalGetElement", "opt", "more")),
    "strings": extra(node("Cast", "pixel_values", "text", to=TensorProto.STRING), node("Cast", "text", "more", to=FLOAT)),
    "string_split": extra(helper.make_node("Constant", [], ["text"],
        value=helper.make_tensor("", TensorProto.STRING, [1], [b"a"])),
        node("StringConcat", "text,text", "text2")),
    "einsum": extra(helper.make_node("Einsum", ["pixel_values", "pixel_values", "pixel_values"], ["more"],
        equation="abcd,efgh,ijkl->abcdefghijkl")),
    "non_zero": extra(node("NonZero", "pixel_values", "places"), node("Cast", "places", "more", to=FLOAT)),
    "unique": extra(node("Unique", "pixel_values", "more")),
    "image_decoder": extra(helper.make_node("Constant", [], ["bytes"], value=tensor("", [1, 2], np.uint8)),
        node("ImageDecoder", "bytes", "decoded")),
}  # fmt: skip

# --- sizes and orders ---


def _identities(model: onnx.ModelProto, order: Callable[[list[Any]], list[Any]], count: int) -> None:
    """Put a chain of Adds before the first reader of the images."""
    chain = [helper.make_node("Add", ["pixel_values" if i == 0 else f"n{i}", "nought"], [f"n{i + 1}"]) for i in range(count)]
    for one in model.graph.node:
        for number, name in enumerate(one.input):
            if name == "pixel_values":
                one.input[number] = f"n{count}"
    nodes = [*chain, *model.graph.node]
    del model.graph.node[:]
    model.graph.initializer.append(tensor("nought", 0, np.float32))
    model.graph.node.extend(order(nodes))


def _chain(count: int, order: Callable[[list[Any]], list[Any]] = list) -> Maker:
    return changed(lambda model: _identities(model, order, count))


def _reversed(nodes: list[Any]) -> list[Any]:
    return nodes[::-1]


def _wide(count: int) -> Maker:
    return later(lambda: extra(*(helper.make_node("Neg", ["pixel_values"], [f"w{i}"]) for i in range(count))))


def _nested(depth: int) -> Maker:
    """Return a maker of Ifs inside each other, which protobuf's own writer refuses: by hand."""

    def field(number: int, data: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(data)) + data

    def make(folder: Path) -> None:
        inner = b""
        for _ in range(depth):
            attribute = field(1, b"then_branch") + field(6, inner) + _varint(20 << 3) + _varint(5)
            inner = field(1, field(1, b"x") + field(2, b"y") + field(4, b"If") + field(5, attribute))
        data = b"\x08\x09" + field(2, b"x") + field(7, inner) + field(8, _varint(2 << 3) + _varint(20))
        (folder / "m.onnx").write_bytes(data)

    return make


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


SIZES: dict[str, Maker] = {
    "nodes_100k": _chain(100_000),
    "nodes_100k_wide": _wide(100_000),
    "nodes_20000_rev": _chain(20_000, _reversed),
    "nodes_3000_rev": _chain(3000, _reversed),
    "nodes_cycle": extra(node("Neg", "b", "a"), node("Neg", "a", "b")),
    "nodes_self": extra(node("Neg", "a", "a")),
    "nodes_none": changed(lambda model: model.graph.ClearField("node")),
    "initializers_100k": changed(lambda model: model.graph.initializer.extend(tensor(f"i{i}", 0) for i in range(100_000))),
    "value_info_100k": changed(lambda model: model.graph.value_info.extend(value(f"i{i}", [1]) for i in range(100_000))),
    "metadata_100k": changed(lambda model: helper.set_model_props(model, {str(i): "x" for i in range(100_000)})),
    "attributes_10k": extra(helper.make_node("Neg", ["pixel_values"], ["n"], **{f"a{i}": i for i in range(10_000)})),
    "inputs_1000": small(inputs=[IMAGES, *(value(f"i{i}", [1]) for i in range(1000))]),
    "outputs_1000": small(*(helper.make_node("Neg", ["logits"], [f"o{i}"]) for i in range(1000)),
        outputs=[LOGITS, *(value(f"o{i}", ["batch", 3]) for i in range(1000))]),
    "opsets_10k": changed(lambda model: model.opset_import.extend(helper.make_opsetid(f"d{i}", 1) for i in range(10_000))),
    "nested_30": _nested(30),
    "nested_90": _nested(90),
    "nested_5000": _nested(5000),
    "names_5000": changed(lambda model: [setattr(one, "name", "n" * 5000) for one in model.graph.node]),
    "doc_20_mb": changed(lambda model: setattr(model, "doc_string", "x" * 20_000_000)),
}  # fmt: skip
