"""Declarations of torchvision's compiled operators, for machines where its C library does not load."""

from __future__ import annotations

import torch

_library = torch.library.Library("torchvision", "FRAGMENT")


def declare() -> None:
    """Declare the two operators for which torchvision's Python part registers shapes at import.

    The models never call them; with the declarations, timm, torchvision and vit-pytorch import and run.
    """
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
