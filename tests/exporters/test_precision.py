"""Tests of fp16, bf16 and int8 files: accuracy, standard operators only, and the search for layers that must stay float."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import vit_zoo
from support.models import SMALL, noise
from support.paths import HELD_OUT
from vit_zoo.errors import CheckFailed, InputError
from vit_zoo.exporters.int8.accuracy_gate import fewest_float_layers
from vit_zoo.exporters.int8.calibration import LayerInputs, calibrate_layer, calibrate_layers
from vit_zoo.files import SafetensorsFile, Stored
from vit_zoo.formats import describe
from vit_zoo.graph.int8_ops import quantisable, quantised, smoothable, smoothed
from vit_zoo.graph.options import PRECISIONS
from vit_zoo.loading.image_folder import read_image_folder
from vit_zoo.loading.source import find_source
from vit_zoo.model.preprocess import Preprocess

FAMILIES = {
    "plain": {},
    "biases of queries and values, rotation": {
        "qkv_bias": "qv", "pos": "rope", "pos_covers": "patches", "registers": 2, "layer_scale": True, "mlp": "swiglu",
        "act": "silu",
    },
    "attention pooling": {
        "pool": "map", "pool_tokens": "patches", "class_token": False, "pos_covers": "patches", "final_norm": "before_pool",
    },
    "no biases, mean": {
        "qkv_bias": False, "mlp_bias": False, "proj_bias": False, "pool": "mean", "pool_tokens": "patches",
        "final_norm": "after_pool", "qk_norm": True,
    },
}  # fmt: skip
# what rounding may cost: relative to the largest logit; measured 3e-4, 3e-3, 2e-2 (dynamic 3e-2) at most
ALLOWED = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2, "int8-static": 6e-2, "int8-dynamic": 8e-2, "int8-weights": 6e-2}


@pytest.fixture
def photos(folder):
    """A folder of 24 images, as small as the models of these tests."""
    random = np.random.default_rng(0)
    Path("photos").mkdir()
    for i in range(24):
        image = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((60, 44), Image.Resampling.BICUBIC)
        image.save(f"photos/{i:02}.png")
    return Path("photos")


def small(**fields):
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, **fields}), scale=0.15)
    half = (0.5, 0.5, 0.5)
    prepared = Preprocess(size=(32, 48), resize_to=None, interpolation="bicubic", mean=half, std=half)
    model.config = model.config.replace(name="small", preprocess=prepared)
    return model


def calibration(precision, photos):
    return {"calibrate": photos} if precision == "int8-static" else {}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_precision_of_every_kind_of_layer(family, precision, photos):
    model = small(**FAMILIES[family])
    x = np.stack([model.config.preprocess(Image.open(path)) for path in sorted(photos.iterdir())[:8]])
    with torch.inference_mode():
        wanted = model(torch.from_numpy(x)).numpy()
    for opset in (17, 20, 23):
        exact = not precision.startswith("int8")  # 48 random channels are too few to hide the rounding of some
        given = calibration(precision, photos)
        (done,) = vit_zoo.export(model, precision=precision, opset=opset, out="m.onnx", verify=exact, **given)
        assert not exact or done.report.ok
        onnx.checker.check_model("m.onnx", full_check=True)
        proto = onnx.load("m.onnx")
        assert [opset.domain for opset in proto.opset_import] == [""]  # no runtime's own operators
        assert {i.type.tensor_type.elem_type for i in (*proto.graph.input, *proto.graph.output)} == {1}
        found = vit_zoo.open("m.onnx").run(x)["logits"]
        assert np.abs(found - wanted).max() / np.abs(wanted).max() < ALLOWED[precision]
        assert describe("m.onnx").export.get("precision", "fp32") == precision


# what onnxruntime makes of the products of a plain model's layers; queries, keys and values that share a range share its node
KERNELS = {"int8-static": ["QGemm"], "int8-dynamic": ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"], "int8-weights": ["Gemm"]}


@pytest.mark.parametrize("precision", KERNELS)
def test_onnxruntime_runs_integer_operators(precision, photos):
    vit_zoo.export(small(), precision=precision, out="m.onnx", verify=False, **calibration(precision, photos))
    options = ort.SessionOptions()
    options.optimized_model_filepath = "optimised.onnx"
    options.log_severity_level = 4
    ort.InferenceSession("m.onnx", options)
    found = [node.op_type for node in onnx.load("optimised.onnx").graph.node]
    count = sum(found.count(kernel) for kernel in KERNELS[precision])
    assert count == 3 * 6 + (2 if precision == "int8-weights" else 0)  # patches and head
    assert not {"DequantizeLinear", "MatMulInteger", "Cast"} & set(found)


def test_sizes_of_files(folder, photos):
    model = small(dim=192, heads=12, mlp_dim=768, depth=4)
    size = {}
    for precision in PRECISIONS:
        given = calibration(precision, photos)
        (done,) = vit_zoo.export(model, precision=precision, out=f"{precision}.onnx", verify=precision == "fp16", **given)
        size[precision] = done.path.stat().st_size
        if precision == "fp16":
            assert done.report.headroom > 100
            assert "could grow" in done.report.summary()
    assert size["fp16"] < 0.55 * size["fp32"]
    assert size["bf16"] < 0.55 * size["fp32"]
    assert max(size[name] for name in PRECISIONS[3:]) < 0.33 * size["fp32"]


def test_half_precision_verifies_without_a_model_and_int8_needs_one(folder, photos):
    model = small()
    vit_zoo.save(model, "model")
    for precision in ("fp16", "bf16"):
        vit_zoo.export("model", precision=precision, out="m.onnx")
        assert vit_zoo.verify("m.onnx").ok
        assert vit_zoo.verify("m.onnx", "model").precision == precision
        assert not vit_zoo.verify("m.onnx", noise(small(), seed=5)).ok
    vit_zoo.export("model", precision="int8-static", out="m.onnx", calibrate="photos")
    stored = SafetensorsFile(Path("model/model.safetensors")).metadata["vit_zoo.sha256"]
    assert describe("m.onnx").export["source_sha256"] == stored
    with pytest.raises(InputError, match="name the model"):
        vit_zoo.verify("m.onnx")
    report = vit_zoo.verify("m.onnx", "model", pictures="photos")
    assert report.verdict == "approximate"
    assert report.agreements[0].images == 24
    assert not vit_zoo.verify("m.onnx", noise(small(), seed=5), pictures="photos").ok


def test_pictures_are_refused_for_float_files(folder, photos):
    vit_zoo.save(small(), "model")
    vit_zoo.export("model", out="m.onnx")
    for artifact in ("m.onnx", "model"):
        with pytest.raises(InputError, match="pictures apply to int8 files only"):
            vit_zoo.verify(artifact, "model", pictures="photos")


def test_float16_overflow_fails_the_check(folder):
    model = small()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[3] *= 1e5
        model.blocks[1].mlp.fc1.bias[3] = 1e5
        model.blocks[1].mlp.fc2.weight[:, 3] *= 1e-5
    assert vit_zoo.export(model, out="m.onnx")[0].report.ok
    assert vit_zoo.export(model, out="m.onnx", precision="bf16")[0].report.ok
    with pytest.raises(CheckFailed):
        vit_zoo.export(model, out="m.onnx", precision="fp16")


def test_headroom_is_the_float16_range_over_the_largest_value(folder):
    model = small()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.bias[3] = 10_000  # behind the GELU it is the same, and nobody reads it
        model.blocks[1].mlp.fc2.weight[:, 3] = 0
    (done,) = vit_zoo.export(model, out="m.onnx", precision="fp16")
    assert done.report.headroom == pytest.approx(6.55, rel=0.02)


def test_the_bias_corrects_the_mean_error_of_a_layer():
    random = np.random.default_rng(0)
    rows, weight = (random.normal(size=size).astype("<f4") ** 3 for size in ((200, 48), (16, 48)))
    bias = random.normal(size=16).astype("<f4")
    layer, factors = calibrate_layer(LayerInputs(rows.min(axis=0), rows.max(axis=0), [rows]), weight, bias, [0.0])
    assert factors is None
    tensors = {f"layer.{n}": Stored("F32", x.shape, lambda x=x: x) for n, x in (("weight", weight), ("bias", bias))}
    found = {name: tensor.array() for name, tensor in quantised(tensors, "int8-static", {"layer": layer}).items()}
    integers = np.clip(np.rint(rows / layer.scale) + layer.zero, 0, 255) - layer.zero
    sums = integers @ found["layer.weight"].T.astype("<f8") + found["layer.bias"]
    given, wanted = sums * found["layer.bias_scale"], rows @ weight.T + bias
    half = 0.51 * found["layer.bias_scale"]  # an integer's
    assert (np.abs((given - wanted).mean(axis=0)) < half).all()
    assert np.abs(given - wanted).max() < 0.05 * np.abs(wanted).max()
    assert (np.abs((given - layer.bias_correction - wanted).mean(axis=0)) > half).any()  # there is something to correct


def test_calibration_and_check_use_different_images(photos):
    whole = read_image_folder(photos, small().config)
    calibrating, judging = whole.split()
    assert (len(calibrating.files), len(judging.files)) == (18, 6)
    assert {*calibrating.files} | {*judging.files} == {*whole.files}
    assert {*whole.sample(9).files} < {*whole.files}
    assert whole.sample(9) == whole.sample(9)
    assert whole.sample(9).files != tuple(sorted(whole.sample(9).files))


def test_outputs_do_not_depend_on_the_rest_of_the_batch(folder, photos):
    """Static ranges are the same for every batch. Dynamic ranges are not, so they are not the default."""
    model = small()
    x = np.stack([model.config.preprocess(Image.open(path)) for path in sorted(photos.iterdir())[:8]])
    apart = {}
    for precision in ("int8-static", "int8-dynamic", "int8-weights"):
        vit_zoo.export(model, precision=precision, out="m.onnx", **calibration(precision, photos))
        artifact = vit_zoo.open("m.onnx")
        alone = np.concatenate([artifact.run(one[None])["logits"] for one in x])
        mates = artifact.run(np.concatenate([x, 20 * x[:1]]))["logits"][:8]
        apart[precision] = float(np.abs(alone - mates).max() / np.abs(alone).max())
    assert apart["int8-static"] < 1e-5
    assert apart["int8-weights"] < 1e-5
    assert apart["int8-dynamic"] > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_smoothing_keeps_the_function(family):
    """Random factors for every layer that can have some: the function stays the same."""
    model, random = small(**FAMILIES[family]), np.random.default_rng(0)
    tensors = find_source(model).tensors
    paths = [path for path in quantisable(model.spec) if smoothable(path, model.spec)]
    width = {path: tensors[f"{path}.weight"].shape[1] for path in paths}
    assert len(paths) == model.spec.depth * (4 if model.spec.mlp == "swiglu" else 3)
    factors = {path: random.uniform(0.2, 5, width[path]).astype("<f4") for path in paths}
    x = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        wanted = model(x)
        for name, tensor in smoothed(tensors, model.spec, factors).items():
            model.get_parameter(name).copy_(torch.from_numpy(np.array(tensor.array())))
        found = model(x)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


def digits_in_folders(parent, images, classes):
    for i, (image, label) in enumerate(zip(images, classes, strict=True)):
        place = Path(parent, str(label))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(place / f"{i:04}.png")


def test_the_trained_model_keeps_its_accuracy(folder):
    """All 360 digits that were not used in training, calibrated on 200 that were: accuracy falls by half a point at most."""
    digits = load_digits()
    known, _, labels, _ = train_test_split(digits.images, digits.target, test_size=360, stratify=digits.target, random_state=0)
    digits_in_folders("train", known[:200], labels[:200])
    for file in HELD_OUT.iterdir():
        place = Path("test", file.stem.rpartition("_")[2])
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    for precision in PRECISIONS[3:]:
        given = {"calibrate": "train"} if precision != "int8-weights" else {}
        (done,) = vit_zoo.export("vit_digits", precision=precision, evaluate="test", min_agreement=0.99, **given)
        assert done.judgement.images == 360
        assert done.judgement.kept == ()
        assert done.judgement.accuracy >= done.judgement.accuracy_before - 0.005
        assert done.judgement.accuracy_before > 0.99
        assert done.path.stat().st_size < 310_000


def test_planted_outliers_are_found(folder, photos):
    """Channels after a GELU are made a thousand times larger: the file fails, and passes with the layers that the search finds.

    With these weights every photograph's first class is 2.6 % of the largest logit ahead of the second: no tie is decided by
    how a CPU rounds.
    """
    model = noise(small(depth=4), seed=3, scale=0.15)
    planted = ("blocks.0.mlp.fc2", "blocks.2.mlp.fc2")
    with torch.no_grad():
        for block in (0, 2):
            mlp = model.blocks[block].mlp
            mlp.fc1.weight[:3] *= 1000
            mlp.fc1.bias[:3] = 3000
            mlp.fc2.weight[:, :3] *= 1e-3
    with pytest.raises(CheckFailed, match=r"does not compute the model: logits over 24 images"):
        vit_zoo.export(model, precision="int8-static", calibrate="photos", out="m.onnx")
    Path("m.onnx.rejected").unlink()
    with pytest.raises(CheckFailed, match=r"does not compute the model"):
        vit_zoo.export(model, precision="int8-dynamic", out="m.onnx")
    for precision in ("int8-static", "int8-dynamic"):
        given = {"calibrate": "photos", "evaluate": "photos", "min_agreement": 0.95}
        (done,) = vit_zoo.export(model, precision=precision, out="m.onnx", **given)
        assert set(done.judgement.kept) == set(planted)
        assert done.report.ok
        assert done.report.judgement.agreement >= 0.95
        assert tuple(describe("m.onnx").export["kept"]) == done.judgement.kept
        assert "left in float: blocks." in done.report.summary()


def test_an_unreachable_accuracy_is_refused(folder, photos, monkeypatch):
    """The share of right answers asked for is above the model's own, which no rounding reaches."""
    for i, file in enumerate(sorted(photos.iterdir())):
        place = Path("classes", str(i % 11))
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    with pytest.raises(CheckFailed, match=r"misses the required accuracy: .* left in float: ") as caught:
        vit_zoo.export(small(depth=1), precision="int8-weights", evaluate="classes", min_accuracy=0.9, out="m.onnx")
    assert len(caught.value.details["report"]["judgement"]["kept"]) == 4
    assert not Path("m.onnx").exists()
    assert Path("m.onnx.rejected").exists()


