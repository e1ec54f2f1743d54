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
from vit_zoo.weights.configs.image_processors import hf_files, of_hf, of_timm, to_hf, to_timm

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


@pytest.mark.parametrize("rounding", ["even", "down"])
@pytest.mark.parametrize("preprocess", PREPARED, ids=lambda p: f"{p.size[0]}-{p.resize_to}-{p.interpolation}")
def test_transformers_prepares_images_identically(preprocess, rounding, tmp_path):
    if preprocess.resize_to is not None:
        preprocess = preprocess.model_copy(update={"crop_rounding": rounding})
    files = hf_files(preprocess)
    nested = files.get("processor_config.json", {}).get("image_processor")
    back = of_hf(nested or files["preprocessor_config.json"])
    assert back == preprocess or not preprocess.crop_can_differ
    for name, document in files.items():
        (tmp_path / name).write_text(json.dumps(document))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    processor = peers.transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for photo in sorted(PHOTOS.glob("*.jpg")):
        image = Image.open(photo).convert("RGB")
        for prepare in (preprocess, back):
            assert np.abs(processor(image, return_tensors="pt")["pixel_values"][0].numpy() - prepare(image)).max() <= 1e-6


# heights and widths: margins of 1, 2, 3, 7, 11, ..., 16:9 and 9:16, tiny, as large as the crop, and square
SIZES = [(h, w) for h in (5, 32, 35, 36, 43, 81) for w in (7, 32, 36, 39, 43, 47, 64, 144)]
SIZES += [(w, h) for h, w in SIZES[-8:]] + [(135, 240), (240, 135), (60, 80), (53, 80)]
CROP, EDGES = {"height": 32, "width": 32}, {"height": 43, "width": 39}
PROCESSORS = {  # a class of transformers, and what its config states
    "ViT": {"size": CROP},
    "ViT, one number": {"size": 32},
    "ViT, cropped": {"size": EDGES, "do_center_crop": True, "crop_size": CROP},
    "DeiT": {"size": 39, "crop_size": 32},
    "Bit": {"size": {"shortest_edge": 36}, "crop_size": CROP, "image_mean": IMAGENET[0], "image_std": IMAGENET[1]},
    "CLIP": {"size": 32, "crop_size": 32},
    "CLIP, wide": {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 47}, "resample": 2},
    "Siglip": {"size": CROP},
    "DINOv3ViT": {"size": CROP},
    "DINOv3ViT, cropped": {"size": {"shortest_edge": 35}, "do_center_crop": True, "crop_size": CROP, "resample": 3},
}


