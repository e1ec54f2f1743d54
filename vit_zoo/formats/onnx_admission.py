"""Admission of ONNX files of any origin: what vitzoo does not run, since no image classifier needs it.

Anybody can write a file, and the metadata of ours into it. So each file is checked before anything else is done with it: before
a reference is built, torch or onnxruntime is imported, or a file is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from vit_zoo.errors import RefusedContent
from vit_zoo.formats.external_data import check_range, data_range
from vit_zoo.formats.onnx_sizes import MAX_STATED, MAX_VALUES, Constants, numbers, stated_size
from vit_zoo.formats.onnx_skeleton import length_of
from vit_zoo.formats.onnx_wire import Operator, Structure, Tensor, Value, file_state, read_structure
from vit_zoo.graph.patch_inputs import GRIDS, MASK, VALUES

# An export of ViT-g with dynamic axes has 5,000 operators, and about three times as many once its products are quantised.
# The others follow from that: 12 fields for each operator, and the stack traces that torch's exporter records in 2 kB of each.
LIMITS = {
    "operator": 30_000, "initializer": 30_000, "attribute": 120_000, "entry": 120_000, "subgraph": 1_000, "fields": 500_000,
    "name": 4096, "bytes": 128 << 20,
}  # fmt: skip
MAX_RANK = 8  # the attention over windows of Swin-like models has 6 axes
# operator sets and versions of the file format up to these need no question to onnxruntime
KNOWN_OPSET, KNOWN_IR = 23, 11

CONTROL, RANDOM, SEQUENCE = "control flow is", "random numbers are", "sequences are"
OPTIONAL, STRING, CODE = "optional values are", "strings are", "code outside the file is"
REFUSED = dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), CONTROL)
REFUSED |= dict.fromkeys(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), RANDOM
)
REFUSED |= dict.fromkeys(
    ("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
     "SplitToSequence", "ConcatFromSequence"), SEQUENCE,
)  # fmt: skip
REFUSED |= dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), OPTIONAL)
REFUSED |= dict.fromkeys(
    ("StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "Tokenizer", "LabelEncoder"), STRING
)
REFUSED |= dict.fromkeys(("EPContext", "Snpe", "PythonOp", "ATen"), CODE)
DROPOUTS = ("Dropout", "BiasDropout", "BitmaskDropout", "BitmaskBiasDropout")  # random in training mode only
# that of the standard, and onnxruntime's own, which its quantiser and its optimiser write
DOMAINS = ("", "ai.onnx", "com.microsoft", "com.microsoft.nchwc")

STRINGS = 8  # TensorProto.DataType
BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}  # of each value, by type
BITS |= dict.fromkeys((17, 18, 19, 20, 24), 8) | dict.fromkeys((21, 22, 23), 4) | dict.fromkeys((25, 26), 2)
FIELDS = {1: 4, 7: 7, 11: 10, 12: 11, 13: 11}  # the field of a tensor for values of each type; all others are in int32_data
INT32_DATA, RAW_DATA = 5, 9
FLOATS = (1, 10, 11, 16)
INPUTS = {1: "float32", 10: "float16", 2: "uint8"}
PATCHES = {VALUES: 1, MASK: 6, GRIDS: 7}  # the inputs of a file for patches of images, and their types
# fields of an attribute
SUBGRAPHS, SPARSE, TYPES, STRING_VALUES = {6, 11}, {22, 23}, {14, 15}, {4, 9}


class Interface(NamedTuple):
    """What a file declares: type and axes of its input, and the axes of each output, none where it does not state them."""

    input_type: str
    input_shape: tuple[int | str | None, ...]
    output_shapes: dict[str, tuple[int | str | None, ...]]


class _Admitted(NamedTuple):
    external: tuple[tuple[str, tuple[tuple[str, str], ...], int], ...]  # names, locations and sizes in bytes of such tensors
    interface: Interface


def check_runnable(path: Path) -> int:
    """Return the size in bytes of an ONNX file's external data, 0 without any, if the file may be run.

    The file's structure is read, not its weights; neither torch nor onnx is imported. External data must lie in regular files
    next to it, which are not opened. Raises RefusedContent for a file that is not to be run, with the operator, input or tensor
    that is the reason.
    """
    tensors = _checked(path, file_state(path)).external
    for name, location, size in tensors:
        check_range(path, name, dict(location), size)
    return sum(size for _, _, size in tensors)


def external_names(path: Path) -> tuple[str, ...]:
    """Return the names of the files next to an ONNX file that hold weights of it, sorted. Raises as `check_runnable`."""
    return tuple(
        sorted({data_range(path, dict(location), size)[0] for _, location, size in _checked(path, file_state(path)).external})
    )


def interface(path: Path) -> Interface:
    """Return the input and the outputs of an ONNX file as it declares them. Raises as `check_runnable`."""
    return _checked(path, file_state(path)).interface


@lru_cache(maxsize=16)
def _checked(path: Path, state: tuple[int, ...]) -> _Admitted:
    """Check a file, once for each state of it."""
    structure = read_structure(path, LIMITS)
    fault = next(_faults(structure), None)
    if fault is not None:
        raise RefusedContent(fault, where=path)
    _check_version(structure, path)
    external = tuple(
        (tensor.name, tuple(tensor.location.items()), _bytes(tensor)) for tensor in _tensors(structure) if tensor.is_external
    )
    initializers = {tensor.name for tensor in structure.initializers}
    given = next(value for value in structure.inputs if value.name not in initializers)
    outputs = {value.name: tuple(map(length_of, value.axes)) for value in structure.outputs}
    return _Admitted(external, Interface(INPUTS[given.type], tuple(map(length_of, given.axes)), outputs))


def _faults(structure: Structure) -> Iterator[str]:
    """Yield what is not supported in a file, the plainest first."""
    if structure.functions:
        count = f"{structure.functions} functions" if structure.functions > 1 else "a function"
        yield f"defines {count} of its own: functions are not supported; inline them with onnx.inliner"
    if structure.training:
        yield "contains a training graph, which is not supported"
    if structure.sparse:
        yield "contains sparse tensors, which are not supported"
    constants = {name: values for name, values in _constants(structure) if values is not None}
    for index, operator in enumerate(structure.operators):
        reason = _reason(operator, structure.opsets, constants)
        if reason is not None:
            yield f"contains {label(operator, index)}: {reason} not supported"
    yield from _constant_faults(structure)
    yield from _interface_faults(structure)
    yield from _size_faults(structure, constants)
    yield from _order_faults(structure)


def label(operator: Operator, index: int) -> str:
    """Return an operator's type, name and position in words."""
    domain = "" if operator.domain in DOMAINS[:2] else f"{operator.domain}."
    name = f"node {operator.name!r}, " if operator.name else ""
    return f"{domain}{operator.type} ({name}operator {index})"