def test_the_search_finds_the_fewest_layers():
    for wanted in (1, 2, 3, 5, 8, 9, 10):
        assert fewest_float_layers(lambda n, w=wanted: n >= w, 10) == wanted
    assert fewest_float_layers(lambda n: False, 10) is None


def test_layers_with_zero_inputs(folder):
    """Inputs of zeros have no range."""
    model = small()
    with torch.no_grad():
        model.blocks[0].norm1.weight.zero_()
        model.blocks[0].norm1.bias.zero_()
    found = calibrate_layers(model, [np.random.default_rng(0).normal(size=(2, 3, 32, 48)).astype("<f4")])
    assert found.layers["blocks.0.attn.qkv"].scale == 1
    assert all(np.isfinite(layer.bias_correction).all() for layer in found.layers.values())


REFUSED = {
    "static int8 needs images for calibration": ["--int8", "static"],
    "min_agreement, min_accuracy, min_cosine and min_neighbours need real images": [
        "--int8", "dynamic", "--min-agreement", "0.9",
    ],
    "int8 weights need no calibration": ["--int8", "weights", "--calibrate", "photos"],
    "calibrate, evaluate, min_agreement, min_accuracy, min_cosine and min_neighbours apply to int8 only": [
        "--fp16", "--calibrate", "photos",
    ],
    "unknown precision 'fp8'; choose from fp32, fp16": ["--precision", "fp16,fp8"],
    "min_agreement must be above 0 and at most 1": ["--int8", "weights", "--evaluate", "photos", "--min-agreement", "1.5"],
    "min_accuracy needs images of known classes": ["--int8", "weights", "--evaluate", "photos", "--min-accuracy", "0.5"],
    "not a folder": ["--int8", "static", "--calibrate", "nowhere"],
    "contains no images": ["--int8", "static", "--calibrate", "model"],
    "too few to hold some out": ["--int8", "static", "--calibrate", "few", "--min-agreement", "0.9"],
    "min_accuracy needs the output 'logits'": [
        "--int8", "dynamic", "--evaluate", "photos", "--min-accuracy", "0.9", "--outputs", "pooler_output",
    ],
    "--shared needs float32": ["--fp16", "--shared"],
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_options_that_do_not_fit_together(message, photos, cli):
    vit_zoo.save(small(), "model")
    Path("few").mkdir()
    shutil.copy("photos/00.png", "few")
    before = sorted(Path().rglob("*"))
    result = cli("export", "model", "--onnx", *REFUSED[message])
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert sorted(Path().rglob("*")) == before
