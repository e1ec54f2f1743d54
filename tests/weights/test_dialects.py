"""Tests of file variants without a case or a live peer: written by hand, they compute the same as their plain form."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file

import vit_zoo
from support import peers
from support.cases import case
from support.models import noise
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.loading.source import find_source

SMALL = {"img_size": 32, "patch_size": 8}


def outputs(file, **facts):
    model = vit_zoo.load(file, dtype=torch.float32, **facts).eval()
    images = torch.randn(2, 3, *model.spec.image_size, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return model(images)


def same_as(plain, other, dialect, **facts):
    assert find_source(other, **facts).dialect == dialect
    torch.testing.assert_close(outputs(other, **facts), outputs(plain, **facts), rtol=0, atol=1e-6)


def renamed(state, *pairs):
    def new(name):
        for old, now in pairs:
            name = name.replace(old, now)
        return name

    return {new(name): tensor for name, tensor in state.items()}


def test_mae_pretraining_checkpoint(folder):
    state = noise(peers.timm_vit(**SMALL, num_classes=0)).state_dict()
    save_file(state, "plain.safetensors")
    decoder = {
        "decoder_embed.weight": torch.ones(8, 48),
        "decoder_blocks.0.norm1.weight": torch.ones(8),
        "mask_token": torch.ones(1, 1, 8),
    }
    torch.save({"model": {**state, **decoder}, "epoch": 799}, "full.pth")
    same_as("plain.safetensors", "full.pth", "mae", heads=3)
    assert set(find_source("full.pth", heads=3).unwanted) == set(decoder)


def test_dinov2_giant(folder):
    peer = peers.timm_vit(**SMALL, mlp_layer=peers.SwiGLUPacked, act_layer="silu", init_values=0.1, num_classes=0)
    state = noise(peer).state_dict()
    save_file(state, "plain.safetensors")
    meta = renamed(state, ("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3"))
    torch.save({**meta, "mask_token": torch.ones(1, 48)}, "giant.pth")
    same_as("plain.safetensors", "giant.pth", "dinov2-swiglu", heads=3)


def metas_dinov3(state):
    """timm's weights under Meta's names: one bias for queries, keys and values, and a mask that drops that of the keys."""
    pairs = (("fc1_g", "w1"), ("fc1_x", "w2"), ("mlp.fc2", "mlp.w3"), ("reg_token", "storage_tokens"))
    found = renamed(state, *pairs, ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"))
    for i in range(3):
        q, v = (found.pop(f"blocks.{i}.attn.{part}_bias") for part in "qv")
        found[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q, torch.randn(48), v])
        found[f"blocks.{i}.attn.qkv.bias_mask"] = torch.cat([torch.ones(48), torch.zeros(48), torch.ones(48)])
    return {**found, "rope_embed.periods": torch.ones(4), "mask_token": torch.ones(1, 48)}


def test_dinov3_gated(folder):
    state = noise(peers.timm_eva(**SMALL, swiglu_mlp=True, swiglu_align_to=8, num_classes=0)).state_dict()
    save_file(state, "plain.safetensors")
    meta = metas_dinov3(state)
    torch.save(meta, "meta.pth")
    wanted = outputs("plain.safetensors", image_size=32, heads=3)
    torch.testing.assert_close(outputs("meta.pth", image_size=32), wanted, rtol=0, atol=1e-6)
    assert find_source("meta.pth", image_size=32).dialect == "dinov3-swiglu"
    assert find_source("meta.pth", image_size=32).origin["heads"] == "shapes"  # of the periods of the rotation
    meta["blocks.1.attn.qkv.bias_mask"] = torch.ones(144)
    torch.save(meta, "meta.pth")
    with pytest.raises(RefusedContent, match=r"blocks\.1\.attn\.qkv\.bias_mask' is not DINOv3's mask"):
        vit_zoo.load("meta.pth", image_size=32)


def test_vit_pytorch_1_2(folder):
    """Norms around the patches, and the last norm in the head: our own model of that form under their names."""
    spec = {
        "image_size": 32, "patch_size": 8, "num_classes": 7, "dim": 48, "depth": 2, "heads": 3, "dim_head": 16, "mlp_dim": 72,
        "channels": 3,
    }  # fmt: skip
    peer = noise(vit_zoo.ViT(**spec))
    ours = peer.state_dict()
    block = "transformer.layers."
    theirs = {
        "cls_token": ours["cls_token"], "pos_embedding": ours["pos_embed"],
        "mlp_head.0.weight": ours["norm.weight"], "mlp_head.0.bias": ours["norm.bias"],
        "mlp_head.1.weight": ours["head.weight"], "mlp_head.1.bias": ours["head.bias"],
        "to_patch_embedding.2.bias": ours["patch_embed.proj.bias"],
        "to_patch_embedding.2.weight": rearrange(ours["patch_embed.proj.weight"], "d c p q -> d (p q c)"),
        "to_patch_embedding.3.weight": ours["patch_embed.post_norm.weight"],
        "to_patch_embedding.3.bias": ours["patch_embed.post_norm.bias"],
        **{
            f"to_patch_embedding.1.{kind}": rearrange(ours[f"patch_embed.pre_norm.{kind}"], "(c p q) -> (p q c)", p=8, q=8)
            for kind in ("weight", "bias")
        },
    }  # fmt: skip
    names = {
        "norm1": "0.norm", "attn.qkv": "0.fn.to_qkv", "attn.proj": "0.fn.to_out.0", "norm2": "1.norm", "mlp.fc1": "1.fn.net.0",
        "mlp.fc2": "1.fn.net.3",
    }  # fmt: skip
    for name, tensor in ours.items():
        if name.startswith("blocks."):
            _, i, rest = name.split(".", 2)
            part, _, kind = rest.rpartition(".")
            theirs[f"{block}{i}.{names[part]}.{kind}"] = tensor
    torch.save(theirs, "old.pt")
    assert find_source("old.pt", heads=3).dialect == "vit-pytorch-1.2"
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():  # for the class token the norm may come before or after it is taken
        torch.testing.assert_close(vit_zoo.load("old.pt", heads=3).eval()(images), peer(images), rtol=0, atol=1e-6)


def arrays_of(name):
    with np.load(case(name)[0]) as file:
        return dict(file)


def test_big_vision_naflex(folder):
    arrays = arrays_of("bv_map_nohead")
    np.savez("plain.npz", **arrays)
    arrays["embedding/kernel"] = rearrange(arrays["embedding/kernel"], "p q c d -> (p q c) d")
    arrays["pos_embedding"] = rearrange(arrays["pos_embedding"], "1 (h w) d -> h w d", h=4)
    np.savez("naflex.npz", **{f"params/{name}": array for name, array in arrays.items()})
    same_as("plain.npz", "naflex.npz", "big_vision-naflex")


def test_transformers_siglip2(folder):
    """Its own class takes patches, in row order."""
    T = peers.transformers
    config = T.Siglip2VisionConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=72, num_patches=16, patch_size=8
    )  # fmt: skip
    peer = noise(T.Siglip2VisionModel(config)).eval()
    peer.save_pretrained("saved")
    images = torch.randn(2, 3, 32, 32)
    patches = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=8, q=8)
    given = {"pixel_attention_mask": torch.ones(2, 16, dtype=torch.int32), "spatial_shapes": torch.tensor([[4, 4]] * 2)}
    with torch.inference_mode():
        wanted = peer(pixel_values=patches, **given).pooler_output
        torch.testing.assert_close(vit_zoo.load("saved").eval()(images), wanted, rtol=0, atol=1e-5)
    assert find_source("saved").dialect == "hf-siglip2-naflex"


def test_google_checkpoint_with_optimizer_and_representation(folder):
    arrays = arrays_of("google_npz_token")
    np.savez("plain.npz", **arrays)
    wrapped = {f"opt/target/{name}": array for name, array in arrays.items()}
    np.savez("training.npz", **wrapped, **{"opt/state/step": np.int32(7)})
    same_as("plain.npz", "training.npz", "google")
    assert find_source("training.npz").unwanted == ("opt/state/step",)
    arrays["pre_logits/kernel"] = np.random.default_rng(0).normal(size=(64, 20)).astype(np.float32)
    arrays["pre_logits/bias"] = np.ones(20, np.float32)
    arrays["head/kernel"] = arrays["head/kernel"][:20]
    np.savez("original.npz", **arrays)
    model = vit_zoo.load("original.npz").eval()
    assert model.spec.representation == 20
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        pooled = vit_zoo.load("plain.npz", num_classes=0).eval()(images)
        hidden = torch.tanh(pooled @ torch.from_numpy(arrays["pre_logits/kernel"]) + 1)
        wanted = hidden @ torch.from_numpy(arrays["head/kernel"]) + torch.from_numpy(arrays["head/bias"])
        torch.testing.assert_close(model(images), wanted, rtol=0, atol=1e-5)


def test_old_big_vision_positions_include_the_class_token(folder):
    """N x N + 1 positions, of which the first belongs to the class token."""
    arrays = arrays_of("flexivit_native")
    np.savez("plain.npz", **arrays)
    first = np.random.default_rng(0).normal(size=(1, 1, 48)).astype(np.float32)
    arrays["pos_embedding"] = np.concatenate([first, arrays["pos_embedding"]], 1)
    arrays["cls"] = arrays["cls"] - first
    np.savez("old.npz", **arrays)
    torch.testing.assert_close(outputs("old.npz"), outputs("plain.npz"), rtol=0, atol=1e-5)


def test_ema_and_teacher_weights_are_preferred(folder):
    """EMA weights before those of the last step, the teacher before the student; the other copy is ignored."""
    good, other = (noise(peers.timm_vit(**SMALL), seed).state_dict() for seed in (1, 2))
    save_file(good, "plain.safetensors")
    torch.save({"state_dict": other, "state_dict_ema": good}, "ema.pth")
    torch.save({"student": other, "teacher": {f"module.backbone.{k}": v for k, v in good.items()}}, "dino.pth")
    for file in ("ema.pth", "dino.pth"):
        same_as("plain.safetensors", file, "timm", heads=3)
    torch.save({"module.a": torch.ones(2), **good, "module.head.bias": good["head.bias"]}, "mixed.pth")
    with pytest.raises(RefusedContent, match=r"module\."):
        vit_zoo.load("mixed.pth", heads=3)


def test_fixed_positions_of_big_vision_must_be_stated(folder):
    arrays = arrays_of("bv_gap")
    del arrays["pos_embedding"]
    np.savez("sincos.npz", **arrays)
    with pytest.raises(RefusedContent, match=r"has no tensor 'pos_embedding'.*if it is meant to be absent, state pos"):
        vit_zoo.load("sincos.npz")
    with pytest.raises(InputError, match="cannot infer image_size"):
        vit_zoo.load("sincos.npz", pos="sincos_moco")
    assert vit_zoo.load("sincos.npz", pos="sincos_moco", image_size=32).spec.pos == "sincos_moco"


def metas_of_transformers(peer):
    """A DINOv3 of transformers under Meta's names."""
    state = renamed(peers.transformers_state(peer), ("reg_token", "storage_tokens"))
    return {**{name: tensor.detach() for name, tensor in state.items()}, "rope_embed.periods": torch.ones(4)}


