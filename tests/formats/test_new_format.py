"""Tests of a format added by one row: it is exported, verified, shown and refused as the built-in formats are."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.errors import RefusedContent
from vit_zoo.formats import FORMATS, describe
from vit_zoo.formats.artifact import Artifact, Description, config_from, embedded
from vit_zoo.formats.format import Format
from vit_zoo.formats.structure import Fact, Structure
from vit_zoo.model import forward
from vit_zoo.model.torch_ops import EVAL
from vit_zoo.model.vit import ViT

MAGIC = b"TOY1"


def write(model, outputs, staged, export):
    header = embedded(model.config, export).encode()
    tensors = save_tensors({name: p.detach().numpy() for name, p in model.state_dict().items()})
    staged.write(lambda file: file.write(MAGIC + len(header).to_bytes(8, "little") + header + tensors))


def parts(path):
    content = path.read_bytes()
    length = int.from_bytes(content[4:12], "little")
    return content[12 : 12 + length].decode(), content[12 + length :]


def describe_toy(path):
    header = parts(path)[0]
    return Description(path, "toy", config_from(header, where=path), json.loads(header)["vit_zoo.export"])


class ToyArtifact(Artifact):
    def __init__(self, path, about, options):
        super().__init__(about)
        self.model = ViT.empty(about.known_config())
        state = {name: torch.from_numpy(value.copy()) for name, value in load_tensors(parts(path)[1]).items()}
        self.model.load_state_dict(state, assign=True)

    @property
    def outputs(self):
        return tuple(self.about.export["outputs"])

    def run(self, pixel_values):
        with torch.inference_mode():
            results = forward.vit(self.model, torch.from_numpy(pixel_values), self.model.spec, EVAL, self.outputs)
        return {name: value.numpy() for name, value in results.items()}


def structure(path, opened):
    spec = opened().config.spec
    return Structure((Fact(spec.norm_eps, "norm"),), (Fact(spec.act, "act"),), "fp32", frozenset({"F32"})), []


TOY = Format(
    name="toy",
    suffix=".toy",
    title="toy file",
    recognise=lambda path, kind: kind == "unknown" and path.read_bytes()[:4] == MAGIC,
    describe=describe_toy,
    open=ToyArtifact,
    write=write,
    structure=structure,
)


@pytest.fixture
def exported(folder, monkeypatch):
    monkeypatch.setitem(FORMATS, TOY.name, TOY)
    model = noise(vit_zoo.create("vit_ti16", **SMALL))
    (done,) = vit_zoo.export(model, "toy", outputs=["logits", "pooler_output"])
    return model, done


def test_the_new_format_is_exported_and_verified(exported):
    model, done = exported
    assert done.path.name == "vit_ti16.toy"
    assert done.report.ok
    assert {c.output for c in done.report.comparisons} == {"logits", "pooler_output"}
    again = vit_zoo.verify(done.path, model)
    assert again.ok
    assert again.sha256 == done.report.sha256
    assert describe(done.path).config == model.config.replace(random_seed=None)
    x = torch.randn(3, 3, *SMALL["image_size"])
    with torch.inference_mode():
        torch.testing.assert_close(
            torch.from_numpy(vit_zoo.open(done.path).run(x.numpy())["logits"]), model(x), rtol=0, atol=1e-6
        )


def test_a_wrong_file_fails_the_check(exported):
    model, done = exported
    noise(model, seed=2)
    report = vit_zoo.verify(done.path, model)
    assert not report.ok
    assert re.search("logits at batch", report.faults[0])


def test_a_file_is_shown_and_does_not_load_as_a_checkpoint(exported, cli):
    _, done = exported
    document = json.loads(cli("show", done.path, "--json").out)
    assert document["format"] == "toy"
    assert document["parity"] is True
    with pytest.raises(RefusedContent, match="got an exported toy file"):
        vit_zoo.load(done.path)


def test_an_unknown_format_is_refused_and_the_formats_are_listed(folder):
    with pytest.raises(vit_zoo.VitzooError, match="unknown format 'toy'; choose from onnx, torchscript, pt2"):
        vit_zoo.export("vit_ti16", "toy")
