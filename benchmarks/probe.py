"""How well `--int8 static` keeps a ViT-B/16's answers on real images that its weights were never trained for: a probe.

The weights are random, with sharp attention and outlier channels, as trained ones have; a head is fitted by ridge
regression on the features of scikit-learn's digits, enlarged to 224x224, that the model of the zoo trains on. Agreement and
accuracy are of the 360 digits held out. It says how quantisation treats wide activations; it is not ImageNet.
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

GOAL = 0.99  # of the first classes
OUTLIERS, GAIN = 6, 8.0  # channels of every norm, and how much larger they are
SHARP = 2.0  # factor on queries and keys
HOW = Preprocess(size=(224, 224), resize_to=None, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def stressed(seed: int) -> vit_zoo.ViT:
    """A ViT-B/16 with ten classes whose every parameter is drawn."""
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
    """A digit of scikit-learn, 8x8 with 17 shades."""
    return Image.fromarray(np.clip(digit * 16, 0, 255).astype(np.uint8)).convert("RGB")


def write(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """One PNG a digit, in the folder of its class."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / str(label) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(image).save(path)


def features(model: vit_zoo.ViT, images: np.ndarray) -> np.ndarray:
    found = []
    with torch.inference_mode():
        for image in images:
            x = HOW(picture(image))
            found.append(model.features(torch.from_numpy(x[None]), "pooler_output")["pooler_output"][0].numpy())
    return np.stack(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=400, help="digits that the head is fitted on")
    parser.add_argument("--calibrate", type=int, default=64, help="of these, for the ranges")
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
