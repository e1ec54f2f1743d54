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
