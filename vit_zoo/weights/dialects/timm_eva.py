"""Weight dialects of timm's class Eva where its names are others than those of `vit_*`: DINOv3, EVA-02 and models with rotation.

Source: timm 1.0.31, models/eva.py. Rotary positions are not in the file, except learned frequencies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vit_zoo.weights.configs.timm import EVA_SIDECAR, config_from_module
from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, Shapes, layer, replaced, rule
from vit_zoo.weights.dialects.meta import BIASES
from vit_zoo.weights.dialects.timm import CLOSING, EVA02_GRID, OPEN_CLIP_TIMM, RULES, facts_from_module

BLOCK = "blocks.{i}"
SCALED = replaced(RULES, rule(f"{BLOCK}.ls1.gamma", f"{BLOCK}.gamma_1"), rule(f"{BLOCK}.ls2.gamma", f"{BLOCK}.gamma_2"))
PE_GRID = (32, 32)  # of the training of these models, which their rotation has at every image size
GATED = layer(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc1_g", f"{BLOCK}.mlp.fc1_x")


def conventions_by_shapes(shapes: Shapes) -> dict[str, Any]:
    """Those of rope-vit have a bias for keys, those of the SBB recipe a norm after pooling, and DINOv3's have neither."""
    if "rope.freqs" in shapes:
        return {"rope": "mixed"}
    if "blocks.0.attn.qkv.bias" in shapes:
        return {"rope": "axial"}
    return {"rope": "eva02", "rope_grid": EVA02_GRID} if "fc_norm.weight" in shapes else {"norm_eps": 1e-5}


def without_positions(shapes: Shapes) -> bool:
    """Whether there are neither learned positions nor relative biases."""
    return not {"pos_embed", f"blocks.0.attn.{BIASES}", f"rel_pos_bias.{BIASES}"} & set(shapes)


TIMM_EVA = Dialect(
    name="timm-eva",
    signature=("patch_embed.proj.weight", "blocks.0.gamma_1", "blocks.0.mlp.fc1.weight"),
    rules=SCALED,
    conventions={"norm_eps": 1e-6, "act": "gelu", "pos": "rope"},
    conventions_by_shapes=conventions_by_shapes,
    matches_shapes=without_positions,
    needs=(
        Need("cls_token", "class_token", unless="fc_norm.weight"),
        Need("reg_token", "registers", unless="blocks.0.attn.qkv.bias"),
        # without learned frequencies, a model of rope-vit has the tensors of a DeiT-III that lacks its positions
        Need("pos_embed", "pos", unless="rope.freqs", where_present="blocks.0.attn.qkv.bias"),
        *CLOSING,
    ),
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    sidecar=EVA_SIDECAR,
)

TIMM_EVA_SWIGLU = replace(
    TIMM_EVA,
    name="timm-eva-swiglu",
    signature=("patch_embed.proj.weight", "blocks.0.gamma_1", "blocks.0.mlp.fc1_g.weight"),
    rules=replaced(SCALED, *GATED),
)

# PE, language and spatial, G and L, which have LayerScale
TIMM_PE = replace(
    TIMM_EVA,
    name="timm-pe",
    signature=("patch_embed.proj.weight", "blocks.0.gamma_1", "norm_pre.weight"),
    conventions={"norm_eps": 1e-5, "act": "gelu", "pos": "learned+rope", "rope": "pe", "rope_grid": PE_GRID, "pool": "mean"},
    conventions_by_shapes=lambda shapes: {},
    matches_shapes=lambda shapes: True,
    needs=(Need("pos_embed", "pos"), HEAD_BIAS),
    position_covers=("all",),
)

# B and L of EVA-02, also in CLIP, whose queries, keys and values are apart
TIMM_EVA02 = replace(
    TIMM_EVA,
    name="timm-eva02",
    signature=("patch_embed.proj.weight", "blocks.0.attn.q_proj.weight", "blocks.0.mlp.fc1_g.weight"),
    rules=replaced(
        RULES,
        *GATED,
        rule(f"{BLOCK}.attn.qkv.weight", *(f"{BLOCK}.attn.{part}_proj.weight" for part in "qkv")),
        rule(f"{BLOCK}.attn.q_bias", f"{BLOCK}.attn.q_proj.bias"),
        rule(f"{BLOCK}.attn.v_bias", f"{BLOCK}.attn.v_proj.bias"),
    ),
    conventions={"norm_eps": 1e-6, "act": "silu", "pos": "learned+rope", "rope": "eva02", "rope_grid": EVA02_GRID},
    conventions_by_shapes=lambda shapes: {},
    matches_shapes=lambda shapes: True,
    needs=(Need("pos_embed", "pos"), Need("cls_token", "class_token"), *CLOSING),
    position_covers=("all",),
)

OPEN_CLIP_TIMM_EVA02 = replace(
    OPEN_CLIP_TIMM,
    name="open_clip-timm-eva02",
    signature=TIMM_EVA02.signature,
    rules=(*TIMM_EVA02.rules, *layer("head", "head.proj")),
    conventions=TIMM_EVA02.conventions,
    conventions_by_shapes=TIMM_EVA02.conventions_by_shapes,
    needs=TIMM_EVA02.needs,
    position_covers=TIMM_EVA02.position_covers,
)
