"""Weight dialect of torchvision's `vit_*`.

Source: torchvision 0.28, models/vision_transformer.py: eps 1e-6, exact GELU, class token.
"""

from __future__ import annotations

from typing import Any

from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, layer, rule

BLOCK = "encoder.layers.encoder_layer_{i}"


def facts_from_module(module: Any) -> dict[str, Any]:
    """Facts from a live module: heads, image size and eps."""
    block = module.encoder.layers[0]
    return {"heads": block.num_heads, "image_size": module.image_size, "norm_eps": block.ln_1.eps}


TORCHVISION = Dialect(
    name="torchvision",
    signature=("conv_proj.weight", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"),
    rules=(
        rule("cls_token", "class_token"),
        rule("pos_embed", "encoder.pos_embedding"),
        *layer("patch_embed.proj", "conv_proj"),
        *layer("blocks.{i}.norm1", f"{BLOCK}.ln_1"),
        rule("blocks.{i}.attn.qkv.weight", f"{BLOCK}.self_attention.in_proj_weight"),
        rule("blocks.{i}.attn.qkv.bias", f"{BLOCK}.self_attention.in_proj_bias"),
        *layer("blocks.{i}.attn.proj", f"{BLOCK}.self_attention.out_proj"),
        *layer("blocks.{i}.norm2", f"{BLOCK}.ln_2"),
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.0"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.3"),
        *layer("norm", "encoder.ln"),
        *layer("pre_logits", "heads.pre_logits"),
        *layer("head", "heads.head"),
    ),
    # the published files have the names from before 0.13, which introduced the MLP block
    renames=((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3.")),
    conventions={"norm_eps": 1e-6, "act": "gelu"},
    needs=(
        Need("cls_token", "class_token"),
        Need("pos_embed", "pos"),
        Need("patch_embed.proj.bias", "patch_bias"),
        Need("blocks.0.attn.qkv.bias", "qkv_bias"),
        Need("blocks.0.attn.proj.bias", "proj_bias"),
        HEAD_BIAS,
    ),
    facts_from_module=facts_from_module,
    resize="torchvision",
)
