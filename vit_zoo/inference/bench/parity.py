"""Parity of a row: the outputs that its process computes, against the reference of its target, on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from vit_zoo.errors import RefusedContent, Stopped
from vit_zoo.inference.bench.result import Parity

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.inference.bench.process import RowProcess
    from vit_zoo.inference.bench.targets import Subject, Variant
    from vit_zoo.model.preprocess import Preprocess
    from vit_zoo.parity.sessions import Sessions


class Checked:
    """A row's process in the place of the `Sessions` that a check runs. `inside` is its file, if that prepares images itself."""

    def __init__(self, process: RowProcess, batch: int, inside: Sessions | None) -> None:
        self.process, self.batch, self.inside = process, batch, inside

    def get(self, optimised: bool = True) -> RowProcess:
        return self.process

    @property
    def prepares(self) -> Preprocess | None:
        return None if self.inside is None else self.inside.prepares

    @property
    def options(self) -> Any:
        return None if self.inside is None else self.inside.options

    def inner_values(self, names: Sequence[str], images: Array) -> dict[str, Array]:
        assert self.inside is not None
        return self.inside.inner_values(names, images)


def parity_of(process: RowProcess, subject: Subject, variant: Variant, batch: int) -> Parity:
    """Compare the outputs of a row in batches of its size, with the tolerance of its precision.

    An int8 row is measured as an approximation, on crops of photographs, as `verify` does. Raises RefusedContent and Stopped if
    it cannot be run.
    """
    from vit_zoo.parity.plan import PLANS
    from vit_zoo.parity.run import Runs, batches_of
    from vit_zoo.parity.static_checks import Evidence

    prepares = subject.sessions is not None and subject.sessions.prepares is not None
    checked = Checked(process, batch, subject.sessions if prepares else None)
    sessions = cast("Sessions", checked)  # it has what these checks use
    evidence, plan = Evidence(faults=list(subject.faults)), PLANS["default"]
    plan = replace(plan, batches={True: batches_of(batch, plan)[True]})
    runs = Runs(subject.reference, plan, variant.tolerance, subject.names, evidence)
    try:
        if not subject.names:  # the file takes other images, or has other outputs: a static fault
            pass
        elif prepares:
            runs.compare_raw_images(sessions)
        elif variant.rounded:
            runs.measure_agreement(sessions)
        else:
            runs.compare_batches(sessions, plan.batches)
    except Stopped as error:
        raise RefusedContent(error.message, where=error.where, hint=error.hint, options=error.options) from None
    worst = max(evidence.comparisons, key=lambda one: (one.relative or 0) / one.allowed, default=None)
    measured = min(evidence.agreements, key=lambda one: one.decibels or 0, default=None)
    return Parity(
        ok=not evidence.faults,
        reference=subject.reference.name,
        fault=evidence.faults[0].replace(", optimiser on", "") if evidence.faults else None,  # the row's runtime is known
        relative=None if worst is None else worst.relative,
        allowed=None if worst is None else worst.allowed,
        decibels=None if measured is None else measured.decibels,
        angle=None if measured is None else measured.angle,
        top1=worst.top1 if worst is not None else None if measured is None else measured.top1,
    )
