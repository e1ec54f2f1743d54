"""Weight dialects of AIMv2: Apple's own files, and transformers'.

Sources: apple/ml-aim, aim-v2 (mixins and torch/models.py); transformers 5.23, models/aimv2/modeling_aimv2.py: RMS norms, eps
1e-5, SwiGLU, no biases in the blocks. Apple's and timm's models average the patches; those of transformers return them, and
their attention pooling (`head.*`) is another than `pool` "map".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vit_zoo.weights.configs.hf import SIDECAR, config_of, prefix_of
from vit_zoo.weights.dialect import Dialect, Need, layer, rule
from vit_zoo.weights.dialects.hf import config_from_module, facts_from_module, run_module

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

NEEDS = (
    Need("pos_embed", "pos"),
    Need("patch_embed.proj.bias", "patch_bias"),
    Need("patch_embed.norm.weight", "patch_norms"),
    Need("norm.weight", "final_norm"),
)
ALIKE = {"norm": "rms", "norm_eps": 1e-5, "act": "silu"}
BLOCK = "trunk.blocks.{i}"
LAYER = "encoder.layers.{i}"

AIMV2 = Dialect(
    name="aimv2",
    signature=("preprocessor.patchifier.proj.weight", "trunk.blocks.0.attn.qkv.weight"),
    rules=(
        rule("pos_embed", "preprocessor.pos_embed"),
        *layer("patch_embed.proj", "preprocessor.patchifier.proj"),
        *layer("patch_embed.norm", "preprocessor.patchifier.norm"),
        *layer("blocks.{i}.norm1", f"{BLOCK}.norm_1"),
        *layer("blocks.{i}.attn.qkv", f"{BLOCK}.attn.qkv"),
        *layer("blocks.{i}.attn.proj", f"{BLOCK}.attn.proj"),
        *layer("blocks.{i}.norm2", f"{BLOCK}.norm_2"),
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.fc1", f"{BLOCK}.mlp.fc3"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.fc2"),
        *layer("norm", "trunk.post_trunk_norm"),
    ),
    conventions=ALIKE,
    needs=NEEDS,
    position_covers=("patches",),
    resize="timm",
)


def aimv2_class(spec: ViTSpec) -> tuple[str, str]:
    """The model type and the class of transformers for a spec."""
    return "aimv2_vision_model", "Aimv2VisionModel"


HF_AIMV2 = Dialect(
    name="hf-aimv2",
    signature=("embeddings.patch_embed.weight", "encoder.layers.0.ffn.gate_proj.weight"),
    rules=(
        rule("pos_embed", "embeddings.position_embedding.weight", pattern="t d -> 1 t d"),
        *layer("patch_embed.proj", "embeddings.patch_embed"),
        *layer("patch_embed.norm", "embeddings.rms_norm"),
        *layer("blocks.{i}.norm1", f"{LAYER}.rms_norm1"),
        *layer("blocks.{i}.attn.qkv", *(f"{LAYER}.attention.{part}_proj" for part in "qkv")),
        *layer("blocks.{i}.attn.proj", f"{LAYER}.attention.out_proj"),
        *layer("blocks.{i}.norm2", f"{LAYER}.rms_norm2"),
        *layer("blocks.{i}.mlp.fc1", f"{LAYER}.ffn.gate_proj", f"{LAYER}.ffn.up_proj"),
        *layer("blocks.{i}.mlp.fc2", f"{LAYER}.ffn.down_proj"),
        *layer("norm", "rms_norm"),
    ),
    conventions={**ALIKE, "pool": "none"},
    needs=NEEDS,
    prefixes=("vision_model.", ""),
    position_covers=("patches",),
    unwanted=(r"embeddings\.position_ids",),
    unwanted_outside=(r"text_model\..*", r"(visual|text)_projection\..*", "logit_scale"),
    refused=((r"head\..*", "attention pooling without a projection of its query"),),
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    run_module=run_module,
    sidecar=SIDECAR,
    write_prefix=partial(prefix_of, aimv2_class),
    write_config=partial(config_of, aimv2_class),
    resize="hf",
)
