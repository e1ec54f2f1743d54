"""Weight dialects of timm's `vit_*` and of our own files: names and shapes are the same, so every rule is the identity.

Source: timm 1.0.31, models/vision_transformer.py, and models/eva.py for models whose names are the same. Conventions: eps 1e-6,
exact GELU, as in the AugReg conversions. CLIP towers have eps 1e-5, and some of them QuickGELU; SigLIP towers have one of two
GELUs; AIMv2 and BEiT-3 have eps 1e-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable
from vit_zoo.model.positions import ROTATIONS
from vit_zoo.weights.configs.open_clip import TIMM_SIDECAR as OPEN_CLIP_SIDECAR
from vit_zoo.weights.configs.timm import POOLS, SIDECAR, config_from_module, config_of
from vit_zoo.weights.dialect import HEAD_BIAS, POOL_LATENT, Dialect, Need, Rule, Shapes, layer, replaced
from vit_zoo.weights.dialects import clip
from vit_zoo.weights.dialects.clip import CLIP_TEXT

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

SINGLE = (
    "cls_token", "dist_token", "reg_token", "pos_embed", "rope.freqs", "rel_pos_bias.relative_position_bias_table",
    "attn_pool.latent", "blocks.{i}.attn.q_bias", "blocks.{i}.attn.v_bias", "blocks.{i}.attn.relative_position_bias_table",
    "blocks.{i}.ls1.gamma", "blocks.{i}.ls2.gamma",
)  # fmt: skip
LAYERS = (
    "patch_embed.pre_norm", "patch_embed.proj", "patch_embed.post_norm", "patch_embed.norm", "norm_pre", "norm", "fc_norm",
    "pre_logits", "head", "head_dist", "attn_pool.q", "attn_pool.kv", "attn_pool.proj", "attn_pool.norm",
    "attn_pool.mlp.fc1", "attn_pool.mlp.fc2", "blocks.{i}.norm1", "blocks.{i}.attn.qkv", "blocks.{i}.attn.q_norm",
    "blocks.{i}.attn.k_norm", "blocks.{i}.attn.norm", "blocks.{i}.attn.proj", "blocks.{i}.norm2", "blocks.{i}.mlp.fc1",
    "blocks.{i}.mlp.norm", "blocks.{i}.mlp.fc2",
)  # fmt: skip


# activation classes of torch, timm, open_clip and transformers, by name and the value of their `approximate` argument
ACTS = {
    ("GELU", "none"): "gelu",
    ("GELU", "tanh"): "gelu_tanh",
    ("GELUTanh", ""): "gelu_tanh",
    ("QuickGELU", ""): "quick_gelu",
    ("SiLU", ""): "silu",
    ("GELUActivation", ""): "gelu",
    ("PytorchGELUTanh", ""): "gelu_tanh",
    ("NewGELUActivation", ""): "gelu_tanh",
    ("FastGELUActivation", ""): "gelu_tanh",
    ("QuickGELUActivation", ""): "quick_gelu",
}


NORMS = {"LayerNorm": "layer", "LayerNormFp32": "layer", "RmsNorm": "rms", "RmsNormFp32": "rms", "RMSNorm": "rms"}


def facts_from_module(module: Any) -> dict[str, Any]:
    """Facts from a live module: heads, image size, norms, activation, positions, pooling, and the tensors that it lacks.

    Meta's classes, DINO's for example, have the attributes of timm's that their blocks need, and their pooling is fixed.
    """
    block = first_block(module)
    if getattr(block.mlp, "gate_last", False):
        raise NotRepresentable("unsupported timm model: the gate of its MLP comes last")
    if getattr(block.attn, "num_kv_heads", block.attn.num_heads) != block.attn.num_heads:
        raise NotRepresentable("unsupported timm model: several of its queries have the same keys")
    facts = {
        "heads": block.attn.num_heads,
        "image_size": module.patch_embed.img_size,
        "norm": NORMS.get(type(block.norm1).__name__, "layer"),
        "norm_eps": block.norm1.eps,
        "block_norm": "post" if type(block).__name__ in POST_NORM else "pre",
        "patch_bias": module.patch_embed.proj.bias is not None,
        "head_bias": getattr(module.head, "bias", True) is not None,
    }
    if hasattr(module, "pos_embed"):
        facts |= rotation_of(module)
    if hasattr(block.mlp, "act"):
        facts["act"] = act_of(block.mlp.act)
    if isinstance(getattr(module, "global_pool", None), str):
        facts["pool"], facts["pool_tokens"] = pool_of(module, include_prefix=getattr(module, "pool_include_prefix", False))
    if facts.get("pool") == "map":
        facts["pool_tokens"] = "all" if has_rotation_argument(module) else facts["pool_tokens"]
        facts["pool_heads"] = other_heads(module.attn_pool.num_heads, facts["heads"])
    return facts


POST_NORM = ("EvaBlockPostNorm", "ResPostBlock")
# the attributes of timm's rotations that a form has. In PE's, the class token is 0 and patches are counted from 1.
CENTRED = {
    "temperature": ROTATIONS["dinov3"].base, "min_period": None, "max_period": None, "normalize_coords": "separate",
    "grid_offset": 0.0, "grid_indexing": "ij", "rotate_half": True,
}  # fmt: skip
COUNTED = {"in_pixels": False, "grid_type": "index", "rotate_half": False}


def other_heads(heads: int, usual: int) -> int:
    """The field `pool_heads`: 0 where pooling has as many as the blocks."""
    return 0 if heads == usual else heads


def has_rotation_argument(module: Any) -> bool:
    """Whether a module is one of timm's Eva, which can rotate queries and keys, and whose pooling reads all tokens."""
    return hasattr(module, "rope") and hasattr(module, "rope_mixed")


