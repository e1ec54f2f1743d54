"""Tests of models of ours whose parts were changed: what is saved is what they compute, or nothing is saved."""

from __future__ import annotations

import copy
import warnings

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import vit_zoo
from support import peers
from support.models import SMALL, noise
from vit_zoo.errors import CheckFailed, InputError, RefusedContent, VitzooError

LABELS = tuple(f"class {i}" for i in range(11))
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))


def model(**options):
    return noise(vit_zoo.create("vit_b16", **{**SMALL, **options}))


def relative(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


# Changes after which a model is saved as what it computes


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def pruned(m):
    prune.l1_unstructured(m.blocks[0].mlp.fc1, "weight", 0.5)
    prune.ln_structured(m.blocks[2].attn.qkv, "weight", 0.25, n=2, dim=0)
    prune.random_unstructured(m.blocks[2].attn.qkv, "bias", 0.3)


def pruned_twice(m):
    for _ in range(2):
        prune.global_unstructured([(m.head, "weight"), (m.blocks[1].mlp.fc2, "weight")], prune.L1Unstructured, amount=0.3)


def pruned_and_trained(m):
    """The attribute `weight` is that of the last forward."""
    prune.l1_unstructured(m.head, "weight", 0.5)
    with torch.no_grad():
        m.head.weight_orig += 0.2


def compiled(m):
    for i, block in enumerate(m.blocks):
        m.blocks[i] = torch.compile(block, backend="eager")


def normed_by_hooks(m):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        nn.utils.weight_norm(m.head)
        nn.utils.spectral_norm(m.blocks[1].mlp.fc1)


def parametrized(m):
    parametrizations.weight_norm(m.head)
    parametrizations.spectral_norm(m.blocks[1].mlp.fc1)
    parametrizations.orthogonal(m.blocks[0].attn.proj)
    parametrize.register_parametrization(m, "cls_token", Halved())


SAVED = {
    "pruned": pruned,
    "pruned twice": pruned_twice,
    "pruned and trained": pruned_and_trained,
    "compiled blocks": compiled,
    "hooks of weight_norm and spectral_norm": normed_by_hooks,
    "parametrized": parametrized,
}


@pytest.mark.parametrize("change", SAVED)
@pytest.mark.parametrize("library", ["ours", "timm"])
def test_what_is_saved_is_what_the_model_computes(change, library, folder, caplog):
    changed = model() if library == "ours" else noise(peers.timm_vit())
    SAVED[change](changed)
    before = copy.deepcopy({name: p.detach().clone() for name, p in changed.state_dict().items()})
    with torch.no_grad():
        wanted = changed.eval()(IMAGES)
    changed.train()
    vit_zoo.save(vit_zoo.load(changed) if library == "timm" else changed, "saved")
    (done,) = vit_zoo.export(changed, out="a.onnx")
    assert done.report.verdict == "parity"
    with torch.no_grad():
        assert relative(vit_zoo.load("saved")(IMAGES), wanted) < 1e-5
    (exported,) = onnxruntime.InferenceSession("a.onnx").run(None, {"pixel_values": IMAGES.numpy()})
    assert relative(torch.from_numpy(exported), wanted) < 1e-5
    assert changed.training
    assert all(torch.equal(p, before[name]) for name, p in changed.state_dict().items())
    said = [record.getMessage() for record in caplog.records if record.name == "vit_zoo"]
    assert all("read as" in line for line in said)
    assert bool(said) == (change != "compiled blocks")


# New classifiers


HEADS = {
    "linear": (lambda: nn.Linear(48, 7), 7, True),
    "without bias": (lambda: nn.Linear(48, 3, bias=False), 3, False),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.3), nn.Linear(48, 4)), 4, True),
    "between identities": (lambda: nn.Sequential(nn.Identity(), nn.Linear(48, 1), nn.Flatten(), nn.Dropout()), 1, True),
    "none": (nn.Identity, 0, True),
    "as many classes": (lambda: nn.Linear(48, 11), 11, True),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_new_classifier_is_the_model_s(name, folder):
    make, classes, bias = HEADS[name]
    changed = model()
    changed.config = changed.config.replace(labels=LABELS)
    changed.head = make()
    noise(changed)
    assert (changed.spec.num_classes, changed.spec.head_bias) == (classes, bias)
    assert changed.config.spec == changed.spec == changed.blocks[0].spec
    assert changed.config.labels == (LABELS if classes == 11 else None)
    with torch.no_grad():
        wanted = changed(IMAGES)
    assert wanted.shape == (2, classes or 48)
    vit_zoo.save(changed, "saved")
    back = vit_zoo.load("saved")
    assert back.spec == changed.spec
    with torch.no_grad():
        assert relative(back(IMAGES), wanted) < 1e-5
    assert vit_zoo.export(changed, out="a.onnx")[0].report.verdict == "parity"


def test_both_classifiers_of_a_distilled_model(folder):
    changed = model(dist_token=True)
    changed.head = nn.Linear(48, 6)
    assert changed.spec.num_classes == 11  # the other one still has these
    with pytest.raises(RefusedContent, match=r"first 'head\.weight' has \[6, 48\], needs \[11, 48\]"):
        vit_zoo.save(changed, "saved")
    changed.head_dist = nn.Sequential(nn.Dropout(0.1), nn.Linear(48, 6))
    noise(changed)
    assert changed.spec.num_classes == 6
    vit_zoo.save(changed, "saved")
    with torch.no_grad():
        assert relative(vit_zoo.load("saved")(IMAGES), changed(IMAGES)) < 1e-5


def test_a_classifier_of_random_weights_is_random():
    fresh = vit_zoo.create("vit_b16", **SMALL)
    fresh.head = nn.Linear(48, 5)
    assert fresh.is_random()
    with torch.no_grad():
        fresh.head.weight += 1
    assert not fresh.is_random()


