"""Tests of the command `evaluate`: its output, its table and its picture."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import vit_zoo
from vit_zoo.registry.catalog import zoo_folder

HELD_OUT = zoo_folder() / "vit_digits" / "held_out"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with `digits.onnx`, `features.onnx`, and 60 images in a folder for each class."""
    folder = tmp_path_factory.mktemp("files")
    vit_zoo.export("vit_digits", out=folder / "digits.onnx", verify=False)
    vit_zoo.export("vit_digits", out=folder / "features.onnx", outputs=["pooler_output"], verify=False)
    for path in sorted(HELD_OUT.glob("*.png"))[:60]:
        (folder / "images" / path.stem[-1]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "images" / path.stem[-1])
    return folder


@pytest.fixture
def digits(files, monkeypatch):
    monkeypatch.chdir(files)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})


def test_text_json_and_table(digits, cli):
    done = cli("evaluate", "digits.onnx", "images", "--csv", "table.csv")
    assert done.code == 0, done.err
    assert done.out.startswith("digits.onnx: top-1 100.0 % (94.0 to 100.0)\ntop-5 100.0 %")
    assert "on 60 images of 10 classes, with 95 % intervals\n\nclass  images   recall  precision\n0 " in done.out
    with Path("table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["label"] == row["predicted"], row["correct"]) for row in rows} == {(True, "true")}
    assert [row["path"] for row in rows] == sorted(path.as_posix() for path in Path("images").rglob("*.png"))
    document = json.loads(cli("evaluate", "digits.onnx", "table.csv", "--json").out)  # with the columns path and label
    assert (document["accuracy"]["count"], document["images"], document["kind"]) == (60, 60, "classification")
    assert "table" not in document


def test_a_table_replaces_only_its_like(digits, cli):
    Path("mine.csv").write_text("path,label\nimages/a.png,1\n")
    refused = cli("evaluate", "digits.onnx", "images", "--csv", "mine.csv")
    assert refused.code == 8
    assert "mine.csv: already exists and is no result of `vitzoo evaluate`" in refused.err
    assert Path("mine.csv").read_text() == "path,label\nimages/a.png,1\n"
    Path("table.csv").write_text("path,label,predicted,score,correct\nimages/a.png,1,1,1,true\n")
    assert cli("evaluate", "digits.onnx", "images", "--csv", "table.csv", "-q").code == 0
    assert len(Path("table.csv").read_text().splitlines()) == 61
    before = Path("table.csv").read_text()
    refused = cli("evaluate", "digits.onnx", "table.csv", "--csv", "table.csv")
    assert (refused.code, Path("table.csv").read_text()) == (2, before)
    assert "is evaluated, and cannot be the result too" in refused.err
    assert cli("evaluate", "digits.onnx", "images", "--csv", "nowhere/table.csv").code == 2


@pytest.mark.parametrize(
    ("arguments", "widths"),
    [
        (["digits.onnx", "images"], (880, 480)),
        (["features.onnx", "images"], (440, 480)),
        (["features.onnx", HELD_OUT, "--against", "features.onnx"], (420, 440)),
    ],
)
def test_pictures(digits, cli, arguments, widths):
    done = cli("evaluate", *arguments, "--plot", "picture.png")
    assert done.code == 0, done.err
    with Image.open("picture.png") as image:
        assert image.size[0] >= widths[0] * 0.9
        assert len(image.convert("RGB").getcolors(100_000)) > 20


def test_options_that_do_not_fit(digits, cli):
    for arguments, code, message in (
        (["digits.onnx", "images", "--plot", "picture.gif"], 2, "the name of a plot must end in .png or .svg"),
        (["digits", "images"], 2, "digits: no such file (`vitzoo export MODEL --onnx` writes the file of a model)"),
        (["images", "images"], 7, "images: expected an exported file, got a folder"),
        (["digits.onnx"], 2, "Missing argument 'IMAGES...'"),
    ):
        done = cli("evaluate", *arguments)
        assert (done.code, message in done.err) == (code, True), done.err
