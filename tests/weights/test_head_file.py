"""Tests of linear heads in files of their own: the outputs are those of the head on the model's features, or it is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import vit_zoo
from support import peers
from support.models import noise
from vit_zoo.errors import InputError, RefusedContent, VitzooError
from vit_zoo.loading.load import find_weights
from vit_zoo.loading.source import find_source

SMALL = {"img_size": 32, "patch_size": 8, "num_classes": 0}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def dino():
    """A backbone of facebookresearch/dino, which has timm's names."""
    peer = noise(peers.timm_vit(**SMALL)).eval()
    return peer, peer.state_dict()


def dinov2_training():
    """A training file of facebookresearch/dinov2: the teacher's backbone, in chunks, and its head."""
    peer = noise(peers.timm_vit(**SMALL, init_values=0.1)).eval()
    inner = {name.replace("blocks.", "blocks.0."): tensor for name, tensor in peer.state_dict().items()}
    backbone = {f"backbone.{name}": tensor for name, tensor in {**inner, "mask_token": torch.ones(1, 48)}.items()}
    return peer, {"teacher": {**backbone, "dino_head.mlp.0.weight": torch.ones(8, 48), "dino_head.mlp.0.bias": torch.ones(8)}}


def plain(linear):
    return linear.state_dict()


def evaluation(linear):
    """What eval_linear.py of facebookresearch/dino saves."""
    state = {f"module.linear.{name}": tensor for name, tensor in linear.state_dict().items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones_like(linear.weight)}}, "param_groups": [{"lr": 0.1}]}
    return {"epoch": 3, "state_dict": state, "optimizer": optimizer, "scheduler": {"T_max": 100}, "best_acc": 70.0}


def features(peer, width):
    with torch.inference_mode():
        tokens = peer.forward_features(IMAGES)
    cls, mean = tokens[:, 0], tokens[:, 1:].mean(1)
    return cls if width == 48 else torch.cat([cls, mean], 1)


@pytest.mark.parametrize("saved", [plain, evaluation])
@pytest.mark.parametrize("width", [48, 96])
@pytest.mark.parametrize("backbone", [dino, dinov2_training])
def test_the_outputs_are_those_of_the_head(backbone, width, saved, folder, caplog):
    peer, state = backbone()
    linear = noise(nn.Linear(width, 5))
    torch.save(state, "backbone.pth")
    torch.save(saved(linear), "linear.pth")
    model = vit_zoo.load("backbone.pth", head="linear.pth", heads=3).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(IMAGES), linear(features(peer, width)), rtol=0, atol=1e-5)
    assert model.spec.pool == ("cls" if width == 48 else "cls+mean")
    of_what = "" if width == 48 else " of the class token and the mean of the patch tokens"
    assert f"its head{of_what} is in linear.pth" in caplog.text


def test_a_head_without_bias(folder):
    peer, state = dino()
    linear = noise(nn.Linear(48, 5, bias=False))
    torch.save(state, "backbone.pth")
    save_file(linear.state_dict(), "linear.safetensors")
    model = vit_zoo.load("backbone.pth", head="linear.safetensors", heads=3).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(IMAGES), linear(features(peer, 48)), rtol=0, atol=1e-5)


FILES = {
    "of_several_blocks": (nn.Linear(240, 5).state_dict(), "takes 240 features, the model has 48, or 96 with the mean"),
    "with_a_norm": (nn.Sequential(nn.BatchNorm1d(48), nn.Linear(48, 5)).state_dict(), "expected the weight and the bias of one"),
    "two_layers": (nn.Sequential(nn.Linear(48, 9), nn.Linear(9, 5)).state_dict(), "of one linear layer, got 4 tensors"),
    "no_layer": ({"running": torch.ones(48)}, "of one linear layer, got 1 tensors, first 'running'"),
    "other_bias": ({"weight": torch.ones(5, 48), "bias": torch.ones(4)}, r"expected a bias of 5 values, got \[4\]"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_are_refused(name, folder):
    state, cause = FILES[name]
    torch.save(dino()[1], "backbone.pth")
    torch.save(state, f"{name}.pth")
    with pytest.raises(RefusedContent, match=f"{name}.pth: .*{cause}"):
        vit_zoo.load("backbone.pth", head=f"{name}.pth", heads=3)


def test_where_a_head_does_not_apply(folder):
    _, state = dino()
    torch.save({**state, "head.weight": torch.ones(5, 48), "head.bias": torch.ones(5)}, "classifier.pth")
    torch.save(state, "backbone.pth")
    torch.save(nn.Linear(48, 5).state_dict(), "linear.pth")
    vit_zoo.save(vit_zoo.load("backbone.pth", heads=3), "ours")
    for model, cause in (
        ("classifier.pth", "has a head already"),
        ("ours", "head=FILE applies only to a checkpoint of another library"),
        ("ours/config.json", "head=FILE applies only to a checkpoint of another library"),
        ("vit_ti16", "head=FILE applies only to a checkpoint of another library"),
        (vit_zoo.load("backbone.pth", heads=3), "head=FILE applies only to a checkpoint of another library"),
    ):
        with pytest.raises(InputError, match=cause):
            find_source(model, head="linear.pth")
    with pytest.raises(InputError, match=r"nowhere\.pth: no such file"):
        vit_zoo.load("backbone.pth", head="nowhere.pth", heads=3)


def test_another_size_is_asked_about(folder):
    """With a head, the file is still one of DINO, whose recipe is not timm's."""
    torch.save(dino()[1], "backbone.pth")
    torch.save(nn.Linear(48, 5).state_dict(), "linear.pth")
    with pytest.raises(VitzooError, match="resize=timm, say"):
        vit_zoo.load("backbone.pth", head="linear.pth", heads=3, image_size=48)


def test_weights_for_a_config_without_a_head(folder):
    """The fields that the head decides are its own, and the others must be those of the config."""
    torch.save(dino()[1], "backbone.pth")
    linear = noise(nn.Linear(96, 5))
    torch.save(linear.state_dict(), "linear.pth")
    vit_zoo.save(vit_zoo.load("backbone.pth", heads=3), "ours")
    source = find_weights("ours/config.json", weights="backbone.pth", head="linear.pth")
    assert (source.config.spec.num_classes, source.config.spec.pool) == (5, "cls+mean")
    assert source.origin["pool"] == source.origin["num_classes"] == "linear.pth"
    torch.save(peers.timm_vit(**{**SMALL, "depth": 2}).state_dict(), "shallow.pth")
    with pytest.raises(RefusedContent, match="tensors do not fit the model"):
        find_weights("ours/config.json", weights="shallow.pth", head="linear.pth")


def test_the_option(folder, cli):
    peer, state = dino()
    linear = noise(nn.Linear(96, 5))
    torch.save(state, "backbone.pth")
    torch.save(linear.state_dict(), "linear.pth")
    assert cli("convert", "linear.pth", "-o", "none", "--head", "linear.pth").code == 7
    result = cli("convert", "backbone.pth", "-o", "out", "--set", "heads=3", "--head", "linear.pth")
    assert result.code == 0, result.err
    assert "its head of the class token and the mean of the patch tokens is in linear.pth" in result.err
    with torch.inference_mode():
        torch.testing.assert_close(vit_zoo.load("out").eval()(IMAGES), linear(features(peer, 96)), rtol=0, atol=1e-5)
