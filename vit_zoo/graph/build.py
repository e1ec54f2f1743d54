"""Construction of a model's ONNX graph from its spec. The graph refers to stored weights, which are read when it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import CheckFailed
from vit_zoo.files import Stored
from vit_zoo.files.stored import ONNX_TYPES
from vit_zoo.graph.builder import GraphBuilder
from vit_zoo.graph.core_ops import core
from vit_zoo.graph.dynamic_positions import DynamicGrid
from vit_zoo.graph.fp16_ops import HalfOps, halved
from vit_zoo.graph.int8_ops import Int8Ops, Layer, Quantisation, adapted, quantisable, quantised, smoothed
from vit_zoo.graph.onnx_ops import OnnxOps
from vit_zoo.graph.options import COMPUTED, GraphOptions
from vit_zoo.graph.patch_inputs import GRIDS, MASK, VALUES
from vit_zoo.graph.patch_ops import patch_ops
from vit_zoo.graph.preprocess import IMAGE, add_preprocessing
from vit_zoo.graph.relative_biases import looked_up
from vit_zoo.graph.values import BATCH, PATCHES, Node, Scope, Value, Weight
from vit_zoo.model import forward, positions
from vit_zoo.model.outputs import check_names, output_names, unused_weights
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.model.resize_recipes import recipe_named
from vit_zoo.model.spec import ViTSpec

if TYPE_CHECKING:
    import onnx

INPUT = "pixel_values"


@dataclass(frozen=True)
class Graph:
    """A checked ONNX model without the bytes of its weights, and the weights that it refers to."""

    proto: onnx.ModelProto
    weights: dict[str, Weight]  # by initializer
    tensors: Mapping[str, Stored]
    outputs: tuple[str, ...]


def build(
    spec: ViTSpec,
    tensors: Mapping[str, Stored],
    options: GraphOptions,
    quantisation: Quantisation | None = None,
    preprocess: Preprocess | None = None,
) -> Graph:
    """Build the graph of a model.

    The input is `pixel_values` [batch, channels, height, width] float32, or `image` [batch, height, width, channels] uint8
    if the options include preprocessing; of patches, the inputs are those of `patch_inputs.py`. `quantisation` holds the
    calibrated ranges that int8-static needs; without it int8 layers are rounded to nearest. Raises InputError for an unknown
    output, CheckFailed for an unused weight.
    """
    from onnx import TensorProto

    check_names(options.outputs, output_names(spec))
    names = tuple(dict.fromkeys(options.outputs)) or (spec.output,)
    image = input_of(spec, options)
    op = operations(spec, tensors, options, quantisation, image)
    graph_input = image if options.include is None else add_preprocessing(op, preprocess, options, INPUT)
    inputs = {graph_input: TensorProto.UINT8 if graph_input.name == IMAGE else TensorProto.FLOAT}
    if options.patches:
        inputs |= {Value(MASK, (BATCH, PATCHES)): TensorProto.INT32, Value(GRIDS, (BATCH, 2)): TensorProto.INT64}
    values = forward.vit(Scope(), image, spec, op, names, options.activation)
    _check_accounting(op, spec, names)
    results = {name: op.unflatten(value) for name, value in values.items()}
    proto = to_proto(op, inputs, _name_outputs(op, results), options.opset)
    return Graph(proto, op.weights, op.tensors, names)


def input_of(spec: ViTSpec, options: GraphOptions) -> Value:
    """Return the input of the model itself, without preprocessing."""
    if options.patches:
        return Value(VALUES, (BATCH, PATCHES, spec.channels * math.prod(spec.patch_size)))
    size = spec.image_size if options.dynamic is None else ("height", "width")
    return Value(INPUT, (options.batch or BATCH, spec.channels, *size))


def operations(
    spec: ViTSpec,
    tensors: Mapping[str, Stored],
    options: GraphOptions,
    quantisation: Quantisation | None,
    image: Value,
    kind: Callable[[type[OnnxOps]], type[OnnxOps]] = lambda ops: ops,
) -> OnnxOps:
    """Return the operations for these options, with the tensors in their precision. `kind` may derive a class of its own."""
    ops: type[OnnxOps] = OnnxOps
    more: dict[str, Any] = {}
    if options.precision == "bf16":
        tensors = halved(tensors, "BF16")
    elif options.precision == "fp16":
        ops, tensors = HalfOps, halved(tensors, "F16")
    elif options.precision != "fp32":
        chosen = quantisation or Quantisation({path: Layer() for path in quantisable(spec) if path not in options.float_layers})
        layers = adapted(chosen, spec)
        ops, more = Int8Ops, {"kind": options.precision, "layers": layers}
        tensors = quantised(smoothed(tensors, spec, chosen.smoothing), options.precision, layers)
    if options.operators == "core":
        ops = core(ops)
    if spec.relative_bias != "none" and (options.operators == "core" or options.batch is not None):
        tensors = looked_up(tensors, spec)
    if options.dynamic is None:
        return kind(ops)(tensors, options.opset, positions.tables(spec), image=image, **more)
    if options.patches:
        return kind(patch_ops(ops, spec, recipe_named(options.dynamic)))(tensors, options.opset, image=image, **more)
    grid = DynamicGrid(spec, None if options.dynamic == COMPUTED else recipe_named(options.dynamic))
    return kind(ops)(tensors, options.opset, image=image, grid=grid, **more)


def _check_accounting(graph: GraphBuilder, spec: ViTSpec, outputs: tuple[str, ...]) -> None:
    """Check that every tensor is used completely and once, except those that come after the last output."""
    used = dict.fromkeys(graph.tensors, 0)
    for weight in graph.weights.values():
        used[weight.key] += weight.stop - weight.start
    unused = unused_weights(spec, outputs)
    for key, stored in graph.tensors.items():
        if used[key] != stored.nbytes and not (used[key] == 0 and key.startswith(unused)):
            raise CheckFailed(f"the graph uses {used[key]:,} of the {stored.nbytes:,} bytes of {key!r}")


def _name_outputs(graph: GraphBuilder, results: dict[str, Value]) -> dict[str, Value]:
    """Rename the results to the names of the outputs, and return them."""
    rename: dict[str, str] = {}
    computed = {output for node in graph.nodes for output in node.outputs}
    for name, value in results.items():
        if value.name in rename or value.name not in computed:
            graph.nodes.append(Node("Identity", (value.name,), (name,), f"output/{name}", {}))
        else:
            rename[value.name] = name
    graph.nodes = [
        Node(
            node.op,
            tuple(rename.get(x, x) for x in node.inputs),
            tuple(rename.get(x, x) for x in node.outputs),
            node.name,
            node.attributes,
        )
        for node in graph.nodes
    ]
    return {name: Value(name, value.shape) for name, value in results.items()}


def to_proto(graph: GraphBuilder, inputs: Mapping[Value, int], results: dict[str, Value], opset: int) -> onnx.ModelProto:
    """Return the model without weights, after onnx's full check. `inputs` are given with the types of their elements."""
    from onnx import TensorProto, checker, helper, numpy_helper

    def info(value: Value, type_: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(value.name, type_, list(value.shape))

    nodes = [helper.make_node(n.op, n.inputs, n.outputs, n.name, **n.attributes) for n in graph.nodes]
    constants = [
        helper.make_tensor(name, type_, [len(values)] if vector else [], values)
        for (type_, values, vector), name in graph.constants.items()
    ]
    constants += [numpy_helper.from_array(table, name) for name, table in graph.tables.items()]
    graph_inputs = [info(value, type_) for value, type_ in inputs.items()]
    body = helper.make_graph(nodes, "vit", graph_inputs, [info(value) for value in results.values()], constants)
    computed = {output for node in graph.nodes for output in node.outputs}  # without results, which were renamed
    body.value_info.extend(info(Value(name, shape)) for name, shape in graph.shapes.items() if name in computed)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model_gen_version(body, opset_imports=opsets, producer_name="vitzoo")
    model.ir_version = helper.find_min_ir_version_for(opsets)
    # For the check, weights are inputs of their type and shape: it needs no bytes of them.
    skeleton = type(model)()
    skeleton.CopyFrom(model)
    skeleton.graph.input.extend(
        helper.make_tensor_value_info(name, ONNX_TYPES[graph.tensors[w.key].dtype], w.shape) for name, w in graph.weights.items()
    )
    checker.check_model(skeleton, full_check=True)
    return model
