"""New heads on frozen features: fitted to images whose classes are known, or made of embeddings of texts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.api import export
from vit_zoo.errors import InputError, Option, notice, printable, shown
from vit_zoo.files import digest_of
from vit_zoo.files.folder import check_folder, written_folder
from vit_zoo.formats.artifact import size_text
from vit_zoo.formats.features import POOLED
from vit_zoo.inference.probe.class_embeddings import (
    check_model,
    in_memory,
    read_class_embeddings,
    with_class_embeddings,
    with_numbers,
)
from vit_zoo.inference.probe.labelled_features import LabelledFeatures, check_counts, features_of, labelled_images, listed
from vit_zoo.inference.probe.linear_head import HELD_OUT, Trial, accuracy_of, fit_head, regression_class, split_by_class
from vit_zoo.loading.checkpoint import Checkpoint, ModelLike
from vit_zoo.loading.load import find_weights, write_model
from vit_zoo.loading.stated import Description
from vit_zoo.model.config import Accuracy, ModelConfig
from vit_zoo.progress import step

if TYPE_CHECKING:
    from vit_zoo.exporters.export_file import Export
    from vit_zoo.files.image_list import ImageRef, Sources
    from vit_zoo.formats.artifact import Array
    from vit_zoo.inference.probe.class_embeddings import ClassesLike
    from vit_zoo.loading.stated import Labels, PreprocessLike

CLASSES = Option("classes", "'FILE'", "--classes FILE")
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
    """The options of `probe`, without the model."""

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


def probe(
    model: ModelLike,
    images: Sources | None = None,
    *,
    out: str | os.PathLike[str],
    classes: ClassesLike | None = None,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
    column: str | None = None,
    label_column: str | None = None,
    held_out: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    force: bool = False,
    labels: Labels | None = None,
    preprocess: PreprocessLike | None = None,
    **facts: Any,
) -> Probe:
    """Give a model a new head: fitted to images whose classes are known, or made of embeddings of texts.

    The rest of the model stays as it is. A head for images is a multinomial logistic regression on the pooled features
    (`pooler_output`), which needs scikit-learn. A head of embeddings has the logits `logit_scale` times the cosine of image and
    class embedding, as CLIP's zero-shot classifiers. The folder gets the model in float32 with its new head, and a verified ONNX
    file.

    Args:
        model: A model, as in `load`.
        images: A folder whose subfolders name the classes, a CSV or Parquet table with a column of labels, tar shards, or several
            of them. Images that cannot be read are left out and listed in the result. With `classes` they only measure the
            accuracy.
        out: The folder, which must be empty or not exist.
        classes: Embeddings of classes: an `.npz` file with the arrays `embeddings` [classes, width] and `labels` [classes], and
            optionally `logit_scale` and `logit_bias`; a `.safetensors` file with the same in tensors or metadata; or a mapping.
        logit_scale: The factor of the cosines, not its logarithm; by default that of `classes`, or of the checkpoint.
        logit_bias: The number added to the logits, as in SigLIP, whose classes each have a probability of their own; the default
            is found in the same way, and none is added where nothing states it.
        column: The column of paths in tables; by default the only one, or `path`, `file_name`, `filename`, `file` or `image`.
        label_column: The column of labels in tables, `label` by default.
        held_out: The share of each class (0 to 1) that the accuracy is measured on, at least one image; 0.2 by default.
        seed: Seed for the choice of these images, 0 by default.
        workers: Number of workers that compute features; one for each core by default.
        force: Replace the model in the folder.
        labels: Names of the classes in place of those of the folders, in their sorted order.
        preprocess: How images are prepared, as in `load`.
        **facts: Facts about the checkpoint, as in `load`.

    Raises:
        InputError: There is one class only, a class has fewer than two images, the model has no features, or nothing states the
            scale.
        MissingDependency: scikit-learn is not installed.
        CheckFailed: The exported file does not compute the model.
        CannotWrite: The folder is not empty, or cannot be written.
    """
    options = ProbeOptions(
        images=images, out=Path(out), classes=classes, logit_scale=logit_scale, logit_bias=logit_bias, column=column,
        label_column=label_column, held_out=held_out, seed=seed, workers=workers, force=force,
    )  # fmt: skip
    return _probe(model, options, {**facts, "labels": labels, "preprocess": preprocess})


def _probe(model: ModelLike, options: ProbeOptions, facts: Mapping[str, Any]) -> Probe:
    """Make a new head for a model and write the model. Arguments and errors are as in `probe`."""
    options.check()
    facts = dict(facts)
    for name in OF_HEAD:
        if facts.get(name) is not None:
            raise InputError(f"{name} does not apply: the new head decides it")
    labels = Description.taken_from({"labels": facts.pop("labels", None)})
    embeddings = None if options.classes is None else read_class_embeddings(options.classes)
    images = None if options.images is None else labelled_images(options.images, options.column, options.label_column)
    count = len({image.label for image in images or ()}) if embeddings is None else len(embeddings.labels)
    if labels.labels is not None and len(labels.labels) != count:  # before the slow work
        raise InputError(f"{len(labels.labels):,} labels for {count:,} classes", where=labels.labels_file)
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


def _fitted(source: Checkpoint, images: list[ImageRef], options: ProbeOptions) -> tuple[Checkpoint, Measured]:
    """Return the model with a head that was fitted to the images, and its accuracy on those that were held out."""
    spec = source.config.spec
    if spec.pool == "none":
        raise InputError("the model has no pooled features that a head could read", where=source.config.name)
    check_counts(Counter(image.label for image in images), "")
    features = features_of(source, images, POOLED, workers=options.workers)
    check_counts(Counter(features.labels[k] for k in features.classes), " that can be read", features.labels)
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
    features = features_of(source, images, "logits", workers=options.workers, labels=labels)
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
    names = [source.resolve().name or "images" for source in listed(options.images)]
    return printable(", ".join(names))[:200]
