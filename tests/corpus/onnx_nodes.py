"""ONNX files with odd inputs, outputs, constants, nodes and attributes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpus.entry import Maker
from corpus.onnx_models import (
    FLOAT,
    HEAD,
    IMAGES,
    INT64,
    changed,
    extra,
    graph_of,
    node,
    small,
    tensor,
    value,
    write,
)

# --- inputs and outputs ---


def _input(shape: Any, kind: int = FLOAT) -> Maker:
    return changed(lambda model: model.graph.input[0].CopyFrom(value("pixel_values", shape, kind)))


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
