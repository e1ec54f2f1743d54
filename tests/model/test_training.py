"""Tests of training, and of saving, loading, exporting and verifying a trained model."""

from __future__ import annotations

import copy
import io

import pytest
import torch

import vit_zoo
from support import peers
from support.models import SMALL, noise
from vit_zoo.errors import InputError
from vit_zoo.files import digest_of
from vit_zoo.model import vit


def twenty_steps(model):
    """The losses of twenty AdamW steps on eight fixed images."""
    images, labels = torch.randn(8, 3, 32, 48), torch.arange(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    model.train()
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": "map", "pool_tokens": "patches", "registers": 2},
        {"dist_token": True, "qk_norm": True},
        {"pos": "rope", "pos_covers": "patches", "qkv_bias": "qv", "mlp": "swiglu", "act": "silu", "dropout": 0.1},
        {"pos": "sincos_mae", "pos_covers": "patches", "pool": "cls+mean", "pool_tokens": "patches", "representation": 20},
        {"patch_norms": True, "pre_norm": True, "layer_scale": True, "drop_path": 0.1, "dropout": 0.1, "emb_dropout": 0.1},
    ],
)
def test_twenty_steps_lower_the_loss_and_the_result_exports(options, folder):
    model = vit_zoo.create("vit_b16", **SMALL, **options)
    losses = twenty_steps(model)
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    vit_zoo.save(model.eval(), "trained")
    loaded = vit_zoo.load("trained", check="full")
    assert loaded.config.random_seed is None  # trained weights are not random ones
    assert all(torch.equal(p, loaded.state_dict()[name]) for name, p in model.state_dict().items())
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():  # mapped weights are aligned otherwise, and a product's last bit depends on that
        torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=1e-5)
    (exported,) = vit_zoo.export("trained", out="trained.onnx")
    assert exported.report.ok
    assert vit_zoo.verify("trained.onnx", "trained").ok


def test_drop_path_against_timm():
    """Stochastic depth: same weights, same random numbers, same logits."""
    theirs = noise(peers.timm_vit(drop_path_rate=0.5)).train()
    ours = vit_zoo.load(theirs, drop_path=0.5).train()
    images = torch.randn(8, 3, 32, 48)
    torch.manual_seed(5)
    wanted = theirs(images)
    torch.manual_seed(5)
    torch.testing.assert_close(ours(images), wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours(images), wanted, atol=1e-3)


def test_set_head_of_two_heads():
    model = vit_zoo.create("vit_b16", **SMALL, dist_token=True)
    model.set_head(3)
    assert model(torch.randn(1, 3, 32, 48)).shape == (1, 3)
    assert model.head_dist.weight.shape == (3, 48)
    assert not torch.equal(model.head.weight, model.head_dist.weight)
    model.set_head(0)
    assert not hasattr(model, "head_dist")


def test_set_head():
    model = vit_zoo.create("vit_b16", **SMALL)
    body = {name: p.clone() for name, p in model.named_parameters() if not name.startswith("head")}
    model.set_head(3, labels=["a", "b", "c"])
    assert model(torch.randn(1, 3, 32, 48)).shape == (1, 3)
    assert model.config.labels == ("a", "b", "c")
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in body.items())
    model.set_head(0)
    assert model(torch.randn(1, 3, 32, 48)).shape == (1, 48)
    assert model.is_random()
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        model.set_head(3, labels=["a", "b"])


def test_a_fresh_head_is_random_until_it_is_trained(folder):
    model = vit_zoo.create("vit_b16", **SMALL)
    twenty_steps(model)
    vit_zoo.save(model, "trained")
    model = vit_zoo.load("trained", num_classes=8)
    assert model.is_random()
    (done,) = vit_zoo.export(model, out="probe.onnx", verify=False)
    assert done.config.random_seed == 0
    twenty_steps(model)
    (done,) = vit_zoo.export(model, out="probe.onnx", verify=False)
    assert done.config.random_seed is None


def test_weights_are_marked_random_until_they_change(folder):
    model = vit_zoo.create("vit_b16", **SMALL)
    vit_zoo.save(model, "fresh")
    again = vit_zoo.load("fresh")
    assert again.config.random_seed == 0
    assert again.is_random()
    vit_zoo.save(again, "copy")
    assert vit_zoo.load("copy").config.random_seed == 0
    with torch.no_grad():
        again.head.weight.mul_(2)
    vit_zoo.save(again, "touched")
    assert vit_zoo.load("touched").config.random_seed is None


def half_of_the_head(model):
    model.head.weight.data.mul_(0.5)


def one_step_of_foreach(model):
    torch._foreach_add_([p.data for p in model.parameters()], 0.01)


def swapped_state(model):
    model.load_state_dict({name: p + 0.1 for name, p in model.state_dict().items()}, assign=True)


def numpy_values(model):
    model.norm.weight.detach().numpy()[:] = 0.5


