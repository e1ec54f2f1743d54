"""Tests that a converted file is the same model in the target library's own class, or is refused, for random specs."""

from __future__ import annotations

import random
import shutil
from collections import Counter

import pytest
import torch

import vit_zoo
from support import peers
from support.models import noise
from support.target_readers import READERS
from vit_zoo.errors import InputError, NotRepresentable
from vit_zoo.loading.source import find_source
from vit_zoo.model.spec import TRAINING, ViTSpec
from vit_zoo.model.vit import ViT
from vit_zoo.publishing.clients import profile_of

BASE = {
    "image_size": 32, "patch_size": 8, "channels": 3, "dim": 48, "depth": 2, "heads": 3, "dim_head": 16, "mlp_dim": 96,
    "num_classes": 5, "class_token": True, "registers": 0, "pos": "learned", "pos_covers": "all", "patch_bias": True,
    "patch_norms": False, "pre_norm": False, "norm_eps": 1e-6, "act": "gelu", "qkv_bias": True, "attn_out": True,
    "proj_bias": True, "mlp_bias": True, "layer_scale": False, "final_norm": "before_pool", "pool": "cls", "pool_tokens": "all",
    "head_bias": True, **dict.fromkeys(TRAINING, 0.0),
}  # fmt: skip
NO_HEAD = {"num_classes": 0}
MEAN = {"pool": "mean", "pool_tokens": "patches"}
NO_CLASS = {"class_token": False, "pos_covers": "patches"}
SWIGLU = {"mlp": "swiglu", "act": "silu"}
ARTICLE = {"patch_norms": True, "qkv_bias": False, "norm_eps": 1e-5}
CLIP = {
    "patch_bias": False, "pre_norm": True, "final_norm": "after_pool", "head_bias": False, "norm_eps": 1e-5, "num_classes": 12,
}  # fmt: skip
DINOV2 = {"layer_scale": True, **NO_HEAD}
DINOV3 = {
    "pos": "rope", "pos_covers": "patches", "registers": 4, "layer_scale": True, "qkv_bias": "qv", "norm_eps": 1e-5, **NO_HEAD,
}  # fmt: skip
OLD = {**ARTICLE, "final_norm": "after_pool"}
# specs of families, from which random ones differ in a few fields
FAMILIES = (
    {}, {"representation": 48, **NO_HEAD}, {"representation": 24}, {"dist_token": True}, {"registers": 1}, NO_HEAD,
    {"act": "gelu_tanh"}, {**NO_CLASS, **MEAN, "act": "gelu_tanh", "pool_tokens": "all"}, {**MEAN, "final_norm": "after_pool"},
    {"layer_scale": True, "pos_covers": "patches"}, {**DINOV2}, {**DINOV2, "registers": 4, "pos_covers": "class"},
    {**DINOV2, **SWIGLU, "mlp_dim": 64}, {**DINOV2, "num_classes": 5, "pool": "cls+mean", "pool_tokens": "patches"},
    DINOV3, {**DINOV3, **SWIGLU, "registers": 0}, CLIP, {**CLIP, "act": "quick_gelu"}, {**CLIP, **NO_HEAD, "head_bias": True},
    {**NO_CLASS, "pool": "map", "act": "gelu_tanh", **NO_HEAD}, {**NO_CLASS, "pool": "map", "act": "gelu_tanh"},
    {**NO_CLASS, **MEAN, "pool_tokens": "all", **NO_HEAD}, ARTICLE, {**ARTICLE, **NO_CLASS, **MEAN, "pool_tokens": "all"},
    {**ARTICLE, **NO_HEAD, "pool": "none"}, {**ARTICLE, **NO_CLASS, **MEAN, "pos": "sincos_moco", "proj_bias": False},
    {**ARTICLE, "pool": "mean"}, OLD, {**OLD, "patch_norms": False}, {**OLD, "pool": "mean"},
    {"registers": 4, "pos_covers": "patches", **MEAN, "final_norm": "after_pool"}, {**SWIGLU, "mlp_dim": 64},
    {"pool": "none", **NO_HEAD},
)  # fmt: skip
CHANGES = {
    "image_size": [(32, 48), (48, 32), 32], "patch_size": [(8, 16), (16, 8), 8], "channels": [1, 3, 4], "heads": [1, 2, 4],
    "dim_head": [12, 16, 48], "mlp_dim": [64, 70, 97, 144], "num_classes": [0, 5], "class_token": [True, False],
    "dist_token": [True, False], "registers": [0, 1, 4], "pos": ["learned", "sincos_moco", "sincos_mae", "rope", "none"],
    "pos_covers": ["all", "class", "patches"], "patch_bias": [True, False], "patch_norms": [True, False],
    "pre_norm": [True, False], "norm_eps": [1e-6, 1e-5, 1e-12, 1e-3], "act": ["gelu", "gelu_tanh", "quick_gelu", "silu"],
    "mlp": ["plain", "swiglu"], "qkv_bias": [True, False, "qv"], "qk_norm": [True, False], "attn_out": [True, False],
    "proj_bias": [True, False], "mlp_bias": [True, False], "layer_scale": [True, False],
    "final_norm": ["before_pool", "after_pool", "none"], "pool": ["cls", "mean", "map", "cls+mean", "none"],
    "pool_tokens": ["all", "patches"], "representation": [0, 24, 48], "head_bias": [True, False],
}  # fmt: skip
# how many of the 400 models each target at least holds, so that none is refused for nothing
LOADED = {
    "timm": 110, "hf": 100, "vit-pytorch": 45, "deit": 30, "mae": 18, "dinov2": 17, "google": 10, "open_clip": 8,
    "torchvision": 7,
}  # fmt: skip
SIZES = ({}, {"image_size": 24}, {"depth": 1}, {"heads": 4, "dim_head": 12}, {"image_size": (32, 48)}, {"channels": 1})


