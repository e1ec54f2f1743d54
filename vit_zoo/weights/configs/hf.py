"""config.json of transformers: facts of a Vision Transformer that its weights do not show, and the config for one of ours.

Source: transformers 5.23, models/*/configuration_*.py, whose classes also hold the defaults of what a config leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable, RefusedContent, shown
from vit_zoo.weights.configs.image_processors import HF_KEYS, hf_files, hf_model_keys, of_hf
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
    read_keys,
    value_of,
)
from vit_zoo.weights.configs.timm import TOP as TIMM
from vit_zoo.weights.configs.values import COUNT, EPS, FLAG, NUMBERED_NAMES, SECTION, SIDES, TEXT, optional, whole
from vit_zoo.weights.sidecar import SidecarFormat

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.preprocess import Preprocess
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
    "metaclip_2_vision_model": (1e-5, "quick_gelu"),
    "tipsv2_vision_model": (1e-6, "gelu"),
    "beit": (1e-12, "gelu"),
    "data2vec-vision": (1e-12, "gelu"),
    "aimv2_vision_model": (1e-5, "silu"),
}
# the model types that interpolate positions, or compute them, for any image without being asked; the others raise an error
ANY_SIZE = ("dinov2", "dinov2_with_registers", "dinov3_vit", "tipsv2_vision_model")
TOWERS = {
    "clip": "clip_vision_model",
    "siglip": "siglip_vision_model",
    "siglip2": "siglip2_vision_model",
    "aimv2": "aimv2_vision_model",
    "metaclip_2": "metaclip_2_vision_model",
    "tipsv2": "tipsv2_vision_model",
}
HEADS = {"clip_vision_model": 12, "siglip_vision_model": 12, "siglip2_vision_model": 12, "dinov3_vit": 6, "aimv2_vision_model": 8}


TEXTS = ignored("text models only")
DECODER = ignored("the decoder only, which is not read")
BACKBONE = ignored("backbones only, whose outputs are those of single blocks")
HEAD = ignored("masked image modelling only")
OTHERS = ignored("read by other classes or libraries")
# keys of every config, those of 4.x too, which wrote all of them into the configs of towers
BASE: Keys = {
    "model_type": read("which keys follow, and their defaults", TEXT),
    "architectures": SHAPES,
    "id2label": read("labels", optional(NUMBERED_NAMES)),
    "label2id": ignored("id2label states the same"),
    **dict.fromkeys(("num_labels", "_num_labels"), SHAPES),
    "problem_type": read("problem_type", optional(TEXT)),
    **dict.fromkeys(("dtype", "torch_dtype"), SHAPES),
    **dict.fromkeys(
        (
            "_name_or_path", "_commit_hash", "transformers_version", "transformers.js_config", "transformers_weights", "license",
            "finetuning_task", "task_specific_params", "custom_pipelines", "tags",
        ),
        CARD,
    ),
    **dict.fromkeys(
        (
            "output_attentions", "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate", "use_cache",
            "chunk_size_feed_forward", "torchscript", "use_bfloat16", "gradient_checkpointing", "tf_legacy_loss",
            "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "attn_implementation",
            "_experts_implementation", "experts_implementation", "base_model_tp_plan", "base_model_pp_plan",
        ),
        RUNNING,
    ),
    **dict.fromkeys(
        (
            "is_encoder_decoder", "is_decoder", "add_cross_attention", "cross_attention_hidden_size", "tie_encoder_decoder",
            "tie_word_embeddings", "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
            "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
            "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences",
            "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
            "forced_bos_token_id", "forced_eos_token_id", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id",
            "decoder_start_token_id", "tokenizer_class", "prefix", "vocab_size",
        ),
        TEXTS,
    ),
    # a file may state the model for several libraries, and for transformers' class that runs timm's preprocessing
    **dict.fromkeys(("image_processor_type", "vit_zoo", *TIMM), OTHERS),
    "pruned_heads": only({}, []),
    "auto_map": only({}),
    **dict.fromkeys(("quantization_config", "compression_config", "per_layer_config"), only({})),
}  # fmt: skip
SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "mlp_ratio")
ENCODER: Keys = {
    **dict.fromkeys(SIZES, SHAPES),
    "num_attention_heads": read("heads", COUNT),
    "hidden_act": read("act", TEXT),
    "layer_norm_eps": read("norm_eps", EPS),
    "image_size": read("image_size", optional(SIDES)),
    "patch_size": read("patch_size", optional(SIDES)),
    "num_channels": read("channels", COUNT),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "dropout"), TRAINING),
    "attention_dropout": TRAINING,
    **dict.fromkeys(("initializer_range", "initializer_factor", "layerscale_value"), INITIAL),
}
PLAIN: Keys = {**ENCODER, "qkv_bias": read("qkv_bias", FLAG)}
VIT: Keys = {**PLAIN, "encoder_stride": HEAD, "pooler_output_size": SHAPES, "pooler_act": only("tanh")}
BACKBONES: Keys = dict.fromkeys(
    ("apply_layernorm", "reshape_hidden_states", "out_features", "out_indices", "_out_features", "_out_indices", "stage_names"),
    BACKBONE,
)
MAE_DECODER = tuple(
    f"decoder_{name}" for name in ("num_attention_heads", "hidden_size", "num_hidden_layers", "intermediate_size")
)
GATED = read("act: a gated MLP has SiLU, whatever hidden_act is", FLAG)
DINOV2: Keys = {**PLAIN, **BACKBONES, "use_swiglu_ffn": GATED, "use_mask_token": HEAD, "num_register_tokens": SHAPES}
CLIP: Keys = {**ENCODER, "projection_dim": SHAPES}
SEGMENTATION = ignored("segmentation only")
TABLES = ("use_relative_position_bias", "use_shared_relative_position_bias")
BEIT: Keys = {
    **ENCODER,
    **BACKBONES,
    **dict.fromkeys(TABLES, read("relative_bias, which is one of both", FLAG)),
    **dict.fromkeys(("use_absolute_position_embeddings", "use_mean_pooling", "use_mask_token"), SHAPES),
    "layer_scale_init_value": INITIAL,
    "vocab_size": HEAD,
    **dict.fromkeys(
        ("auxiliary_channels", "auxiliary_concat_input", "auxiliary_loss_weight", "auxiliary_num_convs"), SEGMENTATION
    ),
    **dict.fromkeys(("use_auxiliary_head", "pool_scales", "semantic_loss_ignore_index", "add_fpn"), SEGMENTATION),
}
SIGLIP: Keys = {**ENCODER, "vision_use_head": read("pool", FLAG)}
# the keys of each model type, besides those of every config
KEYS: Mapping[str, Keys] = {
    "vit": VIT,
    "deit": VIT,
    "ijepa": VIT,
    "vit_msn": PLAIN,
    "vit_mae": {**PLAIN, **dict.fromkeys((*MAE_DECODER, "mask_ratio", "norm_pix_loss"), DECODER)},
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2,
    "dinov3_vit": {
        **ENCODER,
        **BACKBONES,
        "rope_theta": only(100),
        **dict.fromkeys(("query_bias", "key_bias", "value_bias"), read("qkv_bias", FLAG)),
        "proj_bias": read("proj_bias", FLAG),
        "mlp_bias": read("mlp_bias", FLAG),
        **dict.fromkeys(("use_gated_mlp", "num_register_tokens"), SHAPES),
        **dict.fromkeys(("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"), TRAINING),
    },
    "beit": BEIT,
    "data2vec-vision": BEIT,
    "aimv2_vision_model": {
        **{name: key for name, key in ENCODER.items() if name != "layer_norm_eps"},
        "rms_norm_eps": read("norm_eps", EPS),
        **dict.fromkeys(("qkv_bias", "mlp_bias", "use_head"), SHAPES),
        "is_native": only(False),
        "projection_dim": SHAPES,
    },
    "clip_vision_model": CLIP,
    "metaclip_2_vision_model": CLIP,
    "tipsv2_vision_model": DINOV2,
    "siglip_vision_model": SIGLIP,
    "siglip2_vision_model": {**SIGLIP, "num_patches": read("image_size: it has none", whole(1, 1_000_000))},
}
# keys of a config of two towers, whose `vision_config` has the keys of the image tower
TWO_TOWERS: Keys = {
    "vision_config": read("see the image tower", optional(SECTION)),
    **dict.fromkeys(("text_config", "text_config_dict"), ignored("the text tower is not read")),
    "projection_dim": SHAPES,
    **dict.fromkeys(("logit_scale_init_value", "initializer_factor", "initializer_range"), INITIAL),
    **dict.fromkeys(("max_logit_scale", "temperature_init_value"), ignored("the comparison of images with texts only")),
}
OLDER = read("see the image tower; it is used in place of vision_config", optional(SECTION))
CLIP_TOWERS: Keys = {**TWO_TOWERS, "vision_config_dict": OLDER}
LAYER_BIASES = ("qkv_bias", "proj_bias", "mlp_bias")  # have the same names in transformers and in the spec


def facts_of_config(config: Mapping[str, Any], where: object, *, live: bool = False) -> dict[str, Any]:
    """Fields of the spec that a config states. Raises RefusedContent for a model that is not a plain ViT.

    `live`: the config is that of a live module, whose class reads no other keys than its own.
    """
    check = read_keys if live else check_keys
    kind = value_of(config, "model_type", BASE, where=where)
    if kind not in TOWERS and kind not in DEFAULTS:
        raise RefusedContent(f"model_type {shown(kind)} is not a plain ViT", where=where)
    if kind in TOWERS:
        keys = {**BASE, **(CLIP_TOWERS if kind == "clip" else TWO_TOWERS)}
        section = "vision_config_dict" if "vision_config_dict" in check(config, keys, where=where) else "vision_config"
        config, kind = value_of(config, section, CLIP_TOWERS) or {}, TOWERS[kind]
    else:
        section = ""
    stated = check(config, {**BASE, **KEYS[kind]}, where=where, section=section)
    eps, act = DEFAULTS[kind]
    facts: dict[str, Any] = {
        "heads": stated.get("num_attention_heads", HEADS.get(kind, 12)),
        "norm_eps": stated.get("rms_norm_eps", stated.get("layer_norm_eps", eps)),
        "channels": stated.get("num_channels", 3),
    }
    name = stated.get("hidden_act", act)
    if not stated.get("use_swiglu_ffn"):
        if name not in ACTS:
            raise RefusedContent(f"unsupported hidden_act {shown(name)}; expected one of {', '.join(ACTS)}", where=where)
        facts["act_of_plain_mlp" if KEYS[kind] is DINOV2 else "act"] = ACTS[name]
    facts |= {name: False for name in LAYER_BIASES if stated.get(name) is False}
    if all(stated.get(name) for name in TABLES):
        raise RefusedContent(f"{TABLES[0]} with {TABLES[1]} is not supported", where=where)
    if kind == "dinov3_vit":
        query, key, value = (stated.get(f"{name}_bias", name != "key") for name in ("query", "key", "value"))
        if query != value or (key and not query):
            cause = f"query_bias = {query} with key_bias = {key} and value_bias = {value} is not supported"
            raise RefusedContent(cause, where=where)
        facts |= {} if query else {"qkv_bias": False}
    facts |= {name: stated[name] for name in ("image_size", "patch_size") if name in stated}
    if "num_patches" in stated:
        facts.pop("image_size", None)
    if kind == "tipsv2_vision_model":
        facts["resize"] = "naflex"
    if stated.get("vision_use_head") is False:
        facts["pool"] = "none"
    return facts


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the classes, unless they are the numbered ones that transformers fills in."""
    words: dict[int, str | None] = value_of(config, "id2label", BASE) or {}
    labels = tuple(word for i in range(len(words)) if (word := words.get(i)) is not None)
    return None if not labels or len(labels) < len(words) or labels[0] == "LABEL_0" else labels


