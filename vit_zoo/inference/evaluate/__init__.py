"""Evaluation of an exported file, or of two on the same images, against known classes or values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vit_zoo.errors import InputError, Option, RefusedContent, notice, shown
from vit_zoo.files.image_list import AND, TABLES, list_images
from vit_zoo.formats.classifier import PROBABILITIES, class_config, class_output
from vit_zoo.formats.declared import Declared, declared
from vit_zoo.formats.features import feature_of
from vit_zoo.inference.engine import Engine, engine_of
from vit_zoo.inference.evaluate.classes import class_numbers, label_of
from vit_zoo.inference.evaluate.result import Difference, Evaluation, Failure, Kind, SharedNeighbours, Table
from vit_zoo.inference.evaluate.scoring import Neighbours, OneClass, Scores, SeveralClasses, Task, Values
from vit_zoo.inference.preparation import free_size, options_of, preprocess_of
from vit_zoo.inference.worker import chunk_size, chunks
from vit_zoo.loading.stated import Description
from vit_zoo.parity.neighbours import fewest_images, shared_neighbours
from vit_zoo.progress import step

if TYPE_CHECKING:
    from vit_zoo.files.image_list import ImageRef, Sources
    from vit_zoo.formats.artifact import Array
    from vit_zoo.inference.worker import WorkerOptions
    from vit_zoo.loading.stated import Labels, PreprocessLike
    from vit_zoo.model.config import ModelConfig

LABEL = "label"  # the column of a table, by default
K = 10
SAME = "files of one kind can be compared: two that give classes, or two that give features"


@dataclass(frozen=True)
class Images:
    """The images of an evaluation, and where they come from, for errors."""

    refs: tuple[ImageRef, ...]
    source: str
    tables: bool  # whether they come from tables alone

    @classmethod
    def listed(cls, sources: Sources, column: str | None, label_column: str | None) -> Images:
        """List images with their labels, which tables have in the column `label` by default."""
        given = [Path(sources)] if isinstance(sources, str | os.PathLike) else [Path(source) for source in sources]
        tables = [source.suffix.lower() in TABLES for source in given]
        if label_column is None and any(tables):
            label_column = LABEL
        refs = tuple(list_images(given, column=column, label_column=label_column))
        return cls(refs, ", ".join(map(str, given[:3])), all(tables))

    def labels(self) -> list[str]:
        """Return the label of each image. Raises InputError if some have none."""
        without = [ref.name for ref in self.refs if not ref.label]
        if without:
            cause = f"{len(without):,} of {len(self.refs):,} images have no class, such as {without[0]}"
            hint = f"subfolders name the classes, or the column '{LABEL}' of a table"
            raise InputError(cause, where=self.source, hint=hint)
        return [str(ref.label) for ref in self.refs]


@dataclass(frozen=True)
class Subject:
    """A file that is evaluated: how it runs, and its config where it gives classes or values."""

    path: Path
    options: WorkerOptions
    config: ModelConfig | None
    activated: bool

    @classmethod
    def of(
        cls, path: str | os.PathLike[str], output: str | None, facts: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> Subject:
        """Return what a file gives; `settings` are those of its workers.

        Raises InputError for an output that it does not have, or facts that do not apply.
        """
        stated = dict(facts)
        description = Description.taken_from(stated)
        other = next(iter(stated), None)
        if other is not None:
            raise InputError(f"cannot set {other}: an exported file contains its own config", where=path)
        file = declared(path)
        if file.about.config is not None and file.about.config.random_text:
            notice(f"{path} has {file.about.config.random_text}: its results mean nothing")
        classes = class_output(file)
        if classes is None or output not in (None, classes):
            return cls._of_features(file, output, description, settings)
        _, config = class_config(file, description.of, free_size(file, description.preprocess))
        options = options_of(file, [feature_of(file, classes)], config.known_preprocess(), **settings)
        return cls(Path(path), options, config, classes == PROBABILITIES)

    @classmethod
    def _of_features(
        cls, artifact: Declared, output: str | None, description: Description, settings: Mapping[str, Any]
    ) -> Subject:
        for name in description.stated:
            if name != "preprocess":
                raise InputError(f"{name} does not apply: the file gives features", where=artifact.path)
        preprocess = preprocess_of(artifact, description.preprocess)
        options = options_of(artifact, [feature_of(artifact, output)], preprocess, **settings)
        return cls(artifact.path, options, None, activated=False)

    @property
    def kind(self) -> Kind:
        """What is measured. Raises InputError for one output of which nothing states what it stands for."""
        if self.config is None:
            return "neighbours"
        if self.config.problem_type == "regression":
            return "regression"
        return "multi-label" if self.config.class_activation() == "sigmoid" else "classification"

    def with_labels_of(self, other: Subject | None) -> Subject:
        """Return the file with the labels of another one with as many classes, if it has none itself."""
        if other is None or self.config is None or other.config is None or self.config.labels is not None:
            return self
        if other.config.classes != self.config.classes:
            return self
        return Subject(self.path, self.options, self.config.with_labels(other.config.labels), self.activated)


@dataclass(frozen=True)
class Outcome:
    """What was computed for the images at these positions of the list, and the images that could not be measured."""

    at: Array
    kept: Array
    failures: tuple[Failure, ...]

    def common(self, other: Outcome) -> tuple[Array, Array]:
        """Return where the images that both have are in each of them."""
        _, here, there = np.intersect1d(self.at, other.at, assume_unique=True, return_indices=True)
        return here, there


def evaluate(
    artifact: str | os.PathLike[str],
    images: Sources,
    *,
    against: str | os.PathLike[str] | None = None,
    output: str | None = None,
    k: int | None = None,
    column: str | None = None,
    label_column: str | None = None,
    workers: int | None = None,
    batch: int | None = None,
    fast_crop: bool = False,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    labels: Labels | None = None,
    preprocess: PreprocessLike | None = None,
    **facts: Any,
) -> Evaluation:
    """Measure how well an exported file does on images whose classes or values are known; torch is not needed.

    What is measured follows from the file. For classes of which one applies: the share of right predictions (top-1 and top-5),
    recall and precision of each class, the most frequent confusions, and the expected calibration error. For classes that each
    apply or not: the share of images on which all are right, and the mean average precision. For a regression: its errors. For
    features: the share of images whose class is that of their nearest neighbours, by cosine, among the other images.

    Args:
        artifact: An exported ONNX file.
        images: A folder with a subfolder for each class; a `.csv` or `.parquet` table with the columns `path` and `label`; a
            `.tar` archive whose members `KEY.cls` name the classes; or several of these. Classes are named by their labels, by
            their numbers from 0, or by their WordNet ids for ImageNet-1k. A table names several classes, or several values of
            a regression, with `;` between them. For features, classes can have any names.
        against: Another exported file, for the difference between both on the same images, with a confidence interval and
            McNemar's exact test. Files of features are also compared without classes: by how many of the nearest neighbours
            are the same.
        output: The output to evaluate, as in `embed`; by default the classes, or the features of a file without classes.
        k: The number of nearest neighbours, 10 by default; for features only.
        column: The column of paths in a table.
        label_column: The column of labels in a table, `label` by default.
        workers: The number of images that are prepared and run at the same time, each with one thread; one for each core by
            default.
        batch: The number of images that are run at once; 8 by default. With int8-dynamic files, results depend on it.
        fast_crop: Resize only what the crop keeps, as in `predict`, which takes less time.
        time_limit: Seconds that opening a file, or one batch, may take, by default 15, and more by the size of the file.
        memory_limit: GB that each worker's child process may use, by default as in `open`.
        engine: `local` or `ray`, as in `embed`.
        address: The address of the Ray cluster, as in `embed`.
        labels: Names of the classes, as in `load`, for files that have none; for both files.
        preprocess: How images are prepared, as in `load`; for both files.
        **facts: `problem_type`, as in `load`, if a file does not state it.

    Raises:
        InputError: There are no images, images have no class, classes have no such name, or the two files are of different
            kinds.
        RefusedContent: A file cannot be run, or no image can be measured. Single images that cannot be read are `failures`
            of the result.
        Stopped: A file reached a limit, or onnxruntime crashed.
    """
    facts |= {"labels": labels, "preprocess": preprocess}
    run_on = engine_of(engine, address, workers)
    listed = Images.listed(images, column, label_column)
    settings = {"batch": batch, "fast_crop": fast_crop, "time_limit": time_limit, "memory_limit": memory_limit}
    this = Subject.of(artifact, output, facts, settings)
    other = None if against is None else Subject.of(against, output, facts, settings)
    this, other = this.with_labels_of(other), None if other is None else other.with_labels_of(this)
    if other is not None and this.kind != other.kind:
        cause = f"{this.path.name} is evaluated as {this.kind}, {other.path.name} as {other.kind}"
        raise InputError(cause, hint=SAME)
    task = _task(this, listed, k, labelled=other is None)
    subjects, tasks = [this], [task]
    if other is not None:
        subjects.append(other)
        tasks.append(_task(other, listed, k, labelled=False))
    with closing(run_on):
        outcomes = [_run(subject, listed.refs, its, run_on) for subject, its in zip(subjects, tasks, strict=True)]
    if other is None:
        (outcome,) = outcomes
        return _evaluation(this, task, outcome, _scores(task, outcome, listed))
    scores = [_scores(its, outcome, listed) for its, outcome in zip(tasks, outcomes, strict=True)]
    return _compared(subjects, tasks, outcomes, scores)


def _task(subject: Subject, images: Images, k: int | None, *, labelled: bool) -> Task:
    """Return what is measured. `labelled`: whether features need classes, which a comparison of two files does not."""
    config = subject.config
    if config is None:
        return _neighbours(images, K if k is None else k, labelled=labelled)
    if k is not None:
        raise InputError("k applies to features, and the file gives classes", where=subject.path, options=[Option("k", str(k))])
    labels = [label_of(config, i) for i in range(config.classes)]
    if subject.kind == "regression":
        return Values(
            _numbers(images, config.classes), [f"output {i}" for i in range(config.classes)] if config.labels is None else labels
        )
    where = {"source": images.source, "file": subject.path.name}
    if subject.kind == "multi-label":
        return SeveralClasses(_several(images, config, where), labels, activated=subject.activated)
    names = images.labels()
    numbers = class_numbers(names, config, **where)
    if len(set(numbers.values())) == 1:
        notice(f"{images.source}: all images are of one class, {shown(names[0])}: the accuracy is the recall of that class")
    return OneClass(np.array([numbers[name] for name in names]), labels, activated=subject.activated)


def _neighbours(images: Images, k: int, *, labelled: bool) -> Task:
    """Return the task of features; without classes, only the neighbours by two files are compared."""
    _check_k(len(images.refs), k)
    if not labelled and not any(ref.label for ref in images.refs):
        return Neighbours(np.full(len(images.refs), -1), (), k=k)
    names = images.labels()
    classes = sorted(set(names))
    if len(classes) == 1:
        if labelled:
            raise InputError(f"all images are of one class, {shown(classes[0])}; neighbours need two", where=images.source)
        return Neighbours(np.full(len(names), -1), (), k=k)
    return Neighbours(np.searchsorted(classes, names), classes, k=k)


def _check_k(count: int, k: int) -> None:
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}", options=[Option("k", str(k))])
    if count < fewest_images(k):
        smaller = Option("k", str(max(1, (count - 1) // 2)))
        hint = f"{smaller}, or more images" if count >= fewest_images(1) else None
        cause = f"{count} images are too few for {k} nearest neighbours: at least {fewest_images(k)} are needed"
        raise InputError(cause, hint=hint, options=[smaller])


def _several(images: Images, config: ModelConfig, where: Mapping[str, Any]) -> Array:
    """Return which classes apply to each image: n c. The label of a table has none, one, or several with `;` between them."""
    if not images.tables:
        cause = "several classes can apply to an image, or none, so that its folder does not tell them"
        raise InputError(cause, where=images.source, hint=f"name a table whose column '{LABEL}' has labels such as a{AND}b")
    names = [[name.strip() for name in (ref.label or "").split(AND) if name.strip()] for ref in images.refs]
    numbers = class_numbers({name for row in names for name in row}, config, **where)
    applies = np.zeros((len(names), config.classes), dtype=bool)
    for i, row in enumerate(names):
        applies[i, [numbers[name] for name in row]] = True
    return applies


def _numbers(images: Images, count: int) -> Array:
    """Return the values of each image: n c. Raises InputError for labels that are not so many numbers."""
    rows = []
    for ref, label in zip(images.refs, images.labels(), strict=True):
        try:
            row = [float(text) for text in label.split(AND)]
        except ValueError:
            row = []
        if len(row) != count or not np.isfinite(row).all():
            wanted = "a number" if count == 1 else f"{count} numbers with '{AND}' between them"
            raise InputError(
                f"the label of {ref.name} is {shown(label)}; the model is a regression: expected {wanted}", where=images.source
            )
        rows.append(row)
    return np.array(rows)


def _run(subject: Subject, refs: Sequence[ImageRef], task: Task, engine: Engine) -> Outcome:
    """Run a file on all images. Raises RefusedContent if none can be measured."""
    (feature,) = subject.options.features
    at: list[int] = []
    kept: list[Array] = []
    failures: list[Failure] = []
    size = chunk_size(len(refs))
    results = engine(chunks(refs, size), subject.options.open)
    with step(f"evaluating {subject.path.name}", len(refs), "images") as progress, closing(results):
        for rows in results:
            positions = range(rows.number * size, min((rows.number + 1) * size, len(refs)))
            measured = np.array(_positions(refs, positions, rows.images), dtype=int)
            failures += [Failure(path=name, reason=reason) for name, reason in rows.failures]
            if len(measured):
                task.check(rows.values[feature.name], subject.path)
                kept.append(task.reduce(rows.values[feature.name], measured))
                at += measured.tolist()
            progress.advance(len(positions))
    if not at:
        raise RefusedContent(
            f"none of {len(refs):,} images could be measured; {failures[0].path}: {failures[0].reason}", where=subject.path
        )
    return Outcome(np.array(at), np.concatenate(kept), tuple(failures))


def _positions(refs: Sequence[ImageRef], positions: Iterable[int], images: Iterable[ImageRef]) -> list[int]:
    """Return where images are in the list: they are in its order, but some may be missing."""
    rest = iter(positions)
    return [next(i for i in rest if refs[i] == image) for image in images]


def _scores(task: Task, outcome: Outcome, images: Images) -> Scores:
    if isinstance(task, Neighbours):
        _check_k(len(outcome.at), task.k)
    return task.scores(outcome.kept, outcome.at, [images.refs[i].name for i in outcome.at])


def _evaluation(subject: Subject, task: Task, outcome: Outcome, scores: Scores, **more: Any) -> Evaluation:
    fields = {"file": str(subject.path), "kind": task.kind, "images": len(outcome.at), "failures": outcome.failures}
    return Evaluation(**{**fields, "table": scores.table, **scores.fields, **more})


def _compared(
    subjects: Sequence[Subject], tasks: Sequence[Task], outcomes: Sequence[Outcome], scores: Sequence[Scores]
) -> Evaluation:
    """Return the evaluation of the first of two files, with its difference from the second on the images that both could read."""
    other = _evaluation(subjects[1], tasks[1], outcomes[1], scores[1])
    here, there = outcomes[0].common(outcomes[1])
    if not len(here):
        raise RefusedContent("no image could be measured with both files", where=subjects[0].path)
    more: dict[str, Any] = {"against": other}
    this, that = scores
    if this.correct is not None and that.correct is not None:
        same = np.array([this.predicted[i] == that.predicted[j] for i, j in zip(here, there, strict=True)])
        more["difference"] = Difference.of_images(this.correct[here], that.correct[there], same)
    shares = None
    if isinstance(tasks[0], Neighbours):
        _check_k(len(here), tasks[0].k)
        shares = shared_neighbours(outcomes[0].kept[here], outcomes[1].kept[there], tasks[0].k)
        more["shared_neighbours"] = SharedNeighbours(k=tasks[0].k, share=float(shares.mean()))
    more["table"] = _joined(this.table, that.table, here, there, shares)
    return _evaluation(subjects[0], tasks[0], outcomes[0], this, **more)


def _joined(this: Table, other: Table, here: Array, there: Array, shares: Array | None) -> Table:
    """Return a table with the columns of two files, for the images of the first."""
    added = [name for name in other.columns if name not in ("path", LABEL)]
    at = dict(zip(here.tolist(), there.tolist(), strict=True))
    columns = [*this.columns, *(f"against_{name}" for name in added), *(["shared_neighbours"] if shares is not None else [])]
    from_other = [other.columns.index(name) for name in added]
    share_of = {} if shares is None else dict(zip(here.tolist(), shares.tolist(), strict=True))
    rows = []
    for i, row in enumerate(this.rows):
        more = [other.rows[at[i]][j] if i in at else None for j in from_other]
        rows.append((*row, *more, *([share_of.get(i)] if shares is not None else [])))
    return Table(tuple(columns), tuple(rows))
