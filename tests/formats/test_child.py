"""Tests of ONNX files in a child process: its limits, its end, what it may send, and the same outputs as in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.errors import InputError, RefusedContent, Stopped
from vit_zoo.formats import child as child_module
from vit_zoo.formats import open_in
from vit_zoo.formats.child import Child
from vit_zoo.formats.limits import SECONDS, Clock, Limits, memory_to_run, seconds_to_open, seconds_to_run
from vit_zoo.parity.sessions import Sessions

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or limits memory")
X = np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)
FOREVER = 2**62


def graph(path, nodes, constants, output=None):
    """Write a file whose value `logits` the nodes compute, from `image`, or from its ten products with a table, `products`."""
    table = np.random.default_rng(0).standard_normal((192, 10)).astype("<f4")
    known = {"table": table, **{name: np.asarray(value) for name, value in constants.items()}}
    first = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "table"], ["products"])]
    output = output or helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    made = helper.make_graph(
        [*first, *nodes],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [output],
        [numpy_helper.from_array(value, name) for name, value in known.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def loop(path, source="products"):
    """A file that never ends: where it runs, or for a constant `source`, where onnxruntime computes its constants."""
    values = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, None))
    ]
    results = [
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["x"], ["y"])]
    body = helper.make_graph(nodes, "body", values, results)
    return graph(
        path,
        [
            helper.make_node("Loop", ["count", "true", source], ["last"], body=body),
            helper.make_node("Add", ["products", "last"], ["logits"]),
        ],
        {"count": np.int64(FOREVER), "true": True, "one": np.float32(1)},
    )


def expanded(path, length):
    """A file that makes a table of `length` times `length` values of an image."""
    nodes = [
        helper.make_node("ReduceMean", ["products"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["large"]),
        helper.make_node("MatMul", ["large", "large"], ["larger"]),
        helper.make_node("ReduceMean", ["larger"], ["number"], keepdims=0),
        helper.make_node("Add", ["products", "number"], ["logits"]),
    ]
    return graph(path, nodes, {"shape": np.array([length, length], np.int64)})


def of_type(path, node, output, constants=()):
    return graph(path, [node], dict(constants), output)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported model with random weights and biases."""
    model = noise(vit_zoo.ViT(**{**SMALL, "image_size": 32, "patch_size": 8}))
    return vit_zoo.export(model, out=tmp_path_factory.mktemp("model") / "small.onnx", verify=False)[0].path


