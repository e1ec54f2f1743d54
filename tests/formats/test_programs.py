"""Tests of TorchScript and .pt2 files: they run without this package and Python, and are reproducible, with nothing private."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import cpp_extension

import vit_zoo
from support.models import SMALL, noise
from support.requirements import required

FILES = ("small.onnx", "small.torchscript.pt", "small.pt2")
EXPORT = "import vit_zoo; vit_zoo.export('model', ['onnx', 'torchscript', 'pt2'], verify=False)"
ALONE = """
import sys
for name in ("vit_zoo", "einops", "onnx"):
    sys.modules[name] = None
import numpy as np, torch
x = torch.from_numpy(np.load("images.npy"))
path = sys.argv[1]
program = torch.jit.load(path) if path.endswith(".pt") else torch.export.load(path).module()
with torch.inference_mode():
    for batch in (1, 2, 5):
        np.save(f"{batch}.npy", program(x[:batch]).numpy())
"""
CPP = r"""
#include <torch/script.h>
#include <fstream>
#include <iostream>
int main(int count, char** words) {
  torch::jit::ExtraFilesMap extra{{"vit_zoo.json", ""}};
  auto module = torch::jit::load(words[1], torch::kCPU, extra);
  torch::NoGradGuard off;
  for (int batch : {1, 3}) {
    auto x = torch::from_file(words[2], false, batch * 3 * 32 * 48).reshape({batch, 3, 32, 48});
    auto y = module.forward({x}).toTensor().contiguous();
    std::ofstream out(std::string(words[3]) + std::to_string(batch), std::ios::binary);
    out.write(static_cast<const char*>(y.data_ptr()), y.numel() * 4);
  }
  std::cout << extra["vit_zoo.json"];
}
"""


@pytest.fixture
def small(folder):
    """A model in ./model; returns it."""
    model = noise(vit_zoo.create("vit_b16", **SMALL), scale=0.15)
    model.config = model.config.replace(name="small", random_seed=None)
    vit_zoo.save(model, "model")
    return model


def _digests(where):
    return {name: hashlib.sha256((Path(where) / name).read_bytes()).hexdigest() for name in FILES}


def _answers(model, x):
    with torch.inference_mode():
        return model(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("file", FILES[1:])
def test_programs_run_without_this_package(small, file):
    vit_zoo.export("model", ["torchscript", "pt2"])
    x = np.random.default_rng(0).normal(size=(5, 3, 32, 48)).astype("<f4")
    np.save("images.npy", x)
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", ALONE, file], check=True, capture_output=True)
    for batch in (1, 2, 5):
        np.testing.assert_allclose(np.load(f"{batch}.npy"), _answers(small, x[:batch]), rtol=0, atol=1e-5)


def test_torchscript_in_cpp(small):
    """With the headers and libraries that torch ships: the same outputs, and the file's metadata."""
    compiler = required("g++")
    vit_zoo.export("model", "torchscript")
    x = np.random.default_rng(0).normal(size=(3, 3, 32, 48)).astype("<f4")
    x.tofile("images")
    Path("run.cpp").write_text(CPP)
    include = [f"-I{path}" for path in cpp_extension.include_paths()]
    (libraries,) = {path for path in cpp_extension.library_paths() if (Path(path) / "libtorch_cpu.so").exists()}
    command = [
        compiler,
        "-std=c++20",
        "-O0",
        *include,
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        "run.cpp",
    ]
    command += ["-o", "run", f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch", "-ltorch_cpu", "-lc10"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    done = subprocess.run(["./run", FILES[1], "images", "out"], check=True, capture_output=True, text=True)
    for batch in (1, 3):
        given = np.fromfile(f"out{batch}", "<f4").reshape(batch, -1)
        np.testing.assert_allclose(given, _answers(small, x[:batch]), rtol=0, atol=1e-5)
    assert json.loads(done.stdout)["vit_zoo"]["spec"]["dim"] == SMALL["dim"]


def test_files_are_reproducible(small, tmp_path_factory):
    """Two folders, users, locales, hash seeds and thread counts; and again in a process that has exported before."""
    found = []
    for user, locale, threads in (("ada", "C", "1"), ("grace", "C.UTF-8", "2")):
        where = tmp_path_factory.mktemp(f"{user} home")
        shutil.copytree("model", where / "model")
        told = {"HOME": str(where), "USER": user, "LOGNAME": user, "LC_ALL": locale, "OMP_NUM_THREADS": threads}
        surroundings = {**os.environ, **told, "PYTHONHASHSEED": threads, "TZ": f"UTC{threads}"}
        subprocess.run([sys.executable, "-c", EXPORT], cwd=where, env=surroundings, check=True, capture_output=True)
        found.append(_digests(where))
    for _ in range(2):
        vit_zoo.export("model", ["onnx", "torchscript", "pt2"], verify=False)
        found.append(_digests("."))
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("file", FILES)
def test_files_hold_no_names_or_paths_of_this_machine(small, file):
    vit_zoo.export("model", ["onnx", "torchscript", "pt2"])
    path = Path(file)
    parts = [path.read_bytes()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts += [name.encode() + b"\n" + archive.read(name) for name in archive.namelist()]
            assert all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in archive.infolist())
    whole = b"\n".join(parts)
    user = getpass.getuser().encode()
    homes = {os.fsencode(where) for where in (Path.cwd(), Path.home(), Path(vit_zoo.__file__).parents[1], sys.prefix)} - {b"/"}
    for private in (*homes, b"site-packages", b"stack_trace", b"Traceback", b"debug_pkl", b"serialization_id", b'File "'):
        assert private not in whole, private
    assert not re.search(rb"\b" + re.escape(user) + rb"[@/:]", whole)


def test_tensors_are_aligned_for_memory_mapping(small):
    vit_zoo.export("model", ["torchscript", "pt2"])
    for file in FILES[1:]:
        with zipfile.ZipFile(file) as archive, Path(file).open("rb") as raw:
            for entry in archive.infolist():
                raw.seek(entry.header_offset + 26)
                name, extra = (int.from_bytes(raw.read(2), "little") for _ in range(2))
                assert (entry.header_offset + 30 + name + extra) % 64 == 0, entry.filename
                assert entry.compress_type == zipfile.ZIP_STORED
