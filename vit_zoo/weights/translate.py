"""Translation of tensors between a dialect's names and shapes and ours: lazy, with every tensor accounted for."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable, Option, RefusedContent, shown
from vit_zoo.files import DTYPES, Stored
from vit_zoo.registry.other_architectures import reason_by_keys
from vit_zoo.weights.dialect import Dialect, Rule, Sizes
from vit_zoo.weights.keys import Opened, open_keys

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array


@dataclass(frozen=True)
class Translation:
    """The tensors of a file under our names.

    * `facts`: the facts that their shapes show.
    * `unwanted`: the keys of known tensors that are not part of the model.
    * `grid`: the grid of the positions, where the file states it.
    """

    tensors: dict[str, Stored]
    opened: Opened
    facts: Mapping[str, Any]
    unwanted: tuple[str, ...]
    grid: tuple[int, int] | None = None


def to_ours(dialect: Dialect, tensors: Mapping[str, Stored], facts: Mapping[str, Any], *, where: object) -> Translation:
    """Their tensors under our names and shapes.

    Raises RefusedContent for a tensor that no rule uses, one of a wrong shape or type, and one that is missing although a
    tensor that belongs to it is there; the error's `details` list all missing and unexpected tensors.
    """
    tensors = dialect.prepare(dict(tensors))
    opened = open_keys(dialect, tensors)
    keys = _inverse(opened.names, where)
    _inverse(opened.outside, where)
    theirs = {name: tensors[key] for name, key in keys.items()}
    shapes = {name: tensor.shape for name, tensor in theirs.items()}
    sizes = dialect.pattern_sizes(shapes, facts)
    applied = list(_applied(dialect.rules, theirs))
    used = {name for _, _, names in applied for name in names}
    unused = [key for key in tensors if opened.names.get(key) not in used]
    unwanted = tuple(key for key in unused if opened.is_unwanted(key))
    unknown = [key for key in unused if key not in unwanted]
    stems = [name.removesuffix(".bias") for _, name, _ in applied if name.endswith(".bias")]
    made = {name for _, name, _ in applied}
    without_weight = [stem for stem in stems if f"{stem}.weight" not in made]
    missing = [opened.key_for(name) for _, _, names in applied for name in names if name not in theirs]
    missing += [opened.key_for_ours(f"{stem}.weight") for stem in without_weight]
    details = mismatch(missing=missing, unexpected=unknown)
    ours: dict[str, Stored] = {}
    for rule, name, names in applied:
        absent = [their for their in names if their not in theirs]
        if absent:
            raise RefusedContent(f"has no tensor {opened.key_for(absent[0])!r}", where=where, details=details)
        ours[name] = _applied_to(rule, [theirs[their] for their in names], [keys[their] for their in names], sizes, where)
    if refused := [key for key in unknown if dialect.refusal(opened.names.get(key, ""))]:
        cause = f"unsupported variant of {dialect.name}: {refused[0]!r} is {dialect.refusal(opened.names[refused[0]])}"
        raise RefusedContent(cause, where=where, details=details)
    if unknown:
        reason = reason_by_keys(unknown)
        cause = f"{_some(unknown)} not part of a plain {dialect.name} ViT" + (f": {reason}" if reason else "")
        drop = droppable(unknown)
        hint = f"{drop} leaves out what the model does not compute with"
        raise RefusedContent(cause, where=where, hint=hint, options=[drop], details=details)
    if without_weight:
        weight, bias = (opened.key_for_ours(f"{without_weight[0]}.{kind}") for kind in ("weight", "bias"))
        raise RefusedContent(f"has no tensor {weight!r} for its bias {bias!r}", where=where, details=details)
    return Translation(ours, opened, dialect.facts_from_shapes(shapes), unwanted, dialect.grid(shapes))


def _applied_to(rule: Rule, theirs: list[Stored], keys: list[str], sizes: Sizes, where: object) -> Stored:
    """The tensor of ours that a rule makes of theirs."""
    for key, tensor in zip(keys, theirs, strict=True):
        if tensor.dtype not in DTYPES:
            raise RefusedContent(_wrong_type(key, tensor), where=where)
    joined = _join(theirs, rule.pattern, sizes, where, keys)
    return joined if rule.rows is None else _rows(joined, rule.rows, where, keys[0])


def _wrong_type(key: str, tensor: Stored) -> str:
    return f"{key!r} has type {tensor.dtype}; weights are {', '.join(DTYPES)}"


def _inverse(names: Mapping[str, str], where: object) -> dict[str, str]:
    """The key of each name. Raises RefusedContent for two keys of the same tensor."""
    keys: dict[str, str] = {}
    for key, name in names.items():
        if name in keys:
            raise RefusedContent(f"{key!r} and {keys[name]!r} name the same tensor", where=where)
        keys[name] = key
    return keys


def _applied(rules: Iterable[Rule], theirs: Mapping[str, Stored]) -> Iterator[tuple[Rule, str, list[str]]]:
    """Each rule for each block that has any of its tensors: the name of ours, and the names of all of theirs."""
    for rule in rules:
        for i in sorted({i for name in rule.theirs for i in _blocks(name, theirs)}):
            if rule.where_present is not None and rule.where_present.replace("{i}", i) not in theirs:
                continue
            if rule.where_absent is not None and rule.where_absent.replace("{i}", i) in theirs:
                continue
            yield rule, rule.ours.replace("{i}", i), [name.replace("{i}", i) for name in rule.theirs]


def check_needs(dialect: Dialect, translation: Translation, facts: Mapping[str, Any], *, where: object) -> None:
    """Raise RefusedContent for tensors that every file of the dialect has and this one does not; `facts` may excuse them."""
    ours = translation.tensors
    missing = [
        need
        for need in dialect.needs
        if need.tensor not in ours
        and (need.field not in facts or (need.tensor == "pos_embed" and "learned" in str(facts["pos"])))
        and need.unless not in ours
        and (need.where_present is None or need.where_present in ours)
    ]
    if missing:
        names = [translation.opened.key_for_ours(need.tensor) for need in missing]
        cause = f"has no tensor {names[0]!r}, which every {dialect.name} ViT has"
        hint = f"if it is meant to be absent, state {missing[0].field}"
        raise RefusedContent(cause, where=where, hint=hint, details=mismatch(missing=names))


def to_theirs(dialect: Dialect, ours: Mapping[str, Stored], sizes: Sizes, prefix: str | None = None) -> dict[str, Stored]:
    """Our tensors under their names and shapes.

    `prefix` comes before their names, by default the first of the dialect. Raises NotRepresentable for a tensor without a rule.
    """
    prefix = dialect.prefixes[0] if prefix is None else prefix
    theirs: dict[str, Stored] = {}
    pieces: dict[str, dict[tuple[int, int, int], Stored]] = {}  # of tensors that several rules make, by their rows
    used: set[str] = set()
    for rule in dialect.rules:
        for i in _blocks(rule.ours, ours):
            name = rule.ours.replace("{i}", i)
            if name in used:  # an earlier rule for the same tensor
                continue
            parts = _part(ours[name], len(rule.theirs), rule.pattern, sizes)
            for their, part in zip((their.replace("{i}", i) for their in rule.theirs), parts, strict=True):
                key = their if their.startswith(dialect.unprefixed) else prefix + their
                if rule.rows is None:
                    theirs[key] = part
                else:
                    pieces.setdefault(key, {})[rule.rows] = part
            used.add(name)
    for key, rows in pieces.items():
        theirs[key] = _join([rows[place] for place in sorted(rows)], None, sizes, None, [key] * len(rows))
    unused = [name for name in ours if name not in used]
    if unused:
        raise NotRepresentable(f"{dialect.name} has no place for {len(unused)} tensors, first {unused[0]!r}")
    return theirs


def check_tensors(
    tensors: Mapping[str, Stored],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    where: object,
    key_of: Callable[[str], str] = str,
) -> None:
    """Check that the tensors are those of `shapes`, no more and no fewer, each with its shape.

    `key_of` gives the file's own name of one of our tensors. Raises RefusedContent with the first of each kind of difference; its
    `details` list all of them.
    """
    missing = [name for name in shapes if name not in tensors]
    unexpected = [name for name in tensors if name not in shapes]
    misshapen = [name for name in shapes if name in tensors and tensors[name].shape != shapes[name]]
    mistyped = [name for name in shapes if name in tensors and tensors[name].dtype not in DTYPES]
    if mistyped:
        raise RefusedContent(_wrong_type(key_of(mistyped[0]), tensors[mistyped[0]]), where=where)
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing, first {key_of(missing[0])!r}")
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected, first {key_of(unexpected[0])!r}")
    if misshapen:
        first = misshapen[0]
        shown = f"{key_of(first)!r} has {list(tensors[first].shape)}, needs {list(shapes[first])}"
        faults.append(f"{len(misshapen)} of another shape, first {shown}")
    if faults:
        details = mismatch(
            missing=map(key_of, missing),
            unexpected=map(key_of, unexpected),
            misshapen=[
                {"name": key_of(name), "shape": list(tensors[name].shape), "expected": list(shapes[name])} for name in misshapen
            ],
        )
        raise RefusedContent(f"tensors do not fit the model: {'; '.join(faults)}", where=where, details=details)


def mismatch(
    *, missing: Iterable[str] = (), unexpected: Iterable[str] = (), misshapen: Iterable[Mapping[str, Any]] = ()
) -> dict[str, list[Any]]:
    """The `details` of an error about tensors that do not match."""
    return {"missing": list(missing), "unexpected": list(unexpected), "misshapen": list(misshapen)}


def matches(name: str, pattern: str) -> bool:
    """Whether a glob pattern matches a name in a file, or the name without its outer parts: `fc.*` matches `model.fc.bias`."""
    parts = name.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[i:]), pattern) for i in range(len(parts)))


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and the number of the others."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def droppable(names: Sequence[str]) -> Option:
    """The option that leaves out tensors with these names, by patterns."""
    layers = [re.sub(r"(?<=\.)\d+(?=\.)", "*", re.sub(r"(\.\d+)?\.[^.]+$", ".*", name)) for name in names]
    patterns = sorted(set(layers)) if len(names) > 1 else names
    flags = " ".join(f"--allow-drop '{pattern}'" for pattern in patterns[:3])
    return Option("allow_drop", repr(list(patterns[:3])), flags)


def mismatch_lines(details: Mapping[str, Any]) -> list[str]:
    """A line for each tensor of `mismatch`: `-` missing, `+` unexpected, `~` of another shape; and the dialects, if listed."""
    lines = [f"known dialects: {', '.join(details['dialects'])}"] if "dialects" in details else []
    lines += [f"- {name}" for name in details.get("missing", ())]
    lines += [f"+ {name}" for name in details.get("unexpected", ())]
    lines += [f"~ {each['name']}: {each['shape']}, expected {each['expected']}" for each in details.get("misshapen", ())]
    # names come from a file: they must not move the cursor or forge a line
    return ["".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line) for line in lines]


def shape_after(pattern: str, shape: tuple[int, ...], sizes: Sizes) -> tuple[int, ...]:
    """The shape after einops.rearrange, without data. Raises ValueError if the pattern does not fit."""
    left, right = ([_axes(group) for group in _groups(side)] for side in pattern.split("->"))
    if len(left) != len(shape):
        raise ValueError(f"pattern '{pattern}' does not fit {len(shape)} axes")
    known = {}
    for axes, length in zip(left, shape, strict=True):
        fixed = math.prod(sizes[axis] for axis in axes if axis in sizes)
        free = [axis for axis in axes if axis not in sizes]
        if len(free) > 1 or length % max(fixed, 1) or (not free and fixed != length):
            raise ValueError(f"pattern '{pattern}' does not fit an axis of {length}")
        known.update({axis: sizes[axis] for axis in axes if axis in sizes})
        known.update({axis: length // max(fixed, 1) for axis in free})
    return tuple(math.prod(known[axis] for axis in axes) for axes in right)


def _join(parts: list[Stored], pattern: str | None, sizes: Sizes, where: object, names: list[str]) -> Stored:
    """Tensors after their pattern, one below the other; `names` are for errors."""
    if pattern is None and len(parts) == 1:
        return parts[0]  # keeps its place in the file
    if len({part.dtype for part in parts}) > 1:
        different = _odd([part.dtype for part in parts], names)
        raise RefusedContent(f"{different} a different type from the tensors that it is joined with", where=where)
    shapes = []
    for name, part in zip(names, parts, strict=True):
        try:
            shapes.append(part.shape if pattern is None else shape_after(pattern, part.shape, sizes))
        except ValueError as error:
            raise RefusedContent(f"{name!r} has shape {list(part.shape)}: {error}", where=where) from None
    if len({shape[1:] for shape in shapes}) > 1 or not all(shapes):
        raise RefusedContent(f"{_odd(shapes, names)} a different shape from the tensors that it is joined with", where=where)
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(parts) > 1 else shapes[0]
    return Stored(parts[0].dtype, shape, partial(_joined, parts, pattern, sizes))


def _odd(values: Sequence[object], names: list[str]) -> str:
    """The subject of an error about values that differ: the one that is different, or both of two."""
    odd = [name for name, value in zip(names, values, strict=True) if values.count(value) == 1]
    return f"{odd[0]!r} has" if len(odd) == 1 else f"{' or '.join(map(repr, odd))} has"


def _joined(parts: list[Stored], pattern: str | None, sizes: Sizes) -> Array:
    import numpy as np

    arrays = [part.array() if pattern is None else _rearranged(part.array(), pattern, sizes) for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _part(tensor: Stored, count: int, pattern: str | None, sizes: Sizes) -> list[Stored]:
    """The inverse of `_join`: `count` parts along the rows, each after the inverse of the pattern."""
    if count == 1 and pattern is None:
        return [tensor]
    back = None if pattern is None else " -> ".join(side.strip() for side in reversed(pattern.split("->")))
    rows = tensor.shape[0] // count
    shape = (rows, *tensor.shape[1:])
    shape = shape if back is None else shape_after(back, shape, sizes)
    return [
        Stored(tensor.dtype, shape, partial(_cut, tensor, slice(i * rows, (i + 1) * rows), back, sizes)) for i in range(count)
    ]


def _rows(tensor: Stored, rows: tuple[int, int, int], where: object, name: str) -> Stored:
    """A range of a tensor's equal parts: see `Rule.rows`."""
    first, last, parts = rows
    if not tensor.shape or tensor.shape[0] % parts:
        raise RefusedContent(f"{name!r} has shape {list(tensor.shape)}: its rows do not divide into {parts} parts", where=where)
    part = tensor.shape[0] // parts
    cut = slice(first * part, last * part)
    return Stored(tensor.dtype, ((last - first) * part, *tensor.shape[1:]), partial(_cut, tensor, cut, None, {}))


