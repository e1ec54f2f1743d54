"""Tests of `verify`: efforts, reports, schema, plot, and the output of the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import vit_zoo
from support.models import SMALL, noise
from support.paths import ROOT
from vit_zoo.errors import InputError
from vit_zoo.formats import programs
from vit_zoo.parity.plan import PLANS
from vit_zoo.parity.report import EFFORTS, ParityReport, schema


@pytest.fixture
def small(folder):
    """A folder with a small noised model in `model`, another in `other`, and the first one's file."""
    for name, seed in (("model", 1), ("other", 2)):
        model = noise(vit_zoo.create("vit_b16", **SMALL), seed=seed)
        model.config = model.config.replace(name="small", random_seed=None)
        vit_zoo.save(model, name)
    vit_zoo.export("model", out="small.onnx", verify=False)
    return folder


def test_efforts_list_the_checks_that_they_skip(small):
    reports = {effort: vit_zoo.verify("small.onnx", "model", effort=effort) for effort in EFFORTS}
    assert all(report.ok and report.effort == effort for effort, report in reports.items())
    assert "runs without onnxruntime's optimiser" in reports["quick"].skipped
    assert all(c.floor is None and c.optimised for c in reports["quick"].comparisons)
    assert any(c.floor is not None for c in reports["default"].comparisons)
    assert all(c.floor is not None for c in reports["full"].comparisons)
    assert reports["default"].skipped == ("inner values: compared only after a failure",)
    assert reports["full"].skipped == ()
    assert [len(reports[effort].blocks) for effort in EFFORTS] == [0, 0, 3]
    sizes = [len(report.comparisons) for report in reports.values()]
    assert sizes == sorted(sizes)
    for plan in PLANS.values():  # no image is made for nothing
        assert {i for batches in plan.batches.values() for batch in batches for i in batch} == set(range(len(plan.images)))


def test_a_report_of_less_effort_does_not_replace_one_of_more(small):
    for effort, kept in (("quick", "quick"), ("full", "full"), ("default", "full")):
        assert vit_zoo.verify("small.onnx", "model", effort=effort).ok
        assert json.loads(Path("small.onnx.parity.json").read_text())["effort"] == kept
    assert not vit_zoo.verify("small.onnx", "other").ok
    assert json.loads(Path("small.onnx.parity.json").read_text())["ok"], "another model says nothing about this file's own"
    Path("small.onnx.parity.json").write_text('{"schema_version": 1}')  # of an older version
    assert vit_zoo.verify("small.onnx", "model").ok
    assert json.loads(Path("small.onnx.parity.json").read_text())["ok"]


def test_the_committed_schema_is_up_to_date():
    assert (ROOT / "docs" / "parity-report.schema.json").read_text() == schema()


def test_a_report_is_read_back_from_its_file(small):
    report = vit_zoo.verify("small.onnx", "other", effort="full")
    assert ParityReport.model_validate_json(Path("small.onnx.parity.json").read_text()) == report
    rows = report.table()
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == 1 + len(report.comparisons)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_plot(suffix, small, cli):
    assert cli("verify", "small.onnx", "--against", "model", "--plot", f"errors{suffix}", "--quiet").code == 0
    if suffix == ".png":
        with Image.open("errors.png") as image:
            assert image.size[0] > 300
    else:
        assert "measured" in Path("errors.svg").read_text()
    assert cli("verify", "small.onnx", "--against", "other", "--plot", f"failed{suffix}", "--quiet").code == 3
    assert Path(f"failed{suffix}").stat().st_size > 1000
    assert cli("verify", "small.onnx", "--against", "model", "--plot", "errors.gif").code == 2
    Path("small.onnx.parity.json").unlink()
    assert cli("verify", "small.onnx", "--against", "model", "--plot", f"nowhere/errors{suffix}").code == 2
    assert not Path("small.onnx.parity.json").exists()  # it is refused before the work
    assert cli("verify", "model", "--against", "model", "--plot", f"models{suffix}", "--quiet").code == 0
    assert Path(f"models{suffix}").stat().st_size > 1000


def test_the_plot_needs_matplotlib(small):
    code = "import sys; sys.modules['matplotlib'] = None; from vit_zoo.cli import main; main()"
    command = [sys.executable, "-c", code, "verify", "small.onnx", "--against", "model", "--plot", "a.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 4
    assert "pip install matplotlib" in done.stderr
    assert not Path("a.png").exists()


def test_the_command_line(small, cli):
    code, out, _ = cli("verify", "small.onnx", "--against", "model", "--full")
    assert code == 0
    assert out.startswith("output")
    assert "small.onnx computes model.safetensors: largest relative difference" in out
    assert cli("verify", "model", "--against", "model").code == 0
    code, out, err = cli("verify", "model", "--against", "other")
    assert code == 3
    assert "first divergence: patch_embed.proj" in out
    assert "weight 'cls_token' and" in err
    code, out, _ = cli("verify", "small.onnx", "--against", "other", "--json")
    assert code == 3
    document = json.loads(out)
    assert document["report"]["verdict"] == "failed"
    assert cli("verify", "small.onnx", "--against", "small.onnx", "--set", "heads=3").code == 2
    code, _, err = cli("verify", "small.onnx", "--against", "model", "--fixed", "depth")
    assert code == 2
    assert "unknown axis 'depth'" in err
    code, _, err = cli("verify", "model", "--against", "model", "--fixed", "height")
    assert code == 2
    assert "fixed axes apply to exported files only" in err
    assert cli("export", "model", "--onnx", "--verify", "quick", "-o", "quick.onnx", "-q").code == 0
    assert json.loads(Path("quick.onnx.parity.json").read_text())["effort"] == "quick"
    with pytest.raises(InputError, match="effort 'some'"):
        vit_zoo.verify("small.onnx", "model", effort="some")


def test_the_precision_is_reported(small, cli):
    """Weights rounded to half precision where the model's are not: the tolerance of fp16 applies and is named."""
    half = vit_zoo.load("model", dtype=torch.float16)
    vit_zoo.export(half, out="half.onnx", verify=False)
    code, out, _ = cli("verify", "half.onnx", "--against", "model")
    assert code == 0
    assert "half.onnx computes model.safetensors in fp16: " in out
    assert vit_zoo.verify("half.onnx").precision == "fp32", "against the weights in the file it is exact"


@pytest.mark.parametrize("format_", ["torchscript", "pt2"])
@pytest.mark.parametrize("fault", ["eps", "bias"])
def test_programs(format_, fault, small, monkeypatch):
    """A wrong epsilon, found by reading the program, and a wrong bias, found only by running it."""
    honest = getattr(programs, f"write_{format_}")

    def dishonest(model, *rest):
        other = vit_zoo.load("model")
        if fault == "eps":
            other.blocks[1].norm2.eps = 1e-12
        else:
            other.blocks[1].mlp.fc1.bias.data.zero_()
        honest(other, *rest)

    monkeypatch.setattr(programs, f"write_{format_}", dishonest)
    (done,) = vit_zoo.export("model", format_, verify=False)
    report = vit_zoo.verify(done.path, "model")
    assert not report.ok
    assert ("epsilon 1e-12" in report.faults[0]) == (fault == "eps")
    assert fault == "eps" or not all(c.ok for c in report.comparisons)
