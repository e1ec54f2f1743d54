"""Tests of the zoo's data: sizes and costs, names in other libraries and their differences, published weights, labels.

Independent sources: figures measured on the peers, the arguments that timm gives its own models, the configurations of
transformers, the weights' metadata of torchvision, and vit-pytorch's modules.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import timm.models.beit
import timm.models.deit
import timm.models.eva
import timm.models.vision_transformer
import torch
import torchvision.models
import transformers
import vit_pytorch
from timm.models import get_pretrained_cfg, model_entrypoint
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from vit_pytorch.simple_vit import SimpleViT

import vit_zoo
from support import peers
from support.paths import ROOT
from vit_zoo.files import Stored
from vit_zoo.model.vit import ViT
from vit_zoo.registry import catalog, configs, labels, lookup, models
from vit_zoo.registry.aliases import read_aliases
from vit_zoo.registry.catalog import zoo_folder
from vit_zoo.registry.family_file import read_toml
from vit_zoo.registry.pretrained_tags import read_tags
from vit_zoo.weights.read import read

# parameters and billions of multiply-adds, counted on the peers' modules on the meta device
MEASURED = {
    "vit_ti16": (5_717_416, 1.254), "vit_ti16_384": (5_790_376, 4.682), "vit_s32": (22_878_952, 1.143),
    "vit_s32_384": (22_915_432, 3.443), "vit_s16": (22_050_664, 4.599), "vit_s16_384": (22_196_584, 15.490),
    "vit_s8": (22_055_272, 22.406), "vit_b32": (88_224_232, 4.409), "vit_b32_384": (88_297_192, 13.044),
    "vit_b16": (86_567_656, 17.564), "vit_b16_384": (86_859_496, 55.484), "vit_b8": (86_576_872, 78.148),
    "vit_l32": (306_535_400, 15.378), "vit_l32_384": (306_632_680, 45.276), "vit_l16": (304_326_632, 61.555),
    "vit_l16_384": (304_715_752, 191.066), "vit_l14": (304_203_752, 81.013), "vit_h14": (632_045_800, 167.295),
    "vit_g14": (1_012_611_432, 267.031), "vit_bigg14": (1_844_440_680, 483.748),
    "deit_distilled_ti16": (5_910_800, 1.261), "deit_distilled_s16": (22_436_432, 4.624),
    "deit_distilled_b16": (87_338_192, 17.657), "deit_distilled_b16_384": (87_630_032, 55.591),
    "deit3_s16": (22_059_496, 4.599), "deit3_m16": (38_849_512, 7.991), "deit3_b16": (86_585_320, 17.564),
    "deit3_b16_384": (86_877_160, 55.484), "deit3_l16": (304_374_760, 61.555), "deit3_l16_384": (304_763_880, 191.066),
    "deit3_h14": (632_126_440, 167.295), "flexivit_s16": (22_061_416, 5.336), "flexivit_b16": (86_589_160, 20.270),
    "flexivit_l16": (304_355_304, 70.938), "dinov2_s14": (22_056_192, 46.697), "dinov2_b14": (86_579_712, 151.574),
    "dinov2_l14": (304_367_616, 506.804), "dinov2_giant14": (1_136_479_232, 1783.343),
    "openclip_b32": (87_849_216, 4.409), "openclip_b16": (86_192_640, 17.563), "openclip_l14": (303_966_208, 81.013),
    "openclip_l14_336": (304_293_888, 190.960), "openclip_h14": (632_076_800, 167.295),
    "openclip_g14": (1_012_645_632, 267.032), "openclip_bigg14": (1_844_907_264, 483.748),
    "siglip_b16": (92_884_224, 17.708), "siglip_b16_256": (92_930_304, 23.411), "siglip_b16_384": (93_176_064, 56.064),
    "siglip_b16_512": (93_520_128, 108.120), "siglip_b32_256": (94_552_320, 5.744), "siglip_l16_256": (315_956_224, 81.280),
    "siglip_l16_384": (316_283_904, 191.926), "siglip_l16_512": (316_742_656, 363.743),
    "siglip_so400m14": (427_680_704, 110.177), "siglip_so400m14_378": (428_225_600, 335.173),
    "siglip_so400m16_256": (427_888_064, 110.230), "siglip_so400m16_384": (428_256_704, 259.468),
    "siglip_so400m16_512": (428_772_800, 489.805), "siglip_gopt16_256": (1_163_168_256, 299.498),
    "siglip_gopt16_384": (1_163_659_776, 696.490),
    # DINOv3's modules have a key bias, masked to zero, which the names here have not
    "dinov3_s16": (21_600_768 - 12 * 384, 4.698), "dinov3_splus16": (28_697_088 - 12 * 384, 6.121),
    "dinov3_b16": (85_668_864 - 12 * 768, 17.932), "dinov3_l16": (303_153_152 - 24 * 1024, 62.840),
    "dinov3_hplus16": (840_632_320 - 32 * 1280, 172.113),
    "dinov3_7b16": (6_716_043_264 - 3 * 4096, None),  # nor its mask token and the norm of local crops, which only train
}  # fmt: skip


@pytest.mark.parametrize("name", MEASURED)
def test_sizes_and_costs_match_the_peers(name):
    params, gmacs = MEASURED[name]
    row = lookup.get_variant(name).row
    assert row["params"] == params
    assert gmacs is None or row["gmacs"] == gmacs


def test_the_figures_of_every_row_match_its_spec():
    for name, variant in catalog.variants().items():
        spec = vit_zoo.get_spec(name)
        assert variant.row["params"] == spec.params, name
        assert variant.row["gmacs"] == round(spec.macs / 1e9, 3), name
        assert not set(variant.row) - {"size", "form", "params", "gmacs", "weights"}


class Asked(Exception):
    """The arguments that timm passed to its builder."""


@pytest.fixture
def timm_arguments(monkeypatch):
    """The arguments of a timm name, without building the model."""

    def ask(variant, pretrained=False, distilled=False, **arguments):
        raise Asked({**arguments, "distilled": distilled})

    monkeypatch.setattr(timm.models.vision_transformer, "_create_vision_transformer", ask)
    monkeypatch.setattr(timm.models.eva, "_create_eva", lambda *args, **given: ask(*args, **given, class_="Eva"))
    monkeypatch.setattr(timm.models.beit, "_create_beit", lambda *args, **given: ask(*args, **given, class_="Beit"))
    monkeypatch.setattr(timm.models.deit, "_create_deit", ask)

    def arguments_of(name):
        with pytest.raises(Asked) as found:
            model_entrypoint(name)()
        return found.value.args[0]

    return arguments_of


def rotation_of_timm(given):
    """Fields of the spec that the arguments of timm's Eva state about positions."""
    learned, rotates = given.get("use_abs_pos_emb", True), given.get("use_rot_pos_emb", False)
    found = {"pos": {(True, True): "learned+rope", (True, False): "learned", (False, True): "rope"}[learned, rotates]}
    if not rotates:
        return found
    kind, columns_first = given.get("rope_type", "cat"), given.get("rope_grid_indexing", "ij") == "xy"
    if kind == "cat":
        counted_from_one = given.get("rope_grid_offset", 0) == int(given.get("class_token", True))
        base = given.get("rope_temperature", 10_000)
        kind = {(10_000, False): "eva02", (10_000, True): "pe", (100, True): "axial"}[base, columns_first]
        assert kind != "pe" or counted_from_one
        found["rope_grid"] = given.get("ref_feat_shape")
    return {**found, "rope": kind}


