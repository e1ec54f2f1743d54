"""Tests of benchmarks: rows and their parity, what fails, and what is refused. No time is compared with another one."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil

import numpy as np
import onnx
import pytest
import torch

import vit_zoo
from support import foreign_onnx
from vit_zoo.errors import InputError, MissingDependency, RefusedContent
from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.inference.bench import run, worker
from vit_zoo.inference.bench.foreign import Foreign, input_shape
from vit_zoo.inference.bench.process import RowProcess
from vit_zoo.inference.bench.result import Bench

QUICK = {"rounds": 6, "threads": 1}
ORT = {**QUICK, "runtimes": "ort"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exported files of vit_digits."""
    out = tmp_path_factory.mktemp("files")
    vit_zoo.export("vit_digits", out=out, precision=["fp32", "fp16", "int8-weights"], verify=False)
    vit_zoo.export("vit_digits", out=out / "pre.onnx", include=["preprocess"], verify=False)
    return out


def tampered(source, target):
    """Copy an exported file with one weight changed."""
    content = bytearray(source.read_bytes())
    span = skeleton(source).weights["blocks.0.mlp.fc1.weight"].span
    (value,) = np.frombuffer(content, "<f4", 1, span.start)
    content[span.start : span.start + 4] = np.float32(value + 3).tobytes()
    target.write_bytes(content)
    return target


def test_rows_of_exported_files(files):
    paths = [files / "vit_digits.onnx", files / "vit_digits_int8_weights.onnx", files / "pre.onnx"]
    result = vit_zoo.bench(paths, batch=[1, 3], **ORT)
    assert result.ok
    assert [(row.target, row.precision, row.batch) for row in result.rows] == [
        (str(path), precision, batch)
        for path, precision in zip(paths, ("fp32", "int8-weights", "fp32"), strict=True)
        for batch in (1, 3)
    ]
    for row in result.rows:
        assert row.runtime == "ort"
        assert not row.random
        assert (row.rounds, row.threads) == (6, 1)
        assert 0 < row.p50.low <= row.p50.value <= row.p50.high
        assert row.p50.value <= row.p95.value
        assert row.p95.high is None  # 72 rounds are needed
        assert row.images_per_second == row.batch / row.p50.value
        assert 20e6 < row.peak_bytes < 2e9
        assert row.parity.ok
    first, _, rounded, *_ = result.rows
    assert first.file_bytes == paths[0].stat().st_size
    assert (first.ratio.value, first.ratio.low, first.ratio.high) == (1, 1, 1)
    assert first.parity.relative <= first.parity.allowed <= 1e-5
    assert rounded.parity.decibels > 25
    assert rounded.parity.reference == "the weights in vit_digits.onnx"  # found among the targets
    assert Bench.model_validate_json(result.model_dump_json()) == result
    assert "order statistics" in str(result)


def test_ratios_are_those_of_the_rounds(files, monkeypatch):
    """With the times of a clock that is known: ratios compare the time of an image with that of the first row."""
    times = {1: iter([1.0, 2.0, 4.0, 1.0, 1.0, 1.0]), 4: iter([4.0, 8.0, 16.0, 8.0, 8.0, 8.0])}
    monkeypatch.setattr(RowProcess, "seconds", lambda self: next(times[self._held[0]]))
    one, four = vit_zoo.bench(files / "vit_digits.onnx", batch=[1, 4], **ORT).rows
    assert (one.p50.value, four.p50.value) == (1.0, 8.0)
    assert four.ratio.value == np.median([1, 1, 1, 2, 2, 2])
    assert (four.ratio.low, four.ratio.high) == (1, 2)
    assert four.images_per_second == 0.5


