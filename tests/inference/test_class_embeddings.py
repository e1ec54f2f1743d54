"""Tests of zero-shot heads against transformers' CLIP and SigLIP, and of the files of class embeddings."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

import vit_zoo
from support import peers
from support.models import noise
from support.onnx_outputs import relative
from support.tiny import TINY
from vit_zoo.errors import InputError, NotRepresentable
from vit_zoo.inference.probe.class_embeddings import read_class_embeddings

GOAL = 1e-5  # of the largest logit
LABELS = [f"a photo of {k}" for k in ("cats", "dogs", "owls", "frogs", "bees", "ants", "bats")]
LOGIT_SCALE = float(np.log(100))


def joint(kind, folder):
    """A saved model with both encoders, its texts, and what it computes for images."""
    peer, tokens = peers.transformers_joint(kind, **({"projection_dim": 24} if kind == "CLIP" else {}))
    noise(peer, scale=0.15)
    peer.logit_scale.data.fill_(LOGIT_SCALE)
    peer.save_pretrained(folder)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        result, texts = peer(pixel_values=images, input_ids=tokens), peers.text_embeddings(peer, tokens).numpy()
    return peer, texts, images, result.logits_per_image


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "clip"
    return folder, *joint("CLIP", folder)


@pytest.fixture
def stated(clip, tmp_path):
    """A file of the classes, as a user saves it."""
    path = tmp_path / "classes.npz"
    np.savez(path, embeddings=clip[2], labels=LABELS)
    return path


def outputs(done, images):
    with torch.inference_mode():
        return vit_zoo.load(done.folder).eval()(images), vit_zoo.open(done.export.path).run(images.numpy())["logits"]


def test_clip_against_transformers(clip, stated, tmp_path):
    folder, peer, _, images, wanted = clip
    done = vit_zoo.probe(folder, out=tmp_path / "out", classes=stated)
    for found in outputs(done, images):
        assert relative(found, wanted) < GOAL
    assert done.config.labels == tuple(LABELS)
    assert done.config.problem_type is None
    assert done.accuracy is None
    by_module = vit_zoo.probe(peer, out=tmp_path / "module", classes=stated, preprocess="clip")
    for found in outputs(by_module, images):
        assert relative(found, wanted) < GOAL
    probabilities = (
        vit_zoo.predict(done.export.path, np.full((40, 40, 3), 90, np.uint8), top=7) if done.config.preprocess else None
    )
    assert probabilities is None or sum(probabilities[0].probabilities) == pytest.approx(1)


def test_siglip_against_transformers(tmp_path):
    _, texts, images, wanted = joint("Siglip", tmp_path / "siglip")
    classes = {"embeddings": torch.from_numpy(texts), "labels": LABELS}
    done = vit_zoo.probe(tmp_path / "siglip", out=tmp_path / "out", classes=classes)
    for found in outputs(done, images):
        assert relative(found, wanted) < GOAL
    assert done.config.problem_type == "multi_label_classification"
    assert done.config.spec.head_bias


def test_a_head_of_classes_is_replaced_by_another(clip, stated, tmp_path):
    folder, _, texts, images, wanted = clip
    first = vit_zoo.probe(folder, out=tmp_path / "first", classes=stated)
    again = {"embeddings": texts[[4, 2]], "labels": ["bees", "owls"], "logit_scale": 100}
    done = vit_zoo.probe(first.folder, out=tmp_path / "again", classes=again)
    for found in outputs(done, images):
        assert relative(found, wanted[:, [4, 2]]) < GOAL


def test_the_scale_that_is_stated_comes_first(clip, stated, tmp_path, caplog):
    folder, _, texts, images, wanted = clip
    by_option = vit_zoo.probe(folder, out=tmp_path / "option", classes=stated, logit_scale=50)
    assert relative(outputs(by_option, images)[1], wanted / 2) < GOAL
    in_file = {"embeddings": texts, "labels": LABELS, "logit_scale": np.array(25.0), "logit_bias": -3.0}
    by_file = vit_zoo.probe(folder, out=tmp_path / "file", classes=in_file)
    assert relative(outputs(by_file, images)[1], wanted / 4 - 3) < GOAL
    assert by_file.config.problem_type == "multi_label_classification"
    assert "logarithm" not in caplog.text
    vit_zoo.probe(folder, out=tmp_path / "small", classes=stated, logit_scale=LOGIT_SCALE)
    assert "logit_scale = 4.60517 is the factor itself; checkpoints hold its logarithm, which would be 100" in caplog.text


def test_a_checkpoint_without_a_scale_needs_one(clip, stated, tmp_path, cli):
    vit_zoo.save(vit_zoo.load(clip[0]), tmp_path / "images")
    result = cli("probe", tmp_path / "images", "--classes", stated, "-o", tmp_path / "out")
    assert result.code == 2
    assert "--logit-scale 100 is that of OpenAI's CLIP" in result.err
    result = cli("probe", tmp_path / "images", "--classes", stated, "-o", tmp_path / "out", "--logit-scale", 100)
    assert result.code == 0
    assert relative(vit_zoo.open(tmp_path / "out" / "clip.onnx").run(clip[3].numpy())["logits"], clip[4]) < GOAL


def test_images_measure_the_accuracy(clip, tmp_path, cli):
    folder, _, texts, *_ = clip
    random = np.random.default_rng(0)
    for label in ("owls", "bees", "ants"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(random.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(tmp_path / "photos" / label / f"{i}.png")
    labels = [label.removeprefix("a photo of ") for label in LABELS]
    np.savez(tmp_path / "classes.npz", embeddings=texts, labels=labels)
    command = ["probe", folder, tmp_path / "photos", "--classes", tmp_path / "classes.npz", "--preprocess", "clip", "-o"]
    result = cli(*command, tmp_path / "out")
    assert result.code == 0
    predictions = vit_zoo.predict(tmp_path / "out" / "clip.onnx", tmp_path / "photos", top=1)
    right = [p.labels[0] == p.file.split("/")[-2] for p in predictions]
    accuracy = vit_zoo.load(tmp_path / "out").config.accuracy
    assert (accuracy.top1, accuracy.images, accuracy.split) == (np.mean(right), 12, "all, zero-shot")
    (tmp_path / "photos" / "cows").mkdir()
    (tmp_path / "photos" / "owls" / "1.png").rename(tmp_path / "photos" / "cows" / "1.png")
    result = cli(*command, tmp_path / "other")
    assert result.code == 2
    assert "its class is 'cows', which is none of the classes" in result.err


def test_no_other_library_has_such_a_head(clip, stated, tmp_path):
    done = vit_zoo.probe(clip[0], out=tmp_path / "out", classes=stated)
    for target in ("timm", "hf", "open_clip", "torchvision", "vit-pytorch", "google"):
        with pytest.raises(NotRepresentable):
            vit_zoo.convert(done.folder, tmp_path / "converted", target)
    with pytest.raises(InputError, match=r"drop 'projection.\*' with it"):
        vit_zoo.load(done.folder, allow_drop=["head.*"])
    features = vit_zoo.load(done.folder, allow_drop=["head.*", "projection.*"])
    assert features.config.output == "pooler_output"
    assert vit_zoo.load(done.folder, num_classes=4).spec.projection == 0
    copy = vit_zoo.convert(done.folder, tmp_path / "copy", "vitzoo")
    assert copy.config == done.config


def test_files_are_read_alike(clip, stated, tmp_path):
    texts = clip[2]
    metadata = {"labels": json.dumps(LABELS), "logit_scale": "100", "logit_bias": "-1.5"}
    safetensors.numpy.save_file({"embeddings": texts.astype("<f2")}, tmp_path / "classes.safetensors", metadata)
    found = read_class_embeddings(tmp_path / "classes.safetensors")
    assert (found.labels, found.logit_scale, found.logit_bias) == (tuple(LABELS), 100.0, -1.5)
    np.testing.assert_array_equal(found.vectors, texts.astype("<f2").astype("<f8"))
    np.savez_compressed(
        tmp_path / "packed.npz", embeddings=np.asfortranarray(texts.astype("<f8")), labels=np.array(LABELS), logit_scale=[2.0]
    )
    found = read_class_embeddings(tmp_path / "packed.npz")
    assert (found.labels, found.logit_scale, found.logit_bias) == (tuple(LABELS), 2.0, None)
    np.testing.assert_array_equal(found.vectors, texts.astype("<f8"))
    umlauts = ["Kätzchen", "犬", "🦉"]
    np.savez(tmp_path / "names.npz", embeddings=texts[:3], labels=np.array(umlauts, ">U9"))
    assert list(read_class_embeddings(tmp_path / "names.npz").labels) == umlauts


ROW = np.ones((2, 24), "<f4")
WHOLE = {"embeddings": ROW, "labels": ["a", "b"]}
FAULTS = {
    "no labels": (2, "has no 'labels'", {"embeddings": ROW}),
    "no embeddings": (2, "has no 'embeddings'", {"labels": ["a", "b"]}),
    "too few labels": (2, "1 labels for 2 embeddings", {"embeddings": ROW, "labels": ["a"]}),
    "another shape": (2, "'embeddings' must be [classes, width], got [24]", {"embeddings": ROW[0], "labels": ["a"]}),
    "numbers for labels": (2, "'labels' must be text", {"embeddings": ROW, "labels": np.arange(2.0)}),
    "integers": (7, "'labels' has type <i8", {"embeddings": ROW, "labels": np.arange(2)}),
    "an empty label": (2, "the name of class 1 is empty", {"embeddings": ROW, "labels": ["a", ""]}),
    "Python objects": (7, "Python objects", {"embeddings": ROW, "labels": np.array(["a", {}], object)}),
    "no finite values": (7, "of 'b' is zero or not finite", {"embeddings": ROW * [[1], [np.nan]], "labels": ["a", "b"]}),
    "zeros": (7, "embedding of 'a' is zero", {"embeddings": ROW * [[0], [1]], "labels": ["a", "b"]}),
    "another width": (2, "have width 5, those of its images 24", {"embeddings": ROW[:, :5], "labels": ["a", "b"]}),
    "one class": (2, "one class only", {"embeddings": ROW[:1], "labels": ["a"]}),
    "a negative scale": (2, "logit_scale must be finite and above 0, got -1", {**WHOLE, "logit_scale": -1.0}),
    "several scales": (2, "logit_scale must be a number", {**WHOLE, "logit_scale": [1.0, 2.0]}),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_bad_files_are_refused(case, clip, tmp_path, cli):
    code, message, arrays = FAULTS[case]
    np.savez(tmp_path / "classes.npz", **arrays)
    result = cli("probe", clip[0], "--classes", tmp_path / "classes.npz", "-o", tmp_path / "out")
    assert (result.code, message in result.err) == (code, True), result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [0x7FFFFFFF, 0x110000, 0xD800])
def test_labels_that_are_no_characters_are_refused(number, tmp_path, cli):
    np.savez(tmp_path / "classes.npz", embeddings=ROW, labels=np.array([number, 0x61], "<u4").view("<U1"))
    result = cli("probe", "vit_digits", "--classes", tmp_path / "classes.npz", "-o", tmp_path / "out")
    assert (result.code, "'labels' is not valid text" in result.err) == (7, True), result.err


def test_other_files_and_models_are_refused(clip, stated, tmp_path, cli):
    (tmp_path / "text.npz").write_text("cat, dog")
    result = cli("probe", clip[0], "--classes", tmp_path / "text.npz", "-o", tmp_path / "out")
    assert (result.code, "expected embeddings of classes" in result.err) == (2, True), result.err
    safetensors.numpy.save_file({"embeddings": ROW}, tmp_path / "bad.safetensors", {"labels": "[a"})
    result = cli("probe", clip[0], "--classes", tmp_path / "bad.safetensors", "-o", tmp_path / "out")
    assert (result.code, "labels is not JSON" in result.err) == (2, True), result.err
    result = cli("probe", "vit_digits", "--classes", stated, "-o", tmp_path / "out")
    assert (result.code, "has 10 classes, and no embedding of images" in result.err) == (2, True), result.err
    vit_zoo.save(vit_zoo.create("vit_ti16", **{**TINY, "num_classes": 0, "pool": "none"}), tmp_path / "tokens")
    result = cli("probe", tmp_path / "tokens", "--classes", stated, "-o", tmp_path / "out")
    assert (result.code, "pools no embedding of an image" in result.err) == (2, True), result.err
    result = cli("probe", clip[0], "--classes", stated, "-o", tmp_path / "out", "--held-out", 0.1)
    assert (result.code, "--held-out 0.1 applies to a fit to images" in result.err) == (2, True), result.err
    result = cli("probe", clip[0], "--classes", stated, "-o", tmp_path / "out", "--workers", 2)
    assert (result.code, "--workers 2 applies to images" in result.err) == (2, True), result.err
