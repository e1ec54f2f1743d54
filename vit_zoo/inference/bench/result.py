"""Result of a benchmark: its rows with their parity, as a table, JSON, CSV or a data frame, and the machine."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from vit_zoo.errors import MissingDependency, printable
from vit_zoo.files import write_text
from vit_zoo.inference.bench.quantiles import CONFIDENCE, quantile

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("vitzoo", "vitzoo-runtime", "torch", "onnxruntime", "openvino", "numpy", "timm", "transformers", "torchvision")
MIB = 2**20
SHARES = {"p50": 0.5, "p95": 0.95}


class Record(BaseModel):
    """A part of the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Record):
    """A figure with its confidence interval; a limit is None where there were too few measurements for it."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float], q: float) -> Interval:
        found = quantile(values, q)
        return cls(value=found.value, low=found.low, high=found.high)


class Parity(Record):
    """Outputs of a row compared with those of `reference`; figures of the worst image or output.

    Attributes:
        ok: Whether they are within the tolerance of the row's precision.
        fault: What is wrong, or None.
        relative: Largest difference relative to the largest value; None for int8.
        allowed: Largest such difference that is allowed for this image.
        decibels: int8 only: ratio of signal to noise.
        angle: int8 only: 1 - cosine.
        top1: Share of the images with the reference's top class; None for features.
    """

    ok: bool
    reference: str
    fault: str | None
    relative: float | None
    allowed: float | None
    decibels: float | None
    angle: float | None
    top1: float | None

    def __str__(self) -> str:
        if not self.ok:
            return "FAILED"
        return f"{self.relative:.1e}" if self.relative is not None else f"{self.decibels:.1f} dB"


class Row(Record):
    """One target in one runtime, precision, batch size and number of threads.

    Times are seconds for a batch, one measurement in each round. They are None for a row with a `fault`: one that cannot be run,
    or whose parity fails.

    Attributes:
        random: Whether the weights are random.
        p50: Median time.
        p95: 95th percentile of the time.
        images_per_second: Images in a second, from the median time.
        ratio: Median of each round's ratio: the time for an image, relative to that of the first row in the same round.
        rounds: Number of measurements.
        peak_bytes: Peak memory of the row's process: the libraries, the model, and running it.
        file_bytes: Size of the files that the process reads; None for a model that is made in memory.
        opening: Seconds to open the model and run it for the first time, which includes compiling it.
        fault: Why there are no times, or None.
    """

    target: str
    runtime: str
    precision: str
    batch: int
    threads: int
    random: bool
    parity: Parity | None
    p50: Interval | None = None
    p95: Interval | None = None
    images_per_second: float | None = None
    ratio: Interval | None = None
    rounds: int = 0
    peak_bytes: int | None = None
    file_bytes: int | None = None
    opening: float | None = None
    fault: str | None = None

    @property
    def ok(self) -> bool:
        return self.fault is None

    def __str__(self) -> str:
        return f"{self.target} {self.runtime} {self.precision} batch {self.batch} threads {self.threads}"


class Machine(Record):
    """The machine of a benchmark."""

    cpu: str
    features: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    system: str
    versions: dict[str, str]

    @classmethod
    def this(cls) -> Machine:
        """Describe this machine."""
        from vit_zoo.parity.cpu import features

        versions = {}
        for name in PACKAGES:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        cpu, found = features() or (platform.processor() or platform.machine(), ())
        memory = None
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(
            cpu=cpu, features=found, cores=usable_cores(), memory_bytes=memory, system=platform.platform(),
            versions={"python": platform.python_version(), **versions},
        )  # fmt: skip

    def __str__(self) -> str:
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 2**30:.0f} GiB"
        special = f" ({', '.join(self.features)})" if self.features else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"machine: {self.cores} cores of {self.cpu}{special}{memory}, {self.system}\nversions: {versions}"


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Bench(Record):
    """Rows measured in turn, in the order in which they were asked for.

    Attributes:
        intervals: How the confidence intervals were computed.
        confidence: Their confidence.
    """

    rows: tuple[Row, ...]
    seconds: float
    machine: Machine
    intervals: Literal["order statistics"] = "order statistics"
    confidence: float = CONFIDENCE

    @property
    def ok(self) -> bool:
        """Whether every row ran and computes what its reference computes."""
        return all(row.ok for row in self.rows)

    @property
    def base(self) -> Row | None:
        """The row that ratios are relative to: the first one that was measured."""
        return next((row for row in self.rows if row.ok), None)

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a data frame, with the columns of the CSV file. Raises MissingDependency without pandas."""
        try:
            import pandas as pd
        except ImportError:
            raise MissingDependency("data frames need pandas", hint="pip install pandas") from None
        return pd.DataFrame([flat(row) for row in self.rows])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as CSV. Raises CannotWrite."""
        text = io.StringIO()
        lines = [flat(row) for row in self.rows]
        writer = csv.DictWriter(text, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        write_text(Path(path), text.getvalue())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the latency of each row against its peak memory and the size of its file, as .png or .svg.

        Raises InputError for another suffix or without a measured row, MissingDependency without matplotlib, and CannotWrite.
        """
        from vit_zoo.inference.bench.plot import draw

        draw(self, Path(path))

    def __repr__(self) -> str:
        failed = sum(not row.ok for row in self.rows)
        return f"<Bench: {len(self.rows)} rows, {failed} failed>"

    def __str__(self) -> str:
        return printable_lines([table_of(self), *notes_on(self), str(self.machine)])


