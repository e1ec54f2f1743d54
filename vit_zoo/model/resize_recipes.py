"""Recipes by which other libraries fit positions and patch projections to other sizes.

Sources: timm 1.0.31, layers/pos_embed.py, pos_embed_rel.py, patch_embed.py and models/naflexvit.py; transformers 5.23,
ViTEmbeddings.interpolate_pos_encoding, BeitRelativePositionBias and Siglip2VisionEmbeddings.resize_positional_embeddings;
torchvision 0.28, vision_transformer.interpolate_embeddings; facebookresearch/dino and dinov2, interpolate_pos_encoding;
google-research/vision_transformer, checkpoint.py; google-research/big_vision, models/vit.py (`resample_posemb`, for loading)
and models/proj/flexi/vit.py (`_Model`, which keeps the stored sizes and resizes in each call); vit-pytorch 1.26.11, vit.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vit_zoo.errors import InputError, fact, shown


@dataclass(frozen=True)
class Recipe:
    """Interpolation parameters of one library, as `torch.nn.functional.interpolate` has them.

    The mode `rows` interpolates nothing: a smaller grid gets the first positions of the table, whatever its shape.
    """

    mode: str
    antialias: bool = False
    align_corners: bool = False
    offset: float = 0.0  # added to the new size before the scale is computed (0.1 in DINO)
    kernel: tuple[str, bool] | None = ("bicubic", True)  # mode and antialias for patch projections; None: they are not resized
    # of tables of relative biases: `geometric`, linear between distances whose steps grow from the centre, or as images
    relative: str = "geometric"


RECIPES = {
    "timm": Recipe("bicubic", antialias=True),
    "open_clip": Recipe("bicubic", antialias=True),
    "flexivit": Recipe("bilinear", kernel=("bilinear", False)),
    "hf": Recipe("bicubic", relative="bilinear"),
    "torchvision": Recipe("bicubic", align_corners=True),
    "google": Recipe("bilinear", align_corners=True, kernel=None),
    "dino": Recipe("bicubic", offset=0.1),
    "dinov2": Recipe("bicubic", offset=0.1),
    "naflex": Recipe("bilinear", antialias=True, kernel=("bilinear", True)),
    "big_vision-flexivit": Recipe("bilinear", antialias=True, kernel=("bilinear", False)),
    "vit-pytorch": Recipe("rows", kernel=None),
}
# in place of a recipe: sources with different recipes have files that look the same
UNSTATED = "unstated"
OTHER_RECIPE = fact("resize", "timm, say")


def recipe_named(name: Any, *, where: object = None) -> Recipe:
    """Return a recipe by name; `where` is the file.

    Raises InputError with the known names if there is none, and for `UNSTATED`.
    """
    if isinstance(name, str) and name == UNSTATED:
        cause = "its library is unknown, and libraries resize positions differently"
        hint = f"state it: {OTHER_RECIPE}; the recipes are {', '.join(RECIPES)}"
        raise InputError(cause, where=where, hint=hint, options=[OTHER_RECIPE])
    if not isinstance(name, str) or name not in RECIPES:
        raise InputError(f"unknown recipe {shown(name)}; choose from {', '.join(RECIPES)}")
    return RECIPES[name]
