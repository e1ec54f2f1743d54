"""Readers of converted files: each builds the library's own class for a spec, loads the file strictly, and runs it."""

from __future__ import annotations

import functools

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from support import meta_models, peers


def strictly(model, state):
    model.load_state_dict(state, strict=True)
    return model.eval()


def with_timm(spec, path):
    """`timm.create_model` of a folder, which must be the class that a user would build for its weights alone."""
    model = peers.timm.create_model(f"local-dir:{path.resolve()}", pretrained=True).eval()
    state, swiglu = load_file(path / "model.safetensors"), spec.mlp == "swiglu"
    options = {
        "img_size": spec.image_size, "patch_size": spec.patch_size, "embed_dim": spec.dim, "depth": spec.depth,
        "num_heads": spec.heads, "mlp_ratio": ((2 if swiglu else 1) * spec.mlp_dim + 0.5) / spec.dim,
        "num_classes": spec.num_classes, "in_chans": spec.channels, "qkv_bias": bool(spec.qkv_bias), "qk_norm": spec.qk_norm,
        "init_values": 0.1 if spec.layer_scale else None, "class_token": spec.class_token, "reg_tokens": spec.registers,
        "no_embed_class": state["pos_embed"].shape[1] == spec.patch_tokens, "pre_norm": spec.pre_norm,
        "proj_bias": spec.proj_bias, "fc_norm": "fc_norm.weight" in state, "final_norm": spec.final_norm != "none",
        "act_layer": spec.act, "global_pool": {"cls": "token", "mean": "avg", "map": "map", "none": ""}[spec.pool],
        **({"mlp_layer": peers.SwiGLUPacked} if swiglu else {}),
    }  # fmt: skip
    own = strictly((peers.timm_distilled if spec.dist_token else peers.timm_vit)(**options), state)

    def run(x):
        assert torch.equal(model(x), own(x))
        return model(x)

    return run


def with_transformers(spec, path):
    """The class that config.json names. Every tensor must be one of the class, and the class must find all of its own."""
    import json

    config = json.loads((path / "config.json").read_text())
    cls = getattr(peers.transformers, config["architectures"][0])
    model, report = cls.from_pretrained(path, output_loading_info=True)
    missing = set(report["missing_keys"]) - (
        {"pooler.dense.weight", "pooler.dense.bias"} if cls.__name__ == "IJepaModel" else set()
    )
    assert not any((missing, report["unexpected_keys"], report["mismatched_keys"])), report
    model = model.eval()

    def run(x):
        out = model(pixel_values=x)
        if spec.num_classes:
            return out.image_embeds if "image_embeds" in out else out.logits
        if cls.__name__ == "ViTMSNModel":
            return out.last_hidden_state[:, 0]
        return out.last_hidden_state.mean(1) if cls.__name__ == "IJepaModel" else out.pooler_output

    return run


def with_torchvision(spec, path):
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=spec.image_size[0], patch_size=spec.patch_size[0], num_layers=spec.depth, num_heads=spec.heads,
        hidden_dim=spec.dim, mlp_dim=spec.mlp_dim, num_classes=spec.num_classes, representation_size=spec.representation or None,
    )  # fmt: skip
    return strictly(model, torch.load(path, weights_only=True))


def with_vit_pytorch(spec, path):
    state = torch.load(path, weights_only=True)
    sizes = {
        "image_size": spec.image_size, "patch_size": spec.patch_size, "num_classes": spec.num_classes, "dim": spec.dim,
        "depth": spec.depth, "heads": spec.heads, "dim_head": spec.dim_head, "mlp_dim": spec.mlp_dim, "channels": spec.channels,
    }  # fmt: skip
    if spec.pos == "sincos_moco":
        return strictly(peers.simple_vit(registers=spec.registers, **sizes), state)
    if state["pos_embedding"].ndim == 2:
        return strictly(peers.article_vit(pool="cls" if spec.class_token else "mean", **sizes), state)
    return functools.partial(old_vit_pytorch, spec, state)


