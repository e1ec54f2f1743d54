"""Valid small files that bad ones are made from, and that commands compare with."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

from support.paths import CASES

TINY = """
name = "tiny"
extends = "vit_ti16"
image_size = 16
patch_size = 4
dim = 8
depth = 1
heads = 2
dim_head = 4
mlp_dim = 16
num_classes = 3
"""
CLIP = TINY.replace("vit_ti16", "clip_b16").replace("num_classes = 3\n", "")
OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "head_width": 4, "mlp_ratio": 2.0, "patch_size": 4},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": 16, "interpolation": "bicubic"},
}


def make_base(base: Path) -> None:
    """Write one small model in every format: in a process that may import torch."""
    import numpy as np
    import onnx
    from PIL import Image

    import vit_zoo

    base.mkdir(parents=True)
    (base / "tiny.toml").write_text(TINY)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(base / "image.png")
    with contextlib.chdir(base):
        vit_zoo.save(vit_zoo.create("tiny.toml"), "tiny")
        vit_zoo.export("tiny", ["onnx", "torchscript", "pt2"])  # verified, so that they have self-checks
        (base / "tiny.onnx.parity.json").rename("report.json")
        for report in base.glob("*.parity.json"):
            report.unlink()
        for library in ("timm", "hf"):
            vit_zoo.convert("tiny", library, to=library)
        vit_zoo.convert("tiny", "torchvision.pth", to="torchvision")
        vit_zoo.convert(vit_zoo.create("tiny.toml", act="gelu_tanh"), "google.npz", to="google")
        (base / "clip.toml").write_text(CLIP)
        (base / "open_clip").mkdir()
        vit_zoo.convert(vit_zoo.create("clip.toml"), "open_clip/model.pth", to="open_clip")
        (base / "open_clip" / "model.pth").rename("open_clip/open_clip_pytorch_model.bin")
        (base / "open_clip" / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP))
    model = onnx.load(base / "tiny.onnx")
    del model.metadata_props[:]
    (base / "foreign.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (base / "keras").mkdir()
    for source, target in (("checkpoint.weights.h5", "model.weights.h5"), ("config.json", "config.json")):
        shutil.copy(CASES / "keras_vit_classifier" / source, base / "keras" / target)
    for folder, _, files in os.walk(base):
        for file in files:
            Path(folder, file).chmod(0o644)