def _reason(operator: Operator, opsets: dict[str, int], constants: Constants) -> str | None:
    """Return what is not supported in an operator, with its verb; None for an operator that is."""
    if operator.type in REFUSED:
        return REFUSED[operator.type]
    kinds = {kind for attribute in operator.attributes.values() for kind in attribute.kinds}
    if kinds & SUBGRAPHS:
        return CONTROL
    if operator.domain not in DOMAINS:
        return f"operators of the domain {operator.domain!r} are"
    if kinds & SPARSE:
        return "sparse tensors are"
    if kinds & TYPES:
        return OPTIONAL
    if operator.type in DROPOUTS and _is_training(operator, opsets, constants):
        return RANDOM
    is_text = any(name in operator.attributes for name in ("value_string", "value_strings"))
    to_text = operator.type == "Cast" and operator.attributes.get("to") is not None
    if (operator.type == "Constant" and is_text) or (to_text and STRINGS in operator.attributes["to"].integers):
        return STRING
    return None


def _is_training(operator: Operator, opsets: dict[str, int], constants: Constants) -> bool:
    """Return whether a dropout may drop values: its third input decides since operator set 12, and before 7 an attribute."""
    version = opsets.get("", opsets.get("ai.onnx", KNOWN_OPSET))
    if version < 7 and operator.type == "Dropout":
        return "is_test" not in operator.attributes or operator.attributes["is_test"].integers[-1:] != (1,)
    position = 4 if "Bias" in operator.type else 2
    mode = operator.inputs[position] if len(operator.inputs) > position else ""
    return mode != "" and constants.get(mode) != (0,)


