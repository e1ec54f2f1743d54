"""Tests of the readers of other containers: exact values, and errors for damaged or hostile files, without running anything."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import vit_zoo
from support.models import noise
from support.peers import timm_vit
from vit_zoo.errors import RefusedContent
from vit_zoo.files import Staged, Stored
from vit_zoo.files.checkpoints import read_checkpoint
from vit_zoo.files.hdf5 import read_hdf5
from vit_zoo.files.npz import read_npz, write_npz
from vit_zoo.files.sharded import read_sharded
from vit_zoo.files.torchscript import read_torchscript

# scripting is how such archives come to be
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
ARRAYS = {
    "a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "half": np.arange(3, dtype=np.float16),
    "void": np.arange(4, dtype=np.uint16).view("V2"),
    "none": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save, tmp_path):
    file = tmp_path / "a.npz"
    save(file, **ARRAYS)
    found = read_npz(file)
    assert {name: (t.dtype, t.shape) for name, t in found.items()} == {
        "a/kernel": ("F32", (3, 4)), "b": ("F64", (2, 3)), "half": ("F16", (3,)), "void": ("BF16", (4,)), "none": ("F32", (0, 3)),
    }  # fmt: skip
    for name, tensor in found.items():
        wanted = ARRAYS[name].view(np.uint16) if name == "void" else ARRAYS[name]
        np.testing.assert_array_equal(tensor.array(), wanted)
        assert b"".join(tensor.chunks()) == np.ascontiguousarray(wanted).tobytes()
    assert (found["a/kernel"].span is not None) == (save is np.savez)


def test_npz_files_are_reproducible_and_numpy_reads_them(tmp_path):
    source = tmp_path / "a.npz"
    np.savez(source, **ARRAYS)
    for name in ("b.npz", "c.npz"):
        with Staged(tmp_path / name) as staged:
            write_npz(staged, read_npz(source))
            staged.commit()
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    with np.load(tmp_path / "b.npz") as again:
        assert set(again) == set(ARRAYS)
        assert all((again[name] == ARRAYS[name]).all() and again[name].dtype == ARRAYS[name].dtype for name in ARRAYS)


def member(content, name="a.npy", **options):
    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, content, **options)

    return write


def npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def flipped(file):
    np.savez(file, a=np.ones(100_000, np.float32))
    content = bytearray(file.read_bytes())
    content[200_000] ^= 1
    file.write_bytes(content)


def twice(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy(np.ones(2)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", npy(np.ones(2)))


NPZ = {
    "objects": (member(npy(np.array([{}], dtype=object), allow_pickle=True)), "'a' contains Python objects"),
    "too long": (member(npy(np.ones(4)) + b"\0"), "'a' has 33 bytes for shape [4]"),
    "too short": (member(npy(np.ones(4))[:-8]), "'a' has 24 bytes"),
    "a bomb": (member(npy(np.ones(4))[:-32] + bytes(10_000_000), compress_type=zipfile.ZIP_DEFLATED), "'a' has 10,000,000 bytes"),
    "no array": (member(b"nothing"), "not a complete .npz"),
    "flipped bit": (flipped, "the checksum of 'a' is wrong"),
    "twice": (twice, "'a' twice"),
    "integers": (lambda f: np.savez(f, a=np.ones(2, np.int64)), "'a' has type <i8"),
    "big-endian": (lambda f: np.savez(f, a=np.ones(2, ">f4")), "'a' has type >f4"),
    "cut": (lambda f: (np.savez(f, a=np.ones(9)), f.write_bytes(f.read_bytes()[:-30])), "not a complete .npz"),
}


@pytest.mark.parametrize("name", NPZ)
def test_hostile_npz(name, tmp_path):
    write, cause = NPZ[name]
    file = tmp_path / "a.npz"
    write(file)
    with pytest.raises(RefusedContent) as refusal:
        for tensor in read_npz(file).values():
            tensor.array()
    assert cause in str(refusal.value)
    assert str(file) in str(refusal.value)


class Program(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = torch.nn.Sequential(torch.nn.Linear(3, 4).half(), torch.nn.LayerNorm(4))
        self.register_buffer("steps", torch.tensor(3))
        self.turned = torch.nn.Parameter(torch.randn(2, 5).T)
        self.input_resolution = 224

    def forward(self, x):
        return self.visual[1](x)


def test_torchscript(tmp_path):
    """As torch itself reads it, without reading its code."""
    program = torch.jit.script(noise(Program()))
    file = tmp_path / "program.pt"
    torch.jit.save(program, file)
    found = read_torchscript(file)
    state = program.state_dict()
    assert set(found) == set(state)
    for name, tensor in state.items():
        if name == "steps":
            with pytest.raises(RefusedContent, match="'steps' has type LongStorage"):
                found[name].array()
            continue
        np.testing.assert_array_equal(found[name].array(), tensor.numpy())
        assert found[name].shape == tuple(tensor.shape)
    assert found["visual.0.weight"].span is not None
    assert found["turned"].span is None
    assert b"".join(found["visual.0.weight"].chunks()) == state["visual.0.weight"].numpy().tobytes()


class Named(torch.nn.Module):
    """Parameters under dotted names, in modules as deep as the names."""

    def __init__(self, state):
        super().__init__()
        for name, tensor in state.items():
            *parents, last = name.split(".")
            owner = self
            for parent in parents:
                if not hasattr(owner, parent):
                    owner.add_module(parent, torch.nn.Module())
                owner = getattr(owner, parent)
            owner.register_buffer(last, tensor)

    def forward(self, x):
        return x


def test_openai_clip_archive(folder):
    """OpenAI's form: half precision, and three numbers that identify it, so that no facts need to be stated."""
    vit_zoo.save(vit_zoo.create("clip_b16", image_size=32, patch_size=8, dim=128, heads=2, mlp_dim=512, depth=2), "clip")
    vit_zoo.convert("./clip", "clip.pth", "open_clip")
    with torch.inference_mode(False):
        state = torch.load("clip.pth", weights_only=True)
        numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
        halves = {name: tensor.half() if "ln_" not in name else tensor for name, tensor in state.items()}
        torch.jit.save(torch.jit.script(Named({**halves, **{k: torch.tensor(v) for k, v in numbers.items()}})), "archive.pt")
    loaded = vit_zoo.load("archive.pt")
    assert (loaded.spec.heads, loaded.spec.act) == (2, "quick_gelu")
    assert loaded.patch_embed.proj.weight.dtype is torch.float32
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), vit_zoo.load("./clip")(images), rtol=0, atol=2e-2)


