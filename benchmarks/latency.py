"""Latency benchmark of exported files: ours and those of the peers, run alternately in one process.

ViT-B/16 and ViT-Ti/16 run at batch 1 and 8 on the CPU, with the same weights. Every file's logits are compared with timm's
before anything is timed. Times are relative to timm's file from torch's exporter, which runs between all others; the figure
is the median of each round's ratio. "Of products" is a file's time in all kernels divided by the time in its matrix
products, which no graph can avoid, measured by onnxruntime. It shows how far a file is from the limit of the machine,
independent of the machine's speed. `peer_files.py` makes the peers' files.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import peer_files
from measure import VITZOO, Claim, Report, parser, ratios, run, table

from vit_zoo.parity.cpu import features, saturates

BATCHES = (1, 8)
AGREE = 1e-3  # largest difference allowed for float32 logits, which usually differ by about 1e-5
TURN = 0.2  # minimum seconds that a file runs in each turn
LONG = 0.5  # seconds; for longer calls, the time to wake up threads does not matter
PROFILED = 6  # number of runs with the profiler
BASE, EAGER_BASE = "timm, torch exporter", "timm, eager"
OURS = ("vitzoo, opset 20", "vitzoo, opset 23")
OURS_INT8 = ("vitzoo, int8 static", "vitzoo, int8 dynamic")
PEER_INT8 = "timm, onnxruntime quantize_dynamic"
# Goals for every machine, relative to the time of the matrix products and to the best peer of the same run
PRODUCTS_GOAL = {OURS[0]: 1.06, OURS_INT8[0]: 1.15}
PEER_GOAL = 1.0
INT8_PEER_GOAL = {True: 0.88, False: 0.85}  # relative to quantize_dynamic; True: on CPUs where int8 products saturate
EAGER_GOAL = {"vit_b16": 0.92}
PRODUCTS = {  # onnxruntime's operators that multiply matrices; Attention includes a softmax
    "Gemm", "MatMul", "FusedMatMul", "Conv", "FusedConv", "Attention", "MultiHeadAttention", "QGemm", "QLinearMatMul",
    "QLinearConv", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "ConvInteger",
}  # fmt: skip

Infer = Callable[[Any], Any]


@dataclass
class Contenders:
    """Files to compare for one model: all files, the names of the int8 ones, and the reasons why others are missing."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)
    int8: set[str] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass
class Times:
    """Times of a file in each round: seconds per call, and the ratio to the base file's time directly before and after."""

    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


def main() -> int:
    options = parser(__doc__, rounds=5)
    options.add_argument("--tiny-rounds", type=int, default=15, help="number of rounds for ViT-Ti/16 (default: %(default)s)")
    options.add_argument("--models", nargs="+", choices=peer_files.MODELS, default=list(peer_files.MODELS))
    options.add_argument("--threads", type=int, default=2, help="number of threads of each runtime (default: %(default)s)")
    options.add_argument("--files", type=Path, metavar="FOLDER", help="keep weights and the peers' files for the next run")
    options.add_argument("--optimum", metavar="PYTHON", help="interpreter of an environment with optimum-onnx")
    options.add_argument("--timmx", metavar="PYTHON", help="interpreter of an environment with timmx")
    options.add_argument("--profile", action="store_true", help="also print onnxruntime's kernel times by operator")
    chosen = options.parse_args()
    report = Report(f"latency with {chosen.threads} threads, ViT-Ti/16 {chosen.tiny_rounds} rounds, ViT-B/16", chosen.rounds)
    known = features()
    if known is not None:
        report.machine["cpu"] = f"{known[0]} ({', '.join(known[1])})"
    with tempfile.TemporaryDirectory() as temporary:
        for model in chosen.models:
            found = _files(model, (chosen.files or Path(temporary)) / model, Path(temporary, "ours", model), chosen)
            rounds = chosen.tiny_rounds if model == "vit_ti16" else chosen.rounds
            _measure(report, model, found, rounds, chosen.threads)
            for threads in sorted({1, chosen.threads}):
                image = np.load(found.folder / "images.npy")[:1]
                spent = _kernels(found.files, image, threads)
                _add_limits(report, model, spent, threads)
                if chosen.profile:
                    _print_profiles(model, spent, threads)
    return report.finish(chosen.json)


