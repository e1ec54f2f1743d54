"""Tests of a weight dialect added as one table and one row: a library that does not exist is read and written."""

from __future__ import annotations

import json

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file

import vit_zoo
from vit_zoo.errors import InputError, NotRepresentable, RefusedContent
from vit_zoo.loading.source import find_source
from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, layer, rule
from vit_zoo.weights.dialects import DIALECTS
from vit_zoo.weights.sidecar import SidecarFormat
from vit_zoo.weights.target_classes import UNLIMITED
from vit_zoo.weights.write import TARGETS, Target

BLOCK = "stage.{i}"


def facts_of_config(config, where):
    return {"heads": config["n_heads"], "act": config["activation"]}


def config_of(config):
    words = {} if config.labels is None else {"words": config.labels}
    return {"acme_version": "1", "n_heads": config.spec.heads, "activation": config.spec.act, **words}


ACME = Dialect(
    name="acme",
    signature=("stem.kernel", "stage.0.q.kernel"),
    rules=(
        rule("cls_token", "token", pattern="d -> 1 1 d"),
        rule("pos_embed", "table", pattern="t d -> 1 t d"),
        *layer("patch_embed.proj", "stem", weight=".kernel", pattern="p q c d -> d c p q"),
        *layer("blocks.{i}.norm1", f"{BLOCK}.first"),
        *layer("blocks.{i}.attn.qkv", *(f"{BLOCK}.{part}" for part in "qkv"), weight=".kernel", pattern="i o -> o i"),
        *layer("blocks.{i}.attn.proj", f"{BLOCK}.out"),
        *layer("blocks.{i}.norm2", f"{BLOCK}.second"),
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.up"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.down"),
        *layer("norm", "last"),
        *layer("head", "answer"),
    ),
    conventions={"norm_eps": 1e-3, "pool": "cls"},
    prefixes=("tower.",),
    unprefixed=("answer",),
    renames=((r"^stages\.", "stage."),),
    needs=(Need("cls_token", "class_token"), HEAD_BIAS),
    unwanted=(r"steps",),
    unwanted_outside=(r"words\..*",),
    sidecar=SidecarFormat(
        facts_of_config, file="acme.json", required_key="acme_version", labels=lambda config: tuple(config["words"])
    ),
    write_config=config_of,
    added={"steps": lambda spec: (1,)},
)


@pytest.fixture
def acme(folder, monkeypatch):
    monkeypatch.setattr("vit_zoo.weights.detect.DIALECTS", (ACME, *DIALECTS))
    monkeypatch.setitem(TARGETS, "acme", Target(((ACME, UNLIMITED),), "model.safetensors", config=True))
    return folder


@pytest.fixture
def model():
    sizes = {"dim": 24, "depth": 2, "heads": 3, "dim_head": 8, "mlp_dim": 40}
    model = vit_zoo.create("vit_b16", image_size=16, patch_size=8, num_classes=2, **sizes, norm_eps=1e-3, act="quick_gelu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return model.eval()


def acmes_state(model):
    """The tensors as ACME's own code would store them, made without its rules."""
    ours = model.state_dict()
    state = {
        "tower.token": ours["cls_token"].flatten(),
        "tower.table": ours["pos_embed"][0],
        "tower.stem.kernel": rearrange(ours["patch_embed.proj.weight"], "d c p q -> p q c d"),
        "tower.stem.bias": ours["patch_embed.proj.bias"],
        "tower.steps": torch.zeros(1),
    }
    names = {"norm1": "first", "attn.proj": "out", "norm2": "second", "mlp.fc1": "up", "mlp.fc2": "down"}
    for i in range(2):
        for kind, ending in (("weight", "kernel"), ("bias", "bias")):
            for part, tensor in zip("qkv", ours[f"blocks.{i}.attn.qkv.{kind}"].chunk(3), strict=True):
                state[f"tower.stage.{i}.{part}.{ending}"] = tensor.T.contiguous() if kind == "weight" else tensor
            state |= {f"tower.stage.{i}.{theirs}.{kind}": ours[f"blocks.{i}.{name}.{kind}"] for name, theirs in names.items()}
    for name, theirs in (("norm", "tower.last"), ("head", "answer")):
        state |= {f"{theirs}.{kind}": ours[f"{name}.{kind}"] for kind in ("weight", "bias")}
    return {name: tensor.contiguous() for name, tensor in state.items()}


def test_a_file_of_a_new_dialect_is_read(acme, model):
    state = acmes_state(model)
    save_file({**state, "words.table": torch.ones(3)}, "weights.safetensors")
    (acme / "acme.json").write_text(json.dumps(config_of(model.config) | {"words": ["cat", "dog"]}))
    source = find_source("weights.safetensors")
    assert source.dialect == "acme"
    assert source.config.spec == model.spec
    assert source.config.labels == ("cat", "dog")
    assert source.origin["heads"] == source.origin["act"] == "its config"
    assert source.origin["norm_eps"] == "convention of acme"
    assert set(source.unwanted) == {"tower.steps", "words.table"}
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(vit_zoo.load("weights.safetensors").eval()(images), model(images))


def test_variants_of_names_and_damaged_files(acme, model):
    state = acmes_state(model)
    wrapped = {f"module.{name.replace('stage.', 'stages.')}": tensor for name, tensor in state.items()}
    save_file(wrapped, "wrapped.safetensors")
    assert find_source("wrapped.safetensors", heads=3, act="quick_gelu").config.spec == model.spec
    with pytest.raises(InputError, match="cannot infer heads, act"):
        find_source("wrapped.safetensors")
    for missing in ("tower.token", "tower.stage.1.k.kernel", "answer.bias"):
        save_file({name: tensor for name, tensor in state.items() if name != missing}, "damaged.safetensors")
        with pytest.raises(RefusedContent, match=missing) as refusal:
            find_source("damaged.safetensors", heads=3, act="quick_gelu")
        assert refusal.value.details["missing"] == [missing]


def test_a_file_of_a_new_dialect_is_written(acme, model):
    done = vit_zoo.convert(model, "out", "acme")
    assert (done.dialect, done.added) == ("acme", ("steps",))
    written, expected = load_file("out/model.safetensors"), acmes_state(model)
    assert set(written) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(written[name], tensor), name
    assert json.loads((acme / "out" / "acme.json").read_text()) == config_of(model.config)
    assert not (acme / "out" / "config.json").exists()
    registers = vit_zoo.create("vit_b16", **model.spec.model_dump(exclude={"registers"}), registers=2)
    with pytest.raises(NotRepresentable, match="acme has no place for 1 tensors, first 'reg_token'"):
        vit_zoo.convert(registers, "other", "acme")
