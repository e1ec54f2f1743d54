"""The table of the weight dialects that are read, in the order of detection.

A dialect whose signature contains another's comes before it.
"""

from __future__ import annotations

from vit_zoo.weights.dialects.clip import OPEN_CLIP, OPENAI_CLIP
from vit_zoo.weights.dialects.flax import BIG_VISION, GOOGLE, NAFLEX
from vit_zoo.weights.dialects.hf import (
    HF_DEIT,
    HF_DEIT_TEACHER,
    HF_DINOV2,
    HF_DINOV2_SWIGLU,
    HF_DINOV2_SWIGLU_5,
    HF_DINOV3,
    HF_DINOV3_GATED,
    HF_VIT,
)
from vit_zoo.weights.dialects.hf_clip import HF_CLIP, HF_CLIP_CLASSIFIER, HF_SIGLIP, HF_SIGLIP2_NAFLEX, HF_SIGLIP_CLASSIFIER
from vit_zoo.weights.dialects.keras_hub import KERAS_HUB
from vit_zoo.weights.dialects.meta import DEIT3, DINOV2, DINOV2_SWIGLU, DINOV3, DINOV3_SWIGLU, MAE
from vit_zoo.weights.dialects.timm import OPEN_CLIP_TIMM, OPEN_CLIP_TIMM_CLIP, TIMM, TIMM_CLIP, VITZOO
from vit_zoo.weights.dialects.timm_eva import TIMM_EVA, TIMM_EVA_SWIGLU
from vit_zoo.weights.dialects.torchvision import TORCHVISION
from vit_zoo.weights.dialects.vit_pytorch import (
    SIMPLE_VIT,
    VIT_PYTORCH,
    VIT_PYTORCH_0_6,
    VIT_PYTORCH_0_40,
    VIT_PYTORCH_1_2,
    VIT_PYTORCH_1_15,
)

DIALECTS = (
    VITZOO, TIMM_EVA_SWIGLU, TIMM_EVA, DINOV3_SWIGLU, DINOV3, DINOV2_SWIGLU, DINOV2, DEIT3, MAE, TIMM_CLIP, TIMM,
    OPEN_CLIP_TIMM_CLIP, OPEN_CLIP_TIMM, TORCHVISION,
    SIMPLE_VIT, VIT_PYTORCH_1_15, VIT_PYTORCH, VIT_PYTORCH_1_2, VIT_PYTORCH_0_40, VIT_PYTORCH_0_6,
    HF_DEIT_TEACHER, HF_DEIT, HF_VIT, HF_DINOV2_SWIGLU, HF_DINOV2_SWIGLU_5, HF_DINOV2, HF_DINOV3_GATED, HF_DINOV3,
    HF_CLIP_CLASSIFIER, HF_CLIP, HF_SIGLIP2_NAFLEX, HF_SIGLIP_CLASSIFIER, HF_SIGLIP, OPENAI_CLIP, OPEN_CLIP,
    GOOGLE, NAFLEX, BIG_VISION, KERAS_HUB,
)  # fmt: skip
