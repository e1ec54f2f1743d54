"""Assets of the live page: `vit_digits` as a verified ONNX file, the self-check's program, and onnxruntime-web. Not committed.

mkdocs calls `on_pre_build` before each build, which makes them when they are missing or their sources have changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "tests" / "node" / "node_modules" / "onnxruntime-web" / "dist"
FILES = (
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
CHECKER = ROOT / "vit_zoo" / "self_check" / "checkers" / "selfcheck.mjs"
DIGITS = ROOT / "zoo" / "vit_digits"
MADE = ROOT / "docs" / "assets" / "live" / "made"
INSTALL = "npm ci --prefix tests/node --ignore-scripts"
STAMP = "sources.sha256"  # of what the assets were made from


def on_pre_build(config: Any) -> None:
    """Make the assets when they are missing or their sources have changed. Without onnxruntime-web, log how to install it.

    mkdocs passes its `config` by name.
    """
    del config
    log = logging.getLogger("mkdocs.vitzoo")
    stamp = MADE / STAMP
    if stamp.is_file() and stamp.read_text() == _digest():
        return
    if not RUNTIME.is_dir():
        log.info("The live page is built without its model; to include it, run: %s", INSTALL)
        return
    log.info("Making the assets of the live page")
    build()


def build() -> None:
    """Fill the folder that the page's script reads. Exits with a message if onnxruntime-web is not installed."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    import vit_zoo

    if not RUNTIME.is_dir():
        raise SystemExit(f"onnxruntime-web is not installed: {INSTALL}")
    MADE.mkdir(parents=True, exist_ok=True)
    file = MADE / "vit_digits.onnx"  # replaced, even if it holds other weights
    vit_zoo.export("vit_digits", "onnx", out=file, outputs=("logits", "attn.0"), include=("softmax",), force=True)
    shutil.copyfile(CHECKER, MADE / CHECKER.name)
    for name in FILES:
        shutil.copyfile(RUNTIME / name, MADE / name)
    licence = Path(onnxruntime.__file__).parent / "LICENSE"  # the npm package contains no licence file
    shutil.copyfile(licence, MADE / "onnxruntime-LICENSE.txt")
    samples = {}
    for digit in range(10):
        image = Image.open(DIGITS / "samples" / f"digit_{digit}.png").convert("L")
        samples[digit] = (np.asarray(image).reshape(-1) / 255).round(3).tolist()
    (MADE / "samples.json").write_text(json.dumps(samples))
    (MADE / STAMP).write_text(_digest())


def _digest() -> str:
    sources = (DIGITS / "model.safetensors", CHECKER, Path(__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
