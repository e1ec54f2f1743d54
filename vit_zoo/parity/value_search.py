"""First divergence between another tool's ONNX file and the reference, found by value, since names differ between tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.formats.structure import operator_label
from vit_zoo.parity.bisect import VALUES_PER_RUN, allowed_difference, inner_values_of
from vit_zoo.parity.report import BlockError, Divergence
from vit_zoo.parity.tolerance import Tolerance, relative

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.reference import Step
    from vit_zoo.parity.sessions import Sessions

BYTES_PER_RUN = 64 << 20  # of inner values that one run may return, unless fewer than VALUES_PER_RUN have as many
SAMPLE = 64  # elements compared first, which rules out most candidates cheaply


def first_divergence_by_value(
    checked: Sessions, steps: Sequence[Step], images: Array, tolerance: Tolerance
) -> tuple[Divergence | None, list[BlockError]]:
    """Look for the value of each reference step in another tool's graph.

    Return the first step whose value is missing, or None, and the error after each block. Exporters fuse and fold operators,
    so a graph need not contain every step. A step counts as missing if other blocks have the corresponding value, or if it
    comes after the last step that agrees.
    """
    graph = skeleton(checked.path).proto.graph
    matches = _matches(checked, graph, steps, images, tolerance)
    ends = {step.block: i for i, step in enumerate(steps) if step.block is not None}
    errors = [
        BlockError(block=block, relative=min(matches[i].values(), default=None), allowed=allowed_difference(steps[i], tolerance))
        for block, i in ends.items()
    ]
    agreed = max((i for i, operators in enumerate(matches) if operators), default=None)
    if agreed is None or agreed == len(steps) - 1:
        return None, errors
    known = {step.role for step, operators in zip(steps, matches, strict=True) if operators}
    first = next(i for i, step in enumerate(steps) if not matches[i] and (step.role in known or i > agreed))
    last = max((i for i in range(first) if matches[i]), default=None)
    operator = _first_after(graph, {index for operators in matches[:first] for index in operators})
    divergence = Divergence(
        block=steps[first].block,
        place=steps[first].place,
        operator=None if operator is None else operator_label(graph.node[operator], operator),
        after=None if last is None else steps[last].place,
        reason=f"{steps[first].place}: no value in the graph matches",
    )
    return divergence, errors


def _matches(
    checked: Sessions, graph: onnx.GraphProto, steps: Sequence[Step], images: Array, tolerance: Tolerance
) -> list[dict[int, float]]:
    """Return, for each step, the indices of the operators that compute its value, with their relative differences."""
    producers = _image_dependent(graph)
    sizes: dict[int, set[int]] = {}
    for i, step in enumerate(steps):
        for expected in (step.wanted, _first_row(step.wanted)):
            sizes.setdefault(expected.size, set()).add(i)
    matches: list[dict[int, float]] = [{} for _ in steps]

    def match(index: int, value: Array) -> None:
        for i in sizes.get(value.size, ()) if value.dtype.kind == "f" else ():
            size = _difference(value, steps[i], allowed_difference(steps[i], tolerance))
            if size is not None:
                matches[i][index] = size

    match(-1, images)
    names, count, largest = [name for name, index in producers.items() if index >= 0], VALUES_PER_RUN, 1
    while names:
        chunk, names = names[:count], names[count:]
        for name, value in inner_values_of(checked, graph, chunk, images).items():
            largest = max(largest, value.nbytes)
            if name in producers:
                match(producers[name], value)
        count = max(VALUES_PER_RUN, min(4 * count, BYTES_PER_RUN // largest))  # fewer sessions for a model with small values
    return matches


def _image_dependent(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the values that depend on the image, with the index of their operator; the image itself has index -1.

    Other values agree after a fault too, so they prove nothing.
    """
    weights = {tensor.name for tensor in graph.initializer}  # old files list them as inputs too
    producers = {value.name: -1 for value in graph.input if value.name not in weights}
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(graph.node):
        for name in node.input if node.op_type != "Shape" else ():
            readers.setdefault(name, []).append(index)
    dependent: set[int] = set()
    names = list(producers)
    while names:  # each value once, since some converters do not sort the operators
        for index in readers.pop(names.pop(), ()):
            if index not in dependent:
                dependent.add(index)
                names += filter(None, graph.node[index].output)
    for index in sorted(dependent):
        producers |= dict.fromkeys(filter(None, graph.node[index].output), index)
    return producers


def _first_after(graph: onnx.GraphProto, agreeing: set[int]) -> int | None:
    """Return the first operator that no agreeing value depends on."""
    producers = _image_dependent(graph)
    correct: set[int] = {-1}
    while agreeing:
        correct |= agreeing
        inputs = {name for index in agreeing - {-1} for name in graph.node[index].input}
        agreeing = {producers[name] for name in inputs if name in producers} - correct
    return min(set(producers.values()) - correct, default=None)


def _first_row(tokens: Array) -> Array:
    """Return the class token of b t d, which is all that a graph keeps when later steps read only the first token."""
    return tokens[:, :1] if tokens.ndim == 3 else tokens


def _difference(value: Array, step: Step, allowed: float) -> float | None:
    """Return the relative difference of a graph's value from a step's, whatever its shape; None if it exceeds `allowed`."""
    for expected in (step.wanted, _first_row(step.wanted)):
        if expected.size == value.size:
            a, b = value.reshape(len(expected), -1), expected.reshape(len(expected), -1)
            sample = slice(None, None, max(1, a.shape[1] // SAMPLE))
            scale = float(np.abs(b).max()) or 1.0
            with np.errstate(invalid="ignore", over="ignore"):
                if np.abs(a[:, sample] - b[:, sample]).max() <= allowed * scale:
                    size = float(relative(a.astype("<f8"), b.astype("<f8")).max())
                    if size <= allowed:
                        return size
    return None
