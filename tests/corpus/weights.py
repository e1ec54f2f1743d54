"""Bad checkpoints of other formats: npz, HDF5, sharded ones and safetensors."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from corpus.entry import INPUT, REFUSED, Entry, Maker, command, content, later
from corpus.pickles import EIGHT, GOOD, PAYLOADS, TOUCH, pickled

# --- npz ---


def _npy(array: np.ndarray, **options: bool) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def _npz(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Maker:
    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "model.npz", "w", compression) as archive, warnings.catch_warnings(action="ignore"):
            for name, value in members:
                archive.writestr(zipfile.ZipInfo(name), value, compression)

    return make


def _header(text: str, data: bytes = b"", *, version: bytes = b"\x01\x00") -> bytes:
    raw = text.encode("latin1")
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", len(raw)) + raw + data


def _shape(shape: str, descr: str = "'<f4'", data: bytes = EIGHT) -> bytes:
    return _header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", data)


ONES = _npy(np.ones(8, np.float32))
NPZ: dict[str, Maker] = {
    "objects": _npz(("a.npy", _npy(np.array([{}], dtype=object), allow_pickle=True))),
    "payload": _npz(("a.npy", _shape("(1,)", "'|O'", pickled(PAYLOADS["os_system"])))),
    "payload_in_header": _npz(("a.npy", _shape(f"(__import__('os').system('{TOUCH}'),)"))),
    "header_of_100_mb": _npz(("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**8))),
    "header_deep": _npz(("a.npy", _shape("(" * 3000 + ")" * 3000))),
    "header_long": _npz(("a.npy", _shape("(" + "1," * 20_000 + ")"))),
    "bomb": later(
        lambda: _npz(("a.npy", _shape("(67108864,)", data=bytes(2**28))), compression=zipfile.ZIP_DEFLATED),
    ),
    "shape_2_to_the_64": _npz(("a.npy", _shape("(18446744073709551616,)"))),
    "shape_of_4_tb": _npz(("a.npy", _shape("(1099511627776,)"))),
    "shape_negative": _npz(("a.npy", _shape("(-8,)"))),
    "shape_of_text": _npz(("a.npy", _shape("('a',)"))),
    "shape_of_true": _npz(("a.npy", _shape("(True, 8)"))),
    "shape_none": _npz(("a.npy", _shape("None"))),
    "type_of_text": _npz(("a.npy", _npy(np.array(["a", "b"])))),
    "type_structured": _npz(("a.npy", _npy(np.zeros(2, [("x", "<f4"), ("y", "<f4")])))),
    "type_unknown": _npz(("a.npy", _shape("(8,)", "'<q9'"))),
    "type_void": _npz(("a.npy", _shape("(1,)", "'|V1000000'"))),
    "type_date": _npz(("a.npy", _npy(np.array(["2026-01-01"], "datetime64[D]")))),
    "complex": _npz(("a.npy", _npy(np.ones(2, np.complex64)))),
    "integers": _npz(("a.npy", _npy(np.ones(2, np.int64)))),
    "member_twice": _npz(("a.npy", ONES), ("a.npy", ONES)),
    "member_outside": _npz(("../../w.npy", ONES)),
    "member_with_escapes": _npz(("\x1b[2J\n.npy", ONES)),
    "no_array": _npz(("a.npy", b"nothing")),
    "version_9": _npz(("a.npy", b"\x93NUMPY\x09\x00" + ONES[8:])),
    "too_long": _npz(("a.npy", ONES + b"x")),
    "too_short": _npz(("a.npy", ONES[:-5])),
    "no_members": _npz(("readme.txt", b"x")),
    "foreign_names": _npz(("weights.npy", ONES)),
    "cut": content("model.npz", GOOD[:-30].replace(b"data.pkl", b"data.npy")),
    "npy_alone": content("model.npz", ONES),
}

# --- HDF5 ---


def _hdf5(change: Callable[[object], None]) -> Maker:
    def make(folder: Path) -> None:
        import h5py

        with h5py.File(folder / "model.h5", "w") as file:
            change(file)

    return make


def _links(file: object) -> None:
    import h5py

    file["a"] = h5py.ExternalLink("/etc/hostname", "/")


def _external(file: object) -> None:
    file.create_dataset("a", (8,), "f4", external=[("/etc/hostname", 0, 32)])


def _deep(file: object) -> None:
    group = file
    for _ in range(1500):
        group = group.create_group("g")
    group["a"] = np.ones(2, np.float32)


def _itself(file: object) -> None:
    import h5py

    file.create_group("a")["b"] = h5py.SoftLink("/a")
    file["a/hard"] = file["a"]


def _soft(file: object) -> None:
    import h5py

    file["a"] = h5py.SoftLink("/nowhere")


def _attributes(file: object) -> None:
    file.attrs["config"] = np.zeros((3, 3))
    file["vars"] = np.ones((2, 2), np.float32)


HDF5: dict[str, Maker] = {
    "external_link": _hdf5(_links),
    "external_data": _hdf5(_external),
    "deep_groups": _hdf5(_deep),
    "group_in_itself": _hdf5(_itself),
    "dangling_link": _hdf5(_soft),
    "attributes": _hdf5(_attributes),
    "huge_dataset": _hdf5(lambda file: file.create_dataset("a", (2**40,), "f4", chunks=(1024,))),
    "bomb": _hdf5(lambda file: file.create_dataset("a", data=np.zeros(2**25, np.float32), compression="gzip", chunks=(2**22,))),
    "text": _hdf5(lambda file: file.create_dataset("a", data="text")),
    "objects": _hdf5(lambda file: file.create_dataset("a", data=[b"a", b"b"])),
    "compound": _hdf5(lambda file: file.create_dataset("a", data=np.zeros(2, [("x", "f4")]))),
    "empty_dataset": _hdf5(lambda file: file.create_dataset("a", dtype="f4")),
    "no_datasets": _hdf5(lambda file: None),
    "magic_alone": content("model.h5", b"\x89HDF\r\n\x1a\n"),
    "zeros_after_magic": content("model.h5", b"\x89HDF\r\n\x1a\n" + bytes(5000)),
}


def _keras(at: float, value: int) -> Maker:
    """Return a maker of KerasHub's folder with a damaged weights file."""

    def make(folder: Path) -> None:
        base = folder.parent.parent / "base" / "keras"
        data = bytearray((base / "model.weights.h5").read_bytes())
        place = int(at * len(data))
        data[place : place + 64] = bytes([value]) * 64
        (folder / "keras").mkdir()
        (folder / "keras" / "model.weights.h5").write_bytes(data)
        (folder / "keras" / "config.json").write_bytes((base / "config.json").read_bytes())

    return make


