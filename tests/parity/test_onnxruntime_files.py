"""Tests of `verify` on what onnxruntime's optimisers and quantisers make of a file.

They keep the metadata of ours, and change names, weights and operators.
"""

from __future__ import annotations

import functools
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers import float16, optimizer

import vit_zoo
from support import peers
from support.models import SMALL, noise
from vit_zoo.errors import InputError
from vit_zoo.formats import open_in
from vit_zoo.formats.structure import read_onnx
from vit_zoo.parity import sessions

MODELS = {
    "gelu": {},
    "swiglu": {"mlp": "swiglu", "act": "silu", "registers": 2, "layer_scale": True, "pool": "mean", "pool_tokens": "patches"},
    "quick_gelu": {"act": "quick_gelu", "pre_norm": True, "final_norm": "after_pool", "num_classes": 0},
    "gelu_tanh": {"act": "gelu_tanh", "pool": "map"},
}
LEVELS = ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """More threads slow each other down in models this small."""
    monkeypatch.setattr(sessions, "open_in", functools.partial(open_in, threads=1))


class Reader(CalibrationDataReader):
    def __init__(self):
        images = np.random.default_rng(0).normal(size=(4, 3, 32, 48)).astype("<f4")
        self.images = iter([{"pixel_values": image[None]} for image in images])

    def get_next(self):
        return next(self.images, None)


def optimise(source, target, level="ORT_ENABLE_ALL"):
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(target), 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def fuse(source, target):
    """onnxruntime.transformers.optimizer."""
    optimizer.optimize_model(str(source), model_type="vit", num_heads=3, hidden_size=48).save_model_to_file(str(target))


def static(form, activations):
    def quantise(source, target):
        quantize_static(source, target, Reader(), quant_format=form, activation_type=activations, weight_type=QuantType.QInt8)

    return quantise


QUANTISERS = {
    "dynamic": lambda s, t: quantize_dynamic(s, t, weight_type=QuantType.QInt8),
    "dynamic, unsigned, by channel": lambda s, t: quantize_dynamic(s, t, weight_type=QuantType.QUInt8, per_channel=True),
    "QDQ": static(QuantFormat.QDQ, QuantType.QInt8),
    "QOperator": static(QuantFormat.QOperator, QuantType.QUInt8),
}


def domains(path):
    graph = onnx.load(path)
    return {opset.domain for opset in graph.opset_import}, {node.domain for node in graph.graph.node}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A function that returns a folder with a model and our file of it, each made once; the test works on copies."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("ours")
            vit_zoo.save(noise(vit_zoo.create("vit_ti16", **{**SMALL, "depth": 2, **MODELS[name]})), made[name] / "model")
            vit_zoo.export(made[name] / "model", out=made[name] / "ours.onnx", verify=False)
        return made[name]

    return make


@pytest.fixture
def copied(ours, folder):
    """The same, with the current folder as the place of the files."""

    def make(name="gelu"):
        shutil.copytree(ours(name), ".", dirs_exist_ok=True)

    return make


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", MODELS)
def test_optimised_files_pass(name, level, copied):
    copied(name)
    optimise("ours.onnx", "optimised.onnx", level)
    declared, used = domains("optimised.onnx")
    assert "ai.onnx.ml" in declared - used, "onnxruntime declares domains that it does not use"
    report = vit_zoo.verify("optimised.onnx", "model", effort="full")
    assert report.ok, report.faults
    assert (report.verdict, report.precision) == ("parity", "fp32")
    assert [block.block for block in report.blocks] == [0, 1]


@pytest.mark.parametrize("name", ["gelu", "quick_gelu"])
def test_files_of_the_transformers_optimiser_pass(name, copied):
    copied(name)
    fuse("ours.onnx", "fused.onnx")
    report = vit_zoo.verify("fused.onnx", "model", blocks=True)
    assert report.ok, report.faults
    assert vit_zoo.verify("fused.onnx").ok  # with its own weights


def test_faults_in_an_optimised_file_are_found(copied):
    copied("swiglu")
    optimise("ours.onnx", "optimised.onnx")
    model = onnx.load("optimised.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "blocks.1.attn.qkv.weight[48:96]")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(model, "scaled.onnx")
    report = vit_zoo.verify("scaled.onnx", "model")
    assert "weight 'blocks.1.attn.qkv.weight[48:96]' differs from the model's" in report.faults
    assert report.parting.block == 1

    model = onnx.load("optimised.onnx")
    silu = [node for node in model.graph.node if node.op_type == "QuickGelu"]
    assert [attribute.f for node in silu for attribute in node.attribute] == [1.0] * 2
    silu[1].attribute[0].f = 1.702
    onnx.save(model, "other.onnx")
    report = vit_zoo.verify("other.onnx", "model")
    assert any("activation quick_gelu, expected silu" in fault for fault in report.faults)
    assert {act.value for act in read_onnx(Path("optimised.onnx"))[0].acts} == {"silu"}


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("way", QUANTISERS)
def test_quantised_files_are_judged_as_int8(way, optimised, copied, cli):
    copied()
    QUANTISERS[way]("ours.onnx", "small.onnx")
    if optimised:
        optimise("small.onnx", "optimised.onnx")
    file = "optimised.onnx" if optimised else "small.onnx"
    report = vit_zoo.verify(file, "model", effort="full")
    assert report.precision == "int8"
    assert not report.comparisons
    assert [measured.images for measured in report.agreements] == [64]
    assert report.verdict == ("approximate" if report.agreements[0].ok else "failed")
    assert all(f"{report.agreements[0]}" in fault for fault in report.faults), "no other fault than the measure"
    assert report.agreements[0].ok or not way.startswith("dynamic")
    assert "weights, value by value: int8 rounds them" in report.skipped
    assert cli("verify", file, "--against", "model", "--quiet").code == (0 if report.ok else 3)
    with pytest.raises(InputError, match="the weights are rounded to int8") as error:
        vit_zoo.verify(file)
    assert "against=MODEL" in error.value.hint


def test_a_wrong_scale_in_a_quantised_file_is_found(copied):
    copied()
    quantize_dynamic("ours.onnx", "small.onnx", weight_type=QuantType.QUInt8)
    model = onnx.load("small.onnx")
    names = ("blocks.1.attn.qkv.weight[", "_scale")
    scale = next(t for t in model.graph.initializer if t.name.startswith(names[0]) and t.name.endswith(names[1]))
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(8), scale.name))
    onnx.save(model, "small.onnx")
    assert vit_zoo.verify("small.onnx", "model").verdict == "failed"