def printable_lines(texts: Sequence[str]) -> str:
    """Return texts with control characters escaped: names come from outside."""
    return "\n".join(printable(line) for text in texts for line in text.split("\n"))


def flat(row: Row) -> dict[str, Any]:
    """Return the cells of a row, with times in milliseconds; None is an empty cell."""
    cells: dict[str, Any] = {
        name: getattr(row, name) for name in ("target", "runtime", "precision", "batch", "threads", "random")
    }
    for name, figure, factor in (("p50_ms", row.p50, 1e3), ("p95_ms", row.p95, 1e3), ("ratio", row.ratio, 1.0)):
        for end in ("value", "low", "high"):
            value = None if figure is None else getattr(figure, end)
            cells[name if end == "value" else f"{name}_{end}"] = None if value is None else value * factor
    parity = row.parity
    cells |= {name: getattr(row, name) for name in ("images_per_second", "rounds", "peak_bytes", "file_bytes", "opening")}
    cells |= {
        f"parity_{name}": None if parity is None else getattr(parity, name)
        for name in ("ok", "reference", "relative", "allowed", "decibels", "angle", "top1")
    }
    return {**cells, "fault": row.fault}


def cells_of(bench: Bench) -> list[tuple[str, ...]]:
    """Return the cells of the table, with the heads of its columns first; a row with a fault has no times."""
    percent = f"{100 * bench.confidence:.0f} % interval"
    heads = (
        "target", "runtime", "precision", "batch", "threads", "p50 ms", percent, "p95 ms", percent, "images/s", "ratio", percent,
        "peak MiB", "file MB", "parity",
    )  # fmt: skip
    return [heads, *(_cells(row) for row in bench.rows)]


def table_of(bench: Bench) -> str:
    """Return the rows as a table of text."""
    lines = cells_of(bench)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    left = {0, 1, 2}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    named = (f"{row.target}*" if row.random else row.target, row.runtime, row.precision, str(row.batch), str(row.threads))
    if not row.ok:
        return (*named, *[""] * 9, "FAILED" if row.parity is not None else "NOT RUN")
    assert row.p50 is not None
    assert row.p95 is not None
    assert row.ratio is not None
    speed = "" if row.images_per_second is None else _number(row.images_per_second)
    peak = "" if row.peak_bytes is None else f"{row.peak_bytes / MIB:.0f}"
    size = "" if row.file_bytes is None else _number(row.file_bytes / 1e6)
    figures = (
        _number(1e3 * row.p50.value), _range(row.p50, 1e3), _number(1e3 * row.p95.value), _range(row.p95, 1e3), speed,
        f"{row.ratio.value:.3f}", _range(row.ratio, 1.0), peak, size,
    )  # fmt: skip
    return (*named, *figures, str(row.parity))


def _range(figure: Interval, factor: float) -> str:
    low, high = ("?" if end is None else _number(factor * end) for end in (figure.low, figure.high))
    return f"{low} to {high}"


def _number(value: float) -> str:
    """Return three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def notes_on(bench: Bench) -> list[str]:
    """Return what the table does not say by itself."""
    rounds = {row.rounds for row in bench.rows if row.ok}
    notes = []
    if rounds:
        notes.append(
            f"{max(rounds)} rounds, every row once in each, in a shuffled order, in {bench.seconds:.0f} s; intervals by order "
            "statistics, ? where there are too few rounds"
        )
    if bench.base is not None:
        notes.append(f"ratio: time for an image, relative to {bench.base}, median of each round's ratio")
        notes.append("parity: largest difference relative to the largest value; of int8, ratio of signal to noise")
    if any(row.random for row in bench.rows):
        notes.append("* RANDOM WEIGHTS")
    return notes + [f"{row}: {'FAILED' if row.parity is not None else 'NOT RUN'}: {row.fault}" for row in bench.rows if row.fault]