def test_a_model_of_tokens_has_no_classifier():
    tokens = model(num_classes=0, pool="none")
    with pytest.raises(InputError, match="pool 'none' returns tokens, so num_classes must be 0"):
        tokens.head = nn.Linear(48, 5)
    assert not hasattr(tokens, "head")
    assert tokens.spec.num_classes == 0


# Changes after which nothing is saved, because it could not be loaded, or would compute something else


def a_block_less(m):
    del m.blocks[1]


def a_block_more(m):
    m.blocks.append(copy.deepcopy(m.blocks[0]))


def set_head(make):
    return lambda m: setattr(m, "head", make())


def in_place(m):
    m.head.weight = nn.Parameter(torch.zeros(9, 48))


REFUSED = {
    "two layers": (set_head(lambda: nn.Sequential(nn.Linear(48, 20), nn.GELU(), nn.Linear(20, 4))), "a classifier is one linear"),
    "a norm before it": (set_head(lambda: nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 4))), "a classifier is one linear"),
    "a sigmoid behind it": (set_head(lambda: nn.Sequential(nn.Linear(48, 4), nn.Sigmoid())), "a classifier is one linear"),
    "another width": (set_head(lambda: nn.Linear(40, 4)), r"'head\.weight' has \[4, 40\], needs \[11, 48\]"),
    "None": (set_head(lambda: None), "has no tensor 'head.weight'"),
    "no head": (lambda m: delattr(m, "head"), "has no tensor 'head.weight'"),
    "another weight": (in_place, r"'head\.weight' has \[9, 48\]"),
    "an adapter": (lambda m: setattr(m.blocks[0], "adapter", nn.Linear(48, 48)), r"'blocks\.0\.adapter\.weight'"),
    "a counter": (lambda m: m.register_buffer("steps", torch.tensor(3)), "'steps'; the model is of the class ViT"),
    "a block less": (a_block_less, "has no tensor 'blocks.2.norm1.weight'"),
    "a block more": (a_block_more, "'blocks.3.norm1.weight'"),
    "complex": (lambda m: setattr(m.head, "weight", nn.Parameter(m.head.weight.to(torch.complex64))), "complex64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_not_be_loaded_is_not_saved(name, folder):
    change, message = REFUSED[name]
    changed = model()
    change(changed)
    for go in (
        lambda: vit_zoo.save(changed, "saved"),
        lambda: vit_zoo.export(changed, out="a.onnx"),
        lambda: vit_zoo.load(changed),
    ):
        with pytest.raises(RefusedContent, match=message) as refusal:
            go()
        assert "\n" not in str(refusal.value)
    assert list(folder.iterdir()) == []


def test_a_dead_hook_is_no_difference(folder):
    """A sigmoid behind the head, hooked: its tensors are those of the config, its outputs are not."""
    changed = model()
    changed.head.register_forward_hook(lambda part, args, result: result.sigmoid())
    with pytest.raises(CheckFailed, match="behind the blocks"):
        vit_zoo.save(changed, "saved")
    assert list(folder.iterdir()) == []


# PEFT


@pytest.mark.parametrize("options", [{"r": 4}, {"r": 2, "use_dora": True}, {"r": 4, "modules_to_save": ["head"]}])
def test_adapters_of_peft_are_merged(options, folder):
    import peft  # slow to import

    base = model()
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["qkv", "fc2"], **options))
    for name, p in adapted.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            nn.init.normal_(p, std=0.2)
    with torch.no_grad():
        wanted = adapted.eval()(IMAGES)
    for other in (adapted, adapted.base_model.model):
        with pytest.raises(RefusedContent, match=r"merge the adapters first: model\.merge_and_unload\(\)"):
            vit_zoo.save(other, "saved")
    merged = adapted.merge_and_unload()
    vit_zoo.save(merged, "saved")
    with torch.no_grad():
        assert relative(merged(IMAGES), wanted) < 1e-5
        assert relative(vit_zoo.load("saved")(IMAGES), wanted) < 1e-5


# float64


@pytest.mark.parametrize(
    "options",
    [["--onnx", "-o", "a.onnx"], ["--onnx", "--fp16"], ["--onnx", "--bf16"], ["--torchscript", "-o", "a.torchscript.pt"]],
)
def test_weights_in_float64_are_exported_in_float32(options, folder, cli):
    source = noise(peers.timm_vit(norm_eps=1e-6)).double()
    torch.save(source.state_dict(), "weights.pth")
    facts = ["--set", "heads=3", "--set", "image_size=32,48"]
    code, out, err = cli(
        "export", "weights.pth", *facts, *options, "-o", f"a.{'torchscript.pt' if '--torchscript' in options else 'onnx'}"
    )
    assert code == 0, err
    assert "verified" in out


def test_float64_stays_float64_in_folders(folder):
    source = noise(peers.timm_vit()).double()
    vit_zoo.save(vit_zoo.load(source), "saved")
    assert vit_zoo.load("saved").head.weight.dtype == torch.float64
    assert vit_zoo.export("saved", out="a.onnx")[0].report.verdict == "parity"
    assert vit_zoo.verify("a.onnx", "saved").ok


def test_float64_beyond_float32_is_refused(folder):
    source = noise(peers.timm_vit()).double()
    with torch.no_grad():
        source.norm.bias[3] = 1e39
    torch.save(source.state_dict(), "weights.pth")
    with pytest.raises(VitzooError, match=r"'norm\.bias' has values beyond the range of float32"):
        vit_zoo.export("weights.pth", out="a.onnx", heads=3, image_size=(32, 48))
    assert [file.name for file in folder.iterdir()] == ["weights.pth"]
