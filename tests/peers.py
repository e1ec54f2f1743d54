"""The independent implementations: imported where torchvision's compiled operators are absent too, and built small."""

from __future__ import annotations

import functools
import warnings

import torch

# torchvision's Python part registers shapes for two operators of its C library; where that library does not load,
# they are declared here first, and the models, which never call them, import and run.
_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import timm
    import torchvision
    import transformers
    import vit_pytorch
    from timm.layers import LayerNorm
    from timm.models.vision_transformer import VisionTransformer

TIMM = {
    "img_size": (32, 48),
    "patch_size": (8, 16),
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 2,
    "num_classes": 11,
}
ARTICLE = {
    "image_size": (32, 48),
    "patch_size": (8, 16),
    "num_classes": 11,
    "dim": 48,
    "depth": 3,
    "heads": 3,
    "dim_head": 16,
    "mlp_dim": 96,
}


def timm_vit(*, norm_eps: float | None = None, **options):
    """timm's VisionTransformer, small."""
    if norm_eps is not None:
        options["norm_layer"] = functools.partial(LayerNorm, eps=norm_eps)
    return VisionTransformer(**{**TIMM, **options})


def timm_without_biases(*layers: str, **options):
    """timm's, with some linear layers replaced by ones without a bias, which its constructor cannot say."""
    model = timm_vit(**options)
    for name, layer in list(model.named_modules()):
        if name.endswith(layers):
            parent, _, last = name.rpartition(".")
            bare = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
            setattr(model.get_submodule(parent), last, bare)
    return model


def article_vit(**options):
    """vit-pytorch's ViT, small."""
    return vit_pytorch.ViT(**{**ARTICLE, **options})


def torchvision_vit():
    """torchvision's, small and square."""
    from torchvision.models import VisionTransformer as Vit

    return Vit(image_size=32, patch_size=8, num_layers=3, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=11)


__all__ = [
    "article_vit",
    "timm",
    "timm_vit",
    "timm_without_biases",
    "torchvision",
    "torchvision_vit",
    "transformers",
    "vit_pytorch",
]
