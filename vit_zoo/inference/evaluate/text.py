"""Text of an evaluation for the terminal: the result in a sentence, then the figures behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from vit_zoo.inference.evaluate.result import decimals_for, percent

if TYPE_CHECKING:
    from vit_zoo.inference.evaluate.result import ClassResult, Difference, Evaluation, Share

CLASSES, FAILURES = 20, 5  # that are listed
NAMES = {"classification": "top-1", "neighbours": "accuracy", "multi-label": "all labels right"}


def text_of(done: Evaluation) -> str:
    """Return the text of an evaluation."""
    files = [done] if done.against is None else [done, done.against]
    parts = ["\n".join(_sentences(done, files))]
    figures = [] if done.against is None else list(_figures(files))
    if figures:
        parts.append(_aligned([("", *(_short(each, files) for each in files)), *figures]))
    if done.classes:
        parts.append(_class_table(done))
    if done.confusions:
        pairs = [f"{each.label} -> {each.predicted} ({each.images})" for each in done.confusions]
        whose = "" if done.against is None else f" of {_short(done, files)}"
        parts.append(f"most frequent confusions{whose}: {', '.join(pairs)}")
    if done.values:
        parts.append(_value_table(done))
    parts += [_failures(each, _short(each, files)) for each in files if each.failures]
    return "\n\n".join(parts)


def _short(done: Evaluation, files: Sequence[Evaluation]) -> str:
    """Return the name of a file, with its folder where two have the same name."""
    names = [PurePath(each.file).name for each in files]
    return done.file if len(set(names)) < len(names) else PurePath(done.file).name


def _sentences(done: Evaluation, files: Sequence[Evaluation]) -> Iterator[str]:
    this, other = _short(done, files), _short(files[-1], files)
    classes = sum(each.images > 0 for each in done.classes)
    images = _counted(done.images, "image")
    images += f" of {_counted(classes, 'class')}" if classes and done.kind != "multi-label" else ""
    if done.accuracy is not None:
        yield f"{this}: {_accuracy(done, done.accuracy, other)}"
    elif done.values:
        errors = ", ".join(f"{each.label} {each.mean_absolute_error:.4g}" for each in done.values)
        yield f"{this}: mean absolute error {errors}"
    if done.shared_neighbours is not None:
        near = done.shared_neighbours
        yield f"{this}: of the {near.k} nearest neighbours of an image {percent(near.share)} are those of {other}, on average"
    if done.against is None:
        yield from _more(done)
    yield f"on {images}" + (", with 95 % intervals" if done.accuracy is not None else "")


def _accuracy(done: Evaluation, accuracy: Share, other: str) -> str:
    name = NAMES[done.kind]
    if done.difference is None:
        return f"{name} {accuracy}" + ("" if done.k is None else f" by {done.k} nearest neighbours")
    return f"{name} {percent(accuracy.share, decimals_for(accuracy.of))}, {_difference(done.difference, other)}"


def _difference(measured: Difference, other: str) -> str:
    decimals = decimals_for(measured.images)
    points, low, high = (f"{100 * x:.{decimals}f}" for x in (abs(measured.difference), measured.low, measured.high))
    side = "more" if measured.difference > 0 else "less"
    much = f"{points} points {side} than" if measured.only_this != measured.only_other else "as much as"
    return f"{much} {other} (95 % interval {low} to {high}, McNemar p {_p(measured.p)})"


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else "= 1" if p > 0.995 else f"= {p:.2g}".replace("0.", ".")


def _more(done: Evaluation) -> Iterator[str]:
    """Yield the other figures of one file."""
    if done.top5 is not None:
        yield f"top-5 {done.top5}"
    if done.mean_average_precision is not None:
        yield f"mean average precision {percent(done.mean_average_precision)}"
    if done.calibration is not None:
        bins = done.calibration.bins
        confidence = sum(each.images * each.confidence for each in bins) / done.images
        yield f"expected calibration error {percent(done.calibration.error)} (mean confidence {percent(confidence)}, 15 bins)"


def _figures(files: Sequence[Evaluation]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table with one column for each of two files."""
    this = files[0]
    if this.accuracy is not None:
        yield NAMES[this.kind], *(str(each.accuracy) for each in files)
    if this.top5 is not None:
        yield "top-5", *(str(each.top5) for each in files)
    if this.mean_average_precision is not None:
        yield "mean average precision", *(percent(each.mean_average_precision or 0) for each in files)
    if this.calibration is not None:
        yield "calibration error", *(percent(each.calibration.error) for each in files if each.calibration is not None)
    if this.difference is not None:
        yield "right alone", *(_counted(n, "image") for n in (this.difference.only_this, this.difference.only_other))
        yield "same prediction", percent(this.difference.same, decimals_for(this.images)), ""
    for i, value in enumerate(this.values):
        yield f"mean absolute error, {value.label}", *(f"{each.values[i].mean_absolute_error:.4g}" for each in files)


def _class_table(done: Evaluation) -> str:
    several = done.kind == "multi-label"
    listed, head = list(done.classes), "class"
    if len(listed) > CLASSES:
        listed = sorted((each for each in listed if each.images), key=lambda each: (each.recall or 0, -each.images))[:CLASSES]
        head = f"class ({CLASSES} of lowest recall)"
    names = (head, "images", "recall", "precision", *(("average precision",) if several else ()))
    return _aligned([names, *(_class_row(each, several=several) for each in listed)])


def _class_row(row: ClassResult, *, several: bool) -> tuple[str, ...]:
    shares = [row.recall, row.precision, *([row.average_precision] if several else [])]
    return row.label, f"{row.images:,}", *("-" if share is None else percent(share) for share in shares)


def _value_table(done: Evaluation) -> str:
    rows = [
        (
            each.label, f"{each.mean_absolute_error:.4g}", f"{each.root_mean_squared_error:.4g}",
            "-" if each.r_squared is None else f"{each.r_squared:.4f}",
        )
        for each in done.values
    ]  # fmt: skip
    return _aligned([("value", "mean absolute error", "root mean squared error", "R2"), *rows])


def _failures(done: Evaluation, name: str) -> str:
    listed = [f"  {each.path}: {each.reason}" for each in done.failures[:FAILURES]]
    more = len(done.failures) - len(listed)
    count = f"{_counted(len(done.failures), 'image')} not measured with {name}:"
    return "\n".join([count, *listed, *([f"  and {more:,} more, which --json lists"] if more else [])])


def _counted(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as columns; all but the first are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
