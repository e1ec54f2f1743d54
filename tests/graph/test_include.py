"""Tests of preprocessing and softmax inside an ONNX file, against Pillow and torch, and of the operators onnxruntime runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image

import vit_zoo
from support.models import SMALL, noise
from support.paths import ROOT
from vit_zoo.errors import CheckFailed, InputError
from vit_zoo.graph import preprocess
from vit_zoo.graph.build import to_proto
from vit_zoo.graph.options import GraphOptions
from vit_zoo.graph.values import UINT8, Value
from vit_zoo.model.preprocess import Preprocess

RGB = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
ODD = ((301, 225), (97, 161), (1, 50), (640, 333), (1000, 333), (900, 301), (60, 90), (50, 66), (31, 640))
DOWN, FLOATS = {"crop_rounding": "down"}, {"resize_dtype": "float32"}
CROPS = {"squashed": None, "shorter edge": 76, "squashed, then cropped": (61, 71)}


def _model(**preprocess):
    model = noise(vit_zoo.create("vit_b16", **SMALL), scale=0.15)
    how = {"size": SMALL["image_size"], "resize_to": 53, "interpolation": "bicubic", **RGB}
    model.config = model.config.replace(preprocess=Preprocess(**{**how, **preprocess}), random_seed=None)
    return model


def _session(how, form):
    """A session of the preprocessing alone."""
    op = preprocess.GraphBuilder({}, form.opset)
    given = preprocess.add_preprocessing(op, how, form, "pixel_values")
    made = Value("pixel_values", ("batch", len(how.mean), *how.size))
    return ort.InferenceSession(to_proto(op, {given: UINT8}, {made.name: made}, form.opset).SerializeToString())


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("include", "opset"), [("preprocess-exact", 17), ("preprocess-exact", 23), ("preprocess", 18), ("preprocess", 23)]
)
def test_pixels_match_pillow(include, opset, interpolation, crop):
    """Noise and smooth images of odd sizes, two at a time."""
    how = Preprocess(size=(50, 66), resize_to=CROPS[crop], interpolation=interpolation, **RGB)
    session = _session(how, GraphOptions(opset=opset, include=include))
    random, worst, off, count = np.random.default_rng(0), 0.0, 0, 0
    for h, w in ODD:
        small = Image.fromarray(random.integers(0, 256, (9, 7, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((w, h), Image.Resampling.BICUBIC))
        x = np.stack([random.integers(0, 256, (h, w, 3), dtype=np.uint8), smooth])
        (given,) = session.run(None, {"image": x})
        wanted = np.stack([how(Image.fromarray(image)) for image in x])
        apart = np.abs(given - wanted) * 255 * np.reshape(how.std, (-1, 1, 1))
        worst, off, count = max(worst, apart.max()), off + (apart > 0.5).sum(), count + apart.size
    if include == "preprocess-exact":
        assert worst < 1e-3, "in levels"
    else:
        assert worst < 2.5
        assert off / count <= 0.005


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(("include", "opset"), [("preprocess-exact", 17), ("preprocess", 18)])
@pytest.mark.parametrize("rounding", [DOWN, FLOATS, DOWN | FLOATS], ids=str)
def test_pixels_match_pillow_with_transformers_rounding(include, opset, rounding, crop):
    """The crop of transformers, and the resize of floats, which the default variant computes as exactly as the other."""
    how = Preprocess(size=(50, 66), resize_to=CROPS[crop], interpolation="bicubic", **RGB, **rounding)
    session = _session(how, GraphOptions(opset=opset, include=include))
    random, worst, off, count = np.random.default_rng(0), 0.0, 0, 0
    for h, w in (*ODD, (76, 101), (129, 76), (53, 54)):
        x = random.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
        (given,) = session.run(None, {"image": x})
        wanted = np.stack([how(Image.fromarray(image)) for image in x])
        apart = np.abs(given - wanted) * 255 * np.reshape(how.std, (-1, 1, 1))
        worst, off, count = max(worst, apart.max()), off + (apart > 0.5).sum(), count + apart.size
    if include == "preprocess-exact" or "resize_dtype" in rounding:
        assert worst < 0.02, "in levels"
    else:
        assert worst < 2.5
        assert off / count <= 0.005


@pytest.mark.parametrize("include", ["preprocess", "preprocess-exact"])
@pytest.mark.parametrize("rounding", [DOWN, DOWN | FLOATS], ids=str)
def test_the_wrong_rounding_is_found(folder, monkeypatch, include, rounding):
    """A file that prepares images with timm's rounding while its config states another is rejected."""
    model = _model(resize_to=60, **rounding)
    (done,) = vit_zoo.export(model, "onnx", out="right.onnx", include=[include])
    assert done.report.preparation.ok
    original = preprocess.add_preprocessing
    monkeypatch.setattr("vit_zoo.graph.build.add_preprocessing", lambda g, how, *rest: original(g, how.with_defaults(), *rest))
    with pytest.raises(CheckFailed, match=include):
        vit_zoo.export(model, "onnx", out="wrong.onnx", include=[include])


