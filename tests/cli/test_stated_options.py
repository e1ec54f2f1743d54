"""Tests of the options that state labels and preprocessing: how they are written, and that errors and notices name them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_zoo
from vit_zoo.model.preprocess import Preprocess

TINY = {"image_size": 32, "patch_size": 8, "dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "mlp_dim": 64, "num_classes": 3}
FACTS = ("--set", "heads=2")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The tensors of a small model under timm's names, without any config beside them."""
    path = tmp_path_factory.mktemp("bare") / "mine.safetensors"
    vit_zoo.convert(vit_zoo.create("vit_ti16", **TINY), path, "timm")
    return path


@pytest.fixture
def image(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save("image.png")
    return "image.png"


def test_one_command_makes_a_file_that_predicts_with_names(bare, image, folder, cli):
    Path("names.txt").write_text("cat\ndog\nhorse\n", encoding="utf-8")
    stated = ("--labels", "names.txt", "--mean", "0.5,0.4,0.3", "--std", "0.2", "--crop", "0.8", "--interpolation", "bilinear")
    code, _, err = cli("export", bare, "--onnx", *FACTS, *stated, "--size", "32x32", "--verify", "quick", "-q")
    assert code == 0, err
    config = vit_zoo.open("mine.onnx").config
    assert config.labels == ("cat", "dog", "horse")
    assert config.preprocess == Preprocess(
        size=(32, 32), resize_to=40, interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
    )
    code, out, err = cli("predict", "mine.onnx", image, "--top", "3")
    assert (code, err) == (0, "")
    assert {"cat", "dog", "horse"} < set(out.split())
    shown = cli("show", "mine.onnx").out
    assert "labels:" in shown
    assert "3: cat, dog, horse" in shown


def test_a_preset_is_modified(bare, folder, cli):
    code, _, err = cli("convert", bare, "-o", "m", *FACTS, "--preprocess", "clip", "--crop", "none", "--labels", "a,b,c")
    assert code == 0, err
    config = json.loads(Path("m/config.json").read_text())["vit_zoo"]
    assert config["labels"] == ["a", "b", "c"]
    assert config["preprocess"]["resize_to"] is None
    assert config["preprocess"]["mean"][0] == 0.48145466
    assert cli("create", "vit_ti16", "-o", "c", "--set", "depth=1", "--set", "num_classes=2", "--labels", "yes,no").code == 0
    assert vit_zoo.load("c").config.labels == ("yes", "no")


def test_a_model_predicts_with_what_is_stated(bare, image, cli):
    code, out, err = cli("predict", bare, image, *FACTS, "--preprocess", "half", "--labels", "cat,dog,horse", "--top", "3")
    assert code == 0, err
    assert {"cat", "dog", "horse"} < set(out.split())
    assert "have no names" not in err
    code, out, err = cli("predict", bare, image, *FACTS, "--preprocess", "half")
    assert code == 0
    assert "class " in out
    assert "vitzoo: the classes of mine have no names; --labels FILE states them" in err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--labels", "a,b"], "mine: 2 labels for 3 classes"),
        (["--labels", "names.csv"], "names.csv: no such file"),
        (["--mean", "0.5", "--std", "0.5"], "add --crop, --interpolation, or name what they modify: --preprocess imagenet"),
        (["--mean", "grey"], "Invalid value for '--mean': expected a number"),
        (["--size", "1x2x3"], "Invalid value for '--size': expected N or HxW"),
        (["--crop", "most"], "Invalid value for '--crop': expected a share"),
        (["--preprocess", "half", "--size", "64"], "makes images of 64x64, the model takes 32x32 (--set image_size=64 resizes"),
        (["--preprocess", "halve"], "no file and no preset 'halve'; nearest: half"),
        (["--include", "preprocess"], "no preprocessing to include (state it: --preprocess NAME or FILE, or --mean, --std,"),
        (["--int8", "static", "--calibrate", "."], "no preprocessing (state it: --preprocess NAME or FILE, or --mean, --std,"),
    ],
)
def test_errors_name_the_options(arguments, fault, bare, folder, cli):
    code, _, err = cli("export", bare, "--onnx", *FACTS, *arguments)
    assert code == 2
    assert fault in err
    assert len([line for line in err.splitlines() if "error" in line]) == 1
    assert not list(folder.iterdir())


def test_a_name_without_weights_of_its_own_tells_how_to_state_the_rest(bare, folder, cli):
    vit_zoo.save(vit_zoo.create("vit_ti16", **TINY, labels="a,b,c"), "described")
    code, _, err = cli("export", "described", "--weights", bare, "--onnx", "--verify", "off")
    assert code == 0
    way = "state them: --preprocess NAME or FILE, or --mean, --std, --crop and --interpolation; --labels FILE"
    assert f"preprocessing and labels left out: what vit_ti16 states is of other weights; {way}" in err
