"""config.json of timm: facts of a model that its weights do not show, and the config for one of ours.

Source: timm 1.0.31, models/_hub.py and _builder.py: `architecture` is one of its names, `model_args` are arguments of the
class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, NotRepresentable
from vit_zoo.weights.configs.image_processors import of_timm, to_timm
from vit_zoo.weights.sidecar import SidecarFormat

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig

POOLS = {"token": "cls", "avg": "mean", "map": "map", "": "none"}
ACTS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "quickgelu": "quick_gelu", "silu": "silu"}


def facts_of_config(config: Mapping[str, Any], where: object) -> dict[str, Any]:
    """Facts of the architecture that a config names, then those of its `model_args`, which take precedence."""
    from vit_zoo.registry.configs import config_of as config_of_variant
    from vit_zoo.registry.lookup import find

    facts: dict[str, Any] = {}
    arguments = config.get("model_args") or {}
    try:
        spec = config_of_variant(find(config["architecture"]).variant).spec
    except InputError:  # not an architecture of the zoo: only the arguments are left
        spec = None
    if spec is not None:
        facts = {"norm_eps": spec.norm_eps, "act": spec.act, "heads": spec.heads}
    if isinstance(arguments.get("num_heads"), int):
        facts["heads"] = arguments["num_heads"]
    if "act_layer" in arguments:
        if arguments["act_layer"] not in ACTS:
            raise InputError(f"unsupported act_layer '{arguments['act_layer']}'; expected one of {', '.join(ACTS)}", where=where)
        facts["act"] = ACTS[arguments["act_layer"]]
    pool = arguments.get("global_pool", config.get("global_pool"))
    if pool in POOLS:
        facts["pool"] = POOLS[pool]
    if "img_size" in arguments:
        size = arguments["img_size"]
        facts["image_size"] = tuple(size) if isinstance(size, list) else size
    return facts


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes, where they are listed in order."""
    labels = config.get("label_names")
    return tuple(labels) if isinstance(labels, list) and all(isinstance(label, str) for label in labels) else None


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def config_from_module(module: Any) -> dict[str, Any]:
    """What a live module says, as in a config.json: its `pretrained_cfg`, with the defaults of `resolve_model_data_config`."""
    stated: Any = getattr(module, "pretrained_cfg", None)
    stated = stated.to_dict() if hasattr(stated, "to_dict") else stated
    if not isinstance(stated, Mapping) or not stated:
        return {}
    cfg = {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center", **IMAGENET}
    cfg |= {name: value for name, value in stated.items() if value is not None}
    cfg = {name: list(value) if isinstance(value, tuple) else value for name, value in cfg.items()}
    return {"pretrained_cfg": cfg, "label_names": cfg.get("label_names")}


def _interpolates(config: Mapping[str, Any]) -> bool:
    """Whether the model interpolates positions for any image; by default timm's raise an error."""
    arguments = config.get("model_args")
    return isinstance(arguments, Mapping) and arguments.get("dynamic_img_size") is True


SIDECAR = SidecarFormat(
    facts_of_config, required_key="architecture", labels=labels_of, preprocess=of_timm, interpolates=_interpolates
)


def config_of(config: ModelConfig) -> dict[str, Any]:
    """The config.json that `timm.create_model("local-dir:...")` reads."""
    spec = config.spec
    if spec.pool == "cls+mean":
        raise NotRepresentable("timm has no pool 'cls+mean'")
    square = spec.image_size[0] == spec.image_size[1], spec.patch_size[0] == spec.patch_size[1]
    pool = next(theirs for theirs, ours in POOLS.items() if ours == spec.pool)
    base = "deit_base_distilled_patch16_224" if spec.dist_token else "vit_base_patch16_224"
    arguments: dict[str, Any] = {
        "img_size": spec.image_size[0] if square[0] else list(spec.image_size),
        "patch_size": spec.patch_size[0] if square[1] else list(spec.patch_size),
        "embed_dim": spec.dim, "depth": spec.depth, "num_heads": spec.heads, "mlp_ratio": spec.mlp_dim / spec.dim,
        "in_chans": spec.channels, "qkv_bias": bool(spec.qkv_bias), "qk_norm": spec.qk_norm, "act_layer": spec.act,
        "init_values": 1e-5 if spec.layer_scale else None, "class_token": spec.class_token, "reg_tokens": spec.registers,
        "no_embed_class": spec.pos_covers == "patches", "pre_norm": spec.pre_norm, "proj_bias": spec.proj_bias,
        "pos_embed": "none" if spec.pos == "none" else "learn", "fc_norm": spec.final_norm == "after_pool",
    }  # fmt: skip
    if spec.mlp == "swiglu":
        arguments |= {"mlp_layer": "swiglu_packed"}
    return {
        "architecture": base,
        "num_classes": spec.num_classes,
        "num_features": spec.dim,
        "global_pool": pool,
        "model_args": {**arguments, "global_pool": pool},
        "pretrained_cfg": {
            "input_size": [spec.channels, *spec.image_size],
            "fixed_input_size": True,
            **({} if config.preprocess is None else to_timm(config.preprocess)),
            "num_classes": spec.num_classes,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if spec.dist_token else "head",
        },
        **({} if config.labels is None else {"label_names": list(config.labels)}),
    }