def spec_of_timm(given, config):
    """Fields of the spec that timm's arguments and default configuration state."""
    class_ = given.get("class_", "VisionTransformer")
    eva, beit = class_ == "Eva", class_ == "Beit"
    pool = {"token": "cls", "avg": "mean", "map": "map"}[given.get("global_pool", "avg" if eva or beit else "token")]
    gated = "mlp_layer" in given or given.get("swiglu_mlp", False)
    packed = gated and given.get("mlp_layer") is timm.layers.SwiGLUPacked  # whose width is that of gates and values
    act = given.get("act_layer", "gelu")
    stated = given.get("use_fc_norm" if eva else "fc_norm")
    norm_after = stated if stated is not None else pool == "mean"
    norm_before = given.get("use_post_transformer_norm" if eva else "final_norm")
    norm_before = not norm_after if norm_before is None else norm_before
    prefix = given.get("class_token", True) or given.get("reg_tokens", 0)
    norm_layer = given.get("norm_layer")
    pre_norm = given.get("use_pre_transformer_norm" if eva else "pre_norm", False)
    q_and_v = beit or (eva and given.get("attn_type", "eva") == "eva" and given.get("qkv_bias", True))
    found = {
        "image_size": config.input_size[1:], "patch_size": (given.get("patch_size", 16),) * 2, "dim": given["embed_dim"],
        "depth": given["depth"], "heads": given["num_heads"], "num_classes": config.num_classes,
        "dim_head": given["embed_dim"] // given["num_heads"],
        "class_token": given.get("class_token", True), "dist_token": given.get("distilled", False),
        "registers": given.get("num_reg_tokens" if eva else "reg_tokens", 0),
        **(rotation_of_timm(given) if eva else {"pos": "none" if beit else "learned"}),
        "relative_bias": "blocks" if given.get("use_rel_pos_bias") else "none",
        "patch_bias": not pre_norm, "pre_norm": pre_norm, "patch_norms": "after" if "embed_norm_layer" in given else False,
        "norm": "rms" if norm_layer is not None and norm_layer.func is timm.layers.RmsNorm else "layer",
        "norm_eps": norm_layer.keywords["eps"] if norm_layer is not None else 1e-6,
        "block_norm": "post" if given.get("use_post_norm") else "pre",
        "act": "silu" if gated else act, "mlp": "swiglu" if gated else "plain",
        "qkv_bias": "qv" if q_and_v else given.get("qkv_bias", True), "proj_bias": given.get("proj_bias", True),
        "attn_norm": given.get("scale_attn_inner", given.get("scale_attn_norm", False)),
        "mlp_norm": given.get("scale_mlp", given.get("scale_mlp_norm", False)),
        "mlp_dim": int(given["embed_dim"] * given.get("mlp_ratio", 4)) // (2 if packed else 1),
        "layer_scale": bool(given.get("init_values")), "pool": pool,
        "pool_tokens": "all" if pool == "cls" or (eva and pool == "map") else "patches",
        "pool_heads": given.get("attn_pool_num_heads", 0),
        "final_norm": "after_pool" if norm_after else "before_pool" if norm_before else "none",
        "head_bias": True if config.num_classes else None,  # without a head it says nothing
    }  # fmt: skip
    learned = found["pos"].startswith("learned")
    found["pos_covers"] = "all" if learned and prefix and not given.get("no_embed_class") else "patches"
    if pool == "map" and "attn_pool_mlp_ratio" in given:
        width = int(given["embed_dim"] * given["attn_pool_mlp_ratio"])
        found["pool_mlp_dim"] = 0 if width == found["mlp_dim"] else width
    if given.get("swiglu_align_to"):
        del found["mlp_dim"]
    return {field: value for field, value in found.items() if value is not None}