def _files(model: str, folder: Path, ours: Path, chosen: argparse.Namespace) -> Contenders:
    """Make the peers' files that do not exist. Ours are always made again, because the exporter may have changed."""
    ours.mkdir(parents=True)
    peer_files.make_weights(model, folder)
    found = Contenders(folder)
    for name, opset in zip(OURS, (20, 23), strict=True):
        found.files[name] = _export(model, folder, ours / f"{opset}.onnx", "--opset", str(opset))
    peers = {
        BASE: "timm-dynamo",
        "timm, torch exporter, dynamo=False": "timm-script",
        "transformers.exporters": "transformers",
        "transformers.exporters, ort_fusions=cpu": "transformers-fused",
    }
    for name, way in peers.items():
        found.files[name] = peer_files.make(way, model, folder)
    if model == "vit_b16":
        found.files["torchvision, torch exporter"] = peer_files.make("torchvision", model, folder)
    else:
        found.missing["torchvision, torch exporter"] = "torchvision has no ViT-Ti/16"
    for way, python in (("optimum", chosen.optimum), ("timmx", chosen.timmx)):
        if python is None and not (folder / f"{way}.onnx").exists():
            found.missing[way] = f"no --{way} PYTHON"
        else:
            found.files[way] = peer_files.make(way, model, folder, python)
    for name, kind in zip(OURS_INT8, ("static", "dynamic"), strict=True):
        calibrate = ["--calibrate", str(folder / "images")] if kind == "static" else []
        found.files[name] = _export(model, folder, ours / f"{kind}.onnx", "--int8", kind, *calibrate)
    found.files[PEER_INT8] = peer_files.make("quantize-dynamic", model, folder)
    found.files["timm, onnxruntime quantize_static"] = peer_files.make("quantize-static", model, folder)
    found.int8 = {name for name in found.files if "int8" in name or "quantize" in name}
    return found


def _export(model: str, folder: Path, target: Path, *options: str) -> Path:
    """Export by the default tag of the model's name, which states the preprocessing that int8 calibration needs."""
    from vit_zoo.registry.lookup import tags_of

    tag = next(iter(tags_of(model).values())).full_name
    weights = ["--weights", str(folder / "vitzoo")]
    run([VITZOO, "export", tag, *weights, "--onnx", "--verify", "off", *options, "-o", str(target)])
    return target


def _measure(report: Report, model: str, found: Contenders, rounds: int, threads: int) -> None:
    images, wanted = np.load(found.folder / "images.npy"), np.load(found.folder / "logits.npy")
    infer = {name: _onnxruntime(path, threads) for name, path in found.files.items()}
    for name in (OURS[0], BASE):
        try:
            infer[f"{name}, in openvino"] = _openvino(found.files[name], threads)
        except ModuleNotFoundError as error:
            found.missing[f"{name}, in openvino"] = f"no module {error.name}"
    differences = {name: _difference(one(images), wanted, name, exact=name not in found.int8) for name, one in infer.items()}
    seconds = {batch: _in_turn(infer, images[:batch], rounds, BASE) for batch in BATCHES}
    report.rows += [_row(f"{model}, {name}", seconds, name, differences[name]) for name in infer]
    del infer
    gc.collect()
    modules = _eager(model, found.folder, threads)
    differences = {name: _difference(one(images), wanted, name, exact=True) for name, one in modules.items()}
    eager = {1: _in_turn(modules, images[:1], rounds, EAGER_BASE)}
    report.rows += [_row(f"{model}, {name}", eager, name, differences[name]) for name in modules]
    report.rows += [{"": f"{model}, {name}", "not measured": why} for name, why in found.missing.items()]
    peers = [name for name in found.files if name not in (*OURS, *OURS_INT8, *found.int8)]
    for batch, times in seconds.items():
        best = min(peers, key=lambda name: median(times[name].ratios))
        _claim(report, f"{model}, batch {batch}, fp32", times, OURS, best, PEER_GOAL)
        _claim(report, f"{model}, batch {batch}, int8", times, OURS_INT8, PEER_INT8, INT8_PEER_GOAL[saturates()])
    noise = {name: _decibels(_one_by_one(found.files[name], images, threads), wanted) for name in (*OURS_INT8, PEER_INT8)}
    for name in OURS_INT8:
        what = f"{model}, signal to noise of logits, {name}, against {PEER_INT8}"
        report.claims.append(Claim(name=what, value=noise[name], line=round(noise[PEER_INT8], 1), side="at least", unit=" dB"))
    if model in EAGER_GOAL:
        _claim(report, f"{model}, batch 1, eager", eager[1], ("vit_zoo.load, eager",), EAGER_BASE, EAGER_GOAL[model])


