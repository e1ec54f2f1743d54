"""Tests that a self-check sees what devices and runtimes get wrong, each on every kind of model that it can happen to."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import vit_zoo
from support.families import KINDS, small_model
from vit_zoo.model import forward
from vit_zoo.model.torch_ops import TorchOps


class HalfSums(TorchOps):
    """Matrix products with inputs, sums and results in half precision."""

    kind = torch.float16

    def linear(self, m, x):
        weight, bias = m.weight.flatten(1).to(self.kind), None if m.bias is None else m.bias.to(self.kind)
        return torch.nn.functional.linear(x.to(self.kind), weight, bias).float()


class BrainSums(HalfSums):
    kind = torch.bfloat16


class OtherGelu(TorchOps):
    """The tanh form for the exact GELU, and the other way round."""

    def act(self, x, name):
        return super().act(x, {"gelu": "gelu_tanh", "gelu_tanh": "gelu"}.get(name, name))


class OtherQuickGelu(TorchOps):
    def act(self, x, name):
        return super().act(x, {"quick_gelu": "gelu"}.get(name, name))


class OtherEps(TorchOps):
    """1e-5 for 1e-6 or 1e-12, on tokens whose variance is small."""

    def norm(self, m, x, spec):
        eps = 1e-5 if spec.norm_eps < 1e-5 else 1e-6
        if spec.norm == "rms":
            return torch.nn.functional.rms_norm(x, x.shape[-1:], m.weight, eps)
        return torch.nn.functional.layer_norm(x, x.shape[-1:], m.weight, m.bias, eps)


class NoRotation(TorchOps):
    def rotate(self, x, rope, spec):
        return super().rotate(x, None, spec)


class ScoresInHalf(TorchOps):
    """Attention in half precision."""

    def attend(self, q, k, v, dropout, bias=None):
        return super().attend(q.half(), k.half(), v.half(), dropout, bias).float()


class NoScale(TorchOps):
    """A fused attention whose scale is left out."""

    def attend(self, q, k, v, dropout, bias=None):
        return super().attend(q * q.shape[-1] ** 0.5, k, v, dropout, bias)


class PairsRotated(TorchOps):
    """Rotation of neighbouring elements, as in other models, in place of halves, or the other way round."""

    def rotate(self, x, rope, spec):
        other = SimpleNamespace(rotates_neighbours=not spec.rotates_neighbours)
        return super().rotate(x, rope, other)


def runs_with(ops: type[TorchOps]) -> Callable[[Any], Callable[[Any], Any]]:
    """A device that computes with these operations."""

    class Direct(ops):
        def run(self, function, m, *args):
            x, spec, *rest = args
            return function(m, x, spec, self, *rest)

    def device(model):
        name = model.config.output

        def run(x):
            with torch.inference_mode():
                return forward.vit(model, torch.from_numpy(x), model.spec, Direct(), (name,))[name].numpy()

        return run

    return device


def takes(change: Callable[[Any], Any]) -> Callable[[Any], Callable[[Any], Any]]:
    """A device that changes the images."""

    def device(model):
        exact = runs_with(TorchOps)(model)
        return lambda x: exact(np.ascontiguousarray(change(x), dtype=np.float32))

    return device


def returns(change: Callable[[Any], Any]) -> Callable[[Any], Callable[[Any], Any]]:
    """A device that changes the output."""

    def device(model):
        exact = runs_with(TorchOps)(model)
        return lambda x: change(exact(x).copy())

    return device


def nan_at_the_end(x):
    x.reshape(-1)[-1] = np.nan
    return x


DEVICES = {
    "float16 sums": runs_with(HalfSums),
    "bfloat16 sums": runs_with(BrainSums),
    "float16 attention": runs_with(ScoresInHalf),
    "attention without its scale": runs_with(NoScale),
    "the other GELU": runs_with(OtherGelu),
    "GELU for quick GELU": runs_with(OtherQuickGelu),
    "rotation lost": runs_with(NoRotation),
    "pairs rotated": runs_with(PairsRotated),
    "NHWC for NCHW": takes(lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape)),
    "RGB for BGR": takes(lambda x: x[:, ::-1]),
    "width for height": takes(lambda x: x.reshape(*x.shape[:2], x.shape[3], x.shape[2]).swapaxes(2, 3)),
    "mirrored": takes(lambda x: x[..., ::-1]),
    "upside down": takes(lambda x: x[:, :, ::-1]),
    "8-bit images": takes(lambda x: np.round(x * 32) / 32),
    "scaled by 1.001": takes(lambda x: x * 1.001),
    "images of the batch exchanged": takes(lambda x: x[::-1]),
    "the first image for all": takes(lambda x: np.repeat(x[:1], len(x), axis=0)),
    "zeros": returns(np.zeros_like),
    "NaN": returns(nan_at_the_end),
    "one value off": returns(lambda x: x + (np.arange(x.size).reshape(x.shape) == 5) * np.abs(x).max() * 0.01),
    "values rotated": returns(lambda x: np.roll(x, 1, axis=-1)),
    "float16 output": returns(lambda x: x.astype(np.float16)),
}
ROTATED = {"rotation lost", "pairs rotated"}
GELUS = {"gelu", "gelu_tanh"}


def happens(fault, spec):
    """Whether a fault changes a model of this kind."""
    if fault in ROTATED:
        return spec.rotates
    if fault == "scaled by 1.001":
        return spec.patch_norms is not True  # a norm of the values of each patch divides by their scale
    if fault == "the other GELU":
        return spec.act in GELUS
    return spec.act == "quick_gelu" if fault == "GELU for quick GELU" else True


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    model = small_model(request.param)
    (done,) = vit_zoo.export(model, "onnx", out=tmp_path_factory.mktemp("file") / "a.onnx", verify="quick")
    return model, done.path


def test_a_right_device_passes(exported):
    model, path = exported
    assert vit_zoo.selfcheck(path, run=runs_with(TorchOps)(model)).ok


@pytest.mark.parametrize("fault", DEVICES)
def test_a_wrong_device_fails(fault, exported):
    model, path = exported
    result = vit_zoo.selfcheck(path, run=DEVICES[fault](model))
    assert result.ok != happens(fault, model.spec), result


def test_a_wrong_epsilon_fails_where_it_shows(folder):
    """Where the variance of tokens is small: of healthy ones, an epsilon changes less than rounding does."""
    model = small_model("deit_ti16", scale=0.004)
    (done,) = vit_zoo.export(model, "onnx")
    assert vit_zoo.selfcheck(done.path, run=runs_with(TorchOps)(model)).ok
    assert not vit_zoo.selfcheck(done.path, run=runs_with(OtherEps)(model)).ok


def test_saturated_int8_fails(folder):
    """Products of unsigned and signed bytes, added in pairs of 16 bits that saturate, as CPUs without VNNI do."""
    model = small_model("deit_ti16")
    (done,) = vit_zoo.export(model, "onnx", precision="int8-dynamic", verify="quick")
    graph = onnx.load(done.path)
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.int8 and values.ndim == 2:  # the largest of each pair of weights is cut, as a full sum would be
            limit = int(np.quantile(np.abs(values), 0.98))
            tensor.CopyFrom(numpy_helper.from_array(np.clip(values, -limit, limit), tensor.name))
    (folder / "saturated.onnx").write_bytes(graph.SerializeToString())
    assert vit_zoo.selfcheck(done.path).ok
    assert not vit_zoo.selfcheck("saturated.onnx").ok