def resize_of_timm(config):
    edge = math.floor(config.input_size[1] / config.crop_pct)
    return edge if config.crop_mode == "center" else None if edge == config.input_size[1] else (edge, edge)


ALIASES = read_aliases(catalog.zoo().folders)[0]
TIMM = [alias for alias in ALIASES.values() if alias.library == "timm" and "." not in alias.alias]


@pytest.mark.parametrize("alias", TIMM, ids=lambda alias: alias.alias)
def test_names_of_timm_differ_only_as_stated(alias, timm_arguments):
    ours, config = models.get_config(alias.name), get_pretrained_cfg(alias.alias)
    theirs = spec_of_timm(timm_arguments(alias.alias), config)
    differs = {field: value for field, value in theirs.items() if value != getattr(ours.spec, field)}
    stated = {field: value for field, value in alias.differs.items() if field != "preprocess"}
    square = {field: value[0] if field == "image_size" else value for field, value in differs.items()}
    assert square == stated
    same = (
        resize_of_timm(config) == ours.preprocess.resize_to
        and config.interpolation == ours.preprocess.interpolation
        and tuple(config.mean) == ours.preprocess.mean
    )
    assert same == ("preprocess" not in alias.differs)
    if not same:
        words = alias.differs["preprocess"]
        assert config.interpolation in words
        assert ("squashed" in words) == (config.crop_mode == "squash")
        assert f"crop {config.crop_pct:g}" in words or (config.crop_mode == "squash" and config.crop_pct == 1)
        assert ("mean and std" in words) == (tuple(config.mean) != ours.preprocess.mean)


