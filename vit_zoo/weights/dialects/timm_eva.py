"""Weight dialects of timm's DINOv3.

Source: timm 1.0.31, models/eva.py: eps 1e-5, exact GELU, rotary positions that are not in the file. The class `Eva` has
other families too, which are refused: their tensors are others, or, in a live module, their `rope`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vit_zoo.errors import NotRepresentable
from vit_zoo.model.positions import THETA
from vit_zoo.weights.configs.timm import EVA_SIDECAR, config_from_module
from vit_zoo.weights.dialect import Dialect, Need, layer, rule
from vit_zoo.weights.dialects.timm import CLOSING, act_of, pool_of

ROPE = {
    "temperature": THETA,
    "min_period": None,
    "max_period": None,
    "normalize_coords": "separate",
    "grid_offset": 0.0,
    "grid_indexing": "ij",
    "rotate_half": True,
}


def facts_from_module(module: Any) -> dict[str, Any]:
    """Facts from a live module: heads, image size, eps, activation, pooling."""
    block = module.blocks[0]
    different = [name for name, value in ROPE.items() if getattr(module.rope, name, "absent") != value]
    if different:
        raise NotRepresentable(f"unsupported timm model: {different[0]} of its rotation is not DINOv3's")
    pool, pool_tokens = pool_of(module, include_prefix=False)
    return {
        "heads": block.attn.num_heads,
        "image_size": module.patch_embed.img_size,
        "norm_eps": block.norm1.eps,
        "act": act_of(block.mlp.act),
        "pool": pool,
        "pool_tokens": pool_tokens,
    }


BLOCK = "blocks.{i}"
RULES = (
    rule("cls_token", "cls_token"),
    rule("reg_token", "reg_token"),
    *layer("patch_embed.proj", "patch_embed.proj"),
    *layer(f"{BLOCK}.norm1", f"{BLOCK}.norm1"),
    rule(f"{BLOCK}.attn.q_bias", f"{BLOCK}.attn.q_bias"),
    rule(f"{BLOCK}.attn.v_bias", f"{BLOCK}.attn.v_bias"),
    rule(f"{BLOCK}.attn.qkv.weight", f"{BLOCK}.attn.qkv.weight"),
    *layer(f"{BLOCK}.attn.q_norm", f"{BLOCK}.attn.q_norm"),
    *layer(f"{BLOCK}.attn.k_norm", f"{BLOCK}.attn.k_norm"),
    *layer(f"{BLOCK}.attn.proj", f"{BLOCK}.attn.proj"),
    rule(f"{BLOCK}.ls1.gamma", f"{BLOCK}.gamma_1"),
    *layer(f"{BLOCK}.norm2", f"{BLOCK}.norm2"),
    *layer(f"{BLOCK}.mlp.fc2", f"{BLOCK}.mlp.fc2"),
    rule(f"{BLOCK}.ls2.gamma", f"{BLOCK}.gamma_2"),
    *layer("norm", "norm"),
    *layer("head", "head"),
)

TIMM_EVA = Dialect(
    name="timm-eva",
    signature=("patch_embed.proj.weight", "reg_token", "blocks.0.gamma_1", "blocks.0.mlp.fc1.weight"),
    rules=(*RULES, *layer(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc1")),
    conventions={"norm_eps": 1e-5, "act": "gelu", "pos": "rope"},
    needs=(Need("cls_token", "class_token"), *CLOSING),
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    sidecar=EVA_SIDECAR,
)

TIMM_EVA_SWIGLU = replace(
    TIMM_EVA,
    name="timm-eva-swiglu",
    signature=("patch_embed.proj.weight", "reg_token", "blocks.0.gamma_1", "blocks.0.mlp.fc1_g.weight"),
    rules=(
        *RULES,
        rule(f"{BLOCK}.mlp.fc1.weight", f"{BLOCK}.mlp.fc1_g.weight", f"{BLOCK}.mlp.fc1_x.weight"),
        rule(f"{BLOCK}.mlp.fc1.bias", f"{BLOCK}.mlp.fc1_g.bias", f"{BLOCK}.mlp.fc1_x.bias"),
    ),
)
