"""Tests of what configs mean: a model that a library builds and saves gives the library's output here, or is refused by name."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch
from open_clip.push_to_hf_hub import save_config_for_hf
from PIL import Image
from safetensors.torch import save_file

import vit_zoo
from support import peers, timm_names
from support.models import noise
from vit_zoo.errors import InputError, RefusedContent, VitzooError
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.weights.configs import hf
from vit_zoo.weights.configs.open_clip import MEAN, STD, preprocess_of

open_clip = peers.open_clip
CLIPVisionCfg, tower_for = open_clip.CLIPVisionCfg, open_clip.model._build_vision_tower
save_for_hf = peers.timm.models._hub.save_for_hf
CLOSE = 1e-5  # of the largest output


def off(folder, image, expected, **facts):
    """The largest difference of our output from theirs, relative to the largest output; the error where it is refused."""
    try:
        model = vit_zoo.load(folder, **facts).eval()
    except VitzooError as error:
        return error
    with torch.inference_mode():
        ours = model(image)
    assert ours.shape == expected.shape
    return float((ours - expected).abs().max() / expected.abs().max())


def verdict(result, name):
    """Whether a model is read or refused, from the result of `off`; fails if it is read and differs, or is refused for damage."""
    if isinstance(result, VitzooError):
        assert result.code == 7, name
        return "refused"
    assert result < CLOSE, name
    return "read"


def outputs(model, size, channels=3):
    image = torch.randn(2, channels, *((size, size) if isinstance(size, int) else size))
    with torch.inference_mode():
        return image, model(image)


# --- timm


def small(name, arguments):
    """A small model of one of timm's names; the number of heads divides the width."""
    patch = arguments.get("patch_size", 16)
    options = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 2 * patch, "num_classes": 7}
    options |= {"pos_embed_grid_size": (2, 2)} if "pos_embed_grid_size" in arguments else {}
    try:
        return peers.timm.create_model(name, **options)
    except AssertionError:  # a list with an entry for each block
        return None


def test_every_timm_name_is_read_or_refused(monkeypatch, tmp_path):
    done = {"read": [], "refused": []}
    for name, (_, arguments) in timm_names.settings(monkeypatch).items():
        model = small(name, arguments)
        if model is None:
            assert "_sapiens2" in name
            continue
        image, expected = outputs(noise(model), 2 * arguments.get("patch_size", 16))
        save_for_hf(model, tmp_path / name)
        result = off(tmp_path / name, image, expected, image_size=image.shape[2:])  # not the one of its preprocessing
        done[verdict(result, name)].append(name)
    assert len(done["read"]) >= 235
    assert {"vit_giant_patch14_dinov2", "test_vit3", "vit_base_patch16_radio_v3", "vit_base_patch16_lingbot"} <= {*done["read"]}
    assert {"naflexvit_base_patch16_gap", "naflexvit_base_patch16_siglip"} <= {*done["read"]}
    assert {"beit3_base_patch16_224", "eva_giant_patch14_224", "vit_pe_lang_large_patch14_448"} <= {*done["read"]}
    assert {"beit_base_patch16_224", "eva02_tiny_patch14_224", "vit_small_patch16_rope_mixed_ape_224"} <= {*done["read"]}
    assert {"naflexvit_base_patch16_parfac_gap", "vit_dwee_patch16_reg1_gap_256"} <= {*done["refused"]}


