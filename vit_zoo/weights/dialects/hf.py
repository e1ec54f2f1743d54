"""Weight dialects of transformers' ViT, DeiT, ViTMAE, ViTMSN, IJepa, Dinov2 (with or without registers) and DINOv3.

Source: transformers 5.23 and 4.57, models/*/modeling_*.py. The rules have the names on disk, which both write; 5.x has
other names in memory. eps and activation are only in config.json.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable
from vit_zoo.weights.configs.hf import SIDECAR, config_of, facts_of_config, prefix_of
from vit_zoo.weights.dialect import HEAD_BIAS, Dialect, Need, layer, replaced, rule

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

BLOCK = "encoder.layer.{i}"
ATTENTION = tuple(f"{BLOCK}.attention.attention.{part}" for part in ("query", "key", "value"))


def facts_from_module(module: Any) -> dict[str, Any]:
    """Facts from the config of a live module."""
    return facts_of_config(module.config.to_dict(), where=type(module).__name__, live=True)


def config_from_module(module: Any) -> dict[str, Any]:
    """The config of a live module, which names its classes."""
    config: dict[str, Any] = module.config.to_dict()
    return config


def image_features(result: Any) -> Any:
    """The features in the result of `get_image_features`, which is a tensor before 5.x."""
    return getattr(result, "pooler_output", result)


def run_module(module: Any, images: Any) -> Any:
    """The result of a live module: of the image tower, if it has a text tower too.

    ViTMAE drops random patches, and sorts the rest by its noise: it is told to drop none and to keep their order.
    """
    import torch

    if hasattr(module, "get_image_features"):
        return image_features(module.get_image_features(images))
    if not hasattr(module.config, "mask_ratio"):
        return module(images)
    ratio, module.config.mask_ratio = module.config.mask_ratio, 0.0
    try:
        patches = module.config.image_size // module.config.patch_size
        return module(images, noise=torch.arange(patches**2, device=images.device).expand(len(images), -1))
    finally:
        module.config.mask_ratio = ratio


def _head(spec: ViTSpec) -> str:
    return "ForImageClassification" if spec.num_classes else "Model"


def vit_class(spec: ViTSpec) -> tuple[str, str]:
    """The model type and the class of transformers for a spec, as for the functions below.

    A ViTModel always has a pooler; the same model without one is ViTMSNModel.
    """
    if not spec.class_token:
        return "ijepa", f"IJepa{_head(spec)}"
    return ("vit", f"ViT{_head(spec)}") if spec.num_classes or spec.representation else ("vit_msn", "ViTMSNModel")


def deit_class(spec: ViTSpec) -> tuple[str, str]:
    return "deit", f"DeiT{_head(spec)}"


def deit_teacher_class(spec: ViTSpec) -> tuple[str, str]:
    return "deit", "DeiTForImageClassificationWithTeacher"


def dinov2_class(spec: ViTSpec) -> tuple[str, str]:
    if spec.num_classes and spec.pool != "cls+mean":
        raise NotRepresentable(f"transformers' Dinov2 has pool 'cls+mean' for classification, not '{spec.pool}'")
    if spec.registers:
        return "dinov2_with_registers", f"Dinov2WithRegisters{_head(spec)}"
    return "dinov2", f"Dinov2{_head(spec)}"


def dinov3_class(spec: ViTSpec) -> tuple[str, str]:
    return "dinov3_vit", "DINOv3ViTModel"


IN_MEMORY = (
    (r"^layers\.(\d+)\.", r"encoder.layer.\1."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
ENDS = (
    rule("cls_token", "embeddings.cls_token"),
    rule("pos_embed", "embeddings.position_embeddings"),
    *layer("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    *layer("norm", "layernorm"),
    *layer("pre_logits", "pooler.dense"),
    *layer("head", "classifier"),
)
NEEDS = (
    Need("pos_embed", "pos"),
    Need("patch_embed.proj.bias", "patch_bias"),
    Need("blocks.0.attn.proj.bias", "proj_bias"),
    Need("blocks.0.mlp.fc1.bias", "mlp_bias"),
    HEAD_BIAS,
)
CLASS = Need("cls_token", "class_token")

HF_VIT = Dialect(
    name="hf-vit",
    signature=("embeddings.patch_embeddings.projection.weight", f"{BLOCK}.layernorm_before.weight".replace("{i}", "0")),
    rules=(
        *ENDS,
        *layer("blocks.{i}.norm1", f"{BLOCK}.layernorm_before"),
        *layer("blocks.{i}.attn.qkv", *ATTENTION),
        *layer("blocks.{i}.attn.proj", f"{BLOCK}.attention.output.dense"),
        *layer("blocks.{i}.norm2", f"{BLOCK}.layernorm_after"),
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.intermediate.dense"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.output.dense"),
    ),
    conventions={},
    renames=(
        *IN_MEMORY,
        (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    ),
    needs=(*NEEDS, Need("blocks.0.attn.qkv.bias", "qkv_bias")),
    prefixes=("vit.", "deit.", "ijepa.", "vit_mae.", "vit_msn.", ""),
    unprefixed=("classifier", "cls_classifier", "distillation_classifier"),
    sometimes_unprefixed=("encoder.layer.",),  # ViTMSNForImageClassification, as 5.23 saves it
    unwanted=(r"embeddings\.mask_token", r"decoder\..*", r"mask_token"),
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    run_module=run_module,
    sidecar=SIDECAR,
    write_prefix=partial(prefix_of, vit_class),
    write_config=partial(config_of, vit_class),
    resize="hf",
)

# The class token and the distillation token each have a head; the logits are the mean of both.
HF_DEIT_TEACHER = replace(
    HF_VIT,
    name="hf-deit-teacher",
    signature=(*HF_VIT.signature, "embeddings.distillation_token", "cls_classifier.weight"),
    rules=(
        *(r for r in HF_VIT.rules if not r.ours.startswith("head")),
        rule("dist_token", "embeddings.distillation_token"),
        *layer("head", "cls_classifier"),
        *layer("head_dist", "distillation_classifier"),
    ),
    needs=(*HF_VIT.needs, CLASS),
    prefixes=("deit.", ""),
    write_prefix=partial(prefix_of, deit_teacher_class),
    write_config=partial(config_of, deit_teacher_class),
)

# DeiTForImageClassification classifies by the class token only, so that its distillation token is a register.
HF_DEIT = replace(
    HF_VIT,
    name="hf-deit",
    signature=(*HF_VIT.signature, "embeddings.distillation_token"),
    rules=(*HF_VIT.rules, rule("reg_token", "embeddings.distillation_token")),
    conventions={"registers": 1},
    needs=(*HF_VIT.needs, CLASS),
    prefixes=("deit.", ""),
    write_prefix=partial(prefix_of, deit_class),
    write_config=partial(config_of, deit_class),
)

HF_DINOV2 = Dialect(
    name="hf-dinov2",
    signature=(
        "embeddings.patch_embeddings.projection.weight",
        "encoder.layer.0.norm1.weight",
        "encoder.layer.0.layer_scale1.lambda1",
    ),
    rules=(
        *(r for r in ENDS if not r.ours.startswith("pre_logits")),
        rule("reg_token", "embeddings.register_tokens"),
        *layer("blocks.{i}.norm1", f"{BLOCK}.norm1"),
        *layer("blocks.{i}.attn.qkv", *ATTENTION),
        *layer("blocks.{i}.attn.proj", f"{BLOCK}.attention.output.dense"),
        rule("blocks.{i}.ls1.gamma", f"{BLOCK}.layer_scale1.lambda1"),
        *layer("blocks.{i}.norm2", f"{BLOCK}.norm2"),
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.fc1"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.fc2"),
        rule("blocks.{i}.ls2.gamma", f"{BLOCK}.layer_scale2.lambda1"),
    ),
    conventions={"mlp": "plain"},
    renames=IN_MEMORY,
    needs=(*NEEDS, CLASS, Need("blocks.0.attn.qkv.bias", "qkv_bias")),
    prefixes=("", "dinov2.", "dinov2_with_registers."),
    unprefixed=("classifier",),
    unwanted=(r"embeddings\.mask_token",),
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    run_module=run_module,
    sidecar=SIDECAR,
    write_prefix=partial(prefix_of, dinov2_class),
    write_config=partial(config_of, dinov2_class),
    added={"embeddings.mask_token": lambda spec: (1, spec.dim)},
    resize="hf",
    resize_with_registers="timm",
)

HF_DINOV2_SWIGLU = replace(
    HF_DINOV2,
    name="hf-dinov2-swiglu",
    signature=(*HF_DINOV2.signature, "encoder.layer.0.mlp.weights_in.weight"),
    conventions={**HF_DINOV2.conventions, "mlp": "swiglu"},
    rules=replaced(
        HF_DINOV2.rules,
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.weights_in"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.weights_out"),
    ),
)

HF_DINOV2_SWIGLU_5 = replace(
    HF_DINOV2,
    name="hf-dinov2-swiglu-5",
    signature=(*HF_DINOV2.signature, "encoder.layer.0.mlp.gate_proj.weight"),
    conventions={**HF_DINOV2.conventions, "mlp": "swiglu"},
    rules=replaced(
        HF_DINOV2.rules,
        *layer("blocks.{i}.mlp.fc1", f"{BLOCK}.mlp.gate_proj", f"{BLOCK}.mlp.up_proj"),
        *layer("blocks.{i}.mlp.fc2", f"{BLOCK}.mlp.down_proj"),
    ),
)

LAYER = "layer.{i}"
KEY_BIAS = f"{LAYER}.attention.k_proj.bias"
HF_DINOV3 = Dialect(
    name="hf-dinov3",
    signature=("embeddings.patch_embeddings.weight", "layer.0.attention.q_proj.weight", "layer.0.layer_scale1.lambda1"),
    rules=(
        rule("cls_token", "embeddings.cls_token"),
        rule("reg_token", "embeddings.register_tokens"),
        *layer("patch_embed.proj", "embeddings.patch_embeddings"),
        *layer("blocks.{i}.norm1", f"{LAYER}.norm1"),
        rule("blocks.{i}.attn.q_bias", f"{LAYER}.attention.q_proj.bias", where_absent=KEY_BIAS),
        rule("blocks.{i}.attn.qkv.weight", *(f"{LAYER}.attention.{part}_proj.weight" for part in "qkv")),
        rule("blocks.{i}.attn.v_bias", f"{LAYER}.attention.v_proj.bias", where_absent=KEY_BIAS),
        rule("blocks.{i}.attn.qkv.bias", *(f"{LAYER}.attention.{part}_proj.bias" for part in "qkv"), where_present=KEY_BIAS),
        *layer("blocks.{i}.attn.proj", f"{LAYER}.attention.o_proj"),
        rule("blocks.{i}.ls1.gamma", f"{LAYER}.layer_scale1.lambda1"),
        *layer("blocks.{i}.norm2", f"{LAYER}.norm2"),
        *layer("blocks.{i}.mlp.fc1", f"{LAYER}.mlp.up_proj"),
        *layer("blocks.{i}.mlp.fc2", f"{LAYER}.mlp.down_proj"),
        rule("blocks.{i}.ls2.gamma", f"{LAYER}.layer_scale2.lambda1"),
        *layer("norm", "norm"),
        *layer("head", "classifier"),
    ),
    conventions={"pos": "rope", "pool": "cls", "mlp": "plain"},
    renames=((r"^model\.layer\.", "layer."),),
    needs=(
        CLASS,
        Need("patch_embed.proj.bias", "patch_bias"),
        Need("blocks.0.attn.q_bias", "qkv_bias", where_present="blocks.0.attn.v_bias"),
        Need("blocks.0.attn.v_bias", "qkv_bias", where_present="blocks.0.attn.q_bias"),
        Need("blocks.0.attn.proj.bias", "proj_bias"),
        Need("blocks.0.mlp.fc1.bias", "mlp_bias"),
        HEAD_BIAS,
    ),
    prefixes=("", "dinov3_vit."),
    unprefixed=("classifier",),
    unwanted=(r"embeddings\.mask_token", r"rope_embeddings\..*"),
    facts_from_module=facts_from_module,
    config_from_module=config_from_module,
    run_module=run_module,
    sidecar=SIDECAR,
    write_prefix=partial(prefix_of, dinov3_class),
    write_config=partial(config_of, dinov3_class),
    added={
        "embeddings.mask_token": lambda spec: (1, 1, spec.dim),
        "embeddings.register_tokens": lambda spec: (1, 0, spec.dim),  # absent registers are stored as an empty tensor
    },
)

HF_DINOV3_GATED = replace(
    HF_DINOV3,
    name="hf-dinov3-gated",
    signature=(*HF_DINOV3.signature, "layer.0.mlp.gate_proj.weight"),
    conventions={**HF_DINOV3.conventions, "mlp": "swiglu"},
    rules=replaced(HF_DINOV3.rules, *layer("blocks.{i}.mlp.fc1", f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.up_proj")),
)
