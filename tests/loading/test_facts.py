"""Tests of stated facts: every value is parsed as the type of its field, and what is no such value is an InputError."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import torch

import vit_zoo
from support.tiny import TINY
from vit_zoo.errors import InputError, RefusedContent, VitzooError

NESTED: list[object] = []
NESTED.append(NESTED)
# values of every other type, and of the right type beyond any range
VALUES = {
    "true": True, "empty list": [], "empty tuple": (), "mapping": {"mean": 3}, "set": {1}, "bytes": b"x", "class": object,
    "lambda": lambda: 1, "complex": 1j, "date": dt.date(2026, 1, 1), "path": Path("x"), "range": range(2),
    "huge": 10**5000, "negative": -(10**5000), "NaN": float("nan"), "infinite": float("inf"), "nested": NESTED, "[None]": [None],
    "array": np.ones(2), "no array": np.ones(0), "texts": np.array(["a"]), "objects": np.array(None, dtype=object),
    "tensor": torch.tensor(2), "empty": "", "NUL": "x\0y", "long": "a" * 5000, "escape": "\x1b[31m", "digits": "٣٣", "text": "3",
}  # fmt: skip
FACTS = (*vit_zoo.ViTSpec.model_fields, "grid", "resize", "prefix", "problem_type", "labels", "preprocess", "head", "allow_drop")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of ours, and the same weights without a config."""
    place = tmp_path_factory.mktemp("sources")
    vit_zoo.save(vit_zoo.create("vit_ti16", **TINY), place / "ours")
    vit_zoo.convert(str(place / "ours"), place / "bare.safetensors", "timm")
    return place


@pytest.mark.parametrize("name", FACTS)
def test_a_value_of_any_type_is_read_or_refused(name, sources):
    """Nothing but our own errors is raised, each in one line that names the fact."""
    calls = {
        "ours": lambda **facts: vit_zoo.load(sources / "ours", **facts),
        "bare": lambda **facts: vit_zoo.load(sources / "bare.safetensors", **{"heads": 2, **facts}),
        "spec": lambda **facts: vit_zoo.get_spec("vit_ti16", **facts),
    }
    errors = []
    for call in calls.values():
        for value in VALUES.values():
            try:
                call(**{name: value})
            except VitzooError as error:
                errors.append(error)
    assert all(isinstance(error, InputError | RefusedContent) for error in errors)  # the latter: valid, but not for these weights
    assert all(len(str(error)) < 12_000 and str(error).isprintable() for error in errors)
    assert sum(name in str(error) for error in errors) > len(VALUES) / 2


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"heads": True}, "heads = True: input should be a valid integer"),
        ({"dim": 1.5}, "dim = 1.5: input should be a valid integer"),
        ({"image_size": []}, r"image_size"),
        ({"image_size": (32, 10**30)}, r"image_size = \(32, 1000000000.*: input should be less than or equal to 16384"),
        ({"image_size": 10**5000}, "image_size = int too long to show: input should be less than"),
        ({"pool": False}, "pool = False: input should be 'cls', 'mean',"),
        ({"act": float("inf")}, "act = inf: input should be 'gelu',"),
        ({"norm_eps": float("nan")}, "norm_eps = nan: input should be a finite number"),
        ({"resize": (0, 0)}, r"unknown recipe \(0, 0\); choose from timm"),
        ({"resize": ["timm"]}, r"unknown recipe \['timm'\]; choose from timm"),
        ({"grid": 0}, "grid = 0: input should be greater than or equal to 1"),
        ({"prefix": -1}, "prefix = -1: input should be"),
        ({"prefix": 1.5}, "prefix = 1.5: input should be"),
        ({"problem_type": ["regression"]}, r"unknown problem_type \['regression'\]; choose from"),
        ({"labels": [3, 4, 5]}, "labels: class 0 is 3"),
        ({"labels": "x" * 5000}, "no such file"),
        ({"preprocess": {"extends": 3}}, "preprocess.extends = 3: expected a name or a file"),
        ({"preprocess": {"mean": True}}, "preprocess"),
        ({"allow_drop": "head.*"}, "allow_drop = 'head.*': expected a list of patterns"),
        ({"allow_drop": [3]}, r"allow_drop = \[3\]: expected a list of patterns"),
        ({"head": 3}, "head is the file of a linear head, not 3"),
        ({"head": "a" * 5000}, "no such file"),
    ],
)
def test_faults_name_the_fact_and_what_is_expected(facts, fault, sources):
    with pytest.raises(InputError, match=fault):
        vit_zoo.load(sources / "bare.safetensors", **{"heads": 2, **facts})


def test_numbers_of_numpy_are_numbers(sources):
    bare = sources / "bare.safetensors"
    spec = vit_zoo.load(bare, heads=np.int64(2), image_size=np.array([32, 64]), norm_eps=np.float64(1e-5)).spec
    assert spec == vit_zoo.load(bare, heads=2, image_size=(32, 64), norm_eps=1e-5).spec
    assert all(type(number) is int for number in (spec.heads, *spec.image_size))
    assert vit_zoo.get_spec("vit_ti16", depth=np.int32(3), patch_size=[np.int64(8), 8]).depth == 3
    assert vit_zoo.load(bare, heads=2, num_classes=np.int64(5)).spec.num_classes == 5


def test_what_is_none_is_not_stated(sources):
    assert vit_zoo.load(sources / "ours", heads=None, resize=None, grid=None).spec == vit_zoo.load(sources / "ours").spec