def dinov3(**options):
    sizes = {
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 72, "image_size": 32,
        "patch_size": 8, "num_register_tokens": 2,
    }  # fmt: skip
    T = peers.transformers
    return noise(T.DINOv3ViTModel(T.DINOv3ViTConfig(**{**sizes, **options})), scale=0.15).eval()


def test_dinov3_with_a_bias_of_the_keys(folder):
    """Rotation does not cancel it: without a mask in Meta's file, it counts; in transformers' file, it is there or not."""
    peer = dinov3(key_bias=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = peer(images).pooler_output
    peer.save_pretrained("saved")
    meta = metas_of_transformers(peer)
    torch.save(meta, "meta.pth")
    masks = {f"blocks.{i}.attn.qkv.bias_mask": torch.cat([torch.ones(48), torch.zeros(48), torch.ones(48)]) for i in range(2)}
    torch.save({**meta, **masks}, "masked.pth")
    for name, facts, biases in (
        ("saved", {}, True), ("saved/model.safetensors", {}, True), ("meta.pth", {"image_size": 32}, True),
        ("masked.pth", {"image_size": 32}, "qv"),
    ):  # fmt: skip
        model = vit_zoo.load(name, **facts).eval()
        assert model.spec.qkv_bias == biases
        with torch.inference_mode():
            off = (model(images) - wanted).abs().max()
        assert (off < 1e-5) == (biases is True), name
    del meta["blocks.1.attn.qkv.bias"]
    torch.save(meta, "damaged.pth")
    with pytest.raises(RefusedContent, match=r"blocks\.1\.attn\.qkv\.bias"):
        vit_zoo.load("damaged.pth", image_size=32)


@pytest.mark.parametrize("allow_drop", [[], ["cls_norm.*"]])
@pytest.mark.parametrize("gated", [False, True])
def test_dinov3_with_a_norm_of_the_class_token(gated, allow_drop, folder):
    """What is stored for training alone is not a variant; what computes the output cannot be left out."""
    meta = metas_of_transformers(dinov3(use_gated_mlp=gated, key_bias=True))
    if gated:
        meta = renamed(meta, ("mlp.fc2", "mlp.w3"))
        for i in range(2):
            for kind in ("weight", "bias"):
                gate, value = meta.pop(f"blocks.{i}.mlp.fc1.{kind}").chunk(2)
                meta |= {f"blocks.{i}.mlp.w1.{kind}": gate, f"blocks.{i}.mlp.w2.{kind}": value}
    norm = {"weight": torch.ones(48), "bias": torch.ones(48)}
    torch.save({**meta, **{f"local_cls_norm.{kind}": tensor for kind, tensor in norm.items()}}, "training.pth")
    vit_zoo.load("training.pth", image_size=32)
    torch.save({**meta, **{f"cls_norm.{kind}": tensor for kind, tensor in norm.items()}}, "untied.pth")
    with pytest.raises(RefusedContent, match=r"'cls_norm\.(weight|bias)' is a norm of the class token alone"):
        vit_zoo.load("untied.pth", image_size=32, allow_drop=allow_drop)


@pytest.mark.parametrize("allow_drop", [[], ["*_norm.gamma"]])
def test_simple_vit_with_norms_of_queries_and_keys(allow_drop, folder):
    from vit_pytorch.simple_vit_with_qk_norm import SimpleViT

    sizes = {"image_size": 32, "patch_size": 8, "num_classes": 7, "dim": 48, "depth": 2, "heads": 3, "mlp_dim": 72}
    torch.save(SimpleViT(**sizes).state_dict(), "weights.pt")
    with pytest.raises(RefusedContent, match=r"q_norm\.gamma' is an RMSNorm of queries or keys"):
        vit_zoo.load("weights.pt", heads=3, image_size=32, allow_drop=allow_drop)


def keras_deit(tensors):
    """The DeiT of keras-hub 0.32 as `save_weights` writes it, from tensors under our names."""
    backbone = "layers/dei_t_backbone/layers"
    embeddings, encoder = f"{backbone}/dei_t_embeddings", f"{backbone}/dei_t_encoder"
    found = {
        f"{embeddings}/vars/0": tensors["cls_token"], f"{embeddings}/vars/1": tensors["reg_token"],
        f"{embeddings}/vars/2": tensors["pos_embed"],
        f"{embeddings}/patch_embedding/vars/0": rearrange(tensors["patch_embed.proj.weight"], "d c p q -> p q c d"),
        f"{embeddings}/patch_embedding/vars/1": tensors["patch_embed.proj.bias"],
        f"{encoder}/layer_norm/vars/0": tensors["norm.weight"], f"{encoder}/layer_norm/vars/1": tensors["norm.bias"],
        "layers/dense/vars/0": tensors["head.weight"].T, "layers/dense/vars/1": tensors["head.bias"],
        "optimizer/vars/0": np.float32(0),
    }  # fmt: skip
    for i in range(sum(name.endswith("norm1.weight") for name in tensors)):
        block, ours = f"{encoder}/encoder_layers/dei_t_encoder_block{f'_{i}' if i else ''}", f"blocks.{i}"
        for theirs, name in (("layer_norm_1", "norm1"), ("layer_norm_2", "norm2")):
            found[f"{block}/{theirs}/vars/0"] = tensors[f"{ours}.{name}.weight"]
            found[f"{block}/{theirs}/vars/1"] = tensors[f"{ours}.{name}.bias"]
        weights, biases = np.split(tensors[f"{ours}.attn.qkv.weight"], 3), np.split(tensors[f"{ours}.attn.qkv.bias"], 3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            found[f"{block}/mha/{part}_dense/vars/0"] = rearrange(weight, "(h e) d -> d h e", e=16)
            found[f"{block}/mha/{part}_dense/vars/1"] = rearrange(bias, "(h e) -> h e", e=16)
        found[f"{block}/mha/output_dense/vars/0"] = rearrange(tensors[f"{ours}.attn.proj.weight"], "d (h e) -> h e d", e=16)
        found[f"{block}/mha/output_dense/vars/1"] = tensors[f"{ours}.attn.proj.bias"]
        for theirs, name in (("mlp/dense", "fc1"), ("output_layer/dense", "fc2")):
            found[f"{block}/{theirs}/vars/0"] = tensors[f"{ours}.mlp.{name}.weight"].T
            found[f"{block}/{theirs}/vars/1"] = tensors[f"{ours}.mlp.{name}.bias"]
    return found


def test_keras_hubs_deit(folder):
    """The weights of transformers' DeiT, which classifies the class token alone too, under the names of keras-hub."""
    import h5py

    file, images, wanted, tolerance = case("hf_deit_cls_only")
    tensors = {name: tensor.array() for name, tensor in find_source(file).tensors.items()}
    with h5py.File("model.weights.h5", "w") as stored:
        for name, array in keras_deit(tensors).items():
            stored[name] = array
    backbone = {"num_heads": 3, "layer_norm_epsilon": 1e-12, "image_shape": [32, 32, 3]}
    config = {"backbone": {"config": backbone}, "pooling": "token", "activation": None}
    (folder / "config.json").write_text(json.dumps(config))
    model = vit_zoo.load(folder).eval()
    assert find_source(folder).dialect == "keras-hub-deit"
    with torch.inference_mode():
        assert (model(torch.from_numpy(images)) - torch.from_numpy(wanted)).abs().max() < tolerance
    for word, cause in (
        ({"activation": "softmax"}, "activation = 'softmax' after the head"),
        ({"pooling": "max"}, "pooling 'max'"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **word}))
        with pytest.raises(RefusedContent, match=cause):
            vit_zoo.load(folder)
