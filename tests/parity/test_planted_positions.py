"""Tests that faults in rotary positions, relative biases and norms inside of blocks are found, and located in their block."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import vit_zoo
from parity.test_planted_faults import File
from support.models import SMALL, noise

INSIDE = {"attn_norm": True, "mlp_norm": True}
SPECS = {  # opset, fields
    "EVA-02": (17, {"pos": "learned+rope", "rope": "eva02", "rope_grid": (3, 5), "qkv_bias": "qv", **INSIDE}),
    "RMS norms": (23, {"pos": "rope", "rope": "axial", "pos_covers": "patches", "norm": "rms", **INSIDE}),
    "BEiT": (20, {"pos": "none", "pos_covers": "patches", "relative_bias": "blocks", "pool": "mean"}),
    "mixed, shared biases": (23, {"pos": "rope", "rope": "mixed", "pos_covers": "patches", "relative_bias": "shared"}),
}
BLOCKS = (0, 2)


def changed(change):
    def edit(x):
        x[change] += 0.4
        return x

    return edit


def rotation_moved(f):
    """Rotate each token by the angles of the next one."""
    for name in ("rope_cos", "rope_sin"):
        f.edit(name, lambda x: np.roll(x, 1, axis=0))


def places_moved(f):
    f.edit("rope_places", lambda x: np.concatenate([x[:, :1], x[:, 1:] + 1], axis=1))


def rotation_of_halves(f):
    """Rotate elements that are half a head apart in place of neighbours."""
    first, second = (f.node(end) for end in (".attn/Slice", ".attn/Slice_1"))
    start, end, one = f.constant([0], np.int64), f.constant([8], np.int64), f.constant([1], np.int64)
    first.input[1:] = [start, end, first.input[3], one]
    second.input[1:] = [end, f.constant([16], np.int64), second.input[3], one]


def norm_lost(path):
    def plant(f):
        node = f.node(f".{path}/LayerNormalization", f".{path}/RMSNormalization")
        del node.input[1:]
        del node.attribute[:]
        node.op_type = "Identity"

    return plant


def mean_subtracted(f):
    """Make a layer norm of an RMS norm."""
    f.node(".norm1/RMSNormalization").op_type = "LayerNormalization"


def mean_kept(f):
    """Make an RMS norm of a layer norm, which keeps its bias."""
    node = f.node(".norm1/LayerNormalization")
    x, weight, bias = node.input
    nodes = [
        helper.make_node("Mul", [x, x], ["planted.square"]),
        helper.make_node("ReduceMean", ["planted.square"], ["planted.mean"], axes=[-1]),
        helper.make_node("Sqrt", ["planted.mean"], ["planted.root"]),
        helper.make_node("Div", [x, "planted.root"], ["planted.unit"]),
        helper.make_node("Mul", ["planted.unit", weight], ["planted.scaled"]),
    ]
    del node.attribute[:]
    node.op_type = "Add"
    node.input[:] = ["planted.scaled", bias]
    f.before(node, *nodes)


def bias_transposed(f):
    """Exchange queries and keys in the places of the biases."""
    (pairs,) = f.tensors("relative_rows")
    pairs.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(pairs).T.copy(), pairs.name))


def angles_exchanged(f):
    """Use the frequencies of rows for columns."""
    f.edit("rope.freqs", lambda x: x[::-1])


TABLE = "relative_position_bias_table"
IN_A_BLOCK = {
    ("EVA-02", "rotation of halves"): rotation_of_halves,
    ("EVA-02", "norm inside attention lost"): norm_lost("attn.norm"),
    ("EVA-02", "norm inside the MLP lost"): norm_lost("mlp.norm"),
    ("EVA-02", "RMS for layer norm"): mean_kept,
    ("RMS norms", "layer norm for RMS"): mean_subtracted,
    ("RMS norms", "norm inside attention lost"): norm_lost("attn.norm"),
    ("RMS norms", "norm inside the MLP lost"): norm_lost("mlp.norm"),
    ("BEiT", "one row of the biases changed"): lambda f: f.block(f"attn.{TABLE}", changed(3)),
    ("BEiT", "bias of the class token changed"): lambda f: f.block(f"attn.{TABLE}", changed(-3)),
    ("BEiT", "one bias of one head changed"): lambda f: f.block(f"attn.{TABLE}", changed((5, 1))),
}
ANYWHERE = {
    ("EVA-02", "rotation moved"): rotation_moved,
    ("RMS norms", "rotation moved"): rotation_moved,
    ("BEiT", "pairs transposed"): bias_transposed,
    ("mixed, shared biases", "places moved"): places_moved,
    ("mixed, shared biases", "frequencies exchanged"): angles_exchanged,
    ("mixed, shared biases", "one frequency changed"): lambda f: f.edit("rope.freqs", changed((0, 1, 2, 3))),
    ("mixed, shared biases", "one row of the biases changed"): lambda f: f.edit(f"rel_pos_bias.{TABLE}", changed(3)),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a noised model of each family, and its file."""
    folder = tmp_path_factory.mktemp("families")
    for family, (opset, fields) in SPECS.items():
        model = noise(vit_zoo.create("vit_b16", **{**SMALL, **fields}), scale=0.15)
        model.config = model.config.replace(name="small", random_seed=None, labels=None, preprocess=None)
        (folder / family).mkdir()
        vit_zoo.save(model, folder / family / "model")
        (done,) = vit_zoo.export(folder / family / "model", out=folder / family / "small.onnx", opset=opset)
        assert done.report.ok
    return folder


def report_of(exported, monkeypatch, cli, family, plant, i=0, code=3):
    """The report about the file with a fault, which its self-check sees too."""
    monkeypatch.chdir(exported / family)
    file = File(onnx.load("small.onnx"), family, i)
    plant(file)
    Path("planted.onnx").write_bytes(file.model.SerializeToString())
    Path("planted.onnx.parity.json").unlink(missing_ok=True)
    assert cli("verify", "planted.onnx", "--against", "model", "--quiet").code == code
    assert vit_zoo.selfcheck("planted.onnx").ok == (code == 0)
    return json.loads(Path("planted.onnx.parity.json").read_text())


@pytest.mark.parametrize("family", SPECS)
def test_the_file_without_a_fault_passes(family, exported, monkeypatch, cli):
    assert report_of(exported, monkeypatch, cli, family, lambda file: None, code=0)["verdict"] == "parity"


@pytest.mark.parametrize("i", BLOCKS)
@pytest.mark.parametrize("fault", IN_A_BLOCK, ids=": ".join)
def test_a_fault_in_a_block(fault, i, exported, monkeypatch, cli):
    report = report_of(exported, monkeypatch, cli, fault[0], IN_A_BLOCK[fault], i)
    assert report["parting"]["block"] == i, report["parting"]
    assert report["parting"]["operator"].startswith(f"blocks.{i}")


@pytest.mark.parametrize("fault", ANYWHERE, ids=": ".join)
def test_a_fault_in_the_positions(fault, exported, monkeypatch, cli):
    report = report_of(exported, monkeypatch, cli, fault[0], ANYWHERE[fault])
    assert not all(comparison["ok"] for comparison in report["comparisons"])
