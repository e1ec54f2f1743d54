"""Tests that the integer products of our int8 files are the same on every CPU, and that `verify` reports files whose are not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

import vit_zoo
from support import saturating
from support.models import SMALL, noise
from support.paths import HELD_OUT
from support.requirements import required
from vit_zoo.errors import CheckFailed
from vit_zoo.files import Stored
from vit_zoo.graph.int8_ops import Layer, Quantisation, adapted, least_steps, quantised
from vit_zoo.graph.int8_weights import Rounded, compensated, nearest, row_steps
from vit_zoo.loading.image_folder import read_image_folder
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.parity import cpu
from vit_zoo.parity.saturation import integer_products

FAMILIES = {
    "class token": {},
    "registers, LayerScale, mean": {"registers": 2, "layer_scale": True, "pool": "mean", "final_norm": "after_pool"},
    "rotation, SwiGLU, biases of queries and values": {
        "pos": "rope", "pos_covers": "patches", "registers": 2, "mlp": "swiglu", "act": "silu", "qkv_bias": "qv",
    },
    "attention pooling": {
        "pool": "map", "pool_tokens": "patches", "class_token": False, "pos_covers": "patches", "act": "gelu_tanh",
    },
    "CLIP": {"pre_norm": True, "act": "quick_gelu", "patch_bias": False},
    "no biases, normed queries, an odd width": {
        "qkv_bias": False, "mlp_bias": False, "proj_bias": False, "qk_norm": True, "mlp_dim": 77,
    },
}  # fmt: skip
HOW = Preprocess(size=(32, 48), resize_to=None, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
WITHOUT_VNNI = ["-cpu", "Haswell"]  # of qemu: AVX2, and no more
ALONE = """
import sys
import numpy as np, onnxruntime as ort
option, *files = sys.argv[1:]
options = ort.SessionOptions()
options.log_severity_level = 4
if option != "-":
    options.add_session_config_entry(option, "1")
for file in files:
    session = ort.InferenceSession(file, options)
    name = session.get_inputs()[0].name
    np.save(file + ".npy", np.concatenate([session.run(None, {name: x[None]})[0] for x in np.load("x.npy")]))
