"""Tests of preprocessing in the configs of timm and transformers, read and written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from support import peers
from support.paths import PHOTOS
from vit_zoo.errors import NotRepresentable
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.weights.configs.image_processors import of_hf, of_timm, to_hf, to_timm

HALF, IMAGENET = ((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

PREPARED = [
    Preprocess(size=size, resize_to=resize_to, interpolation=interpolation, mean=mean, std=std)
    for size, resize_to in (((32, 32), None), ((224, 224), 248), ((224, 224), 224), ((64, 64), (80, 80)), ((384, 384), 384))
    for interpolation, (mean, std) in (("bicubic", HALF), ("bilinear", IMAGENET))
]


@pytest.mark.parametrize("preprocess", PREPARED, ids=lambda p: f"{p.size[0]}-{p.resize_to}-{p.interpolation}")
def test_timm_prepares_images_identically(preprocess):
    cfg = {"input_size": [3, *preprocess.size], **to_timm(preprocess)}
    assert of_timm({"pretrained_cfg": cfg}) == preprocess
    transform = peers.timm.data.create_transform(
        **peers.timm.data.resolve_data_config({}, pretrained_cfg={**cfg, "input_size": tuple(cfg["input_size"])})
    )
    for photo in sorted(PHOTOS.glob("*.jpg")):
        image = Image.open(photo).convert("RGB")
        assert np.abs(transform(image).numpy() - preprocess(image)).max() <= 1e-6


@pytest.mark.parametrize("preprocess", PREPARED, ids=lambda p: f"{p.size[0]}-{p.resize_to}-{p.interpolation}")
def test_transformers_prepares_images_identically(preprocess, tmp_path):
    document = to_hf(preprocess)
    assert of_hf(document) == preprocess
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document))
    processor = peers.transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for photo in sorted(PHOTOS.glob("*.jpg")):
        image = Image.open(photo).convert("RGB")
        found = processor(image, return_tensors="np")["pixel_values"][0]
        whole = image.width % 2 == image.height % 2 == 0  # margins; see the module
        assert np.abs(found - preprocess(image)).max() <= 1e-6 or not whole


# as published, by the repositories' own files
AS_PUBLISHED = {
    "google/vit-base-patch16-224": (
        {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224},
        None,
    ),
    "google/vit-base-patch16-224, newer": (
        {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
         "image_processor_type": "ViTFeatureExtractor", "resample": 2, "rescale_factor": 0.00392156862745098,
         "size": {"height": 224, "width": 224}},
        ((224, 224), None, "bilinear", HALF),
    ),
    "facebook/dinov2-base": (
        {"crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
         "do_rescale": True, "do_resize": True, "image_mean": list(IMAGENET[0]), "image_std": list(IMAGENET[1]),
         "image_processor_type": "BitImageProcessor", "resample": 3, "rescale_factor": 0.00392156862745098,
         "size": {"shortest_edge": 256}},
        ((224, 224), 256, "bicubic", IMAGENET),
    ),
    "facebook/deit-base-distilled-patch16-224": (
        {"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type":
         "DeiTFeatureExtractor", "image_mean": list(IMAGENET[0]), "image_std": list(IMAGENET[1]), "resample": 3, "size": 256},
        ((224, 224), (256, 256), "bicubic", IMAGENET),
    ),
    "openai/clip-vit-base-patch32": (
        {"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type":
         "CLIPFeatureExtractor", "image_mean": list(IMAGENET[0]), "image_std": list(IMAGENET[1]), "resample": 3, "size": 224},
        ((224, 224), 224, "bicubic", IMAGENET),
    ),
    "google/siglip-base-patch16-224": (
        {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_processor_type":
         "SiglipImageProcessor", "image_std": [0.5] * 3, "resample": 3, "rescale_factor": 0.00392156862745098,
         "size": {"height": 224, "width": 224}},
        ((224, 224), None, "bicubic", HALF),
    ),
}  # fmt: skip
# what our value cannot say: nothing rather than something near it
UNSAID = [{"do_resize": False}, {"do_rescale": False}, {"rescale_factor": 1 / 127.5}, {"resample": 1}, {"do_pad": True}]


@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_published_configs(name):
    document, wanted = AS_PUBLISHED[name]
    found = of_hf(document)
    if wanted is None:  # its class is in no field of it: the number is of one edge or of both
        assert found is None
        return
    size, resize_to, interpolation, (mean, std) = wanted
    assert found == Preprocess(size=size, resize_to=resize_to, interpolation=interpolation, mean=mean, std=std)
    for change in UNSAID:
        assert of_hf({**document, **change}) is None, change
    raw = of_hf({**document, "do_normalize": False})
    assert raw is not None
    assert (raw.mean, raw.std) == ((0.0,) * 3, (1.0,) * 3)


HOSTILE = [None, True, "x", [], {}, [1], 1e-320, -1, 10**400, {"height": "x"}, {"shortest_edge": []}]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:20])
def test_values_of_another_type_are_ignored(value):
    """Each key of real configs with a value that its library never writes gives a Preprocess or None, never another error."""
    documents = [(of_hf, document) for document, _ in AS_PUBLISHED.values()]
    documents.append(
        (of_timm, {"input_size": [3, 8, 8], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5], "std": [0.5]})
    )
    for read, document in documents:
        for key in document:
            assert read({**document, key: value}) is None or isinstance(read({**document, key: value}), Preprocess)


@pytest.mark.parametrize("change", [{"interpolation": "lanczos"}, {"crop_mode": "border"}, {"crop_pct": 1.5}, {"mean": None}])
def test_unsupported_values_in_a_timm_config(change):
    cfg = {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert of_timm({"pretrained_cfg": cfg}) is not None
    assert of_timm(cfg) is not None  # as older files have it
    assert of_timm({"pretrained_cfg": {**cfg, **change}}) is None


def test_preprocessing_that_timm_cannot_represent():
    uneven = Preprocess(size=(32, 32), resize_to=(40, 48), interpolation="bicubic", mean=HALF[0], std=HALF[1])
    with pytest.raises(NotRepresentable, match="cannot resize"):
        to_timm(uneven)