def tensors_of_timm(model):
    """Names and shapes of a timm model's state dict; those of Eva and Beit under the names of all others, parts stacked."""
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    renamed = {re.sub(r"gamma_([12])$", r"ls\1.gamma", name): shape for name, shape in found.items()}
    for parts, whole in ((("mlp.fc1_g", "mlp.fc1_x"), "mlp.fc1"), (("attn.q_proj", "attn.k_proj", "attn.v_proj"), "attn.qkv")):
        for name in [name for name in renamed if f"{parts[0]}." in name]:
            shapes = [renamed.pop(name.replace(parts[0], part), None) for part in parts]
            if None in shapes:  # queries and values alone have a bias
                bias = name.replace("q_proj.bias", "{}_bias")
                renamed |= {bias.format("q"): shapes[0], bias.format("v"): shapes[2]}
            else:
                renamed[name.replace(parts[0], whole)] = (len(parts) * shapes[0][0], *shapes[0][1:])
    return renamed


@pytest.mark.parametrize("alias", {alias.name: alias for alias in reversed(TIMM)}.values(), ids=lambda alias: alias.name)
def test_full_size_state_dicts_match_timm(alias):
    spec = vit_zoo.get_spec(alias.name)
    with torch.device("meta"):
        theirs = timm.create_model(alias.alias, num_classes=spec.num_classes)
    stated = {field: value for field, value in alias.differs.items() if field in ("qkv_bias", "head_bias") and spec.num_classes}
    stated |= {field: value for field, value in alias.differs.items() if field == "qkv_bias"}
    assert tensors_of_timm(theirs) == spec.replace(**stated).shapes()
    assert read_as_a_file(theirs, spec.replace(**stated)) == spec.replace(**stated)


UNTOLD = (
    "heads",
    "image_size",
    "norm_eps",
    "act",
    "pool",
    "pool_tokens",
    "pos",
    "rope",
    "rope_grid",
    "block_norm",
    "pool_heads",
)  # all that files of names and shapes may leave unsaid
TRAINING = {"dropout": 0.0, "emb_dropout": 0.0, "drop_path": 0.0}


def read_as_a_file(theirs, spec):
    """The spec that the names and shapes of a module's state dict make, no key left over; what no file tells is stated."""
    tensors = {key: Stored("F32", tuple(value.shape), lambda: None) for key, value in theirs.state_dict().items()}
    reading = read(tensors, {field: getattr(spec, field) for field in UNTOLD}, where=type(theirs).__name__)
    assert reading.unwanted == ()
    assert {key: tensor.shape for key, tensor in reading.tensors.items()} == spec.shapes()
    return reading.spec


@pytest.mark.parametrize("name", catalog.variants())
def test_costs_match_torchs_count(name):
    """At full size but two blocks deep; torch counts two operations for a multiply-add."""
    config = models.get_config(name, depth=2)
    model = ViT.empty(config).train()  # in training nothing is pruned
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it does not know the fused one
        model(torch.empty(1, config.spec.channels, *config.spec.image_size, device="meta"))
    assert counter.get_total_flops() == 2 * config.spec.macs


SIZE = {
    "s": {"dim": 384, "depth": 12, "heads": 6, "mlp_dim": 1536},
    "b": {"dim": 768, "depth": 12, "heads": 12, "mlp_dim": 3072},
    "l": {"dim": 1024, "depth": 24, "heads": 16, "mlp_dim": 4096},
    "example": {"dim": 1024, "depth": 6, "heads": 16, "mlp_dim": 2048},
}


