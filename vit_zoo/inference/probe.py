"""New heads on frozen features: fitted to images whose classes are known, or made of embeddings of texts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option, notice, printable, shown
from vit_zoo.files import digest_of
from vit_zoo.files.folder import check_folder, private_folder, written_folder
from vit_zoo.files.image_list import TABLES, ImageRef, list_images
from vit_zoo.formats.artifact import size_text
from vit_zoo.formats.features import POOLED, Feature
from vit_zoo.inference.class_embeddings import check_model, in_memory, read_class_embeddings, with_class_embeddings, with_numbers
from vit_zoo.inference.engine import run_chunks
from vit_zoo.inference.linear_head import HELD_OUT, Trial, accuracy_of, fit_head, regression_class, split_by_class
from vit_zoo.inference.worker import Rows, WorkerOptions, chunk_size, chunks
from vit_zoo.loading.checkpoint import Checkpoint, ModelLike
from vit_zoo.loading.load import find_weights, model_of, write_model
from vit_zoo.loading.stated import Description
from vit_zoo.model.config import Accuracy, ModelConfig
from vit_zoo.progress import step

if TYPE_CHECKING:
    from vit_zoo.exporters.export_file import Export
    from vit_zoo.formats.artifact import Array
    from vit_zoo.inference.class_embeddings import ClassesLike

    Sources = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

LABEL_COLUMN = Option("label_column", "NAME")
CLASSES = Option("classes", "'FILE'", "--classes FILE")
LEAST = 2  # images of a class: one for the fit, and one that is held out
FEATURES = "features.onnx"
OF_HEAD = ("num_classes", "problem_type")  # facts that a new head decides


@dataclass(frozen=True)
class ClassResult:
    """The images of a class.

    Attributes:
        label: The name of the class.
        fitted: The number of images that the head was fitted to.
        tested: The number of images that the accuracy was measured on.
        right: How many of them the model puts in this class.
    """

    label: str
    fitted: int
    tested: int
    right: int


@dataclass(frozen=True)
class Measured:
    """What is known of a new head before it is written, as in `Probe`."""

    classes: tuple[ClassResult, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    C: float | None = None
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, repr=False)
class Probe:
    """A model with a new head, and how well it does.

    Attributes:
        folder: The folder of the model.
        export: The exported and verified ONNX file in it.
        config: The config of the model, with labels and accuracy.
        classes: The images of each class; empty without images.
        C: The inverse of the regularisation, as scikit-learn has it; None for embeddings of texts.
        trials: The values of C that were tried.
        unreadable: Name and reason of each image that was left out because it could not be read.
    """

    folder: Path
    export: Export
    config: ModelConfig
    classes: tuple[ClassResult, ...] = ()
    C: float | None = None
    trials: tuple[Trial, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def accuracy(self) -> Accuracy | None:
        """The accuracy that was measured, which the config states too; None without images."""
        return self.config.accuracy

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f": top-1 accuracy {self.accuracy}"
        size = size_text([self.export.path] if self.export.data is None else [self.export.path, self.export.data])
        return printable(f"{self.folder}, {self.config.name} with {self.config.classes} classes{accuracy}; {size}")

    def __repr__(self) -> str:
        return f"<Probe {self}>"

    def to_pandas(self) -> Any:
        """Return the table of the classes: label, numbers of images, and accuracy. Needs pandas."""
        import pandas as pd

        rows = [
            {"label": c.label, "fitted": c.fitted, "tested": c.tested, "right": c.right, "accuracy": c.right / c.tested}
            for c in self.classes
        ]
        return pd.DataFrame(rows, columns=["label", "fitted", "tested", "right", "accuracy"])


@dataclass(frozen=True)
class ProbeOptions:
    """The options of `vit_zoo.probe`, without the model."""

    images: Sources | None
    out: Path
    classes: ClassesLike | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None
    column: str | None = None
    label_column: str | None = None
    held_out: float | None = None
    seed: int | None = None
    workers: int | None = None
    force: bool = False

    def check(self) -> None:
        """Raise InputError for options that contradict each other, and CannotWrite for a folder that is not free."""
        if self.images is None and self.classes is None:
            hint = f"subfolders of a folder of images name the classes; {CLASSES} makes a head of embeddings"
            raise InputError("no images given", hint=hint, options=[CLASSES])
        applies = {
            "a head of embeddings": (self.classes is None, ("logit_scale", "logit_bias")),
            "a fit to images": (self.classes is not None, ("held_out", "seed")),
            "images": (self.images is None, ("column", "label_column", "workers")),
        }
        for what, (absent, names) in applies.items():
            given = next((name for name in names if absent and getattr(self, name) is not None), None)
            if given is not None:
                option = Option(given, shown(getattr(self, given)))
                raise InputError(f"{option} applies to {what}", options=[option])
        if self.held_out is not None and not 0 < self.held_out < 1:
            raise InputError(f"held_out must be between 0 and 1, got {self.held_out:g}")
        if self.seed is not None and self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers must be at least 1, got {self.workers}")
        if self.classes is None:
            regression_class()
        check_folder(self.out, force=self.force)


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


def probe_model(model: ModelLike, options: ProbeOptions, facts: Mapping[str, Any]) -> Probe:
    """Make a new head for a model and write the model. Arguments and errors are as in `vit_zoo.probe`."""
    from vit_zoo.api import export

    options.check()
    facts = dict(facts)
    for name in OF_HEAD:
        if facts.get(name) is not None:
            raise InputError(f"{name} does not apply: the new head decides it")
    labels = Description.taken_from({"labels": facts.pop("labels", None)})
    embeddings = None if options.classes is None else read_class_embeddings(options.classes)
    images = None if options.images is None else _labelled(options)
    source = _in_float32(find_weights(model, **facts))
    if source.config.random_text:
        notice(f"{source.config.name} has {source.config.random_text}: its features are not trained")
    if embeddings is not None:
        check_model(source, embeddings)
        numbers = {"logit_scale": options.logit_scale, "logit_bias": options.logit_bias}
        source = with_class_embeddings(source, with_numbers(embeddings, source, model, **numbers))
        measured = Measured()
        if images is not None:
            source, measured = _zero_shot(source, images, options)
    else:
        assert images is not None
        source, measured = _fitted(source, images, options)
    config = labels.of(source.config)
    with written_folder(options.out) as made:
        write_model(config, source.tensors, made)
    (exported,) = export(options.out, out=options.out, force=options.force)
    return Probe(options.out, exported, config, measured.classes, measured.C, measured.trials, measured.unreadable)


def _in_float32(source: Checkpoint) -> Checkpoint:
    """Return the model in float32, in which exported files compute, so that the new head is of the same type as the others."""
    wide = {name: stored.widened("F32") if stored.dtype in ("F16", "BF16") else stored for name, stored in source.tensors.items()}
    return replace(source, tensors=wide, digest=None).in_float32()


def _labelled(options: ProbeOptions) -> list[ImageRef]:
    """Return the images, each of which has a class. Raises InputError otherwise."""
    assert options.images is not None
    given = [options.images] if isinstance(options.images, str | os.PathLike) else list(options.images)
    table = any(Path(source).suffix.lower() in TABLES for source in given)
    column = "label" if table and options.label_column is None else options.label_column
    images = list(list_images(given, column=options.column, label_column=column))
    nameless = [image.name for image in images if not image.label]
    if nameless:
        more = f", and {len(nameless) - 1:,} others" if len(nameless) > 1 else ""
        hint = f"subfolders name the classes: FOLDER/CLASS/IMAGE; in a CSV table, a column does: {LABEL_COLUMN}"
        raise InputError(f"has no class{more}", where=nameless[0], hint=hint, options=[LABEL_COLUMN])
    return images


def _fitted(source: Checkpoint, images: list[ImageRef], options: ProbeOptions) -> tuple[Checkpoint, Measured]:
    """Return the model with a head that was fitted to the images, and its accuracy on those that were held out."""
    spec = source.config.spec
    if spec.pool == "none":
        raise InputError("the model has no pooled features that a head could read", where=source.config.name)
    _check_counts(Counter(image.label for image in images), "")
    features = _features(source, images, options, POOLED)
    _check_counts(Counter(features.labels[k] for k in features.classes), " that can be read", features.labels)
    share, seed = options.held_out or HELD_OUT, options.seed or 0
    split = split_by_class(features.classes, share, seed)
    with step("fitting the head"):
        head = fit_head(features.vectors, features.classes, split)
    heads = ("head", "head_dist") if spec.dist_token else ("head",)  # the mean of two equal heads is the head of the mean
    tensors = dict(source.tensors)
    for name in heads:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = in_memory(head.weight), in_memory(head.bias)
    spec = spec.replace(num_classes=len(features.labels), head_bias=True, projection=0, cosine_head=False)
    config = source.config
    random = {} if config.random_part is None else {"random_seed": None, "random_part": None}
    of_head = {"labels": features.labels, "problem_type": None, "accuracy": None}
    config = config.replace(spec=spec, **of_head, **random)
    config = config.replace(source=f"{config.source or config.name}; its head: fitted by vitzoo probe")
    made = Checkpoint(config, {name: tensors[name] for name in spec.shapes()})
    tested = split.held_out
    # with the head as it is stored, in float32
    logits = features.vectors[tested] @ head.weight.astype("<f4").T + head.bias.astype("<f4")
    how = f"held out of the fit: {100 * share:.3g} % of each class, seed {seed}"
    made, measured = _with_accuracy(made, features, logits, tested, how, options)
    return made, replace(measured, C=head.C, trials=head.trials)


def _zero_shot(source: Checkpoint, images: list[ImageRef], options: ProbeOptions) -> tuple[Checkpoint, Measured]:
    """Return the model with its accuracy on images. Raises InputError for an image of a class that the model does not have."""
    import numpy as np

    labels = source.config.labels or ()
    for image in images:
        if image.label not in labels:
            raise InputError(
                f"its class is '{image.label}', which is none of the classes of {CLASSES}", where=image.name, options=[CLASSES]
            )
    features = _features(source, images, options, "logits", labels)
    return _with_accuracy(source, features, features.vectors, np.arange(len(features.classes)), "all, zero-shot", options)


def _with_accuracy(
    source: Checkpoint, features: LabelledFeatures, logits: Array, tested: Array, how: str, options: ProbeOptions
) -> tuple[Checkpoint, Measured]:
    """Return the model with the accuracy of its logits on the images `tested` in its config, and the same for each class."""
    import numpy as np

    classes = features.classes[tested]
    right = logits.argmax(axis=1) == classes
    count = len(features.labels)
    per_class = [np.bincount(each, minlength=count) for each in (features.classes, classes, classes[right])]
    results = tuple(
        ClassResult(label, 0 if len(tested) == len(features.classes) else int(every - some), int(some), int(good))
        for label, every, some, good in zip(features.labels, *per_class, strict=True)
    )
    accuracy = Accuracy(
        top1=accuracy_of(logits, classes), images=len(tested), dataset=_dataset(options), split=how,
        weights=digest_of(source.tensors),
    )  # fmt: skip
    return replace(source, config=source.config.replace(accuracy=accuracy)), Measured(results, features.unreadable)


def _dataset(options: ProbeOptions) -> str:
    """Return the name of the images: of the folder or the file, not its path, which may be private."""
    assert options.images is not None
    given = [options.images] if isinstance(options.images, str | os.PathLike) else list(options.images)
    names = [Path(source).resolve().name or "images" for source in given]
    return printable(", ".join(names))[:200]


def _check_counts(counts: Mapping[Any, int], which: str, labels: Iterable[str] = ()) -> None:
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


def _features(
    source: Checkpoint, images: list[ImageRef], options: ProbeOptions, output: str, labels: tuple[str, ...] | None = None
) -> LabelledFeatures:
    """Run the model on images. `labels` are the classes in their order; by default sorted."""
    import numpy as np

    from vit_zoo.api import export

    preprocess = source.config.known_preprocess()
    labels = labels or tuple(sorted({image.label for image in images if image.label}))
    numbers = {label: i for i, label in enumerate(labels)}
    size = min(chunk_size(len(images)), -(-len(images) // 4))  # small lists are shared out too
    rows: list[Rows] = []
    with private_folder("probe") as folder:
        file = folder / FEATURES
        untold = source.config.replace(random_seed=None, random_part=None)  # `probe_model` has told it
        export(model_of(replace(source, config=untold)), out=file, outputs=[output], verify=False)
        worker = WorkerOptions(artifact=file, features=(Feature(output),), preprocess=preprocess, isolated=False)
        with (
            step(f"computing {output}", len(images), "images") as progress,
            closing(run_chunks(chunks(images, size), worker.open, options.workers)) as results,
        ):
            for result in results:
                rows.append(result)
                progress.advance(len(result.images) + len(result.failures))
    unreadable = tuple(failure for row in rows for failure in row.failures)
    read = [row for row in rows if row.images]
    if not read:
        raise InputError("none of the images can be read", where=unreadable[0][0])
    classes = np.array([numbers[str(image.label)] for row in read for image in row.images])
    vectors = np.concatenate([values[output] for values in (row.values for row in read)])  # noqa: PD011 - of Rows
    return LabelledFeatures(vectors, classes, labels, unreadable)
