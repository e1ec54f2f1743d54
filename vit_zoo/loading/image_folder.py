"""Folders of real images, for calibration and evaluation, with the classes that their subfolders name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.errors import InputError, Option
from vit_zoo.files import read_image, sniff

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.preprocess import Preprocess

BATCH = 8
HELD_OUT_EVERY = 4  # every fourth image is held out of calibration
# More images do not improve the ranges, and hardly make the measured share more precise.
MAX_CALIBRATION, MAX_EVALUATION = 256, 2000


@dataclass(frozen=True)
class ImageFolder:
    """Image files in a fixed order, with their classes, or None if the subfolders do not name them."""

    files: tuple[Path, ...]
    classes: tuple[int, ...] | None
    preprocess: Preprocess

    def batches(self) -> Iterator[Array]:
        """Yield batches of prepared images: b c H W, normalised."""
        for start in range(0, len(self.files), BATCH):
            yield np.stack([self.preprocess(read_image(file)) for file in self.files[start : start + BATCH]])

    def stack(self, count: int) -> Array:
        """Return prepared images, `count` at most, as one array: b c H W."""
        return np.concatenate(list(self.sample(count).batches()))

    def select(self, indices: Sequence[int]) -> ImageFolder:
        """Return the images with these indices."""
        classes = None if self.classes is None else tuple(self.classes[i] for i in indices)
        return ImageFolder(tuple(self.files[i] for i in indices), classes, self.preprocess)

    def sample(self, count: int) -> ImageFolder:
        """Return `count` images at most, in a fixed random order, since the first files in sorted order share one class."""
        return self.select(np.random.default_rng(0).permutation(len(self.files))[:count].tolist())

    def split(self) -> tuple[ImageFolder, ImageFolder]:
        """Split into images for calibration and held-out images. Raises InputError if there are too few."""
        if len(self.files) < HELD_OUT_EVERY:
            fault = f"{len(self.files)} images are too few to hold some out: at least {HELD_OUT_EVERY} are needed"
            images = Option("evaluate", "FOLDER")
            raise InputError(fault, hint=f"name a folder of other images: {images}", options=[images])
        held_out = range(HELD_OUT_EVERY - 1, len(self.files), HELD_OUT_EVERY)
        return self.select([i for i in range(len(self.files)) if i not in set(held_out)]), self.select(held_out)


def read_image_folder(folder: Path, config: ModelConfig) -> ImageFolder:
    """Return the images in a folder and its subfolders.

    They have classes if every image is in a subfolder named after a label or a class index. Raises InputError if there are no
    images, or if the model's preprocessing is not known.
    """
    preprocess = config.known_preprocess()
    if not folder.is_dir():
        raise InputError("not a folder", where=folder)
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".") and sniff(path) == "image"
    )
    if not files:
        raise InputError("contains no images", where=folder)
    return ImageFolder(tuple(files), _classes(files, folder, config), preprocess)


def _classes(files: Sequence[Path], folder: Path, config: ModelConfig) -> tuple[int, ...] | None:
    """Return the class of each image by its top-level subfolder, or None if an image has none or its name is unknown."""
    parts = [path.relative_to(folder).parts for path in files]
    indices = {str(i): i for i in range(config.spec.num_classes)} | {name: i for i, name in enumerate(config.labels or ())}
    if not all(len(part) > 1 and part[0] in indices for part in parts):
        return None
    return tuple(indices[part[0]] for part in parts)
