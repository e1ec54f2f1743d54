"""Tests of the fit of a linear head against scikit-learn's own pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from support.properties import examples
from vit_zoo.inference.probe.linear_head import GRID, Split, accuracy_of, fit_head, split_by_class
from vit_zoo.model.classification import softmax


def made_features(classes, count=240, width=20, seed=0):
    """Features of classes that overlap, with channels of very different means and ranges, and two that are constant."""
    random = np.random.default_rng(seed)
    y = np.arange(count) % classes
    x = random.normal(size=(classes, width))[y] + 1.5 * random.normal(size=(count, width))
    x = x * 10.0 ** random.uniform(-3, 2, width) + random.normal(size=width) * 30
    x[:, 3], x[:, 7] = 0.0, 12.3
    return x.astype("<f4"), y


def pipeline(C):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=5000, tol=1e-6))


@pytest.mark.parametrize("classes", [2, 5])
def test_the_folded_head_is_that_of_scikit_learn(classes):
    features, y = made_features(classes)
    split = split_by_class(y, 0.25, 0)
    head = fit_head(features, y, split)
    logits = features.astype("<f8") @ head.weight.T + head.bias
    theirs = pipeline(head.C).fit(features[split.fit].astype("<f8"), y[split.fit])
    np.testing.assert_allclose(softmax(logits), theirs.predict_proba(features.astype("<f8")), rtol=0, atol=1e-7)
    assert head.weight.shape == (classes, 20)
    assert not head.weight[:, [3, 7]].any()  # nothing is learned from constant features


def test_the_regularisation_is_the_best_on_the_images_for_validation():
    features, y = made_features(4)
    split = split_by_class(y, 0.25, 1)
    head = fit_head(features, y, split)
    others = np.setdiff1d(split.fit, split.validation)
    losses = {}
    for C in GRID:
        theirs = pipeline(C).fit(features[others].astype("<f8"), y[others])
        losses[C] = log_loss(y[split.validation], theirs.predict_proba(features[split.validation].astype("<f8")))
    assert [trial.C for trial in head.trials] == list(GRID)
    np.testing.assert_allclose([trial.loss for trial in head.trials], list(losses.values()), rtol=1e-4)
    assert min(losses, key=losses.get) == head.C
    assert GRID[0] < head.C < GRID[-1]  # neither end, so that this test can fail


def test_two_images_of_each_class_are_enough(caplog):
    features, y = made_features(3, count=6)
    split = split_by_class(y, 0.2, 0)
    assert [len(part) for part in (split.fit, split.validation, split.held_out)] == [3, 0, 3]
    head = fit_head(features, y, split)
    assert head.trials == ()
    assert "too few images to choose the regularisation: C = 1" in caplog.text
    assert accuracy_of(features[split.fit] @ head.weight.T + head.bias, y[split.fit]) == 1


def test_a_fit_that_does_not_converge_is_told(monkeypatch, caplog):
    monkeypatch.setattr("vit_zoo.inference.probe.linear_head.MAX_STEPS", 2)
    features, y = made_features(4)
    fit_head(features, y, Split(np.arange(240), np.arange(0), np.arange(0)))
    assert "had not converged after 2 steps" in caplog.text


@examples(60)
@given(st.lists(st.integers(2, 30), min_size=2, max_size=6), st.floats(0.01, 0.99), st.integers(0, 9))
def test_every_class_is_in_both_parts(counts, share, seed):
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    split = split_by_class(y, share, seed)
    assert sorted([*split.fit, *split.held_out]) == list(range(len(y)))
    assert set(split.validation) < set(split.fit)
    for k, count in enumerate(counts):
        held_out = int((y[split.held_out] == k).sum())
        assert 1 <= held_out < count
        assert held_out in (1, count - 1) or abs(held_out - share * count) <= 0.5
        assert (y[np.setdiff1d(split.fit, split.validation)] == k).any()
    again = split_by_class(y, share, seed)
    assert all(np.array_equal(getattr(split, name), getattr(again, name)) for name in ("fit", "validation", "held_out"))
