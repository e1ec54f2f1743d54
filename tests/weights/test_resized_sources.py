"""Tests of files at other sizes: each source's own recipe is used, and a file of several possible sources is asked about."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn

import vit_zoo
from support import peers
from support.cases import case
from support.models import noise
from vit_zoo.errors import InputError
from vit_zoo.loading.source import find_source

SMALL = {"img_size": 32, "patch_size": 8}
CLOSE = {"rtol": 0, "atol": 1e-5}


def images(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5))


def compare(ours, theirs, size):
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images(*size)), theirs.eval()(images(*size)), **CLOSE)


# --- timm


@pytest.mark.parametrize(("size", "patch"), [((48, 48), 8), ((48, 48), 12), ((24, 48), 6), ((32, 64), 16)])
@pytest.mark.parametrize("architecture", ["flexivit_small", "vit_small_patch16_224"])
def test_patches_and_grid_of_timm_at_once(architecture, size, patch, folder):
    """FlexiViT's files are resized in another way than those of other names."""
    flexible = architecture.startswith("flexivit")
    options = {**peers.TIMM, **SMALL, "no_embed_class": flexible}
    state = noise(peers.timm.create_model(architecture, **options)).state_dict()
    save_file(state, "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "model_args": {"num_heads": 3}}))
    other = peers.timm.create_model(architecture, **{**options, "img_size": size, "patch_size": patch})
    rule = {"interpolation": "bilinear", "antialias": False} if flexible else {}
    other.load_state_dict(checkpoint_filter_fn(state, other, **rule))
    compare(vit_zoo.load(folder, image_size=size, patch_size=patch), other, size)


FILES = {
    "flexivit or not": {"no_embed_class": True},
    "dino or mae": {"num_classes": 0},
    "mae or not": {"global_pool": "avg"},
}


@pytest.mark.parametrize("name", FILES)
def test_names_of_timm_without_a_config_are_asked_about(name, folder):
    state = noise(peers.timm_vit(**SMALL, **FILES[name])).state_dict()
    save_file(state, "a.safetensors")
    facts = {"heads": 3, **({"pool": "mean"} if "global_pool" in FILES[name] else {})}
    with pytest.raises(InputError, match=r"its library is unknown, and libraries resize positions differently.*resize=timm, say"):
        find_source("a.safetensors", **facts, image_size=48)
    assert find_source("a.safetensors", **facts, image_size=48, resize="hf").config.resize == "hf"
    find_source("a.safetensors", **facts)


# --- big_vision


def test_big_visions_flexivit(folder):
    """A file with a class token may be a FlexiViT; only that has a recipe for patches."""
    file, *_ = case("flexivit_native")
    with pytest.raises(InputError, match="its library is unknown"):
        find_source(file, image_size=48)
    at_once = find_source(file, patch_size=4, image_size=12)
    stated = find_source(file, patch_size=4, image_size=12, resize="big_vision-flexivit")
    assert at_once.config.resize == "big_vision-flexivit"
    for name in ("pos_embed", "patch_embed.proj.weight"):
        np.testing.assert_array_equal(at_once.tensors[name].array(), stated.tensors[name].array())
    other = find_source(file, patch_size=4, image_size=12, resize="flexivit")
    assert not np.allclose(at_once.tensors["pos_embed"].array(), other.tensors["pos_embed"].array())


def test_googles_code_has_no_recipe_for_patches():
    file, *_ = case("google_npz_token")
    with pytest.raises(InputError, match=r"recipe 'google' keeps the patch size.*resize=timm"):
        find_source(file, patch_size=16)
    assert find_source(file, patch_size=16, resize="timm").config.spec.grid == (2, 2)


# --- vit-pytorch


@pytest.mark.parametrize("size", [(16, 24), (24, 16), (32, 8)])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_vit_pytorchs_own_rule_for_smaller_images(pool, size, folder):
    """Its ViT takes the first positions of the table, whatever the shape of the image."""
    peer = noise(peers.article_vit(pool=pool, image_size=32, patch_size=8))
    torch.save(peer.state_dict(), "weights.pt")
    compare(vit_zoo.load("weights.pt", heads=3, image_size=size), peer, size)
    compare(vit_zoo.load(peer, image_size=size), peer, size)


def test_vit_pytorch_has_no_rule_for_larger_images(folder):
    peer = noise(peers.article_vit(image_size=32, patch_size=8))
    torch.save(peer.state_dict(), "weights.pt")
    with pytest.raises(InputError, match=r"4x4 are too few for 6x6.*resize=timm"):
        vit_zoo.load("weights.pt", heads=3, image_size=48)


# --- NaFlex


def naflex(**options):
    from timm.models.naflexvit import NaFlexVit

    sizes = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "num_classes": 7}
    return noise(NaFlexVit(**{**sizes, "pos_embed_grid_size": (4, 6), "global_pool": "avg", **options}), scale=0.15)


NAFLEX = {
    "naflexvit_base_patch16_gap": {"reg_tokens": 2, "init_values": 0.1, "fc_norm": True},
    "naflexvit_base_patch16_map": {"reg_tokens": 1, "global_pool": "map"},
    "naflexvit_base_patch16_siglip": {"global_pool": "map", "act_layer": "gelu_tanh", "pos_embed_interp_mode": "bilinear"},
}


@pytest.mark.parametrize("size", [(32, 48), (40, 64), (16, 24)])
@pytest.mark.parametrize("architecture", NAFLEX)
def test_naflex_position_tables(architecture, size, folder):
    """The table has rows and columns; other sizes are resized by the rule of the variant that the config names."""
    peer = naflex(**NAFLEX[architecture])
    save_file(peer.state_dict(), "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "model_args": {"num_heads": 3}}))
    compare(vit_zoo.load(folder, image_size=size), peer, size)


def test_naflex_files_without_a_config(folder):
    peer = naflex(class_token=True, global_pool="token", reg_tokens=2)
    save_file(peer.state_dict(), "a.safetensors")
    compare(vit_zoo.load("a.safetensors", heads=3), peer, (32, 48))  # the table has its grid
    with pytest.raises(InputError, match="its library is unknown"):
        vit_zoo.load("a.safetensors", heads=3, image_size=(40, 64))
    compare(vit_zoo.load("a.safetensors", heads=3, image_size=(40, 64), resize="timm"), peer, (40, 64))


@pytest.mark.parametrize(
    "words",
    [
        {"pos_embed_ar_preserving": True}, {"pos_embed_antialias": False}, {"pos_embed_align_corners": True},
        {"pos_embed_use_grid_sample": True},
    ],
)  # fmt: skip
def test_words_of_a_config_that_name_no_known_recipe(words, folder):
    save_file(naflex(**words).state_dict(), "model.safetensors")
    document = {"architecture": "naflexvit_base_patch16_gap", "model_args": {"num_heads": 3, **words}}
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="its library is unknown"):
        vit_zoo.load(folder, image_size=(40, 64))
    vit_zoo.load(folder, image_size=(32, 48))
