"""Tests of containers that are valid, but made to hang the reader, to fill the memory, or to pass values of other types."""

from __future__ import annotations

import io
import json
import pickle
import time
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from vit_zoo.errors import RefusedContent
from vit_zoo.files import SafetensorsFile
from vit_zoo.files.checkpoints import read_checkpoint
from vit_zoo.files.sniff import sniff

ONES = np.ones(4, np.float32)


def hdf5(fill):
    def write(path):
        with h5py.File(path, "w") as file:
            fill(file)

    return write


def laughs(file):
    """Thirty groups, each twice in the one before: a billion paths."""
    group = file
    for _ in range(30):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner
    group["weight"] = ONES


def deep(file):
    file.create_group("/".join("g" * 200))["weight"] = ONES


def itself(file):
    group = file.create_group("group")
    group["again"], group["once_more"], file["root"] = group, group, file


def virtual(file):
    layout = h5py.VirtualLayout((4,), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "a", (4,))
    file.create_virtual_dataset("weight", layout)


def filtered(file):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((4,))
    creation.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, (3,))  # Zstandard, which is in another library
    space, kind = h5py.h5s.create_simple((4,)), h5py.h5t.IEEE_F32LE
    h5py.h5d.create(file.id, b"weight", kind, space, dcpl=creation)


HDF5 = {
    "a group in itself": (itself, "'group/again' is linked in two places"),
    "a billion paths": (laughs, "is linked in two places"),
    "200 groups deep": (deep, "is nested too deeply"),
    "8 GB that are not there": (lambda f: f.create_dataset("weight", (2**31,), "<f4"), "claims more values than the file"),
    "8 GB of compressed zeros": (
        lambda f: f.create_dataset("weight", (2**31,), "<f4", chunks=(2**16,), compression="gzip"), "would take 8,589,934,592"
    ),
    "data in another file": (
        lambda f: f.create_dataset("weight", (4,), "<f4", external=[("/etc/passwd", 0, 16)]), "'weight' is stored in another file"
    ),
    "a virtual data set": (virtual, "'weight' is stored in another file"),
    "a filter of another library": (filtered, "'weight' is compressed by filter 32015"),
    "references": (lambda f: f.create_dataset("weight", (4,), h5py.ref_dtype), "'weight' has type |O"),
    "regions": (lambda f: f.create_dataset("weight", (4,), h5py.regionref_dtype), "'weight' has type |O"),
    "a compound": (lambda f: f.create_dataset("weight", (4,), [("a", "<f4"), ("b", "<i4")]), "'weight' has type |V8"),
    "texts": (lambda f: f.create_dataset("weight", data=["a", "b"]), "'weight' has type |O"),
    "lists": (lambda f: f.create_dataset("weight", (4,), h5py.vlen_dtype("<f4")), "'weight' has type |O"),
    "no values": (lambda f: f.create_dataset("weight", data=h5py.Empty("<f4")), "'weight' has type empty"),
}  # fmt: skip


