"""Tests of self-checks: what files contain, the verdict on right and wrong ones, and documents that are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import vit_zoo
from support.families import KINDS, small_model
from support.models import noise
from support.paths import ROOT
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.exporters.selfcheck import model_selfcheck
from vit_zoo.formats import describe
from vit_zoo.formats.artifact import SELFCHECK as KEY
from vit_zoo.graph.options import GraphOptions
from vit_zoo.loading.from_module import of_module
from vit_zoo.parity.live import Live
from vit_zoo.parity.reference import ModelReference
from vit_zoo.self_check.document import LARGEST, LONGEST, SelfCheckDocument, schema
from vit_zoo.self_check.recipe import WEIGHTS, batches, hashed, places
from vit_zoo.self_check.write import RELATIVE, tolerance


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model = small_model("deit_ti16")
    (done,) = vit_zoo.export(model, "onnx", out=folder / "small.onnx", outputs=["logits", "pooler_output"])
    assert done.report.ok
    return model, done.path


def document_of(path) -> dict:
    return json.loads(describe(path).selfcheck)


def with_document(path, target, text):
    """A copy of a file with another self-check, or none."""
    model = onnx.load(path)
    entries = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    if text is not None:
        model.metadata_props.append(onnx.StringStringEntryProto(key=KEY, value=text))
    Path(target).write_bytes(model.SerializeToString())
    return Path(target)


def test_expected_values_are_the_models(exported):
    """Computed here in float64 by the torch model; other numbers of the document follow from `reduced`."""
    model, path = exported
    document = document_of(path)
    (images,) = batches(document["input"]["shape"], "float32")
    double = ModelReference(model, "model").double(images, ("logits", "pooler_output"))
    assert [output["name"] for output in document["outputs"]] == ["logits", "pooler_output"]
    for output in document["outputs"]:
        values = double[output["name"]]
        assert output["shape"] == list(values.shape)
        np.testing.assert_allclose(output["largest"], np.abs(values).max(axis=1), rtol=1e-8)
        np.testing.assert_allclose(output["norm"], np.linalg.norm(values, axis=1), rtol=1e-8)
    np.testing.assert_allclose(document["outputs"][0]["values"], double["logits"], rtol=1e-8)


def test_the_verdict(exported):
    _, path = exported
    result = vit_zoo.selfcheck(path, threads=1)
    assert result.ok
    assert [check.output for check in result.outputs] == ["logits", "pooler_output"]
    assert all(check.difference < check.allowed for check in result.outputs)
    assert not result.faults
    assert "CPUExecutionProvider" in result.runtime
    assert repr(result).startswith("<SelfCheck small.onnx: passed in onnxruntime ")


def test_one_changed_value_of_a_weight_is_found(exported, folder, cli):
    _, path = exported
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if t.name == "blocks.1.mlp.fc2.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3, 5] += 0.05
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    Path("changed.onnx").write_bytes(model.SerializeToString())
    result = vit_zoo.selfcheck("changed.onnx")
    assert not result.ok
    done = cli("selfcheck", "changed.onnx")
    assert done.code == 3
    assert done.err.startswith("vitzoo: error: changed.onnx: fails its self-check in onnxruntime ")
    assert "logits differs by" in done.out + done.err
    document = json.loads(cli("selfcheck", "changed.onnx", "--json").out)
    assert document["code"] == 3
    assert document["selfcheck"]["outputs"][0]["ok"] is False


def test_the_command(exported, cli):
    _, path = exported
    done = cli("selfcheck", path)
    assert done.code == 0
    assert f"{path} passes its self-check in onnxruntime" in done.out
    assert cli("selfcheck", path, "-v").out.count("\n") == 3
    assert cli("selfcheck", path, "-q").out == ""
    document = json.loads(cli("selfcheck", path, "--json", "--provider", "CPU", "--threads", "1").out)
    assert document["ok"] is True
    assert {output["output"] for output in document["outputs"]} == {"logits", "pooler_output"}
    shown = json.loads(cli("show", path, "--json").out)["selfcheck"]
    assert shown["outputs"][0]["tolerance"] == RELATIVE["fp32"]
    assert "self-check: " in cli("show", path).out


def test_no_torch_is_needed(exported):
    _, path = exported
    code = f"import sys, vit_zoo; assert vit_zoo.selfcheck({str(path)!r}).ok; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_at_the_end_of_the_file_and_small(kind, folder):
    (done,) = vit_zoo.export(small_model(kind), "onnx", out="a.onnx", verify="quick")
    text = describe(done.path).selfcheck
    assert len(text) <= LONGEST
    assert done.path.read_bytes().endswith(text.encode())
    assert onnx.load(done.path).metadata_props[-1].key == KEY
    SelfCheckDocument.model_validate_json(text)


def test_many_outputs_fit(folder):
    """Of inner outputs for which there is no room the names remain."""
    model = noise(vit_zoo.create("vit_ti16", depth=12, image_size=32, num_classes=7))
    outputs = ["logits", "pooler_output", "block.*", "attn.*", "block.*.map"]
    (done,) = vit_zoo.export(model, "onnx", out="a.onnx", outputs=outputs, verify="quick")
    document = document_of(done.path)
    names = [output["name"] for output in document["outputs"]]
    assert len(json.dumps(document, separators=(",", ":"))) <= LONGEST
    assert names[:2] == ["logits", "pooler_output"]
    assert len(names) > 8
    assert names + document["left_out"] == describe(done.path).export["outputs"]
    result = vit_zoo.selfcheck(done.path)
    assert result.ok
    assert list(result.left_out) == document["left_out"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8-dynamic"])
def test_equal_models_give_equal_files(precision, folder):
    for name in ("one", "two"):
        vit_zoo.export(small_model("deit_ti16"), "onnx", out=f"{name}.onnx", precision=precision, verify="quick")
    assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()


def test_files_beside_their_weights(folder):
    vit_zoo.save(small_model("deit_ti16"), "model")
    for placement in ("external", "shared"):
        (done,) = vit_zoo.export("model", placement=placement, out=f"model/{placement}.onnx")
        assert vit_zoo.selfcheck(done.path).ok
    weights = Path("model/external.onnx_data").read_bytes()
    Path("model/external.onnx_data").write_bytes(weights[:-64] + b"0" * 64)
    result = vit_zoo.selfcheck("model/external.onnx")
    assert not result.ok
    assert "was exported with another external.onnx_data" in result.faults[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_programs_run_by_the_caller(folder, cli):
    script, program = vit_zoo.export(small_model("deit_ti16"), ["torchscript", "pt2"])
    loaded = {script.path: torch.jit.load(script.path), program.path: torch.export.load(program.path).module()}
    for path, function in loaded.items():
        assert vit_zoo.selfcheck(path, run=lambda x, f=function: f(torch.from_numpy(x)).detach()).ok
        assert not vit_zoo.selfcheck(path, run=lambda x, f=function: f(torch.from_numpy(x).flip(1)).detach()).ok
        done = cli("selfcheck", path)
        assert done.code == 2
        assert "contain code, which is not run" in done.err
        assert "self-check: " in cli("show", path).out
        with pytest.raises(InputError, match="threads applies to onnxruntime"):
            vit_zoo.selfcheck(path, run=function, threads=1)


def test_what_a_function_may_return(exported):
    _, path = exported
    session = vit_zoo.open(path)
    both = session.run(next(batches((2, 3, 32, 48), "float32")))
    assert vit_zoo.selfcheck(path, run=lambda x: both).ok
    assert vit_zoo.selfcheck(path, run=lambda x: list(both.values())).ok
    assert vit_zoo.selfcheck(path, run=lambda x: both | {"more": 1}).ok
    with pytest.raises(InputError, match="returned 1 outputs; expected a mapping by name, or 2 in order"):
        vit_zoo.selfcheck(path, run=lambda x: both["logits"])
    missing = vit_zoo.selfcheck(path, run=lambda x: {"logits": both["logits"]})
    assert missing.faults == ("output 'pooler_output': expected shape [2, 48], got no such output",)
    cut = vit_zoo.selfcheck(path, run=lambda x: both | {"logits": both["logits"][:, :-1]})
    assert cut.faults == ("output 'logits': expected shape [2, 11], got [2, 10]",)
    for value in (np.nan, np.inf):
        wrong = both["logits"].copy()
        wrong[1, 3] = value
        result = vit_zoo.selfcheck(path, run=lambda x, wrong=wrong: both | {"logits": wrong})
        assert result.outputs[0].difference is None
        assert "logits is not finite" in result.summary()


def test_each_number_sees_what_the_others_do_not(folder):
    """Changes of two values that are not compared one by one: an exchange keeps the norm, a turn the weighted sum."""
    (done,) = vit_zoo.export(small_model("deit_ti16"), "onnx", out="a.onnx", outputs=["last_hidden_state"], verify="quick")
    right = vit_zoo.open(done.path).run(next(batches((2, 3, 32, 48), "float32")))["last_hidden_state"]
    count = right[0].size
    weights = (hashed(np.arange(count) + WEIGHTS) >> np.uint32(24)) / 128.0 - 1
    i, j = [place for place in range(count) if place not in places(count, 16)][:2]

    def changed(a, b):
        wrong = right.copy()
        wrong[1].reshape(-1)[[i, j]] = a, b
        (check,) = vit_zoo.selfcheck(done.path, run=lambda x: wrong).outputs
        assert check.image == "pattern"
        return check.ok, check.measure

    a, b = right[1].reshape(-1)[[i, j]]
    assert changed(a, b)[0]
    assert changed(b, a) == (False, "projection")
    assert changed(a + weights[j], b - weights[i]) == (False, "norm")


def test_another_tolerance(exported, folder, cli):
    """A file that another tool has rounded, or a device of another precision."""
    _, path = exported
    session = vit_zoo.open(path)

    def half(x):
        return {name: value.astype(np.float16) for name, value in session.run(x).items()}

    assert not vit_zoo.selfcheck(path, run=half).ok
    assert vit_zoo.selfcheck(path, run=half, tolerance=1e-3).ok
    assert cli("selfcheck", path, "--tolerance", "1e-9").code == 3
    for bad in (0, 1, float("nan")):
        assert cli("selfcheck", path, "--tolerance", bad).code == 2
        with pytest.raises(InputError, match="tolerance must be above 0 and below 1"):
            vit_zoo.selfcheck(path, tolerance=bad)


def test_bad_requests(exported, folder, cli):
    _, path = exported
    shutil.copy(path, "small.onnx")
    assert cli("selfcheck", "nothing.onnx").code == 2
    assert cli("selfcheck", ".").code == 2
    done = cli("selfcheck", "small.onnx", "--provider", "nothing")
    assert done.code == 2
    assert "no execution provider 'nothing' here; choose from" in done.err
    Path("text.onnx").write_text("nothing")
    assert cli("selfcheck", "text.onnx").code == 7
    without = with_document("small.onnx", "without.onnx", None)
    done = cli("selfcheck", without)
    assert done.code == 7
    assert "has no self-check" in done.err
    assert cli("verify", without, "-q").code == 0, "a file of an earlier version"


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_onnxruntime_replaces_by_the_cpu(exported, monkeypatch):
    """As where a package for a device is installed and its driver is not: onnxruntime only warns."""
    _, path = exported
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(InputError, match="onnxruntime cannot use the provider 'CUDAExecutionProvider' on this machine"):
        vit_zoo.open(path, providers=["CUDAExecutionProvider"], isolated=False)


BAD = {
    "not JSON": "{",
    "a list": "[]",
    "too long": json.dumps({"version": 1, "more": "x" * LONGEST}),
    "a newer version": {"version": 2},
    "no outputs": {"outputs": []},
    "no input": {"input": None},
    "a huge input": {"input": {"name": "pixel_values", "type": "float32", "layout": "NCHW", "shape": [2, 3, 100_000, 100_000]}},
    "another type": {"input": {"name": "pixel_values", "type": "int64", "layout": "NCHW", "shape": [2, 3, 32, 48]}},
    "three axes": {"input": {"name": "pixel_values", "type": "float32", "layout": "NCHW", "shape": [2, 3, 32]}},
    "raw images in NCHW": {"input": {"name": "pixel_values", "type": "uint8", "layout": "NCHW", "shape": [2, 3, 32, 48]}},
}
BAD_OUTPUTS = {
    "infinity": {"norm": [1e400, 1.0]},
    "a tolerance of anything": {"tolerance": 5.0},
    "no tolerance": {"tolerance": None},
    "more values than there are": {"shape": [2, 3]},
    "unequal values": {"values": [[1.0], [1.0, 2.0]]},
    "a huge output": {"shape": [2, 1_000_000, 1_000_000]},
    "a negative length": {"shape": [2, -1]},
    "text for numbers": {"norm": ["a", "b"]},
}


@pytest.mark.parametrize("fault", [*BAD, *BAD_OUTPUTS])
def test_a_bad_document_is_refused(fault, exported, folder, cli):
    _, path = exported
    document = document_of(path)
    if fault in BAD_OUTPUTS:
        document["outputs"][0] |= BAD_OUTPUTS[fault]
    elif isinstance(BAD[fault], dict):
        document |= BAD[fault]
    text = BAD[fault] if isinstance(BAD.get(fault), str) else json.dumps(document)
    bad = with_document(path, "bad.onnx", text)
    with pytest.raises(RefusedContent, match=KEY):
        vit_zoo.selfcheck(bad)
    assert cli("selfcheck", bad).code == 7
    assert cli("show", bad).code == 0
    assert cli("verify", bad, "-q").code == 3, "the proof that the file carries is damaged"


def test_fields_of_a_newer_version_are_ignored(exported, folder):
    _, path = exported
    document = document_of(path)
    document["device"], document["outputs"][0]["bits"] = {"name": "npu"}, 8
    assert vit_zoo.selfcheck(with_document(path, "newer.onnx", json.dumps(document))).ok


def test_a_document_of_another_input_fails(exported, folder):
    _, path = exported
    document = document_of(path)
    document["input"]["shape"] = [2, 3, 48, 32]
    result = vit_zoo.selfcheck(with_document(path, "other.onnx", json.dumps(document)))
    assert not result.ok
    assert "cannot be run: expected images of shape" in result.faults[0]


def test_weights_that_are_not_finite_have_no_self_check():
    model = small_model("deit_ti16")
    with torch.no_grad():
        model.head.bias[0] = torch.inf
    source = of_module(model, check=False)
    assert model_selfcheck(Live(source), ("logits",)) is None
    assert model_selfcheck(Live(source), ("pooler_output",)) is not None


def test_a_file_that_was_not_verified_has_no_self_check(folder, cli):
    """And torch is not imported: hosts without it can write files."""
    vit_zoo.save(small_model("deit_ti16"), "model")
    code = "import sys, vit_zoo; vit_zoo.export('model', out='a.onnx', verify=False); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    done = cli("selfcheck", "a.onnx")
    assert done.code == 7
    assert "has no self-check (it was exported with --verify off)" in done.err


def test_a_batch_that_no_checker_can_hold_has_no_self_check():
    live = Live(of_module(small_model("deit_ti16"), check=False))
    largest = LARGEST // (3 * 32 * 48)
    assert model_selfcheck(live, ("logits",), GraphOptions(batch=largest)).input.shape[0] == largest
    assert model_selfcheck(live, ("logits",), GraphOptions(batch=largest + 1)) is None


def test_the_tolerance():
    assert tolerance("fp32", 3e-7) == 5e-6
    assert tolerance("fp32", 2e-6) == 1e-5
    assert tolerance("fp32", 2.6e-6) == 1e-4
    assert tolerance("fp32", 1.0) == 2e-2
    assert tolerance("fp16", 2e-6) == 5e-3


def test_the_schema_is_that_of_the_docs():
    assert (ROOT / "docs" / "selfcheck.schema.json").read_text() == schema()
