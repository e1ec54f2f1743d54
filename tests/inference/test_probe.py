"""Tests of heads that are fitted to images: against scikit-learn on the same features, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import vit_zoo
from support.tiny import TINY
from vit_zoo.errors import CannotWrite, InputError, MissingDependency
from vit_zoo.files.image_list import list_images
from vit_zoo.inference.probe.linear_head import split_by_class
from vit_zoo.model.config import Accuracy

PER_CLASS = 40


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Scikit-learn's digits, 40 of each class, in a folder of its own for each class."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    images, classes = load_digits(return_X_y=True)
    for k in range(10):
        (folder / str(k)).mkdir(parents=True)
        for i in np.flatnonzero(classes == k)[:PER_CLASS]:
            Image.fromarray((images[i].reshape(8, 8) * 255 / 16).round().astype(np.uint8)).save(folder / str(k) / f"{i:04}.png")
    return folder


@pytest.fixture(scope="module")
def probed(digits, tmp_path_factory):
    return vit_zoo.probe("vit_digits", digits, out=tmp_path_factory.mktemp("probed") / "model")


def prepared(model, images):
    """Images as the model takes them, without any of the code under test."""
    return torch.from_numpy(np.stack([model.config.preprocess(Image.open(image.path)) for image in images]))


def test_digits_are_as_good_as_the_optimum(digits, probed):
    """The regularisation of scikit-learn's head is the best for the very images that are held out, so it cannot be beaten."""
    model = vit_zoo.load("vit_digits").eval()
    images = list(list_images(digits))
    y = np.array([int(image.label) for image in images])
    with torch.inference_mode():
        features = model.features(prepared(model, images), "pooler_output")["pooler_output"].double().numpy()
    split = split_by_class(y, 0.2, 0)
    scaler = StandardScaler().fit(features[split.fit])
    fit, held_out = scaler.transform(features[split.fit]), scaler.transform(features[split.held_out])
    heads = [LogisticRegression(C=C, max_iter=5000).fit(fit, y[split.fit]) for C in 10.0 ** np.arange(-5, 3)]
    optimum = max(head.score(held_out, y[split.held_out]) for head in heads)
    assert probed.accuracy.top1 >= optimum - 0.003
    assert optimum > 0.97
    assert probed.accuracy.images == len(split.held_out) == 80


def test_the_model_and_its_file_have_the_recorded_accuracy(digits, probed):
    images = list(list_images(digits))
    y = np.array([int(image.label) for image in images])
    held_out = [images[i] for i in split_by_class(y, 0.2, 0).held_out]
    predictions = vit_zoo.predict(probed.export.path, [image.path for image in held_out], top=1)
    right = [p.labels[0] == image.label for p, image in zip(predictions, held_out, strict=True)]
    assert np.mean(right) == probed.accuracy.top1
    assert {c.label: c.right for c in probed.classes} == {
        str(k): sum(r for r, image in zip(right, held_out, strict=True) if image.label == str(k)) for k in range(10)
    }
    assert all((c.fitted, c.tested) == (32, 8) for c in probed.classes)
    assert probed.export.report.ok
    assert vit_zoo.open(probed.export.path).config == vit_zoo.load(probed.folder).config == probed.config
    backbone = vit_zoo.load("vit_digits").state_dict()
    for name, values in vit_zoo.load(probed.folder).state_dict().items():
        assert name.startswith("head") or torch.equal(values, backbone[name]), name


def test_a_result_prints_and_is_a_table(probed):
    assert str(probed.folder) in str(probed)
    assert f"{100 * probed.accuracy.top1:.2f} % of 80 images of digits (held out of the fit: 20 % of each class, seed 0)" in repr(
        probed
    )
    table = probed.to_pandas()
    assert list(table.label) == [str(k) for k in range(10)]
    assert np.average(table.accuracy, weights=table.tested) == probed.accuracy.top1


def test_the_accuracy_is_published(probed, tmp_path, cli):
    result = cli(
        "publish", probed.folder, "me/digits", "--dry-run", tmp_path / "staged", "--without", "fp16", "--without", "int8"
    )
    assert result.code == 0
    card = (tmp_path / "staged" / "README.md").read_text()
    assert f"| top-1 accuracy | {probed.accuracy}, measured by vitzoo |" in card
    assert "type: imagefolder" in card
    assert f"value: {round(100 * probed.accuracy.top1, 2)}" in card
    assert f" {probed.accuracy}\n" in cli("show", probed.folder).out


