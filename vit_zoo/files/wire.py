"""Protobuf wire format, as much as is needed to read and write the top levels of an ONNX file without its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

# field numbers of ModelProto, GraphProto, TensorProto and StringStringEntryProto
IR_VERSION, GRAPH, METADATA = 1, 7, 14
INITIALIZER = 5
RAW_DATA = 9
KEY, VALUE = 1, 2
MAX_FIELDS = 300_000  # of a message; reading as many takes half a second. The graph of an export of ViT-g has 10,000


def tag(number: int, length: int) -> bytes:
    """Return the tag and the length that start a length-delimited field."""
    return varint(number << 3 | 2) + varint(length)


def varint(value: int) -> bytes:
    """Encode a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yield the number and the length of each length-delimited field up to `end`; the caller reads or skips its content.

    Raises ValueError for a truncated or invalid message, and for one of more than MAX_FIELDS fields.
    """
    count = 0
    while file.tell() < end:
        count += 1
        if count > MAX_FIELDS:
            raise ValueError(f"more than {MAX_FIELDS:,} fields")
        tag = read_varint(file)
        match tag & 7:
            case 0:
                read_varint(file)
            case 2:
                length = read_varint(file)
                if file.tell() + length > end:
                    raise ValueError("truncated")
                yield tag >> 3, length
            case 1 | 5 as kind:
                file.seek(8 if kind == 1 else 4, os.SEEK_CUR)
            case _:
                raise ValueError("not protobuf")


def integer_field(file: BinaryIO, end: int, number: int) -> int:
    """Return the integer field of this number between here and `end`, or 0, its default. Raises ValueError as `fields` does."""
    while file.tell() < end:
        key = read_varint(file)
        match key & 7:
            case 0:
                value = read_varint(file)
                if key >> 3 == number:
                    return value
            case 2:
                file.seek(read_varint(file), os.SEEK_CUR)
            case 1 | 5 as kind:
                file.seek(8 if kind == 1 else 4, os.SEEK_CUR)
            case _:
                raise ValueError("not protobuf")
    return 0


def read_varint(file: BinaryIO) -> int:
    """Decode an integer. Raises ValueError at the end of the file or after 64 bits."""
    value = shift = 0
    while byte := file.read(1):
        if byte < b"\x80":
            return value | byte[0] << shift
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if shift > 63:
            break
    raise ValueError("truncated")
