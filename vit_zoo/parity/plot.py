"""Plot of a parity report: measured and allowed error after each block."""

from __future__ import annotations

from pathlib import Path

from vit_zoo.errors import InputError, MissingDependency
from vit_zoo.files import Staged
from vit_zoo.files.atomic import check_target
from vit_zoo.parity.report import ParityReport

SUFFIXES = {".png": {"Software": None}, ".svg": {"Date": None}}  # metadata of matplotlib that would change the bytes


def check_plot(path: Path) -> None:
    """Check that a plot can be written, before any work is done.

    Raises InputError for an unknown suffix or folder, CannotWrite, and MissingDependency without matplotlib.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"the name of a plot must end in {' or '.join(SUFFIXES)}", where=path)
    try:
        import matplotlib as _  # noqa: F401, ICN001
    except ImportError:
        raise MissingDependency("plots need matplotlib", hint="pip install matplotlib") from None
    check_target(path)


def draw(report: ParityReport, path: Path) -> None:
    """Write the plot. Raises InputError if the report has no errors of blocks, and CannotWrite."""
    check_plot(path)
    if not report.blocks:
        raise InputError("nothing to plot: the report has no errors of blocks, as inner values could not be compared", where=path)
    from matplotlib.figure import Figure

    numbers = [b.block for b in report.blocks]
    figure = Figure(figsize=(max(5.0, 0.3 * len(numbers) + 2), 3.4), layout="constrained")
    axes = figure.subplots()
    measured = [(b.block, max(b.relative, 1e-9)) for b in report.blocks if b.relative is not None]
    axes.plot(numbers, [b.allowed for b in report.blocks], color="#b0b0b0", linestyle="--", label="allowed")
    axes.plot(*zip(*measured, strict=True), color="#0b6e99", marker="o", markersize=4, label="measured") if measured else None
    if report.parting is not None and report.parting.block is not None:
        axes.axvline(report.parting.block, color="#c0392b", linewidth=1, label=f"first divergence: {report.parting.place}")
    axes.set(
        xlabel="block", ylabel="largest relative difference", yscale="log", title=f"{report.file} against {report.reference}"
    )
    axes.set_xticks(numbers)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with Staged(path) as staged:
        staged.write(lambda file: figure.savefig(file, format=path.suffix[1:], metadata=SUFFIXES[path.suffix]))
        staged.commit()
