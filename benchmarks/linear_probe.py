"""Benchmark of `vitzoo probe`: 1,000 photographs of 10 classes with ViT-S/16, from the files to a verified model.

The photographs are crops of scikit-image's and scikit-learn's samples, 320 x 240 JPEG files; each sample is a class. The
weights are random, which takes the same time as trained ones. Beside the whole process, the same features are computed by timm's
ViT-S/16 in torch, on all cores in batches of 32, from prepared images in memory: what a script of one's own needs at least.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import VITZOO, Claim, Report, interleaved, parser, row
from PIL import Image

PHOTOS = ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "moon.png", "rocket.jpg")
OF_SKLEARN = ("china.jpg", "flower.jpg")
IMAGES, BATCH, MINUTES = 1000, 32, 5


def photographs(folder: Path, count: int) -> None:
    """Write crops of the samples, each in the folder of its class."""
    import skimage
    from sklearn.datasets import load_sample_image

    random = np.random.default_rng(0)
    samples = {name: Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB") for name in PHOTOS}
    samples |= {name: Image.fromarray(load_sample_image(name)) for name in OF_SKLEARN}
    for name, image in samples.items():
        (folder / Path(name).stem).mkdir(parents=True)
        for i in range(count // len(samples)):
            side = int(min(image.size) * random.uniform(0.4, 0.7))
            left, top = (int(random.integers(0, size - side + 1)) for size in image.size)
            crop = image.crop((left, top, left + side, top + side * 3 // 4)).resize((320, 240))
            crop.save(folder / Path(name).stem / f"{i:03}.jpg", quality=90)


def features_by_timm(folder: Path) -> float:
    """Return the seconds that timm's model needs for the features of all images, without decoding them."""
    import torch
    from peers import import_timm

    model = import_timm().create_model("vit_small_patch16_224", num_classes=0).eval()
    files = sorted(folder.rglob("*.jpg"))
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    start = time.perf_counter()
    with torch.inference_mode():
        for begin in range(0, len(images), BATCH):
            model(images[begin : begin + BATCH].float() / 127.5 - 1)
    return time.perf_counter() - start


def main() -> int:
    options = parser(__doc__, rounds=1).parse_args()
    report = Report("linear probe", options.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photographs(folder / "photos", IMAGES)
        command = [VITZOO, "probe", str(folder / "model"), str(folder / "photos"), "-o", str(folder / "out"), "--force"]
        interleaved({"create": [VITZOO, "create", "vit_s16", "-o", str(folder / "model"), "--force"]}, 1)
        runs = interleaved({f"vitzoo probe, {IMAGES:,} images": command}, options.rounds)
        (probe,) = runs.values()
        report.rows = [row(name, each) for name, each in runs.items()]
        wall = min(run.wall for run in probe)
        peer = min(features_by_timm(folder / "photos") for _ in range(options.rounds))
    report.claims = [
        Claim(name=f"minutes for {IMAGES:,} images with ViT-S/16", value=wall / 60, line=MINUTES, unit="min"),
        Claim(name="of timm's time for the features alone", value=wall / peer, line=1.5, unit="x"),
    ]
    return report.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
