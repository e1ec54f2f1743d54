"""Structure of an ONNX file, decoded from the wire format in one pass, without onnx and without the values of weights.

It is the first look at a file of unknown origin: numbers of fields, operators and tensors, depth and names are bounded before
any library reads the file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

from vit_zoo.errors import RefusedContent
from vit_zoo.files.wire import read_varint

if TYPE_CHECKING:
    from pathlib import Path

KEPT = 4096  # bytes; longer strings and data are only located. No name of an exporter is nearly as long
MAX_DEPTH = 100  # nested messages, as in every protobuf library: deeper files open nowhere
MAX_AXES = 64  # of a tensor, as in NumPy
CHUNK = 1 << 20  # bytes read at once

SHOWN = {
    "fields": 1_000_000,
    "operator": 300_000,
    "bytes": 256 << 20,
}  # what `vitzoo show` describes, in seconds and 1 GB at most

# fields that contain messages, by the kind of the message; the others are numbers, strings and data
SCHEMA: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 25: "function"},
    "opset": {},
    "function": {7: "operator", 11: "attribute"},
    "graph": {1: "operator", 5: "initializer", 11: "value", 12: "value", 15: "sparse tensor"},
    "subgraph": {1: "operator", 5: "initializer", 11: "value", 12: "value", 13: "value", 15: "sparse tensor"},
    "operator": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "subgraph", 10: "tensor", 11: "subgraph", 14: "type", 15: "type", 22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "initializer": {13: "entry"},
    "tensor": {13: "entry"},
    "entry": {},
    "value": {2: "type"},
    "type": {1: "tensor type"},
    "tensor type": {2: "shape"},
    "shape": {1: "axis"},
    "axis": {},
}  # fmt: skip
# messages that occur once. Decoders would merge two of them into one that is nowhere in the file
ONCE = {"graph": (7,), "attribute": (5, 6), "value": (2,), "type": (1,), "tensor type": (2,), "model": (7,)}
# names, and other strings that the checks read
NAMES = {
    "operator": (1, 2, 3, 4, 7), "attribute": (1,), "tensor": (8,), "initializer": (8,), "value": (1,), "axis": (2,),
    "entry": (1, 2), "opset": (1,), "model": (2, 3, 4),
}  # fmt: skip
DATA = (4, 5, 6, 7, 9, 10, 11)  # fields of a tensor with its values
VARINTS = (5, 7, 11)  # those of which each value has a length of its own

Message = dict[int, list[Any]]


@dataclass(frozen=True)
class Long:
    """A string or data of more than KEPT bytes: its position in the file, and its length."""

    at: int
    length: int


@dataclass(slots=True)
class Tensor:
    """A tensor without its values: `data` has the bytes or the number of values of each field that holds any."""

    name: str
    dims: tuple[int, ...]
    type: int
    data: dict[int, int]
    location: dict[str, str]  # of external data
    is_external: bool
    is_segment: bool
    content: Message = field(repr=False)  # the fields of DATA, for the values of small tensors


@dataclass(slots=True)
class Attribute:
    """An attribute of an operator. `kinds` are the numbers of the fields that it has."""

    name: str
    kinds: frozenset[int]
    integers: tuple[int, ...]
    floats: tuple[bytes, ...]
    tensors: list[Tensor]


@dataclass(slots=True)
class Operator:
    """An operator with the names of its inputs and outputs; an optional one that is left out has the name ""."""

    type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(slots=True)
class Value:
    """An input or output. An axis is a number, a name, or None; `kind` is "tensor", or that of another type, or "" if none."""

    name: str
    kind: str
    type: int
    axes: tuple[int | str | None, ...]


@dataclass(slots=True)
class Structure:
    """An ONNX file as far as it is decoded here; the main graph's parts."""

    ir_version: int
    opsets: dict[str, int]
    functions: int
    training: bool
    operators: list[Operator]
    initializers: list[Tensor]
    inputs: list[Value]
    outputs: list[Value]
    sparse: int


def read_structure(path: Path, limits: Mapping[str, int]) -> Structure:
    """Decode a file.

    `limits` are the largest numbers of "fields", of "bytes" without the data of tensors, and of messages by their kind.
    Raises RefusedContent for a file that is damaged or exceeds a limit.
    """
    message = _read(path, limits, keeps=True)
    try:
        return _structure(message)
    except ValueError as error:
        raise RefusedContent(f"not a complete ONNX file: {error}", where=path) from None


