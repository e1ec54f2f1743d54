"""Tests of the tolerance for one output: not finite, too far, rotated, another class, ill-conditioned."""

from __future__ import annotations

import numpy as np
import pytest

from vit_zoo.parity.tolerance import ILL_CONDITIONED, RELATIVE, TOLERANCES, agreement, judge

WANTED = np.random.default_rng(0).normal(size=(4, 10))
WANTED[:, 0] = 5.0  # the first class, far ahead
CLOSE = WANTED.copy()
CLOSE[:, 1] = 4.99  # the second, just behind


def judged(found, wanted=WANTED, precision="fp32", floor=3e-7):
    floors = np.full(len(wanted), floor) if np.isscalar(floor) else np.array(floor)
    where = {"output": "logits", "optimised": True, "size": (8, 8)}
    tolerance = TOLERANCES[precision]
    return judge(found, wanted, floors=floors, tolerance=tolerance, names=list("abcd"), where=where, logits=True)


def off(value, image=2, wanted=WANTED):
    found = wanted.copy()
    found[image, 3] += value
    return found


@pytest.mark.parametrize(
    ("found", "precision", "floor", "fault"),
    [
        (WANTED, "fp32", 3e-7, None),
        (off(5 * 2e-6), "fp32", 3e-7, None),
        (off(5 * 6e-6), "fp32", 3e-7, "image 'c': relative difference 6.0e-06"),
        (off(5 * 9e-6), "fp32", np.nan, None),  # nobody measured the floor: the cap alone
        (off(5 * 2e-5), "fp32", np.nan, "relative"),
        (off(5 * 2e-5), "fp32", [3e-7, 3e-7, 3e-6, 3e-7], None),  # ill-conditioned, that one image
        (off(5 * 2e-5, image=1), "fp32", [3e-7, 3e-7, 3e-6, 3e-7], "image 'b'"),
        (off(5 * 2 * ILL_CONDITIONED), "fp32", [3e-7, 3e-7, 1.0, 3e-7], "image 'c'"),
        (off(np.nan), "fp32", 3e-7, "not finite"),
        (off(np.inf), "bf16", 3e-7, "not finite"),
        (off(5 * 1e-3), "fp16", 3e-7, None),
        (off(5 * 6e-3), "fp16", 3e-7, "relative"),
        (WANTED * 0.999 + 0.0045 * np.sign(WANTED), "fp16", 3e-7, None),
    ],
)
def test_rules(found, precision, floor, fault):
    said, comparison = judged(found, precision=precision, floor=floor)
    assert comparison.ok == (fault is None)
    assert said is None if fault is None else fault in said


def test_a_rotated_result_fails_although_every_value_is_near():
    wanted = np.ones((4, 1000)) * 5
    found = wanted + 5 * 4.9e-3 * np.where(np.arange(1000) % 2, 1, -1)
    said, _ = judged(found, wanted, precision="fp16")
    assert "1 - cosine" in said


def test_another_first_class():
    """It is counted and is no fault: a class changes only where its margin is below twice the difference."""
    swapped = CLOSE.copy()
    swapped[0, 0], swapped[0, 1] = 4.985, 5.0
    fault, comparison = judged(swapped, CLOSE, precision="fp16")
    assert fault is None
    assert comparison.top1 == 0.75


def test_scores():
    comparison = judged(off(0.5))[1]
    assert comparison.top1 == 1.0
    assert comparison.divergence > 0
    assert comparison.worst_input == "c"
    assert judged(WANTED)[1].divergence == pytest.approx(0, abs=1e-12)
    assert judged(WANTED)[1].allowed <= RELATIVE


def test_agreement():
    wanted = np.random.default_rng(1).normal(size=(64, 10))
    noise = np.random.default_rng(2).normal(size=wanted.shape)
    assert agreement("logits", wanted, wanted, logits=True).ok
    near, far = (agreement("logits", wanted + noise * size, wanted, logits=True) for size in (0.01, 0.3))
    assert near.ok
    assert near.decibels == pytest.approx(40, abs=1)
    assert not far.ok
    assert not agreement("logits", np.where(wanted > 2, np.nan, wanted), wanted, logits=True).ok
    assert str(near) == f"{near.decibels:.1f} dB, 1 - cosine {near.angle:.1e}, top-1 agreement {100 * near.top1:.1f} %"
