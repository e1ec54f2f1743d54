"""Tests of attention rollout, against a computation from the modules of torch alone, and of where it lies in a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.errors import InputError
from vit_zoo.inference.attention import attention_source, rollout
from vit_zoo.inference.attention_pictures import COLOURS, heat_picture
from vit_zoo.model.preprocess import Preprocess

HOW = Preprocess(size=(32, 48), resize_to=None, interpolation="bilinear", mean=(0.5,) * 3, std=(0.4,) * 3)
CROP = Preprocess(size=(32, 32), resize_to=64, interpolation="bilinear", mean=(0.5,) * 3, std=(0.4,) * 3)
KINDS = {
    "class token": ("vit_b16", {}, 1),
    "mean of the patches": ("vit_b16", {"class_token": False, "pool": "mean"}, 0),
    "class and distillation token": ("deit_distilled_ti16", {}, 2),
    "registers": ("dinov2_s14_reg4", {"pos": "learned"}, 5),
}


def model_of(kind):
    name, options, first = KINDS[kind]
    model = noise(vit_zoo.create(name, **{**SMALL, "depth": 2, **options}), scale=0.3)
    model.config = model.config.replace(preprocess=HOW)
    return model, first


def by_hand(model, x, first, class_token):
    """The rollout of softmax(q k / sqrt(d)), computed by hooks on torch's modules, token by token and head by head."""
    inputs = []
    hooks = [block.attn.qkv.register_forward_hook(lambda part, given, qkv: inputs.append(qkv.detach())) for block in model.blocks]
    with torch.inference_mode():
        model(x)
    for hook in hooks:
        hook.remove()
    flow = None
    for qkv in inputs:
        q, k, _ = qkv[0].double().chunk(3, dim=-1)
        tokens, width = q.shape
        mean = torch.zeros(tokens, tokens, dtype=torch.float64)
        for head in range(model.spec.heads):
            part = slice(head * width // model.spec.heads, (head + 1) * width // model.spec.heads)
            mean += torch.softmax(q[:, part] @ k[:, part].T / (width // model.spec.heads) ** 0.5, dim=-1) / model.spec.heads
        mixed = (mean + torch.eye(tokens)) / 2  # rows of attention have the sum 1
        flow = mixed if flow is None else mixed @ flow
    row = flow[0] if class_token else torch.stack([flow[i] for i in range(first, tokens)]).mean(0)
    return row[first:].reshape(model.spec.grid).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_rollout_is_that_of_the_modules(kind, folder):
    model, first = model_of(kind)
    x = torch.randn(1, 3, 32, 48)
    # all tokens have queries in the last block only if an output needs them
    model.config = model.config.replace(preprocess=HOW)
    wanted = by_hand(AllTokens(model), x, first, model.spec.class_token)
    (done,) = vit_zoo.export(model, out="attention.onnx", outputs=[model.config.output, "attn.*"], verify=False)
    opened = vit_zoo.open(done.path)
    for source in (attention_source(model, {}), attention_source(opened, {})):
        np.testing.assert_allclose(source.of(x.numpy())[0], wanted, rtol=2e-4, atol=1e-7)
    assert wanted.std() > 1e-4


class AllTokens:
    """A model whose last block computes the queries of all tokens."""

    def __init__(self, model):
        self.model, self.blocks, self.spec = model, model.blocks, model.spec

    def __call__(self, x):
        return self.model.features(x, "last_hidden_state")


def test_rollout_of_a_known_case():
    """One head attends to token 1 alone: half of each token stays with itself, half is token 1."""
    weights = np.zeros((1, 1, 3, 3))
    weights[..., 1] = 1
    np.testing.assert_allclose(rollout([weights])[0], [[0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5]])
    np.testing.assert_allclose(rollout([weights, weights])[0], [[0.25, 0.75, 0], [0, 1, 0], [0, 0.75, 0.25]])
    both = np.concatenate([weights, np.eye(3)[None, None]], axis=1)  # a second head that attends to nothing else
    np.testing.assert_allclose(rollout([both])[0], [[0.75, 0.25, 0], [0, 1, 0], [0, 0.25, 0.75]])


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (90, 90)])
@pytest.mark.parametrize("spot", [(0, 0), (3, 1), (1, 2)])
def test_the_heat_lies_where_the_pixels_were(size, spot):
    """A patch of the model's input is made red in the image; the hottest place of the picture is in its middle."""
    left, top, right, bottom = CROP.kept(*size)
    assert right - left == pytest.approx(bottom - top) == pytest.approx(min(size) / 2)
    assert (left + right) / 2 == pytest.approx(size[0] / 2, abs=1)
    assert (top + bottom) / 2 == pytest.approx(size[1] / 2, abs=1)
    patch = (right - left) / 4
    x, y = left + spot[1] * patch, top + spot[0] * patch
    image = Image.new("RGB", size, (0, 0, 0))
    image.paste((255, 255, 255), (round(x), round(y), round(x + patch), round(y + patch)))
    seen = CROP(image).mean(axis=0).reshape(4, 8, 4, 8).mean(axis=(1, 3))  # what the model sees, by patch
    assert np.unravel_index(seen.argmax(), seen.shape) == spot
    heat = np.zeros((4, 4))
    heat[spot] = 1.0
    grey = Image.new("RGB", size, (90, 90, 90))
    picture = np.asarray(heat_picture(grey, heat, CROP)).astype(int)
    scale = picture.shape[1] / size[0]
    assert picture.shape[0] / size[1] == pytest.approx(scale, rel=0.02)
    bright = picture[..., 0]
    row, column = np.unravel_index(bright.argmax(), bright.shape)
    assert abs(column / scale - (x + patch / 2)) < 0.6 * patch
    assert abs(row / scale - (y + patch / 2)) < 0.6 * patch
    if size[0] != size[1]:  # outside of the crop the image is darker, and has no colour
        edge = picture[0, 0] if size[0] > size[1] else picture[-1, -1]
        np.testing.assert_allclose(edge, 0.35 * 90, atol=1)


def test_colours_go_from_dark_to_light():
    light = [sum(int(colour[i : i + 2], 16) for i in (0, 2, 4)) for colour in COLOURS]
    assert light == sorted(light)


def test_predict_draws_attention(cli, folder):
    model, _ = model_of("class token")
    vit_zoo.export(model, out="attention.onnx", outputs=["logits", "attn.*"], verify=False)
    vit_zoo.export(model, out="part.onnx", outputs=["logits", "attn.1"], verify=False)
    vit_zoo.export(model, out="only.onnx", outputs=["attn.*"], verify=False)
    vit_zoo.save(model, "model")
    Path("images/more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("images/a.png", "images/b.png", "images/more/a.png"):
        Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(name)
    code, out, _ = cli("predict", "attention.onnx", "images/a.png", "--attention", "a.png")
    assert (code, out.splitlines()[-1]) == (0, "wrote a.png")
    assert cli("predict", "./model", "images/a.png", "--attention", "by_model.png").code == 0
    pictures = [np.asarray(Image.open(name)).astype(int) for name in ("a.png", "by_model.png")]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    code, out, _ = cli("predict", "attention.onnx", "images", "--attention", "maps", "--json")
    assert code == 0
    assert [item["attention"] for item in json.loads(out)] == ["maps/a.png", "maps/b.png", "maps/a-2.png"]
    assert sorted(path.name for path in Path("maps").iterdir()) == ["a-2.png", "a.png", "b.png"]
    assert Path("maps/a.png").read_bytes() == Path("a.png").read_bytes()
    code, out, _ = cli("predict", "only.onnx", "images/a.png", "--attention", "c.jpg")  # features alone: no classes
    assert (code, out) == (0, "wrote c.jpg\n")
    assert Path("c.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    for arguments, message in (
        (("part.onnx", "images/a.png", "--attention", "x.png"), "needs the outputs attn.0 to attn.1, and the file has no attn.0"),
        (("part.onnx", "images/a.png", "--attention", "x.png"), "--outputs 'logits,attn.*'"),
        (("only.onnx", "images/a.png", "--attention", "x.png", "--top", "3"), "--top does not apply"),
        (("attention.onnx", "images", "--attention", "x.png"), "is one file, for 3 images"),
        (("attention.onnx", "images/a.png", "--attention", "x.txt"), "must end in .png"),
        (("attention.onnx", "images/a.png", "--attention", "none/x.png"), "no such folder"),
    ):
        code, out, err = cli("predict", *arguments)
        assert (code, out) == (2, ""), arguments
        assert message in err
    assert cli("predict", "attention.onnx", "images", "--attention", "model/config.json").code == 2


def test_outputs_of_all_blocks(folder):
    model, _ = model_of("class token")
    for asked, wanted in (
        ("attn.*", ["attn.0", "attn.1"]),
        ("block.*", ["block.0", "block.1"]),
        ("block.*.map", ["block.0.map", "block.1.map"]),
    ):
        (done,) = vit_zoo.export(model, out="out.onnx", outputs=["logits", asked], verify=False)
        assert vit_zoo.open(done.path).outputs == ("logits", *wanted)
    with pytest.raises(InputError, match=r"unknown output 'heads\.\*'"):
        vit_zoo.export(model, outputs=["heads.*"])
