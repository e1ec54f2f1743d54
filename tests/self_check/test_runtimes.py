"""Tests that no runtime fails a self-check that is right: every part of models, precision, opset, optimiser, thread count."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import openvino
import pytest
import torch
from PIL import Image

import vit_zoo
from support.families import COVERING, small_model
from support.paths import NODE
from support.requirements import required
from vit_zoo.formats.onnx_skeleton import declared
from vit_zoo.self_check.standalone import FOLDER

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_LAYOUT", "ORT_ENABLE_ALL")
FORMS = {
    "default": {},
    "opset 17": {"opset": 17},
    "opset 23": {"opset": 23},
    "opset 25": {"opset": 25},
    "core": {"batch": 1, "operators": "core"},
    "opset 13": {"opset": 13},
    "fp16": {"precision": "fp16"},
    "fp16, opset 23": {"precision": "fp16", "opset": 23},
    "bf16": {"precision": "bf16"},
    "int8-weights": {"precision": "int8-weights"},
    "int8-dynamic": {"precision": "int8-dynamic"},
}
OF_ONE = {  # of one kind of model
    "any size": {"dynamic": "hw"},
    "external": {"placement": "external"},
    "softmax": {"include": ["softmax"]},
    "all outputs": {"outputs": ["logits", "pooler_output", "last_hidden_state", "block.*", "attn.*", "block.*.map"]},
    "raw images": {"include": ["preprocess"]},
    "raw images, exact": {"include": ["preprocess-exact"]},
}
# norms inside attention and MLP, or after them: with these random weights, an int8 file is rejected as too far from the model
ROUGH_IN_INT8 = ("beit3_b16", "evaclip_e14")
OTHER_RESIZE = "raw images"  # OpenVINO's Resize makes other pixels than onnxruntime's


@pytest.fixture(scope="module", params=["deit_ti16", *COVERING])
def exported(request, tmp_path_factory):
    """The files of a kind of model, by form."""
    folder, model = tmp_path_factory.mktemp("files"), small_model(request.param)
    forms = FORMS | (OF_ONE if request.param == "deit_ti16" else {})
    if request.param in ROUGH_IN_INT8:
        del forms["int8-dynamic"]
    files = {}
    for form, options in forms.items():
        (done,) = vit_zoo.export(model, "onnx", out=folder / f"{form}.onnx", verify="quick", **options)
        files[form] = done.path
    return model, files


def in_onnxruntime(path, level, threads):
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options)
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


def in_openvino(path):
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(path), "CPU", hints)
    names, _ = declared(path)  # OpenVINO may have other names for them, in the same order
    return lambda x: dict(zip(names, compiled(x).values(), strict=True))


def test_no_false_alarm_in_onnxruntime(exported):
    _, files = exported
    for form, path in files.items():
        for level in LEVELS:
            for threads in (1, 2):
                result = vit_zoo.selfcheck(path, run=in_onnxruntime(path, level, threads))
                assert result.ok, (form, level, threads, result)


def test_no_false_alarm_in_openvino(exported):
    _, files = exported
    for form, path in files.items():
        result = vit_zoo.selfcheck(path, run=in_openvino(path))
        assert result.ok == (form != OTHER_RESIZE), (form, result)


def test_no_false_alarm_in_onnxruntime_web(exported, tmp_path):
    """In node, by the standalone checker of JavaScript."""
    required("onnxruntime-web", NODE / "node_modules" / "onnxruntime-web")
    _, files = exported
    shutil.copyfile(FOLDER / "selfcheck.mjs", tmp_path / "selfcheck.mjs")
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    (tmp_path / "all.mjs").write_text("""\
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";
import { selfcheck } from "./selfcheck.mjs";
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const results = {};
for (const [form, file] of Object.entries(JSON.parse(readFileSync(0, "utf8")))) {
  const bytes = readFileSync(file);
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  results[form] = await selfcheck(ort, session, bytes);
  await session.release();
}
console.log(JSON.stringify(results));
""")
    inline = {form: str(path) for form, path in files.items() if form != "external"}
    done = subprocess.run(
        [required("node"), "all.mjs"], input=json.dumps(inline), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for form, result in json.loads(done.stdout).items():
        assert result["ok"], (form, result)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_no_false_alarm_in_torch(exported, tmp_path):
    model, _ = exported
    script, program = vit_zoo.export(model, ["torchscript", "pt2"], out=tmp_path, verify="quick")
    for path, load in ((script.path, torch.jit.load), (program.path, lambda path: torch.export.load(path).module())):
        loaded = load(path)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            result = vit_zoo.selfcheck(path, run=lambda x, loaded=loaded: loaded(torch.from_numpy(x)).detach().numpy())
            assert result.ok, (path, threads, result)
    torch.set_num_threads(1)


EACH = """
import runpy, sys
checker, *files = sys.argv[1:]
for file in files:
    sys.argv = [checker, file]
    try:
        runpy.run_path(checker)
    except SystemExit as done:
        print(file, done.code)
"""
PRECISIONS = ("fp32", "fp16", "bf16", "int8-static", "int8-dynamic", "int8-weights")


@pytest.fixture
def precisions(folder):
    """Files of one model in every precision, static int8 calibrated on noise."""
    random = np.random.default_rng(1)
    (folder / "photos").mkdir()
    for i in range(8):
        Image.fromarray(random.integers(0, 256, (48, 60, 3), dtype=np.uint8)).save(folder / "photos" / f"{i}.png")
    model = small_model("deit_ti16", scale=0.05)
    return [done.path for done in vit_zoo.export(model, precision=PRECISIONS, calibrate="photos")]


def test_another_cpu(precisions):
    """With AVX2 and no more, by the standalone checker: what this CPU expects holds there too, of int8 without VNNI."""
    command = [required("qemu-x86_64"), "-cpu", "Haswell", sys.executable, "-c", EACH, FOLDER / "selfcheck.py", *precisions]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    codes = [line.split()[-1] for line in done.stdout.splitlines() if "allowed" not in line]
    assert codes == ["0"] * len(PRECISIONS), done.stdout


def test_static_int8(precisions):
    path = precisions[PRECISIONS.index("int8-static")]
    for level in LEVELS:
        for threads in (1, 2):
            result = vit_zoo.selfcheck(path, run=in_onnxruntime(path, level, threads))
            assert result.ok, (level, threads, result)
    assert vit_zoo.selfcheck(path, run=in_openvino(path)).ok
