"""The table of the weight dialects that are read, in the order of detection.

A dialect whose signature contains another's comes before it.
"""

from __future__ import annotations

from vit_zoo.weights.dialects.aimv2 import AIMV2, HF_AIMV2
from vit_zoo.weights.dialects.beit3 import BEIT3
from vit_zoo.weights.dialects.clip import OPEN_CLIP, OPENAI_CLIP
from vit_zoo.weights.dialects.eva import EVA02, EVA02_SMALL, EVA_CLIP
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
from vit_zoo.weights.dialects.hf_beit import HF_BEIT
from vit_zoo.weights.dialects.hf_clip import HF_CLIP, HF_CLIP_CLASSIFIER, HF_SIGLIP, HF_SIGLIP2_NAFLEX, HF_SIGLIP_CLASSIFIER
from vit_zoo.weights.dialects.keras_hub import KERAS_HUB, KERAS_HUB_DEIT
from vit_zoo.weights.dialects.meta import DEIT3, DINOV2, DINOV2_SWIGLU, DINOV3, DINOV3_SWIGLU, MAE
from vit_zoo.weights.dialects.pe import PE
from vit_zoo.weights.dialects.timm import OPEN_CLIP_TIMM, TIMM, TIMM_SWIGLU, VITZOO
from vit_zoo.weights.dialects.timm_beit import TIMM_BEIT, TIMM_BEIT_SHARED
from vit_zoo.weights.dialects.timm_eva import OPEN_CLIP_TIMM_EVA02, TIMM_EVA, TIMM_EVA02, TIMM_EVA_SWIGLU, TIMM_PE
from vit_zoo.weights.dialects.timm_naflex import TIMM_NAFLEX, TIMM_NAFLEX_CONV, TIMM_NAFLEX_SIGLIP
from vit_zoo.weights.dialects.tipsv2 import HF_TIPSV2
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
    VITZOO, DEIT3, TIMM_PE, TIMM_EVA02, TIMM_EVA_SWIGLU, TIMM_EVA, TIMM_SWIGLU, EVA02, EVA02_SMALL, AIMV2, BEIT3, DINOV3_SWIGLU,
    DINOV3, HF_TIPSV2, DINOV2_SWIGLU, DINOV2, TIMM_BEIT, TIMM_BEIT_SHARED, MAE, TIMM, EVA_CLIP, OPEN_CLIP_TIMM_EVA02,
    OPEN_CLIP_TIMM, TIMM_NAFLEX, TIMM_NAFLEX_SIGLIP, TIMM_NAFLEX_CONV, TORCHVISION, SIMPLE_VIT, VIT_PYTORCH_1_15, VIT_PYTORCH,
    VIT_PYTORCH_1_2, VIT_PYTORCH_0_40, VIT_PYTORCH_0_6, HF_BEIT, HF_AIMV2, HF_DEIT_TEACHER, HF_DEIT, HF_VIT, HF_DINOV2_SWIGLU,
    HF_DINOV2_SWIGLU_5, HF_DINOV2, HF_DINOV3_GATED, HF_DINOV3, HF_CLIP_CLASSIFIER, HF_CLIP, HF_SIGLIP2_NAFLEX,
    HF_SIGLIP_CLASSIFIER, HF_SIGLIP, PE, OPENAI_CLIP, OPEN_CLIP, GOOGLE, NAFLEX, BIG_VISION, KERAS_HUB, KERAS_HUB_DEIT,
)  # fmt: skip
