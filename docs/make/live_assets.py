"""Assets of the live page: `vit_digits` as a verified ONNX file, and onnxruntime-web. Not committed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import vit_zoo

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "tests" / "node" / "node_modules" / "onnxruntime-web" / "dist"
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def build(folder: Path) -> None:
    """Fill the folder that the page's script reads. Exits with a message if onnxruntime-web is not installed."""
    if not RUNTIME.is_dir():
        raise SystemExit("onnxruntime-web is not installed: cd tests/node && npm ci --ignore-scripts")
    made = folder / "made"
    made.mkdir(parents=True, exist_ok=True)
    vit_zoo.export("vit_digits", "onnx", out=made / "vit_digits.onnx", outputs=("logits", "attn.0"), include=("softmax",))
    for name in FILES:
        shutil.copyfile(RUNTIME / name, made / name)
    licence = Path(onnxruntime.__file__).parent / "LICENSE"  # the npm package contains no licence file
    shutil.copyfile(licence, made / "onnxruntime-LICENSE.txt")
    samples = {}
    for digit in range(10):
        image = Image.open(ROOT / "zoo" / "vit_digits" / "samples" / f"digit_{digit}.png").convert("L")
        samples[digit] = (np.asarray(image).reshape(-1) / 255).round(3).tolist()
    (made / "samples.json").write_text(json.dumps(samples))
    megabytes = {path.name: path.stat().st_size / 1e6 for path in sorted(made.iterdir())}
    print("\n".join(f"{name}: {size:.2f} MB" for name, size in megabytes.items()))
