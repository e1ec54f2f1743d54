"""Weight dialects of OpenAI's CLIP and of open_clip's own image tower, which have the same names.

The timm towers of open_clip have timm's names.

Sources: openai/CLIP, clip/model.py; mlfoundations/open_clip, src/open_clip/transformer.py. eps 1e-5. OpenAI's archives mix
half and float, and hold three numbers by which they are recognised: QuickGELU, heads of width 64. In open_clip's files,
neither follows from the tensors, nor do the pooling and on which side of it the final norm is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_zoo.weights.configs.open_clip import SIDECAR
from vit_zoo.weights.dialect import Dialect, Need, layer, rule

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

NUMBERS = ("input_resolution", "context_length", "vocab_size")
BLOCK = "transformer.resblocks.{i}"
# tensors that are stored in one file with an image tower
CLIP_TEXT = (
    r"logit_scale", r"logit_bias", r"text\..*", r"text_model\..*", r"transformer\.(resblocks|encoder)\..*",
    r"token_embedding\..*", r"positional_embedding", r"ln_final\..*", r"text_projection(\.weight|\.bias)?", r"attn_mask",
    r"input_resolution|context_length|vocab_size", r"text_decoder\..*",
)  # fmt: skip


def write_facts(spec: ViTSpec) -> dict[str, Any]:
    """What open_clip takes from its config: the activation, as the flag `quick_gelu`, and the pooling."""
    act = {"act": spec.act} if spec.act in ("gelu", "quick_gelu") else {}
    return act if spec.pre_norm else {**act, "pool": spec.pool}


OPEN_CLIP = Dialect(
    name="open_clip",
    signature=("class_embedding", "conv1.weight", "transformer.resblocks.0.ln_1.weight"),
    rules=(
        rule("cls_token", "class_embedding", pattern="d -> 1 1 d"),
        rule("pos_embed", "positional_embedding", pattern="t d -> 1 t d"),
        rule("patch_embed.proj.weight", "conv1.weight"),
        *layer("norm_pre", "ln_pre"),
        *layer("blocks.{i}.norm1", f"{BLOCK}.ln_1"),
        rule("blocks.{i}.attn.qkv.weight", f"{BLOCK}.attn.in_proj_weight"),
        rule("blocks.{i}.attn.qkv.bias", f"{BLOCK}.attn.in_proj_bias"),
        *layer("blocks.{i}.attn.proj", f"{BLOCK}.attn.out_proj"),
        rule("blocks.{i}.ls1.gamma", f"{BLOCK}.ls_1.gamma"),
        *layer("blocks.{i}.norm2", f"{BLOCK}.ln_2"),
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.c_fc"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.c_proj"),
        rule("blocks.{i}.ls2.gamma", f"{BLOCK}.ls_2.gamma"),
        *layer("fc_norm", "ln_post"),
        rule("head.weight", "proj", pattern="d k -> k d"),
    ),
    conventions={"norm_eps": 1e-5, "pool": "cls"},
    needs=(
        Need("pos_embed", "pos"),
        Need("norm_pre.weight", "pre_norm"),
        Need("blocks.0.attn.qkv.bias", "qkv_bias"),
        Need("blocks.0.attn.proj.bias", "proj_bias"),
        Need("blocks.0.mlp.fc1.bias", "mlp_bias"),
    ),
    prefixes=("visual.", ""),
    unwanted_outside=CLIP_TEXT,
    norm_place_is_stated=True,
    sidecar=SIDECAR,
    # towers without a norm before the blocks, such as CLIPA's, are those that average the patches
    conventions_by_shapes=lambda shapes: {} if "norm_pre.weight" in shapes else {"pool": None},
    write_facts=write_facts,
    resize="open_clip",
)

OPENAI_CLIP = replace(
    OPEN_CLIP,
    name="openai-clip",
    signature=(*OPEN_CLIP.signature, *NUMBERS),
    conventions={**OPEN_CLIP.conventions, "act": "quick_gelu"},
    sometimes_unprefixed=NUMBERS,
    unwanted=NUMBERS,
    head_width=64,
)