def noise(height, width):
    return Image.fromarray(np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def smooth(height, width):
    return noise(height // 8 + 2, width // 8 + 2).resize((width, height), Image.Resampling.BILINEAR)


def differing(given, wanted, preprocess):
    """The largest difference in levels out of 255."""
    return float((np.abs(given - wanted) * 255 * np.reshape(preprocess.std, (-1, 1, 1))).max())


@pytest.mark.parametrize("backend", ["pil", "torchvision"])
@pytest.mark.parametrize("name", PROCESSORS)
def test_transformers_own_processors(name, backend, tmp_path):
    """Equal for Pillow on noise; torchvision resizes bytes by other rounding: within a level or two on smooth images."""
    document = {"image_processor_type": f"{name.partition(',')[0]}ImageProcessor", **PROCESSORS[name]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(document))
    processor = peers.transformers.AutoImageProcessor.from_pretrained(tmp_path, backend=backend)
    ours = of_hf(document)
    assert ours is not None
    assert of_hf(json.loads(processor.to_json_string())) == ours  # every key stated
    written = of_hf(to_hf(ours))
    exact = backend == "pil" or ours.resize_dtype == "float32"
    for size in SIZES:
        image = (noise if exact else smooth)(*size)
        wanted = processor(image, return_tensors="np")["pixel_values"][0]
        for prepare in (ours, written):
            assert differing(prepare(image), wanted, ours) <= (0.01 if exact else 2.01), size


@pytest.mark.parametrize("library", ["timm", "torchvision", "open_clip"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_libraries_that_round_to_even(library, interpolation):
    mode = peers.torchvision.transforms.InterpolationMode(interpolation)
    edge = 32 if library == "open_clip" else 35
    match library:
        case "timm":
            keys = {"input_size": (3, 32, 32), "crop_pct": 0.9, "mean": HALF[0], "std": HALF[1], "interpolation": interpolation}
            transform = peers.timm.data.create_transform(**keys)
        case "torchvision":
            preset = peers.torchvision.transforms._presets.ImageClassification
            transform = preset(crop_size=32, resize_size=edge, interpolation=mode, mean=HALF[0], std=HALF[1])
        case _:
            open_clip = pytest.importorskip("open_clip")
            transform = open_clip.image_transform(32, is_train=False, mean=HALF[0], std=HALF[1], interpolation=interpolation)
    ours = Preprocess(size=(32, 32), resize_to=edge, interpolation=interpolation, mean=HALF[0], std=HALF[1])
    for size in SIZES:
        image = noise(*size)
        assert differing(ours(image), transform(image).numpy(), ours) <= 0.01, size


def test_rounding_matters_only_where_it_is_said_to():
    image = noise(135, 240)
    for resize_to in (None, 35, 36, (35, 35), (36, 36), (39, 33), (34, 43)):
        even, down = (
            Preprocess(
                size=(32, 32), resize_to=resize_to, interpolation="bicubic", mean=HALF[0], std=HALF[1], crop_rounding=rounding
            )
            for rounding in ("even", "down")
        )
        assert even.crop_can_differ == (resize_to in (35, 36, (35, 35), (39, 33), (34, 43)))
        assert even.crop_differs_for(240, 135) == (not np.array_equal(even(image), down(image)))


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
UNSAID = [
    {"do_resize": False}, {"do_rescale": False}, {"rescale_factor": 1 / 127.5}, {"resample": 1}, {"do_pad": True},
    {"size": {"shortest_edge": 256, "longest_edge": 512}}, {"image_processor_type": "ConvNextImageProcessor"},
    {"image_processor_type": "Siglip2ImageProcessor"}, {"image_processor_type": "ViTHybridImageProcessor"},
]  # fmt: skip


@pytest.mark.parametrize("name", AS_PUBLISHED)
def test_published_configs(name):
    document, wanted = AS_PUBLISHED[name]
    found = of_hf(document)
    if wanted is None:  # its class is in no field of it: the number is of one edge or of both
        assert found is None
        return
    size, resize_to, interpolation, (mean, std) = wanted
    rounding = "even" if resize_to is None else "down"
    assert found == Preprocess(
        size=size, resize_to=resize_to, interpolation=interpolation, mean=mean, std=std, crop_rounding=rounding
    )
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


@pytest.mark.parametrize("resize_to", [36, (39, 39), (43, 43)])
def test_rounding_that_timm_does_not_have(resize_to):
    down = Preprocess(
        size=(32, 32), resize_to=resize_to, interpolation="bicubic", mean=HALF[0], std=HALF[1], crop_rounding="down"
    )
    with pytest.raises(NotRepresentable, match="to even") as error:
        to_timm(down)
    assert "preprocess" in error.value.hint
    assert to_timm(down.with_defaults())["crop_mode"] in ("center", "squash")
    harmless = down.model_copy(update={"resize_to": (40, 40)})
    assert to_timm(harmless) == to_timm(harmless.with_defaults())
    with pytest.raises(NotRepresentable, match="floats"):
        to_timm(harmless.model_copy(update={"resize_dtype": "float32"}))


def test_defaults_are_not_written():
    plain = Preprocess(size=(32, 32), resize_to=None, interpolation="bicubic", mean=HALF[0], std=HALF[1])
    assert list(plain.model_dump(mode="json")) == ["size", "resize_to", "interpolation", "mean", "std"]
    other = plain.model_copy(update={"resize_to": 36, "crop_rounding": "down", "resize_dtype": "float32"})
    assert Preprocess.model_validate_json(other.model_dump_json()) == other