# prefixes of models with a head; models without a head have none, except towers, whose prefix both 4.x and 5.x read
PREFIXES = {
    "vit": "vit.", "deit": "deit.", "ijepa": "ijepa.", "dinov2": "dinov2.", "dinov2_with_registers": "dinov2_with_registers.",
    "clip_vision_model": "vision_model.", "siglip_vision_model": "vision_model.",
}  # fmt: skip
THEIR_ACTS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "silu": "silu"}

VIDEO = ignored("videos only")
CALL = ignored("the form of the result only")
PROCESSOR: Keys = {
    **HF_KEYS,
    "pretrained_cfg": ignored("the same for TimmWrapper, which runs timm's transforms"),
    "pad_size": ignored("do_pad only"),
    "do_convert_rgb": ignored("images are converted as the model needs them"),
    "do_reduce_labels": ignored("segmentation maps only"),
    **dict.fromkeys(("do_thumbnail", "do_align_long_axis", "do_flip_channel_order", "do_grayscale"), only(False)),
    **dict.fromkeys(("do_crop_margin", "keep_aspect_ratio", "offset", "rescale_offset"), only(False)),
    "ensure_multiple_of": only(1),
    "antialias": only(True),
    **dict.fromkeys(("do_sample_frames", "num_frames", "fps", "video_metadata", "return_metadata"), VIDEO),
    **dict.fromkeys(("data_format", "input_data_format", "return_tensors", "image_seq_length"), CALL),
    **dict.fromkeys(("device", "disable_grouping", "backend", "_valid_processor_keys"), RUNNING),
    **dict.fromkeys(("processor_class", "_processor_class", "image_processor_class", "model_input_names", "auto_map"), CARD),
}


