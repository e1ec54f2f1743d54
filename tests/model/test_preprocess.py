"""Tests of the preparation of images: which axis is resized first does not depend on the installed Pillow."""

from __future__ import annotations

from random import Random

import numpy as np
import PIL
import pytest
from PIL import Image

from vit_zoo.model.preprocess import Preprocess

# of the height and width before and after: both orders, and sides that grow, shrink by one pixel, or stay
SIZES = [((90, 31), (40, 30)), ((31, 90), (30, 40)), ((20, 20), (50, 21)), ((64, 64), (64, 63)), ((63, 64), (21, 60))]


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="older versions of Pillow always start with the width")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_order_of_the_axes_is_that_of_pillow_13(interpolation, dtype):
    draw, order = Random(0), set()
    sides = [tuple((draw.randint(1, 90), draw.randint(1, 90)) for _ in range(2)) for _ in range(100)]
    for old, new in (*SIZES, *sides):
        preprocess = Preprocess(size=new, mean=(0.5,), std=(0.5,), resize_to=new, interpolation=interpolation, resize_dtype=dtype)
        pixels = np.random.default_rng(0).integers(0, 256, old, np.uint8)
        image, resample = Image.fromarray(pixels), Image.Resampling[interpolation.upper()]
        plain = image if dtype == "uint8" else image.convert("F")
        wanted = np.asarray(plain.resize(new[::-1], resample), np.float32) / 255 / 0.5 - 1
        assert np.abs(preprocess(image)[0] - wanted).max() < 1e-6, (old, new)
        width_first = plain.resize((new[1], old[0]), resample).resize(new[::-1], resample)
        order.add(np.array_equal(np.asarray(width_first), np.asarray(plain.resize(new[::-1], resample))))
    assert order == {True, False}  # both orders were seen


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_level_is_normalised_in_float64(dtype):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    levels = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
    preprocess = Preprocess(size=(16, 16), mean=mean, std=std, resize_to=None, interpolation="bicubic", resize_dtype=dtype)
    scale, shift = 1 / (255 * np.asarray(std)), np.asarray(mean) / np.asarray(std)
    wanted = (levels.astype(np.float64) * scale - shift).astype(np.float32).transpose(2, 0, 1)
    prepared = preprocess(Image.fromarray(levels))
    np.testing.assert_array_equal(prepared, wanted)
    assert prepared.flags.c_contiguous


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_fast_crop_differs_in_single_pixels_by_one_level(interpolation, channels):
    """Of random images, in which the order of the axes, the margins of the crop and the border of the image all occur."""
    draw, different, total = Random(1), 0, 0
    for i in range(60):
        width, height, side = draw.randint(20, 300), draw.randint(20, 300), draw.choice([16, 40])
        resize_to = draw.choice([None, side, side + 7, (side + 3, side), (side + 9, side + 30)])
        how = Preprocess(
            size=(side, side), resize_to=resize_to, interpolation=interpolation, mean=(0.0,) * channels, std=(1.0,) * channels
        )
        noise = np.random.default_rng(i).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)  # as smooth as a photograph
        levels = np.abs(how(image, fast_crop=True) - how(image)) * 255
        assert levels.max() < 1.01, (width, height, how)
        different, total = different + int((levels > 0.5).sum()), total + levels.size
    assert 0 < different < total / 200


def test_a_fast_crop_resizes_less(monkeypatch):
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda image, size, *rest, **named: sizes.append((image.size, size)) or resize(image, size, *rest, **named),
    )
    how = Preprocess(size=(64, 64), resize_to=80, interpolation="bicubic", mean=(0.0,), std=(1.0,))
    how(Image.new("L", (640, 320)), fast_crop=True)
    assert sizes[0][0][0] < 320  # of the 640 columns
    assert {size for _, size in sizes} <= {(64, 64), (64, sizes[0][0][1]), (sizes[0][0][0], 64)}
    plain = Preprocess(size=(64, 64), resize_to=80, interpolation="bicubic", mean=(0.0,), std=(1.0,), resize_dtype="float32")
    np.testing.assert_array_equal(plain(Image.new("L", (640, 320), 7), fast_crop=True), plain(Image.new("L", (640, 320), 7)))
