"""What a transformers config says of a Vision Transformer that its weights do not, and the config that says it of ours.

Source: transformers 5.23, models/*/configuration_*.py, whose classes also give what a config leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, NotRepresentable, RefusedContent
from vit_zoo.weights.configs.image_processors import of_hf, to_hf
from vit_zoo.weights.sidecar import SidecarFormat

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import ViTSpec

ClassOf = Callable[["ViTSpec"], tuple[str, str]]  # transformers' model type and class for a spec

ACTS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
}
# of each model type: the eps and the activation of a config that does not state them, and whether it is one of these ViTs
DEFAULTS = {
    "vit": (1e-12, "gelu"),
    "deit": (1e-12, "gelu"),
    "vit_mae": (1e-12, "gelu"),
    "vit_msn": (1e-6, "gelu"),
    "ijepa": (1e-12, "gelu"),
    "dinov2": (1e-6, "gelu"),
    "dinov2_with_registers": (1e-6, "gelu"),
    "dinov3_vit": (1e-5, "gelu"),
    "clip_vision_model": (1e-5, "quick_gelu"),
    "siglip_vision_model": (1e-6, "gelu_pytorch_tanh"),
    "siglip2_vision_model": (1e-6, "gelu_pytorch_tanh"),
}
TOWERS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model", "siglip2": "siglip2_vision_model"}
HEADS = {"clip_vision_model": 12, "siglip_vision_model": 12, "siglip2_vision_model": 12, "dinov3_vit": 6}


def facts_of_config(config: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Fields of the spec that a config states. Raises RefusedContent for a model that is no ViT, or one of another kind."""
    kind = config.get("model_type")
    if kind in TOWERS:
        config, kind = {**config, **(config.get("vision_config") or {})}, TOWERS[kind]
    if kind not in DEFAULTS:
        raise RefusedContent(f"is of a '{kind}', which is no plain ViT", where=where)
    if kind == "dinov3_vit" and (config.get("rope_theta", 100.0) != 100.0):
        raise RefusedContent(f"rotates by rope_theta = {config['rope_theta']}, DINOv3 by 100", where=where)
    eps, act = DEFAULTS[kind]
    found: dict[str, Any] = {
        "heads": config.get("num_attention_heads", HEADS.get(kind, 12)),
        "norm_eps": float(config.get("layer_norm_eps", eps)),
        "channels": config.get("num_channels", 3),
    }
    if not config.get("use_swiglu_ffn"):  # Dinov2's is SiLU, whatever hidden_act says
        name = config.get("hidden_act", act)
        if name not in ACTS:
            raise RefusedContent(f"its activation is '{name}'; a ViT's is one of {', '.join(ACTS)}", where=where)
        found["act"] = ACTS[name]
    if kind != "siglip2_vision_model" or "num_patches" not in config:
        size = config.get("image_size")
        if size is not None:
            found["image_size"] = tuple(size) if isinstance(size, list | tuple) else size
    patch = config.get("patch_size")
    if patch is not None:
        found["patch_size"] = tuple(patch) if isinstance(patch, list | tuple) else patch
    if config.get("vision_use_head") is False:
        found["pool"] = "none"
    bad = [name for name, value in found.items() if name in ("heads", "channels") and (type(value) is not int or value < 1)]
    if bad:
        raise InputError(f"{bad[0]} = {found[bad[0]]!r} is not a number", where=where)
    return found


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The words of the classes, unless they are the numbers that transformers fills in."""
    words = config.get("id2label")
    if not isinstance(words, Mapping) or not words:
        return None
    found = [words.get(str(i), words.get(i)) for i in range(len(words))]
    if any(not isinstance(word, str) for word in found) or found[0] == "LABEL_0":
        return None
    return tuple(found)


# what the names of a model with a head begin with; bare ones have none, but for towers, whose prefix both 4.x and 5.x read
PREFIXES = {
    "vit": "vit.", "deit": "deit.", "ijepa": "ijepa.", "dinov2": "dinov2.", "dinov2_with_registers": "dinov2_with_registers.",
    "clip_vision_model": "vision_model.", "siglip_vision_model": "vision_model.",
}  # fmt: skip
THEIR_ACTS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "silu": "silu"}


SIDECAR = SidecarFormat(
    facts_of_config,
    required_key="model_type",
    labels=labels_of,
    preprocess=of_hf,
    preprocess_file="preprocessor_config.json",
    write_preprocess=to_hf,
)


def prefix_of(class_of: ClassOf, spec: ViTSpec) -> str:
    """The prefix of the names of the class that transformers has for a spec."""
    kind, _ = class_of(spec)
    return PREFIXES.get(kind, "") if spec.num_classes or kind in TOWERS.values() else ""


def config_of(class_of: ClassOf, config: ModelConfig) -> dict[str, Any]:
    """The config.json with which transformers builds the class that it has for a spec."""
    spec, labels = config.spec, config.labels
    kind, architecture = class_of(spec)
    square = spec.image_size[0] == spec.image_size[1]
    words = labels or tuple(f"LABEL_{i}" for i in range(spec.num_classes))
    found: dict[str, Any] = {
        "architectures": [architecture], "model_type": kind,
        "hidden_size": spec.dim, "num_hidden_layers": spec.depth, "num_attention_heads": spec.heads,
        "image_size": spec.image_size[0] if square else list(spec.image_size),
        "patch_size": spec.patch_size[0] if spec.patch_size[0] == spec.patch_size[1] else list(spec.patch_size),
        "num_channels": spec.channels, "layer_norm_eps": spec.norm_eps, "hidden_act": THEIR_ACTS[spec.act],
    }  # fmt: skip
    if kind.startswith("dinov2"):
        found |= {"mlp_ratio": _ratio(spec), "use_swiglu_ffn": spec.mlp == "swiglu", "qkv_bias": bool(spec.qkv_bias)}
        found |= {"hidden_act": "gelu"} if spec.mlp == "swiglu" else {}
    else:
        found["intermediate_size"] = spec.mlp_dim
    if spec.registers and kind in ("dinov2_with_registers", "dinov3_vit"):
        found["num_register_tokens"] = spec.registers
    if kind in ("vit", "deit", "ijepa"):
        found |= {"qkv_bias": bool(spec.qkv_bias), "pooler_output_size": spec.representation or spec.dim, "pooler_act": "tanh"}
    if kind == "dinov3_vit":
        found |= {
            "use_gated_mlp": spec.mlp == "swiglu", "query_bias": spec.qkv_bias == "qv", "value_bias": spec.qkv_bias == "qv",
            "key_bias": False, "num_register_tokens": spec.registers, "rope_theta": 100.0,
        }  # fmt: skip
    if kind == "clip_vision_model":
        found["projection_dim"] = spec.num_classes or 512
    elif spec.num_classes:
        found["id2label"] = {str(i): word for i, word in enumerate(words)}
        found["label2id"] = {word: i for i, word in enumerate(words)}
    return found


def _ratio(spec: ViTSpec) -> int:
    """The whole number from which Dinov2 computes the width of its MLP; two thirds, in eights, where it is gated."""
    for ratio in range(1, 17):
        plain = spec.dim * ratio
        if spec.mlp_dim == (plain if spec.mlp == "plain" else (int(plain * 2 / 3) + 7) // 8 * 8):
            return ratio
    raise NotRepresentable(f"transformers' Dinov2 cannot say mlp_dim = {spec.mlp_dim}: its mlp_ratio is a whole number")
