"""Tests of the same ONNX file in onnxruntime at every optimisation level, OpenVINO, and onnxruntime-web in node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino
import pytest
import torch
from PIL import Image

import vit_zoo
from support.models import SMALL, noise
from support.paths import NODE
from support.requirements import required
from vit_zoo.model.preprocess import Preprocess

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_LAYOUT", "ORT_ENABLE_ALL")
HOW = Preprocess(size=(32, 48), resize_to=53, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
FAMILIES = {
    "plain": {},
    "registers, LayerScale, mean": {"registers": 2, "layer_scale": True, "pool": "mean", "final_norm": "after_pool"},
    "rotation, SwiGLU": {
        "pos": "rope", "pos_covers": "patches", "registers": 2, "mlp": "swiglu", "act": "silu", "qkv_bias": "qv",
    },
    "attention pooling, tanh GELU": {
        "pool": "map", "pool_tokens": "patches", "class_token": False, "pos_covers": "patches", "act": "gelu_tanh",
    },
    "CLIP": {"pre_norm": True, "act": "quick_gelu", "patch_bias": False},
}  # fmt: skip
FORMS = {
    "plain": ({}, 1e-4),
    "opset 17": ({"opset": 17}, 1e-4),
    "opset 23": ({"opset": 23}, 1e-4),
    "any size": ({"dynamic": "hw"}, 1e-4),
    "softmax": ({"include": ["softmax"]}, 1e-4),
    "images": ({"include": ["preprocess-exact"]}, 1e-4),
    "images, resized by Resize": ({"include": ["preprocess"]}, 2e-2),
    "float16": ({"precision": "fp16"}, 1e-2),
    "bfloat16": ({"precision": "bf16"}, 5e-2),
    "8-bit weights": ({"precision": "int8-weights"}, 0.2),
    "8-bit": ({"precision": "int8-dynamic"}, 0.2),
    "8-bit, ranges beforehand": ({"precision": "int8-static", "calibrate": "photos", "verify": False}, 0.2),
}


def _model(family):
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, **FAMILIES[family]}), scale=0.15)
    model.config = model.config.replace(preprocess=HOW, random_seed=None)
    return model


def _case(family, form):
    """A file, its input, torch's output, and the largest relative difference allowed."""
    model, (options, allowed) = _model(family), FORMS[form]
    if "calibrate" in options:
        _photos(Path(options["calibrate"]))
    (done,) = vit_zoo.export(model, "onnx", out="a.onnx", **options)
    random = np.random.default_rng(0)
    if form.startswith("images"):
        x = random.integers(0, 256, (2, 91, 77, 3), dtype=np.uint8)
        prepared = np.stack([HOW(Image.fromarray(image)) for image in x])
    else:
        x = prepared = random.normal(size=(2, 3, 32, 48)).astype("<f4")
    with torch.inference_mode():
        wanted = model(torch.from_numpy(prepared)).double()
    return done.path, x, (wanted.softmax(-1) if form == "softmax" else wanted).numpy(), allowed


def _photos(folder):
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(1)
    for i in range(8):
        Image.fromarray(random.integers(0, 256, (48, 60, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def _near(given, wanted, allowed):
    assert given.shape == wanted.shape
    assert np.abs(given - wanted).max() <= allowed * np.abs(wanted).max()


CASES = [(family, "plain") for family in FAMILIES] + [("plain", form) for form in FORMS if form != "plain"]


@pytest.mark.parametrize(("family", "form"), CASES)
def test_every_optimisation_level_of_onnxruntime(folder, family, form):
    path, x, wanted, allowed = _case(family, form)
    for level in (*LEVELS, "unsigned weights"):
        options = ort.SessionOptions()
        if level in LEVELS:
            options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        else:  # where int8 saturates, onnxruntime then makes its weights unsigned
            options.add_session_config_entry("session.x64quantprecision", "1")
        session = ort.InferenceSession(path, options)
        (given,) = session.run(None, {session.get_inputs()[0].name: x})
        _near(given, wanted, allowed)


@pytest.mark.parametrize(("family", "form"), [case for case in CASES if case[1] != "images, resized by Resize"])
def test_openvino(folder, family, form):
    """Without the form whose Resize it computes differently, on bytes with antialias: pixels are up to 234 levels off."""
    path, x, wanted, allowed = _case(family, form)
    core = openvino.Core()
    program = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    _near(program([x])[0], wanted, allowed)


def test_onnxruntime_web(folder):
    """All cases in one node process."""
    node = required("node")
    required("onnxruntime-web", NODE / "node_modules" / "onnxruntime-web")  # `npm ci --ignore-scripts` in tests/node
    wanted, tasks = [], []
    for i, (family, form) in enumerate(CASES):
        path, x, answer, allowed = _case(family, form)
        path.rename(f"{i}.onnx")
        x.tofile(f"{i}.input")
        wanted.append((form, answer, allowed))
        files = {"file": f"{i}.onnx", "input": f"{i}.input", "output": f"{i}.output"}
        tasks.append({**files, "type": "uint8" if x.dtype == np.uint8 else "float32", "dims": list(x.shape)})
    done = subprocess.run([node, NODE / "run.mjs"], input=json.dumps(tasks), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for i, (_, answer, allowed) in enumerate(wanted):
        _near(np.fromfile(f"{i}.output", "<f4").reshape(answer.shape), answer, allowed)
