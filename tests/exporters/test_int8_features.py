"""Tests of the accuracy gate of int8 files whose outputs are no classes: features, classes that each apply or not, and values."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.errors import CheckFailed, InputError
from vit_zoo.loading.image_folder import read_image_folder
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.parity.report import ParityReport
from vit_zoo.parity.tolerance import Int8Limits, Judgement, agreement

HOW = Preprocess(size=(32, 48), resize_to=None, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
MULTI, VALUE = "multi_label_classification", "regression"
PLANTED = "blocks.0.mlp.fc2"
IMAGES = 12


@pytest.fixture
def photos(folder):
    Path("photos").mkdir()
    many_photos(IMAGES)


def many_photos(count):
    random = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((48, 32), Image.Resampling.BICUBIC).save(f"photos/{i:02}.png")


def model(classes=0, *, outliers=0, **fields):
    """A model of random weights; `outliers`: the factor by which some inputs of one layer are larger than the others."""
    made = noise(vit_zoo.create("vit_b16", **{**SMALL, "num_classes": classes}), seed=3, scale=0.15)
    made.config = made.config.replace(name="ours", preprocess=HOW, **fields)
    if outliers:
        mlp = made.blocks[0].mlp
        with torch.no_grad():
            mlp.fc1.weight[:3] *= outliers
            mlp.fc1.bias[:3] = 3 * outliers
            mlp.fc2.weight[:, :3] /= outliers
    return made


def exported(source, **options):
    (done,) = vit_zoo.export(source, out="m.onnx", force=True, **{"precision": "int8-dynamic", "evaluate": "photos", **options})
    return done


def prepared(source):
    return np.concatenate(list(read_image_folder(Path("photos"), source.config).batches()))


def rows_of_file(images, output):
    session = ort.InferenceSession("m.onnx")
    return np.concatenate([session.run([output], {session.get_inputs()[0].name: x[None]})[0] for x in images])


def cosines(a, b):
    a, b = (x.reshape(len(x), -1).astype(float) for x in (a, b))
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def nearest(rows):
    """The index of each row's nearest other row, by the angle."""
    return [max((j for j in range(len(rows)) if j != i), key=lambda j, i=i: cosines(rows[i][None], rows[j][None])[0])
            for i in range(len(rows))]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "outputs"),
    [((0,), ()), ((5,), ("pooler_output",)), ((0,), ("last_hidden_state",)), ((5,), ("block.1.map",))],
    ids=["features", "features of a classifier", "tokens", "maps"],
)
def test_features_are_judged_by_neighbours_and_cosine(photos, source, outputs):
    """Both as numpy computes them from the file and the model; layers with outliers stay in float until the file passes."""
    source = model(*source, outliers=1000)
    with pytest.raises(CheckFailed, match=r"over 64 images: .*; required: 25.0 dB, 1 - cosine 2.0e-03") as caught:
        exported(source, evaluate=None, outputs=outputs)
    assert "evaluate=FOLDER leaves the layers in float that cause it, min_cosine=COSINE states another" in caught.value.hint
    done = exported(source, outputs=outputs, min_agreement=0.9)
    judged = done.report.judgement
    assert (judged.kept, judged.images, judged.agreeing) == ((PLANTED,), IMAGES, "neighbours")
    images = prepared(source)
    output = outputs[0] if outputs else "pooler_output"
    with torch.inference_mode():
        wanted = source.features(torch.from_numpy(images), output)[output].numpy()
    found = rows_of_file(images, output)
    axes = {2: (), 3: (1,), 4: (2, 3)}[wanted.ndim]
    pooled = [x.mean(axis=axes) if axes else x for x in (found, wanted)]
    assert judged.cosine == pytest.approx(cosines(*pooled).min(), abs=1e-5)
    equal = np.mean(np.array(nearest(pooled[0])) == np.array(nearest(pooled[1])))
    assert judged.agreement == pytest.approx(equal)
    assert judged.agreement >= 0.9
    assert f"nearest-neighbour agreement {100 * equal:.2f} %, lowest cosine {judged.cosine:.4f} on 12 real" in str(judged)
    assert json.loads(done.report.dumps())["judgement"]["agreeing"] == "neighbours"


def test_neighbours_are_searched_among_calibration_images_too(photos):
    """Of twelve images three are held out: each has eleven others to choose from. With outliers, some choose another one."""
    source = model(outliers=100)
    done = exported(source, precision="int8-static", calibrate="photos", evaluate=None, min_cosine=0.2)
    held_out = [3, 7, 11]
    images = prepared(source)
    with torch.inference_mode():
        wanted = source(torch.from_numpy(images)).numpy()
    found = rows_of_file(images, "pooler_output")
    equal = np.array(nearest(found)) == np.array(nearest(wanted))
    assert (done.judgement.images, done.judgement.kept) == (3, ())
    assert done.judgement.agreement == pytest.approx(equal[held_out].mean())
    assert equal[held_out].mean() < np.mean(np.array(nearest(found[held_out])) == np.array(nearest(wanted[held_out])))


