"""Tests of the standalone checkers in Python, JavaScript and C++: the same verdicts and differences as vitzoo's own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import vit_zoo
from support.families import small_model
from support.paths import NODE, ROOT
from support.requirements import required
from vit_zoo.self_check.standalone import FOLDER, checker_files, is_checker

LINES = {"selfcheck.py": 60, "selfcheck.mjs": 80, "selfcheck.cc": 120}
HEADERS = [Path(root) / "onnxruntime" for root in ("/usr/include", "/usr/local/include")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Right files of every kind of input, and wrong ones."""
    folder, model = tmp_path_factory.mktemp("files"), small_model("deit_ti16")
    made = {
        "right": {"outputs": ["logits", "block.0", "attn.1"]},
        "fp16": {"precision": "fp16"},
        "raw": {"include": ["preprocess-exact"]},
        "external": {"placement": "external"},
    }
    for name, options in made.items():
        vit_zoo.export(model, "onnx", out=folder / f"{name}.onnx", verify="quick", **options)

    def changed(source, target, change):
        graph = onnx.load(folder / f"{source}.onnx")
        weight = next(t for t in graph.graph.initializer if t.name == "patch_embed.proj.weight")
        values = onnx.numpy_helper.to_array(weight).copy()
        weight.CopyFrom(onnx.numpy_helper.from_array(change(values), weight.name))
        (folder / f"{target}.onnx").write_bytes(graph.SerializeToString())

    changed("right", "BGR", lambda x: np.ascontiguousarray(x.reshape(48, 3, -1)[:, ::-1]).reshape(x.shape))
    changed("raw", "raw_scaled", lambda x: x * np.float32(1.01))
    changed("fp16", "not finite", lambda x: x * np.float32(np.nan) if x.dtype == np.float32 else x * np.float16(np.nan))
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def printed(text):
    """The differences that a checker prints, by output: the largest of each."""
    rows = re.findall(r"^(\S+): (\S+), allowed (\S+?)(  FAILED)?$", text, re.MULTILINE)
    assert rows, text
    return {name: float(far.lower().replace("infinity", "inf")) for name, far, _, _ in rows}


def check(command, path, **options):
    done = subprocess.run([*command, path], capture_output=True, text=True, **options)
    assert done.returncode in (0, 3), done.stderr
    return done.returncode == 0, printed(done.stdout)


def agree(command, files, **options):
    for name, path in files.items():
        ours = vit_zoo.selfcheck(path)
        ok, differences = check(command, path, **options)
        assert ok == ours.ok == (name in ("right", "fp16", "raw", "external")), (name, ours)
        for output in ours.outputs:
            if ok or output.difference is None:
                continue
            assert differences[output.output] == pytest.approx(output.difference, rel=0.1)
        assert all(np.isfinite(far) for far in differences.values()) == (name != "not finite")


def test_python(files):
    agree([sys.executable, FOLDER / "selfcheck.py"], files)


def test_python_needs_no_vitzoo():
    names = set(re.findall(r"^(?:import|from) (\w+)", (FOLDER / "selfcheck.py").read_text(), re.MULTILINE))
    assert names == {"json", "math", "sys", "numpy", "onnxruntime"}


def test_python_with_a_provider_that_is_missing(files):
    done = subprocess.run(
        [sys.executable, FOLDER / "selfcheck.py", files["right"], "CUDAExecutionProvider"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "onnxruntime cannot use CUDAExecutionProvider here" in done.stderr


@pytest.fixture
def script(tmp_path):
    shutil.copyfile(FOLDER / "selfcheck.mjs", tmp_path / "selfcheck.mjs")
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    return tmp_path / "selfcheck.mjs"


def test_javascript_with_onnxruntime_node(files, script):
    required("onnxruntime-web", NODE / "node_modules" / "onnxruntime-node")
    agree([required("node"), script], files)


def test_javascript_with_onnxruntime_web(files, script):
    required("onnxruntime-web", NODE / "node_modules" / "onnxruntime-web")
    for name in ("right", "fp16", "raw", "BGR"):
        done = subprocess.run([required("node"), script, files[name], "wasm"], capture_output=True, text=True)
        assert done.returncode == (3 if name == "BGR" else 0), done.stderr


def test_cpp(files, tmp_path):
    """Skipped where onnxruntime's C++ headers are missing: neither pip's nor npm's package has them, Debian 13's has."""
    compiler = required("g++")
    include = next((path for path in HEADERS if (path / "onnxruntime_cxx_api.h").is_file()), None)
    if include is None:
        pytest.skip("onnxruntime_cxx_api.h is not installed (Debian 13: libonnxruntime-dev)")
    if not Path("/usr/include/nlohmann/json.hpp").is_file():
        pytest.skip("nlohmann/json.hpp is not installed (Debian: nlohmann-json3-dev)")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.1.*")
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{include}", FOLDER / "selfcheck.cc", library]
    subprocess.run([*command, "-o", tmp_path / "selfcheck"], check=True)
    agree([tmp_path / "selfcheck"], files, env={"LD_LIBRARY_PATH": str(tmp_path)})


@pytest.mark.parametrize("name", LINES)
def test_they_are_short(name):
    assert len((FOLDER / name).read_text().splitlines()) <= LINES[name]


def test_the_pages_state_their_lengths():
    lines = [len((FOLDER / name).read_text().splitlines()) for name in LINES]
    assert "or {} lines of Python, {} of JavaScript or {} of C++,".format(*lines) in (ROOT / "README.md").read_text()
    assert "have {}, {} and {} lines".format(*lines) in (ROOT / "docs" / "selfcheck.md").read_text()


def test_published_checkers_are_known_by_their_bytes(tmp_path):
    for name, path in checker_files().items():
        assert is_checker(path)
        (tmp_path / name).write_bytes(path.read_bytes() + b"\n")
        assert not is_checker(tmp_path / name)
    (tmp_path / "other.py").write_bytes((FOLDER / "selfcheck.py").read_bytes())
    assert not is_checker(tmp_path / "other.py")