def random_specs(count, seed=7):
    """Different valid specs: of a family and a size each, with up to two fields changed."""
    choose, specs = random.Random(seed), []
    while len(specs) < count:
        fields = {**BASE, **choose.choice(SIZES), **choose.choice(FAMILIES)}
        for name in choose.sample(list(CHANGES), choose.choice((0, 1, 1, 2))):
            fields[name] = choose.choice(CHANGES[name])
        try:
            spec = ViTSpec.parse(fields)
        except InputError:
            continue
        if spec not in specs:
            specs.append(spec)
    return specs


def model_of(spec):
    return noise(ViT.from_spec(spec, seed=1), scale=0.15)


def test_every_target_computes_the_model_or_refuses_it(folder):
    loaded, wrong = Counter(), []
    for number, spec in enumerate(random_specs(400)):
        model = model_of(spec)
        images = torch.randn(2, spec.channels, *spec.image_size, generator=torch.Generator().manual_seed(number))
        with torch.inference_mode():
            wanted = model(images)
            for target, (suffix, reader) in READERS.items():
                out = folder / f"{number}{suffix}"
                try:
                    vit_zoo.convert(model, out, target)
                except NotRepresentable:
                    assert not out.exists()
                    continue
                loaded[target] += 1
                try:
                    found = reader(spec, out)(images)
                    difference = float((found - wanted).abs().max() / wanted.abs().max()) if found.shape == wanted.shape else None
                except Exception as error:  # a class that cannot be built or loaded is as wrong as another output
                    difference = repr(error)
                if not isinstance(difference, float) or not difference < 1e-5:
                    wrong.append((target, difference, {k: v for k, v in spec.model_dump().items() if v != BASE.get(k)}))
                shutil.rmtree(out) if out.is_dir() else out.unlink()
    assert not wrong, "\n".join(map(str, wrong))
    assert not {target: loaded[target] for target, least in LOADED.items() if loaded[target] < least}


WAY_ON = [
    # fields, target, the field that the target lacks, and the tensors that may be left out
    ({"representation": 48, **NO_HEAD}, "timm", "timm cannot express representation = 48, only 0", ["pre_logits.*"]),
    ({"representation": 24, **NO_HEAD}, "deit", "timm cannot express representation = 24, only 0", ["pre_logits.*"]),
    ({"representation": 24, **NO_HEAD}, "mae", "timm cannot express representation = 24, only 0", ["pre_logits.*"]),
    ({"representation": 24}, "timm", "timm cannot express representation = 24, only 0", ["head.*", "pre_logits.*"]),
    ({"representation": 24}, "hf", "hf-vit cannot express representation = 24, only 0", ["head.*"]),
    ({**DINOV3, "num_classes": 5}, "hf", "hf-dinov3 cannot express num_classes = 5, only 0", ["head.*"]),
    ({"layer_scale": True}, "dinov2", "dinov2 cannot express num_classes = 5, only 0", ["head.*"]),
]


