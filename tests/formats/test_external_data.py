"""Tests of the files next to a graph: none outside its folder is opened, by a path or by a link."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import vit_zoo
from support.foreign_onnx import WEIGHT, classifier
from vit_zoo.errors import RefusedContent
from vit_zoo.formats.onnx_admission import check_runnable
from vit_zoo.formats.onnx_skeleton import skeleton

DATA = WEIGHT.tobytes()


def graph(path="m.onnx", **location):
    """A classifier whose matrix lies in another file, by default `w`."""
    model = classifier()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "W")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in ({"location": "w"} | location).items():
        tensor.external_data.add(key=key, value=text)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(model.SerializeToString())
    return Path(path)


def hard_link(folder):
    Path("elsewhere").mkdir()
    Path("elsewhere/secret").write_bytes(DATA)
    os.link("elsewhere/secret", "w")


def link(target):
    return lambda folder: Path("w").symlink_to(target)


def wrong_snapshot(folder):
    """The Hub's layout, with a link to another repository's blob."""
    Path("else/blobs").mkdir(parents=True)
    Path("else/blobs/abc").write_bytes(DATA)
    Path("repo/snapshots/1").mkdir(parents=True)
    Path("repo/snapshots/1/w").symlink_to("../../../else/blobs/abc")
    graph("repo/snapshots/1/m.onnx")
    return Path("repo/snapshots/1/m.onnx")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (link("/etc/passwd"), "'w', which is a link"),
        (link("/dev/zero"), "'w', which is a link"),
        (link("other"), "'w', which is a link"),
        (link("nothing"), "'w', which is a link"),
        (link("w"), "'w', which is a link"),
        (hard_link, "'w', which has 2 hard links"),
        (lambda folder: os.mkfifo("w"), "'w', which is not a regular file"),
        (lambda folder: Path("w").mkdir(), "'w', which is not a regular file"),
        (lambda folder: None, "needs w, which is not in the same folder"),
        (wrong_snapshot, "'w', which is a link"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("reader", [check_runnable, skeleton, vit_zoo.open], ids=["check", "skeleton", "open"])
def test_only_regular_files_in_the_folder_are_read(place, text, reader, folder):
    Path("other").write_bytes(DATA)
    path = place(folder) or graph()
    before = sorted(folder.rglob("*"))
    with pytest.raises(RefusedContent) as error:
        reader(path)
    assert text in error.value.message
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "/dev/zero", "../w", "a/../w", "./w", "a/w", "a\\w", "..", ".", "", "w\0", "*/_ORT_MEM_ADDR_/*"]
)
def test_only_plain_file_names_are_locations(location, folder):
    Path("w").write_bytes(DATA)
    with pytest.raises(RefusedContent, match="outside its folder"):
        check_runnable(graph(location=location))


def test_a_file_is_not_its_own_weights(folder):
    with pytest.raises(RefusedContent, match="in itself"):
        check_runnable(graph(location="m.onnx", length="7680"))


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"offset": "-8"}, "offset is '-8'"),
        ({"offset": "²"}, "offset is"),
        ({"offset": "9" * 4_000}, "offset is"),
        ({"offset": "1_0"}, "offset is"),
        ({"offset": "4096"}, "does not contain the data of tensor 'W': they end at byte"),
        ({"length": "x"}, "length is 'x'"),
        ({"length": "4"}, "'W': 4 bytes, but its shape has 7,680"),
        ({"length": str(10**15)}, "bytes, but its shape has 7,680"),
        ({"basepath": "/etc"}, "unknown field 'basepath'"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_offsets_and_lengths_fit_the_file_and_the_shape(entries, text, folder):
    Path("w").write_bytes(DATA)
    with pytest.raises(RefusedContent) as error:
        check_runnable(graph(**entries))
    assert text in error.value.message


def test_verify_and_predict_write_nothing_beside_a_refused_file(folder, cli):
    hard_link(folder)
    graph()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for verb in (["verify", "m.onnx", "--against", "vit_digits", "--random"], ["predict", "m.onnx", "w"], ["show", "m.onnx"]):
        code, _, err = cli(*verb)
        assert (code, err.count("\n")) == (7, 1)
        assert "has 2 hard links" in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("subfolder", ["", "onnx/"])
def test_a_snapshot_of_the_hub_runs(subfolder, folder):
    """Both files are links to blobs of their repository, whose names say nothing."""
    Path("models--a--b/blobs").mkdir(parents=True)
    Path("models--a--b/blobs/123").write_bytes(DATA)
    graph("models--a--b/blobs/456")
    snapshot = folder / "models--a--b/snapshots/0" / subfolder
    snapshot.mkdir(parents=True)
    blobs = "../../blobs" if not subfolder else "../../../blobs"
    (snapshot / "w").symlink_to(f"{blobs}/123")
    (snapshot / "m.onnx").symlink_to(f"{blobs}/456")
    assert check_runnable(snapshot / "m.onnx") == len(DATA)
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype("<f4")
    logits = vit_zoo.open(snapshot / "m.onnx").run(x)["logits"]
    assert np.allclose(logits, x.reshape(2, -1) @ WEIGHT, atol=1e-4)


def test_external_data_of_a_constant_are_checked_too(folder):
    model = classifier([onnx.helper.make_node("Constant", [], ["c"], value=onnx.TensorProto(data_type=1, dims=[1]))])
    tensor = model.graph.node[0].attribute[0].t
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    Path("m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RefusedContent, match="outside its folder"):
        check_runnable(Path("m.onnx"))
