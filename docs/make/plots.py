"""Page of benchmark results, made from the JSON that each script in `benchmarks/` wrote in its last run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from svg import ACCENT, INK, LINE, OTHER, picture, rect, text

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
LEFT, BAR, ROW = 500, 280, 30
INTRODUCTION = """# Benchmarks

<!-- made by docs/make from benchmarks/results -->

Each claim about speed or memory comes from a script in `benchmarks/`, which measures vitzoo and a peer in the same run and
reports whether the goal is met. This page shows the results of their last runs, each on the machine that is named. On another
machine the times differ, but the ratios should differ little. The bar is the measured value and the mark is the goal; a bar in
the second colour missed it.

"""


def pictures() -> dict[str, str]:
    pictures_by_path: dict[str, str] = {}
    parts = [INTRODUCTION]
    for file in sorted(RESULTS.glob("*.json")):
        result = json.loads(file.read_text())
        if "claims" not in result:
            continue
        pictures_by_path[f"benchmarks/{file.stem}.svg"] = _bars(result)
        parts.append(_section(file.stem, result))
    return {**pictures_by_path, "benchmarks/index.md": "\n".join(parts)}


def _section(name: str, result: dict[str, Any]) -> str:
    m = result["machine"]
    versions = ", ".join(f"{key} {value}" for key, value in m["versions"].items() if key in ("torch", "onnxruntime", "timm"))
    lines = [f"## {result['title']}", f"![Values measured by {name}.py, and its goals]({name}.svg)"]
    rows = [
        (c["name"], f"{c['value']:.3g}{c['unit']}", f"{c['side']} {c['line']:g}{c['unit']}", "met" if c["met"] else "**missed**")
        for c in result["claims"]
    ]
    head = ("what", "measured", "goal", "")
    table = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    lines.append("\n".join([table[0], "|---|---|---|---|", *table[1:]]))
    lines.append(f"`benchmarks/{name}.py`, {result['rounds']} rounds, {m['cpus']} cores of {m['cpu']}, {versions}.")
    return "\n\n".join(lines) + "\n"


def _bars(result: dict[str, Any]) -> str:
    """Draw each claim as a bar, scaled so that the goal is at the same place in every row."""
    claims = result["claims"]
    parts = []
    goal = LEFT + BAR * 0.6
    for index, claim in enumerate(claims):
        y = index * ROW
        share = min(1.0, 0.6 * claim["value"] / claim["line"]) if claim["line"] else 0.0
        parts.append(text(LEFT - 12, y + 17, claim["name"][:82], anchor="end", size=12))
        parts.append(rect(LEFT, y + 5, BAR * share, 16, fill=ACCENT if claim["met"] else OTHER, opacity=0.85))
        parts.append(text(LEFT + BAR + 10, y + 17, f"{claim['value']:.3g}{claim['unit']}", size=12, colour=INK))
        parts.append(rect(goal, y + 1, 1.5, 24, fill=LINE))
    return picture(LEFT + BAR + 90, max(1, len(claims)) * ROW, f"{result['title']}: measured values and their goals", parts)
