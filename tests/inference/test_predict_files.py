"""Tests of predictions by several workers: the same as those of one session, in the order of the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.model.classification import softmax
from vit_zoo.model.preprocess import Preprocess

COUNT, BROKEN = 70, (3, 40)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an exported classifier and images, of which two cannot be read."""
    folder = tmp_path_factory.mktemp("many")
    vit_zoo.export("vit_digits", out=folder / "digits.onnx", verify=False)
    vit_zoo.export("vit_digits", out=folder / "inside.onnx", include=["preprocess"], verify=False)
    (folder / "images").mkdir()
    for i in range(COUNT):
        pixels = np.random.default_rng(i).integers(0, 256, (8 + i % 3, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i:02}.png")
    for i in BROKEN:
        (folder / "images" / f"{i:02}.png").write_bytes(b"\x89PNG no more")
    return folder


@pytest.fixture
def place(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


def same(found, wanted):
    assert [(p.file, p.activation) for p in found] == [(p.file, p.activation) for p in wanted]
    for one, other in zip(found, wanted, strict=True):
        by_label = dict(zip(other.labels, other.scores, strict=True))
        np.testing.assert_allclose(one.scores, [by_label[label] for label in one.labels], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["digits.onnx", "inside.onnx"])
def test_the_same_predictions_as_in_one_session(name, place):
    readable = [f"images/{i:02}.png" for i in range(COUNT) if i not in BROKEN]
    wanted = vit_zoo.predict(name, readable, top=10)
    assert [p.file for p in wanted] == readable
    same(vit_zoo.predict(name, readable, top=10, workers=2), wanted)
    with pytest.raises(RefusedContent, match=r"03\.png"):
        vit_zoo.predict(name, "images", workers=2)


def test_many_images_run_in_several_workers(place, cli, monkeypatch):
    """More than 32 images, unless the user asks for threads; the results do not tell."""
    opened = []
    from vit_zoo.inference import engine

    run_chunks = engine.run_chunks
    monkeypatch.setattr(engine, "run_chunks", lambda *args: opened.append(args) or run_chunks(*args))
    code, out, err = cli("predict", "digits.onnx", "images", "--json", "--top", "3")
    assert (code, len(opened)) == (7, 1)
    document = json.loads(out)
    assert [failure["file"] for failure in document["failures"]] == [f"images/{i:02}.png" for i in BROKEN]
    assert err.splitlines()[-1] == "vitzoo: error: 2 of 70 images cannot be read"
    code, out, _ = cli("predict", "digits.onnx", "images", "--json", "--top", "3", "--threads", "1")
    assert (code, len(opened)) == (7, 1)
    one = json.loads(out)
    assert one["failures"] == document["failures"]
    assert [x["file"] for x in one["results"]] == [x["file"] for x in document["results"]]
    for a, b in zip(one["results"], document["results"], strict=True):
        assert [x["label"] for x in a["predictions"]] == [x["label"] for x in b["predictions"]]
    assert cli("predict", "digits.onnx", "images/0[0-2].png").code == 0
    assert len(opened) == 1
    assert cli("predict", "digits.onnx", "images/0[0-2].png", "--workers", "2").code == 0
    assert len(opened) == 2


def test_workers_resize_only_what_the_crop_keeps(tmp_path):
    """With `fast_crop`, in features too: the values are those of images that were prepared so, and of no others."""
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, "image_size": 32, "patch_size": 8}), scale=0.15)
    crop = Preprocess(size=(32, 32), resize_to=40, interpolation="bicubic", mean=(0.5,) * 3, std=(0.4,) * 3)
    model.config = model.config.replace(name="ours", preprocess=crop)
    (done,) = vit_zoo.export(model, out=tmp_path / "ours.onnx", outputs=["logits", "pooler_output"], verify=False)
    made = (np.random.default_rng(i).integers(0, 256, (201, 307, 3), dtype=np.uint8) for i in range(100))
    image = next(image for image in map(Image.fromarray, made) if (crop(image, fast_crop=True) != crop(image)).any())
    image.save(tmp_path / "0.png")
    values = {fast: vit_zoo.open(done.path).run(crop(image, fast_crop=fast)[None]) for fast in (False, True)}
    assert np.abs(values[True]["logits"] - values[False]["logits"]).max() > 1e-5
    for fast, expected in values.items():
        options = {"fast_crop": fast, "workers": 1}
        found = vit_zoo.embed(done.path, tmp_path / "0.png", tmp_path / f"{fast}.npy", **options).features()
        np.testing.assert_allclose(found, expected["pooler_output"], atol=1e-6)
        (prediction,) = vit_zoo.predict(done.path, tmp_path / "0.png", top=11, **options)
        np.testing.assert_allclose(prediction.scores, np.sort(softmax(expected["logits"][0]))[::-1], atol=1e-7)


def test_what_does_not_apply(place, cli):
    with pytest.raises(InputError, match="image 0: workers and engine apply to image files, and this image is in memory"):
        vit_zoo.predict("digits.onnx", np.zeros((8, 8, 3), np.uint8), workers=2)
    with pytest.raises(InputError, match="workers and engine apply to an exported ONNX file"):
        vit_zoo.predict("vit_digits", "images/00.png", workers=2)
    with pytest.raises(InputError, match="threads does not apply"):
        vit_zoo.predict("digits.onnx", "images/00.png", workers=2, threads=1)
    with pytest.raises(InputError, match="fast_crop=True does not apply"):
        vit_zoo.predict("inside.onnx", "images/00.png", workers=2, fast_crop=True)
    with pytest.raises(InputError, match="top must be at least 1"):
        vit_zoo.predict("digits.onnx", "images/00.png", workers=2, top=0)
    for flags in (("--threads", "1"), ("--attention", "a.png")):
        code, _, err = cli("predict", "digits.onnx", "images/00.png", "--workers", "2", *flags)
        assert (code, "without --threads and --attention" in err) == (2, True)
    code, _, err = cli("predict", "vit_digits", "images/00.png", "--engine", "ray")
    assert (code, "--workers and --engine apply to exported ONNX files" in err) == (2, True)
    code, _, err = cli("predict", "digits.onnx", "images/00.png", "--address", "head:6379")
    assert (code, "--address head:6379 applies only to --engine ray" in err) == (2, True)
    assert not Path("a.png").exists()
