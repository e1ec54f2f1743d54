"""Weight dialects of Meta's own files: DeiT-III, DINOv2, DINOv3, and MAE's full pre-training file.

DeiT, DINO and MAE's encoder have timm's keys.

Sources: facebookresearch/deit (models_v2.py), dinov2 and dinov3 (models/vision_transformer.py), mae (models_mae.py): eps
1e-6, DINOv3 1e-5, exact GELU, the class token after the final norm. Training files hold the teacher's
backbone and heads.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import RefusedContent
from vit_zoo.files import Stored
from vit_zoo.weights.configs.hf import SIDECAR
from vit_zoo.weights.dialect import Need, Shapes, layer, replaced, rule
from vit_zoo.weights.dialects.timm import CLOSING, RULES, TIMM

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

BLOCK = "blocks.{i}"
BIASES = "relative_position_bias_table"  # of BEiT, whose other tensors are DeiT-III's
HEADS = (
    r"mask_token",
    r"dino_head\..*",
    r"ibot_head\..*",
    r"head\.(mlp|last_layer)\..*",
    r"local_cls_norm\..*",
    r"dino_loss\..*",
)

DEIT3 = replace(
    TIMM,
    name="deit3",
    signature=("patch_embed.proj.weight", "blocks.0.gamma_1", "blocks.0.attn.qkv.weight", "pos_embed"),
    rules=replaced(RULES, rule(f"{BLOCK}.ls1.gamma", f"{BLOCK}.gamma_1"), rule(f"{BLOCK}.ls2.gamma", f"{BLOCK}.gamma_2")),
    matches_shapes=lambda shapes: not {"norm_pre.weight", f"blocks.0.attn.{BIASES}", f"rel_pos_bias.{BIASES}"} & set(shapes),
    needs=(*TIMM.needs, *CLOSING, Need("cls_token", "class_token")),
    position_covers=("patches",),
    resize="hf",
    resize_unstated=lambda spec: False,
)

MAE = replace(
    TIMM,
    name="mae",
    signature=("patch_embed.proj.weight", "decoder_embed.weight", "blocks.0.attn.qkv.weight"),
    needs=(*TIMM.needs, *CLOSING, Need("cls_token", "class_token")),
    unwanted=(r"mask_token", r"decoder_.*"),
    sidecar=None,
    resize="hf",
    resize_unstated=lambda spec: False,
)

DINOV2 = replace(
    TIMM,
    name="dinov2",
    signature=("patch_embed.proj.weight", "mask_token", "blocks.0.ls1.gamma", "blocks.0.attn.qkv.weight"),
    rules=replaced(RULES, rule("reg_token", "register_tokens")),
    conventions={**TIMM.conventions, "pool": "cls", "mlp": "plain"},
    position_covers=("all", "class"),
    renames=((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),),  # training files group the blocks in chunks
    needs=(*TIMM.needs, *CLOSING, Need("cls_token", "class_token")),
    unwanted=HEADS,
    sidecar=None,
    added={"mask_token": lambda spec: (1, spec.dim)},
    write_config=None,
    resize="dinov2",
    resize_unstated=lambda spec: False,
    resize_with_registers="timm",
)

DINOV2_SWIGLU = replace(
    DINOV2,
    name="dinov2-swiglu",
    signature=(*DINOV2.signature, "blocks.0.mlp.w12.weight"),
    conventions={**DINOV2.conventions, "mlp": "swiglu"},
    rules=replaced(DINOV2.rules, *layer(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.w12"), *layer(f"{BLOCK}.mlp.fc2", f"{BLOCK}.mlp.w3")),
    sidecar=SIDECAR,  # transformers stores TIPSv2's g so
)


def masked(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Multiply the biases of queries, keys and values by their masks, which are 0 for keys."""
    end = ".attn.qkv.bias_mask"
    masks = {key[: -len("_mask")]: key for key in tensors if key.endswith(end)}
    return {
        key: Stored(t.dtype, t.shape, partial(_product, t, tensors[masks[key]], masks[key])) if key in masks else t
        for key, t in tensors.items()
    }


def _product(bias: Stored, mask: Stored, name: str) -> Array:
    import numpy as np

    from vit_zoo.files.stored import as_float

    third = bias.shape[0] // 3 if len(bias.shape) == 1 else 0
    expected = np.repeat([1, 0, 1], third)
    if mask.shape != bias.shape or not np.array_equal(as_float(mask.dtype, mask.array()), expected):
        raise RefusedContent(f"{name!r} is not DINOv3's mask, which is 1 for queries and values and 0 for keys")
    return bias.array()


def head_width(shapes: Shapes) -> dict[str, Any]:
    """The width of a head, four times the number of periods of the rotation."""
    periods = shapes.get("rope_embed.periods", ())
    return {"dim_head": 4 * periods[0]} if len(periods) == 1 and periods[0] else {}


MASK = f"{BLOCK}.attn.qkv.bias_mask"  # without one, keys have their bias too
DINOV3 = replace(
    DINOV2,
    name="dinov3",
    signature=("patch_embed.proj.weight", "storage_tokens", "blocks.0.attn.qkv.weight"),
    rules=replaced(
        tuple(rule_ for rule_ in RULES if rule_.ours != f"{BLOCK}.attn.qkv.bias"),
        rule("reg_token", "storage_tokens"),
        rule(f"{BLOCK}.attn.q_bias", f"{BLOCK}.attn.qkv.bias", rows=(0, 1, 3), where_present=MASK),
        rule(f"{BLOCK}.attn.v_bias", f"{BLOCK}.attn.qkv.bias", rows=(2, 3, 3), where_present=MASK),
        rule(f"{BLOCK}.attn.qkv.bias", f"{BLOCK}.attn.qkv.bias", where_absent=MASK),
    ),
    conventions={"norm_eps": 1e-5, "act": "gelu", "pool": "cls", "pos": "rope", "mlp": "plain"},
    needs=(*CLOSING, Need("cls_token", "class_token")),
    unwanted=(*HEADS, r"rope_embed\.periods", r"blocks\.\d+\.attn\.qkv\.bias_mask"),
    refused=((r"cls_norm\..*", "a norm of the class token alone"),),
    prepare=masked,
    facts_from_shapes=head_width,
)

DINOV3_SWIGLU = replace(
    DINOV3,
    name="dinov3-swiglu",
    signature=(*DINOV3.signature, "blocks.0.mlp.w1.weight"),
    conventions={**DINOV3.conventions, "mlp": "swiglu"},
    rules=replaced(
        DINOV3.rules,
        *layer(f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.w1", f"{BLOCK}.mlp.w2"),
        *layer(f"{BLOCK}.mlp.fc2", f"{BLOCK}.mlp.w3"),
    ),
)
