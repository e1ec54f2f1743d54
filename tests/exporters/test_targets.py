"""Tests of the names of exported files, of several files in one call, and of what an export does not replace by surprise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.errors import CannotWrite, CheckFailed, InputError
from vit_zoo.formats import describe
from vit_zoo.graph.options import PRECISIONS

NAMES = {
    "fp32": "small.onnx", "fp16": "small_fp16.onnx", "bf16": "small_bf16.onnx", "int8-static": "small_int8.onnx",
    "int8-dynamic": "small_int8_dynamic.onnx", "int8-weights": "small_int8_weights.onnx",
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a small noised model, called `small`."""
    model = noise(vit_zoo.create("vit_b16", **SMALL))
    model.config = model.config.replace(name="small", labels=tuple("abcdefghijk"), source="a test")
    return vit_zoo.save(model, tmp_path_factory.mktemp("targets") / "small")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 16 small images."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(16):
        image = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((60, 44), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:02}.png")
    return folder


def test_every_precision_has_a_name_of_its_own(saved, photos, folder):
    done = vit_zoo.export(saved, ["onnx", "torchscript"], precision=PRECISIONS, calibrate=photos, verify="quick")
    assert [each.path.name for each in done] == [*NAMES.values(), "small.torchscript.pt"]
    assert all(each.report.ok for each in done)
    for precision, name in NAMES.items():
        assert describe(name).export.get("precision", "fp32") == precision
        assert describe(name).config.labels == tuple("abcdefghijk")
    images = np.random.default_rng(1).normal(size=(2, 3, 32, 48)).astype(np.float32)
    found = {name: ort.InferenceSession(name).run(None, {"pixel_values": images})[0] for name in NAMES.values()}
    with torch.inference_mode():
        wanted = vit_zoo.load(saved)(torch.from_numpy(images)).numpy()
    assert {name for name, logits in found.items() if np.array_equal(logits, found["small.onnx"])} == {"small.onnx"}
    for logits in found.values():
        assert np.abs(logits - wanted).max() < 0.1 * np.abs(wanted).max()


def test_precisions_on_the_command_line(saved, photos, folder, cli):
    arguments = ("export", saved, "--onnx", "--pt2", "--precision", "fp32,int8-static", "--bf16", "--calibrate", photos)
    code, out, err = cli(*arguments, "--verify", "off")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["small.onnx", "small_int8.onnx", "small_bf16.onnx", "small.pt2"]


@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic"])
def test_one_other_precision_leaves_the_float_file(precision, saved, folder):
    vit_zoo.export(saved, verify=False)
    before = Path("small.onnx").read_bytes()
    (done,) = vit_zoo.export(saved, precision=precision, verify=False)
    assert done.path.name == NAMES[precision]
    assert Path("small.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"precision": ["fp32", "fp16"], "out": "one.onnx"}, "not a folder; several files need one"),
        ({"precision": ["fp32", "int4"]}, "unknown precision 'int4'"),
        ({"precision": []}, "no precision given"),
        ({"precision": ["fp32", "fp16"], "placement": "shared"}, "needs float32"),
        ({"precision": ["fp32", "int8-static"]}, "needs images for calibration"),
        ({"precision": ["fp32", "fp16"], "to": "pt2"}, "apply to ONNX only"),
        ({"precision": ["fp32", "int8-weights"], "calibrate": "."}, "need no calibration"),
        ({"precision": ["fp32", "int8-weights"], "include": ["preprocess"]}, "calibrated on prepared images"),
    ],
)
def test_precisions_that_do_not_fit(given, fault, saved, folder):
    with pytest.raises(InputError, match=fault):
        vit_zoo.export(saved, **{"verify": False, **given})
    assert not list(folder.iterdir())


def as_other_library(saved, path):
    vit_zoo.convert(saved, path, "timm" if path.suffix else "hf")
    return path


@pytest.mark.parametrize(
    ("path", "given", "name"),
    [
        ("my_cats", "my_cats", "my_cats"),  # a folder in the layout of transformers
        ("my_cats/model.safetensors", "my_cats/model.safetensors", "my_cats"),
        ("runs/7/pytorch_model.bin", "runs/7/pytorch_model.bin", "7"),
        ("runs/open_clip_model.safetensors", "runs", "runs"),
        ("cats/checkpoint.pth", "cats", "cats"),
        ("cats/best.pth", "cats", "best"),
        ("cats/best.pth", "cats/best.pth", "best"),
        ("hub/models--me--vit-cats/snapshots/0a1b2c/model.safetensors", "hub/models--me--vit-cats/snapshots/0a1b2c", "vit-cats"),
        ("cats/日本.pth", "cats/日本.pth", "model"),
    ],
)  # fmt: skip
def test_a_model_is_named_after_its_folder(path, given, name, saved, folder):
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    as_other_library(saved, target)
    (done,) = vit_zoo.export(given, verify=False, heads=3, image_size=(32, 48))
    assert (done.config.name, done.path.name) == (name, f"{name}.onnx")


def test_a_generic_name_in_the_current_folder(saved, folder, monkeypatch):
    (folder / "dogs").mkdir()
    as_other_library(saved, folder / "dogs" / "model.safetensors")
    monkeypatch.chdir(folder / "dogs")
    for given in ("model.safetensors", ".", "../dogs/../dogs"):
        (done,) = vit_zoo.export(given, verify=False, heads=3, image_size=(32, 48))
        assert done.path.name == "dogs.onnx"


def other(saved, name="small", **changes):
    """The same model with another description."""
    model = vit_zoo.load(saved)
    model.config = model.config.replace(name=name, **changes)
    return model


