"""Tests of the images that predict takes: files, folders, and Pillow images, arrays and tensors in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.model.preprocess import Preprocess

HOW = Preprocess(size=(32, 48), resize_to=None, interpolation="bilinear", mean=(0.5,) * 3, std=(0.4,) * 3)


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    made = noise(vit_zoo.create("vit_b16", **{**SMALL, "depth": 1}), scale=0.15)
    made.config = made.config.replace(name="ours", preprocess=HOW)
    return made


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    (done,) = vit_zoo.export(model, out=tmp_path_factory.mktemp("exported") / "ours.onnx", verify=False)
    return done.path


@pytest.fixture
def images(folder):
    """Four image files: two at the top, two in a subfolder, and files that are none."""
    Path("images/more").mkdir(parents=True)
    names = ["images/a.png", "images/b.png", "images/more/c.png", "images/more/d.png"]
    for i, name in enumerate(names):
        Image.fromarray(pixels(i)).save(name)
    Path("images/notes.txt").write_text("no image")
    return names


def scores(predictions):
    return [dict(zip(p.labels, np.round(p.scores, 5), strict=True)) for p in predictions]


def test_every_kind_of_image_gives_the_same_prediction(model, exported, images):
    expected = vit_zoo.predict(exported, images, top=11)
    assert [p.file for p in expected] == images
    opened = vit_zoo.open(exported)
    arrays = [pixels(i) for i in range(4)]
    tensors = [torch.from_numpy(x).permute(2, 0, 1) for x in arrays]
    kinds = {
        "folder": "images",
        "path of a folder": Path("images"),
        "Pillow": [Image.fromarray(x) for x in arrays],
        "arrays": arrays,
        "batch": np.stack(arrays),
        "tensors": tensors,
        "batch of tensors": torch.stack(tensors),
        "mixed": [images[0], arrays[1], (Image.fromarray(arrays[2]), tensors[3])],
        "generator": (x for x in arrays),
    }
    for kind, given in kinds.items():
        predictions = opened.predict(given, top=11)
        assert scores(predictions) == scores(expected), kind
    assert scores(vit_zoo.predict(model, arrays, top=11)) == scores(expected)
    assert [p.file for p in opened.predict(kinds["mixed"])] == [images[0], "image 1", "image 2", "image 3"]
    assert [p.file for p in opened.predict([Image.open(images[2]), arrays[0]])] == [images[2], "image 1"]
    assert len(opened.predict(arrays[0])[0].labels) == 5


def test_pillow_images_are_seen_as_files_are(exported, folder):
    """Upright, on white, in 8 bits; a single frame."""
    sideways = Image.fromarray(pixels(0))
    exif = sideways.getexif()
    exif[0x0112] = 6
    sideways.save("turned.png", exif=exif)
    transparent = Image.fromarray(np.dstack([pixels(1), pixels(2)[..., 0]]))
    transparent.save("transparent.png")
    deep = Image.fromarray(pixels(3)[..., 0].astype(np.uint16) * 257)
    deep.save("deep.png")
    opened = vit_zoo.open(exported)
    for name in ("turned.png", "transparent.png", "deep.png"):
        assert scores(opened.predict(Image.open(name))) == scores(opened.predict(name))
    assert scores(opened.predict(np.asarray(transparent))) == scores(opened.predict("transparent.png"))
    grey = pixels(4)[..., 0]
    expected = scores(opened.predict(np.stack([grey] * 3, axis=-1)))
    assert scores(opened.predict([grey, grey[..., None], torch.from_numpy(grey)])) == expected * 3
    Image.fromarray(pixels(0)).save("moving.gif", save_all=True, append_images=[Image.fromarray(pixels(1))])
    with Image.open("moving.gif") as moving, pytest.raises(RefusedContent, match="is an animation"):
        opened.predict(moving)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((20, 30, 3), np.float32), "image 0: expected pixels from 0 to 255 as uint8, got float32"),
        (torch.zeros(3, 20, 30), "got float32"),
        (torch.zeros(3, 20, 30, dtype=torch.bfloat16), "got bfloat16"),
        ([np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30, 3), np.int64)], "image 1: .* got int64"),
        (np.zeros((3, 20, 30), np.uint8), r"expected shape \[height, width, channels\]"),
        (torch.zeros(20, 30, 3, dtype=torch.uint8), r"expected shape \[channels, height, width\].* got \[20, 30, 3\]"),
        (np.zeros((0, 30, 3), np.uint8), "expected shape"),
        (7, "expected an image, got int"),
        ({"image": "a.png"}, "expected an image, got dict"),
        (b"a.png", "expected an image, got bytes"),
        ([], "no images given"),
        (".", "contains no images"),
    ],
)
def test_what_is_no_image_is_an_error_of_one_line(exported, folder, given, message):
    with pytest.raises(InputError, match=message):
        vit_zoo.predict(exported, given)


def test_an_opened_file_keeps_its_session(exported, monkeypatch):
    opened = vit_zoo.open(exported)
    monkeypatch.setattr(ort, "InferenceSession", None)  # a new one would fail
    assert scores(opened.predict(pixels(0))) == scores(vit_zoo.predict(opened, pixels(0)))
    with pytest.raises(InputError, match="threads applies to ONNX files only"):
        vit_zoo.predict(opened, pixels(0), threads=2)


def test_a_model_keeps_its_mode_and_its_weights(model):
    model.train()
    model.blocks[0].eval()
    before = {name: part.training for name, part in model.named_modules()}
    vit_zoo.predict(model, pixels(0))
    assert {name: part.training for name, part in model.named_modules()} == before
    model.eval()
    with pytest.raises(InputError, match="cannot set heads: the model has its own config"):
        vit_zoo.predict(model, pixels(0), heads=3)


def test_facts_of_an_exported_file(exported):
    labels = [f"name {i}" for i in range(11)]
    (found,) = vit_zoo.predict(exported, pixels(0), labels=labels)
    (without,) = vit_zoo.predict(exported, pixels(0))
    assert [int(name.split()[1]) for name in found.labels] == [int(name.split()[1]) for name in without.labels]
    assert set(found.labels) < set(labels)
    (other,) = vit_zoo.predict(exported, pixels(0), preprocess={"mean": [0.1] * 3})
    assert other.scores != without.scores
    with pytest.raises(InputError, match="2 labels for 11 classes"):
        vit_zoo.predict(exported, pixels(0), labels="a,b")
    with pytest.raises(InputError, match="cannot set heads: an exported file contains its own config"):
        vit_zoo.predict(exported, pixels(0), heads=3)


def of_torch(path, name="scores", outputs=1, size=(32, 48)):
    """A file of torch's exporter, without our metadata, and its module."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * size[0] * size[1], 4))
    wrapped = module if outputs == 1 else Twice(module)
    names = [name, *(f"more{i}" for i in range(1, outputs))]
    axes = {each: {0: "batch"} for each in ["x", *names]}
    torch.onnx.export(
        wrapped, (torch.zeros(2, 3, *size),), path, input_names=["x"], output_names=names, dynamic_axes=axes, dynamo=False
    )
    return module.eval()


