"""Workers, which run an exported file on chunks of a list of images: one for each core, or for each actor of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files.image_list import ImageRef
from vit_zoo.formats import open_artifact
from vit_zoo.formats.features import Feature
from vit_zoo.model.batches import BATCH
from vit_zoo.model.classification import preparation

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.model.preprocess import Preprocess

CHUNK, SMALL_CHUNK, SMALL = 256, 32, 8192  # images


@dataclass(frozen=True)
class Chunk:
    """Consecutive images of a list. Chunks are cut by position, so the batches are the same whoever runs them, and when."""

    number: int
    images: tuple[ImageRef, ...]


@dataclass(frozen=True)
class Rows:
    """The results for a chunk, in the order of its images.

    Attributes:
        number: The number of the chunk.
        images: The images that could be read.
        sizes: Their heights and widths before any change, int32 [images, 2].
        values: The values of each feature by its name, float32 [images, ...].
        failures: Name and reason of each image that could not be read, or whose values are not finite.
    """

    number: int
    images: tuple[ImageRef, ...]
    sizes: Array
    values: dict[str, Array]
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker does; it can be sent to another process or machine.

    Attributes:
        artifact: The path of the exported file.
        features: The values to return.
        preprocess: How images are prepared.
        inside: Whether the file itself prepares images, which it then takes one by one.
        batch: The number of images that are run at once.
        fixed_batch: Whether the file takes exactly that many.
        fast_crop: Whether only what the crop keeps is resized, as in `vit_zoo.predict`.
        threads: Number of onnxruntime threads.
        isolated: Whether the file runs in a child process with limits, as in `vit_zoo.open`.
        time_limit: Seconds that one batch may take.
        memory_limit: GB that the child process may use.
    """

    artifact: Path
    features: tuple[Feature, ...]
    preprocess: Preprocess
    inside: bool = False
    batch: int = BATCH
    fixed_batch: bool = False
    fast_crop: bool = False
    threads: int = 1
    isolated: bool = True
    time_limit: float | None = None
    memory_limit: float | None = None

    def open(self) -> ImageWorker:
        """Open the file."""
        return ImageWorker(self)


class Closed(Exception):
    """Raised in a worker that was closed while it was at work."""


class ImageWorker:
    """An opened file that reads, prepares and runs the images of chunks."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options, self._closed = options, False
        self._prepare = preparation(
            options.preprocess, inside=options.inside, fast_crop=options.fast_crop, where=options.artifact
        )  # fmt: skip
        self.artifact: Artifact = open_artifact(
            options.artifact, threads=options.threads, isolated=options.isolated,
            time_limit=options.time_limit, memory_limit=options.memory_limit,
        )  # fmt: skip

    def __call__(self, chunk: Chunk) -> Rows:
        """Return the results for a chunk. An image that cannot be read is a failure in them; an error is about the file."""
        import numpy as np

        names = [feature.name for feature in self.options.features]
        images: list[ImageRef] = []
        sizes: list[tuple[int, int]] = []
        values: dict[str, list[Array]] = {name: [] for name in names}
        failures: list[tuple[str, str]] = []
        for batch in self._batches(chunk, failures):
            results = self._run([pixels for _, _, pixels in batch])
            finite = np.logical_and.reduce([np.isfinite(x.reshape(len(x), -1)).all(axis=1) for x in results.values()])
            for (image, size, _), fine in zip(batch, finite, strict=True):
                if fine:
                    images.append(image)
                    sizes.append(size)
                else:
                    failures.append((image.name, "the model's outputs are not finite"))
            for name, x in results.items():
                values[name].append(x[finite])
        stacked = {name: np.concatenate(parts) if parts else np.empty((0, 0), "<f4") for name, parts in values.items()}
        at = {image.name: i for i, image in enumerate(chunk.images)}
        failures.sort(key=lambda failure: at[failure[0]])
        rows = np.asarray(sizes, "<i4").reshape(-1, 2)
        return Rows(chunk.number, tuple(images), rows, stacked, tuple(failures))

    def close(self) -> None:
        """Stop at once, from any thread: a call that is running raises `Closed`."""
        self._closed = True
        self.artifact.close()

    def _batches(self, chunk: Chunk, failures: list[tuple[str, str]]) -> Iterator[list[tuple[ImageRef, tuple[int, int], Array]]]:
        """Yield batches of readable images with their sizes and pixels."""
        options = self.options
        batch: list[tuple[ImageRef, tuple[int, int], Array]] = []
        for image in chunk.images:
            if self._closed:
                raise Closed
            try:
                picture = image.read()
                batch.append((image, (picture.height, picture.width), self._prepare(picture)))
            except (InputError, RefusedContent) as error:
                failures.append((image.name, error.message))
                continue
            if len(batch) == (1 if options.inside else options.batch):
                yield batch
                batch = []
        if batch:
            yield batch

    def _run(self, pixels: list[Array]) -> dict[str, Array]:
        """Return the features of a batch by name."""
        import numpy as np

        count = len(pixels)
        if self.options.fixed_batch:
            pixels = pixels + pixels[:1] * (self.options.batch - count)
        try:
            values = self.artifact.run(np.stack(pixels))
        except Exception:
            if self._closed:
                raise Closed from None
            raise
        results = {}
        for feature in self.options.features:
            x = feature.of(values)
            if len(x) != len(pixels):
                cause = f"output '{feature.output}': expected values for {len(pixels)} images, got {list(x.shape)}"
                raise RefusedContent(cause, where=self.options.artifact)
            results[feature.name] = x[:count]
        return results


def chunks(images: Iterable[ImageRef], size: int = CHUNK) -> Iterator[Chunk]:
    """Cut a list of images into chunks."""
    rest = iter(images)
    number = 0
    while part := tuple(islice(rest, size)):
        yield Chunk(number, part)
        number += 1


def chunk_size(count: int) -> int:
    """Return the size of chunks for so many images: small enough that every core has work."""
    return CHUNK if count >= SMALL else SMALL_CHUNK
