"""Remarks on another tool's ONNX file: it may compute its model, and still not run where files of ours do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vit_zoo.formats.onnx_summary import summarise
from vit_zoo.graph.build import INPUT

CLIENTS = "transformers.js and optimum"


def remarks_on(path: Path, matched: Mapping[str, str]) -> list[str]:
    """Return remarks on a fixed batch, and on names of the input and the outputs that clients of the Hub do not look for.

    `matched` maps the outputs of the file to those of the model.
    """
    summary = summarise(path)
    remarks = []
    if summary.batch_is_fixed:
        remarks.append(f"its batch is fixed: it accepts {summary.batch} image{'s' * (summary.batch != 1)} at a time")
    if [value.name for value in summary.inputs] != [INPUT]:
        names = ", ".join(f"'{value.name}'" for value in summary.inputs)
        remarks.append(f"its input is called {names}; {CLIENTS} expect '{INPUT}'")
    remarks += [
        f"its output '{theirs}' is {ours}; {CLIENTS} expect that name" for theirs, ours in matched.items() if theirs != ours
    ]
    return remarks