def test_ten_neighbours_are_those_of_scikit_learn(photos):
    """Outliers exchange some of them; the minimum then leaves their layer in float, and one that nothing reaches fails."""
    many_photos(24)
    source = model(outliers=100)
    done = exported(source, min_neighbours=0.5)
    images = prepared(source)
    with torch.inference_mode():
        wanted = source(torch.from_numpy(images)).numpy()
    found = rows_of_file(images, "pooler_output")
    near = [NearestNeighbors(n_neighbors=10, metric="cosine").fit(x).kneighbors(return_distance=False) for x in (found, wanted)]
    share = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    assert done.judgement.neighbours == pytest.approx(share)
    assert 0.5 <= share < 1
    assert f"10 nearest neighbours kept {100 * share:.2f} %" in str(done.judgement)
    assert json.loads(done.report.dumps())["judgement"]["min_neighbours"] == 0.5
    better = exported(source, min_neighbours=share + 1e-4)
    assert better.judgement.neighbours > share
    assert len(better.judgement.kept) > len(done.judgement.kept)


def test_a_stated_cosine_takes_the_place_of_the_limits(photos, cli):
    """A file that misses the usual ones passes with no layer in float; `verify` is told the same."""
    vit_zoo.save(model(outliers=30), "model")  # which cost some decibels, not everything
    arguments = ("export", "model", "--onnx", "--int8", "dynamic", "-o", "m.onnx")
    usual = cli(*arguments)
    assert usual.code == 3
    assert "--evaluate FOLDER leaves" in usual.err
    assert "--min-cosine COSINE states another limit" in usual.err
    done = cli(*arguments, "--evaluate", "photos", "--min-cosine", "0.9", "--json")
    assert done.code == 0, done.err
    (document,) = json.loads(done.out)
    judged = document["judgement"]
    assert (judged["kept"], judged["min_cosine"], judged["min_agreement"]) == ([], 0.9, None)
    assert 0.9 <= judged["cosine"] < 0.998
    verify = ("verify", "m.onnx", "--against", "model", "--pictures", "photos")
    refused = cli(*verify)
    assert refused.code == 3
    assert "required: 25.0 dB, 1 - cosine 2.0e-03" in refused.err
    assert cli(*verify, "--min-cosine", "0.9").code == 0
    assert cli(*verify, "--min-cosine", "0.9999").code == 3
    strict = cli(*arguments, "--evaluate", "photos", "--min-cosine", "0.998")
    assert PLANTED in strict.out


def test_images_alone_keep_layers_in_float(photos):
    """For the usual limits, whatever the outputs stand for; also where a file passes its minimum and misses the limits."""
    for source in (
        model(outliers=1000),
        model(2, outliers=1000, problem_type=VALUE),
        model(1, outliers=1000, problem_type=VALUE),
    ):
        done = exported(source)
        assert done.judgement.kept == (PLANTED,)
        assert done.report.ok
    assert (done.judgement.agreement, done.judgement.cosine, done.report.agreements[0].angle) == (None, None, None)
    done = exported(model(5, outliers=1000), min_agreement=0.05)
    assert done.judgement.kept == (PLANTED,)


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("include", [(), ("sigmoid",)])
def test_classes_that_each_apply_or_not_agree_on_all_of_them(photos, outputs, include):
    """The first class says nothing of the others, and of a single output it is always the same."""
    source = model(outputs, problem_type=MULTI)
    with torch.no_grad():  # close to even, so that rounding changes decisions
        with torch.inference_mode():
            logits = source(torch.from_numpy(prepared(source)))
        source.head.bias -= logits.median(dim=0).values
    done = exported(source, precision="int8-weights", include=include, min_agreement=0.05)
    images = prepared(source)
    with torch.inference_mode():
        wanted = source(torch.from_numpy(images)).numpy() > 0
    found = rows_of_file(images, "probabilities" if include else "logits") > (0.5 if include else 0)
    assert done.judgement.agreeing == "decisions"
    assert done.judgement.agreement == pytest.approx((found == wanted).all(axis=1).mean())
    assert done.report.agreements[0].top1 is None
    assert "agreement on the classes that apply" in str(done.judgement)


def test_probabilities_of_one_class_of_several_are_judged_as_logits_are(photos):
    source = model(5)
    done = exported(source, include=["softmax"], min_agreement=0.5)
    images = prepared(source)
    with torch.inference_mode():
        wanted = source(torch.from_numpy(images)).numpy().argmax(axis=1)
    assert done.judgement.agreement == (rows_of_file(images, "probabilities").argmax(axis=1) == wanted).mean()
    assert set(json.loads(done.report.dumps())["judgement"]) == {
        "images", "agreement", "accuracy", "accuracy_before", "min_agreement", "min_accuracy", "kept",
    }  # fmt: skip  # as before