OTHERS = {
    "holds another model, other": lambda saved: other(saved, "other"),
    "holds a model with num_classes = 5, not 11": lambda saved: vit_zoo.load(vit_zoo.save(smaller(saved), "five")),
    "holds weights of elsewhere, not of a test": lambda saved: other(saved, source="elsewhere"),
}


def smaller(saved):
    model = vit_zoo.load(saved)
    model.set_head(5)
    return model


@pytest.mark.parametrize("cause", OTHERS)
def test_a_file_of_another_model_is_not_replaced(cause, saved, folder):
    vit_zoo.export(OTHERS[cause](saved), out="m.onnx", verify=False)
    before = Path("m.onnx").read_bytes()
    with pytest.raises(CannotWrite, match=rf"m\.onnx: already exists, and {cause} \(force=True replaces it\)"):
        vit_zoo.export(saved, out="m.onnx", verify=False)
    assert Path("m.onnx").read_bytes() == before
    vit_zoo.export(saved, out="m.onnx", verify=False, force=True)
    assert describe("m.onnx").config.name == "small"
    assert describe("m.onnx").config.source == "a test"


def test_a_file_of_another_tool_is_not_replaced(saved, folder, cli):
    for name in ("small.onnx", "small.torchscript.pt"):
        Path(name).write_text("mine")
    code, _, err = cli("export", saved, "--onnx", "--torchscript", "--verify", "off")
    assert code == 8
    assert err == "vitzoo: error: small.onnx: already exists, and it was not written by vitzoo (--force replaces it)\n"
    assert cli("export", saved, "--onnx", "--torchscript", "--verify", "off", "--force").code == 0
    assert describe("small.torchscript.pt").config.name == "small"


def test_every_target_is_checked_before_the_first_is_written(saved, folder):
    Path("small_fp16.onnx").write_text("mine")
    with pytest.raises(CannotWrite, match=r"small_fp16\.onnx"):
        vit_zoo.export(saved, precision=["fp32", "fp16"], verify=False)
    assert [path.name for path in folder.iterdir()] == ["small_fp16.onnx"]


@pytest.mark.parametrize("format_", ["onnx", "torchscript", "pt2"])
def test_an_earlier_export_of_the_same_model_is_replaced(format_, saved, folder):
    model = vit_zoo.load(saved)
    (done,) = vit_zoo.export(model, format_, verify=False)
    before = done.path.read_bytes()
    with torch.no_grad():
        model.head.bias += 1  # trained further
    vit_zoo.export(model, format_, verify=False)
    assert done.path.read_bytes() != before


def test_trained_weights_are_not_replaced_by_random_ones(folder):
    model = vit_zoo.create("vit_b16", **SMALL)
    vit_zoo.export(model, out="m.onnx", verify=False)
    noise(model)  # from random weights to trained ones
    vit_zoo.export(model, out="m.onnx", verify=False)
    with pytest.raises(CannotWrite, match="holds trained weights, not random ones"):
        vit_zoo.export("vit_b16", out="m.onnx", verify=False, random=True, **SMALL)


def test_the_data_file_is_checked_too(saved, folder):
    Path("small.onnx_data").write_text("mine")
    with pytest.raises(CannotWrite, match=r"small\.onnx_data: already exists, and does not belong to an earlier export"):
        vit_zoo.export(saved, placement="external", verify=False)
    assert Path("small.onnx_data").read_text() == "mine"
    vit_zoo.export(saved, verify=False)  # inline: the other file is not touched
    Path("small.onnx").unlink()
    vit_zoo.export(saved, placement="external", verify=False, force=True)
    vit_zoo.export(saved, placement="external", verify=False)  # its own
    with pytest.raises(CannotWrite, match="holds another model"):
        vit_zoo.export(other(saved, "other"), out="small.onnx", placement="external", verify=False)


def test_a_shared_file_keeps_its_name(saved, folder):
    shutil.copytree(saved, "mine")
    (done,) = vit_zoo.export("mine", placement="shared", verify=False)
    assert done.path.as_posix() == "mine/model.onnx"
    (again,) = vit_zoo.export("mine", placement="shared", verify=False)
    assert again.path == done.path


def test_several_int8_files_in_a_folder_are_published_as_one(saved, photos, folder):
    shutil.copytree(saved, "mine")
    vit_zoo.export("mine", out="mine", precision=["int8-static", "int8-dynamic"], calibrate=photos, verify="quick")
    done = vit_zoo.publish("mine", "me/small", dry_run="staged", without=["fp32", "fp16"], licence="mit")
    assert done.unsent == ("small_int8_dynamic.onnx: another int8 file is onnx/model_quantized.onnx",)
    assert describe("staged/onnx/model_quantized.onnx").export["precision"] == "int8-static"
    with pytest.raises(CheckFailed, match="exported with other labels than the model's"):
        vit_zoo.publish("mine", "me/small", dry_run="again", without=["fp32", "fp16"], licence="mit", labels=list("ABCDEFGHIJK"))


def test_a_publication_states_labels_and_preprocessing(saved, folder, caplog):
    bare = other(saved, labels=None, preprocess=None, licence="mit")
    vit_zoo.publish(bare, "me/small", dry_run="bare", without=["fp32", "fp16", "int8"], preprocess="half")
    assert "the classes of small have no names, and clients show LABEL_0, ...; labels='FILE' states them" in caplog.text
    caplog.clear()
    stated = {"labels": list("ABCDEFGHIJK"), "preprocess": "half"}
    vit_zoo.publish(bare, "me/small", dry_run="named", without=["fp32", "fp16", "int8"], **stated)
    assert "no names" not in caplog.text
    assert json.loads(Path("named/config.json").read_text())["id2label"]["10"] == "K"