# --- sharded checkpoints ---


def _sharded(index: object, name: str = "model.safetensors.index.json") -> Maker:
    def make(folder: Path) -> None:
        (folder / "sharded").mkdir()
        text = index if isinstance(index, str) else json.dumps(index)
        (folder / "sharded" / name).write_text(text)
        (folder / "secret.safetensors").write_bytes((folder.parent.parent / "base/tiny/model.safetensors").read_bytes())

    return make


SHARDED: dict[str, Maker] = {
    "outside": _sharded({"weight_map": {"cls_token": "../secret.safetensors"}}),
    "absolute": _sharded({"weight_map": {"cls_token": "/etc/hostname"}}),
    "device": _sharded({"weight_map": {"cls_token": "/dev/zero"}}),
    "missing": _sharded({"weight_map": {"cls_token": "gone.safetensors"}}),
    "itself": _sharded({"weight_map": {"cls_token": "model.safetensors.index.json"}}),
    "folder": _sharded({"weight_map": {"cls_token": "."}}),
    "empty_name": _sharded({"weight_map": {"cls_token": ""}}),
    "nul": _sharded({"weight_map": {"cls_token": "a\0b"}}),
    "name_of_5000": _sharded({"weight_map": {"cls_token": "a" * 5000}}),
    "number": _sharded({"weight_map": {"cls_token": 1}}),
    "list": _sharded({"weight_map": ["a"]}),
    "map_missing": _sharded({"metadata": {}}),
    "map_empty": _sharded({"weight_map": {}}),
    "map_is_text": _sharded({"weight_map": "x"}),
    "null": _sharded({"weight_map": None}),
    "index_list": _sharded([1]),
    "index_cut": _sharded('{"weight_map": {'),
    "index_deep": _sharded('{"weight_map":' + "[" * 100_000),
    "parts_100k": _sharded({"weight_map": {str(i): f"{i}.safetensors" for i in range(50_000)}}),
    "pytorch_outside": _sharded({"weight_map": {"cls_token": "../secret.safetensors"}}, "pytorch_model.bin.index.json"),
}


# --- safetensors ---