class Payload:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


def with_pickle(content):
    def write(file):
        torch.jit.save(torch.jit.script(noise(Program())), file)
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, content if name.endswith("/data.pkl") else data)

    return write


ARCHIVES = {
    "a command": (pickle.dumps(Payload(), protocol=2), "would run code when loaded: it refers to posix.system"),
    "a builtin": (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
    "half a pickle": (b"\x80\x02}", "cannot be read as a TorchScript archive"),
    "a strange reference": (b"\x80\x02X\x01\x00\x00\x00aQ.", "contains a reference that is not a tensor storage"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives(name, folder):
    content, cause = ARCHIVES[name]
    file = folder / "program.pt"
    with_pickle(content)(file)
    with pytest.raises(RefusedContent) as refusal:
        read_torchscript(file)
    assert cause in str(refusal.value)
    assert not (folder / "PWNED").exists()


def test_hdf5(tmp_path):
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as out:
        out["layers/dense/vars/0"] = ARRAYS["a/kernel"]
        out["step"] = np.int64(3)
    found = read_hdf5(file)
    np.testing.assert_array_equal(found["layers/dense/vars/0"].array(), ARRAYS["a/kernel"])
    with pytest.raises(RefusedContent, match="'step' has type <i8"):
        found["step"].array()
    for name, link in (("soft", h5py.SoftLink("/step")), ("external", h5py.ExternalLink("other.h5", "/a"))):
        with h5py.File(file, "a") as out:
            out[name] = link
        with pytest.raises(RefusedContent, match=f"'{name}' is a soft or external link"):
            read_hdf5(file)
        with h5py.File(file, "a") as out:
            del out[name]
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(RefusedContent, match="cannot be read as HDF5"):
        read_hdf5(file)


def test_sharded_safetensors(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "one.safetensors")
    save_file({"b": torch.ones(3)}, tmp_path / "two.safetensors")
    index = tmp_path / "model.safetensors.index.json"

    def read(places):
        index.write_text(json.dumps({"weight_map": places}))
        return read_sharded(index, read_checkpoint)

    assert set(read({"a": "one.safetensors", "b": "two.safetensors"})) == {"a", "b"}
    for places, cause in (
        ({"a": "../one.safetensors"}, "outside its folder"),
        ({"a": "/etc/passwd"}, "outside its folder"),
        ({"a": ".."}, "outside its folder"),
        ({"a": "three.safetensors"}, "'three.safetensors' is missing"),
        ({"a": "two.safetensors"}, "contains 'b', which the index does not list there"),
        ({"a": "one.safetensors", "c": "one.safetensors"}, "'c' is not in"),
        ({}, "no weight_map"),
        ({"a": 3}, "no weight_map"),
    ):
        with pytest.raises(RefusedContent, match=cause):
            read(places)


def test_files_of_torch_before_1_6_and_files_with_training_arguments(folder):
    import argparse

    state = noise(timm_vit(img_size=32, patch_size=8)).state_dict()
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-3), "epoch": 3}, "new.pth")
    torch.save({"model": state}, "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, "plain.safetensors")
    wanted = vit_zoo.load("plain.safetensors", heads=3)
    for file in ("new.pth", "old.pth"):
        found = vit_zoo.load(file, heads=3)
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))
    assert vit_zoo.convert("old.pth", "again", heads=3).path == Path("again")


def test_stored_types_widen_without_loss():
    halves = torch.randn(5).bfloat16()
    stored = Stored("BF16", (5,), lambda: halves.view(torch.uint16).numpy())
    np.testing.assert_array_equal(stored.widened("F32").array(), halves.float().numpy())