# the number of outputs, the problem type, options, and the message with its hint
REFUSED = [
    (0, None, {"min_accuracy": 0.9}, "the file has 'pooler_output'", "min_agreement=SHARE compares nearest neighbours"),
    (5, None, {"min_accuracy": 0.9, "outputs": ["block.1"]}, "the file has 'block.1'", "min_cosine=COSINE the features"),
    (4, MULTI, {"min_accuracy": 0.9}, "several or none can apply", "use min_agreement=SHARE"),
    (2, VALUE, {"min_agreement": 0.9}, "the model is a regression", "min_cosine=COSINE to another one"),
    (1, VALUE, {"min_agreement": 0.9}, "the model is a regression", "evaluate=FOLDER alone holds the file to the limits"),
    (1, VALUE, {"min_cosine": 0.9}, "a single output has no direction", "evaluate=FOLDER alone"),
    (1, MULTI, {"min_cosine": 0.9}, "a single output has no direction", "use min_agreement=SHARE"),
    (1, None, {"min_agreement": 0.9}, "nothing states what it stands for", "problem_type='regression' for a value"),
    (0, None, {"min_cosine": 1.0}, "min_cosine must be above 0 and below 1", None),
    (0, None, {"min_cosine": 0.9, "evaluate": None}, "need real images", "evaluate=FOLDER"),
    (0, None, {"min_agreement": 0.9, "evaluate": "few"}, "2 images are too few for nearest neighbours", "evaluate=FOLDER"),
    (0, None, {"min_neighbours": 0.9}, "12 images are too few for 10 nearest neighbours: at least 21", "evaluate=FOLDER"),
    (5, None, {"min_neighbours": 0.9}, "min_neighbours compares features, and the file has 'logits'", "use min_agreement=SHARE"),
    (4, MULTI, {"min_neighbours": 0.9}, "the file has 'logits'", "use min_agreement=SHARE"),
    (2, VALUE, {"min_neighbours": 0.9}, "the file has 'logits'", "evaluate=FOLDER alone"),
    (0, None, {"min_neighbours": 1.1}, "min_neighbours must be above 0 and at most 1", None),
    (0, None, {"min_cosine": 0.9, "precision": "fp16"}, "apply to int8 only", None),
]  # fmt: skip


@pytest.mark.parametrize(("outputs", "problem_type", "options", "message", "hint"), REFUSED)
def test_minima_that_do_not_fit_name_the_one_that_does(photos, outputs, problem_type, options, message, hint):
    Path("few").mkdir()
    for name in ("00.png", "01.png"):
        shutil.copy(Path("photos", name), "few")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        exported(model(outputs, problem_type=problem_type), **options)
    assert hint is None or hint in caught.value.hint
    assert not list(Path().glob("*.onnx*"))


def test_verify_takes_a_cosine_for_int8_files_only(photos):
    vit_zoo.save(model(), "model")
    vit_zoo.export("model", out="fp32.onnx", verify=False)
    for artifact, fault in (
        ("fp32.onnx", "min_cosine applies to int8 files only; this one is fp32"),
        ("model", "to int8 files only"),
    ):
        with pytest.raises(InputError, match=fault):
            vit_zoo.verify(artifact, "model", min_cosine=0.9)


def test_limits():
    """A cosine of 0.99 leaves an error of 14 % of the length, 17 dB; a stricter one than the usual keeps the usual decibels."""
    assert Int8Limits.of(None) == Int8Limits()
    assert Int8Limits.of(0.99).decibels == pytest.approx(16.99, abs=0.01)
    assert Int8Limits.of(0.9999).decibels == 25
    wanted = np.random.default_rng(0).normal(size=(8, 16))
    assert not agreement("x", 2 * wanted, wanted, logits=False, limits=Int8Limits.of(0.99)).ok  # the right angle, another length
    assert agreement("x", 1.01 * wanted, wanted, logits=False, limits=Int8Limits.of(0.99)).ok
    flipped = np.where(np.arange(8) == 0, -1e-6, 1.0)[:, None]
    one = agreement("x", flipped, np.abs(flipped), logits=False)
    assert one.ok
    assert str(one).endswith(" dB")


def test_what_a_judgement_says():
    """A missed minimum stands next to its figure."""
    fields = {"images": 20, "accuracy": None, "accuracy_before": None, "min_accuracy": None, "kept": ()}
    missed = Judgement(**fields, agreement=0.9, min_agreement=0.95, agreeing="neighbours", cosine=0.97, min_cosine=0.96)
    assert not missed.ok
    assert str(missed) == "nearest-neighbour agreement 90.00 %, required 95.00 %, lowest cosine 0.9700 on 20 real images"
    assert Judgement.model_validate(missed.model_dump()) == missed
    assert not Judgement(**fields, agreement=1.0, min_agreement=None, min_cosine=0.98, cosine=0.97).ok
    assert not Judgement(**fields, agreement=None, min_agreement=0.5).ok
    assert "judgement" in ParityReport.model_fields


def test_a_published_file_of_features_leaves_layers_in_float(folder, photos):
    source = model(outliers=1000)
    source.mark_random(())
    vit_zoo.publish(source, "me/features", dry_run="staged", licence="mit", without=["fp16"], calibrate="photos")
    report = json.loads(Path("staged/onnx/model_quantized.onnx.parity.json").read_text())
    assert report["judgement"]["kept"] == [PLANTED]
    assert report["judgement"]["cosine"] > 0.998