"""


def elsewhere(*files, option="-"):
    """Each file's output for x.npy, one row at a time, from onnxruntime on an emulated CPU without VNNI."""
    command = [required("qemu-x86_64"), *WITHOUT_VNNI, sys.executable, "-c", ALONE, option, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [np.load(f"{file}.npy") for file in files]


def outlying(model, seed):
    """Fill a model with weights as training can leave them: heavy tails, large channels, tiny rows, neighbours of one sign."""
    random = torch.Generator().manual_seed(seed)

    def some(count, most):
        return torch.randint(count, (most,), generator=random)

    with torch.no_grad():
        for name, p in noise(model, seed, scale=0.15).named_parameters():
            if p.ndim == 1 or not name.endswith("weight"):
                continue
            rows, columns = p.shape[0], p[0].numel()
            flat = p.view(rows, columns)
            flat[some(rows, 8), some(columns, 8)] *= 20
            flat[:, some(columns, 2)] *= 6
            flat[some(rows, 2)] *= 1e-9
            column = int(some(columns // 2, 1)) * 2
            flat[:, column + 1] = flat[:, column] = flat.abs().max(dim=1).values
    model.config = model.config.replace(name="small", preprocess=HOW)
    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from PIL import Image

    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(4):
        image = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((48, 32), Image.Resampling.BICUBIC)
        image.save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def digits():
    """The held-out digits, prepared, and their classes."""
    images = read_image_folder(HELD_OUT, vit_zoo.load("vit_digits").config)
    return np.concatenate(list(images.batches())), np.array([int(file.stem.rpartition("_")[2]) for file in images.files])


@pytest.fixture
def careless(monkeypatch):
    """A function that makes weights be rounded one by one, as if the products of neighbours were never added in 16 bits."""

    def careless():
        for name in ("vit_zoo.graph.int8_ops.row_steps", "vit_zoo.exporters.int8.calibration.row_steps"):
            monkeypatch.setattr(name, lambda matrix, **_: row_steps(matrix, paired=False))
        monkeypatch.setattr("vit_zoo.exporters.int8.calibration.compensated", lambda matrix, steps, _: nearest(matrix, steps))

    return careless


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["int8-static", "int8-dynamic"])
def test_no_pair_of_weights_can_saturate(folder, photos, family, precision):
    """Fifty blocks with weights of their own, of every family: the sums of pairs in the file, and the proof of `verify`."""
    given = {"calibrate": photos} if precision == "int8-static" else {}
    for seed in range(10):
        model = outlying(vit_zoo.create("vit_b16", **{**SMALL, "depth": 5, **FAMILIES[family]}), seed)
        vit_zoo.export(model, out="m.onnx", precision=precision, verify=False, **given)
        sums = saturating.pairs("m.onnx")
        assert len(sums) >= 4 * 5
        assert max(x.max() for x in sums.values()) <= 128
        assert max(x.max() for x in sums.values()) > 100  # nothing is given away
        assert integer_products(Path("m.onnx")).proven
        held = _held("m.onnx")
        for name, bias in _biases(held).items():  # nor can the sum in 32 bits
            most = 255 * np.abs(held[name]).astype(np.int64).sum(axis=1) + np.abs(bias.astype(np.int64))
            assert most.max() < 2**31


def _held(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def _biases(held):
    """int32 biases, by the name of their weights."""
    return {n.replace(".bias", ".weight"): x for n, x in held.items() if x.dtype == np.int32}


def test_the_limit_is_exact(folder):
    """For the kernel and for the proof: a pair of 128 does not saturate, one of 129 does; one of opposite signs never does."""
    x = np.full((1, 2), 255, np.uint8)
    for pair, same in (([64, 64], True), ([1, 127], True), ([-64, -64], True), ([2, 127], False), ([-65, -64], False)):
        w = np.array(pair, np.int8)[:, None]
        assert (saturating.product(x, w, saturating=True) == saturating.product(x, w, saturating=False)).all() == same
        _integer_model(x, w)
        assert integer_products(Path("product.onnx")).proven == same
    w = np.array([[127], [-127]], np.int8)
    for x in np.array([[255, 0], [0, 255], [255, 255]], np.uint8)[:, None]:
        assert saturating.product(x, w, saturating=True) == saturating.product(x, w, saturating=False)


def _integer_model(x, w):
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    given, sums = (
        helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), [None, x.shape[1]]),
        helper.make_tensor_value_info("y", TensorProto.INT32, None),
    )
    graph = helper.make_graph([node], "product", [given], [sums], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, "product.onnx")


@pytest.mark.parametrize(("activations", "weights"), [("u1", "i1"), ("u1", "u1"), ("i1", "i1"), ("i1", "u1")])
@pytest.mark.parametrize("channels", [64, 63])
def test_the_emulation_matches_cpus(folder, activations, weights, channels):
    """Products saturate as in the emulation without VNNI, for uint8 times int8 only, on an emulated CPU and this one."""
    random = np.random.default_rng(0)
    x, w = (
        random.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, size, dtype=kind)
        for kind, size in ((activations, (8, channels)), (weights, (channels, 16)))
    )
    exact = saturating.product(x, w, saturating=False)
    cut = saturating.product(x, w, saturating=True) if (activations, weights) == ("u1", "i1") else exact
    _integer_model(x, w)
    (here,) = ort.InferenceSession("product.onnx").run(None, {"x": x})
    assert (here == (cut if cpu.saturates() else exact)).all()
    np.save("x.npy", x)
    assert (elsewhere("product.onnx")[0] == cut).all()
    if cut is not exact:
        assert (cut != exact).any()


@pytest.mark.parametrize("precision", ["int8-static", "int8-dynamic"])
def test_the_trained_model_is_the_same_with_and_without_saturation(folder, digits, precision):
    """Equal to the bit in the emulation, up to the rounding of floats in onnxruntime, and without loss of accuracy."""
    given = {"calibrate": HELD_OUT, "min_agreement": 0.98} if precision == "int8-static" else {}
    (done,) = vit_zoo.export("vit_digits", precision=precision, **given)
    assert done.report.integer_products.proven
    assert "same integers on every CPU: proven for 36 integer products" in done.report.summary()
    images, classes = digits
    with torch.inference_mode():
        wanted = vit_zoo.load("vit_digits")(torch.from_numpy(images)).numpy()
    exact, cut = (saturating.run(done.path, images[:64], saturating=how) for how in (False, True))
    assert (exact == cut).all()
    on, off = (
        np.concatenate([artifact.run(x[None])["logits"] for x in images])
        for artifact in (vit_zoo.open(done.path), vit_zoo.formats.open_artifact(done.path, optimised=False))
    )
    assert saturating.decibels(on, off) > 50
    assert abs(saturating.decibels(on, wanted) - saturating.decibels(off, wanted)) < 0.3
    assert (on.argmax(axis=1) == classes).sum() >= 358 - 2
    if precision == "int8-static":  # in the dynamic form the emulation's batch has one range
        assert saturating.decibels(exact, on[:64]) > 50


