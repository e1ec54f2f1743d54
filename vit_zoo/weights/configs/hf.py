"""config.json of transformers: facts of a Vision Transformer that its weights do not show, and the config for one of ours.

Source: transformers 5.23, models/*/configuration_*.py, whose classes also hold the defaults of what a config leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, NotRepresentable, RefusedContent
from vit_zoo.weights.configs.image_processors import hf_model_keys, of_hf, to_hf
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
# the model types that are read, with the eps and the activation of a config that does not state them
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
# the model types that interpolate positions, or compute them, for any image without being asked; the others raise an error
ANY_SIZE = ("dinov2", "dinov2_with_registers", "dinov3_vit")
TOWERS = {"clip": "clip_vision_model", "siglip": "siglip_vision_model", "siglip2": "siglip2_vision_model"}
HEADS = {"clip_vision_model": 12, "siglip_vision_model": 12, "siglip2_vision_model": 12, "dinov3_vit": 6}


def facts_of_config(config: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Fields of the spec that a config states. Raises RefusedContent for a model that is not a plain ViT."""
    kind = config.get("model_type")
    if kind in TOWERS:
        config, kind = {**config, **(config.get("vision_config") or {})}, TOWERS[kind]
    if kind not in DEFAULTS:
        raise RefusedContent(f"model_type '{kind}' is not a plain ViT", where=where)
    if kind == "dinov3_vit" and (config.get("rope_theta", 100.0) != 100.0):
        raise RefusedContent(f"rope_theta = {config['rope_theta']} is not supported; DINOv3 has 100", where=where)
    eps, act = DEFAULTS[kind]
    facts: dict[str, Any] = {
        "heads": config.get("num_attention_heads", HEADS.get(kind, 12)),
        "norm_eps": float(config.get("layer_norm_eps", eps)),
        "channels": config.get("num_channels", 3),
    }
    if not config.get("use_swiglu_ffn"):  # Dinov2's SwiGLU uses SiLU whatever hidden_act is
        name = config.get("hidden_act", act)
        if name not in ACTS:
            raise RefusedContent(f"unsupported hidden_act '{name}'; expected one of {', '.join(ACTS)}", where=where)
        facts["act"] = ACTS[name]
    if kind != "siglip2_vision_model" or "num_patches" not in config:
        size = config.get("image_size")
        if size is not None:
            facts["image_size"] = tuple(size) if isinstance(size, list | tuple) else size
    patch = config.get("patch_size")
    if patch is not None:
        facts["patch_size"] = tuple(patch) if isinstance(patch, list | tuple) else patch
    if config.get("vision_use_head") is False:
        facts["pool"] = "none"
    bad = [name for name, value in facts.items() if name in ("heads", "channels") and (type(value) is not int or value < 1)]
    if bad:
        raise InputError(f"{bad[0]} must be a positive integer, got {facts[bad[0]]!r}", where=where)
    return facts


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes, unless they are the numbered ones that transformers fills in."""
    words = config.get("id2label")
    if not isinstance(words, Mapping) or not words:
        return None
    labels = [words.get(str(i), words.get(i)) for i in range(len(words))]
    if any(not isinstance(label, str) for label in labels) or labels[0] == "LABEL_0":
        return None
    return tuple(labels)


# prefixes of models with a head; models without a head have none, except towers, whose prefix both 4.x and 5.x read
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
    interpolates=lambda config: config.get("model_type") in ANY_SIZE,
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
    document: dict[str, Any] = {
        "architectures": [architecture], "model_type": kind,
        "hidden_size": spec.dim, "num_hidden_layers": spec.depth, "num_attention_heads": spec.heads,
        "image_size": spec.image_size[0] if square else list(spec.image_size),
        "patch_size": spec.patch_size[0] if spec.patch_size[0] == spec.patch_size[1] else list(spec.patch_size),
        "num_channels": spec.channels, "layer_norm_eps": spec.norm_eps, "hidden_act": THEIR_ACTS[spec.act],
    }  # fmt: skip
    if kind.startswith("dinov2"):
        document |= {"mlp_ratio": _ratio(spec), "use_swiglu_ffn": spec.mlp == "swiglu", "qkv_bias": bool(spec.qkv_bias)}
        document |= {"hidden_act": "gelu"} if spec.mlp == "swiglu" else {}
    else:
        document["intermediate_size"] = spec.mlp_dim
    if spec.registers and kind in ("dinov2_with_registers", "dinov3_vit"):
        document["num_register_tokens"] = spec.registers
    if kind in ("vit", "deit", "ijepa"):
        document |= {"qkv_bias": bool(spec.qkv_bias), "pooler_output_size": spec.representation or spec.dim, "pooler_act": "tanh"}
    if kind == "dinov3_vit":
        document |= {
            "use_gated_mlp": spec.mlp == "swiglu", "query_bias": spec.qkv_bias == "qv", "value_bias": spec.qkv_bias == "qv",
            "key_bias": False, "num_register_tokens": spec.registers, "rope_theta": 100.0,
        }  # fmt: skip
    if kind == "clip_vision_model":
        document["projection_dim"] = spec.num_classes or 512
    elif spec.num_classes:
        document["id2label"] = {str(i): word for i, word in enumerate(words)}
        document["label2id"] = {word: i for i, word in enumerate(words)}
    return document if config.preprocess is None else {**document, **hf_model_keys(config.preprocess)}


def _ratio(spec: ViTSpec) -> int:
    """Dinov2's `mlp_ratio`, an integer.

    A gated MLP has two thirds of its product with `dim`, rounded up to a multiple of 8.
    """
    for ratio in range(1, 17):
        plain = spec.dim * ratio
        if spec.mlp_dim == (plain if spec.mlp == "plain" else (int(plain * 2 / 3) + 7) // 8 * 8):
            return ratio
    raise NotRepresentable(f"transformers' Dinov2 cannot express mlp_dim = {spec.mlp_dim}: its mlp_ratio is an integer")
