"""Tests of finding the model in a checkpoint file: nestings, prefixes, copies, replaced heads, and what is left out by name."""

from __future__ import annotations

import argparse
import copy
import json
import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import vit_zoo
from support import peers
from support.models import noise
from vit_zoo.errors import InputError, NotRepresentable, RefusedContent
from vit_zoo.loading.load import find_weights
from vit_zoo.loading.source import find_source

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def timm_vit(seed=1, **changes):
    return noise(peers.VisionTransformer(**{**SIZES, "num_classes": 5, **changes}), seed)


@pytest.fixture(scope="module")
def model():
    return timm_vit()


@pytest.fixture(scope="module")
def features():
    return timm_vit(num_classes=0)


LINEAR = {"weight": torch.randn(4, 48, generator=torch.Generator().manual_seed(4)), "bias": torch.arange(4.0)}
OTHER = timm_vit(2).state_dict()


def under(prefix, state):
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def assert_reads(content, peer, **facts):
    """That the file gives the outputs of the peer; returns what was said about it."""
    torch.save(content, "file.pth")
    source = find_source("file.pth", heads=3, **facts)
    ours = vit_zoo.load("file.pth", heads=3, **facts).eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(IMAGES), peer(IMAGES), rtol=0, atol=1e-5)
    return source


def with_linear(features):
    return lambda images: features(images) @ LINEAR["weight"].T + LINEAR["bias"]


FSDP = "_fsdp_wrapped_module."
NESTED = {
    "a key": lambda s: {"checkpoint": s, "epoch": 3, "lr": 0.1},
    "two keys": lambda s: {"run": {"weights": s}, "loss": [1.0]},
    "a list": lambda s: [s, {"state": {0: {"exp_avg": torch.ones(48)}}, "param_groups": []}],
    "DeepSpeed": lambda s: {"module": under("module", s), "param_shapes": [{"a": torch.Size([1])}], "ds_version": "0.1"},
    "the number of an epoch beside the tensors": lambda s: {**s, "epoch": 3},
    "Lightning": lambda s: {"state_dict": under("model.net", s), "hyper_parameters": argparse.Namespace(lr=1), "callbacks": {}},
    "an optimizer": lambda s: {"net": s, "opt": {"state": {0: {"exp_avg": torch.ones(5, 48)}}, "param_groups": [{"lr": 1}]}},
    "another name": lambda s: under("my.visual_encoder", s),
    "compiled, then DDP": lambda s: under("module._orig_mod", s),
    "checkpointed blocks": lambda s: {k.replace(".mlp.", "._checkpoint_wrapped_module.mlp."): v for k, v in s.items()},
    "FSDP": lambda s: {"model": {f"{FSDP}{k.replace('.attn.', f'.{FSDP}attn.')}": v for k, v in s.items()}},
    "averaged": lambda s: {"n_averaged": torch.tensor(3), **under("module", s)},
    "a counter": lambda s: {**s, "global_step": torch.tensor(7)},
    "another network": lambda s: {"vit": s, "discriminator": {"conv.weight": torch.randn(8, 3, 3, 3)}},
    "a loss and a metric": lambda s: {**under("net", s), "loss_fn.weight": torch.ones(5), "val_f1.fp": torch.zeros(5)},
    "the same values twice": lambda s: {"last": s, "best": copy.deepcopy(s)},
    "timm's average": lambda s: {"state_dict": OTHER, "state_dict_ema": s, "arch": "vit"},
    "DeiT's average": lambda s: {"model": OTHER, "model_ema": s},
}  # fmt: skip


@pytest.mark.parametrize("nesting", NESTED)
def test_the_one_model_in_a_file_is_found(nesting, model, folder):
    assert_reads(NESTED[nesting](model.state_dict()), model)


PROJECTION = {"mlp.0.weight": torch.randn(9, 48), "mlp.0.bias": torch.ones(9), "last_layer.weight_v": torch.randn(7, 9)}


