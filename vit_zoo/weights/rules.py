"""The engine: renames and rearranges tensors between a dialect and ours by its table, lazily, every tensor accounted for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable, RefusedContent
from vit_zoo.files import Stored

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

Sizes = Mapping[str, int]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Rule:
    """One tensor of ours and the one or several of theirs that it is made of; `{i}` is the number of the block.

    `pattern` (einops) turns each of theirs into rows of ours; read backwards it is the inverse.
    """

    ours: str
    theirs: tuple[str, ...]
    pattern: str | None = None


def rule(ours: str, *theirs: str, pattern: str | None = None) -> Rule:
    return Rule(ours, theirs, pattern)


def layer(ours: str, theirs: str) -> tuple[Rule, Rule]:
    """The weight and bias of a layer that both sides store alike."""
    return Rule(f"{ours}.weight", (f"{theirs}.weight",)), Rule(f"{ours}.bias", (f"{theirs}.bias",))


@dataclass(frozen=True)
class Need:
    """A tensor of ours that files of a source always have: its absence is damage, not a variant.

    Unless the user or the live module states the field that says so, or another tensor is there that replaces it;
    `beside` limits the need to files that have that one.
    """

    tensor: str
    field: str
    instead: str | None = None
    beside: str | None = None


@dataclass(frozen=True)
class Dialect:
    """A way to store a Vision Transformer: its names, what they mean, and what its files leave unsaid."""

    name: str
    telltale: tuple[str, ...]  # keys that only this dialect has, all of them
    rules: tuple[Rule, ...]
    conventions: Mapping[str, Any]  # fields of the spec that hold for every file of this source
    sizes: Callable[[Shapes, Mapping[str, Any]], Sizes]  # the sizes in the patterns, from shapes and the user's facts
    renames: tuple[tuple[str, str], ...] = ()  # older spellings, as regular expressions
    needs: tuple[Need, ...] = ()
    unwanted: tuple[str, ...] = ()  # known and left out, as regular expressions
    facts_of: Callable[[Any], dict[str, Any]] | None = None  # what a live module tells beside its tensors

    def matches(self, keys: Iterable[str]) -> bool:
        found = {self.spelled(key) for key in keys}
        return all(key in found for key in self.telltale)

    def spelled(self, key: str) -> str:
        for old, new in self.renames:
            key = re.sub(old, new, key)
        return key


def to_ours(dialect: Dialect, tensors: Mapping[str, Stored], facts: Mapping[str, Any], *, where: object) -> dict[str, Stored]:
    """Their tensors under our names and shapes. Raises RefusedContent naming every key that no rule knows."""
    theirs = {dialect.spelled(key): tensor for key, tensor in tensors.items()}
    sizes = dialect.sizes({key: tensor.shape for key, tensor in theirs.items()}, facts)
    ours: dict[str, Stored] = {}
    used: set[str] = set()
    for rule_ in dialect.rules:
        for i in _blocks(rule_.theirs[0], theirs):
            names = [name.replace("{i}", i) for name in rule_.theirs]
            lacking = [name for name in names if name not in theirs]
            if lacking:
                raise RefusedContent(f"has no tensor {lacking[0]!r}", where=where)
            ours[rule_.ours.replace("{i}", i)] = _join([theirs[name] for name in names], rule_.pattern, sizes, where, names[0])
            used.update(names)
    unknown = [key for key in theirs if key not in used and not any(re.fullmatch(p, key) for p in dialect.unwanted)]
    if unknown:
        raise RefusedContent(f"{_some(unknown)} not part of a plain {dialect.name} ViT", where=where)
    return ours


def check_needs(dialect: Dialect, ours: Iterable[str], facts: Mapping[str, Any], *, where: object) -> None:
    """Raise RefusedContent for a tensor that this source's files never lack."""
    found = set(ours)
    for need in dialect.needs:
        excused = need.field in facts or need.instead in found or (need.beside is not None and need.beside not in found)
        if need.tensor not in found and not excused:
            theirs = next(
                rule_.theirs[0] for rule_ in dialect.rules if rule_.ours in (need.tensor, need.tensor.replace(".0.", ".{i}."))
            )
            name, hint = theirs.replace("{i}", "0"), f"if that is right, state {need.field}"
            raise RefusedContent(f"has no tensor {name!r}, which every {dialect.name} ViT has", where=where, hint=hint)


def to_theirs(dialect: Dialect, ours: Mapping[str, Stored], sizes: Sizes) -> dict[str, Stored]:
    """Our tensors under their names and shapes. Raises NotRepresentable naming a tensor that they have no place for."""
    theirs: dict[str, Stored] = {}
    used: set[str] = set()
    for rule_ in dialect.rules:
        for i in _blocks(rule_.ours, ours):
            name = rule_.ours.replace("{i}", i)
            parts = _part(ours[name], len(rule_.theirs), rule_.pattern, sizes)
            theirs.update(zip((their.replace("{i}", i) for their in rule_.theirs), parts, strict=True))
            used.add(name)
    homeless = [key for key in ours if key not in used]
    if homeless:
        raise NotRepresentable(f"{dialect.name} has no place for {len(homeless)} tensors, first {homeless[0]!r}")
    return theirs