def _decibels(logits: Any, wanted: Any) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(logits - wanted).sum()))


def _one_by_one(path: Path, images: Any, threads: int) -> Any:
    """Run each image alone, so that dynamic ranges are those of a single image."""
    one = _onnxruntime(path, threads)
    return np.concatenate([one(image[None]) for image in images])


def _add_limits(report: Report, model: str, spent: Mapping[str, Counter[str]], threads: int) -> None:
    """Add the ratio of kernel time to the time of the matrix products to the rows and the claims."""
    for name, kinds in spent.items():
        over = kinds.total() / sum(milliseconds for kind, milliseconds in kinds.items() if kind in PRODUCTS)
        row = next(row for row in report.rows if row[""] == f"{model}, {name}")
        row[f"of products, {threads} thr."] = f"{over:.3f}"
        if name in PRODUCTS_GOAL:
            what = f"{model}, {name}: kernels / their matrix products, {threads} threads"
            report.claims.append(Claim(name=what, value=over, line=PRODUCTS_GOAL[name], unit="x"))


def _claim(report: Report, what: str, times: Mapping[str, Times], ours: Sequence[str], theirs: str, line: float) -> None:
    """Add the claim about the ratio of our best file to the peer's file."""
    base = theirs in (BASE, EAGER_BASE)  # the ratios are relative to it already
    value, name = min(
        (median(times[name].ratios) if base else ratios(times[name].ratios, times[theirs].ratios)[1], name) for name in ours
    )
    report.claims.append(Claim(name=f"{what}, {name} / {theirs}", value=value, line=line, unit="x"))


def _row(title: str, seconds: Mapping[int, Mapping[str, Times]], name: str, difference: float) -> dict[str, Any]:
    cells: dict[str, Any] = {"": title}
    for batch, times in seconds.items():
        one = times[name]
        cells[f"batch {batch} ms"] = round(median(one.seconds) * 1e3, 1)
        cells[f"best {batch} ms"] = round(min(one.seconds) * 1e3, 1)
        cells[f"ratio {batch}"] = f"{median(one.ratios):.3f}"
        cells[f"quarters {batch}"] = "{:.2f} to {:.2f}".format(*np.quantile(one.ratios, (0.25, 0.75)))
    return {**cells, "logits apart": f"{difference:.1e}"}


def _difference(logits: Any, wanted: Any, name: str, *, exact: bool) -> float:
    """Return the largest difference from timm's logits. Raises RuntimeError if a file that is not quantised does not agree."""
    difference = float(np.abs(logits - wanted).max()) if np.isfinite(logits).all() else float("inf")
    if exact and difference > AGREE:
        raise RuntimeError(f"{name}: logits differ from timm's by {difference:.2g}, more than {AGREE:g}; its time is meaningless")
    return difference


