"""Tests of the measures of `evaluate` against scipy, scikit-learn and published examples."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, confusion_matrix, r2_score, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from vit_zoo.inference.evaluate import metrics
from vit_zoo.parity.neighbours import shared_neighbours, votes


@pytest.mark.parametrize(("count", "of"), [(0, 1), (1, 1), (0, 360), (358, 360), (7, 11), (49_999, 50_000)])
def test_wilson_is_scipys(count, of):
    theirs = binomtest(count, of).proportion_ci(0.95, method="wilson")
    assert metrics.wilson(count, of) == pytest.approx(tuple(theirs), abs=1e-12)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 5), (3, 9), (10, 10), (40, 61), (700, 800), (5_000, 4_000)])
def test_mcnemar_is_the_binomial_test(b, c):
    wanted = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert metrics.mcnemar(b, c) == pytest.approx(wanted, rel=1e-9, abs=1e-300)


# both, only the first, only the second, neither; and the interval of first less second that the source states
PUBLISHED = [
    ((1, 1, 7, 12), (-0.2857, -0.507, -0.026)),  # Fagerland, Lydersen and Laake (2014), airway hyper-responsiveness
    ((59, 6, 16, 80), (-0.0621, -0.1186, -0.0046)),  # R package contingencytables, complete response (Cavo et al., 2012)
]


@pytest.mark.parametrize(("table", "wanted"), PUBLISHED)
def test_the_interval_of_a_difference_is_the_published_one(table, wanted):
    difference, low, high = metrics.paired_difference(*table)
    assert (-difference, -high, -low) == pytest.approx(wanted, abs=6e-4)


@pytest.mark.parametrize("table", [(5, 0, 0, 0), (0, 0, 0, 4), (0, 3, 0, 0), (0, 0, 9, 0), (10, 0, 0, 10), (360, 0, 0, 0)])
def test_the_interval_exists_at_the_margins(table):
    difference, low, high = metrics.paired_difference(*table)
    assert -1 <= low <= difference <= high <= 1


def test_the_interval_covers_the_difference_about_as_often_as_it_says():
    """By all tables of 16 images, weighted with their probability: not on average over trials."""
    n, truth = 16, (0.6, 0.2, 0.1, 0.1)
    covered = 0.0
    for a, b, c in product(range(n + 1), repeat=3):
        d = n - a - b - c
        if d < 0:
            continue
        _, low, high = metrics.paired_difference(a, b, c, d)
        ways = comb(n, a) * comb(n - a, b) * comb(n - a - b, c)
        covered += ways * np.prod(np.power(truth, (a, b, c, d))) * (low <= truth[2] - truth[1] <= high)
    assert 0.93 <= covered <= 0.99


def scores(n, c, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, c)).astype(np.float32), random.integers(0, c, n)


def test_ranks_and_confusion_are_scikit_learns():
    x, actual = scores(300, 7)
    rank = metrics.rank(x, actual)
    for k in (1, 2, 5):
        assert (rank < k).mean() == top_k_accuracy_score(actual, x, k=k, labels=range(7))
    ours = metrics.confusion(actual, x.argmax(axis=1), 7)
    np.testing.assert_array_equal(ours, confusion_matrix(actual, x.argmax(axis=1), labels=range(7)))


def test_equal_scores_rank_as_predictions_order_them():
    x = np.array([[1.0, 3.0, 3.0, 0.0]] * 4)
    order = (-x[0]).argsort(kind="stable")
    np.testing.assert_array_equal(metrics.rank(x, np.arange(4)), np.argsort(order))


def test_calibration_by_hand():
    """Confidences at the limits of a bin belong to the lower one; the error weights the bins by their images."""
    confidence = np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 0.5, 0.52, 1.0, 0.95])
    correct = np.array([0, 1, 0, 1, 0, 1, 1])
    bins = list(metrics.calibration(confidence, correct))
    assert [(round(low * 15), round(high * 15), count) for low, high, count, *_ in bins] == [
        (0, 1, 2), (1, 2, 1), (7, 8, 2), (14, 15, 2),
    ]  # fmt: skip
    assert bins[0][3:] == pytest.approx((1 / 30, 0.5))
    error = sum(count * abs(sure - right) for *_, count, sure, right in bins) / 7
    assert error == pytest.approx((2 * (0.5 - 1 / 30) + (1 / 15 + 1e-9) + 2 * 0.01 + 2 * 0.025) / 7)


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties):
    x, _ = scores(200, 5)
    applies = np.random.default_rng(1).random((200, 5)) < 0.3
    x = x.round() if ties else x
    for i in range(5):
        assert metrics.average_precision(x[:, i], applies[:, i]) == pytest.approx(average_precision_score(applies[:, i], x[:, i]))
    assert metrics.average_precision(x[:, 0], np.zeros(200, dtype=bool)) is None


def test_r_squared_is_scikit_learns():
    x, _ = scores(50, 2)
    assert metrics.r_squared(x[:, 0], x[:, 1]) == pytest.approx(r2_score(x[:, 1], x[:, 0]))
    assert metrics.r_squared(x[:, 0], np.ones(50)) is None


@pytest.mark.parametrize("block", [2**22, 1000])
def test_votes_are_scikit_learns(block, monkeypatch):
    """Leave one out: a classifier of all other images for each, which has the same rule for ties."""
    monkeypatch.setattr("vit_zoo.parity.neighbours.BLOCK", block)
    rows, classes = scores(120, 6)[0], np.random.default_rng(2).integers(0, 4, 120)
    rows[:, :4] += 2 * np.eye(4)[classes]
    predicted, share = votes(rows, classes, 5)
    for i in range(120):
        others = np.arange(120) != i
        theirs = KNeighborsClassifier(5, metric="cosine").fit(rows[others], classes[others])
        assert predicted[i] == theirs.predict(rows[i : i + 1])[0]
        assert share[i] == pytest.approx(theirs.predict_proba(rows[i : i + 1]).max())


@pytest.mark.parametrize("block", [2**22, 1000])
@pytest.mark.parametrize(("k", "count"), [(1, None), (10, None), (10, 30)])
def test_shared_neighbours_are_scikit_learns(k, count, block, monkeypatch):
    monkeypatch.setattr("vit_zoo.parity.neighbours.BLOCK", block)
    wanted = scores(100, 16)[0]
    found = wanted + 0.2 * scores(100, 16, seed=3)[0]
    near = [NearestNeighbors(n_neighbors=k, metric="cosine").fit(x).kneighbors(return_distance=False) for x in (found, wanted)]
    theirs = [len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)]
    np.testing.assert_allclose(shared_neighbours(found, wanted, k, count), theirs[:count])


def test_a_copy_of_an_image_is_as_near_as_the_image():
    """Each image twice, with rounding in between; of four neighbours one is one of two copies."""
    rows = np.repeat(scores(15, 16)[0], 2, axis=0).astype(float)
    one, other = (rows + 1e-9 * np.random.default_rng(seed).normal(size=rows.shape) for seed in (5, 6))
    np.testing.assert_array_equal(shared_neighbours(one, other, 4), np.ones(30))