def test_rows_are_measured_in_turn(files, monkeypatch):
    """Each round measures every row once, and not in the same order."""
    order, real = [], RowProcess.seconds

    def seconds(self):
        order.append(self.path.name)
        return real(self)

    monkeypatch.setattr(RowProcess, "seconds", seconds)
    names = ["vit_digits.onnx", "vit_digits_fp16.onnx", "pre.onnx"]
    vit_zoo.bench([files / name for name in names], runtimes="ort", threads=1, rounds=12)
    rounds = [tuple(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert len(rounds) == 12
    assert all(sorted(one) == sorted(names) for one in rounds)
    assert len(set(rounds)) > 2


def test_no_round_begins_after_the_seconds(files):
    rows = vit_zoo.bench(files / "vit_digits.onnx", runtimes="ort", threads=1, rounds=1000, seconds=1e-6).rows
    assert rows[0].rounds == run.LEAST


def test_a_tampered_file_is_no_speed(files, folder, cli):
    tampered(files / "vit_digits.onnx", folder / "tampered.onnx")
    shutil.copy(files / "vit_digits.onnx", folder / "good.onnx")
    options = ["--runtimes", "ort", "--threads", "1", "--rounds", "6"]
    result = cli("bench", "tampered.onnx", "good.onnx", *options, "--csv", "rows.csv", "--plot", "rows.svg")
    assert result.code == 3
    assert "1 of 2 rows failed: tampered.onnx ort fp32 batch 1 threads 1: metadata: the weights do not match" in result.err
    line, good = result.out.splitlines()[1:3]
    assert line.split() == ["tampered.onnx", "ort", "fp32", "1", "1", "FAILED"]
    assert "  1.000  " in good  # what is measured first is what the ratios are relative to
    bad, other = csv.DictReader((folder / "rows.csv").read_text().splitlines())
    assert (bad["p50_ms"], bad["parity_ok"], bad["images_per_second"]) == ("", "False", "")
    assert (other["parity_ok"], other["fault"]) == ("True", "")
    assert float(other["p50_ms"]) > 0
    assert (folder / "rows.svg").read_text().count("<!-- peak memory, MiB -->") == 1
    result = cli("bench", "tampered.onnx", "--against", "vit_digits", *options, "--json")
    assert result.code == 3
    (row,) = json.loads(result.out)["bench"]["rows"]
    assert row["fault"] == "weight 'blocks.0.mlp.fc1.weight' differs from the model's"
    assert row["p50"] is None


def test_a_file_that_computes_something_else_fails_by_its_outputs(files, folder):
    """Another tool's file has no metadata, so its weights are not compared: its outputs are."""
    model = onnx.load(tampered(files / "vit_digits.onnx", folder / "theirs.onnx"))
    del model.metadata_props[:]
    onnx.save(model, folder / "theirs.onnx")
    (row,) = vit_zoo.bench(folder / "theirs.onnx", against="vit_digits", **ORT).rows
    assert not row.parity.ok
    assert "relative difference" in row.fault
    assert row.parity.relative > 100 * row.parity.allowed


def test_another_tools_file_is_compared_with_itself(folder):
    onnx.save(foreign_onnx.classifier(), folder / "theirs.onnx")
    (row,) = vit_zoo.bench(folder / "theirs.onnx", **ORT).rows
    assert row.ok
    assert row.parity.reference == "theirs.onnx without onnxruntime's optimiser"


def test_runtimes_of_a_model(folder):
    """One bench of a model in several runtimes, which exports it for each."""
    pytest.importorskip("openvino")
    result = vit_zoo.bench("vit_digits", runtimes=["eager", "torchscript", "ort", "openvino"], batch=2, **QUICK)
    assert result.ok, str(result)
    assert [row.runtime for row in result.rows] == ["eager", "torchscript", "ort", "openvino"]
    sizes = {row.runtime: row.file_bytes for row in result.rows}
    assert sizes["ort"] == sizes["openvino"] != sizes["torchscript"]
    assert not list(folder.iterdir())  # files are made in a temporary folder
    frame = result.to_pandas()
    assert list(frame.runtime) == [row.runtime for row in result.rows]
    assert frame.p50_ms[1] == 1e3 * result.rows[1].p50.value


def open_here(**message):
    """Open a runner in this process."""
    return worker.open_runner({"threads": 1, "precision": "fp32", "foreign": None, "names": ["logits"], **message})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_module_runs_in_its_precision(folder, precision):
    model = vit_zoo.load("vit_digits").eval()
    vit_zoo.save(model, folder / "model")
    runner = open_here(runtime="eager", path=str(folder / "model"), precision=precision)
    images = np.random.default_rng(0).standard_normal((2, *input_shape_of(model)), np.float32)
    runner.hold(images)
    result = runner.call()
    assert result.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    tolerance = {"fp32": 1e-6, "bf16": 5e-2, "fp16": 5e-3}[precision] * np.abs(expected).max()
    np.testing.assert_allclose(runner.named(result)["logits"], expected, atol=tolerance, rtol=0)


def input_shape_of(model):
    return model.spec.channels, *model.spec.image_size


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "transformers:FOLDER"])
def test_models_of_other_libraries_have_the_same_weights_in_every_process(folder, name):
    pytest.importorskip(name.partition(":")[0])
    config = {"model_type": "vit", "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    (folder / "config.json").write_text(json.dumps({**config, "image_size": 32, "patch_size": 8, "num_channels": 1}))
    foreign = Foreign.parse(name.replace("FOLDER", str(folder)))
    module = foreign.make(seed=3)
    assert input_shape(module) == ((1, 32, 32) if "FOLDER" in name else (3, 224, 224))
    images = np.random.default_rng(0).standard_normal((1, *input_shape(module)), np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(images))
    expected = expected if isinstance(expected, torch.Tensor) else expected.logits
    runner = open_here(runtime="eager", path="", foreign=str(foreign), seed=3, names=["output"])
    runner.hold(images)
    np.testing.assert_array_equal(runner.named(runner.call())["output"], expected.numpy())
    other = open_here(runtime="eager", path="", foreign=str(foreign), seed=4, names=["output"])
    other.hold(images)
    assert not np.array_equal(other.named(other.call())["output"], expected.numpy())


def test_a_process_that_ends_fails_its_row_only(files, monkeypatch):
    real = RowProcess.seconds

    def seconds(self):
        if self.path.name == "pre.onnx":
            self._process.kill()
        return real(self)

    monkeypatch.setattr(RowProcess, "seconds", seconds)
    bad, good = vit_zoo.bench([files / "pre.onnx", files / "vit_digits.onnx"], **ORT).rows
    assert bad.fault == "onnxruntime crashed (SIGKILL) while it ran the file"
    assert bad.p50 is None
    assert good.ok
    assert good.rounds == 6


def test_a_file_that_takes_too_long_is_no_speed(files):
    (row,) = vit_zoo.bench(files / "vit_digits_int8_weights.onnx", against="vit_digits", time_limit=1e-4, **ORT).rows
    assert "took more than" in row.fault
    assert row.parity is None


BAD = {
    "no target": ([], {}, "no target is given"),
    "unknown runtime": ("vit_digits", {"runtimes": "tvm"}, "unknown runtime 'tvm'; choose from eager"),
    "unknown precision": ("vit_digits", {"precision": "int4"}, "unknown precision 'int4'"),
    "no batch": ("vit_digits", {"batch": 0}, "batch must be an integer of 1 to 65,536, got 0"),
    "half a thread": ("vit_digits", {"threads": 0.5}, "threads must be an integer"),
    "no rounds": ("vit_digits", {"rounds": 0}, "rounds must be"),
    "endless": ("vit_digits", {"seconds": float("nan")}, "seconds must be"),
    "no such model": ("vit_digitz", {}, "nearest: vit_digits"),
    "a runtime without a row": ("vit_digits", {"runtimes": ["torchscript", "eager"], "precision": "bf16"}, "runtime torchscript"),
    "a target without rows": ("vit_digits", {"runtimes": "eager", "precision": "int8-dynamic"}, "runtimes eager cannot run it"),
    "calibration": ("vit_digits", {"precision": "int8-static"}, "static int8 needs images"),
    "needless calibration": ("vit_digits", {"calibrate": "photos"}, "apply to int8 only"),
    "a seed alone": ("vit_digits", {"seed": 1}, "seed applies only to random weights"),
    "weights of its own": ("vit_digits", {"random": True}, "without weights of their own"),
    "no file": ("vit_digits", {"against": "vit_digits"}, "applies to exported files only"),
    "a limit of no file": ("vit_digits", {"time_limit": 3}, "apply to exported files only"),
    "an unknown fact": ("vit_digits", {"depht": 3}, "depht"),
    "a name without a library": ("timm:", {}, "expected timm:NAME"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_any_work(case, monkeypatch):
    targets, options, message = BAD[case]
    monkeypatch.setattr(RowProcess, "start", lambda self: pytest.fail("a process was started"))
    with pytest.raises(InputError, match=message):
        vit_zoo.bench(targets, **{"runtimes": "ort", **options})


def test_bad_input_about_exported_files(files):
    path = files / "vit_digits.onnx"
    for options, message in (
        ({"runtimes": "eager"}, "exported files run in ort and openvino"),
        ({"precision": "fp16"}, "the precision fp16 has no row"),
        ({"image_size": 32}, "cannot set image_size"),
        ({"calibrate": "photos"}, "calibrate applies to models"),
    ):
        with pytest.raises(InputError, match=message):
            vit_zoo.bench(path, **{"runtimes": "ort", **options})
    with pytest.raises(InputError, match="the weights are rounded to int8"):
        vit_zoo.bench(files / "vit_digits_int8_weights.onnx", runtimes="ort")


def test_files_with_code_are_not_run(folder):
    (done,) = vit_zoo.export("vit_digits", "torchscript", verify=False)
    with pytest.raises(RefusedContent, match="contain code, which is not run"):
        vit_zoo.bench(done.path)


def test_a_runtime_that_is_not_installed(monkeypatch, cli):
    real = importlib.util.find_spec
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "openvino" else real(name))
    assert "openvino" not in run._runtimes(None)
    result = cli("bench", "vit_digits", "--runtimes", "ort,openvino")
    assert (result.code, result.err) == (4, "vitzoo: error: the runtime openvino needs openvino (pip install openvino)\n")
    with pytest.raises(MissingDependency, match="pip install timm"):
        monkeypatch.setattr("vit_zoo.inference.bench.foreign.find_spec", lambda name: None)
        vit_zoo.bench("timm:vit_tiny_patch16_224", runtimes="ort")


def test_compile_needs_a_compiler(monkeypatch, tmp_path, cli):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert "compile" not in run._runtimes(None)
    result = cli("bench", "vit_digits", "--runtimes", "compile")
    assert result.code == 4
    assert "needs a C++ compiler, and none is found (install g++ or clang" in result.err


def test_the_command_prints_a_table_and_json(files, folder, cli):
    options = ("--runtimes", "ort", "--threads", "1", "--rounds", "6")
    result = cli("bench", files / "vit_digits.onnx", *options)
    assert result.code == 0
    head, row, *notes = result.out.splitlines()
    assert head.split()[:5] == ["target", "runtime", "precision", "batch", "threads"]
    assert row.startswith(str(files / "vit_digits.onnx"))
    assert any(line.startswith("machine: ") for line in notes)
    document = json.loads(cli("bench", files / "vit_digits.onnx", *options, "--json").out)
    assert Bench.model_validate(document).ok
    for wrong in (("--plot", "x.gif"), ("--csv", "nowhere/x.csv"), ("--batch", "1,x"), ("--threads", ""), ("--seconds", "0")):
        assert cli("bench", files / "vit_digits.onnx", *options, *wrong).code == 2, wrong


def test_random_weights_are_labelled(cli):
    result = cli("bench", "vit_ti16", "--random", "--runtimes", "ort", "--rounds", "2", "--threads", "1", "--set", "depth=1")
    assert result.code == 0, result.err
    assert "vit_ti16*" in result.out
    assert "* RANDOM WEIGHTS" in result.out