def rotation_of(module: Any) -> dict[str, Any]:
    """The fields `pos`, `rope` and `rope_grid`. Raises NotRepresentable for a rotation that no form of ours is."""
    rope, learned = getattr(module, "rope", None), module.pos_embed is not None
    if rope is None:
        return {"pos": "learned" if learned else "none"}
    facts: dict[str, Any] = {"pos": "learned+rope" if learned else "rope"}
    kind = type(rope).__name__
    if kind == "RotaryEmbeddingDinoV3":
        return {**facts, "rope": "dinov3", **_with_attributes(rope, CENTRED)}
    if kind == "RotaryEmbeddingMixed":
        return {**facts, "rope": "mixed", **_with_attributes(rope, {"grid_indexing": "xy"})}
    if kind != "RotaryEmbeddingCat":
        raise NotRepresentable(f"unsupported timm model: its rotation is {kind}")
    _with_attributes(rope, COUNTED)
    grid = rope.ref_feat_shape and tuple(rope.ref_feat_shape)
    stated = (rope.temperature, rope.grid_indexing == "xy", rope.grid_offset)
    for name, form in ROTATIONS.items():
        first = int(form.after_class and module.cls_token is not None)
        if not form.centred and stated == (form.base, form.columns_first, first) and (name != "axial" or grid is None):
            return {**facts, "rope": name, "rope_grid": grid}
    raise NotRepresentable(f"unsupported timm model: its rotation has temperature {stated[0]:g} and offset {stated[2]:g}")