@pytest.fixture
def started(monkeypatch):
    """The processes that were started; each must have been reaped at the end of the test."""
    processes, start = [], subprocess.Popen

    def popen(*arguments, **options):
        processes.append(start(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(child_module.subprocess, "Popen", popen)
    yield processes
    for process in processes:
        assert process.returncode is not None, "a process was left"
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


def run_in_child(path, **limits):
    child = Child(path, Limits.of(limits.get("time_limit"), limits.get("memory_limit")))
    try:
        return open_in(child, path).run(X)
    finally:
        child.close()


@pytest.mark.parametrize("source", ["products", "one"])
def test_a_file_that_never_ends(tmp_path, started, source):
    path, begun = loop(tmp_path / "loop.onnx", source), time.monotonic()
    with pytest.raises(Stopped, match=r"loop.onnx: took more than 1\.5 s \(time_limit=SECONDS raises this limit\)"):
        run_in_child(path, time_limit=1.5)
    assert time.monotonic() - begun < 10
    assert started[0].returncode == -signal.SIGKILL
    assert Stopped.code == 7


@LINUX
def test_a_file_that_needs_all_memory(tmp_path, started):
    path = expanded(tmp_path / "table.onnx", 20_000)  # 1.6 GB for each table
    with pytest.raises(Stopped, match=r"table.onnx: needs more than 0.8 GB of memory \(memory_limit=GB raises this limit\)"):
        run_in_child(path)
    assert started
    with pytest.raises(Stopped, match=r"needs more than 0.3 GB of memory"):
        run_in_child(expanded(tmp_path / "smaller.onnx", 6000), memory_limit=0.3)  # 144 MB for each table
    assert run_in_child(expanded(tmp_path / "smaller.onnx", 500), memory_limit=0.3)["logits"].shape == (2, 10)


@LINUX
def test_a_large_output_is_not_read(tmp_path, started):
    nodes = [
        helper.make_node("ReduceMean", ["products"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["logits"]),
    ]
    path = graph(tmp_path / "output.onnx", nodes, {"shape": np.array([60_000_000], np.int64)})  # 240 MB
    with pytest.raises(Stopped, match=r"needs more than 0.8 GB"):
        run_in_child(path)
    assert started


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_of_onnxruntime(tmp_path, started, number):
    path = loop(tmp_path / "loop.onnx")
    child = Child(path, Limits())
    artifact = open_in(child, path)
    code = f"import os, time; time.sleep(0.3); os.kill({started[0].pid}, {int(number)})"
    killer = subprocess.Popen([sys.executable, "-c", code])
    with pytest.raises(Stopped, match=rf"loop.onnx: onnxruntime crashed \({number.name}\) while it ran the file"):
        artifact.run(X)
    killer.wait()
    with pytest.raises(Stopped, match=r"loop\.onnx: the child process that ran it has ended"):
        artifact.run(X)


def test_all_runs_share_the_time_that_is_stated(tmp_path):
    clock = Clock(Limits(seconds=5))
    clock.used = 4
    assert clock.left(100) == 1
    clock = Clock(Limits())
    clock.used = SECONDS - 5
    assert clock.left(2) == 7
    assert clock.left(3) == 10


def test_defaults_follow_from_the_size():
    pixels, values = 224 * 224, 5 * 3 * 224 * 224
    tiny, large = 25_000_000, 1_200_000_000
    assert SECONDS + seconds_to_open(tiny) + seconds_to_run(tiny, 5, pixels) < 30
    assert memory_to_run(tiny, 5, pixels, values) < 1.5e9
    assert seconds_to_run(large, 5, pixels) > 100
    assert memory_to_run(large, 5, pixels, values) > 5e9


@pytest.mark.parametrize("optimised", [True, False])
def test_outputs_are_those_of_this_process(exported, started, optimised):
    x = np.random.default_rng(1).standard_normal((3, 3, 32, 32), np.float32)
    here = open_in(None, exported, threads=1, optimised=optimised)
    child = Child(exported, Limits())
    there = open_in(child, exported, threads=1, optimised=optimised)
    assert repr(there) == repr(here)
    assert (there.outputs, there.axes, there.output_shapes) == (here.outputs, here.axes, here.output_shapes)
    for images in (x, x[:1], x[:0], x[:, :, ::-1]):  # the last one does not lie in C order
        for name, value in here.run(images).items():
            result = there.run(images)[name]
            assert (result.dtype, result.shape) == (value.dtype, value.shape)
            assert result.tobytes() == value.tobytes()
    child.close()
    assert len(started) == 1


def test_inner_values_are_those_of_this_process(exported, started):
    x = np.random.default_rng(1).standard_normal((2, 3, 32, 32), np.float32)
    names = [node.output[0] for node in onnx.load(exported).graph.node][5:9]
    child = Child(exported, Limits())
    here, there = Sessions(exported), Sessions(exported, child)
    values = here.inner_values(names, x)
    assert set(names) < set(values)
    results = there.inner_values(names, x)
    assert {name: value.tobytes() for name, value in results.items()} == {name: v.tobytes() for name, v in values.items()}
    first = there.get(optimised=True)
    there.get(optimised=False)
    with pytest.raises(Stopped, match="has ended"):
        first.run(x)
    there.close()
    assert len(started) == 1


NUMBERS = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
OTHER_OUTPUTS = {
    "a sequence": (
        helper.make_node("SequenceConstruct", ["products"], ["logits"]),
        helper.make_tensor_sequence_value_info("logits", TensorProto.FLOAT, None),
    ),
    "an optional without a value": (
        helper.make_node("Optional", [], ["logits"], type=NUMBERS),
        helper.make_value_info("logits", helper.make_optional_type_proto(NUMBERS)),
    ),
    "of type object": (
        helper.make_node("Cast", ["products"], ["logits"], to=TensorProto.STRING),
        helper.make_tensor_value_info("logits", TensorProto.STRING, None),
    ),
}


@pytest.mark.parametrize("kind", OTHER_OUTPUTS)
def test_outputs_that_are_no_arrays_of_numbers(tmp_path, kind):
    path = of_type(tmp_path / "other.onnx", *OTHER_OUTPUTS[kind])
    for run in (run_in_child, lambda path: open_in(None, path).run(X)):
        with pytest.raises(RefusedContent, match=f"other.onnx: output 'logits' is {kind}, not an array of numbers"):
            run(path)


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_outputs_of_every_type_of_number(tmp_path, kind):
    node = helper.make_node("Cast", ["products"], ["logits"], to=kind)
    path = of_type(tmp_path / "cast.onnx", node, helper.make_tensor_value_info("logits", kind, None))
    result, value = run_in_child(path)["logits"], open_in(None, path).run(X)["logits"]
    assert (result.dtype, result.tobytes()) == (value.dtype, value.tobytes())


ANSWERS = {
    "nothing": b"",
    "an endless header": b"\xff\xff\xff\xff",
    "no JSON": b"\4\0\0\0abcd",
    "no object": b"\2\0\0\0[]",
    "deep JSON": (100_000).to_bytes(4, "little") + b"[" * 100_000,
    **{
        name: len(text := json.dumps({"inputs": [], "outputs": [], "arrays": arrays}).encode()).to_bytes(4, "little") + text
        for name, arrays in {
            "objects": [["|O8", [1]]],
            "a structure": [["<f4,<i4", [1]]],
            "terabytes": [["<f4", [2**30, 2**10]]],
            "many": [["<f4", [2**28]]] * 1000,
            "a negative length": [["<f4", [-1]]],
            "a number too large": [["<f4", [10**400]]],
            "no list": "text",
            "a number": 7,
            "other entries": [3],
            "a truncated array": [["<f4", [1000]]],
        }.items()
    },
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_not_trusted(exported, tmp_path, monkeypatch, started, name):
    program = tmp_path / "hostile.py"
    (tmp_path / "answer").write_bytes(ANSWERS[name])
    program.write_text(f"import sys; sys.stdout.buffer.write(open({str(tmp_path / 'answer')!r}, 'rb').read())")
    monkeypatch.setattr(child_module, "PROGRAM", program)
    with pytest.raises(Stopped, match=r"small\.onnx"):
        run_in_child(exported)
    assert started


def test_descriptions_are_not_trusted(exported, tmp_path, monkeypatch):
    program = tmp_path / "hostile.py"
    monkeypatch.setattr(child_module, "PROGRAM", program)
    for inputs in (None, 3, [3], [["x", "tensor(float)"]], [["x", "tensor(float)", [1.5]]], [["x", 3, []]], [[["x"], "y", []]]):
        answer = json.dumps({"inputs": inputs, "outputs": [], "arrays": []}).encode()
        program.write_text(f"import sys; sys.stdout.buffer.write({len(answer).to_bytes(4, 'little') + answer!r})")
        with pytest.raises(RefusedContent, match="described its inputs and outputs in another way"):
            run_in_child(exported)


@LINUX
def test_the_child_has_few_variables_and_no_descriptors_of_this_process(exported, monkeypatch, tmp_path):
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        artifact = vit_zoo.open(exported)
        process = Path(f"/proc/{artifact.session.child._process.pid}")
        names = {entry.partition("=")[0] for entry in (process / "environ").read_text().split("\0")}
        assert "LD_LIBRARY_PATH" in names
        assert not {"ORT_LOAD_CONFIG_FROM_MODEL", "HF_TOKEN"} & names
        assert str(tmp_path / "open") not in {str(entry.readlink()) for entry in (process / "fd").iterdir()}
    limits = (process / "limits").read_text()
    assert "Max core file size        0 " in limits
    assert "Max file size             0 " in limits
    assert int(limits.partition("Max data size")[2].split()[0]) < 1e9
    del artifact
    assert not process.exists()


PARENT = """
import os, sys, threading
import numpy as np
from pathlib import Path
from vit_zoo.formats import open_in
from vit_zoo.formats.child import Child
from vit_zoo.formats.limits import Limits

def work():
    child = Child(Path(sys.argv[1]), Limits())
    artifact = open_in(child, Path(sys.argv[1]))
    print(child._process.pid, flush=True)
    artifact.run(np.zeros((1, 3, 8, 8), np.float32))

if sys.argv[2] == "main":
    work()
else:
    threading.Thread(target=work).start()
"""


@LINUX
@pytest.mark.parametrize(("thread", "number"), [("main", signal.SIGKILL), ("other", signal.SIGKILL), ("main", signal.SIGINT)])
def test_the_child_ends_with_its_parent(tmp_path, thread, number):
    path = loop(tmp_path / "loop.onnx")
    command = [sys.executable, "-c", PARENT, path, thread]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.send_signal(number)
        error = parent.stderr.read()
    assert ("KeyboardInterrupt" in error) == (number == signal.SIGINT)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "(zombie)" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child still runs")


def test_export_checks_its_file_in_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "start", lambda self: pytest.fail("a child process was started"))
    model = noise(vit_zoo.ViT(**{**SMALL, "depth": 1}))
    assert vit_zoo.export(model, out=tmp_path / "small.onnx")[0].report.ok


def test_limits_are_checked(exported, cli, tmp_path):
    for time_limit in (0, -1, float("nan"), float("inf"), "5", True):
        with pytest.raises(InputError, match=r"time_limit=.* must be above 0 and at most"):
            vit_zoo.open(exported, time_limit=time_limit)
    for memory_limit in (0, 0.1, float("nan"), float("inf"), "5"):
        with pytest.raises(InputError, match=r"memory_limit=.* must be at least 0\.25 GB"):
            vit_zoo.verify(exported, memory_limit=memory_limit)
    with pytest.raises(InputError, match="cannot be combined with isolated=False"):
        vit_zoo.open(exported, isolated=False, time_limit=5)
    artifact = vit_zoo.open(exported, isolated=False)
    for model in (artifact, "vit_digits"):
        with pytest.raises(InputError, match="apply to ONNX files only"):
            vit_zoo.predict(model, [], time_limit=5)
    with pytest.raises(InputError, match="apply to ONNX files only"):
        vit_zoo.verify("vit_digits", "vit_digits", memory_limit=5)
    code, _, err = cli("predict", exported, tmp_path, "--time-limit", "0")
    assert (code, err) == (2, "vitzoo: error: --time-limit 0.0 must be above 0 and at most 1,000,000 seconds\n")


def test_commands_end_in_one_line(exported, cli):
    result = cli("verify", exported, "--time-limit", "0.02")
    line = f"vitzoo: error: {exported}: took more than 0.02 s (--time-limit SECONDS raises this limit)\n"
    assert (result.code, result.err) == (7, line)
    assert not exported.with_name("small.onnx.parity.json").exists()
    result = cli("verify", "vit_digits", "--against", exported, "--time-limit", "0.02")
    assert result.code == 7
