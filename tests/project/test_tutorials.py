"""Tests of the tutorials that go beyond Python: without torch, in node, in the browser, and on a Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.hub_environment import HUB_PORT
from support.loopback_hub import WRITER, Hub
from support.pages import BLOCK, run_blocks
from support.paths import NODE, ROOT
from support.requirements import required

PAGE = ROOT / "docs" / "tutorials" / "fine-tune.md"
NAMES = ["zero", "one", "two", "three", "four", "five", "six"]
FILES = ["numbers.onnx", "numbers_fp16.onnx", "numbers_int8.onnx"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The folder in which the blocks of the tutorial have run."""
    folder = tmp_path_factory.mktemp("shipped")
    run_blocks(PAGE, folder)
    return folder


def photos(folder):
    return [min((folder / "photos" / name).glob("*.png")) for name in NAMES]


def test_the_files_predict_without_torch(shipped, torch_free, tmp_path):
    """They are moved away from everything else; the names and the preprocessing are inside."""
    for name in FILES:
        shutil.copy(shipped / name, tmp_path)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for name in FILES:
        command = [torch_free.parent / "vitzoo", "predict", name, *photos(shipped), "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert [item["predictions"][0]["label"] for item in json.loads(done.stdout)] == NAMES, name
        done = subprocess.run([command[0], "show", name, "--json"], cwd=tmp_path, env=clean, capture_output=True, text=True)
        preprocess = json.loads(done.stdout)["preprocess"]
        assert (preprocess["mean"], preprocess["std"], preprocess["size"]) == ([0.3] * 3, [0.35] * 3, [16, 16])


def test_the_files_run_in_node(shipped):
    required("node")
    modules = required("onnxruntime-web", NODE / "node_modules" / "onnxruntime-web")
    if not (shipped / "node_modules").exists():
        (shipped / "node_modules").symlink_to(Path(modules).parent)
    for i, photo in enumerate(photos(shipped)):
        (shipped / "image.rgb").write_bytes(np.asarray(Image.open(photo)).tobytes())
        for name in FILES[i % 3 :: 3]:  # each file runs in two processes or three
            command = ["node", "predict.mjs", name, "image.rgb"]
            done = subprocess.run(command, cwd=shipped, capture_output=True, text=True)
            assert done.stdout.strip() == str(i), done.stderr


def test_the_model_is_published(shipped):
    """The page's command, without its last option, on the Hub of this machine."""
    [command] = [code for _, _, code in BLOCK.findall(PAGE.read_text()) if "--dry-run staged" in code]
    environment = {**os.environ, "HF_TOKEN": WRITER, "PYTHONPATH": str(ROOT)}
    command = command.replace(" \\\n  --dry-run staged", "").replace("vitzoo", f"{sys.executable} -m vit_zoo.cli", 1)
    with Hub(port=HUB_PORT) as hub:
        done = subprocess.run(["bash", "-euc", command], cwd=shipped, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        files = hub.files("me/numbers")
    config = json.loads(files["config.json"])
    assert [config["id2label"][str(i)] for i in range(7)] == config["label_names"] == NAMES
    assert json.loads(files["preprocessor_config.json"])["image_mean"] == [0.3] * 3
    assert {"onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_quantized.onnx"} <= set(files)
