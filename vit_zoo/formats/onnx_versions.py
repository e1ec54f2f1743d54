"""Versions of the ONNX format that the installed onnxruntime opens."""

from __future__ import annotations

from functools import cache

from vit_zoo.files.wire import tag, varint


@cache
def can_open(opset: int, ir_version: int) -> bool:
    """Return whether onnxruntime opens a graph of this operator set and version of the file format.

    The graph is the smallest one: an input and an output of one float, and the operator Identity between them.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4

    def field(number: int, content: bytes) -> bytes:
        return tag(number, len(content)) + content

    def value(name: bytes) -> bytes:
        tensor = varint(1 << 3) + varint(1) + field(2, field(1, varint(1 << 3) + varint(1)))
        return field(1, name) + field(2, field(1, tensor))

    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"g") + field(11, value(b"x")) + field(12, value(b"y"))
    model = varint(1 << 3) + varint(ir_version) + field(8, varint(2 << 3) + varint(opset)) + field(7, graph)
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime has an exception type for each kind of failure
        return False
    return True
