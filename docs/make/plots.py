"""Pages of benchmark results, made from the JSON that each script in `benchmarks/` wrote in its last run.

One page has charts of times and memory, the other the goals and whether they are met.
"""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svg import ACCENT, INK, TEXT, line, picture, rect, text

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
MB_OF_MIB = 2**20 / 1e6
WIDTH, LEFT, RIGHT, TOP, ROW, BAR, AXIS = 380, 2, 64, 34, 42, 16, 28  # of a chart; a phone shows it in nearly this size
LABEL = 52  # characters that fit above a bar
OURS = ("vitzoo", "vit_zoo")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One column of a script's rows as horizontal bars."""

    title: str
    column: str
    unit: str
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Section:
    """Charts of one script's rows, side by side. `rows` selects them; its group is the label of the bar."""

    title: str
    script: str
    about: str
    charts: tuple[Chart, ...]
    rows: str = "(.*)"


BATCHES = (
    Chart(title="Time, one image", column="batch 1 ms", unit="ms"),
    Chart(title="Time, 8 images", column="batch 8 ms", unit="ms"),
)
SECTIONS = (
    Section(
        title="Export ViT-B/16 to ONNX",
        script="export",
        about="The complete process, without the parity check: `vitzoo export` against timm's model and `torch.onnx.export`. "
        "`--shared` writes only the graph, which points into the checkpoint.",
        charts=(
            Chart(title="Time", column="median ms", unit="ms"),
            Chart(title="Peak memory", column="peak MiB", unit="MB", factor=MB_OF_MIB),
        ),
    ),
    Section(
        title="Run ViT-B/16 in float32",
        script="latency",
        about="The same weights, exported by each library and run by onnxruntime on two threads.",
        charts=BATCHES,
        rows=r"vit_b16, ((?!.*(?:int8|quantize|eager|openvino)).*)",
    ),
    Section(
        title="Run ViT-B/16 in int8",
        script="latency",
        about="Our int8 files against onnxruntime's own quantisation of timm's file, on a CPU with VNNI.",
        charts=BATCHES,
        rows=r"vit_b16, ((?=.*(?:int8|quantize))(?!.*openvino).*)",
    ),
    Section(
        title="Load ViT-B/16",
        script="load",
        about="From a folder on disk to a model, without the imports.",
        charts=(
            Chart(title="Time", column="first ms", unit="ms"),
            Chart(title="Memory", column="growth MiB", unit="MB", factor=MB_OF_MIB),
        ),
        rows="(?!limit)(.*), vit_b16",
    ),
    Section(
        title="Verify an exported ViT-B/16",
        script="verify",
        about="`vitzoo verify` at each level, without the imports; `vitzoo export` runs the default one.",
        charts=(
            Chart(title="Time", column="check s", unit="s"),
            Chart(title="Memory", column="memory MiB", unit="MB", factor=MB_OF_MIB),
        ),
    ),
    Section(
        title="Start",
        script="startup",
        about="The complete process of `vitzoo list`, with those of Python and of the library for command lines alone.",
        charts=(Chart(title="Time", column="median ms", unit="ms"),),
    ),
)
INTRODUCTION = """# Benchmarks

<!-- made by docs/make from benchmarks/results -->

Times and memory of vitzoo and of other libraries, measured alternately in the same run by the scripts in `benchmarks/`. Each
section names the machine of its last run. On another machine the times differ, but the ratios should differ little. The goals of
the project, and which of them are missed, are on [a page for contributors](goals.md).
"""
GOALS = """# Benchmark goals

<!-- made by docs/make from benchmarks/results -->

Each claim about speed, memory or precision has a goal, which its script in `benchmarks/` tests: it measures vitzoo and a peer in
the same run, and exits with 1 if a goal is missed. [Benchmarks](index.md) shows the measured times and memory.
"""


def pages() -> dict[str, str]:
    goals = [_goals(file.stem) for file in sorted(RESULTS.glob("*.json")) if "claims" in _result(file.stem)]
    return {
        "benchmarks/index.md": "\n".join([INTRODUCTION, *(_section(section) for section in SECTIONS)]),
        "benchmarks/goals.md": "\n".join([GOALS, *goals]),
    }


