"""Weight dialect of BEiT and BEiTv2, of the original code and of timm, whose names are the same.

Sources: microsoft/unilm, beit and beit2 (modeling_finetune.py), timm 1.0.31 (models/beit.py): eps 1e-6, exact GELU, biases for
queries and values, LayerScale, relative biases for each block. The head reads the mean of the patches after a norm of its own.
Older files also hold the index of the biases, which is computed here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vit_zoo.errors import NotRepresentable
from vit_zoo.weights.configs.timm import BEIT_SIDECAR
from vit_zoo.weights.dialect import Need, replaced, rule
from vit_zoo.weights.dialects import timm
from vit_zoo.weights.dialects.meta import BIASES
from vit_zoo.weights.dialects.timm import CLOSING, TIMM

BLOCK = "blocks.{i}"


def facts_from_module(module: Any) -> dict[str, Any]:
    """Facts from a live module. Raises NotRepresentable for one with biases of its own and shared ones at once."""
    shared, own = (place is not None for place in (module.rel_pos_bias, module.blocks[0].attn.relative_position_bias_table))
    if shared and own:
        raise NotRepresentable("unsupported Beit: it has relative biases of each block and shared ones")
    return timm.facts_from_module(module)


TIMM_BEIT = replace(
    TIMM,
    name="timm-beit",
    signature=("patch_embed.proj.weight", "blocks.0.gamma_1", f"blocks.0.attn.{BIASES}"),
    rules=replaced(timm.RULES, rule(f"{BLOCK}.ls1.gamma", f"{BLOCK}.gamma_1"), rule(f"{BLOCK}.ls2.gamma", f"{BLOCK}.gamma_2")),
    conventions_by_shapes=lambda shapes: {},
    needs=(Need("cls_token", "class_token"), *CLOSING),
    position_covers=("all",),
    unwanted=(r".*relative_position_index", "mask_token"),
    facts_from_module=facts_from_module,
    sidecar=BEIT_SIDECAR,
    resize_unstated=lambda spec: False,
)

# pretrained models, whose blocks share one table
TIMM_BEIT_SHARED = replace(
    TIMM_BEIT,
    name="timm-beit-shared",
    signature=("patch_embed.proj.weight", "blocks.0.gamma_1", f"rel_pos_bias.{BIASES}"),
    unwanted=(*TIMM_BEIT.unwanted, r"lm_head\..*", r"cls_pt_layers\..*"),
)
