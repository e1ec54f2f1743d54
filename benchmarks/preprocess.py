"""Benchmark of image preprocessing: from a JPEG file to the model's input, against timm's reader and transform.

Photographs of scikit-learn at three sizes, with the preprocessing of most ImageNet models (bicubic, shorter edge 248, crop 224).
Each round prepares every photograph in each way, one way after the other, on one thread; times are the process's CPU time. The
values are compared with timm's: vitzoo's are the same, except for single pixels with `fast_crop`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import peers
from measure import Claim, Report, parser, ratios

from vit_zoo.files.images import read_image
from vit_zoo.model.preprocess import Preprocess

SIZES = ((1024, 768), (640, 427), (2048, 1536))  # the first is that of the goals
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM, OURS, FAST = "timm's transform", "vitzoo", "vitzoo, fast_crop"
FAST_GOAL, OURS_GOAL, NEAR, SAME = 0.75, 1.0, 0.07, 1e-5


def main() -> int:
    options = parser(__doc__, rounds=30)
    chosen = options.parse_args()
    peers.import_timm()
    import torch
    from PIL import Image
    from timm.data import create_transform

    torch.set_num_threads(1)
    report = Report("preprocessing of a JPEG file, one thread", chosen.rounds)
    ours = Preprocess(size=(224, 224), resize_to=248, interpolation="bicubic", mean=MEAN, std=STD)
    theirs = create_transform(input_size=224, interpolation="bicubic", crop_pct=224 / 248, mean=MEAN, std=STD)
    ways = {
        TIMM: lambda jpeg: theirs(Image.open(jpeg).convert("RGB")).numpy(),  # as timm's ImageDataset reads
        OURS: lambda jpeg: ours(read_image(jpeg)),
        FAST: lambda jpeg: ours(read_image(jpeg), fast_crop=True),
    }
    for size in SIZES:
        with tempfile.TemporaryDirectory() as temporary:
            files = _photographs(size, Path(temporary))
            seconds = _in_turn(ways, files, chosen.rounds)
            far = {name: max(float(np.abs(way(file) - ways[TIMM](file)).max()) for file in files) for name, way in ways.items()}
        for name, spent in seconds.items():
            row: dict[str, Any] = {"": f"{size[0]}x{size[1]}, {name}", "CPU, ms": f"{1e3 * median(spent):.2f}"}
            report.rows.append(
                {**row, "to timm": f"{ratios(spent, seconds[TIMM])[1]:.3f}", "largest difference": f"{far[name]:.2g}"}
            )
        if size == SIZES[0]:
            for name, goal, near in ((OURS, OURS_GOAL, SAME), (FAST, FAST_GOAL, NEAR)):
                for kind, value in zip(
                    ("ratio of medians", "median of ratios"), ratios(seconds[name], seconds[TIMM]), strict=True
                ):
                    report.claims.append(Claim(name=f"{name} / {TIMM}, {kind}", value=value, line=goal, unit="x"))
                report.claims.append(Claim(name=f"{name}, largest difference to {TIMM}", value=far[name], line=near))
    return report.finish(chosen.json)


def _in_turn(ways: dict[str, Callable[[Path], Any]], files: list[Path], rounds: int) -> dict[str, list[float]]:
    """Return the seconds per file of each way in each round. A first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, prepare in ways.items():
            start = time.process_time()
            for file in files:
                prepare(file)
            if number > 0:
                seconds[name].append((time.process_time() - start) / len(files))
    return seconds


def _photographs(size: tuple[int, int], folder: Path) -> list[Path]:
    """Write photographs as JPEG files of a size (width, height)."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    files = []
    for i, pixels in enumerate(load_sample_images().images):
        files.append(folder / f"{i}.jpg")
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(files[-1], quality=92)
    return files


if __name__ == "__main__":
    sys.exit(main())
