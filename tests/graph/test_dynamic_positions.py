"""Tests of ONNX files for any image size: positions are resized in the graph, for every recipe and kind of positions."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import vit_zoo
from support.models import SMALL, noise
from support.paths import CASES
from vit_zoo.errors import CheckFailed, InputError, RefusedContent
from vit_zoo.graph import dynamic_positions, interpolation
from vit_zoo.model.resize_recipes import RECIPES

KINDS = {
    "learned, over all tokens": {},
    "learned, over class token and patches, with registers": {"pos_covers": "class", "registers": 3},
    "learned, over patches": {"pos_covers": "patches", "registers": 2},
    "attention pooling": {"pool": "map", "pool_tokens": "patches", "class_token": False, "pos_covers": "patches"},
    "mean of patches": {"pool": "mean", "pool_tokens": "patches", "final_norm": "after_pool"},
    "sincos, MoCo": {"pos": "sincos_moco", "pos_covers": "patches"},
    "sincos, MAE": {"pos": "sincos_mae", "pos_covers": "patches", "class_token": False, "pool": "mean", "pool_tokens": "patches"},
    "rotation": {"pos": "rope", "pos_covers": "patches", "registers": 2},
    "rotation, EVA-02": {"pos": "learned+rope", "rope": "eva02", "rope_grid": (3, 5)},
    "rotation, PE": {"pos": "learned+rope", "rope": "pe", "rope_grid": (4, 3)},
    "rotation, axial": {"pos": "rope", "rope": "axial", "pos_covers": "patches"},
    "rotation, mixed": {"pos": "learned+rope", "rope": "mixed"},
    "no positions": {"pos": "none", "pos_covers": "patches"},
}
INTERPOLATING = [name for name, recipe in RECIPES.items() if recipe.mode != "rows"]
SIZES = ((40, 80), (56, 64), (16, 32), (32, 48), (8, 160), (120, 16))


def _model(**fields):
    return noise(vit_zoo.create("vit_b16", **{**SMALL, **fields}), scale=0.15)


def _resized(model, size, recipe):
    """The model as it loads at another size, by torch's own interpolation."""
    vit_zoo.save(model, "whole")
    facts = {"resize": recipe} if model.spec.pos == "learned" and size != model.spec.image_size else {}
    return vit_zoo.load("whole", image_size=size, **facts)


def _agree(path, model, recipe):
    artifact = vit_zoo.open(path)
    for size in SIZES:
        x = torch.randn(2, 3, *size)
        with torch.inference_mode():
            wanted = _resized(model, size, recipe)(x).numpy()
        given = artifact.run(x.numpy())[model.spec.output]
        assert np.abs(given - wanted).max() <= 2e-5 * np.abs(wanted).max(), size


@pytest.mark.parametrize("opset", [17, 20, 23])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_positions(folder, kind, opset):
    model = _model(**KINDS[kind])
    (done,) = vit_zoo.export(model, "onnx", out="a.onnx", dynamic="hw", opset=opset)
    assert {c.size for c in done.report.comparisons} == {(32, 48), (40, 80), (56, 64), (16, 32)}
    _agree("a.onnx", model, "timm")
    full = vit_zoo.verify("a.onnx", effort="full", blocks=True)
    assert full.ok
    assert full.skipped == ()


@pytest.mark.parametrize("recipe", INTERPOLATING)
def test_every_recipe(folder, recipe):
    model = _model()
    (done,) = vit_zoo.export(model, "onnx", out="a.onnx", dynamic="hw", resize=recipe)
    assert done.report.ok
    assert vit_zoo.open("a.onnx").about.export["dynamic"] == recipe
    _agree("a.onnx", model, recipe)


@pytest.mark.parametrize("recipe", INTERPOLATING)
def test_the_models_own_size_keeps_its_positions(folder, recipe):
    """Bit for bit: a resize to the same grid multiplies by ones and zeros."""
    model = _model()
    for name, more in (("plain.onnx", {}), ("free.onnx", {"dynamic": "hw", "resize": recipe})):
        vit_zoo.export(model, "onnx", out=name, outputs=["block.0"], verify=False, **more)
    x = np.random.default_rng(0).normal(size=(2, 3, *SMALL["image_size"])).astype("<f4")
    plain, free = (vit_zoo.open(name, threads=1).run(x)["block.0"] for name in ("plain.onnx", "free.onnx"))
    np.testing.assert_array_equal(plain, free)


