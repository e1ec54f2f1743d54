"""Weight dialects of Meta's own files of the Perception Encoder, whose blocks have open_clip's names.

Source: facebookresearch/perception_models, core/vision_encoder/pe.py and rope.py: eps 1e-5, exact GELU, heads of attention
pooling 8; rotary positions by the numbers of rows and columns.
"""

from __future__ import annotations

from vit_zoo.weights.dialect import Dialect, Shapes, layer, replaced, rule
from vit_zoo.weights.dialects.clip import CLIP_TEXT, NEEDS, OPEN_CLIP

POOL = "attn_pool"


def has_no_final_norm(shapes: Shapes) -> bool:
    return "ln_post.weight" not in shapes


PE = Dialect(
    name="pe",
    signature=("conv1.weight", "transformer.resblocks.0.ln_1.weight"),
    rules=replaced(
        tuple(each for each in OPEN_CLIP.rules if not each.ours.startswith("fc_norm")),
        *layer("norm", "ln_post"),
        rule(f"{POOL}.latent", f"{POOL}.probe"),
        rule(f"{POOL}.q.weight", f"{POOL}.attn.in_proj_weight", rows=(0, 1, 3)),
        rule(f"{POOL}.q.bias", f"{POOL}.attn.in_proj_bias", rows=(0, 1, 3)),
        rule(f"{POOL}.kv.weight", f"{POOL}.attn.in_proj_weight", rows=(1, 3, 3)),
        rule(f"{POOL}.kv.bias", f"{POOL}.attn.in_proj_bias", rows=(1, 3, 3)),
        *layer(f"{POOL}.proj", f"{POOL}.attn.out_proj"),
        *layer(f"{POOL}.norm", f"{POOL}.layernorm"),
        *layer(f"{POOL}.mlp.fc1", f"{POOL}.mlp.c_fc"),
        *layer(f"{POOL}.mlp.fc2", f"{POOL}.mlp.c_proj"),
    ),
    conventions={"norm_eps": 1e-5, "act": "gelu", "pos": "learned+rope", "rope": "pe"},
    conventions_by_shapes=lambda shapes: (
        {"pool_heads": 8, "pool_tokens": "all"} if f"{POOL}.latent" in shapes else {"pool": "mean"}
    ),
    matches_shapes=lambda shapes: f"{POOL}.probe" in shapes or has_no_final_norm(shapes),
    prefixes=("visual.", ""),
    needs=NEEDS,
    position_covers=("all",),
    unwanted=(r"rope\..*",),
    unwanted_outside=CLIP_TEXT,
    projects=True,
    resize="timm",
)