@pytest.mark.parametrize("precision", ["int8-static", "int8-dynamic"])
def test_a_cpu_without_vnni_gives_the_same_outputs(folder, digits, precision):
    """The same file on an emulated CPU: with products in 16 bits, and with weights that onnxruntime makes unsigned."""
    given = {"calibrate": HELD_OUT} if precision == "int8-static" else {}
    vit_zoo.export("vit_digits", precision=precision, out="m.onnx", verify=False, **given)
    images = digits[0][:16]
    np.save("x.npy", images)
    here = np.concatenate([vit_zoo.open("m.onnx").run(x[None])["logits"] for x in images])
    for option in ("-", "session.x64quantprecision"):
        assert saturating.decibels(elsewhere("m.onnx", option=option)[0], here) > 50


def test_every_family_gives_the_same_outputs_without_vnni(folder, photos):
    """Up to the rounding of floats, which can turn a tie between two integers into a difference."""
    random = np.random.default_rng(0)
    images = random.normal(size=(4, 3, 32, 48)).astype("<f4")
    np.save("x.npy", images)
    here = {}
    for number, family in enumerate(FAMILIES):
        model = noise(vit_zoo.create("vit_b16", **{**SMALL, **FAMILIES[family]}), scale=0.15)
        model.config = model.config.replace(name="small", preprocess=HOW)
        for precision, given in (("int8-static", {"calibrate": photos}), ("int8-dynamic", {})):
            file = f"{number}-{precision}.onnx"
            vit_zoo.export(model, out=file, precision=precision, verify=False, **given)
            here[file] = np.concatenate([vit_zoo.open(file).run(x[None])["logits"] for x in images])
    for file, there in zip(here, elsewhere(*here), strict=True):
        assert saturating.decibels(there, here[file]) > 50, file


def test_a_file_that_can_saturate_is_detected(folder, digits, careless):
    """By the proof, on any CPU; and by an emulated CPU, whose outputs differ."""
    careless()
    with pytest.raises(CheckFailed, match="36 of 36 integer products can saturate on x86 without VNNI; worst: blocks"):
        vit_zoo.export("vit_digits", precision="int8-static", calibrate=HELD_OUT, out="m.onnx")
    images = digits[0][:16]
    exact, cut = (saturating.run("m.onnx.rejected", images, saturating=how) for how in (False, True))
    assert saturating.decibels(cut, exact) < 40
    np.save("x.npy", images)
    (there,) = elsewhere("m.onnx.rejected")
    assert saturating.decibels(there, cut) > 50
    report = json.loads(Path("m.onnx.rejected.parity.json").read_text())
    assert report["faults"][0].startswith("36 of 36")
    layers = report["integer_products"]["saturating"]
    assert len(layers) == 36
    assert layers[0]["layer"].startswith("blocks.0.attn.qkv/Gemm")
    assert 0 < layers[0]["share"] < 0.5
    assert any("x86 without VNNI" in kernel for kernel in layers[0]["kernels"])


def test_only_proven_files_are_published(folder, careless, monkeypatch):
    """The card states the proof; a file and a report of an older version, which has no proof, are refused."""
    vit_zoo.publish("vit_digits", "me/digits", dry_run="staged", calibrate=HELD_OUT, without=["fp16"])
    assert "same integers on every CPU: proven for 36 integer products" in Path("staged/README.md").read_text()
    vit_zoo.save(vit_zoo.load("vit_digits"), "digits")
    careless()
    monkeypatch.setattr("vit_zoo.parity.verify.check_integers", lambda *_: None)
    (done,) = vit_zoo.export("digits", precision="int8-dynamic", out="digits/model.onnx", calibrate=HELD_OUT)
    assert done.report.ok
    with pytest.raises(CheckFailed, match="can saturate on x86 without VNNI"):
        vit_zoo.publish("digits", "me/digits", dry_run="again")


class Reader(CalibrationDataReader):
    def __init__(self, images):
        self.images = iter(images)

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"pixel_values": image[None]}


def _static(**options):
    def made(source, target, images):
        quantize_static(source, target, Reader(images), per_channel=True, **options)

    return made