@pytest.mark.parametrize(("recipe", "cause"), [("vit-pytorch", "interpolates no positions"), ("unstated", "library is unknown")])
def test_a_source_without_interpolation_is_asked_for_a_recipe(folder, recipe, cause):
    model = _model()
    model.config = model.config.replace(resize=recipe)
    with pytest.raises(InputError, match=rf"{cause}.*resize=timm"):
        vit_zoo.export(model, "onnx", out="a.onnx", dynamic="hw")
    assert not Path("a.onnx").exists()
    vit_zoo.export(model, "onnx", out="a.onnx", dynamic="hw", resize="hf", verify=False)
    assert vit_zoo.open("a.onnx").about.export["dynamic"] == "hf"


def test_the_recipe_of_the_source_is_kept(folder):
    """The recipe of a checkpoint's source survives saving and loading."""
    transformers = next(path for path in sorted(CASES.glob("hf*")) if (path / "config.json").is_file())
    model = vit_zoo.load(transformers)
    assert model.config.resize == "hf"
    vit_zoo.save(model, "kept")
    assert vit_zoo.load("kept").config.resize == "hf"
    (done,) = vit_zoo.export("kept", "onnx", out="a.onnx", dynamic="hw")
    assert vit_zoo.open(done.path).about.export["dynamic"] == "hf"


def test_weights_determine_the_recipe(folder):
    """So do weights of one source that are loaded for a name of the registry."""
    model = _model(image_size=224, patch_size=16, depth=12, dim=192, heads=3, dim_head=64, mlp_dim=768, num_classes=1000)
    model.config = model.config.replace(resize="dino")
    vit_zoo.save(model, "mine")
    vit_zoo.export("vit_ti16", weights="mine", out="a.onnx", dynamic="hw", verify=False)
    assert vit_zoo.open("a.onnx").about.export["dynamic"] == "dino"


def test_an_unknown_recipe_is_refused(folder):
    """In a config next to weights, and in the metadata of a file."""
    vit_zoo.save(_model(), "model")
    config = Path("model") / "config.json"
    config.write_text(config.read_text().replace('"schema"', '"resize": "nearest", "schema"', 1))
    with pytest.raises(InputError, match="unknown resize 'nearest'; choose from timm, "):
        vit_zoo.load("model")
    vit_zoo.export(_model(), "onnx", out="a.onnx", dynamic="hw")
    proto = onnx.load("a.onnx")
    (entry,) = [entry for entry in proto.metadata_props if entry.key == "vit_zoo.export"]
    for claim in ('["timm"]', '"nearest"', "3"):
        entry.value = re.sub(r'"dynamic": [^,]*', f'"dynamic": {claim}', entry.value)
        onnx.save(proto, "a.onnx")
        if claim == '"nearest"':
            assert not vit_zoo.verify("a.onnx").ok
        else:
            with pytest.raises(RefusedContent, match="dynamic"):
                vit_zoo.verify("a.onnx")


@pytest.mark.parametrize(
    "form", [{"precision": "fp16"}, {"precision": "bf16"}, {"placement": "external"}, {"include": ["softmax"]}]
)
def test_with_other_graph_options(folder, form):
    (done,) = vit_zoo.export(_model(), "onnx", out="a.onnx", dynamic="hw", **form)
    assert done.report.ok
    assert len({c.size for c in done.report.comparisons}) == 4


def test_shared_weights(folder):
    vit_zoo.save(_model(), "model")
    (done,) = vit_zoo.export("model", "onnx", placement="shared", dynamic="hw")
    assert done.report.ok


def test_every_output(folder):
    outputs = ["logits", "pooler_output", "last_hidden_state", "block.1", "attn.2", "block.0.map"]
    (done,) = vit_zoo.export(_model(), "onnx", out="a.onnx", dynamic="hw", outputs=outputs)
    assert {c.output for c in done.report.comparisons if c.size == (56, 64)} == set(outputs)
    given = onnx.load("a.onnx").graph.output
    declared = {o.name: [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim] for o in given}
    assert declared["last_hidden_state"] == ["batch", "patches+1", 48]
    assert declared["block.0.map"] == ["batch", 48, "rows", "columns"]
    assert declared["attn.2"] == ["batch", 3, "patches+1", "patches+1"]


