"""Tests of the reference's results: which images are computed in float64, that the verdict is the same, and their reuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.parity.expected import Expected, Float64
from vit_zoo.parity.plan import PLANS
from vit_zoo.parity.reference import ModelReference, Reference
from vit_zoo.parity.run import BatchRun, Runs
from vit_zoo.parity.static_checks import Evidence
from vit_zoo.parity.tolerance import TOLERANCES


class Known(Reference):
    """A reference with given results."""

    def __init__(self, single: np.ndarray, double: np.ndarray) -> None:
        self.one, self.two, self.rows = single, double, []

    def shapes(self):
        return {"logits": self.one.shape[1:]}

    def single(self, images, outputs):
        return {"logits": self.one}

    def double(self, images, outputs):
        rows = [int(x) for x in images.ravel()]
        self.rows += rows
        return {"logits": self.two[rows]}


def verdict(reference: Reference, actual: np.ndarray, use: Float64) -> bool:
    """Return whether a file with these results passes."""
    evidence = Evidence()
    runs = Runs(reference, replace(PLANS["default"], float64=use), TOLERANCES["fp32"], {"logits": "logits"}, evidence)
    expected = Expected(reference, np.arange(4.0).reshape(4, 1, 1, 1), ("logits",), use)
    batches = [
        BatchRun(rows, tuple("abcd")[: len(rows)], {"logits": actual[list(rows)]}, True, (8, 8), "") for rows in ((0, 1, 2), (3,))
    ]
    runs._compare(expected, batches)
    return not evidence.faults


def test_float64_where_it_matters_gives_the_verdict_of_float64_everywhere():
    random, verdicts = np.random.default_rng(0), []
    for _ in range(1000):
        double = random.normal(size=(4, 5))
        scale = np.abs(double).max(axis=1, keepdims=True)
        floors, errors = (10 ** random.uniform(-7.5, -4.5, (4, 1)) for _ in range(2))
        single = double + scale * floors * random.uniform(-1, 1, double.shape)
        actual = (double + scale * errors * random.uniform(-1, 1, double.shape)).astype("<f4")
        reference = Known(single.astype("<f8"), double)
        verdicts.append(tuple(verdict(reference, actual, use) for use in ("where it matters", "always")))
    assert all(ours == theirs for ours, theirs in verdicts)
    assert 100 < sum(ours for ours, _ in verdicts) < 900, "both verdicts must occur"


def test_an_image_is_computed_in_float64_once_and_only_if_asked():
    reference = Known(np.ones((4, 2)), np.ones((4, 2)) + 1e-7)
    images = np.arange(4.0).reshape(4, 1, 1, 1)
    expected = Expected(reference, images, ("logits",), "where it matters")
    assert reference.rows == []
    assert expected.measure([2, 2, 1])
    assert not expected.measure([1, 2])
    assert reference.rows == [2, 1]
    assert np.isnan(expected.floors["logits"][[0, 3]]).all()
    assert np.isfinite(expected.floors["logits"][[1, 2]]).all()
    never = Expected(reference, images, ("logits",), "never")
    assert not never.measure([0])


def test_values_that_are_not_finite_are_as_far_as_can_be():
    expected = Expected(Known(np.ones((2, 2)), np.ones((2, 2))), np.zeros((2, 1, 1, 1)), ("logits",), "never")
    far = expected.distances({"logits": np.array([[1, np.nan], [1, 1.0]])}, (0, 1), TOLERANCES["fp32"])
    assert far.tolist() == [np.inf, 0]


@pytest.fixture
def computed(monkeypatch):
    """The number of images that a model computed, by method."""
    counts = {"single": 0, "double": 0}
    for method in counts:
        original = getattr(ModelReference, method)

        def counted(self, images, outputs, method=method, original=original):
            counts[method] += len(images)
            return original(self, images, outputs)

        monkeypatch.setattr(ModelReference, method, counted)
    return counts


def test_the_default_check_computes_few_images_in_float64(folder, computed):
    model = noise(vit_zoo.create("vit_b16", **SMALL), seed=1)
    (done,) = vit_zoo.export(model, out="a.onnx")
    assert done.report is not None
    assert computed["single"] == 6
    assert 2 <= computed["double"] <= 6  # at least those of the self-check
    assert any(c.floor is not None for c in done.report.comparisons)
    before = computed["double"]
    assert vit_zoo.verify("a.onnx", model, effort="full").ok
    assert computed["double"] == before + 8


def test_files_of_one_export_share_the_results(folder, computed):
    model = noise(vit_zoo.create("vit_b16", **SMALL), seed=1)
    vit_zoo.export(model, ["onnx", "torchscript"], out=".")
    assert computed["single"] == 6
    assert computed["double"] <= 6
