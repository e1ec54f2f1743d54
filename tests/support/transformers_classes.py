"""Small models of every image class of transformers."""

from __future__ import annotations

from support import peers
from support.models import noise

T = peers.transformers
SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
TOWER = {**SMALL, "intermediate_size": 72}
VIT = {**TOWER, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-7}


def logits(out):
    return out.logits


def pooled(out):
    return out.pooler_output


def first(out):
    return out.last_hidden_state[:, 0]


def mean(out):
    return out.last_hidden_state.mean(1)


def embedded(out):
    return out.image_embeds


# class, config class, its settings, which output, and the dialect on disk
CLASSES = {
    "ViTForImageClassification": ("ViTConfig", VIT, logits, "hf-vit"),
    "ViTModel": ("ViTConfig", VIT, pooled, "hf-vit"),
    "DeiTForImageClassification": ("DeiTConfig", VIT, logits, "hf-deit"),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", VIT, logits, "hf-deit-teacher"),
    "ViTMSNForImageClassification": ("ViTMSNConfig", VIT, logits, "hf-vit"),
    "IJepaForImageClassification": ("IJepaConfig", VIT, logits, "hf-vit"),
    "IJepaModel": ("IJepaConfig", VIT, mean, "hf-vit"),
    "Dinov2ForImageClassification": ("Dinov2Config", {**SMALL, "mlp_ratio": 2}, logits, "hf-dinov2"),
    "Dinov2Model": ("Dinov2Config", {**SMALL, "use_swiglu_ffn": True}, pooled, "hf-dinov2-swiglu"),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", {**SMALL, "num_register_tokens": 2}, pooled, "hf-dinov2"),
    "Dinov2WithRegistersForImageClassification": (
        "Dinov2WithRegistersConfig", {**SMALL, "use_swiglu_ffn": True}, logits, "hf-dinov2-swiglu",
    ),
    "DINOv3ViTModel": ("DINOv3ViTConfig", {**TOWER, "num_register_tokens": 4}, pooled, "hf-dinov3"),
    "DINOv3ViTModel, gated": (
        "DINOv3ViTConfig", {**TOWER, "use_gated_mlp": True, "hidden_act": "silu"}, pooled, "hf-dinov3-gated",
    ),
    "CLIPVisionModel": ("CLIPVisionConfig", TOWER, pooled, "hf-clip"),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", {**TOWER, "projection_dim": 24}, embedded, "hf-clip"),
    "CLIPForImageClassification": ("CLIPConfig", {"vision_config": TOWER}, logits, "hf-clip-classifier"),
    "SiglipVisionModel": ("SiglipVisionConfig", TOWER, pooled, "hf-siglip"),
    "SiglipForImageClassification": ("SiglipConfig", {"vision_config": TOWER}, logits, "hf-siglip-classifier"),
}  # fmt: skip


def built(name):
    config, settings, output, dialect = CLASSES[name]
    settings = {**settings, "num_labels": 11} if output is logits else settings
    model = noise(getattr(T, name.partition(",")[0])(getattr(T, config)(**settings)))
    return model.eval(), output, dialect
