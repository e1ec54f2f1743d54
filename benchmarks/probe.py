"""Probe of `--int8 static`: agreement of a quantised ViT-B/16 with the float model, on real images and with random weights.

The random weights have sharp attention and outlier channels, as trained weights do. A head is fitted by ridge regression
on the features of scikit-learn's digits, enlarged to 224x224, on which the zoo's vit_digits is trained too. Agreement and
accuracy are measured on the 360 held-out digits. The probe shows how quantisation handles wide activations; it does not
replace a measurement on ImageNet.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import train_test_split

import vit_zoo
from vit_zoo.model.preprocess import Preprocess

GOAL = 0.99  # minimum share of equal first classes
OUTLIERS, GAIN = 6, 8.0  # number of outlier channels in every norm, and their factor
SHARP = 2.0  # factor on queries and keys
HOW = Preprocess(size=(224, 224), resize_to=None, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def stressed(seed: int) -> vit_zoo.ViT:
    """Return a ViT-B/16 with ten classes and random values in every parameter."""
    model = vit_zoo.create("vit_b16", num_classes=10)
    random = torch.Generator().manual_seed(seed)
    large = torch.randperm(768, generator=random)[:OUTLIERS]
    with torch.no_grad():
        for name, p in model.named_parameters():
            drawn = torch.randn(p.shape, generator=random)
            if "norm" in name and name.endswith("weight"):
                drawn = 1 + 0.2 * drawn
                drawn[large] *= GAIN
            elif p.ndim > 1 and name.endswith("weight"):
                drawn *= (p[0].numel()) ** -0.5
                if "qkv" in name:
                    drawn[: 2 * 768] *= SHARP**0.5
            else:
                drawn *= 0.1
            p.copy_(drawn)
    model.config = model.config.replace(name="probe", preprocess=HOW, random_seed=None)
    return model.eval()


def picture(digit: np.ndarray) -> Image.Image:
    """Return a digit of scikit-learn (8x8 with 17 shades) as an RGB image."""
    return Image.fromarray(np.clip(digit * 16, 0, 255).astype(np.uint8)).convert("RGB")


def write(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write one PNG per digit, in the folder of its class."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(image).save(path)


def features(model: vit_zoo.ViT, images: np.ndarray) -> np.ndarray:
    values = []
    with torch.inference_mode():
        for image in images:
            x = HOW(picture(image))
            values.append(model.features(torch.from_numpy(x[None]), "pooler_output")["pooler_output"][0].numpy())
    return np.stack(values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=400, help="number of digits to fit the head on")
    parser.add_argument("--calibrate", type=int, default=64, help="number of these to calibrate with")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    digits = load_digits()
    train, held, its, theirs = train_test_split(
        digits.images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    train, its = train[: arguments.train], its[: arguments.train]
    model = stressed(arguments.seed)
    ridge = RidgeClassifier(alpha=10.0).fit(features(model, train), its)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(ridge.coef_))
        model.head.bias.copy_(torch.from_numpy(ridge.intercept_))
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        write(folder / "calibrate", train[: arguments.calibrate], its[: arguments.calibrate])
        write(folder / "held_out", held, theirs)
        for name, least in (("every layer in int8", 0.0), (f"at least {100 * GOAL:.0f} % asked for", GOAL)):
            (done,) = vit_zoo.export(
                model, "onnx", out=folder / "probe.onnx", precision="int8-static", verify=False, calibrate=folder / "calibrate",
                evaluate=folder / "held_out", min_agreement=least,
            )  # fmt: skip
            print(f"{name}: {done.judgement}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
