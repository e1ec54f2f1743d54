"""Tests of the recipe of self-checks against the same arithmetic in Python's own integers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vit_zoo.self_check.recipe import batches, hashed, image_bytes, places, reduced

MASK = 2**32 - 1


def plain_hash(x):
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & MASK
    return x ^ (x >> 16)


def plain_byte(image, c, y, x, height, width):
    if image == 0:
        return plain_hash((c * height + y) * width + x) >> 24
    return ((c + 1) * x * 256 // width + (c + 2) * y * 256 // height) % 256


def test_the_hash():
    numbers = [0, 1, 2, 1000, 2**30 + 7, 2**31 + 7, MASK]
    assert hashed(np.array(numbers)).tolist() == [plain_hash(number) for number in numbers]
    assert plain_hash(1) == 1753845952  # as other implementations of lowbias32 have it


@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 8, 8), (5, 7, 3)])
def test_the_images(shape):
    images = image_bytes(*shape)
    for image in (0, 1):
        for place in np.ndindex(*shape):
            assert images[(image, *place)] == plain_byte(image, *place, *shape[1:])


def test_the_values_are_exact_in_float16():
    (batch,) = batches((2, 3, 32, 48), "float32")
    assert batch.dtype == np.float32
    assert (batch.astype(np.float16) == batch).all()
    assert batch.min() == -2
    assert batch.max() < 2


def test_every_order_of_axes_and_channels_shows():
    (batch,) = batches((2, 3, 32, 32), "float32")
    for image in batch:
        for other in (
            image[::-1],
            image[:, ::-1],
            image[..., ::-1],
            image.swapaxes(1, 2),
            image.reshape(32, 32, 3).transpose(2, 0, 1),
        ):
            assert np.abs(image - other).mean() > 0.25


def test_rows_of_a_batch_alternate():
    (two,) = batches((2, 3, 8, 8), "float32")
    (five,) = batches((5, 3, 8, 8), "float32")
    one = list(batches((1, 3, 8, 8), "float32"))
    assert (five == two[[0, 1, 0, 1, 0]]).all()
    assert (np.concatenate(one) == two).all()
    (raw,) = batches((2, 8, 8, 3), "uint8")
    assert raw.dtype == np.uint8
    assert ((np.moveaxis(raw, 3, 1).astype(float) - 128) / 64 == two).all()


def test_places():
    assert places(3, 16).tolist() == [0, 1, 2]
    assert places(16, 16).tolist() == list(range(16))
    assert places(1000, 4).tolist() == [plain_hash(2**31 + i) % 1000 for i in range(4)]


def test_the_numbers_of_an_output():
    x = np.arange(1.0, 41).reshape(5, 8)
    found = reduced(x, 4)
    weights = [(plain_hash(2**30 + i) >> 24) / 128 - 1 for i in range(40)]
    assert found.norm == pytest.approx(math.sqrt(sum(value**2 for value in range(1, 41))), rel=1e-15)
    assert found.projection == pytest.approx(sum(w * (i + 1) for i, w in enumerate(weights)), rel=1e-14)
    assert found.values == tuple(float(1 + plain_hash(2**31 + i) % 40) for i in range(4))


def test_every_value_has_a_part_in_the_projection():
    x = np.random.default_rng(0).normal(size=200)
    before = reduced(x, 1).projection
    for i in range(200):
        changed = x.copy()
        changed[i] += 1
        assert abs(reduced(changed, 1).projection - before) > 0 or plain_hash(2**30 + i) >> 24 == 128
