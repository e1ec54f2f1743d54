"""Do checkpoints of real implementations give those implementations' own outputs, with no more told than the file lacks?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vit_zoo
from vit_zoo.errors import InputError

CASES = Path(__file__).parent / "data" / "cases"
# what neither the file nor its library's convention tells: heads always, for no variant is as small; a grid that is not
# square, or is in no table; the GELU of SigLIP, which timm's files share with exact ones
FACTS = {
    "deit_distilled": {"heads": 3},
    "dino_backbone": {"heads": 3},
    "lucid_simple_vit": {"heads": 3, "image_size": 32},
    "lucid_vit_cls": {"heads": 3},
    "lucid_vit_single_head_no_out": {"heads": 1},
    "mae_finetuned_globalpool": {"heads": 3},
    "mae_pretrain": {"heads": 3},
    "timm_cls": {"heads": 4},
    "timm_deit_distilled": {"heads": 3},
    "timm_dinov2_like_reg": {"heads": 3},
    "timm_flexivit": {"heads": 3},
    "timm_map_with_cls_reg": {"heads": 3},
    "timm_rect_patch": {"heads": 3, "image_size": (32, 48)},
    "timm_reg4_gap": {"heads": 3},
    "timm_siglip_map": {"heads": 3, "act": "gelu_tanh"},
    "timm_swiglu_packed": {"heads": 3},
    "torchvision_vit": {"heads": 3},
    "torchvision_vit_legacy_mlp_keys": {"heads": 3},
}


def case(name):
    """The checkpoint of a case, its images, the outputs of its implementation, and the tolerance."""
    meta = json.loads((CASES / name / "meta.json").read_text())
    images, outputs = (np.load(CASES / name / f"{part}.npy") for part in ("input", "output"))
    return CASES / name / meta["checkpoint"]["file"], images, outputs, meta["check"]["suggested_atol"]


def test_every_case_is_in_the_table():
    assert {path.name for path in CASES.iterdir()} == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_the_outputs_are_the_originals(name, folder):
    file, images, outputs, tolerance = case(name)
    model = vit_zoo.load(file, **FACTS[name])
    with torch.inference_mode():
        np.testing.assert_allclose(model(torch.from_numpy(images)), outputs, rtol=0, atol=tolerance)
    (done,) = vit_zoo.export(file, out="case.onnx", **FACTS[name])
    found = vit_zoo.open(done.path).run(images)[model.spec.output]
    np.testing.assert_allclose(found, outputs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", FACTS)
def test_nothing_is_guessed(name):
    """Without the heads, no answer; with others, or with another GELU, another answer."""
    file, images, outputs, tolerance = case(name)
    facts = FACTS[name]
    with pytest.raises(InputError, match="heads"):
        vit_zoo.load(file, **{field: value for field, value in facts.items() if field != "heads"})
    wrong = {"act": "gelu" if facts.get("act") == "gelu_tanh" else "gelu_tanh"}
    model = vit_zoo.load(file, **{**facts, **wrong})
    with torch.inference_mode():
        assert np.abs(model(torch.from_numpy(images)).numpy() - outputs).max() > tolerance
