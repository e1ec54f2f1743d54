"""open_clip_config.json: facts of an image tower that its weights do not show, and its image preparation.

Source: open_clip 3.3, model.py (CLIPVisionCfg), timm_model.py, transform.py (PreprocessCfg) and factory.py: a tower is
open_clip's own class, or one of timm that `timm_model_name` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from vit_zoo.errors import RefusedContent, shown
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.weights.configs.keys import (
    INITIAL,
    RUNNING,
    SHAPES,
    TRAINING,
    Keys,
    check_keys,
    ignored,
    only,
    read,
    read_keys,
    section_in,
    value_of,
)
from vit_zoo.weights.configs.timm import POOLS as TIMM_POOLS
from vit_zoo.weights.configs.timm import facts_of_architecture
from vit_zoo.weights.configs.values import DEVIATIONS, EPS, FLAG, MEANS, SECTION, SIDES, TEXT, WIDTH, either, number, optional
from vit_zoo.weights.sidecar import SidecarFormat

POOLS = {"tok": "cls", "avg": "mean"}
TEXTS = ignored("the text tower is not read")
LOSS = ignored("the comparison of images with texts only")
PARTS: Keys = dict.fromkeys(("model_cfg", "preprocess_cfg"), read("see there", optional(SECTION)))
MODEL: Keys = {
    "embed_dim": SHAPES,
    "vision_cfg": read("see there", optional(SECTION)),
    "quick_gelu": read("act", FLAG),
    **dict.fromkeys(("text_cfg", "multimodal_cfg", "custom_text", "hf_model_name", "hf_tokenizer_name"), TEXTS),
    **dict.fromkeys(("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"), LOSS),
    **dict.fromkeys(("cast_dtype", "output_dict", "precision"), RUNNING),
}
# fields of CLIPVisionCfg
CUSTOM_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
TIMM_WORDS = (
    "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path",
)  # fmt: skip
OWN: Keys = {
    **dict.fromkeys(("layers", "mlp_ratio", "patch_size", "pos_embed_type"), SHAPES),
    "width": read("heads", WIDTH),
    "head_width": read("heads", WIDTH),
    "image_size": read("preprocess", optional(SIDES)),
    "no_ln_pre": read("pre_norm", FLAG),
    "pool_type": read("pool", TEXT),
    "final_ln_after_pool": read("final_norm", FLAG),
    "act_kwargs": read("act", optional(SECTION)),
    "norm_kwargs": read("norm_eps", optional(SECTION)),
    "ls_init_value": SHAPES,
    "patch_dropout": TRAINING,
    "output_tokens": ignored("a second output"),
    "attentional_pool": only(False),
    **dict.fromkeys(("attn_pooler_queries", "attn_pooler_heads"), ignored("attentional_pool only")),
    "block_type": only("default"),
    **dict.fromkeys(CUSTOM_BLOCKS, only(False)),
    **dict.fromkeys(TIMM_WORDS, ignored("timm's towers only")),
}
TIMM_TOWER: Keys = {
    **dict.fromkeys(OWN, ignored("open_clip's own towers only")),
    "image_size": read("preprocess", optional(SIDES)),
    "patch_dropout": TRAINING,
    "timm_model_name": read("norm_eps, act, heads, as an architecture of timm", optional(TEXT)),
    "timm_pool": read("pool", TEXT),
    "timm_proj": only("linear", "none", ""),
    "timm_proj_bias": read("head_bias", FLAG),
    "timm_model_pretrained": INITIAL,
    **dict.fromkeys(("timm_drop", "timm_drop_path"), TRAINING),
}
NORM_ARGUMENTS: Keys = {"eps": read("norm_eps", EPS), **dict.fromkeys(("elementwise_affine", "bias"), only(True))}
ACT_ARGUMENTS: Keys = {"approximate": read("act", TEXT)}
GELUS = {"none": "gelu", "tanh": "gelu_tanh"}
# fields of PreprocessCfg
PREPROCESS: Keys = {
    "size": ignored("open_clip takes the image size of the tower"),
    "mean": read("preprocess", optional(either(number(-1_000_000, 1_000_000), MEANS))),
    "std": read("preprocess", optional(either(number(1e-12, 1_000_000), DEVIATIONS))),
    **dict.fromkeys(("interpolation", "resize_mode"), read("preprocess", optional(TEXT))),
    "mode": only("RGB"),
    "fill_color": ignored("resize_mode 'longest' only"),
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # where the config states none


def _parts(config: Mapping[str, Any], where: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts `model_cfg` and `vision_cfg`. An older file is the former alone. Raises RefusedContent for unknown keys."""
    if "model_cfg" in config:
        parts = check_keys(config, PARTS, where=where)
        section_in(config, "preprocess_cfg", PREPROCESS, where=where)
        model = check_keys(parts.get("model_cfg", {}), MODEL, where=where, section="model_cfg")
    else:
        model = check_keys(config, MODEL, where=where)
    if "vision_cfg" not in model:
        raise RefusedContent("its config has no vision_cfg", where=where)
    name = value_of(model["vision_cfg"], "timm_model_name", TIMM_TOWER, where=where)
    return model, section_in(model, "vision_cfg", TIMM_TOWER if name else OWN, where=where)


