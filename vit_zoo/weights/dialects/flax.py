"""Weight dialects of Google's .npz files.

vision_transformer (original ViT, AugReg, SAM) and big_vision (SigLIP, FlexiViT, LiT, NaFlex).

Sources: google-research/vision_transformer, models_vit.py and checkpoint.py; google-research/big_vision, models/vit.py and
models/proj/flexi/vit.py. eps 1e-6, and flax's GELU, which is the tanh form. Kernels are (in, out), and heads have an axis of
their own. The published files number the parts of a block as flax did before its linen API (LayerNorm_2, MlpBlock_3, ...).
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.files import Stored
from vit_zoo.files.safetensors import MAX_TENSORS
from vit_zoo.weights.dialect import HEAD_BIAS, POOL_LATENT, Dialect, Need, Rule, Shapes, grid_of, layer, rule
from vit_zoo.weights.dialects.flat_patch import flat_patch

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

IN, IN_BIAS = "d h e -> (h e) d", "h e -> (h e)"
SCAN = re.compile(r"(.*Transformer/encoderblock)/(.+)")
MAX_BLOCKS = 1000  # a longer axis is not that of blocks: an empty tensor can claim a billion of them


def norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
    """The rules of a LayerNorm."""
    return layer(ours, theirs, weight="/scale", bias="/bias")


def kernel(ours: str, *theirs: str, pattern: str = "i o -> o i", bias_pattern: str | None = None) -> tuple[Rule, Rule]:
    """The rules of a linear layer or a convolution."""
    return layer(ours, *theirs, weight="/kernel", bias="/bias", pattern=pattern, bias_pattern=bias_pattern)


def attention(ours: str, theirs: str) -> tuple[Rule, ...]:
    """The rules of an attention layer."""
    names = [f"{theirs}/{part}" for part in ("query", "key", "value")]
    return (
        *kernel(f"{ours}.qkv", *names, pattern=IN, bias_pattern=IN_BIAS),
        *kernel(f"{ours}.proj", f"{theirs}/out", pattern="h e d -> d (h e)"),
    )


def blocks(mha: str, second: str, mlp: str) -> tuple[Rule, ...]:
    """The rules of the blocks; the arguments are the names of attention, of the second norm and of the MLP."""
    theirs = "Transformer/encoderblock_{i}"
    return (
        *norm("blocks.{i}.norm1", f"{theirs}/LayerNorm_0"),
        *attention("blocks.{i}.attn", f"{theirs}/{mha}"),
        *norm("blocks.{i}.norm2", f"{theirs}/{second}"),
        *kernel("blocks.{i}.mlp.fc1", f"{theirs}/{mlp}/Dense_0"),
        *kernel("blocks.{i}.mlp.fc2", f"{theirs}/{mlp}/Dense_1"),
    )


ENDS = (
    rule("cls_token", "cls"),
    *kernel("patch_embed.proj", "embedding", pattern="p q c d -> d c p q"),
    *norm("norm", "Transformer/encoder_norm"),
    *kernel("pre_logits", "pre_logits"),
    *kernel("head", "head"),
)
POOL = "MAPHead_0"
MAP = (
    rule("attn_pool.latent", f"{POOL}/probe"),
    *kernel("attn_pool.q", f"{POOL}/MultiHeadDotProductAttention_0/query", pattern=IN, bias_pattern=IN_BIAS),
    *kernel(
        "attn_pool.kv", *(f"{POOL}/MultiHeadDotProductAttention_0/{part}" for part in ("key", "value")),
        pattern=IN, bias_pattern=IN_BIAS,
    ),
    *kernel("attn_pool.proj", f"{POOL}/MultiHeadDotProductAttention_0/out", pattern="h e d -> d (h e)"),
    *norm("attn_pool.norm", f"{POOL}/LayerNorm_0"),
    *kernel("attn_pool.mlp.fc1", f"{POOL}/MlpBlock_0/Dense_0"),
    *kernel("attn_pool.mlp.fc2", f"{POOL}/MlpBlock_0/Dense_1"),
)  # fmt: skip


def unscanned(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Split tensors that hold all blocks along their first axis, as flax's scan stores them."""
    split: dict[str, Stored] = {}
    for key, tensor in tensors.items():
        match = SCAN.fullmatch(key)
        if match is None or not _is_scanned(tensor.shape, len(split)) or key.startswith(("params/txt/", "opt/state/")):
            split[key] = tensor
            continue
        for i in range(tensor.shape[0]):
            split[f"{match[1]}_{i}/{match[2]}"] = Stored(tensor.dtype, tensor.shape[1:], partial(_block, tensor, i))
    return split


