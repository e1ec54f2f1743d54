"""Tests of files of every kind that version 0.1.0 wrote: they open with the same metadata and the same results."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

import vit_zoo
from support.paths import TESTS
from vit_zoo.errors import RefusedContent
from vit_zoo.formats import describe
from vit_zoo.parity.report import read_report

FOLDER = TESTS / "data" / "version_0_1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
IMAGES, LOGITS = (np.array(EXPECTED[name], "<f4") for name in ("images", "logits"))
# the allowed difference of logits, of which the largest is 0.85
ONNX = {
    "inline.onnx": 1e-5, "external.onnx": 1e-5, "model/model.onnx": 1e-5, "dynamic.onnx": 1e-5, "opset17.onnx": 1e-5,
    "fp16.onnx": 5e-3, "bf16.onnx": 2e-2, "int8_dynamic.onnx": 0.1, "int8_weights.onnx": 0.05,
}  # fmt: skip
CHECKPOINTS = ("model", "timm", "hf", "google.npz", "torchvision.pth", "deit.pth")
PROGRAMS = ("vit_ti16.torchscript.pt", "vit_ti16.pt2")
CONFIG = vit_zoo.load(FOLDER / "model").config


def test_every_file_is_tested():
    files = {path.relative_to(FOLDER).parts[0] for path in FOLDER.iterdir() if path.suffix != ".json"}
    tested = {name.split("/")[0] for name in (*ONNX, *CHECKPOINTS, *PROGRAMS)}
    assert files == tested | {"external.onnx_data", "preprocess.onnx"}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_files_open_and_run(name):
    artifact = vit_zoo.open(FOLDER / name)
    assert artifact.config == CONFIG
    np.testing.assert_allclose(artifact.run(IMAGES)["logits"], LOGITS, rtol=0, atol=ONNX[name])


def test_a_file_with_preprocessing_opens():
    artifact = vit_zoo.open(FOLDER / "preprocess.onnx")
    assert artifact.config == CONFIG
    assert artifact.run(np.zeros((1, 30, 20, 3), np.uint8))["probabilities"].shape == (1, 5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_described_and_their_code_is_not_run(name):
    assert describe(FOLDER / name).config == CONFIG
    with pytest.raises(RefusedContent):
        vit_zoo.open(FOLDER / name)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_load(name):
    model = vit_zoo.load(FOLDER / name, heads=2, act="gelu", norm_eps=CONFIG.spec.norm_eps)
    with torch.inference_mode():
        logits = model(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(logits, LOGITS, rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.parity.json")), ids=lambda path: path.name)
def test_reports_are_read_and_match_their_files(path, cli):
    artifact = path.with_name(path.name.removesuffix(".parity.json"))
    assert read_report(artifact).ok
    assert json.loads(cli("show", artifact, "--json").out)["parity"] is True


@pytest.mark.parametrize("name", ["inline.onnx", "external.onnx", "fp16.onnx", "dynamic.onnx", "opset17.onnx", "preprocess.onnx"])
def test_files_verify_against_their_model(name, tmp_path):
    shutil.copytree(FOLDER, tmp_path / "files")
    report = vit_zoo.verify(tmp_path / "files" / name, tmp_path / "files" / "model")
    assert report.ok, report.faults
