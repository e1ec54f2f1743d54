"""Tests of the tables of config keys: they have every key of the installed libraries, and what is in none is refused by name."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest

import vit_zoo
from support import peers, timm_names
from support.cases import case
from support.models import noise
from vit_zoo.errors import RefusedContent
from vit_zoo.weights.configs import hf
from vit_zoo.weights.configs import open_clip as of_open_clip
from vit_zoo.weights.configs import timm as of_timm
from vit_zoo.weights.configs.keys import check_keys, ignored, only, read
from vit_zoo.weights.configs.timm_architectures import GROUPS, OLD, find
from vit_zoo.weights.configs.values import TEXT

timm, transformers, open_clip = peers.timm, peers.transformers, peers.open_clip
save_for_hf = timm.models._hub.save_for_hf
PARAMETERS = {
    "VisionTransformer": (timm.models.vision_transformer.VisionTransformer, of_timm.VIT_ARGUMENTS),
    "Eva": (timm.models.eva.Eva, of_timm.EVA_ARGUMENTS),
    "Beit": (timm.models.beit.Beit, of_timm.BEIT_ARGUMENTS),
    "NaFlexVit": (timm.models.naflexvit.NaFlexVit, of_timm.NAFLEX_ARGUMENTS),
    "NaFlexVitCfg": (timm.models.naflexvit.NaFlexVitCfg, of_timm.NAFLEX_ARGUMENTS),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_argument_of_timms_classes_is_in_the_table(name):
    class_, table = PARAMETERS[name]
    assert set(inspect.signature(class_.__init__).parameters) - {"self", "kwargs"} <= set(table)


def test_every_key_that_timm_writes_is_in_the_table(folder):
    assert {field.name for field in dataclasses.fields(timm.models.PretrainedCfg)} <= set(of_timm.PRETRAINED)
    model = timm.create_model("test_vit", num_classes=3)
    save_for_hf(model, "saved", model_config={"label_names": ["a", "b", "c"], "label_descriptions": {"a": "A"}})
    document = json.loads((folder / "saved" / "config.json").read_text())
    assert set(document) <= set(of_timm.TOP)
    assert set(document["pretrained_cfg"]) <= set(of_timm.PRETRAINED)
    assert set(document["model_args"]) <= set(of_timm.VIT_ARGUMENTS)


def test_the_table_of_timms_names_is_that_of_its_registry(monkeypatch):
    """Names that differ in sizes only are in one group, or in none; `test_config_sweeps.py` compares every name."""
    registry = timm_names.settings(monkeypatch)
    groups = {}
    for name, (cls, arguments) in registry.items():
        match = find(name)
        group = None if match is None else match[0]
        assert groups.setdefault(timm_names.kind(cls, arguments), group) == group, name
        if match is not None:
            assert match[1] == arguments["num_heads"], name
    names = {name for _, by_heads in GROUPS for text in by_heads.values() for name in text.split()}
    assert names <= set(registry)
    for old, new in OLD.items():
        assert timm.is_model(old)
        assert find(old) == find(new) is not None
    olds = "vit_base_patch16_224_in21k vit_small_patch8_224_dino deit3_base_patch16_384_in21ft1k vit_base_patch32_224_sam"
    for old in olds.split():
        assert timm.is_model(old)
        assert find(old) is not None
    assert find("vit_base_patch16_clip_224.openai") == find("vit_base_patch16_clip_224")


@pytest.mark.parametrize("kind", hf.DEFAULTS)
def test_every_key_of_transformers_configs_is_in_the_table(kind):
    config = transformers.CONFIG_MAPPING[kind]
    keys = {*config().to_dict(), *(field.name for field in dataclasses.fields(config))}
    assert keys <= {*hf.BASE, *hf.KEYS[kind]}
    eps, act = hf.DEFAULTS[kind]
    assert (getattr(config(), "layer_norm_eps", None) or config().rms_norm_eps, config().hidden_act) == (eps, act)
    assert config().num_attention_heads == hf.HEADS.get(kind, 12)


@pytest.mark.parametrize("kind", hf.TOWERS)
def test_every_key_of_configs_of_two_towers_is_in_the_table(kind):
    config = transformers.CONFIG_MAPPING[kind]
    keys = {*config().to_dict(), *(field.name for field in dataclasses.fields(config))}
    assert keys <= {*hf.BASE, *hf.TWO_TOWERS}
    assert config().vision_config.model_type == hf.TOWERS[kind]


def test_every_key_of_image_processors_is_in_the_table():
    words = transformers.processing_utils
    assert {*words.ImagesKwargs.__annotations__, *words.VideosKwargs.__annotations__} <= set(hf.PROCESSOR)
    for name in ("ViT", "CLIP", "Siglip", "DeiT", "Bit", "DINOv3ViT"):
        assert set(getattr(transformers, f"{name}ImageProcessor")().to_dict()) <= set(hf.PROCESSOR), name


def test_every_key_of_open_clip_is_in_the_table():
    fields = {field.name for field in dataclasses.fields(open_clip.CLIPVisionCfg)}
    assert fields == set(of_open_clip.OWN) == set(of_open_clip.TIMM_TOWER)
    assert {field.name for field in dataclasses.fields(open_clip.transform.PreprocessCfg)} == set(of_open_clip.PREPROCESS)
    defaults = open_clip.transform.PreprocessCfg()
    assert (defaults.mean, defaults.std) == (of_open_clip.MEAN, of_open_clip.STD)
    for name in open_clip.list_models():
        assert set(open_clip.get_model_config(name)) <= set(of_open_clip.MODEL), name


def test_what_a_key_does():
    table = {"depth": ignored("seen"), "act": read("act", TEXT), "gate": only(False), "base": only(100, "x")}
    check_keys({"depth": 3, "act": "gelu", "gate": False, "base": 100.0}, table, where="f")
    check_keys({"gate": None, "base": "x"}, table, where="f")
    for wrong, cause in (
        ({"gate": True}, "gate = True of part is not supported, only False"),
        ({"gate": 0}, "gate = 0 of part is not supported, only False"),
        ({"base": 10}, "base = 10 of part is not supported, only 100, 'x'"),
        ({"width": None}, "unknown config key 'width' of part"),
    ):
        with pytest.raises(RefusedContent) as refusal:
            check_keys(wrong, table, where="f", section="part")
        assert (refusal.value.message, refusal.value.code) == (cause, 7)


def saved_by_timm(folder):
    save_for_hf(noise(timm.create_model("test_vit", num_classes=3)), folder)


def saved_by_transformers(folder):
    t = transformers
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
    noise(t.CLIPForImageClassification(t.CLIPConfig(vision_config={**sizes, "intermediate_size": 60}))).save_pretrained(folder)


def saved_by_open_clip(folder):
    folder.mkdir()
    (folder / "open_clip_pytorch_model.bin").write_bytes(case("open_clip_quickgelu")[0].read_bytes())
    tower = {"layers": 3, "width": 48, "head_width": 16, "patch_size": 8, "image_size": 32}
    document = {"model_cfg": {"embed_dim": 24, "vision_cfg": tower, "text_cfg": {}}, "preprocess_cfg": {"mean": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))


LIBRARIES = {
    "timm": (saved_by_timm, "config.json", ((), ("model_args",), ("pretrained_cfg",))),
    "transformers": (saved_by_transformers, "config.json", ((), ("vision_config",))),
    "open_clip": (
        saved_by_open_clip, "open_clip_config.json", ((), ("model_cfg",), ("model_cfg", "vision_cfg"), ("preprocess_cfg",)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_unknown_key_is_refused_by_name(library, folder):
    save, name, places = LIBRARIES[library]
    save(folder / "saved")
    file = folder / "saved" / name
    document = json.loads(file.read_text())
    vit_zoo.load(folder / "saved")
    for place in places:
        changed = json.loads(json.dumps(document))
        inner = changed
        for key in place:
            inner = inner[key]
        inner["gate_order"] = "last"
        file.write_text(json.dumps(changed))
        with pytest.raises(RefusedContent, match="unknown config key 'gate_order'") as refusal:
            vit_zoo.load(folder / "saved")
        assert refusal.value.where == str(file)
        assert all(part in refusal.value.message for part in place[-1:])
        assert "remove it" in str(refusal.value)
