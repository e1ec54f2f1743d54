"""Tests of prediction with an exported file alone, against its model and torchvision's preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vit_zoo
from support import peers
from support.models import SMALL, noise
from vit_zoo.errors import RefusedContent
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.registry.catalog import zoo_folder

DIGITS = zoo_folder() / "vit_digits"
GOAL = 0.985  # of the held-out digits


def test_the_shipped_model_reads_the_held_out_digits(folder):
    """All 360 images not used in training, with the exported file: the recorded number is right, and it is high enough."""
    recipe = json.loads((DIGITS / "recipe.json").read_text())
    (done,) = vit_zoo.export("vit_digits")
    files = sorted((DIGITS / "held_out").glob("*.png"))
    assert len(files) == 360
    assert [int(file.stem.split("_")[0]) for file in files] == recipe["split"]["held_out"]
    right = sum(p.labels[0] == file.stem.split("_")[1] for p, file in zip(vit_zoo.predict(done.path, files), files, strict=True))
    assert right == recipe["held_out"]["correct"]
    assert right / len(files) >= GOAL


def test_the_shipped_model_is_small_and_trained():
    model = vit_zoo.load("vit_digits", check="full")
    assert model.config.random_seed is None
    assert model.config.licence
    assert model.spec.params < 300_000
    assert (DIGITS / "model.safetensors").stat().st_size < 2**20


def test_the_held_out_images_are_those_of_the_split():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    _, held_out = train_test_split(np.arange(1797), test_size=360, stratify=labels, random_state=0)
    for i in held_out[:40]:
        stored = np.asarray(Image.open(DIGITS / "held_out" / f"{i:04}_{labels[i]}.png"))
        np.testing.assert_array_equal(stored, np.round(images[i].reshape(8, 8) * 255 / 16))


def test_file_and_model_agree(folder):
    samples = sorted((DIGITS / "samples").glob("*.png"))
    (done,) = vit_zoo.export("vit_digits")
    by_file, by_model = vit_zoo.predict(done.path, samples, top=10), vit_zoo.predict("vit_digits", samples, top=10)
    for one, other in zip(by_file, by_model, strict=True):
        assert one.labels == other.labels
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
        assert sum(one.probabilities) == pytest.approx(1)
    (alone,) = vit_zoo.predict(done.path, samples[3], top=1)
    assert (alone.file, alone.labels) == (by_file[3].file, by_file[3].labels[:1])


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (97, 301), (1024, 768)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize_to", [248, None])
def test_preprocessing_against_torchvision(size, interpolation, resize_to):
    from torchvision import transforms

    assert peers.torchvision
    mode = transforms.InterpolationMode(interpolation)
    steps = (
        [transforms.Resize((224, 224), mode)]
        if resize_to is None
        else [transforms.Resize(resize_to, mode), transforms.CenterCrop(224)]
    )
    theirs = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.5))])
    ours = Preprocess(
        size=(224, 224), resize_to=resize_to, interpolation=interpolation, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.5)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_allclose(ours(image), theirs(image), rtol=0, atol=1e-6)


def test_values_that_are_not_finite_are_refused(folder):
    model = vit_zoo.load("vit_digits")
    with torch.no_grad():
        model.head.bias[3] = torch.nan
    (done,) = vit_zoo.export(model, verify=False)
    with pytest.raises(RefusedContent, match="not finite"):
        vit_zoo.predict(done.path, DIGITS / "samples" / "digit_3.png")


def test_a_model_without_classes_or_preprocessing(folder):
    Image.new("RGB", (9, 9)).save("grey.png")
    features = noise(vit_zoo.create("vit_b16", **{**SMALL, "num_classes": 0}))
    with pytest.raises(ValueError, match="has no classes"):
        vit_zoo.predict(features, "grey.png")
    bare = vit_zoo.load(noise(peers.timm_vit()))
    with pytest.raises(ValueError, match="the config has no preprocessing"):
        vit_zoo.predict(bare, "grey.png")
    assert Path("grey.png").exists()
