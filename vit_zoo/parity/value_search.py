"""Where another tool's ONNX file and the reference part: names mean nothing there, so values are searched for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.formats.structure import label
from vit_zoo.parity.bisect import allowed_at, chunks, values_in
from vit_zoo.parity.report import BlockError, Parting
from vit_zoo.parity.tolerance import Rule, relative

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.reference import Step

SAMPLE = 64  # numbers that tell most values apart


def parted_by_value(path: Path, steps: Sequence[Step], images: Array, rule: Rule) -> tuple[Parting | None, list[BlockError]]:
    """The first step whose value should appear in another tool's graph and does not, and the error behind each block.

    A graph need not hold every step, for exporters fuse and fold: missed are those that other blocks show, and those
    behind the last that agrees.
    """
    graph = skeleton(path).proto.graph
    shown = _shown(path, graph, steps, images, rule)
    ends = {step.block: i for i, step in enumerate(steps) if step.block is not None}
    errors = [
        BlockError(block=block, relative=min(shown[i].values(), default=None), allowed=allowed_at(steps[i], rule))
        for block, i in ends.items()
    ]
    agreed = max((i for i, operators in enumerate(shown) if operators), default=None)
    if agreed is None or agreed == len(steps) - 1:
        return None, errors
    known = {step.role for step, operators in zip(steps, shown, strict=True) if operators}
    first = next(i for i, step in enumerate(steps) if not shown[i] and (step.role in known or i > agreed))
    last = max((i for i in range(first) if shown[i]), default=None)
    operator = _first_behind(graph, {index for operators in shown[:first] for index in operators})
    parting = Parting(
        block=steps[first].block,
        place=steps[first].place,
        operator=None if operator is None else label(graph.node[operator], operator),
        after=None if last is None else steps[last].place,
        reason=f"no value of the graph is {steps[first].place}",
    )
    return parting, errors


def _shown(path: Path, graph: onnx.GraphProto, steps: Sequence[Step], images: Array, rule: Rule) -> list[dict[int, float]]:
    """For each step the operators that give its value, and how far each is from it."""
    makers = _of_the_image(graph)
    sizes: dict[int, set[int]] = {}
    for i, step in enumerate(steps):
        for wanted in (step.wanted, _first_row(step.wanted)):
            sizes.setdefault(wanted.size, set()).add(i)
    shown: list[dict[int, float]] = [{} for _ in steps]

    def note(index: int, value: Array) -> None:
        for i in sizes.get(value.size, ()) if value.dtype.kind == "f" else ():
            size = _nearness(value, steps[i], allowed_at(steps[i], rule))
            if size is not None:
                shown[i][index] = size

    note(-1, images)
    for chunk in chunks([name for name, index in makers.items() if index >= 0]):
        for name, value in values_in(path, graph, chunk, images).items():
            if name in makers:
                note(makers[name], value)
    return shown


def _of_the_image(graph: onnx.GraphProto) -> dict[str, int]:
    """The values that depend on the image, and their operators: others agree behind a fault too. -1 makes the image."""
    weights = {tensor.name for tensor in graph.initializer}  # early files list them among the inputs
    makers = {value.name: -1 for value in graph.input if value.name not in weights}
    known = 0
    while known < len(makers):  # once is enough where the operators are in order, which converters do not always keep
        known = len(makers)
        for index, node in enumerate(graph.node):
            if node.op_type != "Shape" and any(name in makers for name in node.input):
                makers |= dict.fromkeys(filter(None, node.output), index)
    return makers


def _first_behind(graph: onnx.GraphProto, agreeing: set[int]) -> int | None:
    """The first operator that no agreeing value is made of."""
    makers = _of_the_image(graph)
    fine: set[int] = {-1}
    while agreeing:
        fine |= agreeing
        agreeing = {makers[name] for index in agreeing - {-1} for name in graph.node[index].input if name in makers} - fine
    return min(set(makers.values()) - fine, default=None)


def _first_row(wanted: Array) -> Array:
    """What a graph keeps of tokens when only the first is read: that of b t d which stands for the class token."""
    return wanted[:, :1] if wanted.ndim == 3 else wanted


def _nearness(value: Array, step: Step, allowed: float) -> float | None:
    """How far a value of a graph is from a step's, whatever its shape; None: it is another value."""
    for wanted in (step.wanted, _first_row(step.wanted)):
        if wanted.size == value.size:
            a, b = value.reshape(len(wanted), -1), wanted.reshape(len(wanted), -1)
            some = slice(None, None, max(1, a.shape[1] // SAMPLE))
            scale = float(np.abs(b).max()) or 1.0
            with np.errstate(invalid="ignore", over="ignore"):
                if np.abs(a[:, some] - b[:, some]).max() <= allowed * scale:
                    size = float(relative(a.astype("<f8"), b.astype("<f8")).max())
                    if size <= allowed:
                        return size
    return None
