"""Tests of every image class of transformers: a saved folder, a state dict of 5.x next to its config, a live module."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import vit_zoo
from support.transformers_classes import CLASSES, built
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.loading.source import find_source


def same(ours, peer, output):
    images = torch.randn(2, 3, *ours.spec.image_size)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), output(peer(images)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_a_saved_folder(name, folder):
    peer, output, dialect = built(name)
    peer.save_pretrained("saved")
    source = find_source("saved")
    assert source.dialect == dialect
    assert source.origin["heads"] == source.origin["norm_eps"] == "its config"
    same(vit_zoo.load("saved"), peer, output)


@pytest.mark.parametrize("name", CLASSES)
def test_a_state_dict_from_memory(name, folder):
    """torch.save of 5.x's state dict: its keys differ from those on disk; inside DDP and a wrapper."""
    peer, output, _ = built(name)
    peer.save_pretrained("saved")
    (folder / "saved" / "model.safetensors").unlink()
    torch.save({"state_dict": {f"module.{k}": v for k, v in peer.state_dict().items()}}, "saved/pytorch_model.bin")
    same(vit_zoo.load("saved"), peer, output)


@pytest.mark.parametrize("name", CLASSES)
def test_a_live_module(name):
    peer, output, _ = built(name)
    same(vit_zoo.load(peer), peer, output)


def test_sharded_checkpoint(folder):
    peer, output, _ = built("ViTForImageClassification")
    peer.save_pretrained("saved", max_shard_size="60KB")
    assert len(list((folder / "saved").glob("model-*.safetensors"))) > 2
    same(vit_zoo.load("saved"), peer, output)
    part = sorted((folder / "saved").glob("model-*.safetensors"))[1]
    tensors = load_file(part)
    save_file({**tensors, "spare": torch.zeros(2)}, part)
    with pytest.raises(RefusedContent, match="contains 'spare', which the index does not list there"):
        vit_zoo.load("saved")
    part.unlink()
    with pytest.raises(RefusedContent, match="is missing"):
        vit_zoo.load("saved")


def test_names_before_transformers_5(folder):
    """`vision_model.` before a bare tower's names, and the position_ids of old files."""
    peer, output, _ = built("SiglipVisionModel")
    peer.save_pretrained("saved")
    file = folder / "saved" / "model.safetensors"
    old = {f"vision_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file({**old, "vision_model.embeddings.position_ids": torch.arange(16)}, file)
    same(vit_zoo.load("saved"), peer, output)
    assert find_source("saved").unwanted == ("vision_model.embeddings.position_ids",)


def test_a_config_of_another_model_is_refused(folder):
    peer, *_ = built("ViTForImageClassification")
    peer.save_pretrained("saved")
    config = folder / "saved" / "config.json"
    config.write_text(config.read_text().replace('"num_channels": 3', '"num_channels": 4'))
    with pytest.raises(RefusedContent, match="its config has channels = 4, its tensors have 3"):
        vit_zoo.load("saved")
    config.write_text(config.read_text().replace('"model_type": "vit"', '"model_type": "swin"'))
    with pytest.raises(RefusedContent, match="'swin'"):
        vit_zoo.load("saved")
    config.unlink()
    with pytest.raises(InputError, match="cannot infer heads"):
        vit_zoo.load("saved")
    assert vit_zoo.load("saved", heads=3, norm_eps=1e-7, act="gelu_tanh").spec.norm_eps == 1e-7


@pytest.mark.parametrize("name", ["Dinov2Model", "Dinov2WithRegistersModel"])
def test_another_size_matches_the_class(name, folder):
    """The two classes interpolate positions differently, with antialias where there are registers."""
    peer, output, _ = built(name)
    peer.save_pretrained("saved")
    same(vit_zoo.load("saved", image_size=(40, 56)), peer, output)


def test_a_grid_without_positions_is_refused(folder):
    built("DINOv3ViTModel")[0].save_pretrained("saved")
    with pytest.raises(InputError, match="the file has no position table"):
        vit_zoo.load("saved", grid=(4, 4))
