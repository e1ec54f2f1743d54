"""Picture of the page about probes: accuracy of a head by the number of images that it was fitted to.

The images are the 360 digits that were held out when `vit_digits` was trained. `python docs/make/probe_picture.py` measures, and
writes the figures to probe.json; the picture is drawn from them, so that it is the same on every machine.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from svg import ACCENT, OTHER, line, number, picture, text

FIGURES = Path(__file__).with_name("probe.json")
DIGITS = Path(__file__).resolve().parents[2] / "zoo" / "vit_digits" / "held_out"
PER_CLASS = (1, 2, 5, 10, 20)  # of which some choose the regularisation, as in `probe`
REPEATS = 10
COLOURS = {"features of vit_digits": ACCENT, "pixels": OTHER}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 560, 300, 52, 34, 18, 44
LOWEST = 0.5  # of the accuracies shown


def measure() -> dict[str, Any]:
    """Return the mean accuracy for each kind of features and each number of images."""
    import numpy as np
    import torch
    from PIL import Image

    import vit_zoo
    from vit_zoo.inference.probe.linear_head import VALIDATION, Split, accuracy_of, fit_head

    model = vit_zoo.load("vit_digits").eval()
    assert model.config.preprocess is not None
    files = sorted(DIGITS.glob("*.png"))
    classes = np.array([int(file.stem.split("_")[1]) for file in files])
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    images = torch.from_numpy(np.stack([model.config.preprocess(Image.open(file)) for file in files]))
    with torch.inference_mode():
        pooled = model.features(images, "pooler_output")["pooler_output"].numpy()
    kinds = {"features of vit_digits": pooled, "pixels": pixels.reshape(len(files), -1).astype("<f4")}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for count in PER_CLASS:
        for name, features in kinds.items():
            shares = []
            for seed in range(REPEATS):
                order = np.random.default_rng(seed).permutation(len(files))
                chosen = np.concatenate([order[classes[order] == k][:count] for k in range(10)])
                validation = np.concatenate([order[classes[order] == k][: round(VALIDATION * count)] for k in range(10)])
                rest = np.setdiff1d(order, chosen)
                head = fit_head(features, classes, Split(chosen, validation, rest))
                shares.append(accuracy_of(features[rest] @ head.weight.T + head.bias, classes[rest]))
            found[name].append(round(float(np.mean(shares)), 4))
    return {"per_class": list(PER_CLASS), **found}


def pictures() -> dict[str, str]:
    figures = json.loads(FIGURES.read_text())
    counts = figures.pop("per_class")
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(count: float) -> float:
        return LEFT + across * math.log(count / counts[0]) / math.log(counts[-1] / counts[0])

    def y(share: float) -> float:
        return TOP + down * (1 - share) / (1 - LOWEST)

    parts = [text(0, 14, "accuracy on the other digits", bold=True)]
    for share in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        parts += [
            line(LEFT, y(share), WIDTH - RIGHT, y(share)),
            text(LEFT - 8, y(share) + 4, f"{100 * share:.0f} %", anchor="end"),
        ]
    parts += [text(x(count), HEIGHT - 24, str(count), anchor="middle") for count in counts]
    parts.append(text(LEFT + across / 2, HEIGHT - 6, "images of each class in the fit", anchor="middle"))
    for name, shares in figures.items():
        places = [(x(count), y(share)) for count, share in zip(counts, shares, strict=True)]
        path = "L".join(f"{number(a)} {number(b)}" for a, b in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{number(a)}" cy="{number(b)}" r="3" fill="{COLOURS[name]}"/>' for a, b in places]
        at = places[len(places) // 2]
        parts.append(text(at[0] + 6, at[1] + 20, name, colour=COLOURS[name]))
    title = "Accuracy of a linear head by the number of images, on features and on pixels"
    return {"assets/probe.svg": picture(WIDTH, HEIGHT, title, parts)}


if __name__ == "__main__":
    FIGURES.write_text(json.dumps(measure(), indent=2) + "\n")