def _place(start: int, stop: int, shape: list[object], dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def _packed(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


WHOLE = _packed({"a": _place(0, 8, [2]), "b": _place(8, 16, [2, 1])}, bytes(16))
SAFETENSORS: dict[str, bytes] = {
    "empty": b"",
    "four_bytes": WHOLE[:4],
    "eight_bytes": WHOLE[:8],
    "cut_in_the_header": WHOLE[:40],
    "cut_in_the_data": WHOLE[:-1],
    "trailing": WHOLE + b"\0",
    "twice": WHOLE + WHOLE,
    "header_2_to_the_63": _packed(b"{}", length=2**63),
    "header_of_4_gb": _packed(b"{}", length=2**32 - 1),
    "header_of_0": _packed(b"", length=0),
    "header_of_5_mb": _packed(b"{" + b" " * 5_000_000 + b"}"),
    "hole": _packed({"a": _place(0, 4, [1]), "b": _place(8, 12, [1])}, bytes(12)),
    "overlap": _packed({"a": _place(0, 8, [2]), "b": _place(4, 12, [2])}, bytes(12)),
    "reversed": _packed({"a": _place(8, 0, [2])}, bytes(8)),
    "negative_offset": _packed({"a": _place(-4, 0, [1])}),
    "negative_shape": _packed({"a": _place(0, 4, [-1, -1])}, bytes(4)),
    "overflow": _packed({"a": _place(0, 4, [2**47, 2**47])}, bytes(4)),
    "shape_2_to_the_64": _packed({"a": _place(0, 0, [2**64])}),
    "shape_of_text": _packed({"a": _place(0, 4, ["1"])}, bytes(4)),
    "shape_of_fraction": _packed({"a": _place(0, 4, [1.0])}, bytes(4)),
    "shape_of_null": _packed({"a": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]}}, bytes(4)),
    "rank_of_10k": _packed({"a": _place(0, 4, [1] * 10_000)}, bytes(4)),
    "true_offset": _packed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [False, 4]}}, bytes(4)),
    "three_offsets": _packed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(4)),
    "type_unknown": _packed({"a": _place(0, 4, [1], "Q7")}, bytes(4)),
    "type_number": _packed({"a": _place(0, 4, [1], 7)}, bytes(4)),
    "integers": _packed({"a": _place(0, 4, [1], "I32")}, bytes(4)),
    "duplicate_key": _packed(b'{"a":%s,"a":%s}' % ((json.dumps(_place(0, 4, [1])).encode(),) * 2), bytes(4)),
    "entry_list": _packed({"a": [1]}),
    "entry_null": _packed({"a": None}),
    "entry_without_offsets": _packed({"a": {"dtype": "F32", "shape": [1]}}),
    "metadata_number": _packed({"__metadata__": {"a": 1}}),
    "metadata_list": _packed({"__metadata__": []}),
    "not_json": _packed(b"{nonsense}"),
    "not_utf8": _packed(b'{"\xff\xfe":1}'),
    "deep": _packed(b'{"a":' + b"[" * 200_000),
    "digits": _packed(b'{"a":' + b"9" * 5000 + b"}"),
    "nan": _packed(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4)),
    "tensors_21k": _packed({str(i): _place(0, 0, [0]) for i in range(21_000)}),
    "no_tensors": _packed(b"{}"),
    "name_with_escapes": _packed({"\x1b[2J\nvitzoo: ok": _place(0, 9, [1])}, bytes(9)),
    "name_of_5000": _packed({"a" * 5000: _place(0, 9, [1])}, bytes(9)),
    "foreign_names": WHOLE,
    "nan_values": _packed({"cls_token": _place(0, 4, [1, 1, 1])}, b"\0\0\xc0\x7f"),
}


ENTRIES = [
    *(Entry(f"npz/{name}", make, (command("show model.npz"),)) for name, make in NPZ.items()),
    *(
        Entry(f"hdf5/{name}", make, (command("show model.h5"), command("convert model.h5 -o OUT/m.safetensors")))
        for name, make in HDF5.items()
    ),
    *(
        Entry(
            f"hdf5/damaged_{at}_{value}",
            _keras(at, value),
            (command("show keras", 0, REFUSED, names="keras"), command("convert keras -o OUT/m", 0, REFUSED, names="keras")),
        )
        for at in (0.001, 0.01, 0.05, 0.2, 0.5, 0.999)
        for value in (0, 255)
    ),
    *(Entry(f"sharded/{name}", make, (command("show sharded", INPUT, REFUSED),)) for name, make in SHARDED.items()),
    *(
        Entry(
            f"safetensors/{name}",
            content("model.safetensors", data),
            (command("convert model.safetensors -o OUT/m.safetensors --set heads=2"),),
        )
        for name, data in SAFETENSORS.items()
    ),
]
