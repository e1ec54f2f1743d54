"""Tests of the error about tensors that do not match: it lists all their names, in Python, with -v and with --json."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import vit_zoo
from vit_zoo.errors import RefusedContent
from vit_zoo.files.stored import Stored
from vit_zoo.loading.source import find_source
from vit_zoo.weights.translate import check_tensors, mismatch_lines

SIZES = {"image_size": 16, "patch_size": 8, "num_classes": 3, "dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "mlp_dim": 24}


@pytest.fixture
def state():
    return vit_zoo.create("vit_b16", **SIZES).state_dict()


def details_of(tensors, **facts):
    save_file(tensors, "weights.safetensors")
    with pytest.raises(RefusedContent) as refusal:
        find_source("weights.safetensors", **facts)
    return refusal.value.details


def test_check_tensors_lists_everything():
    def stored(*shape):
        return Stored("F32", shape, lambda: None)

    tensors = {"a": stored(2), "c": stored(4, 5), "d": stored(1), "e": stored(1)}
    with pytest.raises(RefusedContent) as refusal:
        check_tensors(tensors, {"a": (3,), "b": (1,), "b2": (1,), "c": (5, 4)}, where="file", key_of="their.{}".format)
    assert refusal.value.details == {
        "missing": ["their.b", "their.b2"],
        "unexpected": ["their.d", "their.e"],
        "misshapen": [
            {"name": "their.a", "shape": [2], "expected": [3]},
            {"name": "their.c", "shape": [4, 5], "expected": [5, 4]},
        ],
    }
    assert mismatch_lines(refusal.value.details) == [
        "- their.b",
        "- their.b2",
        "+ their.d",
        "+ their.e",
        "~ their.a: [2], expected [3]",
        "~ their.c: [4, 5], expected [5, 4]",
    ]
    assert mismatch_lines({"unknown": ["heads"]}) == []
    assert mismatch_lines({"unexpected": ["\x1b[2J\n- b"]}) == [r"+ \x1b[2J\n- b"]


def test_unknown_keys_and_the_weights_that_they_replace(folder, state):
    renamed = {name.replace("1.mlp.fc1.weight", "1.mlp.fc1.kernel"): tensor for name, tensor in state.items()}
    details = details_of({**renamed, "spare": torch.ones(2)}, heads=2)
    assert details["missing"] == ["blocks.1.mlp.fc1.weight"]
    assert sorted(details["unexpected"]) == ["blocks.1.mlp.fc1.kernel", "spare"]


def test_tensors_that_every_file_has(folder, state):
    rest = {name: tensor for name, tensor in state.items() if name not in ("pos_embed", "patch_embed.proj.bias", "head.bias")}
    assert details_of(rest, heads=2)["missing"] == ["pos_embed", "patch_embed.proj.bias", "head.bias"]


def test_shapes_against_the_spec(folder, state):
    wrong = {**state, "blocks.1.norm1.weight": torch.ones(17), "norm.bias": torch.ones(1)}
    del wrong["blocks.0.norm2.weight"], wrong["blocks.0.norm2.bias"]
    assert details_of(wrong, heads=2) == {
        "missing": ["blocks.0.norm2.weight", "blocks.0.norm2.bias"],
        "unexpected": [],
        "misshapen": [
            {"name": "blocks.1.norm1.weight", "shape": [17], "expected": [16]},
            {"name": "norm.bias", "shape": [1], "expected": [16]},
        ],
    }


def test_the_command_line_lists_the_names(folder, state, cli):
    del state["blocks.0.norm2.weight"], state["blocks.0.norm2.bias"]
    save_file(state, "weights.safetensors")
    arguments = ["show", "weights.safetensors", "--set", "heads=2"]
    code, _, message = cli(*arguments)
    assert code == 7
    assert message.count("\n") == 1
    for option in ("-v", "--verbose"):
        code, _, err = cli(*arguments, option)
        assert code == 7
        assert err == f"{message}- blocks.0.norm2.weight\n- blocks.0.norm2.bias\n"
    code, out, _ = cli(*arguments, "--json")
    assert code == 7
    document = json.loads(out)
    assert document["missing"] == ["blocks.0.norm2.weight", "blocks.0.norm2.bias"]
    assert document["unexpected"] == document["misshapen"] == []
