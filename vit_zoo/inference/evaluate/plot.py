"""Picture of an evaluation: the confusion matrix of few classes, and the calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.files import Staged
from vit_zoo.files.image_list import AND
from vit_zoo.parity.plot import SUFFIXES, check_plot

if TYPE_CHECKING:
    from vit_zoo.inference.evaluate.result import Calibration, Evaluation

MOST = 30  # classes of a matrix with their names
WRITTEN = 12  # classes of a matrix with their numbers of images
BLUE, RED, GREY = "#0b6e99", "#c0392b", "#b0b0b0"


def draw(done: Evaluation, path: Path) -> None:
    """Write the picture. Raises CannotWrite."""
    check_plot(path)
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    parts = _parts(done)
    side = max(4.2, 0.3 * len(done.classes) + 1.6) if parts[0] is _matrix else 4.2
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(side + 4.4 * (len(parts) - 1), side + 0.2), layout=layout)
    for axes, part in zip(np.atleast_1d(figure.subplots(1, len(parts))), parts, strict=True):
        part(axes, done)
    with Staged(path) as staged:
        staged.write(lambda file: figure.savefig(file, format=path.suffix[1:], metadata=SUFFIXES[path.suffix]))
        staged.commit()


def _parts(done: Evaluation) -> list[Any]:
    """Return the functions that draw the parts of the picture, side by side."""
    if done.kind == "regression":
        return [_values]
    if not done.classes:
        return [_shares]
    calibration = [] if done.calibration is None else [_calibration]
    matrix = done.kind != "multi-label" and len(done.classes) <= MOST
    return [_matrix if matrix else _classes, *calibration]


def _matrix(axes: Any, done: Evaluation) -> None:
    """Draw the confusion matrix: the share of each class's images that was predicted as each class, with their numbers."""
    names = [each.label for each in done.classes]
    at = {name: i for i, name in enumerate(names)}
    columns = done.table.columns.index("label"), done.table.columns.index("predicted")
    counts = np.zeros((len(names), len(names)), dtype=int)
    for row in done.table.rows:
        counts[at[row[columns[0]]], at[row[columns[1]]]] += 1
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= WRITTEN:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[i, j] > 0.5 else RED if i != j else "black"
                axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color=colour)
    turned = max(map(len, names)) > 3
    axes.set_xticks(range(len(names)), [_cut(name) for name in names], rotation=90 if turned else 0, fontsize=8)
    axes.set_yticks(range(len(names)), [_cut(name) for name in names], fontsize=8)
    axes.set(xlabel="predicted", ylabel="class")
    _title(axes, f"{Path(done.file).name}, {done.accuracy} right")


def _classes(axes: Any, done: Evaluation) -> None:
    """Draw the recall of each class, or its average precision where several can apply, the lowest first."""
    several = done.kind == "multi-label"
    shares = sorted((each.average_precision if several else each.recall) or 0 for each in done.classes if each.images)
    axes.bar(np.arange(len(shares)) + 0.5, shares, 1 if len(shares) > MOST else 0.8, color=BLUE)
    what = "average precision" if several else "recall"
    axes.set(xlim=(0, len(shares)), ylim=(0, 1), xlabel="classes, the lowest first", ylabel=what)
    _title(axes, f"{Path(done.file).name}, {done.accuracy} right")


def _shares(axes: Any, done: Evaluation) -> None:
    """Draw how many images keep which share of their nearest neighbours."""
    assert done.against is not None
    at = done.table.columns.index("shared_neighbours")
    shares = [row[at] for row in done.table.rows if row[at] is not None]
    k = done.k or 1
    axes.hist(shares, bins=(np.arange(k + 2) - 0.5) / k, color=BLUE, edgecolor="white")
    axes.set(xlabel=f"share of the {k} nearest neighbours that stay", ylabel="images")
    _title(axes, f"{Path(done.file).name} and {Path(done.against.file).name}")


def _values(axes: Any, done: Evaluation) -> None:
    """Draw predicted against known values."""
    columns = done.table.columns.index("label"), done.table.columns.index("predicted")
    wanted, values = (np.array([row[at].split(AND) for row in done.table.rows], dtype=float) for at in columns)
    for i, each in enumerate(done.values):
        axes.plot(wanted[:, i], values[:, i], marker="o", markersize=3, linestyle="none", label=each.label)
    ends = [float(wanted.min()), float(wanted.max())]
    axes.plot(ends, ends, color=GREY, linestyle="--")
    axes.set(xlabel="value", ylabel="predicted")
    axes.legend(frameon=False, fontsize=8)
    _title(axes, Path(done.file).name)


def _calibration(axes: Any, done: Evaluation) -> None:
    """Draw the accuracy in each bin of probability; bars below the diagonal are too sure."""
    calibration: Calibration | None = done.calibration
    assert calibration is not None
    for each in calibration.bins:
        width = each.high - each.low
        axes.bar(
            each.low,
            each.accuracy,
            width,
            align="edge",
            color=BLUE,
            edgecolor="white",
            alpha=0.35 + 0.6 * each.images / done.images,
        )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="probability = accuracy")
    points = [(each.confidence, each.accuracy) for each in calibration.bins]
    axes.plot(*zip(*points, strict=True), color=RED, marker="o", markersize=4, linestyle="none", label="mean of a bin")
    title = f"calibration error {100 * calibration.error:.1f} %"
    axes.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="probability of the predicted class", ylabel="accuracy", title=title, aspect="equal"
    )
    axes.title.set_fontsize(10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, fontsize=10)


def _cut(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:22]}..."
