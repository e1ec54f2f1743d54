"""Tests of `evaluate` against scikit-learn and scipy, on outputs that onnxruntime computes without this package's loop."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import torch
from onnx import TensorProto
from PIL import Image
from scipy.stats import binomtest, mode
from sklearn import metrics as theirs
from sklearn.neighbors import NearestNeighbors

import vit_zoo
from support import foreign_onnx
from vit_zoo.errors import InputError, MissingDependency, RefusedContent
from vit_zoo.files import read_image
from vit_zoo.inference.evaluate.classes import class_numbers
from vit_zoo.registry.catalog import zoo_folder
from vit_zoo.registry.labels import label_names

DIGITS = zoo_folder() / "vit_digits"
HELD_OUT = sorted((DIGITS / "held_out").glob("*.png"))
CLASSES = np.array([int(path.stem.split("_")[1]) for path in HELD_OUT])
MULTI = "multi_label_classification"


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch):
    """By default: opening a file takes more time here than running it."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})


def digits_model(noise, *, seed=0, **fields):
    """The shipped model with disturbed weights, which makes mistakes."""
    model = vit_zoo.load("vit_digits")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.numel() > 1:
                p.add_(noise * p.std() * torch.randn(p.shape, generator=generator))
    model.config = model.config.replace(**fields)
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exported files by name, and `held_out`, the held-out digits in a folder for each class."""
    folder = tmp_path_factory.mktemp("files")
    valued = digits_model(0, labels=None)
    valued.set_head(2)
    valued.config = valued.config.replace(problem_type="regression", labels=("width", "height"))
    models = {
        "digits": (vit_zoo.load("vit_digits"), {}),
        "worse": (digits_model(0.7), {}),
        "probabilities": (digits_model(0.7), {"include": ["softmax"]}),
        "features": (digits_model(0.7), {"outputs": ["pooler_output"]}),
        "others": (digits_model(0.8), {"outputs": ["pooler_output"]}),
        "several": (digits_model(0.7, problem_type=MULTI), {}),
        "values": (valued, {}),
        "prepares": (vit_zoo.load("vit_digits"), {"include": ["preprocess"]}),
    }
    for name, (model, options) in models.items():
        vit_zoo.export(model, out=folder / f"{name}.onnx", verify=False, **options)
    for path, number in zip(HELD_OUT, CLASSES, strict=True):
        (folder / "held_out" / str(number)).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "held_out" / str(number))
    return folder


def outputs_of(path):
    """The only output of a file for the held-out digits, one image at a time."""
    session = ort.InferenceSession(path)
    how = vit_zoo.load("vit_digits").config.preprocess
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: how(read_image(x))[None]})[0] for x in HELD_OUT])


def write_csv(path, rows, head=("path", "label")):
    with Path(path).open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def held_out_csv(labels, path="images.csv"):
    return write_csv(path, zip(HELD_OUT, labels, strict=True))


def test_the_recorded_accuracy_is_reproduced(files, folder):
    """From folders and from a table: the very images that the recipe records as wrong are."""
    recorded = json.loads((DIGITS / "recipe.json").read_text())["held_out"]
    for images in (files / "held_out", held_out_csv(CLASSES)):
        done = vit_zoo.evaluate(files / "digits.onnx", images)
        assert (done.accuracy.count, done.accuracy.of) == (recorded["correct"], recorded["of"])
        assert round(done.accuracy.share, 6) == recorded["accuracy"]
        wrong = {Path(path).name: predicted for path, _, predicted, _, correct in done.table.rows if not correct}
        assert wrong == recorded["wrong"]


def test_figures_of_a_classifier_are_scikit_learns(files):
    logits = outputs_of(files / "worse.onnx").astype(float)
    predicted = logits.argmax(axis=1)
    order = np.argsort(CLASSES, kind="stable")  # of the folders
    both = vit_zoo.evaluate(files / "worse.onnx", files / "held_out", against=files / "probabilities.onnx")
    for done in (both, both.against):
        assert done.accuracy.share == theirs.accuracy_score(CLASSES, predicted)
        assert 0.3 < done.accuracy.share < 0.95
        assert done.top5.share == theirs.top_k_accuracy_score(CLASSES, logits, k=5)
        report = theirs.classification_report(CLASSES, predicted, output_dict=True, zero_division=np.nan)
        for row in done.classes:
            assert (row.images, row.recall) == (report[row.label]["support"], pytest.approx(report[row.label]["recall"]))
            assert row.precision == pytest.approx(report[row.label]["precision"])
        matrix = theirs.confusion_matrix(CLASSES, predicted)
        for pair in done.confusions:
            assert pair.images == matrix[int(pair.label), int(pair.predicted)]
        np.fill_diagonal(matrix, 0)
        assert [pair.images for pair in done.confusions] == sorted(matrix.ravel(), reverse=True)[:10]
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        sure = (chances / chances.sum(axis=1, keepdims=True)).max(axis=1)
        error = 0
        for low in np.arange(15) / 15:
            inside = (sure > low) & (sure <= low + 1 / 15 + 1e-12)
            error += abs(sure[inside].sum() - (predicted == CLASSES)[inside].sum()) / 360
        assert done.calibration.error == pytest.approx(error, abs=1e-5)
        assert [row[2] for row in done.table.rows] == [str(x) for x in predicted[order]]
        assert [row[3] for row in done.table.rows] == pytest.approx(list(sure[order]), abs=1e-5)
    assert both.difference.same == 1


def test_the_difference_of_two_files(files):
    wrong = [outputs_of(files / f"{name}.onnx").argmax(axis=1) != CLASSES for name in ("worse", "digits")]
    done = vit_zoo.evaluate(files / "worse.onnx", files / "held_out", against=files / "digits.onnx")
    measured = done.difference
    assert (measured.both, measured.neither) == ((~wrong[0] & ~wrong[1]).sum(), (wrong[0] & wrong[1]).sum())
    assert (measured.only_this, measured.only_other) == ((~wrong[0] & wrong[1]).sum(), (wrong[0] & ~wrong[1]).sum())
    assert measured.p == pytest.approx(binomtest(measured.only_this, measured.only_this + measured.only_other).pvalue)
    assert measured.difference == pytest.approx(done.accuracy.share - done.against.accuracy.share)
    assert measured.low < measured.difference < measured.high < 0
    assert f"points less than digits.onnx (95 % interval {100 * measured.low:.1f} to" in str(done)
    assert "McNemar p < .001" in str(done)
    assert done.table.columns[5:] == ("against_predicted", "against_score", "against_correct")
    assert sum(row[7] for row in done.table.rows) == done.against.accuracy.count


def test_a_file_against_itself_loses_nothing(files):
    done = vit_zoo.evaluate(files / "prepares.onnx", files / "held_out", against=files / "digits.onnx")
    assert (done.difference.p, done.difference.difference, done.difference.same) == (1, 0, 1)
    assert "top-1 99.4 %, as much as digits.onnx (95 % interval -1.2 to 1.2, McNemar p = 1)" in str(done)


def test_features_are_judged_by_their_neighbours(files):
    rows, other = outputs_of(files / "features.onnx"), outputs_of(files / "others.onnx")
    done = vit_zoo.evaluate(files / "features.onnx", files / "held_out", against=files / "others.onnx", k=5)
    near = [NearestNeighbors(n_neighbors=5, metric="cosine").fit(x).kneighbors(return_distance=False) for x in (rows, other)]
    assert done.accuracy.share == theirs.accuracy_score(CLASSES, mode(CLASSES[near[0]], axis=1).mode)
    shared = [len(set(a) & set(b)) / 5 for a, b in zip(*near, strict=True)]
    assert done.shared_neighbours.share == pytest.approx(np.mean(shared), abs=2 / 1800)  # cosines closer than 1e-6 are equal
    assert 0.2 < np.mean(shared) < 0.99
    assert done.difference.both + done.difference.only_this == done.accuracy.count
    assert "of the 5 nearest neighbours of an image" in str(done)
    unnamed = vit_zoo.evaluate(files / "features.onnx", DIGITS / "held_out", against=files / "others.onnx", k=5)
    assert unnamed.shared_neighbours.share == pytest.approx(done.shared_neighbours.share)
    assert (unnamed.accuracy, unnamed.difference) == (None, None)
    assert [path for path, _ in unnamed.table.rows] == [path.as_posix() for path in HELD_OUT]
    assert sum(row[1] != share for row, share in zip(unnamed.table.rows, shared, strict=True)) <= 2


def test_several_labels_are_scikit_learns(files, folder):
    applies = np.random.default_rng(0).random((360, 10)) < 0.15
    applies[np.arange(360), CLASSES] = True
    applies[::7] = False  # images to which none applies
    applies[:, 9] = False  # a class that applies to none
    chances = 1 / (1 + np.exp(-outputs_of(files / "several.onnx").astype(float)))
    labels = [";".join(str(i) for i in np.flatnonzero(row)) for row in applies]
    done = vit_zoo.evaluate(files / "several.onnx", held_out_csv(labels))
    assert done.kind == "multi-label"
    assert done.accuracy.share == theirs.accuracy_score(applies, chances > 0.5)
    each = [theirs.average_precision_score(applies[:, i], chances[:, i]) for i in range(9)]
    assert done.mean_average_precision == pytest.approx(np.mean(each), abs=1e-6)
    recall = theirs.recall_score(applies, chances > 0.5, average=None, zero_division=0)
    rows = {row.label: row for row in done.classes}
    for i in range(9):
        assert rows[str(i)].average_precision == pytest.approx(each[i], abs=1e-6)
        assert rows[str(i)].recall == pytest.approx(recall[i])
    assert rows["9"].recall is None
    assert [row[1] for row in done.table.rows] == labels
    lists = pd.DataFrame({"path": list(map(str, HELD_OUT)), "classes": [row.split(";") if row else [] for row in labels]})
    lists.to_parquet("images.parquet")
    same = vit_zoo.evaluate(files / "several.onnx", "images.parquet", label_column="classes", against=files / "several.onnx")
    assert same.accuracy == done.accuracy
    assert (same.difference.p, same.difference.same) == (1, 1)


def test_a_regression_is_scikit_learns(files, folder):
    wanted = np.random.default_rng(0).normal(size=(360, 2))
    outputs = outputs_of(files / "values.onnx")
    done = vit_zoo.evaluate(files / "values.onnx", held_out_csv([f"{a!r};{b!r}" for a, b in wanted.tolist()]))
    results = done.values
    assert [row.label for row in results] == ["width", "height"]
    for i, row in enumerate(results):
        assert row.mean_absolute_error == pytest.approx(theirs.mean_absolute_error(wanted[:, i], outputs[:, i]), rel=1e-5)
        assert row.root_mean_squared_error == pytest.approx(theirs.root_mean_squared_error(wanted[:, i], outputs[:, i]), rel=1e-5)
        assert row.r_squared == pytest.approx(theirs.r2_score(wanted[:, i], outputs[:, i]), rel=1e-5)
    assert (done.accuracy, done.kind) == (None, "regression")


def test_the_number_of_workers_changes_nothing(files):
    one, three = (vit_zoo.evaluate(files / "worse.onnx", files / "held_out", workers=count) for count in (1, 3))
    assert (one, one.table) == (three, three.table)


def dividing(path):
    """A classifier of another tool that divides by the sum of the image: for a black one the result is not a number."""
    node = foreign_onnx.node
    nodes = [node("ReduceSum", ["x"], ["sum"], keepdims=1), node("Div", ["x", "sum"], ["y"])]
    inputs = [foreign_onnx.value("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    onnx.save(foreign_onnx.classifier(nodes, "y", inputs=inputs), path)


def test_images_that_cannot_be_measured_are_listed(files, folder):
    """A damaged file and a missing one; for one of two files also an image whose outputs are not finite."""
    shutil.copytree(files / "held_out", "images")
    Path("images/4/broken.png").write_bytes(b"no image")
    Image.new("L", (8, 8)).save("images/0/black.png")
    dividing("theirs.onnx")
    how = {"size": 8, "mean": 0.0, "std": 1.0, "crop": "none", "interpolation": "bilinear"}
    done = vit_zoo.evaluate("theirs.onnx", "images", against=files / "digits.onnx", preprocess=how)
    assert [(each.path, each.reason.split(" (")[0]) for each in done.failures] == [
        ("images/0/black.png", "the model's outputs are not finite"), ("images/4/broken.png", "cannot be read as an image"),
    ]  # fmt: skip
    assert [each.path for each in done.against.failures] == ["images/4/broken.png"]
    assert (done.images, done.against.images, done.difference.images) == (360, 361, 360)
    assert done.classes[0].label == "0"  # it has no labels, the other file has
    assert "2 images not measured with theirs.onnx:\n  images/0/black.png: the model's outputs are not finite" in str(done)
    lone = vit_zoo.evaluate("theirs.onnx", "images", preprocess=how)
    assert lone.classes[0].label == "class 0"
    assert lone.accuracy == done.accuracy
    for path in Path("images").rglob("*_*.png"):
        path.write_bytes(b"no image")
    Path("images/0/black.png").unlink()
    with pytest.raises(RefusedContent, match=r"none of 361 images could be measured; images/0/0078_0.png: cannot be read"):
        vit_zoo.evaluate(files / "digits.onnx", "images")


def image_folder(*classes, names=("a.png", "b.png")):
    for i, name in enumerate(classes):
        Path("images", name).mkdir(parents=True, exist_ok=True)
        for j, file in enumerate(names):
            Image.new("L", (8, 8), 20 * i + j).save(Path("images", name, file))


# the file, subfolders, options, and the error
REFUSED = [
    ("digits", ["1", "cat", "dog", "emu", "fox"], {}, "no class of digits.onnx is called 'cat', 'dog', 'emu' and 1 more"),
    ("digits", [".", "1"], {}, "2 of 4 images have no class, such as images/a.png"),
    ("digits", ["1", "2"], {"k": 3}, "k applies to features"),
    ("digits", ["1", "2"], {"against": "features.onnx"}, "is evaluated as classification, features.onnx as neighbours"),
    ("digits", ["1", "2"], {"output": "pooler_output"}, "has no output 'pooler_output'"),
    ("digits", ["1", "2"], {"heads": 3}, "cannot set heads"),
    ("digits", ["1", "2"], {"workers": 0}, "workers must be at least 1"),
    ("digits", ["1", "2"], {"column": "path"}, "applies to CSV and Parquet tables"),
    ("digits", [], {}, "no such file"),
    ("features", ["1", "2"], {}, "4 images are too few for 10 nearest neighbours: at least 21 are needed"),
    ("features", ["1", "2"], {"k": 0}, "k must be at least 1"),
    ("features", ["x"], {"k": 1, "more": "c.png"}, "all images are of one class, 'x'; neighbours need two"),
    ("features", ["1", "2"], {"labels": "a,b"}, "labels does not apply: the file gives features"),
    ("several", ["1", "2"], {}, "its folder does not tell them"),
    ("values", ["1", "2"], {}, "the model is a regression: expected 2 numbers with ';' between them"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "folders", "options", "message"), REFUSED)
def test_errors(files, folder, file, folders, options, message):
    options = dict(options)
    image_folder(*folders, names=("a.png", "b.png", *([options.pop("more")] if "more" in options else [])))
    if "against" in options:
        options["against"] = files / options["against"]
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        vit_zoo.evaluate(files / f"{file}.onnx", "images", **options)


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        ([("x.png", "1")], ("path", "class"), "has no column 'label'"),
        ([("x.png", "")], ("path", "label"), "1 of 1 images have no class, such as x.png"),
        ([("x.png", "one")], ("path", "label"), "no class of digits.onnx is called 'one'"),
        ([("x.png", "1")], ("path", "label"), "none of 1 images could be measured; x.png: no such file"),
    ],
)
def test_errors_of_tables(files, folder, rows, head, message):
    write_csv("images.csv", rows, head)
    with pytest.raises((InputError, RefusedContent), match=message):
        vit_zoo.evaluate(files / "digits.onnx", "images.csv")


def test_one_class_is_told(files, folder, caplog):
    image_folder("3")
    done = vit_zoo.evaluate(files / "digits.onnx", "images")
    assert "images: all images are of one class, '3': the accuracy is the recall of that class" in caplog.text
    assert "on 2 images of 1 class" in str(done)


def test_names_of_classes():
    """Labels as they are, in other letters, WordNet ids, and numbers; two classes called crane are told apart by their labels."""
    names = label_names("imagenet1k")
    config = vit_zoo.create("vit_ti16", device="meta").config.replace(labels=names)

    def numbers(*given):
        return list(class_numbers(given, config, source="images", file="m.onnx").values())

    assert numbers("tench, Tinca tinca", "stingray") == [6, 0]
    assert numbers("Tench", "great_white_shark", "STINGRAY") == [6, 0, 2]
    assert numbers("n01440764", "n01498041") == [0, 6]
    assert numbers("0", "006") == [0, 6]
    with pytest.raises(InputError, match="is called 'n01440764'"):  # names of two kinds
        numbers("stingray", "tench", "n01440764")
    with pytest.raises(InputError, match="called 'stingrey'; nearest: stingray"):
        numbers("stingrey")
    unnamed = config.replace(labels=None)
    assert class_numbers(["n01440764"], unnamed, source="images", file="m.onnx") == {"n01440764": 0}
    with pytest.raises(InputError, match="classes are numbers from 0 to 999"):
        class_numbers(["tench"], unnamed, source="images", file="m.onnx")


def test_data_frames(files, monkeypatch):
    done = vit_zoo.evaluate(files / "worse.onnx", files / "held_out")
    frame = done.to_pandas()
    assert list(frame.columns) == ["path", "label", "predicted", "score", "correct"]
    assert frame["correct"].mean() == done.accuracy.share
    by_class = done.to_pandas("classes").set_index("label")
    pd.testing.assert_series_equal(frame.groupby("label")["correct"].mean(), by_class["recall"], check_names=False)
    with pytest.raises(InputError, match="unknown rows 'all'; choose from images, classes"):
        done.to_pandas("all")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match="pip install pandas"):
        done.to_pandas()


def test_torch_is_not_imported(files):
    call = f"vit_zoo.evaluate({str(files / 'digits.onnx')!r}, {str(files / 'held_out')!r})"
    code = f"import sys, vit_zoo; {call}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
