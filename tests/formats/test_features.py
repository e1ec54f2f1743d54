"""Tests of the features that exported files have: which are chosen, and what is taken from tokens."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import vit_zoo
from support.foreign_onnx import classifier
from support.models import SMALL
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.formats.features import Feature, feature_of

TOKENS = ["last_hidden_state", "block.0"]


def exported(folder, name, outputs, **fields):
    (done,) = vit_zoo.export(
        vit_zoo.create(name, **{**SMALL, **fields}), out=folder / "model.onnx", outputs=outputs, verify="quick"
    )
    return vit_zoo.open(done.path, isolated=False)


@pytest.mark.parametrize(
    ("name", "fields", "prefix", "parts"),
    [
        ("vit_ti16", {}, 1, {"class_token": [0], "dist_token": None}),
        ("deit_distilled_ti16", {}, 2, {"class_token": [0], "dist_token": [1]}),
        ("dinov2_s14_reg4", {"image_size": 28, "patch_size": 14}, 5, {"class_token": [0], "dist_token": None}),
        ("siglip_b16", {}, 0, {"class_token": None, "dist_token": None}),
    ],
)
def test_parts_of_tokens(folder, name, fields, prefix, parts):
    """Class token, distillation token and registers come before the patches; a mean is that of float64."""
    file = exported(folder, name, TOKENS, **fields)
    assert file.config.spec.prefix_tokens == prefix
    images = np.random.default_rng(0).normal(size=(3, *file.input_shape[1:])).astype("f4")
    values = file.run(images)
    for output in TOKENS:
        tokens = values[output].astype("f8")
        expected = {**parts, "patch_mean": range(prefix, tokens.shape[1]), "token_mean": range(tokens.shape[1])}
        for part, rows in expected.items():
            if rows is None:
                with pytest.raises(InputError, match=f"the model has no {part.replace('_', ' ')}"):
                    feature_of(file, f"{output}:{part}")
                continue
            feature = feature_of(file, f"{output}:{part}")
            assert feature.name == f"{output}:{part}"
            x = feature.of(values)
            assert x.dtype == np.float32
            np.testing.assert_allclose(x, tokens[:, list(rows)].mean(axis=1), rtol=1e-6, atol=1e-7)
    assert feature_of(file, "patch_mean") == feature_of(file, "last_hidden_state:patch_mean")
    assert feature_of(file).name == f"last_hidden_state:{'class_token' if parts['class_token'] else 'patch_mean'}"


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        (["logits", "last_hidden_state", "pooler_output"], "pooler_output"),
        (["pooler_output"], "pooler_output"),
        (["last_hidden_state", "logits"], "last_hidden_state:class_token"),
    ],
)
def test_the_default(folder, outputs, chosen):
    file = exported(folder, "vit_ti16", outputs)
    assert feature_of(file).name == chosen
    assert feature_of(file, outputs[0] if outputs[0] != "last_hidden_state" else None).name in (outputs[0], chosen)


def test_the_default_of_a_model_of_images_and_texts(folder):
    file = exported(folder, "clip_b16", ["pooler_output", "image_embeds"], num_classes=8, problem_type="embedding")
    assert feature_of(file) == Feature("image_embeds")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (None, "nor 'pooler_output', so the features must be named (it has logits [batch, 5], block.0 [batch, 13, 48]; output"),
        ("pooler_output", "has no output 'pooler_output' (it has logits [batch, 5]"),
        ("class_token", "has no output 'last_hidden_state' (it has logits [batch, 5]"),
        ("block.0", "' is not one vector for each image; of tokens, 'block.0:class_token' or 'block.0:patch_mean' is one"),
        ("logits:class_token", "output 'logits' has no tokens"),
        ("block.0:mean", "unknown part 'mean' of output 'block.0'; choose from class_token, dist_token, patch_mean, token_mean"),
        ("", "has no output ''"),
    ],
)  # fmt: skip
def test_what_a_file_does_not_have(folder, wanted, text):
    file = exported(folder, "vit_ti16", ["logits", "block.0"], num_classes=5)
    with pytest.raises(InputError) as caught:
        feature_of(file, wanted)
    assert text in str(caught.value)
    assert feature_of(file, "logits").name == "logits"


def theirs(folder, shape):
    """A file of another tool, whose one output is the image in another shape."""
    nodes = [
        helper.make_node("Constant", [], ["shape"], value_ints=[-1, *shape]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", *shape])
    onnx.save(classifier(nodes, outputs=[output], tail=False), folder / "theirs.onnx")
    return vit_zoo.open(folder / "theirs.onnx", isolated=False)


def test_files_of_other_tools(folder):
    """One output with a vector for each image needs no name; of tokens it is not known which are the patches."""
    assert feature_of(theirs(folder, [192])) == Feature("y")
    file = theirs(folder, [64, 3])
    values = file.run(np.arange(2 * 192, dtype="f4").reshape(2, 3, 8, 8))
    with pytest.raises(InputError, match="so the features must be named"):
        feature_of(file)
    np.testing.assert_array_equal(feature_of(file, "y:class_token").of(values), values["y"][:, 0])
    np.testing.assert_allclose(feature_of(file, "y:token_mean").of(values), values["y"].mean(axis=1))
    with pytest.raises(InputError, match="the file does not state which tokens are the patches"):
        feature_of(file, "y:patch_mean")


def test_values_that_are_no_features():
    with pytest.raises(RefusedContent, match="output 'y': expected floats, got int64"):
        Feature("y").of({"y": np.zeros((2, 3), "i8")})
    with pytest.raises(RefusedContent, match=r"output 'y': expected tokens \[batch, tokens, width\], got \[2, 3\]"):
        Feature("y", "token_mean").of({"y": np.zeros((2, 3), "f4")})
    assert Feature("y").of({"y": np.zeros((2, 3), "f2")}).dtype == np.float32
