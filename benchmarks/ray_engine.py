"""Benchmark of the Ray engine on this machine: throughput of its workers compared with as many of the local engine.

Both run ViT-S/16 on the same generated PNG files, alternately, with one thread for each worker. The throughput is that from the
first results on, since the start of workers does not depend on the number of images; the start is a column of its own. Ray itself
is started once, before.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from measure import VITZOO, Claim, Report, parser, run

NAME, WORKERS, CHUNK = "vit_s16.onnx", 2, 32


def main() -> int:
    options = parser(__doc__, rounds=3)
    options.add_argument("--images", type=int, default=2000, help="number of images (default: %(default)s)")
    options.add_argument("--files", type=Path, metavar="FOLDER", help="keep images and the exported file here for the next run")
    chosen = options.parse_args()
    report = Report(f"{chosen.images:,} images with ViT-S/16, {WORKERS} workers", chosen.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(chosen.files or temporary)
        embed = str(Path(__file__).with_name("embed.py"))
        run([sys.executable, embed, "--child", "images", str(folder), str(chosen.images)])
        if not (folder / NAME).exists():
            names = ["--random", "--onnx", "--outputs", "pooler_output", "--verify", "off"]
            run([VITZOO, "export", "vit_s16", *names, "-o", NAME], folder=folder)
        _measure(report, folder, chosen)
    return report.finish(chosen.json)


def _measure(report: Report, folder: Path, chosen: argparse.Namespace) -> None:
    from vit_zoo.inference.engine import engine_of

    engines = {name: engine_of(name, workers=WORKERS) for name in ("local", "ray")}  # sets Ray's variables first
    import ray

    started = time.perf_counter()
    ray.init("local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    started = time.perf_counter() - started
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    values = {}
    for number in range(chosen.rounds):
        for name in list(engines)[:: 1 if number % 2 else -1]:
            start, rate, values[name] = _run(engines[name], folder)
            times[name].append((start, rate))
    ray.shutdown()
    if any((one != other).any() for one, other in zip(values["local"], values["ray"], strict=True)):
        raise RuntimeError("the engines give other values")
    for name, pairs in times.items():
        row = {"": name, "s to the first results": round(median(start for start, _ in pairs), 2)}
        report.rows.append({**row, "images/s": round(median(rate for _, rate in pairs), 1)})
    report.rows[-1]["s to start Ray"] = round(started, 1)
    ratios = [ray / local for (_, ray), (_, local) in zip(times["ray"], times["local"], strict=True)]
    report.claims.append(Claim(name="images/s, ray / local, median of ratios", value=median(ratios), line=0.8, side="at least"))
    report.machine["versions"]["ray"] = ray.__version__


def _run(engine, folder: Path):
    """Return the seconds to the first results, the images per second from then on, and the values."""
    from vit_zoo.files.image_list import list_images
    from vit_zoo.inference.preparation import worker_options
    from vit_zoo.inference.worker import chunks

    options = worker_options(folder / NAME)
    images = list(list_images(folder / "images.txt"))
    start, first, count, values = time.perf_counter(), 0.0, 0, []
    with closing(engine(chunks(images, CHUNK), options.open)) as results:
        for rows in results:
            now = time.perf_counter()
            first = first or now
            count += len(rows.images) if now > first else 0
            values += rows.values.values()
    return first - start, count / (time.perf_counter() - first), values


if __name__ == "__main__":
    sys.exit(main())
