"""Where an ONNX file and the model part: inner values compared in order, by name in our files, by value in other tools'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.errors import VitzooError
from vit_zoo.formats.onnx_file import inner_values
from vit_zoo.formats.skeleton import skeleton
from vit_zoo.parity.judging import FLOOR_FACTOR, RULES, Rule, relative
from vit_zoo.parity.report import BlockError, Parting
from vit_zoo.parity.structure import label

if TYPE_CHECKING:
    import onnx

    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.references import Step

AT_ONCE = 48  # values kept in one run: some 120 MB for two images of ViT-B/16
SLACK = 2e-6  # an inner value may be small where its rounding is not
SAMPLE = 64  # numbers that tell most values apart


def parted_by_name(path: Path, steps: Sequence[Step], images: Array, rule: Rule) -> tuple[Parting | None, list[BlockError]]:
    """The first step whose value in a file of ours is not the reference's, and the error behind each block."""
    read = skeleton(path)
    makers = _makers(read.proto.graph)
    found: dict[str, Array] = {}
    parting, blocks, last = None, {}, None
    wanted = [step.value for step in steps if step.value in makers]
    for chunk in _chunks(list(dict.fromkeys(filter(None, wanted)))):
        found |= _run(path, chunk, images)
        while steps and (steps[0].value in found or steps[0].value not in makers):
            step, steps = steps[0], steps[1:]
            allowed = _allowed(step, rule)
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


def parted_by_value(path: Path, steps: Sequence[Step], images: Array, rule: Rule) -> tuple[Parting | None, list[BlockError]]:
    """The last step whose value appears anywhere in another tool's graph; the next operator is where they part.

    A graph need not hold every step: exporters fuse and fold. But behind a fault it holds none.
    """
    graph = skeleton(path).proto.graph
    makers = _makers(graph)
    seen: dict[int, int] = {}  # step -> operator
    bySize: dict[int, list[int]] = {}
    for i, step in enumerate(steps):
        for size in {step.wanted.size, _first_row(step.wanted).size}:
            bySize.setdefault(size, []).append(i)
    quiet = ("Constant", "Shape", "Cast", "Identity")
    for chunk in _chunks([name for name, (node, _) in makers.items() if node.op_type not in quiet]):
        for name, value in _run(path, chunk, images).items():
            for i in bySize.get(value.size, []) if name in makers and value.dtype.kind == "f" else []:
                if i not in seen and _appears(value, steps[i], rule):
                    seen[i] = makers[name][1]
    if not seen:
        return None, []
    agreed = max(seen)
    blocks = {step.block: i for i, step in enumerate(steps) if step.block is not None}
    errors = [
        BlockError(block=block, relative=_closeness(i in seen), allowed=_allowed(steps[i], rule))
        for block, i in blocks.items()
        if block is not None
    ]
    if agreed == len(steps) - 1:
        return None, errors
    next_, operator = steps[agreed + 1], max(index for i, index in seen.items() if i <= agreed) + 1
    named = label(graph.node[operator], operator) if operator < len(graph.node) else None
    reason = f"no value of the graph is {next_.place}, or any place behind it"
    return Parting(block=next_.block, place=next_.place, operator=named, after=steps[agreed].place, reason=reason), errors


def parted_models(ours: Sequence[Step], theirs: Sequence[Step]) -> tuple[Parting | None, list[BlockError]]:
    """The first step at which two models of the same shapes differ."""
    parting, blocks, last = None, {}, None
    for found, step in zip(ours, theirs, strict=True):
        size, allowed = _distance(found.wanted, step), _allowed(step, RULES["fp32"])
        if step.block is not None:
            blocks[step.block] = BlockError(block=step.block, relative=size, allowed=allowed)
        if parting is None and not size <= allowed:
            reason = f"{step.place} {_apart(size, allowed)}"
            parting = Parting(block=step.block, place=step.place, operator=None, after=last, reason=reason)
        last = step.place
    return parting, list(blocks.values())


def _closeness(agrees: bool) -> float | None:
    return 0.0 if agrees else None


def _makers(graph: onnx.GraphProto) -> dict[str, tuple[onnx.NodeProto, int]]:
    return {name: (node, index) for index, node in enumerate(graph.node) for name in node.output if name}


def _run(path: Path, names: Sequence[str], images: Array) -> Mapping[str, Array]:
    outputs = {value.name for value in skeleton(path).proto.graph.output}
    try:
        return inner_values(path, [name for name in names if name not in outputs], images)
    except VitzooError:  # the file does not run, which is a fault of its own
        return {}


def _chunks(names: list[str]) -> Iterator[list[str]]:
    yield from (names[i : i + AT_ONCE] for i in range(0, len(names), AT_ONCE))


def _allowed(step: Step, rule: Rule) -> float:
    return FLOOR_FACTOR * step.floor + SLACK if rule is RULES["fp32"] else rule.relative


def _distance(value: Array, step: Step) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return relative(value.reshape(step.wanted.shape).astype("<f8"), step.wanted.astype("<f8"))


def _apart(size: float, allowed: float) -> str:
    return f"is {size:.1e} away, {allowed:.1e} allowed" if np.isfinite(size) else "is not finite"


def _first_row(wanted: Array) -> Array:
    """What a graph keeps of tokens when only the first is read: that of b t d which stands for the class token."""
    return wanted[:, :1] if wanted.ndim == 3 else wanted


def _appears(value: Array, step: Step, rule: Rule) -> bool:
    """Whether a value of a graph is a step's, whatever its shape."""
    allowed = _allowed(step, rule)
    for wanted in (step.wanted, _first_row(step.wanted)):
        if wanted.size == value.size:
            a, b = value.reshape(len(wanted), -1), wanted.reshape(len(wanted), -1)
            some = slice(None, None, max(1, a.shape[1] // SAMPLE))
            scale = float(np.abs(b).max()) or 1.0
            if np.abs(a[:, some] - b[:, some]).max() <= allowed * scale and relative(a.astype("<f8"), b.astype("<f8")) <= allowed:
                return True
    return False