@pytest.mark.parametrize("include", ["preprocess", "preprocess-exact"])
@pytest.mark.parametrize("form", [{}, {"opset": 23}, {"precision": "fp16"}, {"placement": "external"}], ids=str)
def test_a_file_that_takes_images(folder, include, form):
    """Outputs match the model's on images that Pillow prepared, for any size and batch, alone and against the model."""
    model = _model()
    (done,) = vit_zoo.export(model, "onnx", out="a.onnx", include=[include], **form)
    found = done.report.preparation
    assert (found.form, found.ok, found.images) == (include, True, 6)
    assert {c.size for c in done.report.comparisons} == {(43, 93), (137, 61), (19, 21)}
    image = onnx.load("a.onnx", load_external_data=False).graph.input[0]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    full = vit_zoo.verify("a.onnx", effort="full", blocks=True)
    assert full.ok
    assert full.skipped == ()
    assert len(full.blocks) == SMALL["depth"]
    x = np.random.default_rng(1).integers(0, 256, (3, 77, 131, 3), dtype=np.uint8)
    given = vit_zoo.open("a.onnx").run(x)["logits"]
    with torch.inference_mode():
        wanted = model(torch.from_numpy(np.stack([model.config.preprocess(Image.fromarray(image)) for image in x]))).numpy()
    allowed = 2e-5 if include == "preprocess-exact" and "precision" not in form else 0.02
    assert np.abs(given - wanted).max() <= allowed * np.abs(wanted).max()


def test_one_channel(folder):
    model = noise(vit_zoo.create("vit_b16", **SMALL, channels=1), scale=0.15)
    how = Preprocess(size=SMALL["image_size"], resize_to=53, interpolation="bilinear", mean=(0.4,), std=(0.2,))
    model.config = model.config.replace(preprocess=how, random_seed=None)
    for include in ("preprocess", "preprocess-exact"):
        (done,) = vit_zoo.export(model, "onnx", out="a.onnx", include=[include])
        assert done.report.preparation.ok
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (71, 94), dtype=np.uint8))
        image.save("grey.png")
        given, wanted = vit_zoo.predict("a.onnx", "grey.png", top=11)[0], vit_zoo.predict(model, "grey.png", top=11)[0]
        assert given.labels[0] == wanted.labels[0]
        np.testing.assert_allclose(given.probabilities[0], wanted.probabilities[0], rtol=0.02)


def test_predict_passes_images_unprepared(folder):
    """Images of two sizes."""
    digit = ROOT / "zoo" / "vit_digits" / "samples" / "digit_7.png"
    Image.open(digit).resize((31, 45), Image.Resampling.BICUBIC).save("large.png")
    for include in (["preprocess-exact"], ["preprocess-exact", "softmax"]):
        (done,) = vit_zoo.export("vit_digits", "onnx", include=include)
        for mine, plain in zip(
            vit_zoo.predict(done.path, [digit, "large.png"]), vit_zoo.predict("vit_digits", [digit, "large.png"]), strict=True
        ):
            assert mine.labels == plain.labels
            np.testing.assert_allclose(mine.probabilities, plain.probabilities, rtol=1e-4)


def test_an_image_that_is_too_narrow_is_refused(folder):
    """It would be resized to a hundred thousand columns: the error names it, as without the preprocessing inside."""
    Image.new("RGB", (2000, 1)).save("narrow.png")
    vit_zoo.export(_model(), "onnx", out="a.onnx", include=["preprocess"])
    for model in (_model(), "a.onnx"):
        with pytest.raises(InputError, match=r"narrow.png: image of 2000x1 is too narrow to resize to 53"):
            vit_zoo.predict(model, "narrow.png")


@pytest.mark.parametrize("include", ["preprocess", "preprocess-exact"])
def test_planted_faults_of_preprocessing(folder, monkeypatch, include):
    """Each moves pixels too far from Pillow's: exit code 3, and the file is set aside."""
    cubic, order, offset = preprocess.CUBIC, preprocess._vertical_first, preprocess._offset
    plants = [
        ("CUBIC", -0.75),
        ("_offset", lambda op, scaled, size: op.node("Add", offset(op, scaled, size), op.ints(1, 0))),
        ("_scaled", lambda op, given, how: op.ints(53, 79)),
    ]
    if include == "preprocess-exact":
        plants += [
            ("_vertical_first", lambda op, given, scaled: op.node("Not", order(op, given, scaled))),
            ("UNIT", 2.0**-7),
            ("_levels", lambda op, x: op.node("Mul", x, op.double(preprocess.UNIT))),
        ]
    for name, planted in plants:
        with monkeypatch.context() as patch:
            patch.setattr(preprocess, name, planted)
            with pytest.raises(CheckFailed, match="preprocess"):
                vit_zoo.export(_model(), "onnx", out="a.onnx", include=[include])
        assert Path("a.onnx.rejected").exists(), name
        assert not Path("a.onnx").exists()
        Path("a.onnx.rejected").unlink()
    assert cubic == preprocess.CUBIC