def _constant_faults(structure: Structure) -> Iterator[str]:
    """Yield tensors of a type, shape or size that is wrong."""
    for tensor in _tensors(structure):
        if tensor.type == STRINGS:
            yield f"contains the tensor {tensor.name!r} of strings: strings are not supported"
        elif tensor.type not in BITS:
            yield f"contains the tensor {tensor.name!r} of type {tensor.type}, which is not supported"
        elif len(tensor.dims) > MAX_RANK:
            yield f"contains the tensor {tensor.name!r} of {len(tensor.dims)} axes; at most {MAX_RANK} are supported"
        elif any(length < 0 for length in tensor.dims):
            yield f"contains the tensor {tensor.name!r} of shape {list(tensor.dims)}"
        elif tensor.is_segment:
            yield f"contains a segment of the tensor {tensor.name!r}: segments are not supported"
        elif tensor.is_external != bool(tensor.location):
            yield f"contains the tensor {tensor.name!r}, of which it is not clear whether its data are in the file"
        elif not tensor.is_external and not _is_complete(tensor):
            shape = list(tensor.dims)
            yield f"does not contain the data of tensor {tensor.name!r}: their size is not that of its shape {shape}"


def _is_complete(tensor: Tensor) -> bool:
    """Return whether the data in the file have the size that follows from type and shape."""
    if RAW_DATA in tensor.data:
        return tensor.data == {RAW_DATA: _bytes(tensor)}
    bits = BITS[tensor.type]
    count = math.prod(tensor.dims) if bits >= 8 else _bytes(tensor)
    return tensor.data in ({FIELDS.get(tensor.type, INT32_DATA): count}, {} if not count else None)