def test_a_size_that_is_no_multiple_of_the_patch_is_refused(folder):
    vit_zoo.export(_model(), "onnx", out="a.onnx", dynamic="hw")
    for size in ((33, 48), (32, 56), (7, 48), (32, 15)):
        with pytest.raises(RefusedContent, match="height and width must be multiples of 8 and 16"):
            vit_zoo.open("a.onnx").run(np.zeros((2, 3, *size), "<f4"))


@pytest.mark.parametrize(
    "plant",
    [
        ("recipe_named", lambda name: RECIPES["hf"]),
        ("cubic", lambda op, x, a: interpolation.linear(op, x)),
        ("rope_frequencies", lambda spec: np.full(spec.dim_head // 4, 0.9)),
        ("first_place", lambda spec: 1),
        ("frequencies", lambda dim, *, last_included: np.ones(dim // 4)),
    ],
    ids=lambda plant: plant[0],
)
def test_planted_faults(folder, monkeypatch, plant):
    """Graphs that are right or nearly right at the model's own size, and wrong at others."""
    kinds = {"rope_frequencies": "rotation", "first_place": "rotation, EVA-02", "frequencies": "sincos, MoCo"}
    fields = KINDS[kinds[plant[0]]] if plant[0] in kinds else {}
    from vit_zoo.graph import build

    modules = {"recipe_named": build, "cubic": interpolation}
    monkeypatch.setattr(modules.get(plant[0], dynamic_positions), *plant)
    with pytest.raises(CheckFailed):
        vit_zoo.export(_model(**fields), "onnx", out="a.onnx", dynamic="hw")
    assert Path("a.onnx.rejected").exists()


def test_a_missing_size_check_is_a_fault(folder):
    """Without the check, a graph would cut off the rest of an image and return some output."""
    vit_zoo.export(_model(), "onnx", out="a.onnx", dynamic="hw")
    proto = onnx.load("a.onnx")
    cut = next(i for i, node in enumerate(proto.graph.node) if node.name.startswith("height and width"))
    first = proto.graph.node[cut]
    ends = onnx.helper.make_tensor("ends", 7, [4], [2**31, 3, 32, 48])
    starts = onnx.helper.make_tensor("starts", 7, [4], [0, 0, 0, 0])
    proto.graph.initializer.extend([starts, ends])
    whole = onnx.helper.make_node("Slice", ["pixel_values", "starts", "ends"], ["cut"], "cut")
    first.input[0] = "cut"
    shape = next(node for node in proto.graph.node if node.op_type == "Shape")
    shape.input[0] = "cut"
    proto.graph.node.insert(0, whole)
    onnx.save(proto, "a.onnx")
    report = vit_zoo.verify("a.onnx")
    assert any("which the patch size does not divide" in fault for fault in report.faults)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dynamic": "h"}, "choose from hw, patches"),
        ({"dynamic": "hw", "to": ["onnx", "torchscript"]}, "apply to ONNX only"),
        ({"dynamic": "hw", "precision": "int8-weights"}, "int8 files have a fixed image size"),
        ({"dynamic": "hw", "include": ["preprocess"]}, "included preprocessing has a fixed output size"),
        ({"dynamic": "hw", "resize": "nearest"}, "unknown recipe 'nearest'"),
    ],
)
def test_options_that_do_not_fit_together(folder, options, message):
    with pytest.raises(InputError, match=message):
        vit_zoo.export(_model(), **options)
    assert list(Path().iterdir()) == []


def test_computed_positions_have_no_recipe(folder):
    with pytest.raises(InputError, match="resize applies to learned positions"):
        vit_zoo.export(_model(**KINDS["rotation"]), dynamic="hw", resize="timm")


def test_the_command_line(folder, cli):
    code, out, _ = cli("export", "vit_digits", "--onnx", "--dynamic", "hw", "--set", "resize=dino")
    assert code == 0
    assert "verified" in out
    assert cli("verify", "vit_digits.onnx", "--full").code == 0
    assert cli("export", "vit_digits", "--onnx", "--dynamic", "b").code == 2