def training_files(state, other):
    masked = {"masked_embed": torch.zeros(1, 48)}
    mlp = {"head.0.weight": torch.randn(9, 48), "head.1.running_mean": torch.ones(9), "head.3.weight": torch.randn(5, 9)}
    return {
        "iBOT": {
            "student": under("module.backbone", {**other, **masked}) | under("module.head", PROJECTION),
            "teacher": under("backbone", {**state, **masked}) | under("head", PROJECTION),
            "ibot_loss": {"center": torch.zeros(1, 7)},
        },
        "DINOv3": {
            "model": under("student.backbone", other) | under("teacher.backbone", state) | under("teacher.dino_head", PROJECTION)
        },
        "MoCo v3": {
            "state_dict": under("module.base_encoder", {**state, **mlp})
            | under("module.momentum_encoder", {**other, **mlp})
            | {"module.predictor.0.weight": torch.randn(9, 5)}
        },
        "solo-learn": {
            "state_dict": under("backbone", state) | under("momentum_backbone", other) | under("classifier", LINEAR)
            | {"queue": torch.randn(2, 48)}
        },
        "a projector alone": under("encoder", state)
        | under("projection_head", {f"0.{name}": tensor for name, tensor in LINEAR.items()} | {"2.weight": torch.ones(3, 4)}),
    }  # fmt: skip


@pytest.mark.parametrize("source", ["iBOT", "DINOv3", "MoCo v3", "solo-learn", "a projector alone"])
def test_self_supervised_training_files_hold_a_backbone(source, features, folder):
    other = timm_vit(2, num_classes=0).state_dict()
    found = assert_reads(training_files(features.state_dict(), other)[source], features)
    assert found.config.spec.num_classes == 0
    assert any("left out" in note for note in found.notes)


TWO = {
    "averages of an undocumented name": lambda a, b: ({"ema": a, "model": b}, "ema"),
    "an average in Lightning": lambda a, b: ({"state_dict": under("net", b) | under("net_ema.module", a)}, "net_ema"),
    "one inside the other": lambda a, b: ({"net": {**a, "best": b}}, "net"),
    "an average beside the tensors": lambda a, b: ({**a, **under("ema", b)}, ""),
    "a teacher and its student": lambda a, b: ({"teacher": b, "student": a, "epoch": 1}, "student"),
    "distillation": lambda a, b: ({"state_dict": under("teacher", b) | under("student", a)}, "state_dict.student"),
}  # fmt: skip


@pytest.mark.parametrize("case", TWO)
def test_two_models_are_asked_about(case, model, folder, cli):
    content, prefix = TWO[case](model.state_dict(), OTHER)
    torch.save(content, "file.pth")
    with pytest.raises(InputError, match=rf"contains 2 models.*prefix=\S*{prefix}") as error:
        vit_zoo.load("file.pth", heads=3)
    assert error.value.code == 2
    assert_reads(content, model, prefix=prefix)
    assert_reads(content, model, prefix=f"{prefix}.")
    code, out, _ = cli("show", "file.pth", "--set", "heads=3", "--set", f"prefix={prefix}")
    assert code == 0
    assert prefix in out
    code, _, err = cli("export", "file.pth", "--onnx", "--set", "heads=3")
    assert code == 2
    assert f"prefix={prefix}" in err or f"prefix=state_dict.{prefix}" in err


def test_a_student_of_another_size_is_no_copy_of_the_teacher(folder):
    small = timm_vit(depth=1)
    torch.save({"teacher": OTHER, "student": small.state_dict()}, "file.pth")
    with pytest.raises(InputError, match="contains 2 models"):
        vit_zoo.load("file.pth", heads=3)


def test_a_prefix_that_is_not_there(model, folder):
    torch.save({"model": model.state_dict()}, "file.pth")
    with pytest.raises(InputError, match=r"no ViT under prefix 'net' \(state which: prefix=model\)"):
        vit_zoo.load("file.pth", heads=3, prefix="net")
    vit_zoo.save(vit_zoo.create("vit_ti16", depth=1, image_size=32), "ours")
    with pytest.raises(InputError, match="prefix does not apply"):
        vit_zoo.load("ours", prefix="net")


