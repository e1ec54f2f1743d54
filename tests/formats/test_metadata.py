"""Tests of our metadata in exported files: every value is parsed when the file is described, in each format."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import onnx
import pytest

from support.paths import TESTS
from vit_zoo.errors import RefusedContent
from vit_zoo.formats import describe
from vit_zoo.formats.artifact import EMBEDDED
from vit_zoo.model.config import ModelConfig

OTHERS = (None, True, 0, -1, 1.5, 10**400, "", "x", "x" * 5000, [], [[]], [1], ["x"], {}, {"x": 1}, "\x1b[31m", ["block.x"])
MISSING = object()
DETAILS = (
    "outputs", "opset", "precision", "placement", "include", "dynamic", "activation", "kept", "data", "version", "verify",
    "header_sha256", "weights_sha256", "source_sha256",
)  # fmt: skip
FORMS = ("inline.onnx", "vit_ti16.torchscript.pt", "vit_ti16.pt2")
FOLDER = TESTS / "data" / "version_0_1"
CONFIG = (*ModelConfig.model_fields, "schema")


def metadata(name):
    """The document of the config in a file, and the details of the export."""
    path = FOLDER / name
    if path.suffix == ".onnx":
        entries = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
        return entries["vit_zoo"], entries["vit_zoo.export"]
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith(EMBEDDED))))
    return document, document.pop("vit_zoo.export")


def described(folder, name, document, details):
    """What is read from a file with other metadata; `details` may be missing."""
    path = folder / name
    path.write_bytes((FOLDER / name).read_bytes())
    write(path, document, details)
    return describe(path)


def write(path, document, details):
    if path.suffix == ".onnx":
        model = onnx.load(path)
        del model.metadata_props[:]
        values = {"vit_zoo": document, "vit_zoo.export": details}
        for key, value in values.items():
            if value is not MISSING:
                model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
        onnx.save(model, path)
        return
    both = document if details is MISSING else {**document, "vit_zoo.export": details}
    with zipfile.ZipFile(path) as archive:
        parts = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, part in parts.items():
            archive.writestr(info, json.dumps(both).encode() if info.filename.endswith(EMBEDDED) else part)


def check(cli, name, *, runs=False):
    """No command fails but by an error of ours, in one line."""
    for command in (["show", name], *([["verify", name, "--quick"]] if runs else [])):
        code, _, err = cli(*command)
        assert code in (0, 3, 7), err
        assert len([line for line in err.splitlines() if line.startswith("vitzoo: error")]) == (code != 0)
        assert "\x1b" not in err
        if code == 0 and command[0] == "show":
            return


@pytest.mark.parametrize("key", DETAILS)
@pytest.mark.parametrize("name", FORMS)
def test_every_detail_is_parsed(name, key, folder, cli):
    document, details = metadata(name)
    errors = []
    for value in OTHERS:
        try:
            about = described(folder, name, document, {**details, key: value})
            assert type(about.export[key]) in (str, int, list)
        except RefusedContent as error:
            errors.append(str(error))
        if name == "inline.onnx" and value in (None, 10**400, [[]]):
            check(cli, name, runs=True)
    assert len(errors) >= 10
    assert all(re.search(rf"vit_zoo\.export: .*{key}", error) and len(error) < 600 for error in errors)


@pytest.mark.parametrize("key", CONFIG)
def test_every_field_of_the_config_is_parsed(key, folder, cli):
    document, details = metadata("inline.onnx")
    errors = []
    for value in OTHERS:
        try:
            described(folder, "inline.onnx", {"vit_zoo": {**document["vit_zoo"], key: value}}, details)
        except RefusedContent as error:
            errors.append(str(error))
        check(cli, "inline.onnx")
    assert len(errors) >= 5
    assert all(len(error) < 1000 for error in errors)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("details", "fault"),
    [
        (3, "vit_zoo.export"),
        ([], "vit_zoo.export"),
        ([["outputs", ["logits"]]], "vit_zoo.export"),
        (MISSING, "field 'outputs' is missing"),
        ({}, "field 'outputs' is missing"),
        ({"outputs": []}, r"outputs = \[\]: list should have at least 1 item"),
        ({"outputs": 3}, "outputs = 3: input should be a valid list"),
        ({"outputs": [3]}, r"outputs\.0 = 3: input should be a valid string"),
        ({"outputs": ["logits", "logits"]}, "an output is named twice"),
        ({"outputs": ["block.x"]}, r"outputs = \['block.x'\]: unknown output 'block.x'"),
        ({"outputs": ["logits"], "weights_sha256": "x"}, "weights_sha256 = 'x': string should match"),
        ({"outputs": ["logits"], "data": "../weights"}, "data = '../weights': the weights are outside its folder"),
        ({"outputs": ["logits"], "new": [[[[[[[[[[[3]]]]]]]]]]]}, "'new' is nested too deeply"),
    ],
)
def test_faults_name_the_file_and_the_field(details, fault, name, folder):
    document, _ = metadata(name)
    with pytest.raises(RefusedContent, match=fault) as refusal:
        described(folder, name, document, details)
    assert str(folder / name) in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["{", '{"outputs": ["logits"], "outputs": ["logits"]}', '{"outputs": NaN}', '{"a": ' + "[" * 10**5]
)
def test_json_that_is_refused(text, folder):
    with pytest.raises(RefusedContent, match="metadata is not valid JSON"):
        described(folder, "inline.onnx", metadata("inline.onnx")[0], text)


@pytest.mark.parametrize("name", FORMS)
def test_what_a_newer_version_adds_is_kept(name, folder, cli):
    document, details = metadata(name)
    added = {**details, "precision": "int2", "new": {"a": [1, 2.5, None, True]}, "dynamic": "next"}
    assert described(folder, name, document, added).export == added
    assert Path(name).is_file()
    assert cli("show", name).code == 0
