"""What a check of each effort runs: its images, their batches, and the use of float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vit_zoo.parity.inputs import PROBES

if TYPE_CHECKING:
    from vit_zoo.parity.expected import Float64
    from vit_zoo.parity.report import Effort

Batches = dict[bool, tuple[tuple[int, ...], ...]]  # indices of each batch's images; the key: is the optimiser on?


@dataclass(frozen=True)
class CheckPlan:
    """What a check of one effort runs."""

    images: tuple[str, ...]  # names of probes
    batches: Batches
    float64: Float64 = "where it matters"  # for which images the reference is computed in float64 too
    inner: bool = False  # compare every inner value, even if nothing fails
    skipped: tuple[str, ...] = ()


ALL = tuple(PROBES)
INNER = "inner values: compared only after a failure"
PLANS: dict[Effort, CheckPlan] = {
    "quick": CheckPlan(
        ALL[:3],
        {True: ((0,), (1, 2))},
        float64="never",
        skipped=(
            "float64 results: the tolerance is its upper limit",
            "runs without onnxruntime's optimiser",
            "photographs, images with large values, nearly constant images",
            INNER,
        ),
    ),
    "default": CheckPlan(
        ALL[:6],
        {True: ((5,), (3, 4, 0), (0, 1, 2, 3, 4)), False: ((0, 1),)},
        skipped=(INNER,),
    ),
    "full": CheckPlan(
        ALL,
        {
            True: ((0,), (1, 2), (3, 4, 5), (6, 7, 0, 1, 2), tuple(range(8))),
            False: ((3,), (0, 1), (2, 4, 5, 6, 7)),
        },
        float64="always",
        inner=True,
    ),
}
