"""open_clip_config.json: facts of an image tower that its weights do not show, and its image preparation.

Source: open_clip 3.3, model.py (CLIPVisionCfg), timm_model.py, transform.py (PreprocessCfg) and factory.py: a tower is
open_clip's own class, or one of timm that `timm_model_name` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from vit_zoo.errors import RefusedContent
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.weights.configs.keys import INITIAL, RUNNING, SHAPES, TRAINING, Keys, check_keys, ignored, mapping_in, only, read
from vit_zoo.weights.configs.timm import POOLS as TIMM_POOLS
from vit_zoo.weights.configs.timm import facts_of_architecture
from vit_zoo.weights.sidecar import SidecarFormat

POOLS = {"tok": "cls", "avg": "mean"}
TEXT = ignored("the text tower is not read")
LOSS = ignored("the comparison of images with texts only")
TOP: Keys = {"model_cfg": read("see there"), "preprocess_cfg": read("preprocess")}
MODEL: Keys = {
    "embed_dim": SHAPES,
    "vision_cfg": read("see there"),
    "quick_gelu": read("act"),
    **dict.fromkeys(("text_cfg", "multimodal_cfg", "custom_text", "hf_model_name", "hf_tokenizer_name"), TEXT),
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
    "width": read("heads"),
    "head_width": read("heads"),
    "image_size": read("preprocess"),
    "no_ln_pre": read("pre_norm"),
    "pool_type": read("pool"),
    "final_ln_after_pool": read("final_norm"),
    "act_kwargs": read("act"),
    "norm_kwargs": read("norm_eps"),
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
    "image_size": read("preprocess"),
    "patch_dropout": TRAINING,
    "timm_model_name": read("norm_eps, act, heads, as an architecture of timm"),
    "timm_pool": read("pool"),
    "timm_proj": only("linear", "none", ""),
    "timm_proj_bias": read("head_bias"),
    "timm_model_pretrained": INITIAL,
    **dict.fromkeys(("timm_drop", "timm_drop_path"), TRAINING),
}
NORM_ARGUMENTS: Keys = {"eps": read("norm_eps"), **dict.fromkeys(("elementwise_affine", "bias"), only(True))}
ACT_ARGUMENTS: Keys = {"approximate": read("act")}
GELUS = {"none": "gelu", "tanh": "gelu_tanh"}
# fields of PreprocessCfg
PREPROCESS: Keys = {
    "size": ignored("open_clip takes the image size of the tower"),
    **dict.fromkeys(("mean", "std", "interpolation", "resize_mode"), read("preprocess")),
    "mode": only("RGB"),
    "fill_color": ignored("resize_mode 'longest' only"),
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # where the config states none


def _parts(config: Mapping[str, Any], where: object) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The parts `model_cfg` and `vision_cfg`. An older file is the former alone. Raises RefusedContent for unknown keys."""
    if "model_cfg" in config:
        check_keys(config, TOP, where=where)
        check_keys(mapping_in(config, "preprocess_cfg", where=where), PREPROCESS, where=where, section="preprocess_cfg")
        model = mapping_in(config, "model_cfg", where=where)
    else:
        model = config
    check_keys(model, MODEL, where=where, section="" if model is config else "model_cfg")
    if "vision_cfg" not in model:
        raise RefusedContent("its config has no vision_cfg", where=where)
    tower = mapping_in(model, "vision_cfg", where=where)
    keys = TIMM_TOWER if tower.get("timm_model_name") else OWN
    check_keys(tower, keys, where=where, section="vision_cfg")
    return model, tower


def facts_of_config(config: Mapping[str, Any], where: object, *, timm: bool = False) -> dict[str, Any]:
    """Facts of the image tower; `timm`: the file has the tensors of a tower of timm.

    Raises RefusedContent for a tower that is not a plain ViT, and for a config of the other kind of tower.
    """
    model, tower = _parts(config, where)
    name = tower.get("timm_model_name")
    if bool(name) != timm:
        kinds = ("a tower of open_clip's own", f"the tower '{name}' of timm")
        raise RefusedContent(f"its config has {kinds[bool(name)]}, its tensors are those of another kind", where=where)
    return _facts_of_timm(tower, where) if timm else _facts_of_own(model, tower, where)


def _facts_of_own(model: Mapping[str, Any], tower: Mapping[str, Any], where: object) -> dict[str, Any]:
    norm, act = (mapping_in(tower, name, where=where) for name in ("norm_kwargs", "act_kwargs"))
    check_keys(norm, NORM_ARGUMENTS, where=where, section="norm_kwargs")
    check_keys(act, ACT_ARGUMENTS, where=where, section="act_kwargs")
    width, head = tower.get("width", 768), tower.get("head_width", 64)
    if type(width) is not int or type(head) is not int or not 0 < head <= width:
        raise RefusedContent(f"width {width!r} and head_width {head!r} of vision_cfg are not those of a ViT", where=where)
    pool = tower.get("pool_type", "tok")
    if pool not in POOLS:
        raise RefusedContent(f"unsupported pool_type {pool!r}; expected one of {', '.join(map(repr, POOLS))}", where=where)
    approximate = act.get("approximate", "none")
    if approximate not in GELUS or (model.get("quick_gelu") and act):
        raise RefusedContent(f"act_kwargs = {dict(act)!r} of vision_cfg is not supported", where=where)
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
    facts = facts_of_architecture(str(tower["timm_model_name"]).removeprefix("timm/"), where)
    pool, projection = tower.get("timm_pool", "avg"), tower.get("timm_proj", "linear")
    if pool not in TIMM_POOLS:
        raise RefusedContent(f"unsupported timm_pool {pool!r}; expected one of {', '.join(map(repr, TIMM_POOLS))}", where=where)
    if pool or projection != "linear":  # with a linear projection, no word for the pool leaves that of the name
        facts["pool"] = TIMM_POOLS[pool]
    if projection == "linear" and not tower.get("timm_proj_bias"):
        facts["head_bias"] = False
    return facts


def preprocess_of(config: Mapping[str, Any]) -> Preprocess | None:
    """How images are prepared; None where the config does not state it, or states what `Preprocess` does not express."""
    stated, model = config.get("preprocess_cfg"), config.get("model_cfg")
    tower = model.get("vision_cfg") if isinstance(model, Mapping) else None
    if not isinstance(stated, Mapping) or not isinstance(tower, Mapping):
        return None
    size = tower.get("image_size", 224)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    mode = stated.get("resize_mode") or "shortest"
    if mode not in ("shortest", "squash") or (mode == "shortest" and height != width):
        return None
    interpolation = stated.get("interpolation") or "bicubic"
    fields = {
        "size": (height, width),
        "resize_to": height if mode == "shortest" else None,
        "interpolation": "bicubic" if interpolation == "random" else interpolation,  # "random" is for training
    }
    try:
        return Preprocess.model_validate(
            {**fields, "mean": _three(stated.get("mean") or MEAN), "std": _three(stated.get("std") or STD)}
        )
    except (TypeError, ValueError):  # values that open_clip does not write; pydantic's error is a ValueError
        return None


def _three(value: Any) -> tuple[float, ...]:
    return tuple(float(x) for x in value) if isinstance(value, list | tuple) else (float(value),) * 3


FILE = "open_clip_config.json"
SIDECAR = SidecarFormat(facts_of_config, file=FILE, preprocess=preprocess_of)
TIMM_SIDECAR = SidecarFormat(partial(facts_of_config, timm=True), file=FILE, preprocess=preprocess_of)
