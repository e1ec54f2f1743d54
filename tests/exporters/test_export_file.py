"""Tests of exported files: outputs, metadata, and that a file gets its name only after it was verified."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file

import vit_zoo
from support import peers
from support.models import SMALL, noise
from vit_zoo import formats
from vit_zoo.errors import CheckFailed, InputError, NotRepresentable, RefusedContent
from vit_zoo.files import SafetensorsFile, Staged, Stored
from vit_zoo.formats import programs
from vit_zoo.graph import build, write
from vit_zoo.graph.options import GraphOptions

FORMATS = {"onnx": "small.onnx", "torchscript": "small.torchscript.pt", "pt2": "small.pt2"}


@pytest.fixture
def small(folder):
    """A folder with a small noised model, and the current one."""
    model = noise(vit_zoo.create("vit_b16", **SMALL))
    model.config = model.config.replace(name="small", labels=tuple("abcdefghijk"), source="a test", licence="CC0-1.0")
    vit_zoo.save(model, "model")
    return model


def run(path, batch):
    artifact = vit_zoo.open(path)
    images = torch.randn(batch, 3, 32, 48)
    return images, artifact.run(images.numpy())


@pytest.mark.parametrize("format_", FORMATS)
def test_a_file_computes_its_model_at_any_batch(format_, small):
    (done,) = vit_zoo.export("model", format_)
    assert done.path.name == FORMATS[format_]
    assert done.report.ok
    for batch in (1, 2, 3, 5):
        images, found = run(done.path, batch)
        with torch.inference_mode():
            np.testing.assert_allclose(found["logits"], small(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("format_", FORMATS)
def test_metadata_of_a_file(format_, small):
    (done,) = vit_zoo.export("model", format_)
    about = formats.describe(done.path)
    assert about.config == small.config.replace(random_seed=None)
    assert about.format == format_
    assert about.export["outputs"] == ["logits"]
    assert about.export["version"] == vit_zoo.__version__
    assert about.export["weights_sha256"] == SafetensorsFile(Path("model/model.safetensors")).metadata["vit_zoo.sha256"]
    report = json.loads(done.path.with_name(done.path.name + ".parity.json").read_text())
    assert report["ok"]
    assert report["file"] == done.path.name
    assert report["sha256"] == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert {"torch", "onnxruntime", "python"} <= set(report["versions"])
    assert not [path for path in done.path.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("placement", ["inline", "external", "shared"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_placements_and_types(placement, dtype, small):
    half = vit_zoo.load("model", dtype=dtype)
    vit_zoo.save(half, "half")
    (done,) = vit_zoo.export("half", placement=placement)
    onnx.checker.check_model(done.path, full_check=True)
    images, found = run(done.path, 3)
    with torch.inference_mode():
        wanted = half.float()(images)
    np.testing.assert_allclose(found["logits"], wanted, rtol=0, atol=1e-5)
    whole = sum(p.numel() for p in half.parameters()) * dtype.itemsize
    size = done.path.stat().st_size
    assert (size > whole) == (placement == "inline")
    assert (done.data is not None and done.data.stat().st_size > whole) == (placement == "external")
    assert vit_zoo.verify(done.path).ok  # against the weights that it holds or refers to
    assert vit_zoo.verify(done.path, "half").ok
    other = noise(vit_zoo.create("vit_b16", **SMALL), seed=2)
    assert not vit_zoo.verify(done.path, other).ok


def test_shared_weights_refer_to_the_folder(small):
    (done,) = vit_zoo.export("model", placement="shared")
    assert done.path.as_posix() == "model/model.onnx"
    assert done.path.stat().st_size < 60_000
    before = hashlib.sha256(Path("model/model.safetensors").read_bytes()).hexdigest()
    # another header under the same offsets would give wrong numbers without an error
    vit_zoo.save(small.float(), "model")
    assert hashlib.sha256(Path("model/model.safetensors").read_bytes()).hexdigest() == before
    vit_zoo.open(done.path)
    small.config = small.config.replace(name="renamed")
    vit_zoo.save(small, "model")
    with pytest.raises(RefusedContent, match=r"was exported with another model\.safetensors"):
        vit_zoo.open(done.path)


def test_a_stale_data_file_is_refused(small):
    vit_zoo.export("model", placement="external", out="a.onnx")
    vit_zoo.export(noise(vit_zoo.create("vit_b16", **SMALL), seed=3), placement="external", out="b.onnx")
    shutil.copy("b.onnx_data", "a.onnx_data")
    with pytest.raises(RefusedContent, match=r"was exported with another a\.onnx_data"):
        vit_zoo.open("a.onnx")


def test_large_graphs_need_external_data(folder):
    """Above protobuf's 2 GiB an inline file is impossible; tested where the size is computed."""
    spec = vit_zoo.get_spec("vit_h14")
    tensors = {name: Stored("F32", shape, lambda: np.zeros(())) for name, shape in spec.shapes().items()}
    graph = build.build(spec, tensors, GraphOptions())
    assert write.inline_size(graph) > write.PROTO_LIMIT
    with Staged(folder / "large.onnx") as staged, pytest.raises(NotRepresentable, match="at most 2 GiB"):
        write.write_inline(graph, staged, {})


