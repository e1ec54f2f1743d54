"""Weight dialect of Microsoft's own files of BEiT-3, of whose two branches A is that of images.

Sources: microsoft/unilm, beit3 (modeling_finetune.py), and torchscale, architecture/encoder.py: eps 1e-5, exact GELU. The first
two rows of the positions are for tokens that are padding.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vit_zoo.files import Stored
from vit_zoo.weights.dialect import Dialect, Need, layer, rule
from vit_zoo.weights.dialects.timm import CLOSING

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

POSITIONS = "encoder.embed_positions.A.weight"
PADDING = 2  # rows
LAYER = "encoder.layers.{i}"


def without_padding(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Cut off the rows of the positions that are for padding."""
    return {
        key: Stored(t.dtype, (t.shape[0] - PADDING, t.shape[1]), partial(_after_padding, t))
        if key.endswith(POSITIONS) and len(t.shape) == 2 and t.shape[0] > PADDING
        else t
        for key, t in tensors.items()
    }


def _after_padding(table: Stored) -> Array:
    import numpy as np

    return np.ascontiguousarray(table.array()[PADDING:])


BEIT3 = Dialect(
    name="beit3",
    signature=("beit3.vision_embed.proj.weight", "beit3.encoder.layers.0.self_attn.inner_attn_ln.A.weight"),
    rules=(
        rule("cls_token", "beit3.vision_embed.cls_token"),
        rule("pos_embed", f"beit3.{POSITIONS}", pattern="t d -> 1 t d"),
        *layer("patch_embed.proj", "beit3.vision_embed.proj"),
        *layer("blocks.{i}.norm1", f"beit3.{LAYER}.self_attn_layer_norm.A"),
        *layer("blocks.{i}.attn.qkv", *(f"beit3.{LAYER}.self_attn.{part}_proj.A" for part in "qkv")),
        *layer("blocks.{i}.attn.norm", f"beit3.{LAYER}.self_attn.inner_attn_ln.A"),
        *layer("blocks.{i}.attn.proj", f"beit3.{LAYER}.self_attn.out_proj.A"),
        *layer("blocks.{i}.norm2", f"beit3.{LAYER}.final_layer_norm.A"),
        *layer("blocks.{i}.mlp.fc1", f"beit3.{LAYER}.ffn.A.fc1"),
        *layer("blocks.{i}.mlp.norm", f"beit3.{LAYER}.ffn.A.ffn_layernorm"),
        *layer("blocks.{i}.mlp.fc2", f"beit3.{LAYER}.ffn.A.fc2"),
        *layer("norm", "beit3.encoder.layer_norm.A"),
        *layer("fc_norm", "fc_norm"),
        *layer("head", "head"),
    ),
    conventions={"norm_eps": 1e-5, "act": "gelu"},
    prepare=without_padding,
    needs=(Need("pos_embed", "pos"), Need("cls_token", "class_token"), *CLOSING),
    position_covers=("all",),
    unwanted=(r".*\.B\..*", r"beit3\.text_embed\..*", r"beit3\.vision_embed\.mask_token", r"mlm_head\..*", r"mim_head\..*"),
    resize="timm",
)
