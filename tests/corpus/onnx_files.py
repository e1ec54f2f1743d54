"""Bad ONNX files of other tools: graphs that hang or fill the memory, odd inputs, outputs and constants, external data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from corpus.entry import FAILED, INPUT, REFUSED, Entry, Maker, command, content, later

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


def _if(then_forever: bool = False) -> list[onnx.NodeProto]:
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

# --- inputs and outputs ---


def _input(shape: Any, kind: int = FLOAT) -> Maker:
    return changed(lambda model: model.graph.input[0].CopyFrom(value("pixel_values", shape, kind)))


def _axis(**fields: Any) -> Maker:
    def change(model: onnx.ModelProto) -> None:
        axis = model.graph.input[0].type.tensor_type.shape.dim[0]
        for name, what in fields.items():
            setattr(axis, name, what)

    return changed(change)


def _typed(**fields: Any) -> Maker:
    """Return a maker of a model whose input has another kind of type."""
    types = {
        "sequence": helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [1])),
        "optional": helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [1])),
        "map": onnx.TypeProto(map_type=onnx.TypeProto.Map(key_type=INT64, value_type=helper.make_tensor_type_proto(FLOAT, [1]))),
        "sparse": helper.make_sparse_tensor_type_proto(FLOAT, [1, 3, 16, 16]),
    }

    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.CopyFrom(types[fields["kind"]])

    return changed(change)


def _output(*nodes: onnx.NodeProto, type_: Any) -> Maker:
    """Return a maker of a small model whose only output is `out`."""
    out = helper.make_value_info("out", type_)
    return graph_of([*HEAD, *nodes], [IMAGES], [out])


ONE = helper.make_tensor_type_proto(FLOAT, None)
INPUTS: dict[str, Maker] = {
    "in_batch_4096": _input([4096, 3, 16, 16]),
    "in_batch_huge": _input([2**40, 3, 16, 16]),
    "in_batch_2_to_the_63": _input([2**63 - 1, 3, 16, 16]),
    "in_neg_axis": _input([-3, 3, 16, 16]),
    "in_neg_side": _input(["batch", 3, -16, -16]),
    "in_zero_axis": _input([0, 3, 16, 16]),
    "in_zero_side": _input(["batch", 3, 0, 16]),
    "in_zero_channels": _input(["batch", 0, 16, 16]),
    "in_channels_million": _input(["batch", 10**6, 16, 16]),
    "in_side_million": small(inputs=[value("pixel_values", ["batch", 3, 10**6, 10**6])]),
    "in_side_4_gb": small(inputs=[value("pixel_values", ["batch", 3, 20_000, 20_000])]),
    "in_digits_axis": _input(["9" * 5000, 3, 16, 16]),
    "in_digits_product": _input(["9" * 4000 + "*2", 3, 16, 16]),
    "in_axis_superscript": _input(["²", 3, 16, 16]),
    "in_axis_arabic": _input(["٣", 3, 16, 16]),
    "in_axis_negative_text": _input(["-1", 3, 16, 16]),
    "in_axis_expression": _input(["__import__('os').system('touch PWNED')", 3, 16, 16]),
    "in_axis_power": _input(["9**9**9**9", 3, 16, 16]),
    "in_axis_escapes": _input(["\x1b[2J\n", 3, 16, 16]),
    "in_axis_empty": _input(["", 3, 16, 16]),
    "in_axes_same": small(inputs=[value("pixel_values", ["n", "n", "n", "n"])]),
    "in_rank_0": small(inputs=[value("pixel_values", [])]),
    "in_rank_2": small(inputs=[value("pixel_values", ["batch", 768])]),
    "in_rank_1000": small(inputs=[value("pixel_values", ["batch"] + [1] * 999)]),
    "in_no_shape": _input(None),
    "in_no_type": changed(lambda model: model.graph.input[0].ClearField("type")),
    "in_no_name": changed(lambda model: model.graph.input[0].ClearField("name")),
    "in_none": changed(lambda model: model.graph.ClearField("input")),
    "in_twice": changed(lambda model: model.graph.input.append(model.graph.input[0])),
    "in_two": small(inputs=[IMAGES, value("other", ["batch", 3, 16, 16])]),
    "in_unused": small(inputs=[value("images", ["batch", 3, 16, 16])]),
    "in_is_output": graph_of([], [IMAGES], [value("pixel_values", ["batch", 3, 16, 16])]),
    "in_has_weight": changed(lambda model: model.graph.initializer.append(tensor("pixel_values", np.ones((1, 3, 16, 16)),
        np.float32))),
    "in_int64": _input(["batch", 3, 16, 16], INT64),
    "in_bool": _input(["batch", 3, 16, 16], TensorProto.BOOL),
    "in_double": _input(["batch", 3, 16, 16], TensorProto.DOUBLE),
    "in_float8": _input(["batch", 3, 16, 16], TensorProto.FLOAT8E4M3FN),
    "in_int4": _input(["batch", 3, 16, 16], TensorProto.INT4),
    "in_complex": _input(["batch", 3, 16, 16], TensorProto.COMPLEX64),
    "in_string": _input(["batch", 3, 16, 16], TensorProto.STRING),
    "in_type_0": _input(["batch", 3, 16, 16], 0),
    "in_type_999": _input(["batch", 3, 16, 16], 999),
    "in_sequence": _typed(kind="sequence"),
    "in_optional": _typed(kind="optional"),
    "in_map": _typed(kind="map"),
    "in_sparse": _typed(kind="sparse"),
    "in_name_escapes": small(inputs=[value("\x1b[2J\n", ["batch", 3, 16, 16]), IMAGES]),
    "out_scalar": _output(node("ReduceSum", "logits", "out", keepdims=0), type_=helper.make_tensor_type_proto(FLOAT, [])),
    "out_scalar_undeclared": _output(node("ReduceSum", "logits", "out", keepdims=0), type_=ONE),
    "out_wrong_rank": _output(node("Identity", "logits", "out"), type_=helper.make_tensor_type_proto(FLOAT, [1, 1, 1, 1, 1])),
    "out_seq": _output(node("SequenceConstruct", "logits", "out"), type_=helper.make_sequence_type_proto(ONE)),
    "out_opt": _output(node("Optional", "logits", "out"), type_=helper.make_optional_type_proto(ONE)),
    "out_opt_none": _output(helper.make_node("Optional", [], ["out"], type=ONE), type_=helper.make_optional_type_proto(ONE)),
    "out_string": _output(node("Cast", "logits", "out", to=TensorProto.STRING),
        type_=helper.make_tensor_type_proto(TensorProto.STRING, ["batch", 3])),
    "out_bool": _output(node("Cast", "logits", "out", to=TensorProto.BOOL),
        type_=helper.make_tensor_type_proto(TensorProto.BOOL, ["batch", 3])),
    "out_int64": _output(node("Cast", "logits", "out", to=INT64), type_=helper.make_tensor_type_proto(INT64, ["batch", 3])),
    "out_empty": _output(node("Slice", "logits,s0,s0", "out"), type_=ONE),
    "out_nan": _output(node("Div", "logits,z", "d"), node("Sub", "d,d", "out"), type_=ONE),
    "out_huge_rank": _output(node("Unsqueeze", "logits,s0", "out"), type_=helper.make_tensor_type_proto(FLOAT, [1] * 500)),
    "out_none": changed(lambda model: model.graph.ClearField("output")),
    "out_no_name": changed(lambda model: model.graph.output[0].ClearField("name")),
    "out_missing": changed(lambda model: setattr(model.graph.output[0], "name", "nowhere")),
    "out_twice": changed(lambda model: model.graph.output.append(model.graph.output[0])),
    "out_no_type": changed(lambda model: model.graph.output[0].ClearField("type")),
    "out_type_999": changed(lambda model: setattr(model.graph.output[0].type.tensor_type, "elem_type", 999)),
    "out_neg_axis": changed(lambda model: model.graph.output[0].CopyFrom(value("logits", [-1, -3]))),
    "out_axis_digits": changed(lambda model: model.graph.output[0].CopyFrom(value("logits", ["9" * 5000, 3]))),
    "out_constant": _output(helper.make_node("Constant", [], ["out"], value=tensor("", [[1, 2, 3]], np.float32)), type_=ONE),
    "out_is_weight": graph_of(HEAD, [IMAGES], [value("w", [3])], [tensor("w", [1, 2, 3], np.float32)]),
    "out_batch_fixed": _output(node("ReduceMean", "logits,s0", "out"), type_=ONE),
    "out_4_gb": _output(node("Resize", "pixel_values,,scales", "out"), type_=ONE),
}  # fmt: skip


def _with_weights(make: Maker, *weights: TensorProto) -> Maker:
    """Return a maker that adds constants to what another one writes."""

    def both(folder: Path) -> None:
        make(folder)
        model = onnx.load(folder / "m.onnx")
        model.graph.initializer.extend(weights)
        write(folder, model)

    return both


for _name in ("out_empty", "out_huge_rank", "out_batch_fixed"):
    INPUTS[_name] = _with_weights(INPUTS[_name], tensor("s0", [0]))
INPUTS["out_nan"] = _with_weights(INPUTS["out_nan"], tensor("z", [0], np.float32))
INPUTS["out_4_gb"] = _with_weights(INPUTS["out_4_gb"], tensor("scales", [1, 1, 2000, 2000], np.float32))

# --- constants, nodes and attributes ---


def _constant(**fields: Any) -> Maker:
    """Return a maker of the valid model with a constant of these fields, used by an Add."""
    constant = helper.make_node("Constant", [], ["odd"], **fields)
    return extra(constant, node("Add", "pixel_values,odd", "more"))


def _odd(change: Callable[[TensorProto], None]) -> Maker:
    """Return a maker of the valid model with a constant after a change to its tensor."""
    one = tensor("", [1.0], np.float32)
    change(one)
    return _constant(value=one)


def _set(**fields: Any) -> Callable[[TensorProto], None]:
    def change(one: TensorProto) -> None:
        for name, what in fields.items():
            if isinstance(what, list):
                one.ClearField(name)
                getattr(one, name).extend(what)
            else:
                setattr(one, name, what)

    return change


def _weight(change: Callable[[TensorProto], None]) -> Maker:
    return changed(lambda model: change(model.graph.initializer[0]))


def _attribute(operator: str, **fields: Any) -> Maker:
    """Return a maker of the valid model with other attributes of the first node of an operator."""

    def change(model: onnx.ModelProto) -> None:
        one = next(one for one in model.graph.node if one.op_type == operator)
        for name, what in fields.items():
            for attribute in [attribute for attribute in one.attribute if attribute.name == name]:
                one.attribute.remove(attribute)
            one.attribute.append(what if isinstance(what, onnx.AttributeProto) else helper.make_attribute(name, what))

    return changed(change)


def _inputs(operator: str, names: list[str] | None) -> Maker:
    def change(model: onnx.ModelProto) -> None:
        one = next(one for one in model.graph.node if one.op_type == operator)
        del one.input[:]
        one.input.extend(names or [])

    return changed(change)


def _sparse() -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(tensor("", [1.0], np.float32), tensor("", [2**40]), [2**41])


NODES: dict[str, Maker] = {
    "add_noinput": _inputs("Add", None),
    "add_three_inputs": _inputs("Add", ["pixel_values"] * 3),
    "softmax_noinput": _inputs("Softmax", None),
    "gemm_noinput": _inputs("Gemm", None),
    "layer_norm_noinput": _inputs("LayerNormalization", None),
    "matmul_one_input": _inputs("MatMul", ["pixel_values"]),
    "reshape_empty_input": _inputs("Reshape", ["", ""]),
    "tanh_noinput": extra(helper.make_node("Tanh", [], ["t"])),
    "input_unknown": _inputs("Add", ["nowhere", "pixel_values"]),
    "const_complex": _constant(value=helper.make_tensor("", TensorProto.COMPLEX64, [1], [1 + 2j])),
    "const_empty": _constant(value=tensor("", np.zeros(0), np.float32)),
    "const_undefined": _odd(_set(data_type=0)),
    "const_type999": _odd(_set(data_type=999)),
    "const_negative_type": _odd(_set(data_type=-1)),
    "const_string": _constant(value=helper.make_tensor("", TensorProto.STRING, [1], [b"x"])),
    "const_nothing": extra(helper.make_node("Constant", [], ["odd"]), node("Add", "pixel_values,odd", "more")),
    "const_nooutput": extra(helper.make_node("Constant", [], [], value=tensor("", 1))),
    "const_two_values": _constant(value_float=1.0, value_floats=[1.0, 2.0]),
    "const_value_string": _constant(value_string="x"),
    "const_value_strings": _constant(value_strings=["x", "y"]),
    "const_value_is_int": extra(helper.make_node("Constant", [], ["odd"], value=3), node("Add", "pixel_values,odd", "more")),
    "const_sparse": extra(helper.make_node("Constant", [], ["odd"], sparse_value=_sparse()),
        node("Add", "pixel_values,odd", "more")),
    "const_ragged": _odd(_set(dims=[7])),
    "const_dims_negative": _odd(_set(dims=[-1])),
    "const_dims_overflow": _odd(_set(dims=[2**62, 2**62])),
    "const_dims_huge": _odd(_set(dims=[2**40])),
    "const_dims_rank_1000": _odd(_set(dims=[1] * 1000)),
    "const_raw_and_floats": _odd(_set(float_data=[1.0])),
    "const_floats_for_ints": _odd(lambda one: (one.ClearField("raw_data"), _set(data_type=INT64, float_data=[1.0])(one))),
    "const_int4_ragged": _odd(_set(data_type=TensorProto.INT4, dims=[3])),
    "const_segment": _odd(lambda one: setattr(one.segment, "begin", 5)),
    "const_in_subgraph": extra(START, *_if()[1:]),
    "scalar_empty": extra(helper.make_node("Constant", [], ["odd"], value=tensor("", np.zeros(0), np.float32)),
        node("Mul", "pixel_values,odd", "m1"),
        node("Pow", "pixel_values,odd", "more")),
    "scalar_string": extra(helper.make_node("Constant", [], ["odd"],
        value=helper.make_tensor("", TensorProto.STRING, [], [b"x"])),
        node("Mul", "pixel_values,odd", "more")),
    "weight_type_999": _weight(_set(data_type=999)),
    "weight_type_string": _weight(_set(data_type=TensorProto.STRING)),
    "weight_short": _weight(_set(raw_data=b"\0" * 3)),
    "weight_empty": _weight(_set(raw_data=b"")),
    "weight_dims_negative": _weight(_set(dims=[-1, 3])),
    "weight_dims_huge": _weight(_set(dims=[2**40, 2**20])),
    "weight_no_name": _weight(_set(name="")),
    "weight_twice": changed(lambda model: model.graph.initializer.append(model.graph.initializer[0])),
    "weight_nan": _weight(lambda one: _set(raw_data=b"\0\0\xc0\x7f" * (len(one.raw_data) // 4))(one)),
    "weight_sparse": changed(lambda model: model.graph.sparse_initializer.append(_sparse())),
    "axis_of_100": _attribute("Softmax", axis=100),
    "axis_negative": _attribute("Softmax", axis=-100),
    "axis_2_to_the_62": _attribute("Softmax", axis=2**62),
    "axis_is_text": _attribute("Softmax", axis="x"),
    "axis_is_list": _attribute("Softmax", axis=[1, 2]),
    "axis_of_layer_norm": _attribute("LayerNormalization", axis=9),
    "epsilon_nan": _attribute("LayerNormalization", epsilon=float("nan")),
    "epsilon_is_text": _attribute("LayerNormalization", epsilon="tiny"),
    "epsilon_negative": _attribute("LayerNormalization", epsilon=-1.0),
    "perm_twice": _attribute("Transpose", perm=[0, 0, 0, 0]),
    "perm_short": _attribute("Transpose", perm=[0]),
    "perm_is_float": _attribute("Transpose", perm=[0.5, 1.5]),
    "attribute_twice": changed(lambda model: next(one for one in model.graph.node if one.op_type == "Softmax").attribute.extend(
        [helper.make_attribute("axis", 1), helper.make_attribute("axis", -1)])),
    "attribute_without_type": _attribute("Softmax", axis=onnx.AttributeProto(name="axis", i=1)),
    "attribute_of_type_99": _attribute("Softmax", axis=onnx.AttributeProto(name="axis", i=1, type=13)),
    "attribute_reference": _attribute("Softmax", axis=onnx.AttributeProto(name="axis", ref_attr_name="outer", type=2)),
    "attribute_is_graph": _attribute("Softmax", body=helper.make_graph([], "g", [], [])),
    "gelu_approximate_999": extra(helper.make_node("Gelu", ["pixel_values"], ["more"], approximate="x" * 999)),
    "gather_beyond": extra(node("Gather", "pixel_values,far", "more", axis=1), weights=[tensor("far", [2**40])]),
    "reshape_huge": extra(node("Reshape", "pixel_values,to", "more"), weights=[tensor("to", [2**40, -1])]),
    "reshape_two_free": extra(node("Reshape", "pixel_values,to", "more"), weights=[tensor("to", [-1, -1])]),
    "reshape_by_input": extra(node("Cast", "pixel_values", "ints", to=INT64), node("Reshape", "pixel_values,ints", "more")),
    "slice_huge": extra(node("Slice", "pixel_values,a,b,c,d", "more"),
        weights=[tensor("a", [-(2**63)]), tensor("b", [2**63 - 1]), tensor("c", [99]), tensor("d", [2**62])]),
    "concat_axis_99": extra(node("Concat", "pixel_values,pixel_values", "more", axis=99)),
    "cast_to_999": extra(node("Cast", "pixel_values", "more", to=999)),
    "output_twice": extra(node("Neg", "pixel_values", "twice"), node("Abs", "pixel_values", "twice")),
    "output_is_weight": changed(lambda model: model.graph.node[0].output.__setitem__(0, model.graph.initializer[0].name)),
    "output_none": extra(helper.make_node("Neg", ["pixel_values"], [])),
    "operator_unknown": extra(node("Nope", "pixel_values", "n")),
    "operator_empty": extra(node("", "pixel_values", "n")),
    "operator_escapes": extra(node("\x1b[2J\nvitzoo: ok", "pixel_values", "n")),
    "domain_unknown": extra(helper.make_node("Neg", ["pixel_values"], ["n"], domain="evil")),
    "domain_known_not_imported": extra(helper.make_node("Gelu", ["pixel_values"], ["n"], domain="com.microsoft")),
    "domain_path": extra(helper.make_node("Neg", ["pixel_values"], ["n"], domain="../../evil.so")),
    "domain_training": changed(lambda model: model.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))),
    "opset_99": changed(lambda model: setattr(model.opset_import[0], "version", 99)),
    "opset_0": changed(lambda model: setattr(model.opset_import[0], "version", 0)),
    "opset_1": changed(lambda model: setattr(model.opset_import[0], "version", 1)),
    "opset_negative": changed(lambda model: setattr(model.opset_import[0], "version", -1)),
    "opset_2_to_the_62": changed(lambda model: setattr(model.opset_import[0], "version", 2**62)),
    "opset_none": changed(lambda model: model.ClearField("opset_import")),
    "opset_twice": changed(lambda model: model.opset_import.append(helper.make_opsetid("", 11))),
    "ir_99": changed(lambda model: setattr(model, "ir_version", 99)),
    "ir_0": changed(lambda model: setattr(model, "ir_version", 0)),
    "ir_negative": changed(lambda model: setattr(model, "ir_version", -1)),
    "ir_none": changed(lambda model: model.ClearField("ir_version")),
    "graph_none": changed(lambda model: model.ClearField("graph")),
    "graph_empty": changed(lambda model: model.graph.CopyFrom(onnx.GraphProto())),
    "training_info": changed(lambda model: model.training_info.add().algorithm.CopyFrom(model.graph)),
    "quantization_annotation": changed(lambda model: setattr(model.graph.quantization_annotation.add(), "tensor_name",
        "nowhere")),
    "producer_escapes": changed(lambda model: setattr(model, "producer_name", "\x1b[2J\x07\n")),
    "session_config": changed(lambda model: helper.set_model_props(model,
        {"ort_config": '{"session_options": {"inter_op_num_threads": 9999}}'})),
    "q_without_scale": extra(node("DequantizeLinear", "pixel_values", "n")),
    "q_scale_empty": extra(node("QuantizeLinear", "pixel_values,scale,zero", "q"),
        node("DequantizeLinear", "q,scale,zero", "more"),
        weights=[tensor("scale", np.zeros(0), np.float32), tensor("zero", np.zeros(0), np.uint8)]),
    "q_scale_zero": extra(node("QuantizeLinear", "pixel_values,scale,zero", "q"),
        node("DequantizeLinear", "q,scale,zero", "more"),
        weights=[tensor("scale", 0, np.float32), tensor("zero", 0, np.uint8)]),
    "saturating_constants": extra(node("Clip", "pixel_values,low,high", "more"),
        weights=[tensor("low", [1, 2], np.float32), tensor("high", "x", np.str_) if False else tensor("high", 1)]),
}  # fmt: skip

# --- bytes ---

WIRE: dict[str, Maker] = {
    "empty": content("m.onnx", b""),
    "one_byte": content("m.onnx", b"\x08"),
    "html": content("m.onnx", b"<!DOCTYPE html><html>404</html>"),
    "lfs": content("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    "text": content("m.onnx", b"not a model\n"),
    "zeros": content("m.onnx", bytes(4096)),
    "ones": content("m.onnx", b"\xff" * 4096),
    "ir_alone": content("m.onnx", b"\x08\x09\x12\x01x"),
    **{
        f"cut_{part}": raw(lambda data, part=part: data[: int(part * len(data))])
        for part in (0.001, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99)
    },
    "trailing": raw(lambda data: data + b"trailing"),
    "trailing_zeros": raw(lambda data: data + bytes(1000)),
    "doubled": raw(lambda data: data + data),
    "varint_endless": content("m.onnx", b"\x08" + b"\xff" * 4000),
    "length_beyond": content("m.onnx", b"\x08\x09\x12\x01x\x3a\xff\xff\xff\xff\x0f"),
    "length_2_to_the_63": content("m.onnx", b"\x08\x09\x12\x01x\x3a" + b"\xff" * 8 + b"\x7f"),
    "groups": content("m.onnx", b"\x08\x09\x12\x01x" + b"\x7b" * 5000),
    "group_unclosed": content("m.onnx", b"\x08\x09\x12\x01x\x7b"),
    "field_0": content("m.onnx", b"\x08\x09\x12\x01x\x02\x00"),
    "wire_type_7": content("m.onnx", b"\x08\x09\x12\x01x\x3f\x00"),
    "unknown_fields_1m": raw(lambda data: data + b"\xa0\x06\x01" * 1_000_000),
    "graph_of_varint": content("m.onnx", b"\x08\x09\x12\x01x\x38\x05"),
    "not_utf8": raw(lambda data: data.replace(b"pixel_values", b"\xff\xfe\xfdel_values")),
    "name_with_nul": raw(lambda data: data.replace(b"pixel_values", b"pixel\0values")),
    "packed_nonsense": content("m.onnx", b"\x08\x09\x12\x01x\x3a\x0a\x2a\x08\x0a\x03\xff\xff\xff\x22\x01\xff"),
}

# --- external data ---


def _external(
    location: str, *, offset: str | None = None, length: str | None = None, also: Callable[[Path], None] | None = None
) -> Maker:
    """Return a maker of a folder `m` with the valid model, whose largest weight is in another file, and of a file outside."""

    def make(folder: Path) -> None:
        model = valid(folder)
        weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
        data = weight.raw_data
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, what in (("location", location), ("offset", offset), ("length", length)):
            if what is not None:
                weight.external_data.add(key=key, value=what)
        (folder / "m").mkdir()
        write(folder / "m", model)
        (folder / "secret.bin").write_bytes(data)
        if also is not None:
            also(folder / "m")

    return make


def _more_entries(folder: Path) -> None:
    (folder / "w.bin").write_bytes((folder.parent / "secret.bin").read_bytes())
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    weight = next(one for one in model.graph.initializer if one.external_data)
    for key, what in (("location", "other.bin"), ("offset", "0"), ("offset", "4"), ("basepath", "/"), ("checksum", "0")):
        weight.external_data.add(key=key, value=what)
    write(folder, model)


def _in_constant(folder: Path) -> None:
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    one = TensorProto(name="c", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    one.external_data.add(key="location", value="../secret.bin")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["leak"], value=one))
    (folder / "w.bin").write_bytes((folder.parent / "secret.bin").read_bytes())
    write(folder, model)


def _in_branch(folder: Path) -> None:
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    one = TensorProto(name="c", data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    one.external_data.add(key="location", value="../secret.bin")
    branch = helper.make_graph([node("Identity", "c", "b")], "then", [], [helper.make_tensor_value_info("b", FLOAT, None)], [one])
    always = helper.make_node("Constant", [], ["always"], value=tensor("", True, np.bool_))
    model.graph.node.insert(0, helper.make_node("If", ["always"], ["leak"], then_branch=branch, else_branch=branch))
    model.graph.node.insert(0, always)
    (folder / "w.bin").write_bytes((folder.parent / "secret.bin").read_bytes())
    write(folder, model)


def _copy(folder: Path) -> None:
    (folder / "w.bin").write_bytes((folder.parent / "secret.bin").read_bytes())


EXTERNAL: dict[str, Maker] = {
    "outside": _external("../secret.bin"),
    "outside_by_detour": _external("sub/../../secret.bin", also=lambda folder: (folder / "sub").mkdir()),
    "backslash": _external("..\\secret.bin"),
    "absolute": _external("/etc/hostname"),
    "device": _external("/dev/zero"),
    "device_relative": _external("../../../../../../../../dev/zero"),
    "symlink": _external("w.bin", also=lambda folder: (folder / "w.bin").symlink_to("../secret.bin")),
    "symlink_inside": _external("w.bin", also=lambda folder: (_copy(folder), (folder / "w.bin").rename(folder / "v.bin"),
        (folder / "w.bin").symlink_to("v.bin"))),
    "symlink_to_device": _external("w.bin", also=lambda folder: (folder / "w.bin").symlink_to("/dev/zero")),
    "symlink_dangling": _external("w.bin", also=lambda folder: (folder / "w.bin").symlink_to("nowhere")),
    "symlink_loop": _external("w.bin", also=lambda folder: (folder / "w.bin").symlink_to("w.bin")),
    "symlinked_folder": _external("sub/secret.bin", also=lambda folder: (folder / "sub").symlink_to("..")),
    "hard_link": _external("w.bin", also=lambda folder: (folder / "w.bin").hardlink_to(folder.parent / "secret.bin")),
    "pipe": _external("w.bin", also=lambda folder: os.mkfifo(folder / "w.bin")),
    "folder": _external("w.bin", also=lambda folder: (folder / "w.bin").mkdir()),
    "missing": _external("gone.bin"),
    "itself": _external("m.onnx"),
    "empty_file": _external("w.bin", also=lambda folder: (folder / "w.bin").write_bytes(b"")),
    "too_short": _external("w.bin", also=lambda folder: (folder / "w.bin").write_bytes(b"1234")),
    "location_empty": _external(""),
    "location_dot": _external("."),
    "location_nul": _external("a\0b"),
    "location_of_5000": _external("a" * 5000),
    "location_escapes": _external("\x1b[2J\n"),
    "location_url": _external("http://127.0.0.1:9/w.bin"),
    "location_user": _external("~/w.bin"),
    "location_memory": _external("*/_ORT_MEM_ADDR_/*", offset="4096", length="4"),
    "length_10_to_the_15": _external("w.bin", length=str(10**15), also=_copy),
    "length_negative": _external("w.bin", length="-1", also=_copy),
    "length_of_4": _external("w.bin", length="4", also=_copy),
    "length_text": _external("w.bin", length="x", also=_copy),
    "length_digits": _external("w.bin", length="9" * 5000, also=_copy),
    "offset_negative": _external("w.bin", offset="-5", also=_copy),
    "offset_beyond": _external("w.bin", offset=str(10**15), also=_copy),
    "offset_overflow": _external("w.bin", offset=str(2**64 - 1), length="4", also=_copy),
    "offset_superscript": _external("w.bin", offset="²", also=_copy),
    "more_entries": _external("w.bin", also=_more_entries),
    "in_constant": _external("w.bin", also=_in_constant),
    "in_branch": _external("w.bin", also=_in_branch),
    "sparse_64_gb": _external("w.bin", length=str(2**36), also=lambda folder: os.truncate(_touched(folder / "w.bin"), 2**36)),
}  # fmt: skip


def _touched(path: Path) -> Path:
    path.touch()
    return path


# files of the list of 2026-11, which ended in exit 1, a hang or memory without a limit
FORMER = {
    "add_noinput", "const_complex", "const_empty", "const_nooutput", "const_type999", "const_undefined", "cos_8gb", "fn_laughs",
    "in_batch_4096", "in_batch_huge", "in_digits_axis", "in_neg_axis", "loop_fold", "loop_inf", "loop_mem", "matmul_bomb",
    "nodes_100k", "nodes_100k_wide", "nodes_20000_rev", "nodes_3000_rev", "out_opt_none", "out_scalar", "out_seq", "out_string",
    "random_normal", "in_axis_superscript", "scalar_empty", "scalar_string", "tanh_noinput", "hard_link", "symlink",
}  # fmt: skip

AGAINST = "--against BASE/tiny"
PREDICT = "predict {} BASE/image.png --preprocess half"
# what may also be legal: small graphs, odd but runnable ones, and those whose odd part onnxruntime leaves out
LENIENT = {
    "onnx_bomb": {
        "loop_of_3", "if", "scan", "fn_one", "fn_1000", "random_small", "random_normal_like", "bernoulli", "dropout_training",
        "non_zero", "unique",
        "cos_unused", "conv_huge_pads", "sequence", "optional", "strings", "string_split", "einsum", "image_decoder",
        "range_by_0",
    },
    "onnx_size": set(SIZES),
    "onnx_input": set(INPUTS),
    "onnx_node": set(NODES),
    "onnx_wire": {"trailing", "trailing_zeros", "doubled", "unknown_fields_1m", "name_with_nul", "cut_0.99"},
    "onnx_external": set(),
}  # fmt: skip


def _entries(group: str, makers: dict[str, Maker], *, file: str = "m.onnx") -> list[Entry]:
    """Return the entries of a group: shown, compared with the model, and run."""
    found = []
    for name, make in makers.items():
        lenient = name in LENIENT[group]
        against = (0, INPUT, FAILED, REFUSED) if lenient else (FAILED, REFUSED) if group == "onnx_bomb" else (REFUSED,)
        runs = (0, INPUT, REFUSED) if lenient else (REFUSED,)
        commands = (
            command(f"show {file}", 0, REFUSED),
            command(f"verify {file} {AGAINST}", *against, session=True),
            command(PREDICT.format(file), *runs, session=True),
        )
        found.append(Entry(f"{group}/{name}", make, commands, name in FORMER))
    return found


ENTRIES = [
    *_entries("onnx_bomb", BOMBS),
    *_entries("onnx_size", SIZES),
    *_entries("onnx_input", INPUTS),
    *_entries("onnx_node", NODES),
    *_entries("onnx_wire", WIRE),
    *_entries("onnx_external", EXTERNAL, file="m/m.onnx"),
]