@pytest.mark.parametrize("facts", [{"prefix": "ema.vit"}, {"prefix": "ema"}, {}])
def test_a_head_beside_one_of_two_models_is_found_by_the_prefix_of_both(facts, features, folder):
    """The prefix of the ViT alone reads the ViT alone; the one that is suggested reads its head too."""
    states = features.state_dict(), timm_vit(2, num_classes=0).state_dict()
    average, plain = (under("vit", state) | under("fc", LINEAR) for state in states)
    if facts:
        assert_reads({"ema": average, "net": plain}, with_linear(features) if facts["prefix"] == "ema" else features, **facts)
    else:
        assert_reads({"state_dict_ema": average, "state_dict": plain}, with_linear(features))


def test_a_prefix_is_that_of_the_weights(folder):
    own, new = (vit_zoo.create("vit_ti16", depth=1, image_size=32, seed=seed) for seed in (0, 1))
    vit_zoo.save(own, "ours")
    torch.save({"ema": new.state_dict(), "model": own.state_dict()}, "file.pth")
    source = find_weights("ours", weights="file.pth", prefix="ema")
    assert source.tensors["norm.weight"].array().tolist() == new.norm.weight.tolist()
    key = "blocks.0.attn.qkv.weight"
    assert source.tensors[key].array().tolist() == new.state_dict()[key].tolist()


HEADS = ("fc", "val_head", "classifier.1", "head.fc", "out_layer", "heads.0.2")


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("place", ["in the model", "beside the model", "in Lightning"])
def test_one_linear_layer_is_the_head(name, place, features, folder):
    state = features.state_dict()
    content = {
        "in the model": {**state, **under(name, LINEAR)},
        "beside the model": under("backbone", state) | under(name, LINEAR),
        "in Lightning": {
            "state_dict": under("net.vit", state) | under(f"net.{name}", LINEAR) | {"criterion.weight": torch.ones(4)}
        },
    }[place]
    source = assert_reads(content, with_linear(features))
    assert any(f"{name}' is read as its head" in note for note in source.notes)


NORM = {"weight": torch.ones(48), "bias": torch.ones(48)}
MLP = {"0.weight": torch.randn(6, 48), "0.bias": torch.ones(6), "3.weight": torch.randn(4, 6), "3.bias": torch.ones(4)}
NO_HEADS = {
    "a norm and a linear layer": (under("head.0", NORM) | under("head.1", LINEAR), "head.*"),
    "an MLP": (under("classifier", MLP), "classifier.*"),
    "two linear layers": (under("fc_age", LINEAR) | under("fc_sex", LINEAR), "fc_*"),
    "a chain": ({"a.weight": torch.randn(6, 48), "a.bias": torch.ones(6), "b.weight": torch.randn(4, 6)}, "[ab].*"),
    "prompts": ({"prompts": torch.randn(1, 3, 48)}, "prompts"),
    "a convolution": ({"decode_head.conv.weight": torch.randn(4, 48, 1, 1)}, "decode_head.*"),
}


@pytest.mark.parametrize("place", ["in the model", "beside the model"])
@pytest.mark.parametrize("kind", NO_HEADS)
def test_more_than_one_linear_layer_is_refused_until_it_may_be_dropped(kind, place, features, folder):
    layers, pattern = NO_HEADS[kind]
    state = features.state_dict() if place == "in the model" else under("body", features.state_dict())
    torch.save({**state, **layers}, "file.pth")
    with pytest.raises(RefusedContent, match=r"allow_drop=\[") as error:
        vit_zoo.load("file.pth", heads=3)
    assert error.value.code == 7
    assert set(error.value.details["unexpected"]) == set(layers)
    assert_reads({**state, **layers}, features, allow_drop=[pattern])


def test_a_layer_after_the_head_is_refused(model, folder):
    torch.save(under("vit", model.state_dict()) | {"fc.weight": torch.randn(3, 5), "fc.bias": torch.ones(3)}, "file.pth")
    with pytest.raises(RefusedContent, match=r"fc\.weight, fc\.bias"):
        vit_zoo.load("file.pth", heads=3)