U8S8 = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
QUANTISERS = {  # onnxruntime's own, and whether every CPU computes the same integers
    "MatMulInteger": (lambda s, t, x: quantize_dynamic(s, t, weight_type=QuantType.QInt8, per_channel=True), False),
    "MatMulInteger, unsigned": (lambda s, t, x: quantize_dynamic(s, t, weight_type=QuantType.QUInt8), True),
    "QDQ": (_static(quant_format=QuantFormat.QDQ, **U8S8), False),
    "QDQ, in 7 bits": (_static(quant_format=QuantFormat.QDQ, reduce_range=True, **U8S8), True),
    "QDQ, signed": (
        _static(quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8), False,
    ),
    "QDQ, unsigned": (
        _static(quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8), True,
    ),
    "QLinearMatMul": (_static(quant_format=QuantFormat.QOperator, **U8S8), False),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", QUANTISERS)
def test_files_of_other_tools(folder, cli, way):
    """Files of onnxruntime's quantisers, before and after onnxruntime's optimiser."""
    quantise, proven = QUANTISERS[way]
    model = outlying(vit_zoo.create("vit_b16", **SMALL), 0)
    vit_zoo.export(model, out="ours.onnx", verify=False, opset=17)
    proto = onnx.load("ours.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, "plain.onnx")
    layers = sum(node.op_type == "Gemm" for node in proto.graph.node)
    assert layers == 3 * 6 + 2  # the patches and the head
    quantise("plain.onnx", "theirs.onnx", np.random.default_rng(0).normal(size=(4, 3, 32, 48)).astype("<f4"))
    options = ort.SessionOptions()
    options.optimized_model_filepath = "optimised.onnx"
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession("theirs.onnx", options)
    for file in ("theirs.onnx", "optimised.onnx"):
        found = integer_products(Path(file))
        assert (len(found.saturating), found.unknown) == (0 if proven else layers, ())
        assert found.products >= layers
        assert found.proven == proven
        shown = cli("show", file, "--json")
        assert shown.code == 0
        assert json.loads(shown.out)["integer_products"]["proven"] == proven
    vit_zoo.save(model, "model")
    code, out, err = cli("verify", "theirs.onnx", "--against", "model", "--json")
    assert code in (0, 3)  # it is not ours to keep answers
    document = json.loads(out)
    report = document.get("report", document)
    assert ("integer products can saturate" in err) == (not proven)
    assert len(report["warnings"]) == (0 if proven else 1)
    assert not any("saturate" in fault for fault in report["faults"])
    assert len(report["integer_products"]["saturating"]) == (0 if proven else layers)


def _saturates(x, w):
    """Whether the sums of these activations saturate."""
    return (saturating.product(x, w, saturating=True) != saturating.product(x, w, saturating=False)).any()


@pytest.mark.parametrize("seed", range(20))
def test_the_proof_is_exact(folder, seed):
    """It counts neither too many pairs nor too few, for any signs: each pair is tried with the largest activations."""
    random = np.random.default_rng(seed)
    w = random.integers(-127, 128, (11, 5), dtype=np.int8)
    w[:, :3] = np.clip(w[:, :3], -60, 60)
    x = np.zeros((6, 11), np.uint8)
    for i in range(6):
        x[i, 2 * i : 2 * i + 2] = 255
    _integer_model(x, w)
    share = (saturating.product(x, w, saturating=True) != saturating.product(x, w, saturating=False)).mean()
    found = integer_products(Path("product.onnx"))
    assert found.proven == (not _saturates(x, w))
    assert [layer.share for layer in found.saturating] == ([] if found.proven else [pytest.approx(share)])


def test_convolutions_are_read_in_the_order_of_their_products(folder):
    """Neighbours are channels at one position, not positions of one channel. ConvInteger has its weights on the other side."""
    w = np.zeros((1, 4, 1, 2), np.int8)
    w[0, 0, 0, :] = 100  # one channel at two positions
    for op in ("QLinearConv", "ConvInteger"):
        _convolution(op, w)
        assert integer_products(Path("conv.onnx")).proven
    w[0, 1, 0, 0] = 100  # its neighbour at the same position
    for op, proven in (("QLinearConv", False), ("ConvInteger", True)):
        _convolution(op, w)
        assert integer_products(Path("conv.onnx")).proven == proven
    x = np.full((1, 4, 1, 2), 255, np.uint8)
    np.save("x.npy", x)
    assert elsewhere("conv.onnx")[0].item() == 3 * 255 * 100


def _convolution(op, w):
    inputs = ["x", "w"] if op == "ConvInteger" else ["x", "s", "z", "w", "s", "n", "s", "z"]
    kind = TensorProto.INT32 if op == "ConvInteger" else TensorProto.UINT8
    values = {"w": w, "s": np.float32(1), "z": np.uint8(0), "n": np.int8(0)}
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"])], "conv", [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4, 1, 2])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(x), n) for n, x in values.items() if n in inputs],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "conv.onnx")


def test_weights_that_are_not_constant_prove_nothing(folder):
    given = [helper.make_tensor_value_info(n, kind, [4, 4]) for n, kind in (("x", TensorProto.UINT8), ("w", TensorProto.INT8))]
    sums = helper.make_tensor_value_info("y", TensorProto.INT32, [4, 4])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"], "a product")], "g", given, [sums])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "free.onnx")
    found = integer_products(Path("free.onnx"))
    assert not found.proven
    assert str(found).startswith("same integers on every CPU: not proven for 1 of 1 integer products, such as a product")


def test_a_cycle_computes_nothing_that_is_dequantised(folder):
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("a", "b"), ("b", "a"))]
    nodes.append(helper.make_node("MatMul", ["a", "b"], ["y"]))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [y])), "cycle.onnx")
    assert integer_products(Path("cycle.onnx")) is None


