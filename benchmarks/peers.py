"""Imports of timm and transformers that also work where torchvision's compiled operators are missing."""

from __future__ import annotations

from typing import Any

import torch

# Both import torchvision, whose Python part registers shapes for two operators of its C library. If that library
# does not load, they are declared here; they are never run.
_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def import_timm() -> Any:
    import timm

    return timm


def import_transformers_vit() -> Any:
    """Return transformers' classifier class and its config class."""
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification, ViTConfig
