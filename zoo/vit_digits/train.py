"""Training of the shipped `vit_digits` on scikit-learn's digits and on the drawn digits of drawn.py, about six CPU minutes.
The held-out images were evaluated more than once; REMARK explains the differences.

    python zoo/vit_digits/train.py --select   # cross-validate CANDIDATES on the scans for training, record the best
    python zoo/vit_digits/train.py            # train the best on those scans and drawn digits, score the held-out ones, write all
    python zoo/vit_digits/train.py --data     # write only the images

The same versions on the same machine give the same bytes again. A new folder for `--folder` needs a copy of recipe.json,
or its own run of `--select`.

b batch · h w pixels
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import drawn
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor

import vit_zoo
from vit_zoo import ViT

Array = np.ndarray[Any, np.dtype[Any]]

NAME = "vit_digits"
SPLIT_SEED, MODEL_SEED, TRAINING_SEED, DRAWN_SEED = 0, 0, 0, 0
FINAL_SEED = 3  # for the training of the model that ships; REMARK explains the choice
HELD_OUT = 360  # images, a fifth of all; the other 1,437 are for training
DRAWN, DRAWN_PER_EPOCH = 10_000, 1_440  # drawn digits to choose from, and how many each epoch has beside all scans
FOLDS = 4  # of the training images, used only for the selection
SOURCE = (
    "trained by zoo/vit_digits/train.py on scikit-learn's digits, from the UCI data set Optical Recognition of Handwritten "
    "Digits (E. Alpaydin and C. Kaynak, 1998, doi.org/10.24432/C50P49, CC BY 4.0), and on drawn digits of its own"
)
PACKAGES = ("vitzoo", "torch", "numpy", "scikit-learn", "pillow")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyperparameters: AdamW, a linear warm-up followed by half a cosine, and a small random affine map of each image."""

    epochs: int = 120
    warmup_epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.05  # of weight matrices
    clip_norm: float = 1.0
    label_smoothing: float = 0.05
    rotation: float = 9.0  # degrees; this and the next three are the limits of uniform distributions around zero
    scale: float = 0.07
    shear: float = 0.06
    shift: float = 0.5  # pixels


CANDIDATES = {
    "known": Recipe(),
    "slower": Recipe(learning_rate=1e-3),
    "longer": Recipe(epochs=200),
}
# limits of the held-out figure
REMARK = (
    "The held-out figure is from a third look at the held-out images. At the first, the candidates ('longer' was not among "
    "them, one with stronger movements was) had been compared on a single fifth of the training images, the weights of linear "
    "layers began as N(0, 0.02), and the chosen one, 'slower', got 353 of 360 right, less than the 98.5 % asked for. After that "
    "was known, the package's initialisation became Glorot's uniform one, because 0.02 is too small for a model 64 wide, and the "
    "comparison became a 4-fold cross-validation. Its candidates and its rule were fixed before it ran ('longer', at first 240 "
    "epochs, was cut to 200 to save time), and it uses training images only: most correct of all folds, then the lower "
    "cross-entropy. Even so the figure is mildly optimistic: besides the first look, candidate 'known' comes from earlier "
    "experiments that had seen this held-out split. The third look came when drawn digits joined the training, because digits "
    "drawn on the documentation's live page were misread; the recipe stayed the same, and the figure was 357 "
    "before and after. That model missed the usual limit of dynamic int8 on crops of photographs, so FINAL_SEED became the first "
    "of 0, 1, 2, 3 whose model keeps it; their held-out figures are 357, 358, 357 and 358. The cross-validation is of scans "
    "alone. The split is random, so that the 13 writers of these images are "
    "on both sides."
)


@dataclass(frozen=True)
class Digits:
    """All images as 8-bit pixels (b h w), their labels, and the ascending indices (as in load_digits) of both parts."""

    pixels: Array
    labels: Array
    training: Array
    held_out: Array


def read_digits() -> Digits:
    """Read the data with the pixel values of the PNGs (0..16 becomes 0..255). The split is stratified by class."""
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    parts = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=SPLIT_SEED)
    training, held_out = map(np.sort, parts)
    return Digits(pixels, labels, training, held_out)


def write_images(digits: Digits, folder: Path) -> list[Path]:
    """Write every held-out image as INDEX_LABEL.png, and the first one of each label as a sample. Returns the held-out paths."""
    for name in ("held_out", "samples"):
        (folder / name).mkdir(exist_ok=True)
    for label in range(10):
        first = next(i for i in digits.held_out if digits.labels[i] == label)
        write_png(digits.pixels[first], folder / "samples" / f"digit_{label}.png")
    files = [folder / "held_out" / f"{i:04}_{digits.labels[i]}.png" for i in digits.held_out]
    for i, file in zip(digits.held_out, files, strict=True):
        write_png(digits.pixels[i], file)
    return files


