"""Tests of `vitzoo show` for exported files of any tool, folders of them, parity reports, and preprocessing as code."""

from __future__ import annotations

import json
import random
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import vit_zoo
from vit_zoo.formats.onnx_summary import summarise
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.parity.report import read_report
from vit_zoo.publishing.numpy_code import program


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder of exported files of vit_digits."""
    folder = tmp_path_factory.mktemp("exports")
    common = {"verify": "quick", "out": folder}
    vit_zoo.export("vit_digits", ["onnx"], **{**common, "out": folder / "digits.onnx"})
    vit_zoo.export("vit_digits", ["onnx"], **{**common, "out": folder / "raw.onnx"}, include=["preprocess-exact"])
    vit_zoo.export("vit_digits", ["onnx"], **{**common, "out": folder / "half.onnx"}, precision="fp16", placement="external")
    vit_zoo.export("vit_digits", ["onnx"], **{**common, "out": folder / "integers.onnx"}, precision="int8-dynamic")
    return folder


@pytest.fixture
def place(exports, folder):
    """A copy of these files as the current folder."""
    shutil.copytree(exports, folder, dirs_exist_ok=True)
    return folder


def shown(cli, *arguments):
    """The lines of `vitzoo show` by name, and its JSON document."""
    text, document = cli("show", *arguments), cli("show", *arguments, "--json")
    assert (text.code, document.code) == (0, 0), text.err
    lines = {line.partition(":")[0]: line.partition(":")[2].strip() for line in text.out.splitlines()}
    return lines, json.loads(document.out)


def foreign_graph(path, batch=2):
    """A file of another tool: operators of two domains, a branch, old-style inputs, a fixed batch, and an axis without a name."""
    value = helper.make_tensor_value_info
    branch = [
        helper.make_graph(
            [helper.make_node(kind, ["y"], [f"{kind}_out"])], kind, [], [value(f"{kind}_out", TensorProto.FLOAT, None)]
        )
        for kind in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["n"], epsilon=1e-12),
        helper.make_node("QuickGelu", ["n"], ["y"], domain="com.microsoft"),
        helper.make_node("If", ["choice"], ["scores"], then_branch=branch[0], else_branch=branch[1]),
    ]
    weights = [
        helper.make_tensor("scale", TensorProto.FLOAT, [8], [1.0] * 8),
        helper.make_tensor("choice", TensorProto.BOOL, [], [1]),
    ]
    inputs = [value("x", TensorProto.FLOAT, [batch, None, 8]), value("scale", TensorProto.FLOAT, [8])]
    graph = helper.make_graph(nodes, "theirs", inputs, [value("scores", TensorProto.FLOAT, ["n", "m", 8])], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="their tool", producer_version="2.1", ir_version=8)
    onnx.save(model, path)


def test_a_file_of_ours(place, cli):
    lines, document = shown(cli, "digits.onnx")
    assert lines["input"] == "pixel_values float32 [batch, 3, 8, 8]"
    assert lines["output"] == "logits float32 [batch, 10]"
    assert lines["free axes"] == "batch"
    assert lines["opset"] == "20 (IR version 9)"
    assert lines["activation"] == "gelu"
    assert lines["norm epsilon"] == "1e-06"
    assert lines["stored"].startswith("203,594 values of float32 (795 KiB)")
    assert lines["labels"].startswith("10: 0, 1, 2")
    assert lines["parity"].startswith("verified against ")
    assert read_report(Path("digits.onnx")).summary() in lines["parity"]
    model, graph = onnx.load("digits.onnx"), document["graph"]
    assert graph["ir_version"] == model.ir_version
    assert sum(graph["operators"].values()) == len(model.graph.node)
    assert graph["operators"]["LayerNormalization"] == 13
    assert document["bytes"] == Path("digits.onnx").stat().st_size
    assert document["export"]["weights_sha256"] == lines["weights_sha256"]
    assert document["report"]["ok"] is document["parity"] is True
    assert graph["batch"] == "batch"
    assert graph["batch_is_fixed"] is False


def test_other_precisions_and_files_beside_the_graph(place, cli):
    lines, document = shown(cli, "half.onnx")
    assert lines["precision"] == "fp16"
    assert "values of float16" in lines["stored"]
    assert document["graph"]["data_files"] == {"half.onnx_data": Path("half.onnx_data").stat().st_size}
    integers = shown(cli, "integers.onnx")[1]["graph"]
    assert integers["weights"][0]["type"] == "int8"
    assert integers["precision"] == "int8"
    assert any(
        kind.startswith("com.microsoft.") or kind in ("MatMulInteger", "DynamicQuantizeLinear") for kind in integers["operators"]
    )
    Path("half.onnx_data").unlink()
    code, _, err = cli("show", "half.onnx")
    assert (code, err) == (7, "vitzoo: error: half.onnx: needs half.onnx_data, which is not in the same folder\n")


def test_a_file_of_another_tool(folder, cli):
    foreign_graph("theirs.onnx")
    lines, document = shown(cli, "theirs.onnx")
    assert lines["input"] == "x float32 [2, ?, 8]"  # its weights are no inputs
    assert lines["output"] == "scores float32 [n, m, 8]"
    assert lines["batch"] == "fixed: 2"
    assert lines["free axes"] == "axis 1"
    assert lines["opset"] == "17, com.microsoft 1 (IR version 8)"
    assert lines["producer"] == "their tool 2.1"
    assert lines["operators"] == "5: 1 LayerNormalization, 1 com.microsoft.QuickGelu, 1 If, 1 Neg, 1 Relu"
    assert lines["norm epsilon"] == "1e-12"
    assert lines["activation"] == "quick_gelu"
    assert lines["origin"] == "written by another tool: no vit_zoo metadata"
    assert document["graph"]["inputs"] == [{"name": "x", "type": "float32", "shape": [2, None, 8]}]
    assert "code" not in document
    assert cli("show", "theirs.onnx", "--code").err.startswith("vitzoo: error: theirs.onnx: its preprocessing is not known")


def test_neither_torch_nor_onnxruntime_is_needed(place):
    code = (
        "import sys; sys.modules |= {'torch': None, 'onnxruntime': None}\n"
        "from vit_zoo.cli.entry_point import run; sys.exit(run(['show', 'integers.onnx']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "precision:" in result.stdout


def test_graphs_that_make_no_sense_are_described(place, cli):
    """Only a file that cannot be decoded is refused."""
    source, generator = onnx.load("integers.onnx"), random.Random(0)

    def damage(model):
        node, weight = generator.choice(model.graph.node), generator.choice(model.graph.initializer)
        match generator.randrange(6):
            case 0:
                node.ClearField(generator.choice(["input", "output", "attribute"]))
            case 1:
                node.op_type = generator.choice(
                    ["Sigmoid", "Add", "Constant", "LayerNormalization", "DequantizeLinear", "Transpose"]
                )
            case 2:
                weight.dims[:] = [-1, 2**62]
            case 3:
                weight.data_type = generator.choice([0, 8, 22, 99])
            case 4:
                model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = -5
            case 5:
                node.input[:] = [generator.choice(model.graph.node[:20]).output[0]] * len(node.input)

    for _ in range(25):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        for _ in range(generator.choice([1, 2, 4])):
            damage(model)
        Path("damaged.onnx").write_bytes(model.SerializeToString())
        code, _, err = cli("show", "damaged.onnx")
        assert (code, err) == (0, "")
    Path("damaged.onnx").write_bytes(Path("digits.onnx").read_bytes()[:5000])
    assert cli("show", "damaged.onnx").code == 7


def test_a_graph_with_many_paths_takes_no_time(folder, cli):
    """The number of paths to an operator doubles with each addition of a value to itself."""
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Add", [f"x{i}", f"x{i}"], [f"x{i + 1}"]) for i in range(60)]
    nodes += [helper.make_node("Concat", [f"x{i}", f"x{i}"], [f"x{i + 1}"], axis=0) for i in range(60, 70)]
    nodes += [helper.make_node("MatMulInteger", ["x70", "x70"], ["y"])]
    graph = helper.make_graph(nodes, "paths", [value("x0", TensorProto.UINT8, [1])], [value("y", TensorProto.INT32, None)])
    onnx.save(helper.make_model(graph), "paths.onnx")
    assert shown(cli, "paths.onnx")[1]["graph"]["operators"]["Add"] == 60


def test_a_parity_report(place, cli):
    code, text, _ = cli("show", "digits.onnx.parity.json")
    report = read_report(Path("digits.onnx"))
    assert code == 0
    assert "digits.onnx, unchanged since the check" in text
    assert "1-cosine" in text  # the table of comparisons
    assert text.splitlines()[-1] == f"digits.onnx computes {report.reference}: {report.summary()}"
    assert json.loads(cli("show", "digits.onnx.parity.json", "--json").out)["sha256"] == report.sha256
    with Path("digits.onnx").open("ab") as file:
        file.write(b"\0\0")
    assert "digits.onnx, CHANGED since the check" in cli("show", "digits.onnx.parity.json").out
    Path("digits.onnx").unlink()
    assert "digits.onnx is not here" in cli("show", "digits.onnx.parity.json").out
    Path("odd.parity.json").write_text('{"ok": true}')
    code, _, err = cli("show", "odd.parity.json")
    assert (code, err.count("\n")) == (7, 1)
    assert "not a parity report" in err


def test_a_failed_report_is_shown_as_verify_prints_it(folder, cli):
    small = {"dim": 24, "depth": 1, "heads": 2, "dim_head": 12, "mlp_dim": 24, "image_size": 32}
    for seed in (0, 1):
        vit_zoo.save(vit_zoo.create("vit_b16", seed=seed, **small), f"seed{seed}")
    vit_zoo.export("seed0", ["onnx"], out="model.onnx", verify=False)
    failed = cli("verify", "model.onnx", "--against", "seed1", "--quick")
    assert failed.code == 3
    text = cli("show", "model.onnx.parity.json").out
    assert failed.out.strip() in text
    assert "does not compute" in text.splitlines()[-1]
    assert shown(cli, "model.onnx")[0]["parity"].startswith("FAILED against ")


def test_a_folder_of_exported_files(place, cli):
    Path("broken.onnx").write_bytes(Path("digits.onnx").read_bytes()[:5000])
    code, text, _ = cli("show", ".")
    rows = [line.split() for line in text.splitlines()]
    assert code == 0
    assert rows[0] == ["file", "precision", "size", "parity", "input"]
    assert [row[0] for row in rows[1:]] == ["broken.onnx", "digits.onnx", "half.onnx", "integers.onnx", "raw.onnx"]
    assert "complete ONNX file" in " ".join(rows[1])
    assert rows[3][1:5] == ["fp16", *rows[3][2:4], "verified"]
    documents = json.loads(cli("show", ".", "--json").out)["exports"]
    assert [document["file"] for document in documents] == [row[0] for row in rows[1:]]
    assert documents[1]["graph"]["precision"] == "fp32"
    vit_zoo.save(vit_zoo.load("vit_digits"), "model")
    shutil.copy("digits.onnx", "model/digits.onnx")
    text = cli("show", "model").out
    assert text.startswith("name:")  # the model, and then what was exported of it
    assert "exported files:" in text
    assert "model/digits.onnx" not in text


def test_code_runs_and_gives_the_same_prediction(place, cli):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 29, 3), np.uint8)).save("image.png")
    (prediction,) = vit_zoo.predict("digits.onnx", "image.png", top=1)
    for file in ("digits.onnx", "raw.onnx"):
        Path("program.py").write_text(cli("show", file, "--code").out)
        assert json.loads(cli("show", file, "--json").out)["code"] == Path("program.py").read_text()
        run = subprocess.run([sys.executable, "program.py", "image.png"], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[0].startswith(f"{prediction.labels[0]}: ")
        assert len(run.stdout.splitlines()) == 5


PREPROCESS = {
    "shorter edge": {"resize_to": 13},
    "rounded down": {"resize_to": 13, "crop_rounding": "down"},
    "squashed": {"resize_to": None, "interpolation": "bilinear"},
    "squashed, then cropped": {"resize_to": (14, 17), "size": (10, 12)},
    "floats": {"resize_to": 12, "resize_dtype": "float32"},
    "grey": {"resize_to": 11, "mean": (0.3,), "std": (0.2,)},
    "grey floats": {"resize_to": 11, "mean": (0.3,), "std": (0.2,), "resize_dtype": "float32"},
    "statistics": {"resize_to": 11, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
}


@pytest.mark.parametrize("case", PREPROCESS)
def test_code_prepares_exactly_as_preprocess_does(case, folder, monkeypatch):
    fields = {"size": (10, 10), "interpolation": "bicubic", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.4, 0.6)}
    preprocess = Preprocess(**{**fields, **PREPROCESS[case]})
    Path("program.py").write_text(program(preprocess))
    generator = np.random.default_rng(0)
    for size in ((23, 31), (31, 23), (10, 10), (9, 40)):
        image = Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8))
        image.save("image.png")
        monkeypatch.setattr(sys, "argv", ["program.py", "image.png"])
        prepared = runpy.run_path("program.py")["prepare"](image)
        assert prepared.dtype == np.float32
        np.testing.assert_array_equal(prepared, preprocess(image))


def test_names_in_a_file_are_quoted_in_code(place, cli):
    """A name of an input that contains code does not become code."""
    model, name = onnx.load("digits.onnx"), 'x"]); open("hacked", "w"); (["'
    model.graph.input[0].name = name
    model.graph.node[0].input[:] = [name if one == "pixel_values" else one for one in model.graph.node[0].input]
    Path("named.onnx").write_bytes(model.SerializeToString())
    assert summarise(Path("named.onnx")).inputs[0].name == name
    Path("program.py").write_text(cli("show", "named.onnx", "--code").out)
    Image.new("RGB", (9, 9)).save("image.png")
    subprocess.run([sys.executable, "program.py", "image.png"], capture_output=True, check=False)
    assert not Path("hacked").exists()


def test_verify_remarks_on_what_other_clients_expect(place, cli):
    """A file of another tool that computes the model is told to have other names and a fixed batch."""
    model = onnx.load("digits.onnx")
    del model.metadata_props[:]
    for node in model.graph.node:
        node.input[:] = ["image" if one == "pixel_values" else one for one in node.input]
        node.output[:] = ["scores" if one == "logits" else one for one in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "image", "scores"
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    Path("theirs.onnx").write_bytes(model.SerializeToString())
    code, _, err = cli("verify", "theirs.onnx", "--against", "vit_digits", "--quick")
    assert code == 0, err
    remarks = [
        "its batch is fixed: it accepts 2 images at a time",
        "its input is called 'image'; transformers.js and optimum expect 'pixel_values'",
        "its output 'scores' is logits; transformers.js and optimum expect that name",
    ]
    assert [line for line in err.splitlines() if "its " in line] == [
        f"vitzoo: warning: theirs.onnx: {remark}" for remark in remarks
    ]
    assert json.loads(Path("theirs.onnx.parity.json").read_text())["warnings"] == remarks
    assert f"warning: {remarks[0]}" in cli("show", "theirs.onnx.parity.json").out
    assert cli("verify", "digits.onnx", "--quick").err == ""