def _cut(tensor: Stored, rows: slice, pattern: str | None, sizes: Sizes) -> Array:
    part = tensor.array()[rows]
    return part if pattern is None else _rearranged(part, pattern, sizes)


def _rearranged(array: Array, pattern: str, sizes: Sizes) -> Array:
    import numpy as np
    from einops import rearrange

    named = set(re.findall(r"[a-z]+", pattern.split("->", maxsplit=1)[0]))
    moved = rearrange(array, pattern, **{axis: size for axis, size in sizes.items() if axis in named})
    return np.ascontiguousarray(moved)  # torch.export warns of parameters with other strides


def _blocks(template: str, keys: Iterable[str]) -> list[str]:
    """The numbers of the blocks for which a name with `{i}` is among the keys; [""] for a name without `{i}` that is."""
    if "{i}" not in template:
        return [""] if template in keys else []
    number = re.compile(re.escape(template).replace(r"\{i\}", r"(0|[1-9][0-9]{0,4})"))
    return [match[1] for match in map(number.fullmatch, keys) if match]


def _groups(side: str) -> list[str]:
    return [group for group in re.findall(r"\([^)]*\)|\S+", side) if group]


def _axes(group: str) -> list[str]:
    return [axis for axis in group.strip("()").split() if axis != "1"]


def _some(names: list[str]) -> str:
    if len(names) == 1:
        return f"tensor {shown(names[0])} is"
    return f"{len(names)} tensors (first {shown(names[0])}) are"