def _bytes(tensor: Tensor) -> int:
    return -(-math.prod(tensor.dims) * BITS[tensor.type] // 8)


def _tensors(structure: Structure) -> Iterator[Tensor]:
    """Yield the constants: initializers, and tensors in attributes under the names of the operators' outputs."""
    yield from structure.initializers
    for operator in structure.operators:
        for attribute in operator.attributes.values():
            for tensor in attribute.tensors:
                tensor.name = tensor.name or next(iter(operator.outputs), "")
                yield tensor


def _interface_faults(structure: Structure) -> Iterator[str]:
    """Yield inputs and outputs of a number, type or shape that is not supported."""
    initializers = {tensor.name for tensor in structure.initializers}  # older files list their weights as inputs too
    inputs = [value for value in structure.inputs if value.name not in initializers]
    of_patches = {value.name: value.type for value in inputs} == PATCHES
    if len(inputs) != 1 and not of_patches:
        yield f"expected one input, got {len(inputs)}"
    for value in inputs[:1] if of_patches else inputs:
        if value.kind != "tensor" or value.type not in INPUTS:
            yield f"input {value.name!r} {_type_text(value)}; expected a tensor of {', '.join(INPUTS.values())}"
        yield from _shape_faults("input", value)
    for value in structure.outputs:
        if value.kind not in ("tensor", "") or (value.type and value.type not in BITS):
            yield f"output {value.name!r} {_type_text(value)}, which is not supported"
        yield from _shape_faults("output", value)
    if not any(value.type in (0, *FLOATS) for value in structure.outputs):
        yield "has no output of floating-point numbers"


def _type_text(value: Value) -> str:
    if value.kind != "tensor":
        return f"is of the type {value.kind}" if value.kind else "has no type"
    return "is a tensor of strings" if value.type == STRINGS else f"is a tensor of type {value.type}"


def _shape_faults(what: str, value: Value) -> Iterator[str]:
    if not value.name.isprintable():
        yield f"{what} {value.name!r} has a name with control characters"
    if len(value.axes) > MAX_RANK:
        yield f"{what} {value.name!r} has {len(value.axes)} axes; at most {MAX_RANK} are supported"
    lengths = _lengths(value)
    wrong = next((length for length in lengths if length < 1), None)
    if wrong is not None:
        yield f"{what} {value.name!r} has an axis of length {wrong}"
    elif math.prod(lengths) > MAX_VALUES:
        yield f"{what} {value.name!r} has {math.prod(lengths):,} values; at most {MAX_VALUES:,} are supported"


def _lengths(value: Value) -> list[int]:
    """Return the lengths of the axes that are not free."""
    return [axis for axis in map(length_of, value.axes) if isinstance(axis, int)]


def _size_faults(structure: Structure, constants: Constants) -> Iterator[str]:
    """Yield operators that make more values out of constants than any classifier computes with."""
    shapes = {value.name: tuple(_lengths(value)) for value in structure.inputs}
    shapes |= {tensor.name: tensor.dims for tensor in structure.initializers}
    total = 0.0
    for index, operator in enumerate(structure.operators):
        size = stated_size(operator, constants, shapes)
        total += size
        if size > MAX_VALUES:
            yield f"contains {label(operator, index)}: its result has {size:,.0f} values; at most {MAX_VALUES:,} are supported"
        if total > MAX_STATED:
            yield f"contains operators that make more than {MAX_STATED:,} values of constants, such as {label(operator, index)}"


def _constants(structure: Structure) -> Iterator[tuple[str, tuple[float, ...] | None]]:
    for tensor in structure.initializers:
        yield tensor.name, numbers(tensor)
    for operator in structure.operators:
        if operator.type == "Constant" and operator.outputs:
            for attribute in operator.attributes.values():
                yield operator.outputs[0], next(map(numbers, attribute.tensors), attribute.integers or None)


def _order_faults(structure: Structure) -> Iterator[str]:
    """Yield operators that are not part of a graph: each value is computed once, and from others that exist, without cycles."""
    given = {value.name for value in structure.inputs} | {tensor.name for tensor in structure.initializers}
    producers: dict[str, int] = {}
    for index, operator in enumerate(structure.operators):
        outputs = [name for name in operator.outputs if name]
        if not outputs:
            yield f"contains {label(operator, index)} without outputs"
        for name in outputs:
            if name in producers or name in given:
                yield f"computes {name!r} twice, the second time in {label(operator, index)}"
            producers[name] = index
    needs: list[set[int]] = []
    for index, operator in enumerate(structure.operators):
        missing = next((name for name in operator.inputs if name and name not in given and name not in producers), None)
        if missing is not None:
            yield f"contains {label(operator, index)}, which reads {missing!r}: nothing computes that"
        needs.append({producers[name] for name in operator.inputs if name in producers})
    if _has_cycle(needs):
        yield "contains a cycle: an operator reads a value that is computed from its own result"
    for value in structure.outputs:
        if value.name not in producers and value.name not in given:
            yield f"does not compute its output {value.name!r}"


def _has_cycle(needs: list[set[int]]) -> bool:
    """Return whether operators depend on each other in a circle. `needs` are those that each operator depends on."""
    users: list[list[int]] = [[] for _ in needs]
    for index, needed in enumerate(needs):
        for other in needed:
            users[other].append(index)
    missing = [len(needed) for needed in needs]
    ready = [index for index, count in enumerate(missing) if not count]
    done = 0
    while ready:
        done += 1
        for user in users[ready.pop()]:
            missing[user] -= 1
            if not missing[user]:
                ready.append(user)
    return done < len(needs)


def _check_version(structure: Structure, path: Path) -> None:
    """Raise RefusedContent for operator sets or a file format that are newer than the installed onnxruntime.

    No list of its versions is complete, so it is asked to open the smallest file of the same versions.
    """
    opset = max(structure.opsets.get("", 0), structure.opsets.get("ai.onnx", 0))
    if opset <= KNOWN_OPSET and structure.ir_version <= KNOWN_IR:
        return
    from vit_zoo.formats.onnx_versions import can_open

    if not can_open(opset, structure.ir_version):
        versions = f"operator set {opset} or IR version {structure.ir_version}"
        raise RefusedContent(f"onnxruntime cannot open it: {versions} is newer than the installed version", where=path)