def _read(path: Path, limits: Mapping[str, int], *, keeps: bool) -> Message:
    try:
        with path.open("rb") as file:
            return _Decoder(file, limits, keeps=keeps).model()
    except ValueError as error:
        if isinstance(error, RefusedContent):
            raise
        raise RefusedContent(f"not a complete ONNX file: {error}", where=path) from None
    except _LimitExceeded as error:
        raise RefusedContent(str(error), where=path) from None


def check_structure(path: Path) -> None:
    """Raise RefusedContent for a file that is damaged or so large, weights apart, that reading it would take very long."""
    _check_once(path, file_state(path))


@lru_cache(maxsize=16)
def _check_once(path: Path, state: tuple[int, ...]) -> None:
    _read(path, SHOWN, keeps=False)


def file_state(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file does."""
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


class _LimitExceeded(Exception):
    pass


class _Decoder:
    def __init__(self, file: BinaryIO, limits: Mapping[str, int], *, keeps: bool) -> None:
        self.file, self.limits, self.keeps = file, limits, keeps
        self.counts: Counter[str] = Counter()
        self.fields, self.most_fields = 0, limits["fields"]

    def model(self) -> Message:
        return self._message("model", os.fstat(self.file.fileno()).st_size, 1)

    def _count(self, what: str, more: int = 1) -> None:
        self.counts[what] = count = self.counts[what] + more
        if count > self.limits.get(what, count):
            unit = f"{self.limits[what] >> 20} MiB besides its weights" if what == "bytes" else f"{self.limits[what]:,} {what}s"
            raise _LimitExceeded(f"has more than {unit}")

    def _message(self, kind: str, end: int, depth: int) -> Message:
        """Decode a message that ends at `end`. Raises ValueError for a damaged one."""
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        file, children, message = self.file, SCHEMA[kind], Message()
        while file.tell() < end:
            self.fields += 1
            if self.fields > self.most_fields:
                raise _LimitExceeded(f"has more than {self.most_fields:,} fields")
            key = read_varint(file)
            number = key >> 3
            match key & 7:
                case 0:
                    value: Any = read_varint(file)
                case 2:
                    length = read_varint(file)
                    at = file.tell()
                    if at + length > end:
                        raise ValueError("truncated")
                    child = children.get(number)
                    if child is not None:
                        self._count(child)
                        value = _decoded(child, self._message(child, at + length, depth + 1))
                        if not self.keeps:  # so that a file of a million parts does not fill the memory
                            value = None
                    else:
                        value = self._content(kind, number, at, length)
                case 1 | 5 as wire:
                    value = file.read(8 if wire == 1 else 4)
                case _:
                    raise ValueError("not protobuf")
            message.setdefault(number, []).append(value)
        if file.tell() != end:
            raise ValueError("truncated")
        if any(len(message.get(number, ())) > 1 for number in ONCE.get(kind, ())):
            raise ValueError(f"the {kind} has parts that occur twice")
        for number in NAMES.get(kind, ()):
            _texts(message, number)  # onnx would return the bytes of names that are not UTF-8
        return message

    def _content(self, kind: str, number: int, at: int, length: int) -> bytes | Long:
        """Read a string or data; only locate it if it is long."""
        data = kind in ("tensor", "initializer") and number in DATA
        if not data:
            self._count("bytes", length)
        if length <= KEPT:
            return self.file.read(length)
        if data and number in VARINTS:
            return _Counted(at, length, self._varints(length))
        if number in NAMES.get(kind, ()) and length > self.limits.get("name", length):
            raise _LimitExceeded(f"has a name of {length:,} characters; at most {self.limits['name']:,} are read")
        self.file.seek(at + length)
        return Long(at, length)

    def _varints(self, length: int) -> int:
        """Return the number of varints in the next bytes: each ends with a byte below 128."""
        count = 0
        while length:
            piece = self.file.read(min(length, CHUNK))
            count += _varints_in(piece)
            length -= len(piece)
        return count


@dataclass(frozen=True)
class _Counted(Long):
    values: int


def _varints_in(data: bytes) -> int:
    return len(data.translate(None, bytes(range(128, 256))))


def _decoded(kind: str, message: Message) -> Any:
    """Return a message as the class for its kind."""
    match kind:
        case "operator":
            return _operator(message)
        case "attribute":
            return _attribute(message)
        case "tensor" | "initializer":
            return _tensor(message)
        case "value":
            return _value(message)
    return message


def _structure(model: Message) -> Structure:
    graph: Message = next(iter(_of(dict, model, 7)), {})
    return Structure(
        ir_version=_integer(model, 1),
        opsets={_text(entry, 1): _integer(entry, 2) for entry in _of(dict, model, 8)},
        functions=len(model.get(25, ())),
        training=20 in model,
        operators=_of(Operator, graph, 1),
        initializers=_of(Tensor, graph, 5),
        inputs=_of(Value, graph, 11),
        outputs=_of(Value, graph, 12),
        sparse=len(graph.get(15, ())),
    )


def _operator(message: Message) -> Operator:
    attributes = {attribute.name: attribute for attribute in _of(Attribute, message, 5)}
    return Operator(
        _text(message, 4), _text(message, 7), _text(message, 3), _texts(message, 1), _texts(message, 2), attributes
    )  # fmt: skip


def _attribute(message: Message) -> Attribute:
    integers = _integers(message, 3) + _integers(message, 8)
    floats = tuple(value for number in (2, 7) for value in message.get(number, ()) if isinstance(value, bytes))
    tensors = _of(Tensor, message, 5) + _of(Tensor, message, 10)
    return Attribute(_text(message, 1), frozenset(message), integers, floats, tensors)


def _tensor(message: Message) -> Tensor:
    dims = _integers(message, 1)
    if len(dims) > MAX_AXES:
        raise ValueError(f"a tensor has {len(dims):,} axes, more than {MAX_AXES}")
    entries = {_text(entry, 1): _text(entry, 2) for entry in _of(dict, message, 13)}
    content = {number: message[number] for number in DATA if number in message}
    data = {number: sum(_amount(number, value) for value in values) for number, values in content.items()}
    return Tensor(_text(message, 8), dims, _integer(message, 2), data, entries, _integer(message, 14) == 1, 3 in message, content)


def _amount(number: int, value: Any) -> int:
    """Return the bytes of raw data, or the number of values in another field of a tensor, packed or not."""
    if number == 6 or isinstance(value, int):
        return 1
    if isinstance(value, _Counted):
        return value.values
    if number in VARINTS:
        return _varints_in(value)
    length = value.length if isinstance(value, Long) else len(value)
    size = {4: 4, 10: 8}.get(number, 1)
    return length // size if length % size == 0 else -1


def _value(message: Message) -> Value:
    kind, number, axes = "", 0, []
    for type_ in _of(dict, message, 2):
        kind = next((name for field, name in TYPES.items() if field in type_), "")  # a tensor only if it is nothing else
        for tensor in _of(dict, type_, 1):
            number = _integer(tensor, 1)
            axes = [_axis(axis) for shape in _of(dict, tensor, 2) for axis in _of(dict, shape, 1)]
    return Value(_text(message, 1), kind, number, tuple(axes))


TYPES = {4: "sequence", 5: "map", 7: "opaque", 8: "sparse tensor", 9: "optional", 1: "tensor"}  # fields of a type


def _axis(axis: Message) -> int | str | None:
    """Return an axis: a number, a name, or None."""
    return _integer(axis, 1) if 1 in axis else _text(axis, 2) or None


def _of(kind: type, message: Message, number: int) -> list[Any]:
    """Return the contents of a field that are of this class; decoders skip those of another wire type."""
    return [value for value in message.get(number, ()) if isinstance(value, kind)]


def _integer(message: Message, number: int) -> int:
    return (_integers(message, number) or (0,))[-1]


def _integers(message: Message, number: int) -> tuple[int, ...]:
    """Return signed 64-bit integers, packed or not."""
    values: list[int] = []
    for value in message.get(number, ()):
        values += [value] if isinstance(value, int) else unpacked(value) if isinstance(value, bytes) else []
    return tuple(value - (1 << 64) if value >> 63 else value for value in values)


def unpacked(data: bytes) -> list[int]:
    """Return the varints in packed data. Raises ValueError if the last one is cut."""
    values, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value & (1 << 64) - 1)
            value = shift = 0
        elif shift > 63:
            raise ValueError("an integer has more than 64 bits")
    if shift:
        raise ValueError("truncated")
    return values


def _text(message: Message, number: int) -> str:
    return (_texts(message, number) or ("",))[-1]


def _texts(message: Message, number: int) -> tuple[str, ...]:
    """Return strings; of one that is too long to be kept, its position."""
    values = message.get(number)
    if values is None:
        return ()
    try:
        return tuple(
            value.decode() if isinstance(value, bytes) else f"string at {value.at}"
            for value in values
            if isinstance(value, bytes | Long)
        )
    except UnicodeDecodeError:
        raise ValueError("a name is not UTF-8") from None
