"""Benchmark of `vit_zoo.verify` for an exported ViT-B/16: its time relative to one float32 forward of 8 images, and its memory.

Each round is a process whose imports finish before the clock starts. The complete call is measured: it opens, hashes and
reads the file, loads the model, and runs both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from measure import MIB, VITZOO, Claim, Report, Run, interleaved, own_memory, own_peak, parser, ratios, run

EFFORTS = ("quick", "default", "full")


def main() -> int:
    options = parser(__doc__, rounds=5)
    options.add_argument("--child", nargs=2, metavar=("EFFORT", "FOLDER"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child is not None:
        effort, folder = chosen.child
        _child(effort, Path(folder))
        return 0
    report = Report("verifying ViT-B/16", chosen.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run([VITZOO, "create", "vit_b16"], folder=folder)
        run([VITZOO, "export", "./vit_b16", "--onnx", "--verify", "off", "-o", "vit_b16.onnx"], folder=folder)
        size = (folder / "vit_b16.onnx").stat().st_size
        commands = {e: [sys.executable, __file__, "--child", e, str(folder)] for e in EFFORTS}
        found = interleaved(commands, chosen.rounds)
    report.rows = [_row(effort, runs, size) for effort, runs in found.items()]
    pair = ([one.document[part] for one in found["default"]] for part in ("check", "forward"))
    for kind, value in zip(("ratio of medians", "median of ratios"), ratios(*pair), strict=True):
        report.claims.append(Claim(name=f"default check / forward of 8 images, {kind}", value=value, line=8, unit="x"))
    growth = max(one.document["growth"] for one in found["default"]) / size
    report.claims.append(Claim(name="default check, peak memory beyond the imports / weights", value=growth, line=3, unit="x"))
    return report.finish(chosen.json)


def _child(effort: str, folder: Path) -> None:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    import vit_zoo
    from vit_zoo.parity import plot, verify  # noqa: F401

    before = own_memory()
    start = time.perf_counter()
    report = vit_zoo.verify(folder / "vit_b16.onnx", folder / "vit_b16", effort=effort)
    took = time.perf_counter() - start
    growth = own_peak() - before
    assert report.ok
    model, images = vit_zoo.load(folder / "vit_b16"), torch.zeros(8, 3, 224, 224)
    times = []
    with torch.inference_mode():
        for _ in range(4):
            start = time.perf_counter()
            model(images)
            times.append(time.perf_counter() - start)
    print(json.dumps({"check": took, "forward": median(times[1:]), "growth": growth}))


def _row(name: str, runs: list[Run], size: int) -> dict[str, object]:
    documents = [one.document for one in runs]
    return {
        "": name,
        "check s": round(median(d["check"] for d in documents), 2),
        "forward of 8 s": round(median(d["forward"] for d in documents), 2),
        "memory MiB": round(max(d["growth"] for d in documents) / MIB),
        "of the weights": round(max(d["growth"] for d in documents) / size, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
