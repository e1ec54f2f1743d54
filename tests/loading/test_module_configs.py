"""Tests of what live modules say beside their tensors: names of classes, and how images are prepared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import vit_zoo
from support import peers
from support.models import noise
from support.transformers_classes import CLASSES

open_clip, timm, T = peers.open_clip, peers.timm, peers.transformers
NAMES = ("lynx", "marten", "otter")


def named(model, **options):
    config, settings, *_ = CLASSES[model]
    if "vision_config" in settings:
        settings = {**settings, "id2label": dict(enumerate(NAMES))}
    settings = {**settings, "id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}, **options}
    return noise(getattr(T, model)(getattr(T, config)(**settings)))


@pytest.mark.parametrize("model", [name for name in CLASSES if "Classification" in name])
def test_names_of_classes_of_transformers(model):
    assert vit_zoo.load(named(model)).config.labels == NAMES


def test_names_that_transformers_fills_in_are_none():
    module = named("ViTForImageClassification", id2label={0: "LABEL_0", 1: "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert vit_zoo.load(module).config.labels is None
    assert vit_zoo.load(named("ViTModel")).config.labels is None  # it has no classes


def test_names_go_with_the_classes(folder, cli):
    """They are written, and read back, by every way out; a classifier with another number of classes has none."""
    module = named("Dinov2ForImageClassification")
    vit_zoo.export(module, out="a.onnx")
    assert cli("show", "a.onnx").out.count("lynx, marten, otter") == 1
    vit_zoo.convert(module, "hf", "hf")
    assert T.AutoConfig.from_pretrained("hf").id2label == dict(enumerate(NAMES))
    module.classifier = torch.nn.Linear(96, 5)
    assert vit_zoo.load(noise(module)).config.labels is None


TIMM = {
    "vit_small_patch16_224": {},
    "vit_base_patch16_clip_224.openai": {},
    "vit_base_patch16_siglip_224": {},
    "deit3_small_patch16_384": {},
    "vit_small_patch14_dinov2": {},
    "vit_base_patch8_224.augreg_in21k": {"num_classes": 3},
    "vit_large_patch14_clip_336": {"img_size": 224},
}


@pytest.mark.parametrize("name", TIMM)
def test_the_images_of_a_module_of_timm(name):
    """Pixel for pixel those of timm's own transform, for photographs of several shapes."""
    small = {"embed_dim": 48, "depth": 1, "num_heads": 3}
    module = noise(timm.create_model(name, **small, **TIMM[name]))
    wanted = timm.data.resolve_model_data_config(module)
    size = module.patch_embed.img_size
    read = vit_zoo.load(module)
    how = read.config.preprocess
    assert how.size == tuple(size) == read.spec.image_size
    assert (how.mean, how.std, how.interpolation) == (tuple(wanted["mean"]), tuple(wanted["std"]), wanted["interpolation"])
    transform = timm.data.create_transform(**{**wanted, "input_size": (3, *size)})
    for height, width in ((300, 451), (517, 384)):
        photo = Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), "uint8"))
        np.testing.assert_allclose(how(photo), transform(photo).numpy(), rtol=0, atol=1e-5)


def test_a_module_of_timm_that_states_nothing():
    assert vit_zoo.load(noise(peers.timm_vit())).config.preprocess is None
    module = noise(peers.timm_vit())
    module.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "label_names": [f"class {i}" for i in range(11)]}
    config = vit_zoo.load(module).config
    assert config.labels[10] == "class 10"
    assert config.preprocess.mean == (0.1, 0.2, 0.3)
    assert config.preprocess.std == timm.data.IMAGENET_DEFAULT_STD
    module.pretrained_cfg = {"mean": (0.1,), "std": (0.2,), "crop_mode": "border"}
    assert vit_zoo.load(module).config.preprocess is None


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "interpolation": "bilinear", "resize_mode": "squash"},
    ],
)
def test_the_images_of_a_module_of_open_clip(stated):
    vision = {"image_size": 32, "patch_size": 8, "width": 48, "layers": 2, "head_width": 16, "mlp_ratio": 2}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    module = noise(open_clip.model.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text))
    assert vit_zoo.load(module).config.preprocess is None
    cfg = {"size": 32, **open_clip.transform.PreprocessCfg().__dict__, **stated}
    cfg["size"] = (32, 32)
    open_clip.model.set_model_preprocess_cfg(module, cfg)
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**cfg), is_train=False)
    for read in (vit_zoo.load(module), vit_zoo.load(module.visual)):
        photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (75, 48, 3), "uint8"))
        np.testing.assert_allclose(read.config.preprocess(photo), transform(photo).numpy(), rtol=0, atol=1e-5)
