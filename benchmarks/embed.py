"""Benchmark of `vitzoo embed` on generated PNG files: throughput, memory, and the result after `kill -9`.

The throughput of the complete process is compared with what the cores could do at most: their number, divided by the CPU seconds
that one image takes to be read and prepared, and to be run in onnxruntime with one thread, each measured alone. On a machine
with other load, compare it with bare processes, one for each core, which do the same without anything else. The memory is that of
the process that reads, prepares and writes; it is compared with that for a tenth of the images.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from measure import MIB, VITZOO, Claim, Report, environment, parser, run

SIDES = ((240, 320), (256, 256), (320, 240))  # height and width of the images
SAMPLE, BATCH = 128, 8  # images of which each part is measured alone
BARE = 2000  # images that the bare processes run at most
FILES = {"fp32": "vit_s16.onnx", "int8-static": "vit_s16_int8.onnx"}


def main() -> int:
    options = parser(__doc__, rounds=3)
    options.add_argument("--images", type=int, default=2000, help="number of images (default: %(default)s)")
    options.add_argument("--kills", type=int, default=10, help="number of times that a process is killed (default: %(default)s)")
    options.add_argument("--files", type=Path, metavar="FOLDER", help="keep images and exported files here for the next run")
    options.add_argument("--parts", default="throughput,memory,kill", help="what to measure (default: %(default)s)")
    options.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child is not None:
        return _child(*chosen.child)
    report = Report(f"embedding {chosen.images:,} images with ViT-S/16", chosen.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(chosen.files or temporary)
        _prepare(folder, chosen.images)
        cores = report.machine["cpus"]
        for precision in FILES if "throughput" in chosen.parts else ():
            _throughput(report, folder, precision, chosen.images, chosen.rounds, cores)
        if "memory" in chosen.parts:
            _memory(report, folder, chosen.images)
        if "kill" in chosen.parts:
            _kills(report, folder, chosen.kills)
    return report.finish(chosen.json)


def _prepare(folder: Path, images: int) -> None:
    """Write the images, in folders of 1,000, lists of them, and the exported files, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    run([sys.executable, __file__, "--child", "images", str(folder), str(images)])
    if not (folder / FILES["fp32"]).exists():
        names = ["--random", "--onnx", "--outputs", "pooler_output", "--verify", "off"]
        run([VITZOO, "export", "vit_s16", *names, "-o", FILES["fp32"]], folder=folder)
    if not (folder / FILES["int8-static"]).exists():
        names = ["--random", "--onnx", "--outputs", "pooler_output", "--verify", "off", "--int8", "static", "--calibrate", "few"]
        run([VITZOO, "export", "vit_s16", *names, "-o", FILES["int8-static"]], folder=folder)


