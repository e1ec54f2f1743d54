"""Mutations of ONNX files: of fields by protobuf's own description of them, of the wire, and of our metadata."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import DecodeError, Message

from fuzz.case import Bytes
from fuzz.mutations import in_document, of_bytes

INTEGERS = (0, 1, -1, 2, 3, 7, 11, 13, 16, 20, 22, 99, 999, 4096, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-6, 1e30, float("inf"), float("nan"))
TEXTS = (
    "", "a", "pixel_values", "logits", "batch", "²", "-1", "9" * 5000, "\x1b[2J", "../x", "/dev/zero", "Loop", "If",
    "Constant", "Gemm", "Add", "Gelu", "Softmax",
    "LayerNormalization", "RandomNormal", "com.microsoft", "evil", "axis", "value", "to", "perm", "tanh", "none", "cls_token",
)  # fmt: skip
# messages, by the number of the field that holds them
WIRE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "leaf", 14: "leaf", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 15: "sparse", 16: "leaf"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 22: "sparse", 14: "type"},
    "tensor": {13: "leaf", 3: "leaf"},
    "sparse": {1: "tensor", 2: "tensor"},
    "value": {2: "type"},
    "type": {1: "tensor_type", 4: "nested", 8: "tensor_type", 9: "nested", 5: "leaf"},
    "nested": {1: "type"},
    "tensor_type": {2: "shape"},
    "shape": {1: "leaf"},
    "function": {7: "node", 9: "leaf", 11: "attribute", 12: "value"},
}


def _messages(model: Message) -> list[Message]:
    found, todo = [], [model]
    while todo:
        one = todo.pop()
        found.append(one)
        for field, value in one.ListFields():
            if field.type == Field.TYPE_MESSAGE:
                todo += list(value) if field.is_repeated else [value]
    return found


def _scalar(field: Any, rng: Random) -> Any:
    if field.type == Field.TYPE_STRING:
        return rng.choice(TEXTS)
    if field.type == Field.TYPE_BYTES:
        return rng.choice((b"", b"x", b"\xff" * 4, bytes(64), b"tanh"))
    if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == Field.TYPE_ENUM:
        return rng.choice([value.number for value in field.enum_type.values])
    low, high = {Field.TYPE_INT32: (-(2**31), 2**31 - 1), Field.TYPE_UINT64: (0, 2**64 - 1)}.get(
        field.type, (-(2**63), 2**63 - 1)
    )
    return min(max(rng.choice(INTEGERS), low), high)


def of_fields(data: bytes, rng: Random) -> bytes:
    """Change a field of a message anywhere in an ONNX file."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return of_bytes(data, rng)
    message = rng.choice(_messages(model))
    chosen = [field for field, _ in message.ListFields()]
    field = rng.choice(chosen if chosen and rng.random() < 0.8 else list(message.DESCRIPTOR.fields))
    if field.is_repeated:
        values = getattr(message, field.name)
        _in_repeated(message, field, values, rng)
    elif field.type == Field.TYPE_MESSAGE:
        if rng.random() < 0.5:
            message.ClearField(field.name)
        else:
            others = [one for one in _messages(model) if one.DESCRIPTOR.full_name == field.message_type.full_name]
            copy = type(others[0])() if others else None
            if copy is not None:
                copy.CopyFrom(rng.choice(others))
                getattr(message, field.name).CopyFrom(copy)
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, rng))
    return model.SerializeToString(deterministic=True)


def _in_repeated(message: Message, field: Any, values: Any, rng: Random) -> None:
    match rng.randrange(6):
        case 0:
            message.ClearField(field.name)
        case 1 if len(values):
            del values[rng.randrange(len(values))]
        case 2 if len(values) and field.type == Field.TYPE_MESSAGE:
            copy = type(values[0])()
            copy.CopyFrom(rng.choice(values))
            values.append(copy)
        case 3 if len(values) > 1:
            kept = [type(one)() if field.type == Field.TYPE_MESSAGE else one for one in values]
            if field.type == Field.TYPE_MESSAGE:
                for copy, one in zip(kept, values, strict=True):
                    copy.CopyFrom(one)
            rng.shuffle(kept)
            message.ClearField(field.name)
            values.extend(kept)
        case _ if field.type != Field.TYPE_MESSAGE:
            if len(values) and rng.random() < 0.7:
                values[rng.randrange(len(values))] = _scalar(field, rng)
            else:
                values.extend(_scalar(field, rng) for _ in range(rng.choice((1, 2, 40))))
        case _:
            values.add()


# --- the wire ---


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def packed(number: int) -> bytes:
    """Return an unsigned number as protobuf's varint."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return number, wire type and content of each field. Raises IndexError or ValueError if the data are not a message."""
    found, place = [], 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind, start = tag & 7, place
        if kind == 2:
            size, start = _varint(data, place)
            place = start + size
        elif kind == 0:
            _, place = _varint(data, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(kind)
        if place > len(data):
            raise ValueError("beyond the end")
        found.append((tag >> 3, kind, data[start:place]))
    return found


def _joined(fields: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(
        packed(number << 3 | kind) + (packed(len(data)) if kind == 2 else b"") + data for number, kind, data in fields
    )


def of_wire(data: bytes, rng: Random, message: str = "model") -> bytes:
    """Change a field of the wire, at any depth, with the lengths around it made right."""
    try:
        fields = _fields(data)
    except (IndexError, ValueError):
        return of_bytes(data, rng)
    inner = [place for place, (number, kind, _) in enumerate(fields) if kind == 2 and number in WIRE.get(message, {})]
    if inner and rng.random() < 0.85:
        place = rng.choice(inner)
        number, kind, value = fields[place]
        fields[place] = (number, kind, of_wire(value, rng, WIRE[message][number]))
        return _joined(fields)
    if not fields:
        return packed(rng.randrange(1, 30) << 3) + packed(rng.choice((0, 1, 2**63, 2**64 - 1)))
    place = rng.randrange(len(fields))
    number, kind, value = fields[place]
    match rng.randrange(7):
        case 0:
            del fields[place]
        case 1:
            fields.insert(rng.randrange(len(fields)), fields[place])
        case 2:
            fields[place] = (rng.choice((number + 1, 1, 15, 2047, 536870911)), kind, value)
        case 3:
            fields[place] = (number, 2, of_bytes(value, rng))
        case 4:
            fields[place] = (number, 0, packed(rng.choice((0, 1, 16, 999, 2**31, 2**63 - 1, 2**63, 2**64 - 1))))
        case 5:
            fields *= rng.choice((2, 20)) if len(data) < 20_000 else 1
        case _:
            fields[place] = (number, rng.choice((3, 4, 6, 7, 1, 5)), value)
    return _joined(fields)


def of_metadata(key: str) -> Bytes:
    """Return a mutation of one of our metadata entries."""

    def mutation(data: bytes, rng: Random) -> bytes:
        model = onnx.ModelProto()
        model.ParseFromString(data)
        entry = next((one for one in model.metadata_props if one.key == key), None)
        if entry is None:
            return data
        if rng.random() < 0.05:
            entry.value = of_bytes(entry.value.encode(), rng).decode(errors="replace")
        else:
            try:
                entry.value = json.dumps(in_document(json.loads(entry.value), rng))
            except ValueError:
                entry.value += "x"
        return model.SerializeToString(deterministic=True)

    return mutation
