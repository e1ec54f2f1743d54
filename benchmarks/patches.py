"""Time per token of a file for patches of images of any grids, compared with the file for one size, in onnxruntime.

python benchmarks/patches.py [--model siglip_b16_224] [--threads 2]

The grids of a batch have as many patches as the model's own, or nearly so, but other shapes; `--dynamic hw` runs images of
the model's own size. The time of a batch is divided by its tokens that are no padding. The weights are random.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from measure import Claim, Report, parser, ratios

import vit_zoo
from vit_zoo.graph.patch_inputs import GRIDS, MASK, grid_for, padded

BATCH = 4
SHAPES = ((480, 640), (640, 480), (480, 720), (500, 500))  # of photographs
FIXED, PATCHES, ANY = "one size", "patches", "any size"
OPSETS = (20, 23)
GOAL = 1.1


def main() -> int:
    options = parser(__doc__, rounds=15)
    options.add_argument("--model", default="siglip_b16_224")
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    model = vit_zoo.create(chosen.model)
    spec = model.spec
    count = math.prod(spec.grid)
    report = Report(f"{chosen.model}, batch {BATCH}, {chosen.threads} threads", chosen.rounds)
    random = np.random.default_rng(0)
    sizes = [
        (rows * spec.patch_size[0], columns * spec.patch_size[1])
        for rows, columns in (grid_for(shape, spec.patch_size, count) for shape in SHAPES)
    ]
    square = random.normal(size=(BATCH, spec.channels, *spec.image_size)).astype("<f4")
    patches = padded([random.normal(size=(spec.channels, *size)).astype("<f4") for size in sizes], spec.patch_size)
    tokens = {FIXED: BATCH * count, ANY: BATCH * count, PATCHES: int(patches[MASK].sum())}
    for opset in OPSETS:
        ways = {
            FIXED: (_session(model, chosen.threads, opset=opset), {"pixel_values": square}),
            ANY: (_session(model, chosen.threads, opset=opset, dynamic="hw"), {"pixel_values": square}),
            PATCHES: (_session(model, chosen.threads, opset=opset, dynamic="patches"), patches),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(chosen.rounds + 1):
            for name, (session, feed) in ways.items():
                start = time.perf_counter()
                session.run(None, feed)
                if number > 0:
                    seconds[name].append((time.perf_counter() - start) / tokens[name])
        for name, spent in seconds.items():
            row: dict[str, Any] = {"": f"opset {opset}, {name}", "microseconds a token": f"{1e6 * median(spent):.1f}"}
            report.rows.append({**row, "to one size": f"{ratios(spent, seconds[FIXED])[1]:.3f}"})
        value = ratios(seconds[PATCHES], seconds[FIXED])[1]
        name = f"opset {opset}, time per token, {PATCHES} / {FIXED}, median of ratios"
        report.claims.append(Claim(name=name, value=value, line=GOAL, unit="x"))
    print("grids:", ", ".join(f"{rows}x{columns}" for rows, columns in patches[GRIDS].tolist()))
    return report.finish(chosen.json)


def _session(model: Any, threads: int, **options: Any) -> onnxruntime.InferenceSession:
    with tempfile.TemporaryDirectory() as folder:
        (done,) = vit_zoo.export(model, out=Path(folder) / "a.onnx", verify=False, **options)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(str(done.path), settings)


if __name__ == "__main__":
    sys.exit(main())
