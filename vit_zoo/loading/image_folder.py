"""A folder of real images: those to calibrate with, those to judge by, and their classes where folders name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.errors import InputError
from vit_zoo.files import read_image, sniff

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.preprocess import Preprocess

BATCH = 8
JUDGED = 4  # every so-manyth image of a folder is held out of calibration
CALIBRATING, JUDGING = 256, 2000  # more images make the ranges no better, and the figure not much finer


@dataclass(frozen=True)
class Pictures:
    """Image files in a fixed order, with the class of each where the folders tell."""

    files: tuple[Path, ...]
    classes: tuple[int, ...] | None
    preprocess: Preprocess

    def batches(self) -> Iterator[Array]:
        """b c H W, normalised."""
        for start in range(0, len(self.files), BATCH):
            yield np.stack([self.preprocess(read_image(file)) for file in self.files[start : start + BATCH]])

    def stack(self, count: int) -> Array:
        """Up to `count` of them in one array, b c H W."""
        return np.concatenate(list(self.at_most(count).batches()))

    def of(self, indices: Sequence[int]) -> Pictures:
        classes = None if self.classes is None else tuple(self.classes[i] for i in indices)
        return Pictures(tuple(self.files[i] for i in indices), classes, self.preprocess)

    def at_most(self, count: int) -> Pictures:
        """That many of them, in an order drawn once: sorted files begin with a single class."""
        return self.of(np.random.default_rng(0).permutation(len(self.files))[:count].tolist())

    def parted(self) -> tuple[Pictures, Pictures]:
        """Those to calibrate with, and those held out; raises InputError if they are too few."""
        if len(self.files) < JUDGED:
            raise InputError(f"{len(self.files)} images are too few to hold some out", hint="name others by --evaluate")
        held = range(JUDGED - 1, len(self.files), JUDGED)
        return self.of([i for i in range(len(self.files)) if i not in set(held)]), self.of(held)


def read_pictures(folder: Path, config: ModelConfig) -> Pictures:
    """The images in a folder and the folders in it; their classes if each of those is named as a label or number of one."""
    if config.preprocess is None:
        hint = "a variant of the zoo says it: export NAME --weights FILE"
        raise InputError("does not say how images are prepared", where=config.name, hint=hint)
    if not folder.is_dir():
        raise InputError("is no folder of images", where=folder)
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".") and sniff(path) == "image"
    )
    if not files:
        raise InputError("holds no images", where=folder)
    return Pictures(tuple(files), _classes(files, folder, config), config.preprocess)


def _classes(files: Sequence[Path], folder: Path, config: ModelConfig) -> tuple[int, ...] | None:
    """By the folder right inside, if every image is in one and all are known."""
    parts = [path.relative_to(folder).parts for path in files]
    known = {str(i): i for i in range(config.spec.num_classes)} | {name: i for i, name in enumerate(config.labels or ())}
    if not all(len(part) > 1 and part[0] in known for part in parts):
        return None
    return tuple(known[part[0]] for part in parts)