# the value of each argument of VisionTransformer that differs from its default, and whether it is read
TIMM = {**peers.TIMM, "img_size": (16, 32), "patch_size": (8, 8), "depth": 2}
WORDS = {
    "class_token": ({"class_token": False, "global_pool": "avg"}, True),
    "no_embed_class": ({"no_embed_class": True}, True),
    "reg_tokens": ({"reg_tokens": 2}, True),
    "qkv_bias": ({"qkv_bias": False}, True),
    "init_values": ({"init_values": 0.1}, True),
    "pre_norm": ({"pre_norm": True}, True),
    "final_norm": ({"final_norm": False}, True),
    "fc_norm": ({"fc_norm": True}, True),
    "pos_embed": ({"pos_embed": "none"}, True),
    "act_layer": ({"act_layer": "quick_gelu"}, True),
    "act_layer swish": ({"act_layer": "swish"}, True),
    "act_layer relu": ({"act_layer": "relu"}, False),
    "norm_layer": ({"norm_layer": "layernorm"}, True),
    "norm_layer fp32": ({"norm_layer": "LayerNormFp32"}, True),
    "norm_layer rms": ({"norm_layer": "rmsnorm"}, True),
    "norm_layer other": ({"norm_layer": "simplenorm"}, False),
    "pool_include_prefix": ({"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 1}, True),
    "pool_include_prefix map": ({"global_pool": "map", "pool_include_prefix": True}, True),
    "global_pool prr": ({"global_pool": "prr"}, False),
    "global_pool max": ({"global_pool": "max"}, False),
    "global_pool none": ({"global_pool": "", "num_classes": 0}, True),
    "scale_attn_norm": ({"scale_attn_norm": True}, True),
    "scale_mlp_norm": ({"scale_mlp_norm": True}, True),
    "attn_layer": ({"attn_layer": "diff"}, False),
    "attn_layer default": ({"attn_layer": "attn"}, True),
    "rates": (
        {"drop_rate": 0.5, "pos_drop_rate": 0.5, "patch_drop_rate": 0.5, "drop_path_rate": 0.5, "attn_drop_rate": 0.5},
        True,
    ),
    "initial": ({"weight_init": "moco", "fix_init": True}, True),
    "dynamic_img_size": ({"dynamic_img_size": True, "dynamic_img_pad": True}, True),
}


@pytest.mark.parametrize("architecture", ["vit_base_patch16_224", "vit_base_patch32_clip_quickgelu_224"])
@pytest.mark.parametrize("name", WORDS)
def test_words_of_model_args(name, architecture, tmp_path):
    """A word stands above what the architecture says, and the rest of the architecture still holds."""
    words, is_read = WORDS[name]
    model = noise(peers.timm.create_model(architecture, **{**TIMM, **words}))
    image, expected = outputs(model, (16, 32))
    save_for_hf(model, tmp_path, model_args=words)
    size = {"image_size": (16, 32)} if "dynamic_img_size" in words else {}  # otherwise that of the architecture's preprocessing
    result = off(tmp_path, image, expected, **size)
    if is_read:
        assert result < CLOSE
    else:
        assert isinstance(result, VitzooError)
        assert result.code == 7


@pytest.mark.parametrize("act", [None, "silu", "gelu"])
@pytest.mark.parametrize("architecture", ["vit_large_patch16_224", "vit_base_patch16_siglip_gap_224"])
def test_gated_weights_of_a_name_with_a_plain_mlp(act, architecture, tmp_path):
    """Cards of such models pass the class of the MLP in Python: config.json alone has another MLP than the weights."""
    words = {} if act is None else {"act_layer": act}
    code = {"mlp_layer": peers.SwiGLUPacked, "act_layer": act or "silu"}
    model = noise(peers.timm.create_model(architecture, **TIMM, **code))
    image, expected = outputs(model, (16, 32))
    save_for_hf(model, tmp_path, model_args={"mlp_layer": None, "act_layer": None, **words})
    assert off(tmp_path, image, expected) < CLOSE


def test_plain_weights_of_a_name_with_a_gated_mlp_are_refused(tmp_path):
    model = noise(peers.timm.create_model("vit_base_patch14_dinov2", **TIMM))
    save_for_hf(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "vit_giant_patch14_dinov2"}))
    with pytest.raises(RefusedContent, match="its config has mlp = swiglu, its tensors have plain"):
        vit_zoo.load(tmp_path)


