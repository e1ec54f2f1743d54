"""The verdict: a value that is JSON for programs, a table for people, and lies beside its file as `FILE.parity.json`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vit_zoo.errors import InputError
from vit_zoo.files import read_json
from vit_zoo.formats.artifact import report_path
from vit_zoo.parity.ort_profile import Operator
from vit_zoo.parity.preprocess_check import Preparation
from vit_zoo.parity.saturation import IntegerProducts
from vit_zoo.parity.tolerance import Agreement, Comparison, Judgement

Effort = Literal["quick", "default", "full"]
EFFORTS = ("quick", "default", "full")


def checked_effort(effort: str | None) -> None:
    """Raise InputError for an effort that does not exist; None stands for no check at all."""
    if effort not in (None, *EFFORTS):
        raise InputError(f"effort {effort!r}: quick, default or full")


class BlockError(BaseModel):
    """How far a block's output is from the reference, relative, and what is allowed; None: the file does not show it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: int
    relative: float | None
    allowed: float


class Parting(BaseModel):
    """Where the artifact and the model part: the last place that agrees, and the first operator behind it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: int | None  # of the encoder, from 0; None: before the blocks or behind them
    place: str  # in the model, by the state dict's paths
    operator: str | None  # in the graph, by name or index
    after: str | None  # the last place that agrees
    reason: str


class ParityReport(BaseModel):
    """Whether a file computes its model, and the evidence.

    `verdict` is `parity` for fp32, fp16 and bf16 within their rules, `approximate` for a quantised file within its gate,
    `failed` for anything else; `sha256` is of the file that was run. `skipped` says what was not looked at.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[2] = 2
    ok: bool
    verdict: Literal["parity", "approximate", "failed"]
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    effort: Effort
    file: str
    sha256: str | None  # None: not one file but a model
    data_sha256: str | None
    reference: str
    comparisons: tuple[Comparison, ...]
    agreements: tuple[Agreement, ...]
    judgement: Judgement | None = None  # of a quantised file, on real images, where it was asked for
    preparation: Preparation | None = None  # of a file with its preprocessing inside
    headroom: float | None = None  # how many times larger the largest float16 value inside could be
    integer_products: IntegerProducts | None = None  # of a quantised file: are they the same on every CPU?
    warnings: tuple[str, ...] = ()  # of another tool's file, what is wrong elsewhere than on this machine
    fusion: tuple[Operator, ...] = ()  # what onnxruntime runs, where the effort is `full`
    blocks: tuple[BlockError, ...]
    parting: Parting | None
    faults: tuple[str, ...]
    skipped: tuple[str, ...]
    tolerance: dict[str, dict[str, float] | float]
    machine: dict[str, str]
    versions: dict[str, str]

    def dumps(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    def replaces(self, known: ParityReport | None, *, alone: bool) -> bool:
        """Whether it takes the place of the verdict beside the file; `alone`: the file was checked against itself.

        A good verdict on the same bytes stays, unless as much effort confirms it or the file contradicts itself.
        """
        if known is None or not known.ok or known.sha256 != self.sha256:
            return True
        if not self.ok:
            return alone
        return not alone and EFFORTS.index(self.effort) >= EFFORTS.index(known.effort)

    def summary(self) -> str:
        """One line for people."""
        if self.faults:
            where = "" if self.parting is None else f"; they part at {self.parting.place}"
            return self.faults[0] + where
        if self.verdict == "approximate":
            worst = min(self.agreements, key=lambda a: a.decibels or 0)
            real = "" if self.judgement is None else f"; {self.judgement}"
            integers = "" if self.integer_products is None else f"; {self.integer_products}"
            return f"{worst.output} over {worst.images} images: {worst}{real}{integers}"
        worst_ = max(self.comparisons, key=lambda c: math.inf if c.relative is None else c.relative)
        floor = "" if worst_.floor is None else f" (torch's own float32: {worst_.floor:.1e})"
        where = f"{worst_.output} at batch {worst_.batch}, image '{worst_.worst_input}', {_optimiser(worst_.optimised)}"
        room = "" if self.headroom is None else f"; float16 values could grow {self.headroom:,.0f} times"
        pixels = "" if self.preparation is None else f"; {self.preparation}"
        return f"largest difference {worst_.relative:.1e} relative{floor}: {where}{room}{pixels}"

    def table(self) -> list[tuple[str, ...]]:
        """The evidence as rows of text, the head first."""
        head = "output", "batch", "optimiser", "worst image", "max abs", "relative", "allowed", "1-cosine", "top-1", ""
        rows: list[tuple[str, ...]] = [head]
        for c in self.comparisons:
            size = "x".join(map(str, c.size))
            batch = f"{c.batch}" if len({x.size for x in self.comparisons}) == 1 else f"{c.batch} of {size}"
            numbers = (_number(c.max_abs), _number(c.relative), _number(c.allowed), _number(c.angle))
            top = "" if c.top1 is None else f"{100 * c.top1:.0f} %"
            on = "on" if c.optimised else "off"
            rows.append((c.output, batch, on, c.worst_input, *numbers, top, "" if c.ok else "FAILED"))
        return rows


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def _optimiser(on: bool) -> str:
    return f"optimiser {'on' if on else 'off'}"


def read_report(artifact: Path) -> ParityReport | None:
    """The verdict beside an artifact, if there is one that this version can read."""
    path = report_path(artifact)
    if not path.is_file():
        return None
    try:
        return ParityReport.model_validate(read_json(path))
    except (ValidationError, ValueError):  # of another version, or damaged: it counts for nothing
        return None


def schema() -> str:
    """The JSON Schema of a report."""
    return json.dumps(ParityReport.model_json_schema(), indent=2) + "\n"