def check_tensors(found: Mapping[str, Stored], wanted: Mapping[str, tuple[int, ...]], *, where: object) -> None:
    """Every wanted tensor is there with its shape, and nothing else. Raises RefusedContent with the first differences."""
    missing = [key for key in wanted if key not in found]
    extra = [key for key in found if key not in wanted]
    wrong = [key for key in wanted if key in found and found[key].shape != wanted[key]]
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing, first {missing[0]!r}")
    if extra:
        faults.append(f"{len(extra)} unexpected, first {extra[0]!r}")
    if wrong:
        first = f"{wrong[0]!r} has {list(found[wrong[0]].shape)}, needs {list(wanted[wrong[0]])}"
        faults.append(f"{len(wrong)} of another shape, first {first}")
    if faults:
        raise RefusedContent(f"tensors do not fit the model: {'; '.join(faults)}", where=where)


def shape_after(pattern: str, shape: tuple[int, ...], sizes: Sizes) -> tuple[int, ...]:
    """The shape that einops gives; raises ValueError if the pattern does not fit."""
    left, right = ([_axes(group) for group in _groups(side)] for side in pattern.split("->"))
    if len(left) != len(shape):
        raise ValueError(f"'{pattern}' on {len(shape)} axes")
    known = {}
    for axes, length in zip(left, shape, strict=True):
        fixed = math.prod(sizes[axis] for axis in axes if axis in sizes)
        free = [axis for axis in axes if axis not in sizes]
        if len(free) > 1 or length % max(fixed, 1) or (not free and fixed != length):
            raise ValueError(f"'{pattern}' on an axis of {length}")
        known.update({axis: sizes[axis] for axis in axes if axis in sizes})
        known.update({axis: length // max(fixed, 1) for axis in free})
    return tuple(math.prod(known[axis] for axis in axes) for axes in right)


def _join(parts: list[Stored], pattern: str | None, sizes: Sizes, where: object, name: str) -> Stored:
    if pattern is None and len(parts) == 1:
        return parts[0]  # keeps its place in the file
    if len({part.dtype for part in parts}) > 1:
        raise RefusedContent(f"{name!r} and its companions have different types", where=where)
    try:
        shapes = [part.shape if pattern is None else shape_after(pattern, part.shape, sizes) for part in parts]
    except ValueError as error:
        raise RefusedContent(f"{name!r} has shape {list(parts[0].shape)}: {error}", where=where) from None
    if len(set(shapes)) > 1:
        raise RefusedContent(f"{name!r} and its companions have different shapes", where=where)
    shape = (len(parts) * shapes[0][0], *shapes[0][1:]) if len(parts) > 1 else shapes[0]
    return Stored(parts[0].dtype, shape, partial(_joined, parts, pattern, sizes))


def _joined(parts: list[Stored], pattern: str | None, sizes: Sizes) -> Array:
    import numpy as np

    arrays = [part.array() if pattern is None else _rearranged(part.array(), pattern, sizes) for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _part(whole: Stored, count: int, pattern: str | None, sizes: Sizes) -> list[Stored]:
    if count == 1 and pattern is None:
        return [whole]
    back = None if pattern is None else " -> ".join(side.strip() for side in reversed(pattern.split("->")))
    rows = whole.shape[0] // count
    shape = (rows, *whole.shape[1:])
    shape = shape if back is None else shape_after(back, shape, sizes)
    return [Stored(whole.dtype, shape, partial(_cut, whole, slice(i * rows, (i + 1) * rows), back, sizes)) for i in range(count)]


def _cut(whole: Stored, rows: slice, pattern: str | None, sizes: Sizes) -> Array:
    part = whole.array()[rows]
    return part if pattern is None else _rearranged(part, pattern, sizes)


def _rearranged(array: Array, pattern: str, sizes: Sizes) -> Array:
    import numpy as np
    from einops import rearrange

    named = set(re.findall(r"[a-z]+", pattern.split("->", maxsplit=1)[0]))
    moved = rearrange(array, pattern, **{axis: size for axis, size in sizes.items() if axis in named})
    return np.ascontiguousarray(moved)  # torch.export warns of parameters with other strides


def _blocks(template: str, keys: Iterable[str]) -> list[str]:
    """The block numbers for which a template names a key; one empty one for a template without a number."""
    if "{i}" not in template:
        return [""] if template in keys else []
    number = re.compile(re.escape(template).replace(r"\{i\}", r"(0|[1-9]\d*)"))
    return [match[1] for match in map(number.fullmatch, keys) if match]


def _groups(side: str) -> list[str]:
    return [group for group in re.findall(r"\([^)]*\)|\S+", side) if group]


def _axes(group: str) -> list[str]:
    return [axis for axis in group.strip("()").split() if axis != "1"]


def _some(names: list[str]) -> str:
    if len(names) == 1:
        return f"tensor {names[0]!r} is"
    return f"{len(names)} tensors (first {names[0]!r}) are"
