"""Checkpoints of real implementations in tests/data/cases, with the facts that each needs."""

from __future__ import annotations

import json

import numpy as np

from support.paths import CASES

# What neither the file, nor a config beside it, nor its library's convention tells, the whole table: heads, for no variant is
# as small; a grid that is not square or in no table; the GELU of timm's SigLIP and of CLIPs, which share their files with
# other ones; the mean of old vit-pytorch's, which had a class token either way. docs/checkpoints.md explains each.
FACTS = {
    "clip_openai_state_dict": {"heads": 2, "act": "quick_gelu"},
    "deit3_layerscale": {"heads": 3},
    "deit_distilled": {"heads": 3},
    "dino_backbone": {"heads": 3},
    "dinov2_reg4": {"heads": 3},
    "dinov2_training_chunked": {"heads": 3},
    "dinov2_vit": {"heads": 3},
    "dinov3_vit": {"image_size": (32, 48)},
    "hf_dinov3": {"image_size": (32, 48)},
    "lucid_simple_vit": {"heads": 3, "image_size": 32},
    "lucid_v0_40_2_mean": {"heads": 3, "pool": "mean"},
    "lucid_v0_6_8": {"heads": 3},
    "lucid_v1_6_5": {"heads": 3},
    "lucid_vit_cls": {"heads": 3},
    "lucid_vit_single_head_no_out": {"heads": 1},
    "mae_finetuned_globalpool": {"heads": 3},
    "mae_pretrain": {"heads": 3},
    "open_clip_quickgelu": {"heads": 3, "act": "quick_gelu"},
    "open_clip_timm_siglip": {"heads": 3, "act": "gelu"},
    "resize_bv": {"image_size": 48},
    "resize_dinov2": {"heads": 3, "image_size": (49, 63)},
    "resize_google_npz": {"image_size": 48},
    "resize_hf_vit": {"image_size": (48, 64)},
    "resize_timm_bicubic_antialias": {"heads": 3, "image_size": (48, 64)},
    "resize_torchvision": {"heads": 3, "image_size": 48},
    "timm_cls": {"heads": 4},
    "timm_cls_pth_ddp_prefix": {"heads": 3},
    "timm_deit_distilled": {"heads": 3},
    "timm_dinov2_like_reg": {"heads": 3},
    "timm_flexivit": {"heads": 3},
    "timm_map_with_cls_reg": {"heads": 3},
    "timm_rect_patch": {"heads": 3, "image_size": (32, 48)},
    "timm_reg4_gap": {"heads": 3},
    "timm_siglip_map": {"heads": 3, "act": "gelu_tanh"},
    "timm_swiglu_packed": {"heads": 3},
    "torchvision_vit": {"heads": 3},
    "torchvision_vit_legacy_mlp_keys": {"heads": 3},
}
NOTHING = (  # configs, kernels with an axis of heads, and conventions tell everything
    "bv_gap", "bv_map_nohead", "bv_scan_bf16_void", "bv_siglip_two_towers", "flexivit_native", "google_npz_gap",
    "google_npz_linen_names", "google_npz_token", "hf_clip_vision_proj", "hf_deit_cls_only", "hf_dinov2",
    "hf_dinov2_reg_classifier", "hf_mae_encoder", "hf_msn", "hf_siglip_vision", "hf_vit_cls", "hf_vit_cls_inmemory_keys",
    "keras_vit_classifier",
)  # fmt: skip
CASE_NAMES = sorted([*FACTS, *NOTHING])


def case(name):
    """The checkpoint of a case, its images, the outputs of its implementation, and the tolerance."""
    meta = json.loads((CASES / name / "meta.json").read_text())
    images, outputs = (np.load(CASES / name / f"{part}.npy") for part in ("input", "output"))
    return CASES / name / meta["checkpoint"]["file"], images, outputs, meta["check"]["suggested_atol"]