def header(shape, descr="<f4"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def text_header(text):
    padded = text.encode() + b" " * (-len(text) - 11 % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def npz(content, method=zipfile.ZIP_STORED):
    def write(path):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("weight.npy", content)

    return write


def bomb(path):
    """An archive whose directory states 8 GB of compressed values."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        start = header((2**31,))
        file.writestr("weight.npy", start + bytes(2**20))
        file.infolist()[0].file_size = len(start) + 2**33


NPZ = {
    "negative lengths": (npz(header((-1, -4)) + bytes(16)), "'weight' has an impossible shape: [-1, -4]"),
    "true for 1": (npz(header((True, 4)) + bytes(16)), "'weight' has an impossible shape: [True, 4]"),
    "65 axes": (npz(header((1,) * 65) + bytes(4)), "'weight' has an impossible shape"),
    "code in the header": (npz(text_header("{'descr': __import__('os').system('touch PWNED')}")), "a header that is not valid"),
    "a deep header": (npz(text_header("(" * 9000)), "a header that is not valid"),
    "a record for bfloat16": (npz(header((2,), [("a", "<u2")]) + bytes(4)), "'weight' has type |V2"),
    "LZMA": (npz(header((4,)) + bytes(16), zipfile.ZIP_LZMA), "compressed by a method that NumPy does not write"),
    "8 GB of zeros": (bomb, "would take 8,589,934,"),
}


class Storage:
    """A reference to the storage `key`."""

    def __init__(self, key, count=4, kind="FloatStorage"):
        self.id = ("storage", Named("torch", kind), key, "cpu", count)


class Named:
    """A function or class that is pickled by its name alone."""

    def __init__(self, module, name):
        self.line = f"c{module}\n{name}\n".encode()

    def __call__(self):
        raise AssertionError


def pickled(content):
    """A pickle in which `Storage` is a persistent reference."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, item):
            return item.id if isinstance(item, Storage) else None

        def save(self, item, *args, **kwargs):
            return self.write(item.line) if isinstance(item, Named) else super().save(item, *args, **kwargs)

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(content)
    return out.getvalue()


class Reduced:
    """An object that is pickled as the call of a function with these arguments, and perhaps with a state."""

    def __init__(self, function, arguments, state=None):
        module, _, name = function.rpartition(".")
        self.parts = (Named(module, name), arguments, *([] if state is None else [state]))

    def __reduce__(self):
        return self.parts


def tensor(storage=None, offset=0, shape=(4,), strides=(1,), state=None):
    arguments = (Storage("0") if storage is None else storage, offset, shape, strides, False, {})
    return Reduced("torch._utils._rebuild_tensor_v2", arguments, state)


def archive(content, *, program, twice=False):
    def write(path):
        with zipfile.ZipFile(path, "w") as file:
            data = content if isinstance(content, bytes) else pickled(content() if callable(content) else content)
            file.writestr("a/data.pkl", data)
            if twice:
                file.writestr("b/data.pkl", data)
            file.writestr("a/version", "3\n")
            file.writestr("a/byteorder", "little")
            file.writestr("a/data/0", ONES.tobytes())
            if program:
                file.writestr("a/constants.pkl", b"\x80\x02).")

    return write


def branching():
    """A dictionary that is in itself twice."""
    content = {"weight": 1}
    content["a"] = content["b"] = content
    return content


def doubled():
    content = {"weight": tensor()}
    for _ in range(90):
        content = {"a": content, "b": content}
    return content


def long_names():
    inner = {f"{i}": tensor() for i in range(2)}
    return {"x" * 10**6: inner}


SHAPES = {
    "a number for a shape": tensor(shape=3),
    "a text for a shape": tensor(shape="four"),
    "numbers that are none": tensor(shape=("4",)),
    "true for a length": tensor(shape=(True,)),
    "negative lengths": tensor(shape=(-4,)),
    "fewer strides": tensor(shape=(2, 2), strides=(1,)),
    "more strides": tensor(shape=(4,), strides=(1, 1)),
    "no strides": tensor(strides=None),
    "100 axes": tensor(shape=(1,) * 100, strides=(1,) * 100),
    "an offset of text": tensor(offset="0"),
    "an offset beyond": tensor(offset=10**30),
    "a storage that is none": tensor(storage=3),
    "terabytes": tensor(shape=(2**40,), strides=(0,)),
    "a state": tensor(state={"shape": 3, "storage": "x", "strides": None}),
}
TORCHSCRIPT = {
    **{name: (archive({"weight": item}, program=True), "") for name, item in SHAPES.items()},
    "two pickles": (archive({"weight": tensor()}, program=True, twice=True), "data.pkl is missing, there twice"),
    "a dictionary in itself": (archive(branching, program=True), "nested too deeply"),
    "2**90 places": (archive(doubled, program=True), "contains more than 20,000 tensors"),
    "a name of a million characters": (archive(long_names, program=True), "nested too deeply"),
    "a number as a name": (archive({(1, 2): tensor()}, program=True), "a tensor whose name is not text"),
    "other items": (
        archive(lambda: {"a": Reduced("collections.OrderedDict", (), {"items": 3}), "weight": tensor(shape=3)}, program=True), ""
    ),
}  # fmt: skip


def with_attributes(path):
    """A parameter on which the pickle sets attributes with the names of methods."""
    names = ("numel", "detach", "element_size", "untyped_storage", "cpu", "numpy")
    state = dict.fromkeys(names, 3)
    item = Reduced("torch._utils._rebuild_parameter_with_state", (tensor(), True, Reduced("collections.OrderedDict", ()), state))
    archive({"weight": item}, program=False)(path)


def long_lists():
    numbers = list(range(100_000))
    return {"weight": tensor(), "logs": [{"x": 1}, *([numbers] * 100_000)]}


TORCH = {
    **{name: (archive({"weight": item}, program=False), "") for name, item in SHAPES.items() if name != "no strides"},
    "a dictionary in itself": (archive(branching, program=False), "nested too deeply"),
    "2**90 places": (archive(doubled, program=False), "nested too deeply"),
    "a name of a million characters": (archive(long_names, program=False), "nested too deeply"),
    "a tensor's name of a million": (archive({"x" * 10**6: tensor()}, program=False), "a name of 1,000,000 characters"),
}

EVERY = {
    **{("h5", name): (hdf5(fill), cause) for name, (fill, cause) in HDF5.items()},
    **{("npz", name): case for name, case in NPZ.items()},
    **{("torchscript", name): case for name, case in TORCHSCRIPT.items()},
    **{("torch", name): case for name, case in TORCH.items()},
}


@pytest.mark.parametrize("case", EVERY, ids="-".join)
def test_it_is_refused_at_once_and_nothing_runs(case, folder):
    write, cause = EVERY[case]
    path = folder / "weights"
    write(path)
    start, peak = time.process_time(), 0
    if case[0] in ("h5", "npz"):
        tracemalloc.start()
    try:
        with pytest.raises(RefusedContent) as refusal:
            for stored in read_checkpoint(path, case[0] if case[0] in ("torch", "torchscript") else sniff(path)).values():
                stored.array()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert cause in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "object at 0x" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert time.process_time() - start < 20
    assert peak < 300e6
    assert [each.name for each in folder.iterdir()] == ["weights"]


def test_the_pickles_above_are_readable_but_for_their_fault(folder):
    """So each is refused for its fault alone."""
    for program in (True, False):
        archive({"a": {"weight": tensor()}}, program=program)(folder / "weights")
        (found,) = read_checkpoint(folder / "weights").items()
        assert found[0] == "a.weight"
        np.testing.assert_array_equal(found[1].array(), ONES)


def test_attributes_that_a_pickle_sets_are_not_called(folder):
    with_attributes(folder / "weights")
    np.testing.assert_array_equal(read_checkpoint(folder / "weights")["weight"].array(), ONES)


def test_a_long_list_in_many_places_is_looked_at_once(folder):
    archive(long_lists, program=False)(folder / "weights")
    start = time.process_time()
    assert set(read_checkpoint(folder / "weights")) == {"weight"}
    assert time.process_time() - start < 10


def test_names_of_types_in_hdf5_are_no_tensors(folder):
    with h5py.File("a.h5", "w") as file:
        file["kind"], file["weight"], file["none"] = np.dtype("<f4"), ONES, np.zeros((0, 3), "<f4")
    found = read_checkpoint(Path("a.h5"))
    assert set(found) == {"weight", "none"}
    np.testing.assert_array_equal(found["weight"].array(), ONES)
    assert found["none"].array().shape == (0, 3)


def test_compressed_hdf5_is_read_and_a_damaged_chunk_is_refused(folder):
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    for compression in ("gzip", "lzf"):
        with h5py.File("a.h5", "w") as file:
            file.create_dataset("weight", data=values, compression=compression, shuffle=True, fletcher32=True)
            place = file["weight"].id.get_chunk_info(0)
        np.testing.assert_array_equal(read_checkpoint(Path("a.h5"))["weight"].array(), values)
        content = bytearray(Path("a.h5").read_bytes())
        content[place.byte_offset + 100] ^= 255
        Path("a.h5").write_bytes(content)
        with pytest.raises(RefusedContent, match="'weight' cannot be read"):
            read_checkpoint(Path("a.h5"))["weight"].array()


def safetensors(header):
    text = json.dumps(header) if not isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text.encode() + bytes(4)


def test_safetensors_of_impossible_shapes(folder):
    path = folder / "weights"
    for shape in ([1] * 65, [True], [-1, -1], [1.0], ["1"], [2**60, 0]):
        path.write_bytes(safetensors({"weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}))
        with pytest.raises(RefusedContent, match="'weight' has"):
            SafetensorsFile(path)


def test_the_last_of_many_names_is_twice_in_a_header(folder):
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    names = [*(f'"{i}":{entry}' for i in range(50_000)), f'"49999":{entry}']
    path = folder / "weights"
    path.write_bytes(safetensors("{" + ",".join(names) + "}"))
    start = time.process_time()
    with pytest.raises(RefusedContent, match="contains '49999' twice"):
        SafetensorsFile(path)
    assert time.process_time() - start < 5