def write_png(pixels: Array, file: Path) -> None:
    Image.fromarray(pixels).save(file, compress_level=0)  # uncompressed, so that the bytes are the same with every zlib


def normalised(grey: Tensor, model: ViT) -> Tensor:
    """Normalise grey values 0..1 (b 1 h w) to the model's input with three equal channels."""
    preprocess = model.config.preprocess
    assert preprocess is not None
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (grey - mean) / std


def moved(grey: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Apply a small random affine map to each image (b 1 h w). Pixels from outside are background, 0."""
    turn, zoom, slant, *offset = torch.rand(5, len(grey), generator=generator) * 2 - 1
    angle, factor, shear = turn * math.radians(recipe.rotation), 1 + zoom * recipe.scale, slant * recipe.shear
    cos, sin = factor * angle.cos(), factor * angle.sin()
    dx, dy = (part * recipe.shift * 2 / grey.shape[-1] for part in offset)  # the image spans -1..1
    top, bottom = torch.stack([cos, shear * cos - sin, dx], dim=1), torch.stack([sin, shear * sin + cos, dy], dim=1)
    grid = F.affine_grid(torch.stack([top, bottom], dim=1), list(grey.shape), align_corners=False)
    return F.grid_sample(grey, grid, align_corners=False)


def optimizer_of(model: ViT, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW with weight decay for weight matrices only, not for biases, norms, the class token and the positions."""
    matrices = {name: p for name, p in model.named_parameters() if name.endswith("weight") and p.ndim > 1}
    others = [p for name, p in model.named_parameters() if name not in matrices]
    groups = [{"params": list(matrices.values()), "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)


def rate(step: int, steps: int, warmup: int) -> float:
    """Return the learning rate of a step as a fraction of the recipe's."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def drawn_digits() -> tuple[Tensor, Tensor]:
    """Return drawn digits (b 1 h w, 0..1) and their labels (b)."""
    counts, labels = drawn.samples(DRAWN, DRAWN_SEED)
    return torch.from_numpy(counts).unsqueeze(1).float() / drawn.LEVELS, torch.from_numpy(labels)


def train(
    scans: Tensor, labels: Tensor, recipe: Recipe, drawings: tuple[Tensor, Tensor] | None = None, seed: int = TRAINING_SEED
) -> ViT:
    """Train the registry's model on scans b 1 h w of 0..1, and in each epoch on DRAWN_PER_EPOCH of the drawings, chosen anew.

    All randomness comes from `seed` and MODEL_SEED.
    """
    grey, count, extra, per_epoch = scans, len(scans), 0, 0
    if drawings is not None:
        grey, labels = torch.cat([scans, drawings[0]]), torch.cat([labels, drawings[1]])
        extra, per_epoch = len(drawings[0]), DRAWN_PER_EPOCH
    model = vit_zoo.create(NAME, seed=MODEL_SEED).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = optimizer_of(model, recipe)
    epoch_steps = math.ceil((count + per_epoch) / recipe.batch_size)
    steps, warmup = recipe.epochs * epoch_steps, recipe.warmup_epochs * epoch_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, warmup))
    for _ in range(recipe.epochs):
        some = count + torch.randperm(extra, generator=generator)[:per_epoch]
        epoch = torch.cat([torch.arange(count), some])
        for batch in epoch[torch.randperm(len(epoch), generator=generator)].split(recipe.batch_size):
            logits = model(normalised(moved(grey[batch], recipe, generator), model))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            schedule.step()
    return model.eval()


def tensors(digits: Digits, indices: Array) -> tuple[Tensor, Tensor]:
    """Return images (b 1 h w, 0..1) and labels (b)."""
    grey = torch.from_numpy(digits.pixels[indices]).unsqueeze(1).float() / 255
    return grey, torch.from_numpy(digits.labels[indices]).long()


def select(digits: Digits, folder: Path) -> None:
    """Cross-validate every candidate, so that each training image is predicted once, and record the best in recipe.json.

    The candidate with the most correct images over all folds wins; for equal counts, the one with the lower cross-entropy.
    """
    grey, labels = tensors(digits, digits.training)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=SPLIT_SEED).split(grey, labels))
    results, of = {}, len(labels)
    for name, recipe in CANDIDATES.items():
        start = time.process_time()
        logits = torch.cat([judged(grey, labels, recipe, *fold) for fold in folds])
        truth = torch.cat([labels[validation] for _, validation in folds])
        correct, loss = int((logits.argmax(1) == truth).sum()), float(F.cross_entropy(logits, truth))
        results[name] = {"correct": correct, "of": of, "accuracy": round(correct / of, 6), "loss": round(loss, 6)}
        print(f"{name}: {correct} of {of}, loss {loss:.4f}, {time.process_time() - start:.0f} CPU s", flush=True)
    chosen = min(results, key=lambda name: (-results[name]["correct"], results[name]["loss"]))
    record = {
        "chosen": chosen,
        "recipe": asdict(CANDIDATES[chosen]),
        "seeds": {"split": SPLIT_SEED, "model": MODEL_SEED, "training": TRAINING_SEED},
        "candidates": {name: {"cross_validation": results[name], "recipe": asdict(CANDIDATES[name])} for name in CANDIDATES},
        "remark": REMARK,
        "split": {
            "images": len(digits.labels),
            "training": len(digits.training),
            "folds": [digits.training[validation].tolist() for _, validation in folds],
            "held_out": digits.held_out.tolist(),
        },
    }
    (folder / "recipe.json").write_text(layout(record) + "\n", encoding="utf-8")
    print(f"chosen: {chosen}")


def judged(grey: Tensor, labels: Tensor, recipe: Recipe, fitted: Array, validation: Array) -> Tensor:
    """Return the logits of one fold's validation images, from a model trained on the other folds."""
    model = train(grey[fitted], labels[fitted], recipe)
    with torch.inference_mode():
        return model(normalised(grey[validation], model))


def make(digits: Digits, folder: Path) -> None:
    """Train the chosen recipe on every scan for training and on drawn digits, save the model, and score the held-out PNGs."""
    note = folder / "recipe.json"
    if not note.is_file():
        raise SystemExit(f"{note}: no such file; run with --select first")
    record = json.loads(note.read_text(encoding="utf-8"))
    recipe = CANDIDATES[record["chosen"]]
    if layout(asdict(recipe)) != layout(record["recipe"]):
        raise SystemExit(f"{note}: recipe '{record['chosen']}' differs from this script's; run with --select again")
    start = time.process_time()
    model = train(*tensors(digits, digits.training), recipe, drawn_digits(), FINAL_SEED)
    if model.is_random():
        raise SystemExit("training did not change any weight")
    model.config = model.config.replace(labels=tuple("0123456789"), source=SOURCE, licence="Apache-2.0")
    vit_zoo.save(model, folder)
    print(f"trained in {time.process_time() - start:.0f} CPU s")
    files = write_images(digits, folder)
    record["drawn"] = {"digits": DRAWN, "per_epoch": DRAWN_PER_EPOCH, "seed": DRAWN_SEED}
    record["seeds"]["final"] = FINAL_SEED
    record["remark"] = REMARK
    record["held_out"] = score(folder, files)
    record["versions"] = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    note.write_text(layout(record) + "\n", encoding="utf-8")
    print(f"held-out: {record['held_out']['correct']} of {len(files)} correct")


def score(folder: Path, files: list[Path]) -> dict[str, Any]:
    """Return the accuracy of the saved model on images whose names end in their label, and the wrong predictions."""
    answers = [prediction.labels[0] for prediction in vit_zoo.predict(folder, files, top=1)]
    wrong = {file.name: answer for file, answer in zip(files, answers, strict=True) if file.stem[-1] != answer}
    correct = len(files) - len(wrong)
    return {"correct": correct, "of": len(files), "accuracy": round(correct / len(files), 6), "wrong": wrong}


def layout(value: Any, indent: str = "") -> str:
    """Format JSON with one line for each entry of an object, and lists on one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    entries = [f"{indent}  {json.dumps(key)}: {layout(entry, indent + '  ')}" for key, entry in value.items()]
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=f"Train {NAME}, the model that ships with its weights.")
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--select", action="store_true", help="choose the recipe by cross-validation on the training images")
    step.add_argument("--data", action="store_true", help="write the held-out images and the samples without training")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="folder for all files; by default the folder of this script",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the order of a sum depends on the number of threads
    torch.use_deterministic_algorithms(mode=True)
    arguments.folder.mkdir(exist_ok=True)
    digits = read_digits()
    if arguments.select:
        select(digits, arguments.folder)
    elif arguments.data:
        write_images(digits, arguments.folder)
    else:
        make(digits, arguments.folder)


if __name__ == "__main__":
    main()