@pytest.mark.parametrize("name", ["blocks.1.adapter", "patch_embed.more", "prompts"])
def test_a_layer_within_the_model_is_not_its_head(name, features, folder):
    extra = LINEAR if name != "prompts" else {"weight": LINEAR["weight"]}  # a table of embeddings
    torch.save({**features.state_dict(), **under(name, extra)}, "file.pth")
    with pytest.raises(RefusedContent, match=name):
        vit_zoo.load("file.pth", heads=3)


LIVE = {
    "torchvision": (peers.torchvision_vit, "heads"),
    "timm": (timm_vit, "head"),
}


@pytest.mark.parametrize("library", LIVE)
@pytest.mark.parametrize("layers", ["linear", "dropout", "softmax"])
def test_replaced_heads_of_live_modules(library, layers, folder):
    make, name = LIVE[library]
    linear = nn.Linear(48, 4)
    head = {"linear": linear, "dropout": nn.Sequential(nn.Dropout(0.5), linear), "softmax": nn.Sequential(linear, nn.Softmax(-1))}
    peer = make()
    setattr(peer, name, head[layers])
    noise(peer)
    if layers == "softmax":
        with pytest.raises(NotRepresentable, match="Softmax"):
            vit_zoo.load(peer)
        return
    ours = vit_zoo.load(peer).eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(IMAGES), peer(IMAGES), rtol=0, atol=1e-5)


def test_what_was_decided_is_said_once_and_shown(model, folder, cli, caplog):
    save_file(under("net.model", model.state_dict()) | {"proxy_loss.weight": torch.ones(5)}, "file.safetensors")
    assumed = "assumed by convention of timm: norm_eps = 1e-06, act = gelu, pool = cls"
    notes = ["the model is under 'net.model'", "left out: proxy_loss.weight", assumed]
    note = f"file.safetensors: {'; '.join(notes)}"
    with caplog.at_level(logging.WARNING, logger="vit_zoo"):
        vit_zoo.load("file.safetensors", heads=3)
    assert [record.getMessage() for record in caplog.records] == [note]
    code, out, err = cli("convert", "file.safetensors", "-o", "ours", "--set", "heads=3")
    assert code == 0
    assert err == f"vitzoo: {note}\n"
    assert "left out, not part of the model: proxy_loss.weight" in out
    code, out, _ = cli("show", "file.safetensors", "--set", "heads=3", "--json")
    document = json.loads(out)
    assert (code, document["left_out"]) == (0, ["proxy_loss.weight"])
    assert document["notes"] == notes
    code, out, _ = cli("show", "file.safetensors")
    assert code == 0
    assert "under 'net.model'" in out
    assert "heads=N" in out
    code, out, err = cli("convert", "ours", "-o", "again")
    assert (code, err) == (0, "")


def test_unknown_tensors_may_be_dropped_by_every_command(model, folder, cli):
    state = model.state_dict()
    torch.save({**state, "centers": torch.ones(5, 7)}, "file.pth")
    options = ["file.pth", "--set", "heads=3", "-o"]
    code, _, err = cli("convert", *options, "ours")
    assert code == 7
    assert "'centers'" in err
    assert "--allow-drop 'centers'" in err
    for command in (["convert", *options, "ours"], ["export", *options, "file.onnx", "--onnx"]):
        assert cli(*command, "--allow-drop", "cent*").code == 0
        code, _, err = cli(*command, "--allow-drop", "cent*", "--allow-drop", "nothing.*")
        assert code == 2
        assert "no tensor matches 'nothing.*'" in err
    assert vit_zoo.load("file.pth", heads=3, allow_drop=["centers", "head.*"]).spec.num_classes == 0
    with pytest.raises(InputError, match="the model would be incomplete"):
        vit_zoo.load("file.pth", heads=3, allow_drop=["centers", "norm.*"])