def test_tensors_of_another_class_than_the_architecture(tmp_path):
    model = noise(peers.timm.create_model("vit_small_patch16_dinov3", **{**peers.TIMM, "img_size": 32, "patch_size": 8}))
    save_for_hf(model, tmp_path)
    vit_zoo.load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "vit_small_patch16_224"}))
    with pytest.raises(RefusedContent, match="architecture 'vit_small_patch16_224' has other tensors"):
        vit_zoo.load(tmp_path)
    for name in ("my_vit", "resnet50", "vit_dwee_patch16_reg1_gap_256"):
        (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": name}))
        with pytest.raises(RefusedContent, match=f"architecture '{name}' is not a plain ViT"):
            vit_zoo.load(tmp_path)


@pytest.mark.parametrize("prefix", ["", "visual.trunk."])
@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_bare_files_of_timms_clip_towers(prefix, act, folder):
    """All have eps 1e-5; the activation must be stated."""
    model = noise(peers.timm_vit(pre_norm=True, norm_eps=1e-5, act_layer=act))
    image, expected = outputs(model, (32, 48))
    save_file({prefix + name: tensor for name, tensor in model.state_dict().items()}, "clip.safetensors")
    facts = {"heads": 3, "image_size": (32, 48)}
    with pytest.raises(InputError, match="cannot infer act"):
        vit_zoo.load("clip.safetensors", **facts)
    assert off("clip.safetensors", image, expected, **facts, act=act) < CLOSE


def test_a_clip_tower_is_written_for_timm_without_a_config(folder):
    model = noise(peers.timm_vit(pre_norm=True, norm_eps=1e-5))
    image, expected = outputs(model, (32, 48))
    vit_zoo.convert(model, "clip.safetensors", "timm")
    assert off("clip.safetensors", image, expected, heads=3, image_size=(32, 48), act="gelu") < CLOSE


# --- transformers

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
PLAIN = {**SIZES, "intermediate_size": 72}


def first(out):
    return out.last_hidden_state[:, 0]


def pooled(out):
    return out.pooler_output


MODELS = {
    "vit": ("ViTModel", PLAIN, pooled),
    "deit": ("DeiTModel", PLAIN, pooled),
    "vit_mae": ("ViTMAEModel", {**PLAIN, "mask_ratio": 0.0}, first),
    "vit_msn": ("ViTMSNModel", PLAIN, first),
    "ijepa": ("IJepaModel", PLAIN, lambda out: out.last_hidden_state.mean(1)),
    "dinov2": ("Dinov2Model", {**SIZES, "mlp_ratio": 2}, pooled),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {**SIZES, "mlp_ratio": 2}, pooled),
    "dinov3_vit": ("DINOv3ViTModel", {**PLAIN, "num_register_tokens": 2}, pooled),
    "clip_vision_model": ("CLIPVisionModel", PLAIN, pooled),
    "siglip_vision_model": ("SiglipVisionModel", PLAIN, pooled),
    "metaclip_2_vision_model": ("MetaClip2VisionModel", PLAIN, pooled),
    "beit": ("BeitModel", {**PLAIN, "use_relative_position_bias": True}, pooled),
    "data2vec-vision": (
        "Data2VecVisionForImageClassification",
        {**PLAIN, "use_relative_position_bias": True},
        lambda out: out.logits,
    ),
    "aimv2_vision_model": ("Aimv2VisionModel", {**PLAIN, "use_head": False}, lambda out: out.last_hidden_state),
}
# another value of a key where it is not the negation or a multiple
OTHER = {
    "hidden_act": "relu", "patch_size": 16, "image_size": 64, "layer_norm_eps": 1e-2, "pooler_act": "relu", "num_channels": 1,
    "num_attention_heads": 6, "projection_dim": 24, "out_features": ["stage1"], "out_indices": [1], "pos_embed_shift": 0.5,
    "pos_embed_jitter": 1.5, "problem_type": "regression", "dtype": "float32",
}  # fmt: skip
# keys that do not make another model: which model it is, names, what else forward returns, and random masking
APART = {
    "model_type", "architectures", "transformers_version", "_name_or_path", "id2label", "label2id", "return_dict", "stage_names",
    "output_attentions", "output_hidden_states", "is_encoder_decoder", "mask_ratio", "add_fpn", "use_head",
}  # fmt: skip
REFUSED = {"hidden_act", "pooler_act", "rope_theta", "query_bias", "value_bias", "is_native", "use_shared_relative_position_bias"}


def another(key, value):
    if key in OTHER:
        return OTHER[key]
    return not value if isinstance(value, bool) else 2 * value or (0.25 if isinstance(value, float) else 2)


@pytest.mark.parametrize("kind", MODELS)
def test_each_key_of_transformers_in_turn(kind, tmp_path):
    name, sizes, output = MODELS[kind]
    model_class = getattr(peers.transformers, name)
    defaults = model_class.config_class().to_dict()
    for key in sorted(set(defaults) - APART):
        settings = {**sizes, key: another(key, sizes.get(key, defaults[key]))}
        model = noise(model_class(model_class.config_class(**settings)))
        model.save_pretrained(tmp_path / key)
        take = output if key != "vision_use_head" else (lambda out: out.last_hidden_state)
        image, result = outputs(model, settings["image_size"], settings.get("num_channels", 3))
        difference = off(tmp_path / key, image, take(result))
        if isinstance(difference, VitzooError):
            assert key in REFUSED, key
            assert difference.code == 7, key
            assert key in difference.message, key
        else:
            assert difference < CLOSE, key