def test_a_wrong_file_is_rejected(small, monkeypatch):
    """A writer with one wrong number: exit code 3, the file is set aside, the old file and its report stay."""
    vit_zoo.export("model")
    before = [Path(name).read_bytes() for name in ("small.onnx", "small.onnx.parity.json")]
    honest = write._pieces

    def dishonest(*args):
        for name, pieces in honest(*args):
            if name == "blocks.1.mlp.fc1.bias":
                pieces = [b"".join(map(bytes, pieces))]  # noqa: PLW2901
                pieces[0] = np.float32(np.frombuffer(pieces[0], "<f4") * 1.01).tobytes()
            yield name, pieces

    monkeypatch.setattr(write, "_pieces", dishonest)
    with pytest.raises(CheckFailed, match=r"does not compute the model.*set aside as small.onnx.rejected"):
        vit_zoo.export("model")
    assert before == [Path(name).read_bytes() for name in ("small.onnx", "small.onnx.parity.json")]
    assert not json.loads(Path("small.onnx.rejected.parity.json").read_text())["ok"]


def test_programs_of_others_are_not_run(small):
    """TorchScript and .pt2 files hold code: only files that this process wrote are opened."""
    for format_, name in FORMATS.items():
        if format_ == "onnx":
            continue
        vit_zoo.export("model", format_)
        vit_zoo.open(name)
        digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        programs._written.remove(digest)
        with pytest.raises(RefusedContent, match="contain code, which is not run"):
            vit_zoo.open(name)
        assert formats.describe(name).config.name == "small"


def test_unverified_files_are_marked(small):
    (done,) = vit_zoo.export("model", verify=False)
    assert done.report is None
    assert formats.describe(done.path).export["verify"] == "off"
    assert not (done.path.parent / "small.onnx.parity.json").exists()


def test_the_same_model_gives_the_same_bytes(small, tmp_path):
    first = vit_zoo.export("model", verify=False)[0].path.read_bytes()
    shutil.copytree("model", "elsewhere")
    assert vit_zoo.export("elsewhere", out="again.onnx", verify=False)[0].path.read_bytes() == first
    for private in (str(tmp_path), "elsewhere"):
        assert private.encode() not in first


def test_a_peers_module_exports(folder):
    for peer in (noise(peers.timm_vit(reg_tokens=2)), noise(peers.torchvision_vit())):
        (done,) = vit_zoo.export(peer, out=f"{type(peer).__module__}.onnx")
        assert done.report.ok
        images = torch.randn(2, 3, *done.config.spec.image_size)
        with torch.inference_mode():
            wanted = peer(images)
        found = ort.InferenceSession(done.path).run(None, {"pixel_values": images.numpy()})[0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_named_outputs(small):
    names = (
        "logits",
        "pooler_output",
        "last_hidden_state",
        "block.1",
        "attn.2",
        "probabilities",
        "block.0.map",
        "last_hidden_state.map",
    )
    for format_ in FORMATS:
        (done,) = vit_zoo.export("model", format_, outputs=names)
        assert done.report.ok
        images, found = run(done.path, 3)
        assert tuple(found) == names
        with torch.inference_mode():
            for name, wanted in small.features(images, *names).items():
                np.testing.assert_allclose(found[name], wanted, rtol=0, atol=2e-5)


def test_a_file_with_inner_outputs_verifies_without_a_model(small):
    """Layers after its last output are not in the file and not needed."""
    for outputs in (("pooler_output",), ("block.1",), ("attn.0", "block.0"), ("block.1.map",), ("probabilities",)):
        (done,) = vit_zoo.export("model", outputs=outputs)
        Path("small.onnx.parity.json").unlink()
        report = vit_zoo.verify(done.path)
        assert report.ok
        assert {c.output for c in report.comparisons} == set(outputs)


def test_shared_weights_need_safetensors_with_unchanged_tensors(folder):
    torch.save(noise(peers.timm_vit()).state_dict(), "timm.pt")
    save_file(noise(peers.article_vit()).state_dict(), "article.safetensors")
    facts = {"heads": 3, "image_size": (32, 48), "patch_size": (8, 16)}
    for name in ("timm.pt", "article.safetensors"):
        with pytest.raises(InputError, match="placement='shared' needs a safetensors file"):
            vit_zoo.export(name, placement="shared", **facts)
    with pytest.raises(InputError, match="opset must be 13 to 25, got 0"):
        vit_zoo.export("timm.pt", opset=0, heads=3, image_size=(32, 48))