def test_the_accuracy_is_that_of_its_weights_only(probed, tmp_path):
    model = vit_zoo.load(probed.folder)
    assert vit_zoo.load(vit_zoo.save(model, tmp_path / "same")).config == probed.config
    relabelled = vit_zoo.load(probed.folder, labels=[f"digit {k}" for k in range(10)])
    assert relabelled.config.accuracy == probed.accuracy
    assert vit_zoo.load(probed.folder, preprocess={"mean": 0.4}).config.accuracy is None
    assert vit_zoo.load(probed.folder, num_classes=3).config.accuracy is None
    assert vit_zoo.load(probed.folder, image_size=16).config.accuracy is None
    with torch.no_grad():
        model.head.bias[0] += 1
    assert vit_zoo.load(vit_zoo.save(model, tmp_path / "trained")).config.accuracy is None
    (exported,) = vit_zoo.export(model, out=tmp_path / "trained.onnx")
    assert exported.config.accuracy is None
    document = json.loads((tmp_path / "same" / "config.json").read_text())
    weights = (tmp_path / "trained" / "model.safetensors").read_bytes()
    (tmp_path / "same" / "model.safetensors").write_bytes(weights)  # without its config
    assert "accuracy" in document["vit_zoo"]
    assert vit_zoo.load(tmp_path / "same").config.accuracy is None


def test_files_without_the_new_fields_stay_as_they_were(tmp_path):
    """Version 0.1 reads models that do not use them."""
    vit_zoo.save(vit_zoo.create("vit_ti16", **TINY), tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())["vit_zoo"]
    assert "accuracy" not in document
    assert not {"projection", "cosine_head"} & set(document["spec"])


def painted(folder, classes, count=6, size=32):
    """Images of one colour for each class, with noise."""
    random = np.random.default_rng(0)
    for k, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 80, (size, size, 3)).astype(np.uint8)
            pixels[..., k % 3] += 150
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


def tiny(folder, **fields):
    """A model with random weights that do not count as such, with preprocessing."""
    model = vit_zoo.create("vit_ti16", preprocess="imagenet", **{**TINY, "image_size": 32, **fields})
    for p in model.parameters():
        p.data.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    return vit_zoo.save(model, folder)


@pytest.mark.parametrize(
    "fields", [{"dist_token": True}, {"pool": "cls+mean", "pool_tokens": "patches", "representation": 8}, {}]
)
def test_two_classes_and_every_kind_of_head(fields, tmp_path):
    """With two heads, whose logits are averaged, too; a class that is told by its colour is learned."""
    done = vit_zoo.probe(
        tiny(tmp_path / "model", **fields), painted(tmp_path / "photos", ["red", "green"]), out=tmp_path / "out", held_out=0.5
    )
    assert done.accuracy.top1 == 1
    assert done.config.labels == ("green", "red")
    predictions = vit_zoo.predict(done.export.path, tmp_path / "photos", top=1)
    assert [p.labels[0] for p in predictions] == ["green"] * 6 + ["red"] * 6


def test_tables_and_unreadable_images(tmp_path, cli):
    folder = painted(tmp_path / "photos", ["b", "a", "c"])
    (folder / "a" / "broken.png").write_bytes(b"no image")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in folder.rglob("*.png"))
    lines = ["image,kind", *(f"{name},{Path(name).parent.name.upper()}" for name in names)]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    model = tiny(tmp_path / "model")
    result = cli(
        "probe",
        model,
        tmp_path / "list.csv",
        "-o",
        tmp_path / "out",
        "--label-column",
        "kind",
        "--workers",
        1,
        "--json",
        "--seed",
        3,
    )
    assert result.code == 0
    document = json.loads(result.out)
    assert document["unreadable"] == [
        {"image": "photos/a/broken.png", "reason": "cannot be read as an image (UnidentifiedImageError)"}
    ]
    assert "left out 1 image that cannot be read: photos/a/broken.png" in result.err
    assert [(c["label"], c["fitted"], c["tested"]) for c in document["classes"]] == [("A", 5, 1), ("B", 5, 1), ("C", 5, 1)]
    assert document["export"]["verified"]
    config = vit_zoo.load(tmp_path / "out").config
    assert config.accuracy.dataset == "list.csv"
    assert "seed 3" in config.accuracy.split
    named = cli("probe", model, folder, "-o", tmp_path / "named", "--labels", "x,y,z", "-v")
    assert "left out 1 image" in named.err
    assert vit_zoo.load(tmp_path / "named").config.labels == ("x", "y", "z")


def test_random_weights_are_told_and_stay_marked(tmp_path, cli):
    vit_zoo.save(vit_zoo.create("vit_ti16", preprocess="imagenet", **TINY), tmp_path / "model")
    photos = painted(tmp_path / "photos", ["red", "green"])
    result = cli("probe", tmp_path / "model", photos, "-o", tmp_path / "out")
    assert result.code == 0
    assert "has RANDOM WEIGHTS (seed 0): its features are not trained" in result.err
    assert vit_zoo.load(tmp_path / "out").config.random_seed == 0
    (tmp_path / "trained").mkdir()
    new = vit_zoo.load(tiny(tmp_path / "other"), num_classes=7)  # a random classifier on trained weights
    done = vit_zoo.probe(new, photos, out=tmp_path / "fitted")
    assert new.config.random_part == "head"
    assert done.config.random_seed is None


