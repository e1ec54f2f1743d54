"""Parity report: the result of a check, as JSON in `FILE.parity.json` and as text for people."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from vit_zoo.errors import InputError, printable
from vit_zoo.files import read_json
from vit_zoo.formats.artifact import report_path
from vit_zoo.parity.ort_profile import Operator
from vit_zoo.parity.preprocess_check import Preparation
from vit_zoo.parity.saturation import IntegerProducts
from vit_zoo.parity.tolerance import Agreement, Comparison, Judgement

Effort = Literal["quick", "default", "full"]
LONGEST = 10_000  # characters of a text, and items of a list, in a report that is read
EFFORTS = ("quick", "default", "full")


def checked_effort(effort: str | None) -> None:
    """Raise InputError for an effort that does not exist; None stands for no check at all."""
    if effort not in (None, *EFFORTS):
        raise InputError(f"effort {effort!r}: quick, default or full")


class BlockError(BaseModel):
    """Relative difference of a block's output from the reference, and its limit. `relative` is null if it was not found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: int
    relative: float | None
    allowed: float


class Divergence(BaseModel):
    """First place where the file and the model differ, with the last place before it that agrees."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: int | None  # index of the encoder block, from 0; null before and after the blocks
    place: str  # path in the model's state dict
    operator: str | None  # name or index of the operator in the graph
    after: str | None  # last place that agrees
    reason: str


class ParityReport(BaseModel):
    """Result of a parity check: whether a file computes its model, and the evidence.

    `verdict` is `parity` for fp32, fp16 and bf16 within their tolerances, `approximate` for a quantised file within its
    limits, and `failed` for anything else. `sha256` is the hash of the file that was checked. `skipped` lists what was not
    checked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = 2
    ok: bool
    verdict: Literal["parity", "approximate", "failed"]
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    effort: Effort
    file: str
    sha256: str | None  # null if a model in memory was checked
    data_sha256: str | None
    reference: str
    comparisons: tuple[Comparison, ...]
    agreements: tuple[Agreement, ...]
    judgement: Judgement | None = None  # results on real images, for int8 exports with a required agreement or accuracy
    preparation: Preparation | None = None  # for files with preprocessing inside
    headroom: float | None = None  # factor by which the largest float16 value could grow
    integer_products: IntegerProducts | None = None  # for quantised files
    warnings: tuple[str, ...] = ()  # for other tools' files: what can go wrong on other machines than this one
    fusion: tuple[Operator, ...] = ()  # operators that onnxruntime runs, with effort `full`
    blocks: tuple[BlockError, ...]
    parting: Divergence | None
    faults: tuple[str, ...]
    skipped: tuple[str, ...]
    tolerance: dict[str, dict[str, float] | float]
    machine: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def read(cls, document: object) -> Self:
        """Return the report in a JSON document. Raises ValueError for one of another version, and for values beyond limits."""
        report = cls.model_validate(document)
        _check_values(report.model_dump())
        if any(c.allowed <= 0 for c in report.comparisons):
            raise ValueError("a comparison allows no difference at all")
        if report.ok and not (report.comparisons or report.agreements):
            raise ValueError("nothing was compared")
        return report

    def dumps(self) -> str:
        """Return the report as JSON."""
        return self.model_dump_json(indent=2) + "\n"

    def replaces(self, known: ParityReport | None, *, against_itself: bool) -> bool:
        """Return whether this report should replace the existing one of the same file.

        `against_itself` means that the file was checked against its own spec and weights. A passing report on the same bytes
        is replaced only by a passing one of the same or greater effort, or by a failed check of the file against itself.
        """
        if known is None or not known.ok or known.sha256 != self.sha256:
            return True
        if not self.ok:
            return against_itself
        return not against_itself and EFFORTS.index(self.effort) >= EFFORTS.index(known.effort)

    def summary(self) -> str:
        """Return the result in one line for people."""
        if self.faults:
            where = "" if self.parting is None else f"; first divergence: {self.parting.place}"
            return self.faults[0] + where
        if self.verdict == "approximate" and self.agreements:
            least = min(self.agreements, key=lambda a: a.decibels or 0)
            real = "" if self.judgement is None else f"; {self.judgement}"
            integers = "" if self.integer_products is None else f"; {self.integer_products}"
            return f"{least.output} over {least.images} images: {least}{real}{integers}"
        if not self.comparisons:
            return "nothing was compared"
        worst = max(self.comparisons, key=lambda c: math.inf if c.relative is None else c.relative)
        floors = [c.floor for c in self.comparisons if c.floor is not None] if worst.floor is None else [worst.floor]
        floor = f" (float32 rounding in torch: {max(floors):.1e})" if floors else ""
        optimiser = f"optimiser {'on' if worst.optimised else 'off'}"
        where = f"{worst.output} at batch {worst.batch}, image '{worst.worst_input}', {optimiser}"
        headroom = "" if self.headroom is None else f"; float16 values could grow {self.headroom:,.0f} times"
        pixels = "" if self.preparation is None else f"; {self.preparation}"
        return f"largest relative difference {_number(worst.relative)}{floor}: {where}{headroom}{pixels}"

    def __repr__(self) -> str:
        return printable(f"<ParityReport {self.file}: {self.verdict}{self._figures()}>")

    __str__ = __repr__

    def _figures(self) -> str:
        """Return the first fault, or the figure that comes nearest to its limit with this limit."""
        if self.faults:
            return f", {self.faults[0]}"
        if self.agreements and self.verdict == "approximate":
            return f", {min(self.agreements, key=lambda a: a.decibels or 0)}"
        if not self.comparisons:
            return ""
        worst = max(self.comparisons, key=lambda c: (c.relative or 0) / c.allowed)
        return f", relative difference {_number(worst.relative)}, allowed {_number(worst.allowed)}"

    def _repr_html_(self) -> str:
        """Return the verdict and the table of comparisons for a notebook."""
        head, *rows = [[escape(printable(cell)) for cell in row] for row in self.table()]
        cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        line = escape(printable(f"{self.file}: {self.verdict}, {self.summary()}"))
        return f"<p>{line}</p><table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{cells}</table>"

    def table(self) -> list[tuple[str, ...]]:
        """Return the comparisons as rows of text, the head first."""
        head = "output", "batch", "optimiser", "worst image", "max abs", "relative", "allowed", "1-cosine", "top-1", ""
        rows: list[tuple[str, ...]] = [head]
        one_size = len({c.size for c in self.comparisons}) == 1
        for c in self.comparisons:
            size = "x".join(map(str, c.size))
            batch = f"{c.batch}" if one_size else f"{c.batch} of {size}"
            numbers = (_number(c.max_abs), _number(c.relative), _number(c.allowed), _number(c.angle))
            top = "" if c.top1 is None else f"{100 * c.top1:.0f} %"
            on = "on" if c.optimised else "off"
            rows.append((c.output, batch, on, c.worst_input, *numbers, top, "" if c.ok else "FAILED"))
        return rows


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def _check_values(value: Any) -> None:
    """Raise ValueError for texts, lists and numbers that no check writes, which would fill the memory when shown."""
    if isinstance(value, dict | list | tuple):
        if len(value) > LONGEST:
            raise ValueError(f"a list of {len(value):,}")
        for each in value.values() if isinstance(value, dict) else value:
            _check_values(each)
    elif isinstance(value, str):
        if len(value) > LONGEST:
            raise ValueError(f"a text of {len(value):,} characters")
    elif isinstance(value, int | float) and not abs(value) < 2**63:
        raise ValueError("a number beyond 64 bits")


def read_report(artifact: Path) -> ParityReport | None:
    """Return the report next to an exported file, or None if there is none that this version can read."""
    path = report_path(artifact)
    if not path.is_file():
        return None
    try:
        return ParityReport.read(read_json(path))
    except ValueError:  # a report of another version, or a damaged one, counts for nothing
        return None


def schema() -> str:
    """Return the JSON Schema of a report."""
    return json.dumps(ParityReport.model_json_schema(), indent=2) + "\n"
