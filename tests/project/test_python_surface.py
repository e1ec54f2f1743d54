"""Tests of the Python surface: documented parameters, short reprs, and names that type checkers know."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest
import torch

import vit_zoo
from support.models import SMALL, noise
from support.paths import ROOT
from vit_zoo.formats.artifact import Artifact

CLASSES = (vit_zoo.ViT, vit_zoo.Attention, vit_zoo.FeedForward, vit_zoo.Transformer)
FUNCTIONS = {
    **{name: getattr(vit_zoo, name) for name in vit_zoo.__all__ if inspect.isfunction(getattr(vit_zoo, name))},
    **{each.__name__: each for each in CLASSES},
    **{f"ViT.{name}": getattr(vit_zoo.ViT, name) for name in ("from_spec", "features", "set_head", "set_grad_checkpointing")},
    **{f"Artifact.{name}": getattr(Artifact, name) for name in ("run", "predict", "patch_inputs", "run_patches")},
}


def documented(text):
    """The parameters under Args: in a docstring."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(text), re.DOTALL | re.MULTILINE)
    return re.findall(r"^    (\*{0,2}\w+): \S", section[1], re.MULTILINE) if section else []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_parameter_is_documented(name):
    function = FUNCTIONS[name]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = [stars.get(p.kind, "") + p.name for p in inspect.signature(function).parameters.values() if p.name != "self"]
    assert documented(function.__doc__) == parameters


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small exported file with its report."""
    made = tmp_path_factory.mktemp("small")
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, "depth": 2}))
    model.config = model.config.replace(labels=tuple(f"<b>{i}</b>" for i in range(11)))
    (done,) = vit_zoo.export(model, out=made / "small.onnx")
    return model, done


def test_reprs_fit_in_a_line(done):
    model, export = done
    size = f"{export.path.stat().st_size / 1e3:,.1f} kB"
    artifact = vit_zoo.open(export.path)
    shapes = "pixel_values [batch, 3, 32, 48] float32 -> logits [batch, 11]"
    assert repr(artifact) == f"<onnx file small.onnx: vit_b16, fp32, {size}, {shapes}>"
    assert repr(export) == f"<Export {export.path}: vit_b16, {size}, parity>"
    assert re.fullmatch(
        r"<ParityReport small.onnx: parity, relative difference \d\.\de-\d\d, allowed \d\.\de-\d\d>", repr(export.report)
    )
    assert str(export.report) == repr(export.report)
    size = "32x48 in patches of 8x16, dim 48, depth 2, heads 3"
    assert repr(model.spec) == f"<ViTSpec {size}, 11 outputs, {model.spec.params:,} parameters>"
    lines = repr(model).splitlines()
    assert lines[:2] == ["ViT(", f"  vit_b16, 32x48, {model.spec.params:,} parameters"]
    assert "  (head): Linear(in_features=48, out_features=11, bias=True)" in lines
    assert "RANDOM WEIGHTS (seed 0)" in repr(vit_zoo.create("vit_b16", **SMALL))
    prediction = vit_zoo.predict(
        model, torch.zeros(3, 9, 9, dtype=torch.uint8), top=2, preprocess="imagenet", labels=["a\nb", *map(str, range(10))]
    )
    assert re.fullmatch(r"\[<Prediction image 0: \S+ \d+\.\d %, \S+ \d+\.\d %>\]", repr(prediction))
    assert len(repr(model.config)) < 2000  # without thousands of labels


def test_reports_are_tables_in_notebooks(done):
    report = done[1].report
    html = report.model_copy(update={"file": "<script>.onnx"})._repr_html_()
    assert "&lt;script&gt;.onnx: parity" in html
    assert "<script>" not in html
    assert html.count("<tr>") == 1 + len(report.comparisons)
    failed = report.model_copy(update={"ok": False, "verdict": "failed", "faults": ("a fault",)})
    assert repr(failed) == "<ParityReport small.onnx: failed, a fault>"


WRONG = """
import vit_zoo

vit_zoo.nonsense
"""
RIGHT = """
import numpy as np
import vit_zoo

model = vit_zoo.load("hf-hub:org/name", num_classes=7, labels=["a", "b"])
(export,) = vit_zoo.export(model, "onnx", out="here")
assert export.report is not None and export.report.ok
opened = vit_zoo.open(export.path)
predictions = [*opened.predict("folder"), *vit_zoo.predict(opened, [np.zeros((9, 9, 3), np.uint8), "a.png"], top=3)]
label: str = predictions[0].labels[0]
try:
    vit_zoo.pull("org/name")
except (vit_zoo.HubError, vit_zoo.RefusedContent, vit_zoo.CannotWrite) as error:
    code: int = error.code
"""


def test_type_checkers_know_every_name(tmp_path):
    for name, code in (("wrong", WRONG), ("right", RIGHT)):
        (tmp_path / f"{name}.py").write_text(code)
    options = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, "wrong.py", "right.py"]
    environment = {"MYPYPATH": str(ROOT)}
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment).stdout
    assert out == 'wrong.py:4: error: Module has no attribute "nonsense"  [attr-defined]\n'