def _throughput(report: Report, folder: Path, precision: str, images: int, rounds: int, cores: int) -> None:
    shares, rows = [], []
    for _ in range(rounds):
        alone = run([sys.executable, __file__, "--child", "alone", str(folder), FILES[precision]]).document
        (folder / "speed.npy").unlink(missing_ok=True)
        (folder / "speed.csv").unlink(missing_ok=True)
        done = run([VITZOO, "embed", FILES[precision], "images.txt", "-o", "speed.npy", "-q"], folder=folder)
        bare = _bare(folder, FILES[precision], images, cores)
        each = alone["decode"] + alone["inference"]
        shares.append(images / done.wall / (cores / each))
        rows.append((alone, done, each * images / done.cpu, bare / done.wall))
    alone, done, *_ = rows[shares.index(sorted(shares)[len(shares) // 2])]
    report.rows.append(
        {
            "": f"{precision}, {images:,} images",
            "decode ms": round(1e3 * alone["decode"], 1),
            "inference ms": round(1e3 * alone["inference"], 1),
            "images/s": round(images / done.wall, 1),
            "CPU ms/image": round(1e3 * done.cpu / images, 1),
            "of the cores": f"{median(shares):.0%}",
            "of its own CPU time": f"{median(row[2] for row in rows):.0%}",
            "of bare processes": f"{median(row[3] for row in rows):.0%}",
        }
    )
    name = f"{precision}: images/s / (cores / CPU s of decoding and inference)"
    report.claims.append(Claim(name=name, value=median(shares), line=0.85, side="at least"))


def _bare(folder: Path, name: str, images: int, cores: int) -> float:
    """Return the wall-clock seconds of bare processes for the same images, from some of them."""
    some = min(images, BARE)
    start = time.perf_counter()
    bounds = [some * i // cores for i in range(cores + 1)]
    processes = [
        subprocess.Popen([sys.executable, __file__, "--child", "bare", str(folder), name, str(a), str(b)], env=environment())
        for a, b in itertools.pairwise(bounds)
    ]
    if any(process.wait() for process in processes):
        raise RuntimeError("a bare process failed")
    return (time.perf_counter() - start) * images / some


def _memory(report: Report, folder: Path, images: int) -> None:
    """Compare the peak memory for all images, many times over, with that for a tenth. The smallest model runs, to save time."""
    run([VITZOO, "export", "vit_digits", "--onnx", "--outputs", "pooler_output", "-o", "digits.onnx"], folder=folder)
    peaks = {}
    for name, count in (("few.txt", images // 10), ("images.txt", images)):
        for suffix in ("parquet", "npy", "csv"):
            (folder / f"memory.{suffix}").unlink(missing_ok=True)
        command = [sys.executable, __file__, "--child", "peak", "digits.onnx", name, "memory.parquet"]
        document = run(command, folder=folder).document
        peaks[count] = document["peak"]
        report.rows.append({"": f"memory, {count:,} images", "peak MiB": round(document["peak"] / MIB, 1)})
    claim = f"memory for {images:,} images / for {images // 10:,}"
    report.claims.append(Claim(name=claim, value=peaks[images] / peaks[images // 10], line=1.05, unit="x"))


def _kills(report: Report, folder: Path, kills: int) -> None:
    """Kill the process at random moments, run it again until it ends, and compare the files with those of one run."""
    run([VITZOO, "export", "vit_digits", "--onnx", "--outputs", "pooler_output", "-o", "digits.onnx"], folder=folder)
    different = 0
    for suffix in (".parquet", ".npy", ".safetensors"):
        command = [VITZOO, "embed", "digits.onnx", "images.txt", "-q", "--force", "-o"]
        whole = run([*command, f"whole{suffix}"], folder=folder)
        generator, killed, tries = random.Random(suffix), 0, 0
        while True:
            process = subprocess.Popen([*command, f"killed{suffix}"], cwd=folder, env=environment(), stderr=subprocess.DEVNULL)
            left = -(-kills // 3) - killed
            try:
                code = process.wait(timeout=generator.uniform(0.3, 1) * whole.wall if left > 0 else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                continue
            tries += 1
            if code:
                raise RuntimeError(f"ended with {code} after {killed} kills")
            if left <= 0 or tries > kills:
                break
        names = [".parquet"] if suffix == ".parquet" else [suffix, ".csv"]
        different += sum(_sha256(folder / f"whole{name}") != _sha256(folder / f"killed{name}") for name in names)
        report.rows.append({"": f"{suffix}: kill -9", "killed": killed})
    report.claims.append(Claim(name="files that differ from those of one run, after kill -9", value=different, line=0))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _child(what: str, *arguments: str) -> int:
    {"images": _make_images, "alone": _measure_alone, "bare": _run_bare, "peak": _measure_peak}[what](*arguments)
    return 0


def _make_images(folder: str, count: str) -> None:
    """Write images like photographs to a PNG decoder: smooth shapes and some noise."""
    import numpy as np
    from PIL import Image

    root = Path(folder)
    for i in range(int(count)):
        path = root / "png" / f"{i // 1000:03}" / f"{i:06}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(i)
        height, width = SIDES[i % len(SIDES)]
        small = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = pixels + generator.integers(-4, 5, pixels.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, compress_level=3)
        if i < 64:
            few = root / "few" / path.name
            few.parent.mkdir(exist_ok=True)
            few.write_bytes(path.read_bytes())
    lines = [f"png/{i // 1000:03}/{i:06}.png\n" for i in range(int(count))]
    (root / "images.txt").write_text("".join(lines), encoding="utf-8")
    (root / "few.txt").write_text("".join(lines[: len(lines) // 10]), encoding="utf-8")


def _measure_alone(folder: str, name: str) -> None:
    """Print the CPU seconds for an image: to read and prepare it, and to run it in onnxruntime."""
    import numpy as np
    import onnxruntime

    from vit_zoo.files import read_image
    from vit_zoo.formats import describe

    root = Path(folder)
    preprocess = describe(root / name).known_config().known_preprocess()
    paths = sorted((root / "png").rglob("*.png"))[:SAMPLE]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(root / name, settings, providers=["CPUExecutionProvider"])
    images = [preprocess(read_image(path)) for path in paths]
    batches = [np.stack(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    session.run(None, {"pixel_values": batches[0]})
    start = time.process_time()
    for path in paths:
        preprocess(read_image(path))
    decode = time.process_time() - start
    start = time.process_time()
    for batch in batches:
        session.run(None, {"pixel_values": batch})
    inference = time.process_time() - start
    print(json.dumps({"decode": decode / len(paths), "inference": inference / len(paths)}))


def _run_bare(folder: str, name: str, start: str, stop: str) -> None:
    """Read, prepare and run some of the images in this process."""
    import numpy as np
    import onnxruntime

    from vit_zoo.files import read_image
    from vit_zoo.formats import describe

    root = Path(folder)
    preprocess = describe(root / name).known_config().known_preprocess()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(root / name, settings, providers=["CPUExecutionProvider"])
    paths = (root / "images.txt").read_text(encoding="utf-8").split()[int(start) : int(stop)]
    for i in range(0, len(paths), BATCH):
        session.run(None, {"pixel_values": np.stack([preprocess(read_image(root / path)) for path in paths[i : i + BATCH]])})


def _measure_peak(artifact: str, images: str, out: str) -> None:
    """Embed, and print the peak memory of this process."""
    from measure import own_peak

    import vit_zoo

    vit_zoo.embed(artifact, images, out)
    print(json.dumps({"peak": own_peak()}))


if __name__ == "__main__":
    sys.exit(main())