def preprocess_of(document: Mapping[str, Any]) -> Preprocess | None:
    """Read the settings of an image processor; None for a setting that is not known, or not expressed by `Preprocess`."""
    try:
        stated = check_keys(document, PROCESSOR, where=None)
    except RefusedContent:
        return None
    edge, square = stated.get("size"), stated.get("default_to_square")
    if isinstance(edge, int) and square is not None:
        return of_hf({**document, "size": {"height": edge, "width": edge} if square else {"shortest_edge": edge}})
    return of_hf(document)


SIDECAR = SidecarFormat(
    facts_of_config,
    required_key="model_type",
    labels=labels_of,
    preprocess=preprocess_of,
    preprocess_file="preprocessor_config.json",
    preprocess_object=("processor_config.json", "image_processor"),
    write_preprocess=hf_files,
    interpolates=lambda config: value_of(config, "model_type", BASE) in ANY_SIZE,
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
    if kind == "vit_msn":
        document["qkv_bias"] = bool(spec.qkv_bias)
    if kind == "beit":
        document |= {
            "use_absolute_position_embeddings": spec.pos == "learned",
            "use_relative_position_bias": spec.relative_bias == "blocks",
            "use_shared_relative_position_bias": spec.relative_bias == "shared",
            "use_mean_pooling": spec.pool == "mean", "use_mask_token": False, "layer_scale_init_value": 0.1,
        }  # fmt: skip
    if kind == "aimv2_vision_model":
        document |= {"rms_norm_eps": document.pop("layer_norm_eps"), "use_head": False, "is_native": False}
        document |= {"qkv_bias": spec.qkv_bias, "mlp_bias": spec.mlp_bias}
    if kind == "dinov3_vit":
        document |= {
            "use_gated_mlp": spec.mlp == "swiglu", "query_bias": bool(spec.qkv_bias), "value_bias": bool(spec.qkv_bias),
            "key_bias": spec.qkv_bias is True, "num_register_tokens": spec.registers, "rope_theta": 100.0,
        }  # fmt: skip
    if kind == "clip_vision_model":
        document["projection_dim"] = spec.num_classes or 512
    elif spec.num_classes:
        document["id2label"] = {str(i): word for i, word in enumerate(words)}
        document["label2id"] = {word: i for i, word in enumerate(words)}
        document |= {} if config.problem_type is None or config.is_embedding else {"problem_type": config.problem_type}
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