def _with_attributes(rope: Any, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return no facts. Raises NotRepresentable if an attribute of a rotation has another value."""
    different = [name for name, value in expected.items() if getattr(rope, name, "absent") != value]
    if different:
        raise NotRepresentable(f"unsupported timm model: {different[0]} of its rotation is {getattr(rope, different[0], None)}")
    return {}


def first_block(module: Any) -> Any:
    """The first block of a live module. DINOv2 groups blocks in chunks, which it fills up with identities."""
    block = module.blocks[0]
    return block[0] if type(block).__name__ == "BlockChunk" else block


def act_of(act: Any) -> str:
    """Our name of an activation module."""
    kind = (type(act).__name__, getattr(act, "approximate", ""))
    if kind not in ACTS:
        raise NotRepresentable(f"unsupported timm model: its activation is {kind[0]}")
    return ACTS[kind]


def pool_of(module: Any, *, include_prefix: bool) -> tuple[str, str]:
    """The fields `pool` and `pool_tokens`; `include_prefix`: the class token and registers are averaged too."""
    if module.global_pool not in POOLS:
        raise NotRepresentable(f"unsupported timm model: its pooling is '{module.global_pool}'")
    pool = POOLS[module.global_pool]
    return pool, "patches" if pool in ("mean", "map") and not include_prefix else "all"


def looks_like_others(spec: ViTSpec) -> bool:
    """Whether a file may be a FlexiViT of timm, a model of DINO or one of MAE, whose recipes are not that of `vit_*`.

    FlexiViT has a class token without a position; the backbones have no head; MAE's classifiers pool the patches.
    """
    if not spec.class_token or spec.dist_token or spec.registers or spec.layer_scale or spec.pre_norm or spec.pos != "learned":
        return False
    return spec.pool in ("mean", "cls+mean") or (spec.pool == "cls" and (spec.pos_covers == "patches" or spec.num_classes == 0))


POST_NORM_WIDTH = 1792  # of EVA-02-CLIP-E, whose tensors are those of EVA-g, 1408 wide, but for their sizes
EVA02_GRID = (16, 16)  # of EVA-02's pretraining, which its rotation has at every image size


def conventions_by_shapes(shapes: Shapes) -> dict[str, Any]:
    """What differs in CLIP towers, which alone have a norm before the blocks, in SigLIP towers, and in newer families.

    SigLIP towers have no tokens but the patches, with attention pooling or without, and biases in every layer. The rotation of
    PE's models (with a norm before the blocks, attention pooling or no norm after them) must be stated.
    """
    if "rope.freqs" in shapes:
        return {"pos": "learned+rope" if "pos_embed" in shapes else "rope", "rope": "mixed"}
    if "norm_pre.weight" in shapes:
        scaled = "blocks.0.ls1.gamma" in shapes
        perception = "attn_pool.latent" in shapes or not {"norm.weight", "fc_norm.weight"} & set(shapes)
        pooling = {"pool_heads": None} if "attn_pool.latent" in shapes else {"pool": "mean"}
        return {"norm_eps": 1e-5, "act": None, **({"pos": None, **pooling} if perception and not scaled else {})}
    if "blocks.0.attn.q_bias" in shapes and "pos_embed" in shapes:
        if is_gated(shapes):
            return {"pos": "learned+rope", "rope": "eva02", "rope_grid": EVA02_GRID}
        width = shapes["patch_embed.proj.weight"][0]
        return {"block_norm": {POST_NORM_WIDTH: "post", 1408: "pre"}.get(width)}
    if "blocks.0.norm1.bias" not in shapes and "patch_embed.norm.weight" in shapes:
        return {"norm": "rms", "norm_eps": 1e-5}
    if "blocks.0.attn.norm.weight" in shapes:
        return {"norm_eps": 1e-5}
    siglip = "blocks.0.attn.qkv.bias" in shapes and not {"cls_token", "reg_token", "dist_token"} & set(shapes)
    return {"act": None} if siglip else {}


def is_gated(shapes: Shapes) -> bool:
    """Whether the first layer of an MLP computes gates too."""
    first, last = shapes.get("blocks.0.mlp.fc1.weight", ()), shapes.get("blocks.0.mlp.fc2.weight", ())
    return len(first) == len(last) == 2 and first[0] == 2 * last[1]


def write_facts(spec: ViTSpec) -> dict[str, Any]:
    """The activation where files do not have one in common."""
    return {"act": spec.act} if TIMM.conventions_of(spec.shapes()).get("act") is None else {}


ALWAYS = (
    Need("dist_token", "dist_token", where_present="head_dist.weight"),
    POOL_LATENT,
)
CLOSING = (Need("patch_embed.proj.bias", "patch_bias"), HEAD_BIAS)
RULES = (*(Rule(name, (name,)) for name in SINGLE), *(r for name in LAYERS for r in layer(name, name)))

# Files with norms around the patch projection, as vit-pytorch has them, under our names: no library fixes their eps and GELU.
VITZOO = Dialect(
    name="vitzoo",
    signature=("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "patch_embed.pre_norm.weight"),
    rules=RULES,
    conventions={},
    position_covers=("patches", "all", "class"),
    needs=(Need("pos_embed", "pos"), *CLOSING, *ALWAYS),
    sidecar=SIDECAR,
)

TIMM = Dialect(
    name="timm",
    signature=("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
    rules=RULES,
    conventions={"norm_eps": 1e-6, "act": "gelu"},
    needs=(Need("pos_embed", "pos"), Need("patch_embed.proj.bias", "patch_bias", unless="norm_pre.weight"), HEAD_BIAS, *ALWAYS),
    position_covers=("patches", "all"),
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    sidecar=SIDECAR,
    resize_unstated=looks_like_others,
    conventions_by_shapes=conventions_by_shapes,
    write_facts=write_facts,
    write_config=config_of,
)


# AIMv2, whose gates and values are apart
TIMM_SWIGLU = replace(
    TIMM,
    name="timm-swiglu",
    signature=("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1_g.weight"),
    rules=replaced(RULES, *layer("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.fc1_g", "blocks.{i}.mlp.fc1_x")),
    needs=(
        *TIMM.needs,
        Need("patch_embed.norm.weight", "patch_norms"),
        Need("norm.weight", "final_norm", unless="fc_norm.weight"),
    ),
)


def facts_from_tower(module: Any) -> dict[str, Any]:
    """Facts from a live model of open_clip, or from its image tower alone."""
    tower = getattr(module, "visual", module)
    kind = type(tower.trunk).__name__
    if kind not in ("VisionTransformer", "Eva"):
        raise NotRepresentable(f"unsupported open_clip model: its image tower is timm's {kind}")
    facts = facts_from_module(tower.trunk)
    projection = getattr(tower.head, "proj", None)
    return facts if projection is None else {**facts, "head_bias": projection.bias is not None}


# Towers of timm in open_clip's models, with the projection of their output.
OPEN_CLIP_TIMM = replace(
    TIMM,
    name="open_clip-timm",
    rules=(*RULES, *layer("head", "head.proj")),
    prefixes=("visual.trunk.", "trunk."),
    unprefixed=("visual.head.", "head."),
    renames=((r"^visual\.head\.", "head."),),
    unwanted_outside=CLIP_TEXT,
    projects=True,
    facts_from_module=facts_from_tower,
    config_from_module=clip.config_from_module,
    run_module=clip.run_module,
    sidecar=OPEN_CLIP_SIDECAR,
    write_config=None,
)