def test_the_table_of_models_is_complete():
    assert {*MODELS, "siglip2_vision_model", "tipsv2_vision_model"} == set(hf.DEFAULTS)  # the former takes patches, not images


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov3_vit", "clip_vision_model"])
@pytest.mark.parametrize("act", sorted(hf.ACTS))
def test_each_activation_of_transformers(kind, act, tmp_path):
    name, sizes, output = MODELS[kind]
    model_class = getattr(peers.transformers, name)
    model = noise(model_class(model_class.config_class(**sizes, hidden_act=act)), scale=0.15)
    model.save_pretrained(tmp_path)
    image, result = outputs(model, 32)
    assert off(tmp_path, image, output(result)) < CLOSE


@pytest.mark.parametrize(("query", "key"), [(True, True), (False, False), (False, True)])
def test_biases_of_dinov3(query, key, tmp_path):
    name, sizes, output = MODELS["dinov3_vit"]
    model_class = getattr(peers.transformers, name)
    model = noise(model_class(model_class.config_class(**sizes, query_bias=query, value_bias=query, key_bias=key)))
    model.save_pretrained(tmp_path)
    image, result = outputs(model, 32)
    difference = off(tmp_path, image, output(result))
    assert difference < CLOSE if query or not key else "key_bias" in difference.message


def test_a_live_module_with_another_pooler():
    t = peers.transformers
    with pytest.raises(RefusedContent, match="pooler_act = 'relu' is not supported, only 'tanh'"):
        vit_zoo.load(noise(t.ViTModel(t.ViTConfig(**PLAIN, pooler_act="relu"))))
    config = t.ViTConfig(**PLAIN)
    config.note = "a key of the user, which the class does not read"
    vit_zoo.load(noise(t.ViTModel(config)))


def test_the_older_object_of_clips_image_tower(tmp_path):
    """Configs of 2022 have the tower twice; transformers takes `vision_config_dict`, and defaults for what it leaves out."""
    t = peers.transformers
    sizes = {**PLAIN, "hidden_act": "gelu", "layer_norm_eps": 1e-3}
    model = noise(t.CLIPForImageClassification(t.CLIPConfig(vision_config=sizes, num_labels=5)))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    older = {name: value for name, value in sizes.items() if name != "hidden_act"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "vision_config_dict": older}))
    theirs = t.CLIPForImageClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.vision_config.hidden_act == "quick_gelu"
    image, result = outputs(theirs, 32)
    assert off(tmp_path, image, result.logits) < CLOSE


def test_the_processor_of_transformers_5(tmp_path):
    """`processor_config.json` holds the image processor; an older file beside it is not read, as in transformers."""
    t = peers.transformers
    noise(t.CLIPVisionModel(t.CLIPVisionConfig(**PLAIN))).save_pretrained(tmp_path)
    processor = t.CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, image_mean=[0.5] * 3)
    inner = json.loads(processor.to_json_string())
    video = {"do_resize": True, "size": {"height": 99, "width": 99}, "fps": 2}
    outer = {"image_processor": inner, "video_processor": video, "processor_class": "CLIPProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(outer))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**inner, "image_mean": [0.1] * 3}))
    assert t.AutoImageProcessor.from_pretrained(tmp_path).image_mean == (0.5, 0.5, 0.5)
    preprocess = vit_zoo.load(tmp_path).config.preprocess
    assert (preprocess.resize_to, preprocess.size, preprocess.mean) == (36, (32, 32), (0.5, 0.5, 0.5))
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert vit_zoo.load(tmp_path).config.preprocess.mean == (0.1, 0.1, 0.1)
    (tmp_path / "preprocessor_config.json").unlink()
    assert vit_zoo.load(tmp_path).config.preprocess is None


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"fps": 2, "do_sample_frames": True, "data_format": "channels_first", "do_thumbnail": False}, True),
        ({"size": 32, "default_to_square": True}, True),
        ({"do_thumbnail": True}, False),
        ({"do_flip_channel_order": True}, False),
        ({"gamma": 2.2}, False),
    ],
)
def test_words_of_image_processors(change, known):
    document = {"image_processor_type": "CLIPImageProcessor", "size": {"height": 32, "width": 32}, "do_center_crop": False}
    document |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    preprocess = hf.preprocess_of({**document, **change})
    assert preprocess == (hf.of_hf(document) if known else None)
    assert hf.of_hf(document) is not None


# --- open_clip


def tower_of(config):
    """The image tower of one of open_clip's configs, made small; None for a tower that cannot be."""
    tower = dict(config["vision_cfg"])
    if "timm_model_name" not in tower:
        if isinstance(tower["layers"], list):  # a ResNet
            return None
        tower |= {"layers": 2, "width": 2 * tower.get("head_width", 64), "image_size": 32, "patch_size": 8}
    return tower, tower_for(24, CLIPVisionCfg(**tower), config.get("quick_gelu", False))


