"""Tests of heads that project into a space of images and texts: their output is an embedding, not the scores of classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import vit_zoo
from support.models import noise
from vit_zoo.errors import InputError
from vit_zoo.formats import describe
from vit_zoo.registry.catalog import variants
from vit_zoo.registry.models import get_config

SIZES = {"image_size": 32, "depth": 2, "dim": 64, "heads": 1, "dim_head": 64, "mlp_dim": 96}


@pytest.fixture
def model(folder):
    return noise(vit_zoo.create("clip_b32", **SIZES))


def test_the_registry_knows_which_heads_project():
    embedding = {name for name in vit_zoo.list_models() if get_config(name).output == "image_embeds"}
    assert embedding == {
        name for name in vit_zoo.list_models() if variants()[name].family in ("clip", "openclip", "evaclip", "pe_core")
    }
    assert get_config("clip_b16.openai").is_embedding
    assert get_config("clip_b16.hf_openai").is_embedding
    classifier = get_config("openclip_b16.laion2b_ft_in1k")
    assert (classifier.problem_type, classifier.output, classifier.classes) == (None, "logits", 1000)
    assert get_config("clip_b16", num_classes=10).output == "logits"
    assert get_config("clip_b16", num_classes=0).output == "pooler_output"


@pytest.mark.parametrize("to", ["hf", "open_clip"])
def test_it_is_known_from_the_layout_of_a_checkpoint(model, to):
    out = "converted.pth" if to == "open_clip" else "converted"
    vit_zoo.convert(model, out, to)
    assert "problem_type" not in (Path("converted/config.json").read_text() if to == "hf" else "")
    loaded = vit_zoo.load(out, heads=1, act="quick_gelu", image_size=32)
    assert loaded.config.is_embedding
    assert vit_zoo.load(out, heads=1, act="quick_gelu", image_size=32, num_classes=3).config.output == "logits"
    (done,) = vit_zoo.export(loaded, out="loaded.onnx", verify=False)
    assert vit_zoo.open(done.path).outputs == ("image_embeds",)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_exports_are_named_and_judged_as_embeddings(model):
    done = vit_zoo.export(model, ["onnx", "torchscript"], out=".")
    for export in done:
        assert export.report.ok
        assert {c.output for c in export.report.comparisons} == {"image_embeds"}
        assert all(c.top1 is None for c in export.report.comparisons)
        assert describe(export.path).config.is_embedding
    images = torch.randn(2, 3, 32, 32)
    features = model.features(images)
    assert "logits" not in features
    torch.testing.assert_close(features["image_embeds"], model(images))
    (int8,) = vit_zoo.export(model, out="int8.onnx", precision="int8-weights")
    assert all(a.top1 is None for a in int8.report.agreements)
    for options in ({"outputs": ["logits"]}, {"include": ["softmax"]}):
        with pytest.raises(InputError, match="image_embeds"):
            vit_zoo.export(model, **options)
    with pytest.raises(InputError, match="labels do not apply"):
        vit_zoo.export(model, labels="a,b")


def test_files_of_version_0_1_call_it_logits_and_still_verify(model):
    vit_zoo.save(model, "new")
    (new,) = vit_zoo.export(model, out="new.onnx", verify=False)
    model.config = model.config.replace(problem_type=None)  # as that version wrote it
    vit_zoo.save(model, "old")
    (old,) = vit_zoo.export("old", out="old.onnx", verify=False)
    assert vit_zoo.open(old.path).outputs == ("logits",)
    assert "problem_type" not in Path("old/config.json").read_text()
    for file, reference in (
        ("old.onnx", None),
        ("old.onnx", "old"),
        ("old.onnx", "new"),
        ("new.onnx", "old"),
        ("new.onnx", None),
    ):
        report = vit_zoo.verify(file, reference)
        assert report.ok, report.faults
        assert reference != "new" or all(c.top1 is None for c in report.comparisons)
    assert vit_zoo.verify("new", "old").ok
    (stated,) = vit_zoo.export("old", out="stated.onnx", verify=False, problem_type="embedding")
    assert vit_zoo.open(stated.path).outputs == ("image_embeds",)
    assert new.config.is_embedding


def test_a_published_embedding(model):
    vit_zoo.publish(model, "me/clip", dry_run="staged", licence="mit", random_weights=True, without=["fp16", "int8"])
    assert vit_zoo.open("staged/onnx/model.onnx").outputs == ("image_embeds",)
    assert vit_zoo.load("staged").config.is_embedding
    document = json.loads(Path("staged/config.json").read_text())
    assert "problem_type" not in document  # transformers knows no such word
    assert '"image_embeds"' in Path("staged/README.md").read_text()
    assert "features of width 512" in Path("staged/README.md").read_text()


def test_a_new_head_is_a_classifier(model):
    model.set_head(4, labels=list("abcd"))
    assert (model.config.output, model.config.problem_type) == ("logits", None)
    restored = noise(vit_zoo.create("clip_b32", **SIZES))
    restored.head = torch.nn.Linear(64, 3)
    assert restored.config.output == "logits"
    # somebody with exactly as many classes states what they are
    assert vit_zoo.create("clip_b32", **SIZES, problem_type="single_label_classification").config.output == "logits"
