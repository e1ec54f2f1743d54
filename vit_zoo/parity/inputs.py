"""Input images of the parity checks: seeded probes, each of which reveals other faults, and photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.files import read_image
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.registry.catalog import zoo_folder
from vit_zoo.self_check.recipe import as_pixels, image_bytes

if TYPE_CHECKING:
    from PIL import Image

    from vit_zoo.formats.artifact import Array
    from vit_zoo.model.spec import ViTSpec


@dataclass(frozen=True)
class Frame:
    """Input format of a model: channels, image size and patch size as (height, width), and preprocessing."""

    channels: int
    size: tuple[int, int]
    patch: tuple[int, int]
    preprocess: Preprocess | None

    @classmethod
    def of(cls, spec: ViTSpec, preprocess: Preprocess | None) -> Frame:
        return cls(spec.channels, spec.image_size, spec.patch_size, preprocess)

    def at(self, size: tuple[int, int]) -> Frame:
        """Return the same format at another size, to which full images are resized without a crop."""
        prepared = None if self.preprocess is None else self.preprocess.model_copy(update={"size": size, "resize_to": None})
        return replace(self, size=size, preprocess=prepared)

    @property
    def per_channel(self) -> Array:
        """A different factor for each channel, from 1 to 2: c 1 1."""
        return np.linspace(1, 2, self.channels)[:, None, None]

    def random(self, seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)


def _of_selfcheck(image: int) -> Callable[[Frame, int], Array]:
    """Return the maker of an image of self-checks: noise, or ramps that differ between channels and between rows and columns."""

    def make(frame: Frame, seed: int) -> Array:
        return as_pixels(image_bytes(frame.channels, *frame.size)[image])

    return make


def constant_per_patch(frame: Frame, seed: int) -> Array:
    """Return patches of one colour each, all different, which reveals faults in positions."""
    (h, w), (p, q) = frame.size, frame.patch
    cells = frame.random(seed).normal(size=(frame.channels, -(-h // p), -(-w // q)))
    return np.kron(cells, np.ones((1, p, q)))[:, :h, :w]


def large(frame: Frame, seed: int) -> Array:
    """Return values far outside the range of normalised pixels, which reveals clipping."""
    return frame.random(seed).normal(size=(frame.channels, *frame.size)) * 30


def nearly_constant(frame: Frame, seed: int) -> Array:
    """Return an image with almost no variance, for which the epsilon of a norm matters."""
    return 0.5 * frame.per_channel + frame.random(seed).normal(size=(frame.channels, *frame.size)) * 1e-3


def normal(frame: Frame, seed: int) -> Array:
    return frame.random(seed).normal(size=(frame.channels, *frame.size))


@cache
def photograph(name: str) -> Image.Image:
    return read_image(zoo_folder() / "photos" / f"{name}.jpg")


def _photo(name: str) -> Callable[[Frame, int], Array]:
    def prepare(frame: Frame, seed: int) -> Array:
        half = (0.5,) * (3 if frame.channels == 3 else 1)
        default = Preprocess(size=frame.size, resize_to=None, interpolation="bicubic", mean=half, std=half)
        preprocess = frame.preprocess or default
        return np.resize(preprocess(photograph(name)), (frame.channels, *frame.size))

    return prepare


PROBES: dict[str, Callable[[Frame, int], Array]] = {
    "noise": _of_selfcheck(0),  # these two are the first, so that what they give is computed once for both checks
    "pattern": _of_selfcheck(1),
    "constant per patch": constant_per_patch,
    "photograph of a cat": _photo("cat"),
    "large": large,
    "nearly constant": nearly_constant,
    "photograph of a cup": _photo("coffee"),
    "normal": normal,
}


def probe_images(frame: Frame, names: tuple[str, ...]) -> Array:
    """Return the named probes as one batch: b c H W, float32, normalised."""
    return np.stack([np.ascontiguousarray(PROBES[name](frame, seed), "<f4") for seed, name in enumerate(names)])


def photo_crops(frame: Frame, count: int, seed: int = 0) -> Array:
    """Return random crops of the photographs with noise added, for statistics over images: b c H W, float32, normalised."""
    (h, w), random = frame.size, frame.random(seed)
    double = frame.at((2 * h, 2 * w))
    photos = [_photo(name)(double, 0) for name in ("cat", "coffee")]
    crops = []
    for i in range(count):
        top, left = random.integers(0, h + 1), random.integers(0, w + 1)
        crop = photos[i % 2][:, top : top + h, left : left + w]
        mirrored = crop[:, :, ::-1] if i % 4 > 1 else crop
        crops.append(mirrored + random.normal(size=mirrored.shape) * 0.1)
    return np.stack(crops).astype("<f4")
