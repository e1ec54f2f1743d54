"""Weight dialects of timm's NaFlexVit, which takes images of any size, here at a fixed one.

Source: timm 1.0.31, models/naflexvit.py: eps 1e-6, a linear patch projection whose values are in the order (row, column,
channel), positions for the patches only, stored with rows and columns. The recipe for another grid depends on the variant,
which the file does not show: bicubic with antialias (`timm`), bilinear with antialias in SigLIP 2's (`naflex`). Variants with
factorised positions, and with rotary ones, are refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vit_zoo.errors import NotRepresentable
from vit_zoo.model.resize_recipes import UNSTATED
from vit_zoo.weights.configs.timm import NAFLEX_SIDECAR
from vit_zoo.weights.dialect import Dialect, Need, Shapes, grid_of, replaced, rule
from vit_zoo.weights.dialects.flat_patch import flat_patch
from vit_zoo.weights.dialects.timm import ALWAYS, CLOSING, RULES, act_of, pool_of

EMBEDS = "embeds"


def facts_from_module(module: Any) -> dict[str, Any]:
    """Facts from a live module: heads, image size, eps, activation, pooling."""
    embeds, block = module.embeds, module.blocks[0]
    if module.rope is not None:
        raise NotRepresentable("unsupported timm model: a NaFlexVit with rotary positions")
    if embeds.is_linear and not embeds.channels_last:
        raise NotRepresentable("unsupported timm model: a NaFlexVit whose patches have their channels first")
    (p, q), (rows, columns) = embeds.patch_size, embeds.pos_embed.shape[1:3]
    pool, pool_tokens = pool_of(module, include_prefix=module.pool_include_prefix)
    facts = {
        "heads": block.attn.num_heads,
        "image_size": (rows * p, columns * q),
        "patch_size": (p, q),
        "channels": embeds.in_chans,
        "norm_eps": block.norm1.eps,
        "act": act_of(block.mlp.act),
        "pool": pool,
        "pool_tokens": pool_tokens,
        "patch_bias": embeds.proj.bias is not None,
    }
    if module.attn_pool is not None and module.attn_pool.num_heads != facts["heads"]:
        raise NotRepresentable("unsupported timm model: its attention pooling has another number of heads")
    return facts


def is_siglip(shapes: Shapes) -> bool:
    """Whether the tensors may be those of a SigLIP 2 tower, which has the tanh GELU, or of another model, which has not."""
    return "attn_pool.latent" in shapes and "embeds.reg_token" not in shapes and "blocks.0.ls1.gamma" not in shapes


def is_linear(shapes: Shapes) -> bool:
    return len(shapes.get("embeds.proj.weight", ())) == 2


TIMM_NAFLEX = Dialect(
    name="timm-naflex",
    signature=("embeds.proj.weight", "blocks.0.attn.qkv.weight", "embeds.pos_embed"),
    rules=replaced(
        tuple(r for r in RULES if not r.ours.endswith(("q_bias", "v_bias"))),  # of EVA's blocks, whose positions are rotary
        rule("cls_token", f"{EMBEDS}.cls_token"),
        rule("reg_token", f"{EMBEDS}.reg_token"),
        rule("pos_embed", f"{EMBEDS}.pos_embed", pattern="1 h w d -> 1 (h w) d"),
        rule("patch_embed.proj.weight", f"{EMBEDS}.proj.weight", pattern="d (p q c) -> d c p q"),
        rule("patch_embed.proj.bias", f"{EMBEDS}.proj.bias"),
    ),
    conventions={"norm_eps": 1e-6, "act": "gelu"},
    matches_shapes=lambda shapes: is_linear(shapes) and not is_siglip(shapes),
    pattern_sizes=lambda shapes, facts: flat_patch(shapes, "embeds.proj.weight", 1, facts),
    needs=(Need("patch_embed.proj.bias", "patch_bias", unless="norm_pre.weight"), CLOSING[1], *ALWAYS),
    position_covers=("patches",),
    facts_from_module=facts_from_module,
    sidecar=NAFLEX_SIDECAR,
    resize=UNSTATED,
    grid=grid_of(f"{EMBEDS}.pos_embed"),
)

TIMM_NAFLEX_SIGLIP = replace(
    TIMM_NAFLEX,
    name="timm-naflex-siglip",
    conventions={"norm_eps": 1e-6},
    matches_shapes=lambda shapes: is_linear(shapes) and is_siglip(shapes),
)

TIMM_NAFLEX_CONV = replace(
    TIMM_NAFLEX,
    name="timm-naflex-conv",
    rules=replaced(TIMM_NAFLEX.rules, rule("patch_embed.proj.weight", f"{EMBEDS}.proj.weight")),
    conventions={"norm_eps": 1e-6},
    matches_shapes=lambda shapes: len(shapes.get("embeds.proj.weight", ())) == 4,
    pattern_sizes=lambda shapes, facts: {},
)
