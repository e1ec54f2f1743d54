"""Weight dialects of vit-pytorch: its ViT in all versions, and its SimpleViT (Beyer et al., 2022), with or without registers.

Source: lucidrains vit-pytorch 1.26.11, vit.py, simple_vit.py and simple_vit_with_register_tokens.py: eps 1e-5, exact GELU.
The last puts its registers after the patches and ours come before; attention is the same in any order.

vit-pytorch flattens a patch in the order (row, column, channel), we do in the order (channel, row, column).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, Rule, Shapes, layer, replaced, rule
from vit_zoo.weights.dialects.flat_patch import flat_patch

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

PATCHES = ("to_patch_embedding.2.weight", "to_patch_embedding.1.weight", "patch_to_embedding.weight")
ATTENTION, FEED_FORWARD = "transformer.layers.{i}.0", "transformer.layers.{i}.1"


def pattern_sizes(shapes: Shapes, facts: Mapping[str, Any]) -> dict[str, int]:
    """The rows, columns and channels of a patch: see `flat_patch`."""
    kernel = next((name for name in PATCHES if len(shapes.get(name, (0,))) > 1), PATCHES[0])  # one axis: a norm
    return flat_patch(shapes, kernel, 1, facts)


def facts_from_module(module: Any) -> dict[str, Any]:
    """Facts from a live module: heads, eps, pooling, the patch, and, where its positions are fixed, the image size."""
    attention = module.transformer.layers[0][0]
    patch = module.patch_size
    facts = {
        "heads": attention.heads,
        "patch_size": patch,
        "channels": module.to_patch_embedding[1].weight.numel() // math.prod(patch),
        "pool": "none" if getattr(module, "mlp_head", True) is None else getattr(module, "pool", "mean"),
        "norm_eps": attention.norm.eps,
    }
    if hasattr(module, "linear_head") and hasattr(module, "pos_embedding"):  # the class with patch dropout takes any size
        firsts = (module.pos_embedding[:, 0] == 0).nonzero().flatten().tolist()  # sin x is 0 where a row of patches begins
        columns = len(module.pos_embedding) // len(firsts)
        facts["image_size"] = (len(firsts) * patch[0], columns * patch[1])
    return facts


def patch_facts(spec: ViTSpec) -> dict[str, Any]:
    """Patch size and channels, of which a file holds only the product, and whether the tokens are pooled."""
    pool = {"pool": spec.pool} if spec.pool == "none" else {}
    return {"patch_size": spec.patch_size, "channels": spec.channels, **pool}


BODY = (
    rule("patch_embed.pre_norm.weight", "to_patch_embedding.1.weight", pattern="(p q c) -> (c p q)"),
    rule("patch_embed.pre_norm.bias", "to_patch_embedding.1.bias", pattern="(p q c) -> (c p q)"),
    rule("patch_embed.proj.weight", "to_patch_embedding.2.weight", pattern="d (p q c) -> d c p q"),
    rule("patch_embed.proj.bias", "to_patch_embedding.2.bias"),
    *layer("patch_embed.post_norm", "to_patch_embedding.3"),
    *layer("blocks.{i}.norm1", f"{ATTENTION}.norm"),
    rule("blocks.{i}.attn.qkv.weight", f"{ATTENTION}.to_qkv.weight"),
    *layer("blocks.{i}.norm2", f"{FEED_FORWARD}.net.0"),
    *layer("blocks.{i}.mlp.fc1", f"{FEED_FORWARD}.net.1"),
    *layer("norm", "transformer.norm"),
)

NORMS = (Need("patch_embed.pre_norm.weight", "patch_norms"), Need("patch_embed.post_norm.weight", "patch_norms"))

VIT_PYTORCH = Dialect(
    name="vit-pytorch",
    signature=("to_patch_embedding.2.weight", "transformer.layers.0.0.to_qkv.weight", "transformer.norm.weight"),
    rules=(
        rule("cls_token", "cls_token", pattern="a d -> 1 a d"),
        rule("pos_embed", "pos_embedding", pattern="t d -> 1 t d"),
        *BODY,
        *layer("blocks.{i}.attn.proj", f"{ATTENTION}.to_out.0"),
        *layer("blocks.{i}.mlp.fc2", f"{FEED_FORWARD}.net.4"),
        *layer("head", "mlp_head"),
    ),
    conventions={"norm_eps": 1e-5, "act": "gelu"},
    pattern_sizes=pattern_sizes,
    needs=(
        *NORMS,
        Need("cls_token", "class_token"),  # present, but empty, where the patches are averaged
        Need("pos_embed", "pos"),
        Need("patch_embed.proj.bias", "patch_bias"),
        Need("blocks.0.attn.proj.bias", "proj_bias", where_present="blocks.0.attn.proj.weight"),
        HEAD_BIAS,
    ),
    facts_from_module=facts_from_module,
    resize="vit-pytorch",
    write_facts=patch_facts,
    added={"cls_token": lambda spec: (0, spec.dim)},  # an absent class token is stored as an empty tensor
)


def before_1_17(shapes: Shapes) -> bool:
    """Whether tokens or positions have a leading axis of length 1."""
    positions = shapes.get("pos_embedding", ())
    if len(positions) == 2:
        return False
    return (len(positions) == 3 and positions[0] == 1) or len(shapes.get("cls_token", ())) == 3


# Before 1.17, tokens and positions have a leading axis of length 1, and the mean includes the class token.
TOKENS = (rule("cls_token", "cls_token"), rule("pos_embed", "pos_embedding"))
VIT_PYTORCH_1_15 = replace(
    VIT_PYTORCH,
    name="vit-pytorch-1.15",
    rules=replaced(VIT_PYTORCH.rules, *TOKENS),
    conventions={**VIT_PYTORCH.conventions, "pool_tokens": "all"},
    matches_shapes=before_1_17,
    facts_from_module=None,
    write_facts=lambda spec: {**patch_facts(spec), "pool": spec.pool},
    added={},
)


def generation(name: str, patch: tuple[Rule, ...], signature: str, attention: str, mlp: str, needs: tuple[Need, ...]) -> Dialect:
    """A dialect of older versions, in which the final norm comes after pooling, in the head.

    `signature` is the first key of the signature; `attention` and `mlp` are the paths of the layers in a block.
    """
    block = "transformer.layers.{i}"
    return replace(
        VIT_PYTORCH_1_15,
        name=name,
        signature=(signature, f"transformer.layers.0.0.{attention}.to_qkv.weight", "mlp_head.1.weight"),
        rules=(
            *TOKENS,
            *patch,
            *layer("blocks.{i}.norm1", f"{block}.0.{attention[: -len('fn')]}norm"),
            rule("blocks.{i}.attn.qkv.weight", f"{block}.0.{attention}.to_qkv.weight"),
            *layer("blocks.{i}.attn.proj", f"{block}.0.{attention}.to_out.0"),
            *layer("blocks.{i}.norm2", f"{block}.1.{attention[: -len('fn')]}norm"),
            *layer("blocks.{i}.mlp.fc1", f"{block}.1.{mlp}.0"),
            *layer("blocks.{i}.mlp.fc2", f"{block}.1.{mlp}.3"),
            *layer("fc_norm", "mlp_head.0"),
            *layer("head", "mlp_head.1"),
        ),
        conventions={**VIT_PYTORCH_1_15.conventions, "pool": "cls"},
        needs=needs,
        matches_shapes=lambda shapes: True,
    )


BARE = tuple(need for need in VIT_PYTORCH.needs if need not in NORMS)


def linear_patch(theirs: str) -> tuple[Rule, ...]:
    return (
        rule("patch_embed.proj.weight", f"{theirs}.weight", pattern="d (p q c) -> d c p q"),
        rule("patch_embed.proj.bias", f"{theirs}.bias"),
    )


VIT_PYTORCH_1_2 = generation("vit-pytorch-1.2", BODY[:6], "to_patch_embedding.2.weight", "fn", "fn.net", VIT_PYTORCH.needs)
VIT_PYTORCH_0_40 = generation(
    "vit-pytorch-0.40", linear_patch("to_patch_embedding.1"), "to_patch_embedding.1.weight", "fn", "fn.net", BARE
)
VIT_PYTORCH_0_6 = generation(
    "vit-pytorch-0.6", linear_patch("patch_to_embedding"), "patch_to_embedding.weight", "fn.fn", "fn.fn.net", BARE
)

SIMPLE_VIT = Dialect(
    name="vit-pytorch-simple",
    signature=("to_patch_embedding.2.weight", "transformer.layers.0.0.to_out.weight", "transformer.norm.weight"),
    rules=(
        rule("reg_token", "register_tokens", pattern="r d -> 1 r d"),
        *BODY,
        rule("blocks.{i}.attn.proj.weight", f"{ATTENTION}.to_out.weight"),
        *layer("blocks.{i}.mlp.fc2", f"{FEED_FORWARD}.net.3"),
        *layer("head", "linear_head"),
    ),
    conventions={"norm_eps": 1e-5, "act": "gelu", "pos": "sincos_moco"},
    pattern_sizes=pattern_sizes,
    needs=(Need("patch_embed.proj.bias", "patch_bias"), HEAD_BIAS),
    refused=((r"transformer\.layers\.\d+\.0\.[qk]_norm\.gamma", "an RMSNorm of queries or keys"),),
    facts_from_module=facts_from_module,
    write_facts=patch_facts,
)
