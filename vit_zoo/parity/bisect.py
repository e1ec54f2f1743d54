"""Where a file of ours, or another model, and the reference part: every step of the forward compared in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.errors import VitzooError
from vit_zoo.formats.onnx_file import inner_values
from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.formats.structure import label
from vit_zoo.parity.report import BlockError, Parting
from vit_zoo.parity.tolerance import FLOOR_FACTOR, FLOOR_SLACK, ILL_FACTOR, RELATIVE, RULES, Rule, relative

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.reference import Step

AT_ONCE = 48  # values kept in one run: some 120 MB for two images of ViT-B/16


def parted_by_name(
    path: Path, steps: Sequence[Step], images: Array, rule: Rule, *, lenient: bool = False
) -> tuple[Parting | None, list[BlockError]]:
    """The first step whose value in a file of ours is not the reference's, and the error behind each block.

    `lenient` where no output differs: then a step must be far off to be a fault.
    """
    read = skeleton(path)
    makers = _makers(read.proto.graph)
    found: dict[str, Array] = {}
    parting, blocks, last = None, {}, None
    wanted = [step.value for step in steps if step.value in makers]
    for chunk in chunks(list(dict.fromkeys(filter(None, wanted)))):
        found |= values_in(path, read.proto.graph, chunk, images)
        while steps and (steps[0].value in found or steps[0].value not in makers):
            step, steps = steps[0], steps[1:]
            allowed = allowed_at(step, rule, lenient=lenient)
            value = found.get(step.value or "")
            size = None if value is None or value.size != step.wanted.size else _distance(value, step)
            if step.block is not None:
                blocks[step.block] = BlockError(block=step.block, relative=size, allowed=allowed)
            if parting is None and (size is None or not size <= allowed):
                reason = (
                    "is not in the graph" if value is None else "has another shape" if size is None else _apart(size, allowed)
                )
                operator = label(*makers[step.value]) if step.value in makers else None
                parting = Parting(
                    block=step.block, place=step.place, operator=operator, after=last, reason=f"{step.place} {reason}"
                )
            last = step.place
        found = {name: found[name] for name in {step.value for step in steps} if name in found}
    return parting, list(blocks.values())


def parted_models(ours: Sequence[Step], theirs: Sequence[Step]) -> tuple[Parting | None, list[BlockError]]:
    """The first step at which two models of the same shapes differ."""
    parting, blocks, last = None, {}, None
    for found, step in zip(ours, theirs, strict=True):
        size, allowed = _distance(found.wanted, step), allowed_at(step, RULES["fp32"])
        if step.block is not None:
            blocks[step.block] = BlockError(block=step.block, relative=size, allowed=allowed)
        if parting is None and not size <= allowed:
            reason = f"{step.place} {_apart(size, allowed)}"
            parting = Parting(block=step.block, place=step.place, operator=None, after=last, reason=reason)
        last = step.place
    return parting, list(blocks.values())


def _makers(graph: onnx.GraphProto) -> dict[str, tuple[onnx.NodeProto, int]]:
    return {name: (node, index) for index, node in enumerate(graph.node) for name in node.output if name}


def values_in(path: Path, graph: onnx.GraphProto, names: Sequence[str], images: Array) -> Mapping[str, Array]:
    """The graph's own values of these names, those that it gives in any case included; none if it does not run."""
    outputs = {value.name for value in graph.output}
    try:
        return inner_values(path, [name for name in names if name not in outputs], images)
    except VitzooError:  # the file does not run, which is a fault of its own
        return {}


def chunks(names: list[str]) -> Iterator[list[str]]:
    yield from (names[i : i + AT_ONCE] for i in range(0, len(names), AT_ONCE))


def allowed_at(step: Step, rule: Rule, *, lenient: bool = False) -> float:
    if rule is not RULES["fp32"]:
        return rule.relative
    return ILL_FACTOR * step.floor + RELATIVE if lenient else FLOOR_FACTOR * step.floor + FLOOR_SLACK


def _distance(value: Array, step: Step) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(relative(value.reshape(step.wanted.shape).astype("<f8"), step.wanted.astype("<f8")).max())


def _apart(size: float, allowed: float) -> str:
    return f"is {size:.1e} away, {allowed:.1e} allowed" if np.isfinite(size) else "is not finite"
