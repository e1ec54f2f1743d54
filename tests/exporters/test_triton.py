"""Tests of model repositories for Triton Inference Server: protobuf's own parser reads the config, onnxruntime runs the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from google.protobuf import text_format

import vit_zoo
from support.models import SMALL, noise
from support.triton_schema import model_config
from vit_zoo.errors import CannotWrite, CheckFailed, InputError
from vit_zoo.graph import write
from vit_zoo.model.preprocess import Preprocess

HOW = Preprocess(size=(32, 48), resize_to=None, interpolation="bilinear", mean=(0.5,) * 3, std=(0.4,) * 3)
LABELS = tuple(f'class "{i}", with\ta tab' for i in range(11))


@pytest.fixture(scope="module")
def model():
    made = noise(vit_zoo.create("vit_b16", **{**SMALL, "depth": 1}), scale=0.15)
    made.config = made.config.replace(name="ours", preprocess=HOW, labels=LABELS)
    return made


def parsed(path):
    return text_format.Parse(Path(path).read_text(), model_config())


def declared(session, name, values):
    return next(value for value in values(session) if value.name == name)


def check(entry):
    """The config declares exactly what the file takes and returns; a batch of the declared axes runs."""
    config = parsed(entry / "config.pbtxt")
    assert config.name == entry.name
    assert config.platform == "onnxruntime_onnx"
    session = ort.InferenceSession(entry / "1" / "model.onnx")
    kinds = {"tensor(float)": 11, "tensor(float16)": 10, "tensor(uint8)": 2}
    for values, tensors in ((session.get_inputs(), config.input), (session.get_outputs(), config.output)):
        assert [value.name for value in values] == [tensor.name for tensor in tensors]
        for value, tensor in zip(values, tensors, strict=True):
            assert kinds[value.type] == tensor.data_type
            assert not isinstance(value.shape[0], int)  # the axis of the batch, which Triton adds
            assert [axis if isinstance(axis, int) else -1 for axis in value.shape[1:]] == list(tensor.dims)
    (image,) = config.input
    shape = [axis if axis > 0 else 64 for axis in image.dims]
    x = np.zeros((config.max_batch_size, *shape), np.uint8 if image.data_type == 2 else np.float32)
    for value, tensor in zip(session.run(None, {image.name: x}), config.output, strict=True):
        assert value.shape[0] == config.max_batch_size
        assert all(axis in (-1, length) for axis, length in zip(tensor.dims, value.shape[1:], strict=True))
    return config


def test_a_repository(model, folder, cli):
    vit_zoo.save(model, "ours")
    code, out, _ = cli(
        "export", "./ours", "--onnx", "--triton", "repository", "--outputs", "logits,pooler_output", "--verify", "quick"
    )
    assert (code, out.startswith("repository/ours/1/model.onnx (")) == (0, True)
    entry = Path("repository/ours")
    assert sorted(path.relative_to(entry).as_posix() for path in entry.rglob("*") if path.is_file()) == [
        "1/model.onnx", "1/model.onnx.parity.json", "config.pbtxt", "labels.txt",
    ]  # fmt: skip
    config = check(entry)
    assert config.max_batch_size == 8
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, 0)]
    assert [(output.name, output.label_filename) for output in config.output] == [
        ("logits", "labels.txt"), ("pooler_output", ""),
    ]  # fmt: skip
    assert config.input[0].format == 2
    assert (entry / "labels.txt").read_text().splitlines() == [" ".join(label.split()) for label in LABELS]
    report = json.loads((entry / "1" / "model.onnx.parity.json").read_text())
    assert (report["file"], report["verdict"]) == ("model.onnx", "parity")
    x = np.zeros((1, 3, 32, 48), np.float32)
    with torch.inference_mode():
        wanted = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(vit_zoo.open(entry / "1" / "model.onnx").run(x)["logits"], wanted, atol=1e-5)


def test_options(model, folder):
    done = vit_zoo.export(
        model, triton="repository", precision=["fp32", "fp16", "int8-dynamic"], placement="external", dynamic=None, verify=False
    )
    assert [export.path.as_posix() for export in done] == [
        f"repository/{name}/1/model.onnx" for name in ("ours", "ours_fp16", "ours_int8_dynamic")
    ]
    assert all(export.data == export.path.with_name("model.onnx_data") and export.data.is_file() for export in done)
    configs = {export.path.parents[1].name: check(export.path.parents[1]) for export in done}
    # the images of a batch share their rounding, so requests are not put together
    assert configs["ours_int8_dynamic"].max_batch_size == 1
    assert not configs["ours_int8_dynamic"].HasField("dynamic_batching")
    vit_zoo.export(model, triton="repository", include=["preprocess", "softmax"], verify=False)  # replaces the first
    entry = Path("repository/ours")
    config = check(entry)
    assert (config.input[0].format, list(config.input[0].dims)) == (1, [-1, -1, 3])
    assert config.output[0].label_filename == "labels.txt"
    assert not (entry / "1" / "model.onnx_data").exists()  # of the earlier export
    vit_zoo.export(model, triton="repository", dynamic="hw", outputs=["last_hidden_state"], verify=False)
    assert list(check(entry).output[0].dims) == [-1, 48]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": ["onnx", "pt2"]}, "triton=FOLDER needs the format onnx alone, got onnx, pt2"),
        ({"to": "torchscript"}, "needs the format onnx alone"),
        ({"out": "x.onnx"}, "triton=FOLDER and out=FOLDER contradict each other"),
        ({"placement": "shared"}, "contradict each other: a repository contains its weights"),
        ({"triton": "none/repository"}, "none: no such folder"),
    ],
)
def test_options_that_contradict(model, folder, options, message):
    with pytest.raises(InputError, match=message):
        vit_zoo.export(model, **{"triton": "repository", "verify": False, **options})
    assert not list(folder.iterdir())


def test_nothing_of_the_user_is_replaced(model, folder):
    entry = Path("repository/ours")
    vit_zoo.export(model, triton="repository", verify=False)
    Path(entry, "2").mkdir()
    Path(entry, "2", "model.onnx").write_bytes(b"mine")
    vit_zoo.export(model, triton="repository", verify=False)  # as it was written
    config = entry / "config.pbtxt"
    edited = config.read_text().replace("count: 1", "count: 4")
    config.write_text(edited)
    with pytest.raises(CannotWrite, match=r"config.pbtxt: already exists, and was changed .*force=True replaces it"):
        vit_zoo.export(model, triton="repository", verify=False)
    assert config.read_text() == edited
    vit_zoo.export(model, triton="repository", verify=False, force=True)
    assert parsed(config).instance_group[0].count == 1
    assert Path(entry, "2", "model.onnx").read_bytes() == b"mine"
    Path(entry, "labels.txt").write_text("mine\n")
    with pytest.raises(CannotWrite, match=r"labels\.txt: already exists"):
        vit_zoo.export(model, triton="repository", verify=False)
    other = noise(vit_zoo.create("vit_b16", **SMALL))
    other.config = other.config.replace(name="ours")
    with pytest.raises(CannotWrite, match="holds a model with"):
        vit_zoo.export(other, triton="repository", verify=False)
    Path("file").write_text("")
    with pytest.raises(CannotWrite, match="file: not a folder"):
        vit_zoo.export(model, triton="file", verify=False)


def test_a_file_that_fails_is_set_aside(model, folder, monkeypatch):
    vit_zoo.export(model, triton="repository", verify=False)
    before = {path: path.read_bytes() for path in Path("repository").rglob("*") if path.is_file()}
    honest = write._pieces

    def dishonest(*args):
        for name, pieces in honest(*args):
            if name == "blocks.0.mlp.fc1.bias":
                pieces = [np.float32(np.frombuffer(b"".join(map(bytes, pieces)), "<f4") * 1.01).tobytes()]  # noqa: PLW2901
            yield name, pieces

    monkeypatch.setattr(write, "_pieces", dishonest)
    message = r"repository/ours/1/model.onnx: does not compute .*set aside as repository/ours.onnx.rejected"
    with pytest.raises(CheckFailed, match=message):
        vit_zoo.export(model, triton="repository", verify="quick")
    rejected = [Path(f"repository/ours.onnx.rejected{suffix}") for suffix in ("", ".parity.json")]
    assert all(path.is_file() for path in rejected)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(Path("repository").iterdir()) == [Path("repository/ours"), *rejected]
