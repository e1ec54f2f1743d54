"""Tests of the search of names: parts of names, names of other libraries, published weights, and other architectures."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

import vit_zoo
from support import peers
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.loading.read_tensors import read_tensors
from vit_zoo.registry.aliases import read_aliases
from vit_zoo.registry.catalog import families, variants, zoo
from vit_zoo.registry.lookup import tags_of
from vit_zoo.registry.other_architectures import OTHERS, reason_by_keys, reason_by_name


def found(caplog, pattern, **options):
    """The names that a pattern stands for, and the notices."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "vit_zoo"):
        return vit_zoo.list_models(pattern, **options), [record.getMessage() for record in caplog.records]


def test_a_word_is_a_name_or_a_part_of_one(caplog):
    assert found(caplog, "vit_b16") == (["vit_b16"], [])
    names, notices = found(caplog, "dino")
    assert notices == []
    assert names == [name for name in variants() if name.startswith("dino")]
    assert {variants()[name].family for name in names} == {"dino", "dinov2", "dinov3"}
    assert found(caplog, "DINO") == (names, [])
    assert found(caplog, "sbb")[0] == [name for name in variants() if variants()[name].family == "sbb"]
    assert found(caplog, "reg4_gap")[0] == [name for name in variants() if "reg4_gap" in name]


def test_names_of_other_libraries_are_translated(caplog):
    assert found(caplog, "vit_base_patch16_224") == (["vit_b16"], ["'vit_base_patch16_224' in timm is vit_b16"])
    assert found(caplog, "timm/vit_base_patch16_224.augreg_in21k")[0] == ["vit_b16"]
    names, (notice,) = found(caplog, "google/vit-base-patch16-224")
    assert names == ["vit_b16"]
    assert "norm_eps = 1e-12" in notice
    assert found(caplog, "dinov2_vits14")[0] == ["dinov2_s14"]
    names, notices = found(caplog, "vit_base_patch16_*")
    assert {"vit_b16", "vit_b16_384", "clip_b16"} <= set(names)
    assert names == [name for name in variants() if name in names]
    (timm,) = [notice for notice in notices if " in timm: " in notice]
    assert timm.startswith("'vit_base_patch16_*' in timm: 'vit_base_patch16_224' is vit_b16, ")
    assert timm.endswith("more; `vitzoo show NAME` explains each")
    names, (notice,) = found(caplog, "small")
    assert set(names) == {"vit_s16", "vit_s32", "vit_s8", "deit_s16"}
    assert notice.startswith("'small' is ambiguous: ")


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("vit_bse16", "no variant matches 'vit_bse16'; nearest: vit_"),
        ("dimo*", "no variant matches 'dimo*'; nearest: dino"),
        ("swin*", "no variant matches 'swin*', which is not a plain ViT: Swin attends within shifted windows"),
        ("", "no variant matches ''"),
    ],
)
def test_nothing_found(pattern, told):
    with pytest.raises(InputError) as error:
        vit_zoo.list_models(pattern)
    assert told in str(error.value)


def test_published_weights():
    names = vit_zoo.list_models(pretrained=True)
    assert len(names) == len(set(names)) == sum(len(tags_of(name)) for name in variants())
    assert vit_zoo.list_models("vit_b16", pretrained=True) == [tag.full_name for tag in tags_of("vit_b16").values()]
    assert vit_zoo.list_models("vit_b16.google*", pretrained=True) == ["vit_b16.google_in21k_ft_in1k", "vit_b16.google_in21k"]
    one = vit_zoo.list_models("timm/vit_base_patch16_224.augreg_in21k", pretrained=True)
    assert one == ["vit_b16.augreg_in21k"]
    with pytest.raises(InputError, match="no published weights are known for 'vit_digits'"):
        vit_zoo.list_models("vit_digits", pretrained=True)
    best = vit_zoo.list_models(where="top1>87 and licence=='apache-2.0'", pretrained=True)
    assert best
    for name in best:
        (tag,) = [tag for tag in tags_of(name.partition(".")[0]).values() if tag.full_name == name]
        assert tag.top1 > 87
        assert tag.licence == "apache-2.0"
    with pytest.raises(InputError, match="unknown field 'top1'"):
        vit_zoo.list_models(where="top1>80")


