"""What the model classes of other libraries can be built as: for each field of the spec, the values that a class computes.

A file that our own table reads back is not enough. A library's loader may drop a tensor that its class has no place for, or
start one that the file lacks from random numbers, and some do so without a word.

Sources: timm 1.0.31, models/vision_transformer.py and deit.py; transformers 5.23, models/*/modeling_*.py; torchvision 0.28,
models/vision_transformer.py; vit-pytorch 1.26.11, and 1.16.5, 1.6.5 and 0.40.2; open_clip 3.3, transformer.py; google-research
vision_transformer, models_vit.py; facebookresearch deit (models.py, models_v2.py), mae (models_vit.py) and dinov2
(models/vision_transformer.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

RANDOM_POOLER = "transformers' IJepaModel adds a pooler with random weights: the output is the mean of its last_hidden_state"

Values = tuple[Any, ...]
Limit = Values | Callable[["ViTSpec"], Values]


@dataclass(frozen=True)
class TargetClass:
    """A class of another library.

    * `limits`: the values that it has for a field of the spec, or a function that gives them for a spec. Other fields are free.
    * `note`: what a user of the class must know about a model that it holds.
    """

    limits: Mapping[str, Limit] = field(default_factory=dict)
    note: Callable[[ViTSpec], str | None] = lambda spec: None

    def but(self, *free: str, **limits: Limit) -> TargetClass:
        """The class with other limits, and with none for the fields in `free`."""
        kept = {name: limit for name, limit in self.limits.items() if name not in free}
        return TargetClass({**kept, **limits}, self.note)

    def beyond(self, spec: ViTSpec) -> dict[str, Values]:
        """The fields in which a spec is not one of the class, each with the values that the class has."""
        allowed = {name: limit(spec) if callable(limit) else limit for name, limit in self.limits.items()}
        return {name: values for name, values in allowed.items() if getattr(spec, name) not in values}


UNLIMITED = TargetClass()


def with_classes(*values: object) -> Callable[[ViTSpec], Values]:
    """The values of a field that matters only if there is a head."""
    return lambda spec: values if spec.num_classes else (True, False)


def without_classes(field_name: str, *values: object) -> Callable[[ViTSpec], Values]:
    """The values of a field where there is a head, and any value where there is none."""
    return lambda spec: values if spec.num_classes else (getattr(spec, field_name),)


def covers(*values: str) -> Callable[[ViTSpec], Values]:
    """The values of `pos_covers`, which matters only if there are learned positions and other tokens than patches."""
    return lambda spec: values if spec.prefix_tokens and spec.learned_pos else (spec.pos_covers,)


def classifier(spec: ViTSpec) -> Values:
    """Any number of classes but 0: the class always has a head."""
    return (spec.num_classes,) if spec.num_classes else ()


def equal_heads(spec: ViTSpec) -> Values:
    """The width of a head where the heads share the model's width."""
    return () if spec.dim % spec.heads else (spec.dim // spec.heads,)


def square_image(spec: ViTSpec) -> Values:
    return ((spec.image_size[0],) * 2,)


def square_patch(spec: ViTSpec) -> Values:
    return ((spec.patch_size[0],) * 2,)


def pool_tokens(spec: ViTSpec) -> Values:
    """The patches, where others can be averaged too."""
    return ("patches",) if spec.pool in ("mean", "map") and spec.prefix_tokens else (spec.pool_tokens,)


# The ViT of Dosovitskiy et al., 2021, with a class token, and biases in every layer but possibly for queries, keys and values
PLAIN = TargetClass(
    {
        "representation": (0,),
        "projection": (0,),
        "cosine_head": (False,),
        "class_token": (True,),
        "dist_token": (False,),
        "registers": (0,),
        "pos": ("learned",),
        "pos_covers": covers("all"),
        "patch_bias": (True,),
        "relative_bias": ("none",),
        "patch_norms": (False,),
        "pre_norm": (False,),
        "norm": ("layer",),
        "block_norm": ("pre",),
        "attn_norm": (False,),
        "mlp_norm": (False,),
        "pool_heads": lambda spec: (0, spec.heads),
        "pool_mlp_dim": lambda spec: (0, spec.mlp_dim),
        "mlp": ("plain",),
        "qkv_bias": (True, False),
        "qk_norm": (False,),
        "attn_out": (True,),
        "proj_bias": (True,),
        "mlp_bias": (True,),
        "layer_scale": (False,),
        "final_norm": ("before_pool",),
        "pool": ("cls",),
        "pool_tokens": pool_tokens,
        "head_bias": with_classes(True),
        "dim_head": equal_heads,
    }
)
ALL_BIASES = PLAIN.but(qkv_bias=(True,))

TIMM = PLAIN.but(
    "class_token", "dist_token", "pre_norm", "qk_norm", "proj_bias", "layer_scale", "final_norm",
    registers=lambda spec: (0,) if spec.dist_token else (spec.registers,),
    pos=lambda spec: ("learned",) if spec.dist_token else ("learned", "none"),
    pos_covers=lambda spec: covers("all")(spec) if spec.dist_token else covers("all", "patches")(spec),
    patch_bias=lambda spec: (not spec.pre_norm,),
    mlp=lambda spec: ("plain",) if spec.dist_token else ("plain", "swiglu"),
    mlp_bias=lambda spec: (spec.proj_bias,),  # one argument for both
    pool=("cls", "mean", "map", "none"),
)  # fmt: skip

DEIT = PLAIN.but("dist_token")
DEIT3 = PLAIN.but("layer_scale", pos_covers=covers("patches"))
MAE = PLAIN.but(
    pool=lambda spec: ("mean",) if spec.final_norm == "after_pool" else ("cls",), final_norm=("before_pool", "after_pool")
)
META_DINOV2 = PLAIN.but(
    "registers", "proj_bias", "mlp_bias", "layer_scale",
    pos_covers=lambda spec: covers("class")(spec) if spec.registers else covers("all")(spec),
    num_classes=(0,), image_size=square_image, patch_size=square_patch,
)  # fmt: skip
META_DINOV2_SWIGLU = META_DINOV2.but(
    mlp=("swiglu",),
    mlp_dim=lambda spec: (spec.mlp_dim // 8 * 8,),  # its class rounds to a multiple of 8
)

HF_VIT = replace(
    PLAIN.but(
        "class_token",
        # a pooler only where there is no classifier; IJepa's takes the first patch
        representation=lambda spec: (spec.representation,) if spec.class_token and not spec.num_classes else (0,),
        pool=lambda spec: ("cls",) if spec.class_token else ("mean",),
    ),
    note=lambda spec: None if spec.class_token or spec.num_classes else RANDOM_POOLER,
)
HF_DEIT = PLAIN.but(
    # its DeiTModel always has a pooler
    registers=(1,), representation=lambda spec: (0,) if spec.num_classes else (spec.representation or spec.dim,),
)  # fmt: skip
HF_DEIT_TEACHER = PLAIN.but(dist_token=(True,), num_classes=classifier)
HF_DINOV2 = PLAIN.but(
    "registers",
    pos_covers=META_DINOV2.limits["pos_covers"],
    layer_scale=(True,), image_size=square_image,
    pool=lambda spec: ("cls+mean",) if spec.num_classes else ("cls",),
)  # fmt: skip
HF_DINOV2_SWIGLU = HF_DINOV2.but(mlp=("swiglu",))
HF_DINOV3 = PLAIN.but(
    "registers", "pos_covers", pos=("rope",), qkv_bias=("qv", False), layer_scale=(True,), num_classes=(0,), rope=("dinov3",)
)  # fmt: skip
HF_DINOV3_GATED = HF_DINOV3.but(mlp=("swiglu",))
HF_BEIT = PLAIN.but(
    "relative_bias",
    pos=("learned", "none"), qkv_bias=("qv",), layer_scale=(True,), image_size=square_image, patch_size=square_patch,
    pool=("cls", "mean"), final_norm=lambda spec: ("after_pool",) if spec.pool == "mean" else ("before_pool",),
)  # fmt: skip
HF_AIMV2 = PLAIN.but(
    "pos_covers",
    class_token=(False,), patch_norms=("after",), norm=("rms",), mlp=("swiglu",), qkv_bias=(True, False),
    proj_bias=lambda spec: (spec.qkv_bias,), mlp_bias=(True, False), pool=("none",), num_classes=(0,),
    image_size=square_image, patch_size=square_patch,
)  # fmt: skip
HF_CLIP = ALL_BIASES.but(
    patch_bias=(False,), pre_norm=(True,), final_norm=("after_pool",), head_bias=with_classes(False),
    image_size=square_image, patch_size=square_patch,
)  # fmt: skip
HF_SIGLIP = ALL_BIASES.but(
    "pos_covers", class_token=(False,), pool=("map",), num_classes=(0,), image_size=square_image, patch_size=square_patch
)  # fmt: skip

TORCHVISION = ALL_BIASES.but(
    "representation", num_classes=classifier, channels=(3,), image_size=square_image, patch_size=square_patch
)
OPEN_CLIP = ALL_BIASES.but(
    "layer_scale",
    patch_bias=(False,), pre_norm=(True,), final_norm=("after_pool",), num_classes=classifier, head_bias=(False,), channels=(3,),
)  # fmt: skip
GOOGLE = ALL_BIASES.but("representation", "class_token", pool=lambda spec: ("cls",) if spec.class_token else ("mean",))


def projects(spec: ViTSpec) -> Values:
    """vit-pytorch leaves out the output projection for one head as wide as the model."""
    return (not (spec.heads == 1 and spec.dim_head == spec.dim),)


VIT_PYTORCH = PLAIN.but(
    "dim_head",
    patch_norms=(True,), qkv_bias=(False,), attn_out=projects, proj_bias=projects,
    class_token=lambda spec: (True, False) if spec.pool == "none" else (spec.pool == "cls",),
    pool=lambda spec: ("cls", "mean") if spec.num_classes else ("none",),  # without classes it returns all tokens
)  # fmt: skip
VIT_PYTORCH_1_15 = VIT_PYTORCH.but(class_token=(True,), num_classes=classifier, pool=("cls", "mean"), pool_tokens=("all",))
VIT_PYTORCH_1_2 = VIT_PYTORCH_1_15.but(final_norm=("after_pool",))
VIT_PYTORCH_0_40 = VIT_PYTORCH_1_2.but(patch_norms=(False,))
SIMPLE_VIT = VIT_PYTORCH.but(
    "registers", "pos_covers",
    pos=("sincos_moco",), class_token=(False,), pool=("mean",), num_classes=classifier, attn_out=(True,), proj_bias=(False,),
)  # fmt: skip


def shown(values: Iterable[object]) -> str:
    """Values of a field for a message."""
    return " or ".join("x".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values)