def test_halves_become_float32(tmp_path):
    photos = painted(tmp_path / "photos", ["red", "green"])
    done = vit_zoo.probe(vit_zoo.load(tiny(tmp_path / "model"), dtype=torch.bfloat16), photos, out=tmp_path / "out")
    assert {p.dtype for p in vit_zoo.load(done.folder).parameters()} == {torch.float32}


def test_bad_input_is_refused(tmp_path, cli):
    model, photos = tiny(tmp_path / "model"), painted(tmp_path / "photos", ["red", "green"], count=2)

    def refused(code, message, *arguments):
        result = cli("probe", *arguments, *(() if "-o" in arguments else ("-o", tmp_path / "out")))
        assert (result.code, message in result.err) == (code, True), result.err
        assert not (tmp_path / "out").exists()

    refused(2, "no images given", model)
    refused(2, "--logit-scale 9.0 applies to a head of embeddings", model, photos, "--logit-scale", 9)
    refused(2, "held_out must be between 0 and 1, got 1", model, photos, "--held-out", 1)
    refused(2, "num_classes does not apply", model, photos, "--set", "num_classes=3")
    refused(2, "3 labels for 2 classes", model, photos, "--labels", "a,b,c")
    refused(2, "has no class, and 1 other", model, photos / "red")
    refused(2, "no such file", model, tmp_path / "missing")
    refused(8, "folder is not empty", model, photos, "-o", model)
    (photos / "blue").mkdir()
    Image.new("RGB", (32, 32)).save(photos / "blue" / "1.png")
    refused(2, "class 'blue' has 1 image (each class needs at least 2", model, photos)
    (photos / "blue" / "2.png").write_bytes(b"no image")
    refused(2, "class 'blue' has 1 image that can be read", model, photos)
    (photos / "blue" / "1.png").write_bytes(b"no image")
    refused(2, "class 'blue' has 0 images that can be read", model, photos)
    (tmp_path / "one" / "red").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (32, 32)).save(tmp_path / "one" / "red" / f"{i}.png")
    refused(2, "one class only, 'red'", model, tmp_path / "one")
    (tmp_path / "list.csv").write_text("path,kind\nphotos/red/0.png,red\n")
    refused(2, "has no column 'label'", model, tmp_path / "list.csv")
    tokens = tiny(tmp_path / "tokens", pool="none", num_classes=0)
    refused(2, "the model has no pooled features", tokens, photos)
    config = json.loads((model / "config.json").read_text())
    del config["vit_zoo"]["preprocess"]
    (model / "config.json").write_text(json.dumps(config))
    refused(2, "the config has no preprocessing", model, painted(tmp_path / "more", ["red", "green"]))


def test_a_model_is_replaced_on_request(tmp_path):
    photos, model = painted(tmp_path / "photos", ["red", "green"]), tiny(tmp_path / "model")
    out = vit_zoo.probe(model, photos, out=tmp_path / "out").folder
    (out / "notes.txt").write_text("mine")
    with pytest.raises(CannotWrite, match="not empty"):
        vit_zoo.probe(model, photos, out=out)
    vit_zoo.probe(model, painted(tmp_path / "more", ["a", "b", "c"]), out=out, force=True)
    assert vit_zoo.load(out).config.labels == vit_zoo.open(out / "vit_ti16.onnx").config.labels == ("a", "b", "c")
    assert (out / "notes.txt").read_text() == "mine"


def test_without_scikit_learn(tmp_path, monkeypatch, cli):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingDependency):
        vit_zoo.probe("vit_digits", tmp_path, out=tmp_path / "out")
    result = cli("probe", "vit_digits", tmp_path, "-o", tmp_path / "out")
    assert result.code == 4
    assert "pip install scikit-learn" in result.err


@pytest.mark.parametrize("fields", [{"top1": 1.1}, {"images": 0}, {"weights": "abc"}, {"split": ""}, {"more": 1}])
def test_a_config_with_an_impossible_accuracy_is_refused(fields, probed, tmp_path):
    folder = vit_zoo.save(vit_zoo.load(probed.folder), tmp_path / "model")
    document = json.loads((folder / "config.json").read_text())
    document["vit_zoo"]["accuracy"] |= fields
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=next(iter(fields))):
        vit_zoo.load(folder)
    with pytest.raises(ValueError, match=next(iter(fields))):
        Accuracy(**{**probed.accuracy.model_dump(), **fields})