def test_listing_names_reads_no_aliases():
    code = (
        "import vit_zoo.registry.aliases as a, vit_zoo, sys\n"
        "vit_zoo.list_models(); vit_zoo.list_models('vit_b*'); vit_zoo.list_models('vit_b16')\n"
        "assert not a.read_aliases.cache_info().currsize; assert not {'pydantic', 'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_name_of_a_plain_vit_is_refused():
    """Whatever the zoo has, under any name, is not one of the other architectures."""
    aliases, ambiguous = read_aliases(zoo().folders)
    published = [name for model in variants() for tag in tags_of(model).values() for name in (tag.full_name, tag.repo)]
    for name in [*variants(), *families(), *aliases, *ambiguous, *published]:
        assert reason_by_name(name) is None, name


OTHER_NAMES = [
    "swin_tiny_patch4_window7_224", "microsoft/swinv2-tiny-patch4-window8-256", "convnext_tiny",
    "facebook/convnextv2-tiny-1k-224", "resnet50", "microsoft/resnet-50", "resnext50_32x4d", "seresnet50", "resnetv2_50x1_bit",
    "tf_efficientnet_b0", "mobilevit_s", "apple/mobilevitv2-1.0", "hiera_tiny_224", "samvit_base_patch16",
    "facebook/sam-vit-base", "vit_base_patch16_rpn_224", "vit_dwee_patch16_reg1_gap_256", "vit_pwee_patch16_reg1_gap_256",
    "vit_base_patch16_sapiens2", "maxvit_tiny_tf_224", "coatnet_0_rw_224", "levit_256", "facebook/levit-128S", "cait_s24_224",
    "xcit_small_12_p16_224", "pvt_v2_b2", "nvidia/mit-b0", "davit_tiny.msft_in1k", "mvitv2_small", "vit_small_r26_s32_224",
    "google/vit-hybrid-base-bit-384", "vit_relpos_base_patch16_224", "mixer_b16_224", "regnety_040", "densenet121", "vgg16",
    "mobilenetv3_large_100", "tnt_s_patch16_224", "twins_svt_small",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_other_architectures_get_one_short_line(name, cli):
    code, _, err = cli("export", name, "--onnx")
    assert code == 2
    assert err.startswith(f"vitzoo: error: '{name}' is not a plain ViT: ")
    assert err.count("\n") == 1
    assert len(err) < 180


# of each, the keys of timm's model, as far as they tell it from others
OTHER_MODELS = {
    "swin_tiny_patch4_window7_224": "shifted windows", "poolformer_s12": None, "convnext_atto": "convolutional",
    "resnet18": "convolutional", "efficientnet_b0": "convolutional", "mobilevit_xxs": "MobileViT", "hiera_tiny_224": "Hiera",
    "samvit_base_patch16_224": "SAM", "vit_dwee_patch16_reg1_gap_256": "difference of two",
    "vit_pwee_patch16_reg1_gap_256": "in parallel", "maxvit_rmlp_pico_rw_256": "MaxViT",
    "coatnet_pico_rw_224": "CoAtNet", "levit_128s": "biases", "cait_xxs24_224": "CaiT", "xcit_nano_12_p16_224": "XCiT",
    "pvt_v2_b0": "reduced resolution", "davit_tiny": "DaViT", "mvitv2_tiny": "MViT", "mixer_s32_224": "no attention",
    "focalnet_tiny_srf": "FocalNet", "convit_tiny": "ConViT", "crossvit_tiny_240": "CrossViT",
    "tnt_s_legacy_patch16_224": "stages",
    "vit_relpos_small_patch16_224": "relative position", "vit_small_r26_s32_224": "hybrids", "volo_d1_224": "stages",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_MODELS)
def test_checkpoints_of_other_architectures(name):
    with torch.device("meta"):
        state = peers.timm.create_model(name).state_dict()
    tensors = {key: Stored("F32", tuple(tensor.shape), lambda: None) for key, tensor in state.items()}
    reason = reason_by_keys(tensors)
    if OTHER_MODELS[name] is None:
        text = "not a ViT of a known dialect"
    else:
        assert OTHER_MODELS[name] in reason
        text = f": {reason}"
    with pytest.raises(RefusedContent) as error:
        read_tensors(tensors, {}, "x.safetensors")
    assert text in error.value.message
    assert len(error.value.message) < 160


def test_a_plain_vit_has_none_of_the_keys():
    models = ("vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3_qkvb")
    for name in models:
        with torch.device("meta"):
            keys = list(peers.timm.create_model(name).state_dict())
        assert reason_by_keys(keys) is None, name
    assert all(other.names and other.reason for other in OTHERS)


def test_the_dialects_are_listed_on_request(folder, cli):
    torch.save({"layer.weight": torch.ones(2, 2)}, "odd.pth")
    code, _, err = cli("show", "odd.pth")
    assert (code, err) == (7, "vitzoo: error: odd.pth: 1 tensors, first 'weight': not a ViT of a known dialect\n")
    lines = cli("show", "odd.pth", "-v").err.splitlines()
    assert lines[1].startswith("known dialects: ")
    assert "torchvision" in lines[1]
    assert '"dialects": ["' in cli("show", "odd.pth", "--json").out
