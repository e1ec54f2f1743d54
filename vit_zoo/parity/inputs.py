"""What models and artifacts are compared on: seeded images that show different faults, and photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.files import read_image
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.registry.catalog import zoo_folder

if TYPE_CHECKING:
    from PIL import Image

    from vit_zoo.formats.artifact import Array
    from vit_zoo.model.spec import ViTSpec


@dataclass(frozen=True)
class Frame:
    """The images that a model takes: channels, (height, width), the patch's (height, width), and how they are prepared."""

    channels: int
    size: tuple[int, int]
    patch: tuple[int, int]
    preprocess: Preprocess | None

    @classmethod
    def of(cls, spec: ViTSpec, preprocess: Preprocess | None) -> Frame:
        return cls(spec.channels, spec.image_size, spec.patch_size, preprocess)

    def at(self, size: tuple[int, int]) -> Frame:
        """The same at another size: whole images, squashed."""
        prepared = None if self.preprocess is None else self.preprocess.model_copy(update={"size": size, "resize_to": None})
        return replace(self, size=size, preprocess=prepared)

    @property
    def per_channel(self) -> Array:
        return np.linspace(1, 2, self.channels)[:, None, None]

    def random(self, seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)


def noise(frame: Frame, seed: int) -> Array:
    """Pixels of every brightness, normalised."""
    pixels = frame.random(seed).integers(0, 256, (frame.channels, *frame.size))
    mean, std = (0.5, 0.5) if frame.preprocess is None else (frame.preprocess.mean, frame.preprocess.std)
    return (pixels / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))  # type: ignore[no-any-return]


def gradient_and_edges(frame: Frame, seed: int) -> Array:
    """Channels that differ, rows that differ from columns."""
    h, w = frame.size
    ramp = np.linspace(-1, 1, h)[:, None] + np.linspace(-1, 1, w)[None] * 0.5
    edges = np.where((np.arange(w) // max(1, w // 7)) % 2 == 0, 1.0, -1.0)[None, None]
    return ramp[None] * frame.per_channel + edges * frame.per_channel[::-1] * 0.3


def constant_per_patch(frame: Frame, seed: int) -> Array:
    """Every patch another colour: positions show."""
    (h, w), (p, q) = frame.size, frame.patch
    cells = frame.random(seed).normal(size=(frame.channels, -(-h // p), -(-w // q)))
    return np.kron(cells, np.ones((1, p, q)))[:, :h, :w]


def large(frame: Frame, seed: int) -> Array:
    return frame.random(seed).normal(size=(frame.channels, *frame.size)) * 30


def nearly_constant(frame: Frame, seed: int) -> Array:
    return 0.5 * frame.per_channel + frame.random(seed).normal(size=(frame.channels, *frame.size)) * 1e-3


def normal(frame: Frame, seed: int) -> Array:
    return frame.random(seed).normal(size=(frame.channels, *frame.size))


@cache
def photograph(name: str) -> Image.Image:
    return read_image(zoo_folder() / "photos" / f"{name}.jpg")


def _photo(name: str) -> Callable[[Frame, int], Array]:
    def prepared(frame: Frame, seed: int) -> Array:
        half = (0.5,) * (3 if frame.channels == 3 else 1)
        how = frame.preprocess or Preprocess(size=frame.size, resize_to=None, interpolation="bicubic", mean=half, std=half)
        return np.resize(how(photograph(name)), (frame.channels, *frame.size))

    return prepared


IMAGES: dict[str, Callable[[Frame, int], Array]] = {
    "noise": noise,
    "gradient and edges": gradient_and_edges,
    "constant per patch": constant_per_patch,
    "photograph of a cat": _photo("cat"),
    "large": large,
    "nearly constant": nearly_constant,
    "photograph of a cup": _photo("coffee"),
    "normal": normal,
}


def images(frame: Frame, names: tuple[str, ...]) -> Array:
    """The named images, stacked: b c H W, float32, normalised."""
    return np.stack([np.ascontiguousarray(IMAGES[name](frame, seed), "<f4") for seed, name in enumerate(names)])


def many_images(frame: Frame, count: int, seed: int = 0) -> Array:
    """Crops of the photographs and noise for statistics over images: b c H W, float32, normalised."""
    (h, w), random = frame.size, frame.random(seed)
    double = frame.at((2 * h, 2 * w))
    wholes = [_photo(name)(double, 0) for name in ("cat", "coffee")]
    found = []
    for i in range(count):
        top, left = random.integers(0, h + 1), random.integers(0, w + 1)
        crop = wholes[i % 2][:, top : top + h, left : left + w]
        turned = crop[:, :, ::-1] if i % 4 > 1 else crop
        found.append(turned + random.normal(size=turned.shape) * 0.1)
    return np.stack(found).astype("<f4")