def test_our_int8_file_may_be_optimised(copied):
    copied()
    vit_zoo.export("model", out="int8.onnx", precision="int8-dynamic", verify=False)
    optimise("int8.onnx", "optimised.onnx")
    report = vit_zoo.verify("optimised.onnx", "model")
    assert report.ok, report.faults
    assert report.integer_products.proven


def test_small_weights_in_a_float16_file_pass(copied):
    """onnxruntime's converter rounds no weight to 0, and torch does."""
    copied()
    model = vit_zoo.load("model")
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[0, :4] = torch.tensor([1e-8, -2e-8, 0.0, 1e-7])
    vit_zoo.save(model, "tiny")
    vit_zoo.export("tiny", out="tiny.onnx", verify=False)
    onnx.save(float16.convert_float_to_float16(onnx.load("tiny.onnx"), keep_io_types=True), "half.onnx")
    half = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load("half.onnx").graph.initializer}
    assert half["blocks.1.mlp.fc1.weight"][0, 0] != np.float16(1e-8)
    report = vit_zoo.verify("half.onnx", "tiny")
    assert report.ok, report.faults
    assert report.precision == "fp16"


def test_weights_that_a_tool_put_into_the_graph_need_no_second_file(copied):
    copied()
    vit_zoo.export("model", out="apart.onnx", placement="external", verify=False)
    fuse("apart.onnx", "fused.onnx")
    optimise("apart.onnx", "optimised.onnx")
    for file in Path().glob("apart.onnx*"):
        file.unlink()
    assert vit_zoo.verify("fused.onnx", "model").ok
    assert vit_zoo.verify("fused.onnx", "model").data_sha256 is None
    quoted = "needs apart.onnx_data, which is not in the same folder"
    with pytest.raises(vit_zoo.errors.RefusedContent, match=quoted):
        vit_zoo.verify("optimised.onnx", "model")


def test_a_domain_that_is_declared_and_not_used_is_no_fault(copied):
    copied()
    model = onnx.load("ours.onnx")
    model.opset_import.append(helper.make_opsetid("some.tool", 1))
    onnx.save(model, "declared.onnx")
    assert vit_zoo.verify("declared.onnx", "model").ok


# Files of other exporters


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    """timm's ViT, and torch's file of it."""
    module, path = noise(peers.timm_vit(depth=2)), tmp_path_factory.mktemp("timm") / "timm.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.randn(2, 3, 32, 48),), path, input_names=["pixel_values"], dynamo=False, opset_version=17,
            dynamic_axes={"pixel_values": {0: "batch"}},
        )  # fmt: skip
    return module, path


MAKERS = {
    "extended": (lambda s, t: optimise(s, t, "ORT_ENABLE_EXTENDED"), "BiasGelu", "fp32"),
    "all": (optimise, "BiasGelu", "fp32"),
    "fused": (fuse, "SkipLayerNormalization", "fp32"),
    "dynamic": (QUANTISERS["dynamic"], "MatMulInteger", "int8"),
    "QDQ": (QUANTISERS["QDQ"], "DequantizeLinear", "int8"),
    "QOperator": (QUANTISERS["QOperator"], "QLinearMatMul", "int8"),
}


@pytest.mark.parametrize("way", MAKERS)
def test_what_onnxruntime_makes_of_a_file_of_torch(way, timm_file, tmp_path):
    (make, operator, precision), (module, path), target = MAKERS[way], timm_file, tmp_path / "made.onnx"
    make(path, target)
    model = onnx.load(target)
    assert operator in {node.op_type for node in model.graph.node}
    report = vit_zoo.verify(target, against=module)
    assert report.precision == precision
    assert report.ok or (precision == "int8" and not report.agreements[0].ok), report.faults
    assert report.verdict in ("parity" if precision == "fp32" else "approximate", "failed")
    if precision == "fp32":
        weight = max((t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT), key=lambda t: np.prod(t.dims))
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), weight.name))
        onnx.save(model, target)
        assert not vit_zoo.verify(target, against=module).ok
