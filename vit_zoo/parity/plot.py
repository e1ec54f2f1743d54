"""A report as a picture: how far the artifact is from the model behind each block, and what is allowed."""

from __future__ import annotations

from pathlib import Path

from vit_zoo.errors import InputError, MissingDependency
from vit_zoo.files import Staged
from vit_zoo.parity.report import ParityReport

SUFFIXES = {".png": {"Software": None}, ".svg": {"Date": None}}  # and what matplotlib would write of itself and of today


def check_picture(path: Path) -> None:
    """Raise before the work for a picture that cannot be drawn: InputError, or MissingDependency without matplotlib."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"a picture ends in {' or '.join(SUFFIXES)}", where=path)
    try:
        import matplotlib as _  # noqa: F401, ICN001
    except ImportError:
        raise MissingDependency("pictures need matplotlib", hint="pip install 'vitzoo[plots]'") from None


def draw(report: ParityReport, path: Path) -> None:
    """Write the picture. Raises InputError if the report has no errors by block, CannotWrite."""
    check_picture(path)
    if not report.blocks:
        raise InputError("the inner values of this file cannot be seen, so there is nothing to draw", where=path)
    from matplotlib.figure import Figure

    numbers = [b.block for b in report.blocks]
    figure = Figure(figsize=(max(5.0, 0.3 * len(numbers) + 2), 3.4), layout="constrained")
    axes = figure.subplots()
    shown = [(b.block, max(b.relative, 1e-9)) for b in report.blocks if b.relative is not None]
    axes.plot(numbers, [b.allowed for b in report.blocks], color="#b0b0b0", linestyle="--", label="allowed")
    axes.plot(*zip(*shown, strict=True), color="#0b6e99", marker="o", markersize=4, label="measured") if shown else None
    if report.parting is not None and report.parting.block is not None:
        axes.axvline(report.parting.block, color="#c0392b", linewidth=1, label=f"part at {report.parting.place}")
    axes.set(
        xlabel="block", ylabel="largest difference, relative", yscale="log", title=f"{report.file} against {report.reference}"
    )
    axes.set_xticks(numbers)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with Staged(path) as staged:
        staged.write(lambda file: figure.savefig(file, format=path.suffix[1:], metadata=SUFFIXES[path.suffix]))
        staged.commit()
