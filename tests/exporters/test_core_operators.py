"""Tests of graphs for devices: core operators, fixed batches, opsets from 13 on, and the compilers' own checkers."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino
import pytest
import torch
from onnxruntime.tools.mobile_helpers import usability_checker
from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo, optimize_model
from PIL import Image

import vit_zoo
from support.families import KINDS, images_for, small_model
from support.onnx_outputs import TOLERANCE, relative
from support.paths import ROOT
from vit_zoo.errors import InputError
from vit_zoo.formats.onnx_skeleton import declared
from vit_zoo.graph.core_ops import GELU, GELU_RANGE
from vit_zoo.registry.models import get_config

NOT_CORE = {"LayerNormalization", "Gelu", "Erf", "Attention", "Gather", "Mean", "ReduceL2", "Shape", "Expand"}
FREE_BATCH = {"Shape", "Expand"}  # what a free batch cannot do without
FORMS = {
    "batch 1": {"batch": 1},
    "batch 3": {"batch": 3},
    "core": {"operators": "core"},
    "core, batch 1": {"operators": "core", "batch": 1},
    "core, opset 23": {"operators": "core", "opset": 23},
    "opset 13": {"opset": 13},
}


def exported(kind, form, **options):
    model = small_model(kind)
    (done,) = vit_zoo.export(model, "onnx", out="a.onnx", verify="quick", **FORMS[form], **options)
    return model, done


def kinds_of(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_passes_its_check(kind, form, folder):
    """The report of the export compares with float32 and float64 under the usual tolerance; here also with torch."""
    model, done = exported(kind, form)
    assert done.report.verdict == "parity"
    images = images_for(model, FORMS[form].get("batch", 2))
    with torch.inference_mode():
        wanted = model(images)
    found = vit_zoo.open(done.path, isolated=False).run(images.numpy())[model.config.output]
    assert relative(found, wanted) < TOLERANCE
    if "operators" in FORMS[form] or form == "opset 13":
        free = set() if "batch" in FORMS[form] else FREE_BATCH
        assert not kinds_of(done.path) & (NOT_CORE - free)
    if "batch" in FORMS[form]:
        assert not kinds_of(done.path) & {"Shape", "Expand", "Gather"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_dimension_is_static(kind, folder):
    exported(kind, "core, batch 1")
    model = onnx.shape_inference.infer_shapes(onnx.load("a.onnx"), strict_mode=True, data_prop=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.value_info, *model.graph.input)}
    shapes |= {value.name: value.type.tensor_type.shape.dim for value in model.graph.output}
    assert {name for node in model.graph.node for name in node.output} <= set(shapes)
    assert all(axis.HasField("dim_value") for shape in shapes.values() for axis in shape)
    assert max(map(len, shapes.values())) <= 4


@pytest.mark.parametrize("opset", [13, 14, 15, 16])
def test_opsets_before_layer_normalization(opset, folder):
    model = small_model("deit_ti16")
    for precision in ("fp32", "fp16", "bf16", "int8-dynamic", "int8-weights"):
        (done,) = vit_zoo.export(model, out="a.onnx", opset=opset, precision=precision)
        assert done.report.ok
        assert onnx.load(done.path).opset_import[0].version == opset
        assert "LayerNormalization" not in kinds_of(done.path)
    with pytest.raises(InputError, match="opset must be 13 to 25, got 12"):
        vit_zoo.export(model, out="a.onnx", opset=12)


def partitions(path):
    """How onnxruntime's mobile checker divides a file between a device and the CPU: by device, operators, taken, and parts.

    As its command does: it first optimises the graph as the device's execution provider would find it.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "model.onnx"
        optimize_model(Path(path), optimised, use_external_initializers=True)
        model = ModelProtoWithShapeInfo(optimised).model_with_shape_info
        found = {
            "NNAPI": usability_checker.check_nnapi_partitions(model, True),
            "MLProgram": usability_checker.check_coreml_partitions(model, True, "coreml_supported_mlprogram_ops.md"),
            "NeuralNetwork": usability_checker.check_coreml_partitions(model, True, "coreml_supported_neuralnetwork_ops.md"),
        }
        return {name: (info.num_nodes, info.num_supported_nodes, info.num_partitions) for name, info in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_accelerators_take_the_whole_graph(kind, folder):
    """In one part: Core ML's MLProgram with a fixed batch, and with core operators NNAPI too."""
    for form, devices in (("batch 1", ["MLProgram"]), ("core, batch 1", ["MLProgram", "NNAPI"])):
        exported(kind, form)
        found = partitions("a.onnx")
        for device in devices:
            nodes, taken, parts = found[device]
            assert (taken, parts) == (nodes, 1), (form, device)


def test_the_checker_refuses_the_default_file(folder):
    (done,) = vit_zoo.export(small_model("deit_ti16"), out="a.onnx", verify=False)
    for nodes, taken, parts in partitions(done.path).values():
        assert taken < nodes / 2
        assert parts != 1 or taken < 5


@pytest.mark.parametrize("kind", ["deit_ti16", "dinov3_s16", "siglip_b32_256"])
@pytest.mark.parametrize("form", ["core, batch 1", "opset 13", "batch 3"])
def test_openvino_runs_the_same_files(kind, form, folder):
    model, done = exported(kind, form)
    images = images_for(model, FORMS[form].get("batch", 2))
    with torch.inference_mode():
        wanted = model(images)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(done.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert relative(next(iter(compiled(images.numpy()).values())), wanted) < 1e-4


def polynomial(x):
    """The factor of x in the sigmoid, as the graph computes it."""
    part = x * np.float32(1 / math.sqrt(GELU_RANGE))
    square = part * part
    highest, *others = reversed(GELU)
    g = square * np.float32(highest) + np.float32(others[0])
    for coefficient in others[1:]:
        g = g * square + np.float32(coefficient)
    return g


@pytest.mark.filterwarnings("ignore:overflow")
def test_the_gelu_without_erf():
    """Its error against the exact GELU, in float32: no more than the rounding of the result."""
    x = np.linspace(-30, 30, 600_001).astype(np.float32)
    found = x / (1 + np.exp(-(x * polynomial(x))))
    wanted = np.array([0.5 * t * math.erfc(-t / math.sqrt(2)) for t in x.astype(float)])
    assert np.abs(found - wanted).max() < 7e-7
    assert np.abs(found - wanted)[np.abs(x) < 3].max() < 4e-7
    large = np.float32([1e4, -1e4, 1e10, -1e10, 1e30, -1e30, 0])
    assert (polynomial(large) > 0).all(), "beyond the fit it overflows to the right side"


def test_onnxruntime_does_not_fuse_them_back(folder):
    """A device's execution provider sees the graph after onnxruntime's basic optimisations."""
    _, done = exported("deit_ti16", "core, batch 1")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = "optimised.onnx"
    options.log_severity_level = 4
    ort.InferenceSession(done.path, options)
    assert not kinds_of("optimised.onnx") & {"LayerNormalization", "Gelu", "QuickGelu", "BiasGelu"}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8-static", "int8-dynamic", "int8-weights"])
@pytest.mark.parametrize("options", [{"batch": 2}, {"operators": "core"}, {"operators": "core", "batch": 1, "opset": 13}])
def test_precisions(precision, options, folder):
    random = np.random.default_rng(1)
    (folder / "photos").mkdir()
    for i in range(9):
        Image.fromarray(random.integers(0, 256, (48, 60, 3), dtype=np.uint8)).save(folder / "photos" / f"{i}.png")
    model = small_model("deit_ti16", scale=0.05)
    images = {"calibrate": "photos"} if precision == "int8-static" else {}
    (done,) = vit_zoo.export(model, out="a.onnx", precision=precision, **images, **options)
    assert done.report.ok
    assert vit_zoo.selfcheck(done.path).ok


def test_an_accuracy_gate_with_a_fixed_batch(folder):
    random = np.random.default_rng(1)
    (folder / "photos").mkdir()
    for i in range(9):
        Image.fromarray(random.integers(0, 256, (48, 60, 3), dtype=np.uint8)).save(folder / "photos" / f"{i}.png")
    model = small_model("deit_ti16", scale=0.05)
    (done,) = vit_zoo.export(model, out="a.onnx", precision="int8-dynamic", batch=4, evaluate="photos", min_cosine=0.99)
    assert done.judgement.ok
    assert done.report.ok


def test_a_zero_shot_head(folder):
    """A cosine head needs the norm of each vector, for which devices have no operator."""
    fields = {"projection": 24, "cosine_head": True, "head_bias": False, "num_classes": 5, "pool": "cls"}
    model = vit_zoo.create("clip_b32", image_size=32, patch_size=8, dim=48, depth=2, heads=3, dim_head=16, mlp_dim=96, **fields)
    (done,) = vit_zoo.export(model, out="a.onnx", batch=1, operators="core")
    assert done.report.ok
    assert not kinds_of(done.path) & NOT_CORE
    assert partitions(done.path)["NNAPI"][2] == 1


def test_a_file_with_a_fixed_batch_is_used_like_others(folder, cli):
    (done,) = vit_zoo.export("vit_digits", out="digits.onnx", batch=4)
    assert declared(done.path)[1] == (4, 3, 8, 8)
    samples = sorted((ROOT / "zoo" / "vit_digits" / "samples").glob("*.png"))
    found = vit_zoo.predict(done.path, samples)
    assert [prediction.labels[0] for prediction in found] == list("0123456789")
    assert cli("selfcheck", done.path).code == 0
    assert cli("verify", done.path, "--against", "vit_digits", "-q").code == 0
    shown = json.loads(cli("show", done.path, "--json").out)
    assert shown["graph"]["batch_is_fixed"] is True
    assert shown["export"]["batch"] == 4
    vit_zoo.export("vit_digits", out="features.onnx", outputs=["pooler_output"], batch=4)
    assert vit_zoo.embed("features.onnx", samples, "a.npy").images == 10


def test_a_batch_other_than_the_metadata_state_is_found(folder):
    (done,) = vit_zoo.export("vit_digits", out="digits.onnx", batch=4)
    model = onnx.load(done.path)
    entry = next(entry for entry in model.metadata_props if entry.key == "vit_zoo.export")
    for stated, expected in ((None, "any number of images"), (2, "batches of 2")):
        export = json.loads(entry.value)
        export.pop("batch", None)
        entry.value = json.dumps(export | ({} if stated is None else {"batch": stated}))
        Path("other.onnx").write_bytes(model.SerializeToString())
        report = vit_zoo.verify("other.onnx", "vit_digits")
        assert f"accepts batches of 4; expected {expected} (from the metadata)" in report.faults


def test_a_published_folder_keeps_them_under_their_own_names(folder):
    vit_zoo.save(vit_zoo.load("vit_digits"), "digits")
    vit_zoo.export("digits", out="digits/npu.onnx", batch=1, operators="core")
    done = vit_zoo.publish("digits", "me/digits", dry_run="staged")
    assert {"onnx/npu.onnx", "onnx/model.onnx"} <= set(done.files)
    assert declared(Path("staged/onnx/model.onnx"))[1][0] == "batch"


REFUSED = [
    ({"batch": True}, "batch must be a whole number from 1 to 65536, got True"),
    ({"batch": 2.0}, "batch must be a whole number from 1 to 65536, got 2.0"),
    ({"batch": 0}, "batch must be a whole number from 1 to 65536, got 0"),
    ({"batch": 2, "dynamic": "hw"}, "a fixed batch makes every dimension static; it cannot be combined with a dynamic size"),
    (
        {"batch": 2, "include": ["preprocess"]},
        "a fixed batch makes every dimension static; it cannot be combined with preprocessing",
    ),
    ({"operators": "core", "dynamic": "hw"}, "core operators need an image of a fixed size"),
    ({"operators": "core", "include": ["preprocess-exact"]}, "core operators need an image of a fixed size"),
    ({"opset": 13, "dynamic": "hw"}, r"cannot be combined with a dynamic size \(opsets below 17 have core operators only\)"),
    ({"opset": 13, "operators": "all"}, "opset 13 has no LayerNormalization, so its graphs have core operators only"),
    ({"operators": "few"}, "unknown operators 'few'; choose from all, core"),
    ({"batch": 2, "triton": "repository"}, "contradict each other: the server chooses the batch"),
    ({"to": "pt2", "batch": 2}, "batch and operators apply to ONNX only"),
    ({"to": ["onnx", "torchscript"], "operators": "core"}, "batch and operators apply to ONNX only"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_contradicts_itself_is_refused(options, message, folder):
    with pytest.raises(InputError, match=message):
        vit_zoo.export("vit_digits", **options)
    assert not list(folder.iterdir())


def test_the_commands_options(folder, cli):
    assert cli("export", "vit_digits", "--onnx", "--batch", "2", "--operators", "core", "--opset", "13").code == 0
    assert declared(Path("vit_digits.onnx"))[1][0] == 2
    assert cli("export", "vit_digits", "--onnx", "--batch", "0").code == 2
    assert cli("export", "vit_digits", "--onnx", "--operators", "some").code == 2
    assert get_config("vit_digits").preprocess is not None