def _is_scanned(shape: tuple[int, ...], others: int) -> bool:
    """Whether the first axis of a shape can be that of blocks, beside this number of other tensors."""
    return len(shape) > 1 and 0 not in shape and shape[0] <= MAX_BLOCKS and others + shape[0] <= MAX_TENSORS


def _block(tensor: Stored, i: int) -> Array:
    array: Array = tensor.array()[i]
    return array


def head_width(query: str, shapes: Shapes) -> dict[str, Any]:
    """The width of a head, from the first kernel d h e whose name matches the regular expression `query`."""
    kernels = [shape for name, shape in shapes.items() if re.search(query, name)]
    return {"dim_head": kernels[0][2]} if kernels and len(kernels[0]) == 3 and kernels[0][2] else {}


NEEDS = (
    Need("patch_embed.proj.bias", "patch_bias"),
    Need("blocks.0.attn.qkv.bias", "qkv_bias"),
    Need("blocks.0.attn.proj.bias", "proj_bias"),
    Need("blocks.0.mlp.fc1.bias", "mlp_bias"),
    POOL_LATENT,
    HEAD_BIAS,
)

GOOGLE = Dialect(
    name="google",
    signature=(
        "embedding/kernel",
        "Transformer/posembed_input/pos_embedding",
        "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel",
    ),
    rules=(
        rule("pos_embed", "Transformer/posembed_input/pos_embedding"),
        *blocks("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3"),
        *ENDS,
    ),
    conventions={"norm_eps": 1e-6, "act": "gelu_tanh"},
    renames=(
        (r"(encoderblock_\d+)/LayerNorm_1/", r"\1/LayerNorm_2/"),
        (r"(encoderblock_\d+)/MultiHeadDotProductAttention_0/", r"\1/MultiHeadDotProductAttention_1/"),
        (r"(encoderblock_\d+)/MlpBlock_0/", r"\1/MlpBlock_3/"),
    ),
    needs=(Need("pos_embed", "pos"), *NEEDS),
    prefixes=("", "opt/target/", "params/", "optimizer/target/"),
    unwanted=(r"opt/state/.*", r"optimizer/state/.*", r"step", r"states?/.*", r"extra/.*"),
    facts_from_shapes=partial(head_width, r"encoderblock.*/query/kernel$"),
    computes_in_float32=True,
    resize="google",
)

BIG_VISION = replace(
    GOOGLE,
    name="big_vision",
    signature=("embedding/kernel", "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"),
    rules=(
        rule("pos_embed", "pos_embedding"),
        *blocks("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0"),
        *ENDS,
        *MAP,
    ),
    renames=(
        (r"^Transformer/pos_embedding$", "pos_embedding"),
        (r"^(probe$|MlpBlock_0/|MultiHeadDotProductAttention_0/|LayerNorm_0/)", r"MAPHead_0/\1"),  # its first files
    ),
    prefixes=("", "params/img/", "params/", "opt/target/", "opt/target/img/"),
    position_covers=("patches", "all"),
    unwanted_outside=(r"((params|opt/target)/)?(txt/.*|t|b)",),
    prepare=unscanned,
    resize_unstated=lambda spec: spec.class_token,  # it may be a FlexiViT, whose files look the same
    resize_with_patches="big_vision-flexivit",
)


NAFLEX = replace(
    BIG_VISION,
    name="big_vision-naflex",
    rules=(
        rule("patch_embed.proj.weight", "embedding/kernel", pattern="(p q c) d -> d c p q"),
        rule("patch_embed.proj.bias", "embedding/bias"),
        rule("pos_embed", "pos_embedding", pattern="h w d -> 1 (h w) d"),
        *(r for r in BIG_VISION.rules if not r.ours.startswith(("patch_embed", "pos_embed"))),
    ),
    pattern_sizes=lambda shapes, facts: flat_patch(shapes, "embedding/kernel", 0, facts),
    matches_shapes=lambda shapes: len(shapes.get("embedding/kernel", ())) == 2,
    grid=grid_of("pos_embedding"),
    resize="naflex",
    resize_unstated=lambda spec: False,
    resize_with_patches=None,
)