def _in_turn(infer: Mapping[str, Infer], images: Any, rounds: int, base: str) -> dict[str, Times]:
    """Time all files in every round; each round starts with another file, and `base` runs before and after each turn.

    Temporary load on the machine therefore affects both sides of a ratio. `base` has turns of its own too: the deviation of
    its ratio from 1 is the noise of the measurement.
    """
    images = np.ascontiguousarray(images)
    names, found = list(infer), {name: Times() for name in infer}
    for number in range(rounds):
        first = number % len(names)
        before = _turn(infer[base], images)
        for name in names[first:] + names[:first]:
            seconds, after = _turn(infer[name], images), _turn(infer[base], images)
            found[name].seconds.append(seconds)
            found[name].ratios.append(2 * seconds / (before + after))
            before = after
    return found


def _turn(one: Infer, images: Any) -> float:
    """Return seconds per call. The first call wakes threads and fills caches; it is not counted unless calls are long."""
    calls: list[float] = []
    warm = False
    while sum(calls) < TURN:
        start = time.perf_counter()
        one(images)
        took = time.perf_counter() - start
        if warm or took > LONG:
            calls.append(took)
        warm = True
    return median(calls)


def _onnxruntime(path: Path, threads: int) -> Infer:
    session = _session(path, threads)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _session(path: Path, threads: int, profile: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Without this, the spinning threads of one session take the cores from the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _openvino(path: Path, threads: int) -> Infer:
    from vit_zoo.inference.bench.worker import OpenvinoRunner

    runner = OpenvinoRunner(path, threads, "fp32", ["logits"])

    def infer(images: Any) -> Any:
        runner.hold(images)
        return runner.call()[0]

    return infer


def _eager(model: str, folder: Path, threads: int) -> dict[str, Infer]:
    from peers import import_timm

    timm = import_timm()
    import torch
    from safetensors.torch import load_file

    import vit_zoo

    torch.set_num_threads(threads)
    theirs = timm.create_model(peer_files.MODELS[model]).eval()
    theirs.load_state_dict(load_file(folder / "timm.safetensors"))

    def infer(module: Any) -> Infer:
        @torch.inference_mode()
        def call(images: Any) -> Any:
            return module(torch.from_numpy(images)).numpy()

        return call

    return {"vit_zoo.load, eager": infer(vit_zoo.load(folder / "vitzoo").eval()), EAGER_BASE: infer(theirs)}


def _print_profiles(model: str, spent: Mapping[str, Counter[str]], threads: int) -> None:
    """Print the kernel time of each file by operator type, which shows why a file is slower than another."""
    total = sum(spent.values(), Counter[str]())
    print(f"{model}: milliseconds in onnxruntime's kernels, batch 1, {threads} threads")
    for number, name in enumerate(spent):
        print(f"  {number}: {name}")
    rows = [
        {"": kind, **{str(i): f"{one[kind]:.2f}" for i, one in enumerate(spent.values()) if kind in one}}
        for kind, _ in total.most_common()
    ]
    totals = {"": "all", **{str(i): f"{one.total():.2f}" for i, one in enumerate(spent.values())}}
    print(table([totals, *rows]), end="\n\n")


def _kernels(files: Mapping[str, Path], image: Any, threads: int) -> dict[str, Counter[str]]:
    """Return milliseconds per run by operator type, measured by onnxruntime: for each kernel, its shortest run."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        sessions = {name: _session(path, threads, Path(temporary, path.stem)) for name, path in files.items()}
        for _ in range(PROFILED):
            for session in sessions.values():
                session.run(None, {session.get_inputs()[0].name: image})
        for name, session in sessions.items():
            shortest: dict[tuple[str, str], float] = {}
            for event in json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")):
                if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
                    kernel = event["args"]["op_name"], event["args"]["node_index"]
                    shortest[kernel] = min(shortest.get(kernel, float("inf")), event["dur"] / 1e3)
            found[name] = Counter[str]()
            for (kind, _), milliseconds in shortest.items():
                found[name][kind] += milliseconds
    return found


if __name__ == "__main__":
    sys.exit(main())