def test_rows_with_tiny_weights_keep_their_bias(folder):
    """A bias is stored in steps of its row's weights: tiny weights must not move it beyond 32 bits."""
    weight, bias = np.full((3, 8), 1e-12, "<f4"), np.array([0.5, -2.0, 0.0], "<f4")
    layer = Layer(scale=0.01)
    tensors = {f"layer.{n}": Stored("F32", x.shape, lambda x=x: x) for n, x in (("weight", weight), ("bias", bias))}
    found = {name: tensor.array() for name, tensor in quantised(tensors, "int8-static", {"layer": layer}).items()}
    assert np.allclose(found["layer.bias"] * found["layer.bias_scale"].astype("<f8"), bias, rtol=1e-6)
    assert np.isfinite(found["layer.weight_scale"]).all()
    assert (row_steps(weight, least=least_steps(bias, 0.01)) == found["layer.weight_scale"]).all()


def test_errors_of_channels_that_vary_together_cancel():
    """On rows not used for calibration: less than half the error of rounding to the nearest. No pair exceeds 128."""
    random = np.random.default_rng(0)
    mixed = random.normal(size=(12, 96)) + 2
    rows = (random.normal(size=(600, 12)) @ mixed + 0.3 * random.normal(size=(600, 96))).astype("<f4")
    weight = random.normal(size=(40, 96)).astype("<f4")
    weight[:, 10:12] = 4.0
    steps = row_steps(weight)
    other = rows[300:] @ weight.T
    found = compensated(weight, steps, rows[:300])
    near, plain = (np.square(rows[300:] @ kind.values.T - other).sum() for kind in (found, nearest(weight, steps)))
    assert near < plain / 2
    assert np.abs(found.integers.astype(int)).reshape(40, 48, 2).sum(axis=2).max() <= 128
    assert (compensated(weight, steps, np.zeros((4, 96), "<f4")).integers == nearest(weight, steps).integers).all()


def test_smoothing_divides_the_rows_of_the_layer_before():
    """The integers of that layer stay; its steps and its bias correction are divided."""
    spec = vit_zoo.get_spec("vit_b16", **SMALL)
    random = np.random.default_rng(0)
    matrix = random.normal(size=(3 * 48, 48)).astype("<f4")
    before = Layer(0.1, 3, random.normal(size=3 * 48).astype("<f4"), nearest(matrix, row_steps(matrix)))
    by = random.uniform(0.5, 2, 48).astype("<f4")
    path = "blocks.1.attn.proj"
    layers = adapted(Quantisation({"blocks.1.attn.qkv": before, path: Layer()}, {path: by}), spec)
    after = layers["blocks.1.attn.qkv"]
    assert (after.weight.integers == before.weight.integers).all()
    for now, then in ((after.bias_correction, before.bias_correction), (after.weight.steps, before.weight.steps)):
        assert (now[: 2 * 48] == then[: 2 * 48]).all()
        assert np.allclose(now[2 * 48 :], then[2 * 48 :] / by)
    assert layers[path] == Layer()
    assert isinstance(after.weight, Rounded)
