"""Picture of the page about `embed`: the held-out digits at the first two principal components of their features."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from svg import picture, text

import vit_zoo

HELD_OUT = Path(__file__).resolve().parents[2] / "zoo" / "vit_digits" / "held_out"
SIDE, WIDTH, HEIGHT, EDGE = 12, 640, 420, 24  # of a digit, of the picture, and around it
# readable on light and on dark pages, and apart for most colour-blind readers
COLOURS = ("#4f6bed", "#d9822b", "#2a9d8f", "#c0392b", "#8e6bbf", "#8c6d4f", "#d16ba5", "#7d8590", "#a3a32e", "#3fa7d6")


def pictures() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        (done,) = vit_zoo.export("vit_digits", out=Path(folder, "digits.onnx"), outputs=["pooler_output"], verify=False)
        table = vit_zoo.embed(done.path, HELD_OUT, Path(folder, "digits.parquet"), normalise=True).to_pandas()
    features = np.stack(table["features"]).astype(float)
    centred = features - features.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]  # the sign of a component is arbitrary
    x, y = (centred @ axes.T).T
    columns, rows = _scaled(x, WIDTH), _scaled(y, HEIGHT)
    names = [Path(path).stem.split("_")[1] for path in table["path"]]
    parts = [
        text(column, row, name, anchor="middle", size=SIDE, colour=COLOURS[int(name)])
        for column, row, name in zip(columns, rows, names, strict=True)
    ]
    about = "Each of 360 images of handwritten digits is its digit, at the first two principal components of its features."
    return {"assets/embed.svg": picture(WIDTH, HEIGHT, "Features of handwritten digits", parts, description=about)}


def _scaled(values: np.ndarray, length: int) -> np.ndarray:
    return EDGE + (values - values.min()) / np.ptp(values) * (length - 2 * EDGE)
