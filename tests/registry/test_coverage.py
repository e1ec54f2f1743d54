"""Tests of the coverage of other libraries' models: it is what the page says, it does not shrink, and every gap has a reason."""

from __future__ import annotations

import sys

import pytest

from support.paths import ROOT
from vit_zoo.registry.other_architectures import reason_by_name


@pytest.fixture(scope="module")
def coverage():
    sys.path.insert(0, str(ROOT / "docs/make"))
    try:
        import coverage_page
    finally:
        sys.path.pop(0)
    return coverage_page


def is_read(verdict, coverage):
    return verdict.startswith("`") or verdict == coverage.CHECKPOINT


def test_most_of_timms_published_weights_have_a_name(coverage):
    verdicts = [verdict for rows in coverage.timm_rows().values() for _, verdict in rows]
    named = sum(verdict.startswith("`") for verdict in verdicts)
    assert len(verdicts) == 440
    assert named >= 414  # 94 %
    assert sum(is_read(verdict, coverage) for verdict in verdicts) >= 427


def test_every_gap_has_a_reason(coverage):
    rows = coverage.timm_rows()
    assert [model for model, tags in rows.items() if not all(verdict for _, verdict in tags)] == []
    assert [name for name, verdict in coverage.open_clip_rows().items() if not verdict] == []
    for model, tags in rows.items():
        for _, verdict in tags:
            assert is_read(verdict, coverage) or verdict == reason_by_name(model)


def test_every_class_of_transformers_is_read_or_has_a_reason(coverage):
    rows = coverage.transformers_rows()
    verdicts = {name: verdict for classes in rows.values() for name, verdict in classes.items()}
    assert sum(verdict == "read" for verdict in verdicts.values()) >= 30
    reasons = {*coverage.LEFT_OUT.values(), "read"}
    other = {name: verdict for name, verdict in verdicts.items() if verdict not in reasons}
    assert other == {}


def test_the_page_is_up_to_date(coverage):
    assert (ROOT / "docs" / coverage.PAGE).read_text() == coverage.pages()[coverage.PAGE]
