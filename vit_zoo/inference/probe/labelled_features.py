"""Features of images whose classes are known, computed by the model's own ONNX file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.api import export
from vit_zoo.errors import InputError, Option
from vit_zoo.files.folder import private_folder
from vit_zoo.files.image_list import TABLES, ImageRef, list_images
from vit_zoo.formats.features import Feature
from vit_zoo.inference.engine import run_chunks
from vit_zoo.inference.worker import Rows, WorkerOptions, chunk_size, chunks
from vit_zoo.loading.load import model_of
from vit_zoo.progress import step

if TYPE_CHECKING:
    from vit_zoo.files.image_list import Sources
    from vit_zoo.formats.artifact import Array
    from vit_zoo.loading.checkpoint import Checkpoint

LABEL, LABEL_COLUMN = "label", Option("label_column", "NAME")
LEAST = 2  # images of a class: one for the fit, and one that is held out
FEATURES = "features.onnx"


@dataclass(frozen=True)
class LabelledFeatures:
    """The features of images and their classes.

    Attributes:
        vectors: float32 [images, width].
        classes: The class of each, int [images].
        labels: The names of the classes.
        unreadable: Name and reason of each image that could not be read.
    """

    vectors: Array
    classes: Array
    labels: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]


def listed(sources: Sources) -> list[Path]:
    """Return the paths of one source or several."""
    return [Path(sources)] if isinstance(sources, str | os.PathLike) else [Path(source) for source in sources]


def labelled_images(sources: Sources, column: str | None, label_column: str | None) -> list[ImageRef]:
    """Return the images, each of which has a class. Raises InputError otherwise."""
    given = listed(sources)
    table = any(Path(source).suffix.lower() in TABLES for source in given)
    label_column = LABEL if table and label_column is None else label_column
    images = list(list_images(given, column=column, label_column=label_column))
    nameless = [image.name for image in images if not image.label]
    if nameless:
        others = len(nameless) - 1
        more = f", and {others:,} {'other' if others == 1 else 'others'}" if others else ""
        hint = f"subfolders name the classes: FOLDER/CLASS/IMAGE; in a CSV table, a column does: {LABEL_COLUMN}"
        raise InputError(f"has no class{more}", where=nameless[0], hint=hint, options=[LABEL_COLUMN])
    return images


def check_counts(counts: Mapping[Any, int], which: str, labels: Iterable[str] = ()) -> None:
    """Raise InputError for less than two classes, or a class with too few images."""
    counts = {**dict.fromkeys(labels, 0), **counts}
    if len(counts) < 2:
        raise InputError(f"one class only, '{next(iter(counts))}': a classifier needs two or more")
    few = [label for label, count in counts.items() if count < LEAST]
    if few:
        more = f", and {len(few) - 1:,} other classes" if len(few) > 1 else ""
        plural = "image" if counts[few[0]] == 1 else "images"
        cause = f"class '{few[0]}' has {counts[few[0]]} {plural}{which}{more}"
        raise InputError(cause, hint=f"each class needs at least {LEAST}: one for the fit and one to test it on")


def features_of(
    source: Checkpoint, images: list[ImageRef], output: str, *, workers: int | None, labels: tuple[str, ...] | None = None
) -> LabelledFeatures:
    """Run the model on images. `labels` are the classes in their order; by default sorted."""
    import numpy as np

    preprocess = source.config.known_preprocess()
    labels = labels or tuple(sorted({image.label for image in images if image.label}))
    numbers = {label: i for i, label in enumerate(labels)}
    size = min(chunk_size(len(images)), -(-len(images) // 4))  # small lists are shared out too
    rows: list[Rows] = []
    with private_folder("probe") as folder:
        file = folder / FEATURES
        untold = source.config.replace(random_seed=None, random_part=None)  # the caller has told it
        export(model_of(replace(source, config=untold)), out=file, outputs=[output], verify=False)
        worker = WorkerOptions(artifact=file, features=(Feature(output),), preprocess=preprocess, isolated=False)
        with (
            step(f"computing {output}", len(images), "images") as progress,
            closing(run_chunks(chunks(images, size), worker.open, workers)) as results,
        ):
            for result in results:
                rows.append(result)
                progress.advance(len(result.images) + len(result.failures))
    unreadable = tuple(failure for row in rows for failure in row.failures)
    read = [row for row in rows if row.images]
    if not read:
        raise InputError("none of the images can be read", where=unreadable[0][0])
    classes = np.array([numbers[str(image.label)] for row in read for image in row.images])
    vectors = np.concatenate([values[output] for values in (row.values for row in read)])
    return LabelledFeatures(vectors, classes, labels, unreadable)
