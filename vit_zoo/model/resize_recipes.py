"""Recipes by which other libraries interpolate positions and patch projections for other sizes.

Sources: timm 1.0.31, layers/pos_embed.py and patch_embed.py; transformers 5.23, ViTEmbeddings.interpolate_pos_encoding;
torchvision 0.28, vision_transformer.interpolate_embeddings; facebookresearch/dino and dinov2, interpolate_pos_encoding;
google-research/vision_transformer, checkpoint.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vit_zoo.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """Interpolation parameters of one library, as `torch.nn.functional.interpolate` has them."""

    mode: str
    antialias: bool = False
    align_corners: bool = False
    offset: float = 0.0  # added to the new size before the scale is computed (0.1 in DINO)
    kernel: tuple[str, bool] = ("bicubic", True)  # mode and antialias for patch projections


RECIPES = {
    "timm": Recipe("bicubic", antialias=True),
    "open_clip": Recipe("bicubic", antialias=True),
    "flexivit": Recipe("bilinear", kernel=("bilinear", False)),
    "hf": Recipe("bicubic"),
    "torchvision": Recipe("bicubic", align_corners=True),
    "google": Recipe("bilinear", align_corners=True, kernel=("bilinear", False)),
    "dino": Recipe("bicubic", offset=0.1),
    "dinov2": Recipe("bicubic", offset=0.1),
}


def recipe_named(name: Any) -> Recipe:
    """Return a recipe by name. Raises InputError with the known names if there is none."""
    if name not in RECIPES:
        raise InputError(f"unknown recipe '{name}'; choose from {', '.join(RECIPES)}")
    return RECIPES[name]
