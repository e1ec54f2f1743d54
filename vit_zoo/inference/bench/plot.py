"""Scatter plots of a benchmark: latency against peak memory, and against the size of the file."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError
from vit_zoo.files import Staged
from vit_zoo.parity.plot import SUFFIXES, check_plot

if TYPE_CHECKING:
    from vit_zoo.inference.bench.result import Bench, Row

# a colour for each runtime (of Okabe and Ito, which the colour-blind can tell apart), and a marker for each precision
COLOURS = {
    "eager": "#000000", "compile": "#56b4e9", "torchscript": "#e69f00", "pt2": "#cc79a7", "ort": "#0072b2", "openvino": "#009e73",
}  # fmt: skip
MARKERS = {"fp32": "o", "fp16": "s", "bf16": "D", "int8-static": "^", "int8-dynamic": "v", "int8-weights": "<", "int8": "^"}
LONGEST = 28  # characters of a target's name
WIDE = 5  # a larger range of sizes has a logarithmic axis


def draw(bench: Bench, path: Path) -> None:
    """Write the plot; errors are as in `Bench.plot`."""
    check_plot(path)
    rows = [row for row in bench.rows if row.ok]
    if not rows:
        raise InputError("nothing to plot: no row was measured", where=path)
    from matplotlib.figure import Figure

    panels: list[tuple[str, Callable[[Row], float | None]]] = [
        ("peak memory, MiB", lambda row: None if row.peak_bytes is None else row.peak_bytes / 2**20),
        ("size of the file, MB", lambda row: None if row.file_bytes is None else row.file_bytes / 1e6),
    ]
    panels = [(title, of) for title, of in panels if any(of(row) is not None for row in rows)]
    figure = Figure(figsize=(max(5.0, 4.6 * len(panels)), 4.4), layout="constrained")
    all_axes: Any = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axes, (title, of) in zip(all_axes, panels, strict=False):
        for row in rows:
            _mark(axes, row, of(row), _differing(row, rows))
        _name_targets(axes, rows, of)
        sizes = [size for row in rows if (size := of(row)) is not None]
        wide = max(sizes) > WIDE * min(sizes)
        axes.set(xscale="log" if wide else "linear", yscale="log", xlabel=title, ylabel="median time for an image, ms")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(0.15)
        if not wide:
            axes.set_xlim(left=0)
        for axis in (axes.xaxis, axes.yaxis) if wide else (axes.yaxis,):
            _write_plainly(axis)
    _add_legend(figure, rows)
    with Staged(path) as staged:
        staged.write(lambda file: figure.savefig(file, format=path.suffix[1:], metadata=SUFFIXES[path.suffix], dpi=144))
        staged.commit()


def _write_plainly(axis: Any) -> None:
    """Write the numbers of a logarithmic axis as numbers, without powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _differing(row: Row, rows: Sequence[Row]) -> str:
    """Return the batch size and the number of threads of a row, where the rows have several."""
    parts = [f"batch {row.batch}"] if len({each.batch for each in rows}) > 1 else []
    parts += [f"{row.threads} thr."] if len({each.threads for each in rows}) > 1 else []
    return ", ".join(parts)


def _mark(axes: Any, row: Row, size: float | None, label: str) -> None:
    """Draw one row with the confidence interval of its median, as far as it has limits."""
    if size is None or row.p50 is None:
        return
    each = 1e3 / row.batch
    low, high = row.p50.low or row.p50.value, row.p50.high or row.p50.value
    colour = COLOURS[row.runtime]
    axes.plot([size, size], [low * each, high * each], color=colour, linewidth=1, alpha=0.6)
    axes.scatter([size], [row.p50.value * each], color=colour, marker=MARKERS[row.precision], s=36, zorder=3)
    if label:
        axes.annotate(label, (size, row.p50.value * each), (5, 3), textcoords="offset points", fontsize=7, color="#777777")


def _name_targets(axes: Any, rows: Sequence[Row], of: Callable[[Row], float | None]) -> None:
    """Write the name of each target over its rows, where there are several."""
    targets = list(dict.fromkeys(row.target for row in rows))
    for target in targets if len(targets) > 1 else ():
        points = [
            (size, 1e3 * (row.p50.high or row.p50.value) / row.batch)
            for row in rows
            if row.target == target and row.p50 is not None and (size := of(row)) is not None
        ]
        if points:
            middle = statistics.median(x for x, _ in points)
            name = target if len(target) <= LONGEST else f"...{target[-LONGEST:]}"
            axes.annotate(
                name, (middle, max(y for _, y in points)), (0, 6), textcoords="offset points", ha="center", color="#555555",
                fontsize=9, parse_math=False,
            )  # fmt: skip


def _add_legend(figure: Any, rows: list[Row]) -> None:
    """Add a legend of the runtimes, the precisions and what else differs between the rows."""
    from matplotlib.lines import Line2D

    def entry(label: str, colour: str, marker: str, filled: bool = True) -> Line2D:
        face = colour if filled else "none"
        return Line2D([], [], color=colour, marker=marker, linestyle="none", label=label, markerfacecolor=face, markersize=6)

    handles = [entry(name, colour, "o") for name, colour in COLOURS.items() if any(row.runtime == name for row in rows)]
    precisions = {row.precision for row in rows}
    if len(precisions) > 1:
        handles += [entry(name, "#777777", marker) for name, marker in MARKERS.items() if name in precisions]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
