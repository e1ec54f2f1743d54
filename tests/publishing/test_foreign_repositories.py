"""Tests of repositories written by timm and transformers: weights, preprocessing, labels and licence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from timm.models._hub import save_for_hf

import vit_zoo
from support import peers
from support.hub_environment import HUB_PORT
from support.loopback_hub import Hub
from support.models import noise
from support.paths import ROOT
from vit_zoo.model.preprocess import Preprocess

HALF, IMAGENET = ((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CARD = b"---\nlicense: other\nlicense_name: strange\nlicense_link: https://example.org/terms\n---\nA card.\n"


@pytest.fixture
def hub(monkeypatch):
    shutil.rmtree(HF_HUB_CACHE, ignore_errors=True)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{HUB_PORT}")
    with Hub(HUB_PORT) as found:
        yield found
    shutil.rmtree(HF_HUB_CACHE, ignore_errors=True)


def push(hub, repo, folder, **more):
    files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    hub.create(repo, {**files, "README.md": CARD, "LICENSE": b"the terms", **more})


def timm_repository(hub, folder, name="vit_tiny_patch16_224", repo="timm/tiny"):
    model = noise(peers.timm.create_model(name, depth=2, num_classes=7))
    with torch.no_grad():
        for key, value in (("label_names", [f"word {i}" for i in range(7)]),):
            model.pretrained_cfg[key] = value
    save_for_hf(model, folder, model_args={"depth": 2}, safe_serialization=True)
    push(hub, repo, folder)
    return model


def hf_repository(hub, folder, repo="google/tiny"):
    config = peers.transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=32, patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "cow"}, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = noise(peers.transformers.ViTForImageClassification(config))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "do_normalize": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTImageProcessor", "resample": 2, "size": {"height": 32, "width": 32},
    }))  # fmt: skip
    push(hub, repo, folder)
    return model


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_pull(hub, tmp_path, monkeypatch, library):
    monkeypatch.chdir(tmp_path)
    made = {"timm": timm_repository, "transformers": hf_repository}[library](hub, tmp_path / "theirs")
    repo = "timm/tiny" if library == "timm" else "google/tiny"
    done = vit_zoo.pull(repo, "ours")
    model = vit_zoo.load("ours").eval()
    head = hub.repositories[repo].at("main").oid
    dialect = "timm" if library == "timm" else "hf-vit"
    assert (model.config.name, model.config.source) == ("tiny", f"hf-hub:{repo}@{head} ({dialect})")
    assert (done.config.licence, done.config.licence_link) == ("strange", "https://example.org/terms")
    assert Path("ours/LICENSE").read_bytes() == b"the terms"
    images = torch.randn(2, 3, *model.spec.image_size)
    with torch.inference_mode():
        wanted, given = made(images), model(images)
    wanted = getattr(wanted, "logits", wanted)
    assert float((given - wanted).abs().max() / wanted.abs().max()) <= 1e-5
    if library == "timm":
        assert model.config.preprocess == Preprocess(
            size=(224, 224), resize_to=248, interpolation="bicubic", mean=HALF[0], std=HALF[1]
        )
    else:
        assert model.config.labels == ("cat", "dog", "cow")
        assert model.config.preprocess == Preprocess(
            size=(32, 32), resize_to=None, interpolation="bilinear", mean=HALF[0], std=HALF[1]
        )


@pytest.mark.parametrize("target", ["timm", "hf"])
def test_converted_folders_keep_preprocessing_and_labels(folder, target):
    model = vit_zoo.load("vit_digits")
    vit_zoo.convert(model, "theirs", target)
    back = vit_zoo.load("theirs").config
    assert model.config.preprocess is not None
    assert (back.preprocess, back.labels) == (model.config.preprocess, model.config.labels)


def test_first_contact(hub, tmp_path):
    """The script for a machine with a network, run against small models of the same names on this one."""
    timm_repository(hub, tmp_path / "timm", repo="timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    hf_repository(hub, tmp_path / "hf", repo="google/vit-base-patch16-224")
    command = [sys.executable, ROOT / "benchmarks" / "first_contact.py", "timm augreg", "transformers vit"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert all(each["relative difference"] <= 1e-5 and each["licence"] == "strange" for each in found.values())
    done = subprocess.run([*command[:2], "timm siglip"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no such repository" in json.loads(done.stdout)["timm siglip"]["error"]
