"""First divergence between one of our files, or another model, and the reference: inner values compared in forward order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.formats.structure import operator_label
from vit_zoo.parity.report import BlockError, Divergence
from vit_zoo.parity.tolerance import FLOOR_FACTOR, FLOOR_SLACK, ILL_FACTOR, RELATIVE, TOLERANCES, Tolerance, relative

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.reference import Step
    from vit_zoo.parity.sessions import Sessions

VALUES_PER_RUN = 48  # about 120 MB for two images of ViT-B/16
# operators of which all inner values are read: each 48 of them need a new session. An export of ViT-g has about as many
MOST_READ = 5_000


def first_divergence_by_name(
    checked: Sessions, steps: Sequence[Step], images: Array, tolerance: Tolerance, *, lenient: bool = False
) -> tuple[Divergence | None, list[BlockError]]:
    """Compare the inner values of one of our files with the reference, by name.

    Return the first step that differs, or None, and the error after each block. `lenient` is for files whose outputs all
    agree: then only a large difference counts.
    """
    read = skeleton(checked.path)
    producers = _producers(read.proto.graph)
    values: dict[str, Array] = {}
    divergence, blocks, last = None, {}, None
    names = [step.value for step in steps if step.value in producers]
    for chunk in chunks(list(dict.fromkeys(filter(None, names)))):
        values |= inner_values_of(checked, read.proto.graph, chunk, images)
        while steps and (steps[0].value in values or steps[0].value not in producers):
            step, steps = steps[0], steps[1:]
            allowed = allowed_difference(step, tolerance, lenient=lenient)
            value = values.get(step.value or "")
            size = None if value is None or value.size != step.wanted.size else _difference(value, step)
            if step.block is not None:
                blocks[step.block] = BlockError(block=step.block, relative=size, allowed=allowed)
            if divergence is None and (size is None or not size <= allowed):
                if value is None:
                    reason = "missing from the graph"
                else:
                    reason = "different shape" if size is None else _described(size, allowed)
                divergence = Divergence(
                    block=step.block,
                    place=step.place,
                    operator=operator_label(*producers[step.value]) if step.value in producers else None,
                    after=last,
                    reason=f"{step.place}: {reason}",
                )
            last = step.place
        values = {name: values[name] for name in {step.value for step in steps} if name in values}
    return divergence, list(blocks.values())


def computes(path: Path, steps: Sequence[Step]) -> bool:
    """Return whether a graph has every step's value under our name for it. Optimisers remove some by fusing operators."""
    producers = _producers(skeleton(path).proto.graph)
    return all(step.value in producers for step in steps)


def first_divergence_of_models(model: Sequence[Step], reference: Sequence[Step]) -> tuple[Divergence | None, list[BlockError]]:
    """Compare two models of the same shapes. Return the first step that differs, or None, and the error after each block."""
    divergence, blocks, last = None, {}, None
    for ours, step in zip(model, reference, strict=True):
        size, allowed = _difference(ours.wanted, step), allowed_difference(step, TOLERANCES["fp32"])
        if step.block is not None:
            blocks[step.block] = BlockError(block=step.block, relative=size, allowed=allowed)
        if divergence is None and not size <= allowed:
            reason = f"{step.place}: {_described(size, allowed)}"
            divergence = Divergence(block=step.block, place=step.place, operator=None, after=last, reason=reason)
        last = step.place
    return divergence, list(blocks.values())


def _producers(graph: onnx.GraphProto) -> dict[str, tuple[onnx.NodeProto, int]]:
    """Return the operator that computes each value, with its index."""
    return {name: (node, index) for index, node in enumerate(graph.node) for name in node.output if name}


def inner_values_of(checked: Sessions, graph: onnx.GraphProto, names: Sequence[str], images: Array) -> Mapping[str, Array]:
    """Run the file and return the named inner values, with the graph's own outputs. Empty if the file does not run."""
    outputs = {value.name for value in graph.output}
    try:
        return checked.inner_values([name for name in names if name not in outputs], images)
    except (InputError, RefusedContent):  # a file that does not run has a fault for that already
        return {}


def chunks(names: list[str]) -> Iterator[list[str]]:
    """Split names into as many as one run can return."""
    yield from (names[i : i + VALUES_PER_RUN] for i in range(0, len(names), VALUES_PER_RUN))


def allowed_difference(step: Step, tolerance: Tolerance, *, lenient: bool = False) -> float:
    """Return the relative difference that is allowed at a step."""
    if tolerance is not TOLERANCES["fp32"]:
        return tolerance.relative
    return ILL_FACTOR * step.floor + RELATIVE if lenient else FLOOR_FACTOR * step.floor + FLOOR_SLACK


def _difference(value: Array, step: Step) -> float:
    """Return the largest relative difference over the images."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(relative(value.reshape(step.wanted.shape).astype("<f8"), step.wanted.astype("<f8")).max())


def _described(size: float, allowed: float) -> str:
    return f"relative difference {size:.1e}, allowed {allowed:.1e}" if np.isfinite(size) else "not finite"