def old_vit_pytorch(spec, state, x):
    """The forward of vit-pytorch before 1.17, with the names of its modules; no tensor may be left over."""
    state = dict(state)

    def take(stem, *kinds):
        return [state.pop(f"{stem}.{kind}") for kind in kinds or ("weight", "bias")]

    def norm(x, stem):
        return F.layer_norm(x, x.shape[-1:], *take(stem))

    p, q = spec.patch_size
    x = rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=q)
    if "to_patch_embedding.3.weight" in state:
        x = norm(F.linear(norm(x, "to_patch_embedding.1"), *take("to_patch_embedding.2")), "to_patch_embedding.3")
    else:
        x = F.linear(x, *take("to_patch_embedding.1"))
    x = torch.cat((state.pop("cls_token").expand(len(x), -1, -1), x), 1) + state.pop("pos_embedding")
    new = "transformer.norm.weight" in state
    names = (
        ("0.norm", "0.to_qkv", "0.to_out.0", "1.net.0", "1.net.1", "1.net.4")
        if new
        else ("0.norm", "0.fn.to_qkv", "0.fn.to_out.0", "1.norm", "1.fn.net.0", "1.fn.net.3")
    )
    for i in range(spec.depth):
        first, qkv, out, second, fc1, fc2 = (f"transformer.layers.{i}.{name}" for name in names)
        parts = F.linear(norm(x, first), *take(qkv, "weight")).chunk(3, -1)
        q_, k, v = (rearrange(part, "b n (h d) -> b h n d", h=spec.heads) for part in parts)
        y = rearrange((q_ @ k.transpose(-1, -2) * spec.dim_head**-0.5).softmax(-1) @ v, "b h n d -> b n (h d)")
        x = x + (y if spec.heads == 1 and spec.dim_head == spec.dim else F.linear(y, *take(out)))
        x = x + F.linear(F.gelu(F.linear(norm(x, second), *take(fc1))), *take(fc2))
    x = norm(x, "transformer.norm") if new else x
    x = x.mean(1) if spec.pool == "mean" else x[:, 0]
    x = F.linear(x, *take("mlp_head")) if new else F.linear(norm(x, "mlp_head.0"), *take("mlp_head.1"))
    assert not state, sorted(state)
    return x


def with_open_clip(spec, path):
    from open_clip.transformer import QuickGELU, VisionTransformer

    state = torch.load(path, weights_only=True)
    model = VisionTransformer(
        image_size=spec.image_size, patch_size=spec.patch_size, width=spec.dim, layers=spec.depth, heads=spec.heads,
        mlp_ratio=(spec.mlp_dim + 0.5) / spec.dim, ls_init_value=0.1 if spec.layer_scale else None, output_dim=spec.num_classes,
        act_layer=QuickGELU if spec.act == "quick_gelu" else nn.GELU,
    )  # fmt: skip
    return strictly(model, {name.removeprefix("visual."): tensor for name, tensor in state.items()})


def with_google(spec, path):
    """timm's own reader of .npz files; the tanh layer, which timm lacks, and its head are computed here."""
    from timm.models.vision_transformer import _load_weights

    model = peers.timm_vit(
        img_size=spec.image_size, patch_size=spec.patch_size, embed_dim=spec.dim, depth=spec.depth, num_heads=spec.heads,
        mlp_ratio=(spec.mlp_dim + 0.5) / spec.dim, num_classes=0 if spec.representation else spec.num_classes,
        in_chans=spec.channels, class_token=spec.class_token, act_layer="gelu_tanh", fc_norm=False,
        global_pool="token" if spec.class_token else "avg",
    )  # fmt: skip
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    _load_weights(model.eval(), str(path))

    def run(x):
        x = model(x)
        if spec.representation:
            x = torch.tanh(x @ arrays["pre_logits/kernel"] + arrays["pre_logits/bias"])
            x = x @ arrays["head/kernel"] + arrays["head/bias"] if spec.num_classes else x
        return x

    return run


def _sizes(spec):
    return {
        "image": spec.image_size, "patch": spec.patch_size, "channels": spec.channels, "dim": spec.dim, "depth": spec.depth,
        "heads": spec.heads, "hidden": spec.mlp_dim, "qkv_bias": bool(spec.qkv_bias),
    }  # fmt: skip


def with_deit(spec, path):
    state = torch.load(path, weights_only=True)["model"]
    if state["pos_embed"].shape[1] == spec.patch_tokens:
        scale = "blocks.0.gamma_1" in state
        return strictly(meta_models.Deit3(**_sizes(spec), classes=spec.num_classes, scale=scale), state)
    return strictly(meta_models.Deit(**_sizes(spec), classes=spec.num_classes, distilled=spec.dist_token), state)


def with_mae(spec, path):
    model = meta_models.Mae(**_sizes(spec), classes=spec.num_classes, global_pool=spec.pool == "mean")
    return strictly(model, torch.load(path, weights_only=True)["model"])


def with_dinov2(spec, path):
    gated = spec.mlp == "swiglu"
    sizes = {**_sizes(spec), "image": spec.image_size[0], "patch": spec.patch_size[0]}
    if gated:
        sizes["hidden"] = (3 * spec.mlp_dim - 1) // 2
    model = meta_models.DinoVisionTransformer(
        **sizes, registers=spec.registers, proj_bias=spec.proj_bias, ffn_bias=spec.mlp_bias, scale=spec.layer_scale, gated=gated
    )
    return strictly(model, torch.load(path, weights_only=True))


# of each target: what is written, and its reader
READERS = {
    "timm": ("", with_timm),
    "hf": ("", with_transformers),
    "torchvision": (".pth", with_torchvision),
    "vit-pytorch": (".pth", with_vit_pytorch),
    "dinov2": (".pth", with_dinov2),
    "deit": (".pth", with_deit),
    "mae": (".pth", with_mae),
    "open_clip": (".pth", with_open_clip),
    "google": (".npz", with_google),
}
