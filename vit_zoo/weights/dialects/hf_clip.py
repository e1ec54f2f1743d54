"""Weight dialects of transformers' image towers: CLIP, SigLIP, SigLIP 2, and the classifiers made of them.

Source: transformers 5.23 and 4.57, models/{clip,siglip,siglip2}/modeling_*.py. Before 5.x, the names of a bare tower
have the prefix `vision_model.`; 5.x writes no prefix and reads both.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.weights.configs.hf import SIDECAR, config_of, prefix_of
from vit_zoo.weights.dialect import HEAD_BIAS, POOL_LATENT, Dialect, Need, layer, rule
from vit_zoo.weights.dialects.clip import CLIP_TEXT
from vit_zoo.weights.dialects.flat_patch import flat_patch
from vit_zoo.weights.dialects.hf import config_from_module, facts_from_module, image_features, run_module

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

BLOCK = "encoder.layers.{i}"
BLOCKS = (
    *layer("blocks.{i}.norm1", f"{BLOCK}.layer_norm1"),
    *layer("blocks.{i}.attn.qkv", *(f"{BLOCK}.self_attn.{part}_proj" for part in "qkv")),
    *layer("blocks.{i}.attn.proj", f"{BLOCK}.self_attn.out_proj"),
    *layer("blocks.{i}.norm2", f"{BLOCK}.layer_norm2"),
    *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.fc1"),
    *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.fc2"),
)
POSITIONS = rule("pos_embed", "embeddings.position_embedding.weight", pattern="t d -> 1 t d")
NEEDS = (
    Need("pos_embed", "pos"),
    Need("blocks.0.attn.qkv.bias", "qkv_bias"),
    Need("blocks.0.attn.proj.bias", "proj_bias"),
    Need("blocks.0.mlp.fc1.bias", "mlp_bias"),
)
UNWANTED = (r"embeddings\.position_ids",)


def clip_class(spec: ViTSpec) -> tuple[str, str]:
    """The model type and the class of transformers for a spec."""
    return "clip_vision_model", "CLIPVisionModelWithProjection" if spec.num_classes else "CLIPVisionModel"


def siglip_class(spec: ViTSpec) -> tuple[str, str]:
    """The model type and the class of transformers for a spec."""
    return "siglip_vision_model", "SiglipVisionModel"


HF_CLIP = Dialect(
    name="hf-clip",
    signature=("embeddings.patch_embedding.weight", "embeddings.class_embedding", "pre_layrnorm.weight"),
    rules=(
        rule("cls_token", "embeddings.class_embedding", pattern="d -> 1 1 d"),
        POSITIONS,
        rule("patch_embed.proj.weight", "embeddings.patch_embedding.weight"),
        *layer("norm_pre", "pre_layrnorm"),
        *BLOCKS,
        *layer("fc_norm", "post_layernorm"),
        rule("head.weight", "visual_projection.weight"),
    ),
    conventions={"pool": "cls"},
    needs=NEEDS,
    prefixes=("vision_model.", ""),
    unprefixed=("visual_projection", "classifier"),
    unwanted=UNWANTED,
    projects=True,
    unwanted_outside=CLIP_TEXT,
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    run_module=run_module,
    sidecar=SIDECAR,
    write_prefix=partial(prefix_of, clip_class),
    write_config=partial(config_of, clip_class),
    resize="hf",
)

# Classifiers average the patches: SigLIP's after the final norm, CLIP's without it, so that its norm is unused.
HF_CLIP_CLASSIFIER = replace(
    HF_CLIP,
    name="hf-clip-classifier",
    signature=(*HF_CLIP.signature, "classifier.weight"),
    rules=(*(r for r in HF_CLIP.rules if not r.ours.startswith(("fc_norm", "head"))), *layer("head", "classifier")),
    conventions={"pool": "mean", "pool_tokens": "patches"},
    projects=False,
    needs=(*NEEDS, HEAD_BIAS),
    unwanted=(*UNWANTED, r"post_layernorm\.(weight|bias)"),
)

MAP = (
    rule("attn_pool.latent", "head.probe"),
    *(
        rule(f"attn_pool.{ours}.{kind}", f"head.attention.in_proj_{kind}", rows=rows)
        for kind in ("weight", "bias")
        for ours, rows in (("q", (0, 1, 3)), ("kv", (1, 3, 3)))
    ),
    *layer("attn_pool.proj", "head.attention.out_proj"),
    *layer("attn_pool.norm", "head.layernorm"),
    *layer("attn_pool.mlp.fc1", "head.mlp.fc1"),
    *layer("attn_pool.mlp.fc2", "head.mlp.fc2"),
)

HF_SIGLIP = Dialect(
    name="hf-siglip",
    signature=("embeddings.patch_embedding.weight", "embeddings.position_embedding.weight", "post_layernorm.weight"),
    rules=(
        POSITIONS,
        *layer("patch_embed.proj", "embeddings.patch_embedding"),
        *BLOCKS,
        *layer("norm", "post_layernorm"),
        *MAP,
    ),
    conventions={},
    needs=(*NEEDS, Need("patch_embed.proj.bias", "patch_bias"), POOL_LATENT),
    prefixes=("vision_model.", ""),
    unprefixed=("classifier",),
    unwanted=UNWANTED,
    unwanted_outside=CLIP_TEXT,
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    run_module=run_module,
    sidecar=SIDECAR,
    write_prefix=partial(prefix_of, siglip_class),
    write_config=partial(config_of, siglip_class),
    resize="hf",
)

HF_SIGLIP_CLASSIFIER = replace(
    HF_SIGLIP,
    name="hf-siglip-classifier",
    signature=(*HF_SIGLIP.signature, "classifier.weight"),
    rules=(*(r for r in HF_SIGLIP.rules if not r.ours.startswith("attn_pool")), *layer("head", "classifier")),
    conventions={"pool": "mean"},
    needs=(*NEEDS, Need("patch_embed.proj.bias", "patch_bias"), HEAD_BIAS),
    unwanted=(*UNWANTED, *(re.escape(theirs) for r in MAP for theirs in r.theirs)),
)


def run_naflex(module: Any, images: Any) -> Any:
    """The result of a live module, which takes patches of any grid, each flattened in the order (row, column, channel)."""
    import torch
    from einops import rearrange

    config = getattr(module.config, "vision_config", module.config)
    p = config.patch_size
    grid = images.shape[2] // p, images.shape[3] // p
    patches = rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=p, q=p)
    mask = torch.ones(patches.shape[:2], dtype=torch.long, device=images.device)
    shapes = torch.tensor([grid] * len(images), device=images.device)
    words = {"pixel_attention_mask": mask, "spatial_shapes": shapes}
    if hasattr(module, "get_image_features"):
        return image_features(module.get_image_features(patches, **words))
    return module(patches, **words)


HF_SIGLIP2_NAFLEX = replace(
    HF_SIGLIP,
    name="hf-siglip2-naflex",
    run_module=run_naflex,
    rules=(
        rule("patch_embed.proj.weight", "embeddings.patch_embedding.weight", pattern="d (p q c) -> d c p q"),
        *(r for r in HF_SIGLIP.rules if r.ours != "patch_embed.proj.weight"),
    ),
    pattern_sizes=lambda shapes, facts: flat_patch(shapes, "embeddings.patch_embedding.weight", 1, facts),
    matches_shapes=lambda shapes: len(shapes.get("embeddings.patch_embedding.weight", ())) == 2,
    resize="naflex",
)
