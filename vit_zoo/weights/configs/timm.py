"""config.json of timm: facts of a model that its weights do not show, and the config for one of ours.

Source: timm 1.0.31, models/_hub.py and _builder.py: `architecture` is one of its names, `model_args` are arguments of the
class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable, RefusedContent, shown
from vit_zoo.model.resize_recipes import UNSTATED
from vit_zoo.weights.configs.image_processors import TIMM_KEYS, of_timm, to_timm
from vit_zoo.weights.configs.keys import (
    CARD,
    INITIAL,
    RUNNING,
    SHAPES,
    TRAINING,
    Keys,
    check_keys,
    ignored,
    only,
    read,
    section_in,
    value_of,
)
from vit_zoo.weights.configs.timm_architectures import Group, find
from vit_zoo.weights.configs.values import COUNT, FLAG, NAMES, SECTION, SIDES, TEXT, either, number, optional
from vit_zoo.weights.sidecar import SidecarFormat

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig

POOLS = {"token": "cls", "avg": "mean", "map": "map", "": "none"}
ACTS = {
    "gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "quickgelu": "quick_gelu", "silu": "silu",
    "swish": "silu", "": "gelu",
}  # fmt: skip
# names of norms, with our word and the eps of timm's classes
NORMS = {
    "": ("layer", 1e-6), "layernorm": ("layer", 1e-6), "layernormfp32": ("layer", 1e-6), "rmsnorm": ("rms", 1e-6),
    "rmsnormfp32": ("rms", 1e-6),
}  # fmt: skip
MLPS = {"mlp": "plain", "swiglu_packed": "swiglu"}  # timm itself takes classes here, which JSON cannot hold

SIZE = ignored("training on other sizes only")
LOADING = ignored("loading of weights only")
NO_ROTATION = ignored("rotary positions only")
CREATION: Keys = {
    **dict.fromkeys(("pretrained", "pretrained_strict", "checkpoint_path", "cache_dir"), LOADING),
    **dict.fromkeys(("scriptable", "exportable", "no_jit", "device", "dtype"), RUNNING),
    "out_indices": ignored("feature extraction only"),
    **dict.fromkeys(("features_only", "pruned", "use_naflex"), only(False)),
}
RATES = ("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate")
SHARED: Keys = {
    **CREATION,
    **dict.fromkeys(RATES, TRAINING),
    **dict.fromkeys(("patch_size", "in_chans", "num_classes", "embed_dim", "depth", "mlp_ratio"), SHAPES),
    **dict.fromkeys(("qkv_bias", "qk_norm", "init_values", "class_token", "no_embed_class"), SHAPES),
    "dynamic_img_size": read("the size of prepared images", optional(FLAG)),
    "dynamic_img_pad": SIZE,
    "img_size": read("image_size", optional(SIDES)),
    "num_heads": read("heads", optional(COUNT)),
    "global_pool": read("pool", optional(TEXT)),
    "norm_layer": read("norm_eps", optional(TEXT)),
}
# arguments of the class VisionTransformer
VIT_ARGUMENTS: Keys = {
    **SHARED,
    **dict.fromkeys(("proj_bias", "reg_tokens", "pre_norm", "final_norm", "fc_norm"), SHAPES),
    **dict.fromkeys(("weight_init", "fix_init"), INITIAL),
    **dict.fromkeys(("scale_attn_norm", "scale_mlp_norm", "embed_norm_layer"), SHAPES),
    **dict.fromkeys(("embed_layer", "block_fn"), only()),
    "attn_layer": only("", "attn"),
    "pos_embed": read("pos", optional(TEXT)),
    "pool_include_prefix": read("pool_tokens", optional(FLAG)),
    "act_layer": read("act", optional(TEXT)),
    "mlp_layer": read("mlp", optional(TEXT)),
}
# arguments of the class Eva
EVA_ARGUMENTS: Keys = {
    **SHARED,
    **dict.fromkeys(("swiglu_mlp", "swiglu_align_to", "num_reg_tokens", "use_post_transformer_norm"), SHAPES),
    **dict.fromkeys(("rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords"), TRAINING),
    "head_init_scale": INITIAL,
    **dict.fromkeys(("scale_mlp", "scale_attn_inner", "use_pre_transformer_norm", "use_fc_norm"), SHAPES),
    **dict.fromkeys(("attn_pool_mlp_ratio", "qkv_fused", "attn_type"), SHAPES),
    "attn_only_layer_scale": only(False),
    **dict.fromkeys(("num_kv_heads", "rope_mrope_section"), only()),
    "use_post_norm": read("block_norm", optional(FLAG)),
    "attn_pool_num_heads": read("pool_heads", optional(COUNT)),
    **dict.fromkeys(("use_abs_pos_emb", "use_rot_pos_emb"), read("pos", optional(FLAG))),
    "ref_feat_shape": read("rope_grid", optional(SIDES)),
    "rope_type": read("rope", optional(TEXT)),
    "rope_grid_indexing": read("rope", optional(TEXT)),
    "rope_temperature": read("rope", optional(number(0, 1_000_000))),
    "rope_grid_offset": read("rope", optional(number(0, 1_000_000))),
    "rope_rotate_half": read("rope", optional(FLAG)),
}
# arguments of the class Beit
BEIT_ARGUMENTS: Keys = {
    **SHARED,
    **dict.fromkeys(("swiglu_mlp", "scale_mlp", "use_abs_pos_emb", "use_rel_pos_bias", "use_shared_rel_pos_bias"), SHAPES),
    "use_fc_norm": SHAPES,
    "head_init_scale": INITIAL,
}
# fields of NaFlexVitCfg, and arguments of the class NaFlexVit
NAFLEX_ARGUMENTS: Keys = {
    **{name: key for name, key in VIT_ARGUMENTS.items() if name not in ("no_embed_class", "dynamic_img_size", "embed_layer")},
    "cfg": only(),
    **dict.fromkeys(("pos_embed_grid_size", "init_values", "swiglu_mlp", "swiglu_align_to"), SHAPES),
    "pos_embed_interp_mode": read("resize", optional(TEXT)),
    **dict.fromkeys(("pos_embed_ar_preserving", "pos_embed_antialias"), read("resize", optional(FLAG))),
    **dict.fromkeys(("pos_embed_align_corners", "pos_embed_use_grid_sample"), read("resize", optional(FLAG))),
    **dict.fromkeys(("rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords"), TRAINING),
    **dict.fromkeys(("rope_temperature", "rope_ref_feat_shape", "rope_grid_offset", "rope_grid_indexing"), NO_ROTATION),
    **dict.fromkeys(("rope_rotate_half", "rope_mrope_section"), NO_ROTATION),
    **dict.fromkeys(("scale_attn_inner_norm", "attn_gated", "attn_only_layer_scale"), only(False)),
    **dict.fromkeys(("use_key_only_attn_mask", "enable_patch_interpolator"), ignored("images of other sizes in a batch only")),
    **dict.fromkeys(("num_kv_heads", "attn_pool_num_heads", "attn_pool_mlp_ratio", "input_norm_layer"), only()),
    "pos_embed": only("learned", "learn"),
    "rope_type": only("", "none"),
    "patchify_channels_last": only(True),
    "embed_proj_type": only("linear", "conv"),
    "attn_type": only("standard"),
    "qkv_fused": only(True),
}
LABELS = optional(either(NAMES, SECTION))  # names that are not in order are not read
# PretrainedCfg; a config of timm before 0.9 has these keys at its top level
PRETRAINED: Keys = {
    **TIMM_KEYS,
    **dict.fromkeys(("test_input_size", "test_crop_pct", "test_pool_size"), ignored("a recommendation for other sizes")),
    **dict.fromkeys(("min_input_size", "pool_size"), SIZE),
    **dict.fromkeys(("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load"), LOADING),
    **dict.fromkeys(("first_conv", "classifier", "label_offset"), ignored("the file has the tensors as they are used")),
    **dict.fromkeys(("architecture", "tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes"), CARD),
    "num_classes": SHAPES,
    "label_names": read("labels", LABELS),
    "label_descriptions": CARD,
}
ARGUMENTS = {
    "VisionTransformer": VIT_ARGUMENTS, "Eva": EVA_ARGUMENTS, "Beit": BEIT_ARGUMENTS, "NaFlexVit": NAFLEX_ARGUMENTS
}  # fmt: skip
# the classes whose models may have the names of `vit_*`
COMMON = ("VisionTransformer", "Eva")
TOP: Keys = {
    "architecture": read("norm_eps, act, heads, pool", TEXT),
    "global_pool": read("pool", optional(TEXT)),
    "model_args": read("see the arguments", optional(SECTION)),
    "pretrained_cfg": read("preprocess", optional(SECTION)),
    "num_classes": SHAPES,
    "num_features": SHAPES,
    "label_names": read("labels", LABELS),
    "labels": read("labels", LABELS),
    "label_descriptions": CARD,
    "license": CARD,
    "vit_zoo": CARD,
}


def facts_of_config(config: Mapping[str, Any], where: object, *, classes: tuple[str, ...] = COMMON) -> dict[str, Any]:
    """Facts of the architecture that a config names, then those of its `model_args`, which take precedence.

    `classes` are those of timm whose tensors the file may have. Raises RefusedContent for an architecture that is not a plain
    ViT.
    """
    architecture: str = value_of(config, "architecture", TOP, where=where) or ""
    facts = facts_of_architecture(architecture, where, classes=classes)
    class_ = group_of(architecture).class_
    flat = "pretrained_cfg" not in config
    shared = isinstance(config.get("model_type"), str)  # transformers reads the other keys of such a file
    own = {name: value for name, value in config.items() if name in TOP} if shared else config
    stated = check_keys(own, {**PRETRAINED, **TOP} if flat else TOP, where=where)
    section_in(config, "pretrained_cfg", PRETRAINED, where=where)
    arguments = _arguments(config, ARGUMENTS[class_], where)
    if class_ == "NaFlexVit":
        facts["resize"] = _naflex_recipe(architecture, arguments)
    if "num_heads" in arguments:
        facts["heads"] = arguments["num_heads"]
    if "norm_layer" in arguments:
        facts["norm"], facts["norm_eps"] = _one_of(NORMS, "norm_layer", arguments["norm_layer"].replace("_", "").lower(), where)
    if "act_layer" in arguments:
        facts.pop("act_of_plain_mlp", None)
        facts["act"] = _one_of(ACTS, "act_layer", arguments["act_layer"].lower(), where)
    if "mlp_layer" in arguments:
        facts["mlp"] = _one_of(MLPS, "mlp_layer", arguments["mlp_layer"], where)
    if arguments.get("pos_embed") in ("", "none"):
        facts["pos"] = "none"
    if class_ == "Eva":
        _set_rotation(facts, arguments, where)
    elif class_ == "VisionTransformer":
        facts = {"pos": "learned", "pool_heads": 0, "block_norm": "pre", **facts}
    pool = arguments.get("global_pool", stated.get("global_pool"))
    if pool is not None:
        facts["pool"] = _one_of(POOLS, "global_pool", pool, where)
    if "pool_include_prefix" in arguments:
        facts.pop("pool_tokens", None)
        if arguments["pool_include_prefix"] and facts.get("pool") in ("mean", "map"):
            facts["pool_tokens"] = "all"
    if "img_size" in arguments:
        facts["image_size"] = arguments["img_size"]
    return facts


def _set_rotation(facts: dict[str, Any], arguments: Mapping[str, Any], where: object) -> None:
    """Set what the arguments of the class Eva say about norms, pooling and positions.

    Raises RefusedContent for another rotation than that of the architecture.
    """
    if "use_post_norm" in arguments:
        facts["block_norm"] = "post" if arguments["use_post_norm"] else "pre"
    if "attn_pool_num_heads" in arguments and facts.get("pool") == "map":
        facts["pool_heads"] = arguments["attn_pool_num_heads"]
    learned = arguments.get("use_abs_pos_emb", "learned" in facts["pos"])
    rotates = arguments.get("use_rot_pos_emb", "rope" in facts["pos"])
    facts["pos"] = ("learned+rope" if learned else "rope") if rotates else "learned" if learned else "none"
    if not rotates:
        facts.pop("rope", None)
        facts.pop("rope_grid", None)
        return
    usual = ROPE_ARGUMENTS.get(facts.get("rope", ""), {})
    if arguments.get("class_token") is False:
        usual = {**usual, "rope_grid_offset": 0}
    for name in ROTATION:
        if name in arguments and arguments[name] != usual.get(name):
            raise RefusedContent(f"unsupported {name} {shown(arguments[name])}", where=where)
    if "ref_feat_shape" in arguments:
        facts["rope_grid"] = arguments["ref_feat_shape"]


ROTATION = ("rope_type", "rope_grid_indexing", "rope_temperature", "rope_grid_offset", "rope_rotate_half")
# timm's arguments for our forms of rotation
ROPE_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    form: dict(zip(ROTATION, values, strict=True))
    for form, values in {
        "dinov3": ("dinov3", "ij", 100, 0, True),
        "eva02": ("cat", "ij", 10_000, 0, False),
        "pe": ("cat", "xy", 10_000, 1, False),
        "axial": ("cat", "xy", 100, 0, False),
        "mixed": ("mixed", "xy", 10, 0, False),
    }.items()
}


def _arguments(config: Mapping[str, Any], keys: Keys, where: object) -> dict[str, Any]:
    """The arguments of the class; null stands for its default."""
    stated = value_of(config, "model_args", TOP, where=where) or {}
    return check_keys({name: each for name, each in stated.items() if each is not None}, keys, where=where, section="model_args")


def facts_of_architecture(name: str, where: object, *, classes: tuple[str, ...] = COMMON) -> dict[str, Any]:
    """What the code behind one of timm's names states. Raises RefusedContent for a name that is not a plain ViT's."""
    match = find(name)
    if match is None or match[0].class_ not in classes:
        cause = f"architecture {shown(name)} {'is not a plain ViT' if match is None else 'has other tensors'}"
        hint = "for a plain ViT, name one of timm's that has the same settings, such as vit_base_patch16_224"
        raise RefusedContent(cause, where=where, hint=hint)
    group, heads = match
    facts: dict[str, Any] = {"norm_eps": group.norm_eps, "heads": heads, "resize": recipe_of(name), **group.more}
    if group.class_ == "Eva":
        facts["act_of_plain_mlp"] = "gelu"  # its gated MLP has SiLU
    elif group.mlp == "plain":  # where the file has a gated MLP, the code was told so by arguments that the config lacks
        facts["act_of_plain_mlp"] = group.act
    else:
        facts |= {"act": group.act, "mlp": group.mlp}
    if group.pool != "token":  # otherwise the tensors show that there is a class token, and that the norm is before pooling
        facts["pool"] = POOLS[group.pool]
    if group.include_prefix:
        facts["pool_tokens"] = "all"
    return facts


def group_of(name: str) -> Group:
    """The group of one of timm's names that `find` knows."""
    match = find(name)
    assert match is not None
    return match[0]