CHANGES = [half_of_the_head, one_step_of_foreach, swapped_state, numpy_values]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("cast", [torch.float32, torch.bfloat16, torch.float64])
def test_values_that_changed_are_not_random(change, cast, folder):
    model = vit_zoo.create("vit_b16", **SMALL).to(cast)
    assert model.is_random()
    if change is numpy_values and cast is torch.bfloat16:
        pytest.skip("numpy has no bfloat16")
    change(model)
    assert not model.is_random()
    vit_zoo.save(model, "trained")
    assert vit_zoo.load("trained").config.random_seed is None


def pickled(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def filled_from_its_state(model):
    other = vit_zoo.create("vit_b16", **SMALL, seed=4)
    other.load_state_dict(model.state_dict())
    model.load_state_dict(model.state_dict())
    assert not other.is_random()  # its own seed gives other values
    return model


def with_a_compiled_block(model):
    """A block whose parameters have other names."""
    kept = vit_zoo.load(vit_zoo.save(model, "once"))
    copied = copy.deepcopy(model)
    for one in (kept, copied):
        one.blocks[0] = torch.compile(one.blocks[0])
        assert one.is_random()
    return model


COPIES = {
    "deepcopy": copy.deepcopy,
    "deepcopy of a loaded one": lambda model: copy.deepcopy(vit_zoo.load(vit_zoo.save(model, "once"))),
    "pickle": pickled,
    "compiled block": with_a_compiled_block,
    "load_state_dict": filled_from_its_state,
    "bfloat16": lambda model: copy.deepcopy(model).to(torch.bfloat16),
    "there and back": lambda model: model.double().half().float(),
    "frozen": lambda model: copy.deepcopy(model).requires_grad_(False),
    "eval": lambda model: copy.deepcopy(model).eval(),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch.compile
@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_random_weights_is_random(copied, folder):
    model = COPIES[copied](vit_zoo.create("vit_b16", **SMALL, seed=3))
    assert model.is_random()
    vit_zoo.save(model, "copy")
    assert vit_zoo.load("copy").config.random_seed == 3
    with pytest.raises(InputError, match="RANDOM WEIGHTS"):
        vit_zoo.publish("copy", "me/copy", dry_run="staged")


def test_random_weights_are_not_read_when_they_are_loaded(folder, monkeypatch):
    vit_zoo.save(vit_zoo.create("vit_b16", **SMALL, seed=2), "fresh")
    read = []
    monkeypatch.setattr(vit, "_checksum", lambda p: read.append(p) or 0)
    monkeypatch.setattr(vit, "digest_of", lambda tensors: read.append(tensors) or digest_of(tensors))
    model = vit_zoo.load("fresh")
    assert not read
    assert model.is_random()
    assert len(read) == 1  # the content hash that the file states
    model.blocks[1].norm1.weight.data[0] += 1e-6
    assert not model.is_random()


def test_weights_without_a_stated_seed_are_random(folder):
    spec = vit_zoo.create("vit_b16", **SMALL).spec
    for model in (vit_zoo.ViT.from_spec(spec), copy.deepcopy(vit_zoo.ViT.from_spec(spec))):
        vit_zoo.save(model, "kept")
        kept = vit_zoo.load("kept")
        again = vit_zoo.ViT.from_spec(spec, seed=kept.config.random_seed)
        assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), again.parameters(), strict=True))


def test_seeds_determine_the_weights():
    one, same, other = (vit_zoo.create("vit_b16", **SMALL, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_a_loaded_module_owns_its_memory():
    peer = noise(peers.timm_vit())
    ours = vit_zoo.load(peer)
    with torch.no_grad():
        ours.head.weight.zero_()
    assert peer.head.weight.abs().sum() > 0


DROPOUTS = {"dropout": 0.2, "emb_dropout": 0.1, "drop_path": 0.3}


def gradients(model, images):
    """The gradients of a training step, and the bytes that the forward keeps for it."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    torch.manual_seed(3)
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = model(images).square().sum()
    size = sum(kept.values())
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}, size


@pytest.mark.parametrize("options", [{}, DROPOUTS, {**DROPOUTS, "pos": "rope", "pos_covers": "patches", "layer_scale": True}])
def test_checkpointed_gradients_are_the_same_in_less_memory(options):
    model = vit_zoo.create("vit_b16", **{**SMALL, "depth": 6}, **options).train()
    images = torch.randn(16, 3, 32, 48)
    expected, whole = gradients(model, images)
    model.set_grad_checkpointing()
    actual, less = gradients(model, images)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert less < whole / 2
    model.set_grad_checkpointing(enable=False)
    assert gradients(model, images)[1] == whole


def test_checkpointing_changes_neither_inference_nor_exports(folder):
    model = noise(vit_zoo.create("vit_b16", **SMALL))
    (plain,) = vit_zoo.export(model, out="plain.onnx")
    images = torch.randn(2, 3, 32, 48)
    expected = model(images)
    model.set_grad_checkpointing()
    assert torch.equal(model(images), expected)
    attention = model.train().features(images, "attn.2", "logits")
    torch.testing.assert_close(attention["logits"], expected)
    (done,) = vit_zoo.export(model, out="checkpointed.onnx")
    assert done.report.ok
    assert done.path.read_bytes() == plain.path.read_bytes()