@functools.cache
def _result(script: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RESULTS / f"{script}.json").read_text())
    return result


def _section(section: Section) -> str:
    """Return the charts, and a table with all of their values."""
    measured = [row for row in _result(section.script)["rows"] if all(chart.column in row for chart in section.charts)]
    rows = {match[1]: row for row in measured if (match := re.fullmatch(section.rows, row[""]))}
    charts = "\n".join(_bars(chart, section.title, rows) for chart in section.charts)
    head = ("", *(f"{chart.title.lower()}, {chart.unit}" for chart in section.charts))
    table = [(label, *(_number(_value(chart, row)) for chart in section.charts)) for label, row in rows.items()]
    parts = [f"## {section.title}", section.about, f'<div class="charts" markdown="0">\n{charts}\n</div>', _table(head, table)]
    return "\n\n".join([*parts, _origin(section.script)]) + "\n"


def _goals(script: str) -> str:
    result = _result(script)
    rows = []
    for claim in result["claims"]:
        unit, verdict = claim["unit"], "met" if claim["met"] else "**missed**"
        rows.append((claim["name"], f"{claim['value']:.3g}{unit}", f"{claim['side']} {claim['line']:.4g}{unit}", verdict))
    title = result["title"][0].upper() + result["title"][1:]
    return "\n\n".join([f"## {title}", _table(("what", "measured", "goal", ""), rows), _origin(script)]) + "\n"


def _origin(script: str) -> str:
    result = _result(script)
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("onnxruntime", "torch", "timm"))
    return f"`benchmarks/{script}.py`, {result['rounds']} rounds, {machine['cpus']} cores of {machine['cpu']}, {versions}."


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" + "|--:" * (len(head) - 1) + "|", *lines[1:]])


def _value(chart: Chart, row: dict[str, Any]) -> float:
    return chart.factor * float(row[chart.column])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bars(chart: Chart, subject: str, rows: dict[str, dict[str, Any]]) -> str:
    """Draw one bar for each row, its label above it and its value behind it, over an axis that starts at zero."""
    values = {label: _value(chart, row) for label, row in rows.items()}
    step = tick_step(max(values.values()))
    end = step * math.ceil(max(values.values()) / step)
    scale = (WIDTH - LEFT - RIGHT) / end
    bottom = TOP + ROW * len(values)
    parts = [text(LEFT, 16, f"{chart.title}, {chart.unit}", size=14, bold=True, colour=TEXT)]
    for tick in range(round(end / step) + 1):
        x = LEFT + tick * step * scale
        parts.append(line(x, TOP - 6, x, bottom + 4))
        anchor = "start" if tick == 0 else "middle"
        parts.append(text(x, bottom + 20, _number(tick * step), anchor=anchor, size=12, colour=TEXT))
    for index, (label, value) in enumerate(values.items()):
        if len(label) > LABEL:
            raise ValueError(f"benchmarks: {label!r} has {len(label)} characters; {LABEL} fit above a bar")
        y = TOP + ROW * index
        parts.append(text(LEFT + 5, y + 12, label, size=13, colour=TEXT))
        ours = label.startswith(OURS)
        parts.append(rect(LEFT, y + 18, max(1.0, value * scale), BAR, fill=ACCENT if ours else INK))
        parts.append(text(LEFT + value * scale + 6, y + 31, _number(value), size=13, bold=ours, colour=TEXT))
    description = "; ".join(f"{label}: {_number(value)} {chart.unit}" for label, value in values.items())
    return picture(WIDTH, bottom + AXIS, f"{subject}: {chart.title.lower()} in {chart.unit}", parts, description=description)


def tick_step(most: float) -> float:
    """Return the distance between ticks of an axis from zero: 1, 2 or 5 times a power of ten, four at most up to `most`."""
    power = 10.0 ** math.floor(math.log10(most / 2))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * 4 >= most)