def recipe_of(name: str) -> str:
    """The recipe (`resize_recipes.py`) by which timm loads the weights of one of its names at another image size."""
    return "flexivit" if name.startswith("flexivit") else "timm"


def _naflex_recipe(name: str, arguments: Mapping[str, Any]) -> str:
    """The recipe of a NaFlexVit, or `UNSTATED` where it is none of the known ones."""
    mode = arguments.get("pos_embed_interp_mode", "bilinear" if "_siglip" in name else "bicubic")
    plain = arguments.get("pos_embed_antialias", True) and not any(
        arguments.get(f"pos_embed_{option}", default)
        for option, default in (
            ("ar_preserving", "_par_" in name or "_radio_" in name),
            ("align_corners", False),
            ("use_grid_sample", False),
        )
    )
    return {"bicubic": "timm", "bilinear": "naflex"}.get(mode, UNSTATED) if plain else UNSTATED


def _one_of(known: Mapping[str, Any], key: str, value: str, where: object) -> Any:
    """Our word for a value. Raises RefusedContent for one that is not supported."""
    if value not in known:
        expected = ", ".join(repr(name) for name in known)
        raise RefusedContent(f"unsupported {key} {shown(value)}; expected one of {expected}", where=where)
    return known[value]


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes, where they are listed in order."""
    inner = value_of(value_of(config, "pretrained_cfg", TOP) or {}, "label_names", PRETRAINED)
    stated = (value_of(config, "label_names", TOP), value_of(config, "labels", TOP), inner)
    labels = next((each for each in stated if each is not None), None)
    return labels if isinstance(labels, tuple) else None


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
    return value_of(value_of(config, "model_args", TOP) or {}, "dynamic_img_size", SHARED) is True


SIDECAR = SidecarFormat(
    facts_of_config, required_key="architecture", labels=labels_of, preprocess=of_timm, interpolates=_interpolates
)
EVA_SIDECAR = replace(SIDECAR, facts=partial(facts_of_config, classes=("Eva",)))
BEIT_SIDECAR = replace(SIDECAR, facts=partial(facts_of_config, classes=("Beit",)))
NAFLEX_SIDECAR = replace(SIDECAR, facts=partial(facts_of_config, classes=("NaFlexVit",)), interpolates=lambda config: True)


def config_of(config: ModelConfig) -> dict[str, Any]:
    """The config.json that `timm.create_model("local-dir:...")` reads."""
    spec = config.spec
    if spec.pool == "cls+mean":
        raise NotRepresentable("timm has no pool 'cls+mean'")
    square = spec.image_size[0] == spec.image_size[1], spec.patch_size[0] == spec.patch_size[1]
    pool = next(theirs for theirs, ours in POOLS.items() if ours == spec.pool)
    base = "deit_base_distilled_patch16_224" if spec.dist_token else "vit_base_patch16_224"
    width = spec.mlp_dim
    if spec.mlp == "swiglu":  # its layer is a class, which model_args cannot name, so the architecture brings it
        base, width = "vit_giant_patch14_dinov2", 2 * spec.mlp_dim
    arguments: dict[str, Any] = {
        "img_size": spec.image_size[0] if square[0] else list(spec.image_size),
        "patch_size": spec.patch_size[0] if square[1] else list(spec.patch_size),
        "embed_dim": spec.dim, "depth": spec.depth, "num_heads": spec.heads, "mlp_ratio": _ratio(width, spec.dim),
        "in_chans": spec.channels, "qkv_bias": bool(spec.qkv_bias), "qk_norm": spec.qk_norm, "act_layer": spec.act,
        "init_values": 1e-5 if spec.layer_scale else None, "class_token": spec.class_token, "reg_tokens": spec.registers,
        "no_embed_class": spec.pos_covers == "patches", "pre_norm": spec.pre_norm, "proj_bias": spec.proj_bias,
        "pos_embed": "none" if spec.pos == "none" else "learn", "fc_norm": spec.final_norm == "after_pool",
    }  # fmt: skip
    if spec.final_norm == "none":
        arguments["final_norm"] = False
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


def _ratio(width: int, dim: int) -> float:
    """`mlp_ratio`, whose product with `dim` timm cuts to an integer."""
    ratio = width / dim
    return ratio if int(dim * ratio) == width else (width + 0.5) / dim