class Twice(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        y = self.module(x)
        return y, y * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("name", "outputs"), [("scores", 1), ("logits", 2)])
def test_classifiers_of_other_tools(folder, name, outputs, cli):
    module = of_torch("theirs.onnx", name, outputs)
    with pytest.raises(InputError, match=r"has no preprocessing \(state it: preprocess="):
        vit_zoo.predict("theirs.onnx", pixels(0))
    (found,) = vit_zoo.predict("theirs.onnx", pixels(0), preprocess=HOW, top=4)
    with torch.inference_mode():
        expected = module(torch.from_numpy(HOW(Image.fromarray(pixels(0))))[None]).softmax(-1)[0]
    assert [found.scores[found.labels.index(f"class {i}")] for i in range(4)] == pytest.approx(expected.tolist(), abs=1e-5)
    (named,) = vit_zoo.predict(vit_zoo.open("theirs.onnx"), pixels(0), preprocess=HOW, labels="a,b,c,d")
    assert named.labels[0] == "abcd"[int(expected.argmax())]
    stated = {"mean": [0.5] * 3, "std": [0.4] * 3, "crop": "none", "interpolation": "bilinear"}
    (stated,) = vit_zoo.predict("theirs.onnx", pixels(0), preprocess=stated, top=4)
    assert stated.scores == pytest.approx(found.scores)
    with pytest.raises(InputError, match="3 labels for 4 classes"):
        vit_zoo.predict("theirs.onnx", pixels(0), preprocess=HOW, labels="a,b,c")
    done = cli("predict", "theirs.onnx", "theirs.onnx")
    assert done.code == 2
    assert "has no preprocessing" in done.err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_of_another_tool_without_classes(folder):
    of_torch("two.onnx", "hidden", 2)
    with pytest.raises(InputError, match=r"gives features, not classes: hidden \[batch, 4\], more1 \[batch, 4\]"):
        vit_zoo.predict("two.onnx", pixels(0), preprocess=HOW)


@pytest.mark.parametrize(("family", "options"), [("clip_b32", {}), ("vit_b16", {"num_classes": 0}), ("dinov2_s14", {})])
def test_features_are_not_classes(folder, family, options):
    sizes = {
        "image_size": 28 if family.startswith("dino") else 32,
        "depth": 1,
        "dim": 48,
        "heads": 3,
        "dim_head": 16,
        "mlp_dim": 96,
    }
    model = noise(vit_zoo.create(family, **sizes, **options))
    with pytest.raises(InputError, match=r"has no classes: it computes features, '\w+' of width (512|48).*features\(images\)"):
        vit_zoo.predict(model, pixels(0))
    (done,) = vit_zoo.export(model, out="features.onnx", verify=False)
    with pytest.raises(InputError, match=r"gives features, not classes: \w+ \[batch, (512|48)\].*run\(images\)"):
        vit_zoo.open(done.path).predict(pixels(0))