def save_for_open_clip(folder, tower, config):
    folder.mkdir()
    state = {f"visual.{name}": tensor for name, tensor in tower.state_dict().items()}
    torch.save({**state, "logit_scale": torch.ones(())}, folder / "open_clip_pytorch_model.bin")
    tower.image_mean, tower.image_std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    tower.preprocess_cfg = {"interpolation": "bilinear", "resize_mode": "squash"}
    save_config_for_hf(type("Model", (), {"visual": tower}), folder / "open_clip_config.json", config)


def test_every_kind_of_open_clips_configs_is_read_or_refused(monkeypatch, tmp_path):
    create = peers.timm.create_model

    def small_model(name, **options):
        patch = int(re.search(r"patch(\d+)", name)[1])
        return create(name, **{"embed_dim": 24 * 2, "depth": 2, "num_heads": 3, "img_size": 2 * patch, **options})

    monkeypatch.setattr(open_clip.timm_model.timm, "create_model", small_model)
    kinds = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if re.match(r"(?!vitamin|.*relpos|.*mci)(vit|eva)", config["vision_cfg"].get("timm_model_name", "vit")):
            words = {
                key: word
                for key, word in config["vision_cfg"].items()
                if key not in ("image_size", "width", "layers", "patch_size")
            }
            words["timm_model_name"] = re.sub(r"_\d+$", "", words.get("timm_model_name", "own"))  # the size does not matter
            kinds.setdefault(json.dumps([words, config.get("quick_gelu")]), (name, config))
    done = {"read": [], "refused": []}
    for name, config in kinds.values():
        built = tower_of(config)
        if built is None:
            continue
        words, tower = built
        size = tower.trunk.patch_embed.img_size if "timm_model_name" in words else 32
        image, expected = outputs(noise(tower), size)
        expected = expected[0] if isinstance(expected, tuple) else expected
        save_for_open_clip(tmp_path / name, tower, {**config, "embed_dim": 24, "vision_cfg": {**words, "image_size": size}})
        result = off(tmp_path / name, image, expected, **({"heads": 3} if "timm_model_name" in words else {}))
        done[verdict(result, name)].append(name)
    assert {"ViT-bigG-14-CLIPA", "ViT-M-16-alt", "coca_base", "vit_medium_patch16_gap_256"} <= {*done["read"]}
    assert {"PE-Core-B-16", "PE-Core-bigG-14-448", "EVA01-g-14", "EVA02-B-16", "EVA02-E-14"} <= {*done["read"]}
    assert "coca_ViT-B-32" in done["refused"]
    assert len(done["read"]) >= 25


OWN = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 48, "head_width": 16, "mlp_ratio": 2.0}
TOWERS = {
    "average, norm after": ({"pool_type": "avg", "final_ln_after_pool": True}, True),
    "average, norm before": ({"pool_type": "avg"}, True),
    "class token, norm after": ({"final_ln_after_pool": True}, True),
    "no pooling": ({"pool_type": "none"}, False),
    "no first norm": ({"no_ln_pre": True}, True),
    "computed positions": ({"pos_embed_type": "sin_cos_2d"}, True),
    "eps": ({"norm_kwargs": {"eps": 1e-2}}, True),
    "tanh": ({"act_kwargs": {"approximate": "tanh"}}, True),
    "layer scale": ({"ls_init_value": 0.1}, True),
    "patch dropout": ({"patch_dropout": 0.5}, True),
    "attentional pool": ({"attentional_pool": True, "attn_pooler_heads": 3}, False),
    "scaled attention": ({"scale_attn": True}, False),
    "custom block": ({"block_type": "custom"}, False),
    "norm in attention": ({"scale_attn_inner": True}, False),
}


@pytest.mark.parametrize("name", TOWERS)
def test_words_of_open_clips_own_tower(name, tmp_path):
    words, is_read = TOWERS[name]
    tower = noise(tower_for(24, CLIPVisionCfg(**OWN, **words)), scale=0.15)
    image, expected = outputs(tower, 32)
    save_for_open_clip(tmp_path / "saved", tower, {"embed_dim": 24, "vision_cfg": {**OWN, **words}, "text_cfg": {}})
    result = off(tmp_path / "saved", image, expected)
    if is_read:
        assert result < CLOSE
        # the same words where all are written out
        config = json.loads((tmp_path / "saved" / "open_clip_config.json").read_text())
        config["model_cfg"]["vision_cfg"] = dataclasses.asdict(CLIPVisionCfg(**OWN, **words))
        (tmp_path / "saved" / "open_clip_config.json").write_text(json.dumps(config))
        assert off(tmp_path / "saved", image, expected) < CLOSE
    else:
        assert isinstance(result, RefusedContent)