def facts_of_config(config: Mapping[str, Any], where: object, *, timm: bool = False) -> dict[str, Any]:
    """Facts of the image tower; `timm`: the file has the tensors of a tower of timm.

    Raises RefusedContent for a tower that is not a plain ViT, and for a config of the other kind of tower.
    """
    model, tower = _parts(config, where)
    name = tower.get("timm_model_name")
    if bool(name) != timm:
        kinds = ("a tower of open_clip's own", f"the tower {shown(name)} of timm")
        raise RefusedContent(f"its config has {kinds[bool(name)]}, its tensors are those of another kind", where=where)
    return _facts_of_timm(tower, where) if timm else _facts_of_own(model, tower, where)


def _facts_of_own(model: Mapping[str, Any], tower: Mapping[str, Any], where: object) -> dict[str, Any]:
    norm = section_in(tower, "norm_kwargs", NORM_ARGUMENTS, where=where)
    act = section_in(tower, "act_kwargs", ACT_ARGUMENTS, where=where)
    width, head = tower.get("width", 768), tower.get("head_width", 64)
    if head > width:
        raise RefusedContent(f"width {width} and head_width {head} of vision_cfg are not those of a ViT", where=where)
    pool = tower.get("pool_type", "tok")
    if pool not in POOLS:
        raise RefusedContent(f"unsupported pool_type {shown(pool)}; expected one of {', '.join(map(repr, POOLS))}", where=where)
    approximate = act.get("approximate", "none")
    if approximate not in GELUS or (model.get("quick_gelu") and act):
        raise RefusedContent(f"act_kwargs = {shown(act)} of vision_cfg is not supported", where=where)
    facts: dict[str, Any] = {
        "act": "quick_gelu" if model.get("quick_gelu") else GELUS[approximate],
        "heads": width // head,
        "pre_norm": not tower.get("no_ln_pre", False),
        "pool": POOLS[pool],
    }
    if pool == "avg":  # for the class token alone, both places of the norm give the same
        facts |= {"pool_tokens": "patches", "final_norm": "after_pool" if tower.get("final_ln_after_pool") else "before_pool"}
    if "eps" in norm:
        facts["norm_eps"] = norm["eps"]
    return facts


def _facts_of_timm(tower: Mapping[str, Any], where: object) -> dict[str, Any]:
    facts = facts_of_architecture(tower["timm_model_name"].removeprefix("timm/"), where)
    pool, projection = tower.get("timm_pool", "avg"), tower.get("timm_proj", "linear")
    if pool not in TIMM_POOLS:
        expected = ", ".join(map(repr, TIMM_POOLS))
        raise RefusedContent(f"unsupported timm_pool {shown(pool)}; expected one of {expected}", where=where)
    if pool or projection != "linear":  # with a linear projection, no word for the pool leaves that of the name
        facts["pool"] = TIMM_POOLS[pool]
    if projection == "linear" and not tower.get("timm_proj_bias"):
        facts["head_bias"] = False
    return facts


def preprocess_of(config: Mapping[str, Any]) -> Preprocess | None:
    """How images are prepared; None where the config does not state it, or states what `Preprocess` does not express."""
    try:
        return _preprocess(config)
    except (RefusedContent, ValidationError):  # values that open_clip does not write
        return None


def _preprocess(config: Mapping[str, Any]) -> Preprocess | None:
    parts = read_keys(config, PARTS, where=None)
    tower = value_of(parts.get("model_cfg", {}), "vision_cfg", MODEL)
    if tower is None or "preprocess_cfg" not in parts:
        return None
    stated = read_keys(parts["preprocess_cfg"], PREPROCESS, where=None)
    height, width = value_of(tower, "image_size", OWN) or (224, 224)
    mode = stated.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash") or (mode == "shortest" and height != width):
        return None
    interpolation = stated.get("interpolation") or "bicubic"
    return Preprocess.model_validate(
        {
            "size": (height, width),
            "resize_to": height if mode == "shortest" else None,
            "interpolation": "bicubic" if interpolation == "random" else interpolation,  # "random" is for training
            "mean": _three(stated.get("mean", MEAN)),
            "std": _three(stated.get("std", STD)),
        }
    )


def _three(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,) * 3


FILE = "open_clip_config.json"
SIDECAR = SidecarFormat(facts_of_config, file=FILE, preprocess=preprocess_of)
TIMM_SIDECAR = SidecarFormat(partial(facts_of_config, timm=True), file=FILE, preprocess=preprocess_of)