def plain(dim, depth, heads, mlp, **more):
    sizes = {"img_size": 224, "embed_dim": dim, "depth": depth, "num_heads": heads, "mlp_ratio": mlp / dim}
    return lambda: peers.VisionTransformer(**{**sizes, **more})


def article(size, patch, **more):
    sizes = {"image_size": 256, "patch_size": patch, "num_classes": 1000, **SIZE[size]}
    return lambda: vit_pytorch.ViT(**sizes, **more)


def simple(size, patch):
    return lambda: SimpleViT(image_size=256, patch_size=patch, num_classes=1000, **SIZE[size])


# names that no name of timm is for, and the module that defines each
OTHERS = {
    "dino_s16": plain(384, 12, 6, 1536, num_classes=0),
    "dino_s8": plain(384, 12, 6, 1536, patch_size=8, num_classes=0),
    "dino_b16": plain(768, 12, 12, 3072, num_classes=0),
    "dino_b8": plain(768, 12, 12, 3072, patch_size=8, num_classes=0),
    "mae_b16": plain(768, 12, 12, 3072, num_classes=0),
    "mae_b16_gap": plain(768, 12, 12, 3072, global_pool="avg"),
    "mae_l16": plain(1024, 24, 16, 4096, num_classes=0),
    "mae_l16_gap": plain(1024, 24, 16, 4096, global_pool="avg"),
    "mae_h14": plain(1280, 32, 16, 5120, patch_size=14, num_classes=0),
    "mae_h14_gap": plain(1280, 32, 16, 5120, patch_size=14, global_pool="avg"),
    "vit_m16": plain(512, 12, 8, 2048),
    "vit_so400m14": plain(1152, 27, 16, 4304, patch_size=14),
    "vit_e14": plain(1792, 56, 16, 15360, patch_size=14),
    "simplevit_s16": simple("s", 16),
    "simplevit_b16": simple("b", 16),
    "simplevit_example32": simple("example", 32),
    "vitpytorch_s16": article("s", 16),
    "vitpytorch_b16": article("b", 16),
    "vitpytorch_b16_gap": article("b", 16, pool="mean"),
    "vitpytorch_l16": article("l", 16),
    "vitpytorch_example32": article("example", 32, dropout=0.1, emb_dropout=0.1),
    "vit_digits": plain(64, 6, 4, 128, num_classes=10, img_size=8, patch_size=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_names_that_timm_lacks(name):
    """Every tensor under our names, read from their module; at full size, without memory."""
    spec = vit_zoo.get_spec(name)
    with torch.device("meta"):
        theirs = OTHERS[name]()
    nothing = {} if spec.prefix_tokens else {"pos_covers": "patches"}  # where patches are all there is
    assert read_as_a_file(theirs, spec) == spec.replace(**TRAINING, **nothing)
    assert sum(p.numel() for p in theirs.parameters()) == catalog.variants()[name].row["params"]


def test_every_name_is_compared():
    assert {alias.name for alias in TIMM} | set(OTHERS) == set(catalog.variants())
    assert not {alias.name for alias in TIMM} & set(OTHERS)


def test_the_readme_states_the_number_of_names():
    readme = (ROOT / "README.md").read_text()
    assert f"{len(vit_zoo.list_models())} architectures" in readme


def test_every_family_states_its_conventions():
    for family in catalog.families().values():
        assert {"title", "conventions"} <= set(family.about), family.name
        if family.name == "vit_digits":
            continue
        assert {"image_size", "num_classes", "pos", "pos_covers", "norm_eps", "act", "pool"} - {"num_classes"} <= set(
            family.shared
        )
        heads = {lookup.get_variant(name).row["params"] and vit_zoo.get_spec(name).num_classes for name in members(family.name)}
        assert (1000 in heads) == (family.about.get("labels") == "imagenet1k") or family.name in ("simplevit", "vitpytorch")
        prepared = {models.get_config(name).preprocess is not None for name in members(family.name)}
        assert prepared == {family.name not in ("simplevit", "vitpytorch")}


def members(family):
    return [name for name, variant in catalog.variants().items() if variant.family == family]


# the preprocessing of a family's own code: resize, interpolation, first mean
PREPARED = {
    "vit_b16": (248, "bicubic", 0.5), "vit_b16_384": (384, "bicubic", 0.5), "deit_b16": (256, "bicubic", 0.485),
    "deit3_l16": (256, "bicubic", 0.485), "dino_s8": (256, "bicubic", 0.485), "dinov2_s14": (518, "bicubic", 0.485),
    "dinov3_b16": (None, "bilinear", 0.485), "mae_b16": (256, "bicubic", 0.485), "clip_l14_336": (336, "bicubic", 0.48145466),
    "openclip_b32": (224, "bicubic", 0.48145466), "siglip_b16_512": (None, "bicubic", 0.5), "flexivit_b16": (252, "bicubic", 0.5),
    "ijepa_h14": (248, "bicubic", 0.485), "sbb_m16_reg4": (269, "bicubic", 0.5), "sbb_md16_reg4_384": (384, "bicubic", 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", PREPARED)
def test_preprocessing(name):
    found = models.get_config(name).preprocess
    assert (found.resize_to, found.interpolation, found.mean[0]) == PREPARED[name]


def test_an_image_that_is_squashed_before_the_crop():
    """timm's crop mode squash with a margin: resized to 404x404, whatever its aspect ratio, then cropped."""
    from PIL import Image

    tag = lookup.tags_of("sw_m16_384")["sw_in12k_ft_in1k"]
    config = configs.config_of(lookup.get_variant("sw_m16_384"), tag)
    assert config.preprocess.resize_to == (404, 404)
    image = Image.radial_gradient("L").convert("RGB").resize((500, 300))
    transform = timm.data.create_transform(
        (3, 384, 384), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.95, crop_mode="squash"
    )
    ours, theirs = torch.from_numpy(config.preprocess(image)), transform(image)
    assert (ours - theirs).abs().max() < 1e-6
    centre = config.preprocess.model_copy(update={"resize_to": 404})
    assert (torch.from_numpy(centre(image)) - theirs).abs().max() > 0.1


# how each family of repositories is configured where the class's default says so
CONFIGS = {
    r"google/vit-": transformers.ViTConfig,
    r"facebook/deit-": transformers.DeiTConfig,
    r"facebook/vit-mae": transformers.ViTMAEConfig,
    r"facebook/dinov2-with": transformers.Dinov2WithRegistersConfig,
    r"facebook/dinov2-": transformers.Dinov2Config,
    r"facebook/ijepa": transformers.IJepaConfig,
    r"openai/clip": transformers.CLIPVisionConfig,
    r"google/siglip": transformers.SiglipVisionConfig,
    r"facebook/dinov3": transformers.DINOv3ViTConfig,
}
ACT = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh"}


@pytest.mark.parametrize("alias", [a for a in ALIASES.values() if a.library == "transformers"], ids=lambda alias: alias.alias)
def test_repositories_of_transformers_differ_only_as_stated(alias):
    spec = vit_zoo.get_spec(alias.name)
    claimed = {field: alias.differs.get(field, getattr(spec, field)) for field in ("norm_eps", "act")}
    if alias.alias.startswith("laion/"):  # states its own, which is open_clip's
        assert claimed == {"norm_eps": 1e-5, "act": "gelu"}
        return
    default = next(config for pattern, config in CONFIGS.items() if re.match(pattern, alias.alias))()
    assert claimed["norm_eps"] == default.layer_norm_eps
    if spec.mlp == "plain":
        assert claimed["act"] == ACT[default.hidden_act]
    numbers = [int(number) for number in re.findall(r"\d+", alias.alias.partition("/")[2])]
    assert spec.patch_size[0] in numbers or "dinov2" in alias.alias or "mae" in alias.alias
    size = alias.differs.get("image_size", spec.image_size[0])
    assert size in numbers or size in (224, 518)


TORCHVISION = {
    "vit_b_16": torchvision.models.ViT_B_16_Weights, "vit_b_32": torchvision.models.ViT_B_32_Weights,
    "vit_l_16": torchvision.models.ViT_L_16_Weights, "vit_l_32": torchvision.models.ViT_L_32_Weights,
    "vit_h_14": torchvision.models.ViT_H_14_Weights,
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_names_and_weights(name):
    alias = ALIASES[name]
    for weights in TORCHVISION[name]:
        size, parts = weights.meta["min_size"][0], weights.transforms.keywords
        row = configs.row_of(lookup.get_variant(f"{alias.name}_{size}"))
        assert (row["params"], row["gmacs"]) == (weights.meta["num_params"], weights.meta["_ops"])
        if weights.name == "IMAGENET1K_V1":
            assert f"shorter edge {parts.get('resize_size', 256)}" in alias.differs["preprocess"]
            assert "bilinear" in alias.differs["preprocess"]
        (tag,) = [tag for tag in lookup.tags_of(row["name"]).values() if weights.url == tag.address]
        prepared = configs.config_of(lookup.get_variant(tag.name), tag).preprocess
        assert prepared.resize_to == parts.get("resize_size", 256)
        assert prepared.interpolation == parts.get("interpolation", torchvision.transforms.InterpolationMode.BILINEAR).value
        assert tag.top1 == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]


def test_aliases():
    assert len(ALIASES) >= 80
    assert {alias.library for alias in ALIASES.values()} == {
        "timm", "torchvision", "transformers", "google", "openai_clip", "open_clip", "mmpretrain", "keras_hub",
        "facebookresearch",
    }  # fmt: skip
    fields = {"preprocess", *vit_zoo.ViTSpec.model_fields}
    for alias in ALIASES.values():
        found = lookup.find(alias.alias)
        assert found.alias == alias
        assert found.variant.name in catalog.variants(), alias  # a row, in its canonical form
        assert set(alias.differs) <= fields, alias
        spec = vit_zoo.get_spec(alias.name)
        for field in set(alias.differs) - {"preprocess"}:
            ours = getattr(spec, field)
            assert (ours[0] if isinstance(ours, tuple) else ours) != alias.differs[field], (alias, "is no difference")
        fits = {f: v for f, v in alias.differs.items() if f not in ("preprocess", "image_size", "pool", "pool_tokens")}
        spec.replace(**fits)  # values that the field can have
        assert "\n" not in alias.sentence
        assert not lookup.is_name(alias.alias)


def test_ambiguous_names():
    unclear = read_aliases(catalog.zoo().folders)[1]
    assert {"small", "giant", "vit_small", "vit-giant", "base", "clip", "dinov2"} <= set(unclear)
    for name, (why, candidates) in unclear.items():
        assert why
        assert len(candidates) > 1, name
        assert set(candidates) <= set(catalog.variants()), name


TAGS = [
    tag
    for family in catalog.families()
    for tags in read_tags(zoo_folder() / "tags" / f"{family}.toml").values()
    for tag in tags.values()
]


def test_tags_are_complete():
    assert len(TAGS) >= 400
    assert {file.stem for file in (zoo_folder() / "tags").glob("*.toml")} <= set(catalog.families())
    for tag in TAGS:
        named = lookup.find(tag.full_name)
        assert named.tag == tag
        assert named.variant.name == tag.name
        config = configs.config_of(named.variant, tag)
        assert config.spec.num_classes == tag.num_classes
        assert tag.licence
        assert "/" in tag.repo
        assert tag.revision == "unpinned" or re.fullmatch("[0-9a-f]{40}", tag.revision)
        assert re.search(r"\.(safetensors|npz|pth|tar|bin)$", tag.file), tag
        assert (tag.top1 is None) == (tag.top1_by is None)
        assert tag.top1 is None or 50 < tag.top1 < 95
        if tag.labels is not None:
            assert labels.label_set(tag.labels)["classes"] == tag.num_classes
        assert (config.labels is not None) == (tag.labels == "imagenet1k"), tag
        assert config.preprocess is not None
        ours = models.get_spec(tag.name)
        assert [field for field, value in tag.spec.items() if getattr(ours, field) == value] == [], tag.full_name


@pytest.mark.parametrize(
    "family", [family for family in catalog.families() if (zoo_folder() / "tags" / f"{family}.toml").is_file()]
)
def test_tags_of_timm_match_its_configurations(family):
    found = [tag for tag in TAGS if tag.repo.startswith("timm/") and lookup.get_variant(tag.name).family == family]
    for tag in found:
        config = get_pretrained_cfg(tag.repo.removeprefix("timm/"))
        assert config.hf_hub_id in ("timm/", tag.repo)
        prepared = configs.config_of(lookup.get_variant(tag.name), tag).preprocess
        assert config.num_classes == tag.num_classes
        assert (config.license or "unknown") == tag.licence
        if models.get_spec(tag.name).image_size == config.input_size[1:]:
            assert prepared.resize_to == resize_of_timm(config), tag
        assert prepared.interpolation == config.interpolation
        assert prepared.mean == pytest.approx(config.mean)
        assert prepared.std == pytest.approx(config.std)
    assert found or family in ("simplevit", "vitpytorch", "ijepa")


def test_the_names_of_the_imagenet_classes():
    """In the order of the WNIDs, as in every library: compared with the names in transformers and torchvision."""
    names, categories = labels.label_names("imagenet1k"), torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(names) == len(set(names)) == 1000
    agree = [theirs.lower() in ours.lower() for ours, theirs in zip(names, categories, strict=True)]
    assert sum(agree) > 980  # torchvision's words are of another edition
    rotated = [theirs.lower() in ours.lower() for ours, theirs in zip(names[1:], categories, strict=False)]
    assert sum(rotated) < 50
    file = (zoo_folder() / "labels" / "imagenet1k.tsv").read_text()
    wnids = re.findall(r"^(n\d{8})\t", file, re.MULTILINE)
    assert wnids == sorted(wnids)
    assert (wnids[0], wnids[-1], len(wnids)) == ("n01440764", "n15075141", 1000)


def test_the_orders_of_the_large_label_sets():
    """timm's lists are the independent source of the sizes and the orders."""
    folder = timm.data.__path__[0]
    lists = {
        name: Path(folder, "_info", file).read_text().split()
        for name, file in {
            "imagenet1k": "imagenet_synsets.txt", "imagenet21k": "imagenet21k_goog_synsets.txt",
            "imagenet22k": "imagenet22k_synsets.txt", "imagenet22k_ms": "imagenet22k_ms_synsets.txt",
            "imagenet12k": "imagenet12k_synsets.txt", "imagenet21k_miil": "imagenet21k_miil_synsets.txt",
        }.items()
    }  # fmt: skip
    assert {name: len(found) for name, found in lists.items()} == {name: labels.label_set(name)["classes"] for name in lists}
    google = lists["imagenet21k"]
    assert (google[9205], google[15027]) == ("n03931044", "n09859684")
    assert [wnid for wnid in google if wnid not in ("n03931044", "n09859684")] == lists["imagenet22k"]
    assert set(lists["imagenet22k_ms"][:1000]) == set(lists["imagenet1k"])
    for name in ("imagenet1k", "imagenet21k", "imagenet22k", "imagenet12k", "imagenet21k_miil"):
        assert lists[name] == sorted(lists[name]), name
    assert set(lists["imagenet1k"]) - set(lists["imagenet22k"]) == {"n04399382"}


def test_the_committed_schema_is_up_to_date():
    stored = (zoo_folder() / "schema.json").read_text()
    command = [sys.executable, "-m", "vit_zoo.registry.schema"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == stored, (
        "run `python -m vit_zoo.registry.schema`"
    )
    document = json.loads(stored)
    row = document["$defs"]["Row"]
    assert set(vit_zoo.ViTSpec.model_fields) <= set(row["properties"])
    assert row["additionalProperties"] is False
    assert {"type": "integer", "minimum": 1, "maximum": 16384} in row["properties"]["patch_size"]["anyOf"]


def test_our_own_files_are_valid():
    for file in sorted(zoo_folder().glob("*.toml")):
        models.check_file(file)


def test_the_files_that_listing_reads_stay_small():
    """Aliases, tags and labels are in folders of their own, which listing does not open."""
    rows = sum(file.stat().st_size for file in zoo_folder().glob("*.toml"))
    assert rows < 80_000
    assert all(tomllib.loads(file.read_text()) for file in zoo_folder().glob("*.toml"))
    assert read_toml(zoo_folder() / "labels" / "sets.toml")
