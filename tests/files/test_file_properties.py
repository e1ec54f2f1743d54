"""Property tests of file formats: tensors of any bytes come back from each container, and the numbers of protobuf from bytes."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from vit_zoo.errors import RefusedContent
from vit_zoo.files import DTYPES, SafetensorsFile, Staged, Stored, digest_of, write_safetensors
from vit_zoo.files.checkpoints import read_checkpoint
from vit_zoo.files.npz import read_npz, write_npz
from vit_zoo.files.pickles import read_torch, write_torch
from vit_zoo.files.wire import fields, integer_field, read_varint, varint

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
SIMPLE = st.from_regex(r"[a-z][a-z0-9_./]{0,20}[a-z]", fullmatch=True)


def tensors(names):
    """Mappings from names to tensors of any type, shape and bytes."""
    return st.dictionaries(
        names, st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=4), st.integers()), max_size=4
    )


def stored(drawn):
    def one(dtype, shape, seed):
        width, kind = DTYPES[dtype]
        values = np.random.default_rng(abs(seed)).integers(0, 256, (*shape, width), np.uint8).view(kind).reshape(shape)
        return Stored(dtype, tuple(shape), lambda: values)

    return {name: one(*parts) for name, parts in drawn.items()}


def check(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].array().tobytes() == tensor.array().tobytes()
        assert b"".join(found[name].chunks()) == tensor.array().tobytes()
    assert digest_of(found) == digest_of(wanted)


@given(drawn=tensors(NAMES.filter(lambda name: name != "__metadata__")), metadata=st.dictionaries(NAMES, NAMES, max_size=2))
@examples(80)
def test_safetensors(tmp_path, drawn, metadata):
    path, wanted = tmp_path / "a.safetensors", stored(drawn)
    with Staged(path) as staged:
        write_safetensors(staged, wanted, metadata)
        staged.commit()
    file = SafetensorsFile(path)
    check(file.tensors, wanted)
    assert file.metadata == metadata


@pytest.mark.parametrize(("write", "read"), [(write_npz, read_npz), (write_torch, read_torch)])
@given(drawn=tensors(SIMPLE).filter(bool))
@examples(50)
def test_npz_and_torch(tmp_path, write, read, drawn):
    path, wanted = tmp_path / "weights", stored(drawn)
    with Staged(path) as staged:
        write(staged, wanted)
        staged.commit()
    check(read(path), wanted)


@given(number=st.integers(0, 2**63 - 1), more=st.binary(max_size=3))
@examples(200)
def test_varints(number, more):
    file = io.BytesIO(varint(number) + more)
    assert read_varint(file) == number
    assert file.read() == more
    for i in range(len(varint(number))):
        with pytest.raises(ValueError, match="truncated"):
            read_varint(io.BytesIO(varint(number)[:i]))


@given(content=st.binary(max_size=60))
@examples(200)
def test_any_bytes_are_a_message_or_a_value_error(content):
    file = io.BytesIO(content)
    with contextlib.suppress(ValueError):
        for _, length in fields(file, len(content)):
            assert file.tell() + length <= len(content)
            file.seek(length, io.SEEK_CUR)
    with contextlib.suppress(ValueError):
        integer_field(io.BytesIO(content), len(content), 1)


@given(
    content=st.binary(max_size=300),
    kind=st.sampled_from(["safetensors", "npz", "torch", "torchscript", "hdf5"]),
    head=st.booleans(),
)
@examples(150)
def test_any_bytes_are_no_checkpoint(tmp_path, content, kind, head):
    heads = {"safetensors": b"\x10\0\0\0\0\0\0\0{", "hdf5": b"\x89HDF\r\n\x1a\n"}
    path = tmp_path / "a"
    path.write_bytes((heads.get(kind, b"PK\x03\x04") if head else b"") + content)
    with pytest.raises(RefusedContent):
        read_checkpoint(path, kind)