def test_wrong_normalisation_is_found(folder):
    """The constants of a finished file are changed."""
    vit_zoo.export(_model(), "onnx", out="a.onnx", include=["preprocess"])
    proto = onnx.load("a.onnx")
    means = next(t for t in proto.graph.initializer if list(t.dims) == [3] and t.data_type == onnx.TensorProto.FLOAT)
    values = onnx.numpy_helper.to_array(means) * np.float32(1.05)
    means.CopyFrom(onnx.numpy_helper.from_array(values, means.name))
    onnx.save(proto, "a.onnx")
    report = vit_zoo.verify("a.onnx")
    assert not report.ok
    assert report.faults[0].startswith("preprocess: pixels (")


def test_a_fault_of_the_model_is_located(folder):
    """The report names the block, although the file takes images and the model takes tensors."""
    vit_zoo.export(_model(), "onnx", out="a.onnx", include=["preprocess"])
    proto = onnx.load("a.onnx")
    gelu = [node for node in proto.graph.node if node.op_type == "Gelu"]
    gelu[1].attribute[0].s = b"tanh"
    onnx.save(proto, "a.onnx")
    report = vit_zoo.verify("a.onnx")
    assert not report.ok
    assert report.parting.block == 1


@pytest.mark.parametrize("to", ["onnx", "torchscript", "pt2"])
def test_softmax(folder, to):
    model = _model()
    (done,) = vit_zoo.export(model, to, include=["softmax"], outputs=["logits", "pooler_output"])
    assert done.report.ok
    x = torch.randn(2, 3, *SMALL["image_size"])
    with torch.inference_mode():
        wanted = torch.softmax(model(x).double(), -1).numpy()
    if to == "onnx":
        found = vit_zoo.open(done.path).run(x.numpy())
        assert list(found) == ["probabilities", "pooler_output"]
        np.testing.assert_allclose(found["probabilities"], wanted, rtol=1e-4)


def test_softmax_over_the_wrong_axis_fails(folder):
    vit_zoo.export(_model(), "onnx", out="a.onnx", include=["softmax"])
    proto = onnx.load("a.onnx")
    last = next(node for node in proto.graph.node if "probabilities" in node.output)
    last.attribute[0].i = 0
    onnx.save(proto, "a.onnx")
    assert not vit_zoo.verify("a.onnx").ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["resize"]}, "cannot include 'resize'; choose from softmax, sigmoid, preprocess, preprocess-exact"),
        ({"include": ["preprocess", "preprocess-exact"]}, "cannot include both preprocess and preprocess-exact"),
        ({"include": ["preprocess"], "opset": 17}, "'preprocess' needs opset 18 or later"),
        ({"include": ["preprocess"], "to": ["onnx", "pt2"]}, "apply to ONNX only"),
        ({"include": ["preprocess"], "precision": "int8-weights"}, "int8 files cannot include preprocessing"),
        (
            {"include": ["softmax"], "outputs": ["pooler_output"]},
            "include='softmax' needs the output 'logits'; the outputs are pooler_output",
        ),
        ({"include": ["preprocess"], "model": "plain"}, "the config has no preprocessing"),
    ],
)
def test_unsupported_includes_are_refused(folder, options, message):
    model = _model()
    if options.pop("model", None):
        model.config = model.config.replace(preprocess=None)
    with pytest.raises(InputError, match=message):
        vit_zoo.export(model, **options)
    assert list(Path().iterdir()) == []


def test_the_command_line(folder, cli):
    code, out, _ = cli("export", "vit_digits", "--onnx", "--include", "preprocess", "--include", "softmax")
    assert code == 0
    assert "pixels differ from Pillow's by up to " in out
    code, _, err = cli("export", "vit_digits", "--onnx", "--include", "nothing")
    assert code == 2
    assert "choose from softmax, sigmoid, preprocess, preprocess-exact" in err
    code, out, _ = cli("verify", "vit_digits.onnx", "--full")
    assert code == 0
    assert "onnxruntime runs" in out


def test_operators_that_onnxruntime_runs(folder, cli):
    """`verify --full` lists the operators after onnxruntime's optimiser: a fused scaled product is one operator."""
    vit_zoo.export(_model(), "onnx", out="a.onnx")
    assert vit_zoo.verify("a.onnx").fusion == ()
    found = {o.operator: o for o in vit_zoo.verify("a.onnx", effort="full").fusion}
    layers = 1 + 6 * SMALL["depth"] + 1  # patches, blocks, the head
    assert found["Gemm"].count == layers
    assert sum(name.startswith("Fused") for name in found) == 1
    assert found["Gelu"].count == SMALL["depth"]
    assert all(o.milliseconds > 0 for o in found.values())
    assert sum(o.share for o in found.values()) == pytest.approx(1, abs=0.01)
    code, out, _ = cli("verify", "a.onnx", "--full", "--json")
    assert code == 0
    assert len(json.loads(out)["fusion"]) == len(found)