def test_a_missing_first_norm_is_damage_unless_the_config_says_so(tmp_path):
    tower = noise(tower_for(24, CLIPVisionCfg(**OWN, no_ln_pre=True)))
    save_for_open_clip(tmp_path / "saved", tower, {"embed_dim": 24, "vision_cfg": OWN, "text_cfg": {}})
    with pytest.raises(RefusedContent, match="its config has pre_norm = True, its tensors have False"):
        vit_zoo.load(tmp_path / "saved")
    (tmp_path / "saved" / "open_clip_config.json").unlink()
    with pytest.raises(RefusedContent, match=r"no tensor 'visual.ln_pre.weight'"):
        vit_zoo.load(tmp_path / "saved", heads=3, act="gelu")
    assert not vit_zoo.load(tmp_path / "saved", heads=3, act="gelu", pre_norm=False, pool="cls").spec.pre_norm


@pytest.mark.parametrize("projection", ["linear", "none", None, "mlp"])
@pytest.mark.parametrize("bias", [False, True])
def test_projections_of_timms_towers(projection, bias, monkeypatch, tmp_path):
    create = peers.timm.create_model
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32}
    monkeypatch.setattr(open_clip.timm_model.timm, "create_model", lambda name, **options: create(name, **{**sizes, **options}))
    words = {
        "timm_model_name": "vit_base_patch16_reg4_gap_256",
        "timm_pool": "avg",
        "timm_proj": projection,
        "timm_proj_bias": bias,
    }
    tower = noise(tower_for(48, CLIPVisionCfg(**words)))
    image, expected = outputs(tower, 32)
    save_for_open_clip(tmp_path / "saved", tower, {"embed_dim": 48, "vision_cfg": {**words, "image_size": 32}, "text_cfg": {}})
    result = off(tmp_path / "saved", image, expected, heads=3)
    if projection == "mlp":
        assert "timm_proj = 'mlp' of vision_cfg is not supported" in result.message
    else:
        assert result < CLOSE
    if projection != "mlp":
        live = vit_zoo.load(tower).eval()
        with torch.inference_mode():
            torch.testing.assert_close(live(image), expected, rtol=0, atol=1e-5)


def test_a_config_of_the_other_kind_of_tower(tmp_path):
    tower = noise(tower_for(24, CLIPVisionCfg(**OWN)))
    words = {"timm_model_name": "vit_base_patch16_clip_224", "timm_pool": "token", "timm_proj": None}
    save_for_open_clip(tmp_path / "saved", tower, {"embed_dim": 24, "vision_cfg": words, "text_cfg": {}})
    with pytest.raises(RefusedContent, match="its config has the tower 'vit_base_patch16_clip_224' of timm"):
        vit_zoo.load(tmp_path / "saved")


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing_of_open_clip(mode, interpolation):
    stated = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": interpolation, "resize_mode": mode, "size": 999}
    config = {"model_cfg": {"vision_cfg": {"image_size": 32}}, "preprocess_cfg": stated}
    ours = preprocess_of(config)
    if mode == "longest":
        assert ours is None
        return
    theirs = open_clip.transform.image_transform(
        32, is_train=False, mean=stated["mean"], std=stated["std"], resize_mode=mode, interpolation=interpolation
    )
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (61, 90, 3), generator=generator, dtype=torch.uint8)
    image = Image.fromarray(pixels.numpy())
    torch.testing.assert_close(torch.from_numpy(ours(image)), theirs(image), rtol=0, atol=1e-5)


def test_preprocessing_that_open_clip_leaves_to_its_defaults():
    config = {"model_cfg": {"vision_cfg": {"image_size": 64}}, "preprocess_cfg": {}}
    assert preprocess_of(config) == Preprocess(size=(64, 64), resize_to=64, interpolation="bicubic", mean=MEAN, std=STD)
    assert preprocess_of({"model_cfg": {"vision_cfg": {"image_size": 64}}}) is None
    assert preprocess_of({"model_cfg": {"vision_cfg": {}}, "preprocess_cfg": {"mean": ["x"]}}) is None
