"""ONNX files that are damaged, or whose weights are in other files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpus.entry import Maker, content
from corpus.onnx_models import (
    FLOAT,
    node,
    raw,
    tensor,
    valid,
    write,
)

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
