"""Tests of checkpoints of real implementations against their own outputs, with only the facts that the file lacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vit_zoo
from support.cases import CASE_NAMES, CASES, FACTS, case
from vit_zoo.errors import InputError


def test_every_case_is_in_the_table():
    assert sorted(path.name for path in CASES.iterdir()) == CASE_NAMES
    stated = {field for facts in FACTS.values() for field in facts}
    assert stated == {"heads", "act", "pool", "image_size"}


@pytest.mark.parametrize("name", CASE_NAMES)
def test_outputs_match_the_original(name, folder):
    file, images, outputs, tolerance = case(name)
    facts = FACTS.get(name, {})
    model = vit_zoo.load(file, **facts)
    with torch.inference_mode():
        np.testing.assert_allclose(model(torch.from_numpy(images)), outputs, rtol=0, atol=tolerance)
    (done,) = vit_zoo.export(file, out="case.onnx", **facts)
    found = vit_zoo.open(done.path).run(images)[model.config.output]
    np.testing.assert_allclose(found, outputs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [name for name in FACTS if "heads" in FACTS[name]])
def test_heads_must_be_stated(name):
    file, *_ = case(name)
    with pytest.raises(InputError, match="cannot infer heads"):
        vit_zoo.load(file, **{field: value for field, value in FACTS[name].items() if field != "heads"})


@pytest.mark.parametrize("name", CASE_NAMES)
def test_the_activation_matters(name):
    """With another GELU the outputs differ by more than the tolerance, so the comparison above detects a wrong one."""
    file, images, outputs, tolerance = case(name)
    facts = FACTS.get(name, {})
    right = vit_zoo.load(file, **facts).spec.act
    model = vit_zoo.load(file, **{**facts, "act": "gelu" if right == "gelu_tanh" else "gelu_tanh"})
    with torch.inference_mode():
        assert np.abs(model(torch.from_numpy(images)).numpy() - outputs).max() > tolerance


@pytest.mark.parametrize("name", ["clip_openai_state_dict", "open_clip_quickgelu"])
def test_the_activation_of_a_clip_must_be_stated(name):
    file, *_ = case(name)
    with pytest.raises(InputError, match="cannot infer act"):
        vit_zoo.load(file, heads=FACTS[name]["heads"])