@pytest.mark.parametrize(("fields", "target", "message", "dropped"), WAY_ON)
def test_the_error_names_the_tensors_that_may_be_left_out(fields, target, message, dropped, folder, cli):
    spec = ViTSpec.parse({**BASE, **fields})
    model = model_of(spec)
    vit_zoo.save(model, "model")
    out = {"timm": "out", "hf": "out"}.get(target, "out.pth")
    code, _, error = cli("convert", "model", "-o", out, "--to", target)
    flags = [part for pattern in dropped for part in ("--allow-drop", pattern)]
    quoted = " ".join(f"--allow-drop '{pattern}'" for pattern in dropped)
    assert (code, error.strip()) == (6, f"vitzoo: error: {message} ({quoted} leaves it out)")
    assert not (folder / out).exists()
    assert cli("convert", "model", "-o", out, "--to", target, *flags)[0] == 0
    smaller = spec.replace(
        **({"representation": 0} if "pre_logits.*" in dropped else {}), **({"num_classes": 0} if "head.*" in dropped else {})
    )
    expected = ViT.from_spec(smaller, seed=1)
    expected.load_state_dict({name: model.state_dict()[name] for name in smaller.shapes()}, strict=False)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(READERS[target][1](smaller, folder / out)(images), expected.eval()(images), rtol=0, atol=1e-5)


REFUSED = [
    ({"qkv_bias": "qv"}, "timm", "qkv_bias = qv, only True or False"),
    ({"mlp_bias": False}, "timm", "mlp_bias = False, only True"),
    ({"patch_bias": False}, "timm", "patch_bias = False, only True"),
    ({"pre_norm": True}, "timm", "patch_bias = True, only False"),
    ({"dist_token": True, "registers": 1}, "timm", "registers = 1, only 0"),
    ({"dist_token": True, "pos_covers": "patches"}, "timm", "pos_covers = patches, only all"),
    ({"dim_head": 8}, "timm", "dim_head = 8, only 16"),
    ({"final_norm": "none"}, "hf", "final_norm = none, only before_pool"),
    ({"final_norm": "none"}, "torchvision", "final_norm = none, only before_pool"),
    ({"head_bias": False}, "torchvision", "head_bias = False, only True"),
    ({**DINOV2, "mlp_dim": 97}, "hf", "mlp_dim = 97"),
    ({**DINOV2, "image_size": (32, 48)}, "hf", "image_size = 32x48, only 32x32"),
    ({**DINOV2, "image_size": (32, 48)}, "dinov2", "image_size = 32x48, only 32x32"),
    ({**DINOV2, **SWIGLU, "mlp_dim": 70}, "dinov2", "mlp_dim = 70, only 64"),
    ({"layer_scale": True}, "mae", "layer_scale = True, only False"),
    ({"registers": 4}, "deit", "registers = 4, only 0"),
    ({**NO_HEAD}, "torchvision", "num_classes = 0"),
    ({**CLIP, "channels": 1}, "open_clip", "channels = 1, only 3"),
    ({**ARTICLE, **NO_HEAD}, "vit-pytorch", "num_classes = 0"),
]


@pytest.mark.parametrize(("fields", "target", "message"), REFUSED)
def test_the_field_that_a_class_lacks_is_named(fields, target, message, folder):
    with pytest.raises(NotRepresentable, match=message):
        vit_zoo.convert(model_of(ViTSpec.parse({**BASE, **fields})), "out" if target in ("timm", "hf") else "out.pth", target)


def test_the_tanh_layer_that_the_head_reads_is_not_dropped_alone(folder):
    model = model_of(ViTSpec.parse({**BASE, "representation": 48}))
    with pytest.raises(InputError, match=r"cannot drop 'pre_logits\.weight': the head reads its output"):
        vit_zoo.convert(model, "out", "timm", allow_drop=["pre_logits.*"])


def test_features_are_written_for_the_class_without_a_pooler(folder):
    """ViTModel would add one with random weights; transformers' ViTMSN is the same model without it."""
    spec = ViTSpec.parse({**BASE, **NO_HEAD})
    model = model_of(spec)
    vit_zoo.convert(model, "out", "hf")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        found = peers.transformers.AutoModel.from_pretrained("out").eval()(images)
        assert type(found).__name__ == "BaseModelOutput"
        torch.testing.assert_close(found.last_hidden_state[:, 0], model(images), rtol=0, atol=1e-5)
        assert vit_zoo.load("out").spec == spec


def test_what_a_user_of_the_class_must_know_is_printed(folder, cli):
    vit_zoo.save(model_of(ViTSpec.parse({**BASE, **NO_CLASS, **NO_HEAD, **MEAN, "pool_tokens": "all"})), "model")
    code, text, _ = cli("convert", "model", "-o", "out", "--to", "hf")
    assert code == 0
    assert "IJepaModel adds a pooler with random weights: the output is the mean of its last_hidden_state" in text


def test_a_repository_names_only_clients_that_compute_the_model(folder):
    model = model_of(ViTSpec.parse({**BASE, "representation": 48, **NO_HEAD}))
    vit_zoo.save(model, "model")
    profile = profile_of(find_source("model"))
    assert "timm" not in profile.clients
    assert profile.reasons["timm"] == "timm cannot express representation = 48, only 0"
    assert "transformers" in profile.clients
    assert "architecture" not in profile.config
    assert profile.architecture == "ViTModel"
