"""Weight dialects of BAAI's own files of EVA-02 and EVA-CLIP.

EVA's ViT-g has timm's names.

Sources: baaivision/EVA, EVA-02/asuka (modeling_finetune.py) and EVA-CLIP/rei (eva_vit_model.py): eps 1e-6, SwiGLU whose gate is
`w1`, rotary positions for a grid of 16x16 at every image size. Their tables, and what pretraining predicts, are left out.
"""

from __future__ import annotations

from dataclasses import replace

from vit_zoo.weights.dialect import Dialect, Need, layer, replaced, rule
from vit_zoo.weights.dialects.clip import CLIP_TEXT
from vit_zoo.weights.dialects.timm import CLOSING, EVA02_GRID, RULES, TIMM

BLOCK = "blocks.{i}"
LEFT_OUT = (r".*rope\.freqs_(cos|sin)", "mask_token", r"lm_head\..*", r".*relative_position_index")

# B and L, also in CLIP
EVA02 = Dialect(
    name="eva02",
    signature=("patch_embed.proj.weight", "blocks.0.attn.q_proj.weight", "blocks.0.mlp.w1.weight"),
    rules=replaced(
        RULES,
        rule(f"{BLOCK}.attn.qkv.weight", *(f"{BLOCK}.attn.{part}_proj.weight" for part in "qkv")),
        *layer(f"{BLOCK}.attn.norm", f"{BLOCK}.attn.inner_attn_ln"),
        *layer(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.w1", f"{BLOCK}.mlp.w2"),
        *layer(f"{BLOCK}.mlp.norm", f"{BLOCK}.mlp.ffn_ln"),
        *layer(f"{BLOCK}.mlp.fc2", f"{BLOCK}.mlp.w3"),
    ),
    conventions={"norm_eps": 1e-6, "act": "silu", "pos": "learned+rope", "rope": "eva02", "rope_grid": EVA02_GRID},
    prefixes=("visual.", ""),
    needs=(Need("pos_embed", "pos"), Need("cls_token", "class_token"), *CLOSING),
    position_covers=("all",),
    unwanted=LEFT_OUT,
    unwanted_outside=CLIP_TEXT,
    resize="timm",
)

# Ti and S
EVA02_SMALL = replace(
    EVA02,
    name="eva02-small",
    signature=("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.q_bias", "blocks.0.mlp.w12.weight"),
    rules=replaced(RULES, *layer(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.w12"), *layer(f"{BLOCK}.mlp.fc2", f"{BLOCK}.mlp.w3")),
)

# g of EVA-01 and E of EVA-02 in CLIP, with timm's names for the tower
EVA_CLIP = replace(
    TIMM,
    name="eva-clip",
    signature=("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.q_bias"),
    prefixes=("visual.",),
    unwanted=LEFT_OUT,
    unwanted_outside=CLIP_TEXT,
    projects=True,
    sidecar=None,
    write_config=None,
    resize_unstated=lambda spec: False,
)
