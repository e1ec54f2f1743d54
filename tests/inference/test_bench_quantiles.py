"""Tests of the statistics of a benchmark, against NumPy and SciPy, and of the order of its measurements."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from scipy.stats import quantile_test

from vit_zoo.inference.bench.quantiles import CONFIDENCE, quantile, shuffled_rounds


@pytest.mark.parametrize("q", [0.25, 0.5, 0.95])
def test_quantiles_and_intervals_are_those_of_numpy_and_scipy(q):
    random = np.random.default_rng(0)
    for count in (1, 2, 5, 6, 7, 20, 71, 72, 100, 333):
        values = random.lognormal(size=count)
        found = quantile(values.tolist(), q)
        assert found.value == pytest.approx(np.quantile(values, q), rel=1e-12)
        expected = quantile_test(values, q=0, p=q).confidence_interval(CONFIDENCE)
        limits = [np.nan if limit is None else limit for limit in (found.low, found.high)]
        np.testing.assert_array_equal(limits, [expected.low, expected.high])


def test_the_interval_holds_as_often_as_it_states():
    random = np.random.default_rng(1)
    drawn = [quantile(random.exponential(size=40).tolist(), 0.5) for _ in range(2000)]
    held = np.mean([found.low <= np.log(2) <= found.high for found in drawn])
    assert CONFIDENCE - 0.015 < held < 0.99


def test_too_few_measurements_have_no_interval():
    assert (quantile([1.0] * 5, 0.5).low, quantile([1.0] * 5, 0.5).high) == (None, None)
    assert quantile([1.0] * 71, 0.95).high is None
    assert quantile([1.0] * 72, 0.95).high == 1.0


def test_every_round_has_every_row_once_in_an_order_of_its_own():
    rounds = list(islice(shuffled_rounds(5), 50))
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    firsts = [order[0] for order in rounds]
    assert all(3 < firsts.count(row) < 20 for row in range(5))
    assert rounds == list(islice(shuffled_rounds(5), 50))
    assert rounds != list(islice(shuffled_rounds(5, seed=1), 50))
