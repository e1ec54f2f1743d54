"""The engine: renames and rearranges tensors between a dialect and ours by its table, lazily, every tensor accounted for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable, RefusedContent
from vit_zoo.files import DTYPES, Stored

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array

Sizes = Mapping[str, int]
Shapes = Mapping[str, tuple[int, ...]]
WRAPPERS = r"(?:_orig_mod\.|module\.|model\.|backbone\.)*"  # of torch.compile, DDP, Lightning, and DINO's training files


@dataclass(frozen=True)
class Rule:
    """One tensor of ours and the one or several of theirs that it is made of; `{i}` is the number of the block.

    `pattern` (einops) turns each of theirs into rows of ours; read backwards it is the inverse. `rows` (first, last, of):
    ours is these parts of theirs, which other rules make the rest of.
    """

    ours: str
    theirs: tuple[str, ...]
    pattern: str | None = None
    rows: tuple[int, int, int] | None = None


def rule(ours: str, *theirs: str, pattern: str | None = None, rows: tuple[int, int, int] | None = None) -> Rule:
    return Rule(ours, theirs, pattern, rows)


def layer(
    ours: str, *theirs: str, weight: str = ".weight", bias: str = ".bias", turned: str | None = None, biases: str | None = None
) -> tuple[Rule, Rule]:
    """The weight and bias of a layer, under their endings for them; `turned` and `biases` are patterns."""
    return (
        Rule(f"{ours}.weight", tuple(name + weight for name in theirs), turned),
        Rule(f"{ours}.bias", tuple(name + bias for name in theirs), biases),
    )


def replaced(rules: tuple[Rule, ...], *others: Rule) -> tuple[Rule, ...]:
    """The rules with others in place of those for the same tensors."""
    taken = {rule_.ours for rule_ in others}
    return (*(rule_ for rule_ in rules if rule_.ours not in taken), *others)


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
    sizes: Callable[[Shapes, Mapping[str, Any]], Sizes] = lambda shapes, facts: {}  # in the patterns, from shapes and facts
    told: Callable[[Shapes], dict[str, Any]] = lambda shapes: {}  # fields that the shapes of theirs tell and ours do not
    renames: tuple[tuple[str, str], ...] = ()  # older spellings, as regular expressions
    needs: tuple[Need, ...] = ()
    unwanted: tuple[str, ...] = ()  # known and left out, as regular expressions
    beside: tuple[str, ...] = ()  # known and left out where they are outside the model's prefix: another tower, say
    prefixes: tuple[str, ...] = ("",)  # the model's own, the first where we write
    only: Callable[[Shapes], bool] = lambda shapes: True  # what tells it from a dialect of the same names
    outside: tuple[str, ...] = ()  # beginnings of the names that the prefix is not on
    loose: tuple[str, ...] = ()  # beginnings of names that some files have without it
    expand: Callable[[dict[str, Stored]], dict[str, Stored]] = lambda tensors: tensors  # where several blocks are one tensor
    facts_of: Callable[[Any], dict[str, Any]] | None = None  # what a live module tells beside its tensors
    covers: tuple[str, ...] = (
        "all",
        "class",
    )  # which tokens its tables of positions may cover where there are others than patches
    promotes: bool = False  # its library computes in float32, in whatever type the weights are stored
    head_width: int = 0  # where all of the source's models have heads of this width
    resize: str = "timm"  # the recipe of this source for other image sizes
    resize_registers: str | None = None  # that for its models with registers, where it is another

    def opened(self, keys: Iterable[str]) -> Opened:
        """The keys without what wraps them, each under the spelling of the rules."""
        keys = list(keys)
        prefix = re.compile(f"({WRAPPERS})(?:{'|'.join(map(re.escape, self.prefixes))})")
        found = ("", "")
        for name in (*self.telltale, *(theirs.replace("{i}", "0") for rule_ in self.rules for theirs in rule_.theirs)):
            stems = [key[: len(key) - len(name)] for key in keys if key.endswith(name)]
            matches = [match for match in map(prefix.fullmatch, stems) if match]
            if matches:
                found = (matches[0][1], matches[0][0])
                break
        outer, inner = found
        bare = (*self.outside, *self.loose) or "\0"
        names = {}
        for key in keys:
            rest = key.removeprefix(outer)
            if key.startswith(inner):
                names[key] = self.spelled(key.removeprefix(inner))
            else:  # of another part of the file, whose names may be the same
                names[key] = self.spelled(rest) if inner == outer or rest.startswith(bare) else f"\0{rest}"
        return Opened(inner, names)

    def matches(self, tensors: Mapping[str, Stored]) -> bool:
        if not any(key.endswith(self.telltale[0]) for key in tensors):  # most dialects are out at once
            return False
        found = self._spelled_shapes(tensors)
        return all(key in found for key in self.telltale) and self.only(found)

    def strange(self, tensors: Mapping[str, Stored]) -> int:
        """How many keys are neither those of the rules nor known and unwanted."""
        return self._strange(self._spelled_shapes(tensors))

    def _strange(self, names: Iterable[str]) -> int:
        return sum(not self._known.fullmatch(name) and not self.is_unwanted(name) for name in names)

    @cached_property
    def _known(self) -> re.Pattern[str]:
        names = {theirs for rule_ in self.rules for theirs in rule_.theirs}
        return re.compile("|".join(re.escape(name).replace(r"\{i\}", r"\d+") for name in names))

    def resemblance(self, tensors: Mapping[str, Stored]) -> tuple[int, int, int]:
        """How much a damaged file is like this dialect: by strange keys, lacking telltales, and other lacking tensors."""
        found = self._spelled_shapes(tensors)
        single = {theirs for rule_ in self.rules for theirs in rule_.theirs if "{i}" not in theirs}
        other = 0 if self.only(found) else len(found)
        lacking = sum(key not in found for key in self.telltale)
        return -self._strange(found) - other, -lacking, -len(single - set(found))

    def _spelled_shapes(self, tensors: Mapping[str, Stored]) -> dict[str, tuple[int, ...]]:
        tensors = self.expand(dict(tensors))
        return {name: tensors[key].shape for key, name in self.opened(tensors).names.items()}

    def spelled(self, key: str) -> str:
        for old, new in self.renames:
            key = re.sub(old, new, key)
        return key

    def their_name(self, ours: str) -> str:
        """How the rules spell one of our tensors."""
        for rule_ in self.rules:
            match = re.fullmatch(re.escape(rule_.ours).replace(r"\{i\}", r"(\d+)"), ours)
            if match:
                return rule_.theirs[0].replace("{i}", match[1] if match.groups() else "")
        return ours

    def file_name(self, ours: str, opened: Opened) -> str:
        """What one of our tensors is called in a file, or would be if it were there; for messages."""
        return opened.file_name(self.their_name(ours), bare=self.outside or "\0")

    def is_unwanted(self, name: str) -> bool:
        """Known and no part of the model; what only stands beside a model is not looked for in it."""
        patterns = (*self.unwanted, *self.beside) if name.startswith("\0") else self.unwanted
        return any(re.fullmatch(pattern, name.lstrip("\0")) for pattern in patterns)


@dataclass(frozen=True)
class Opened:
    """The keys of a file, what wraps them, and how the rules spell each."""

    prefix: str
    names: Mapping[str, str]

    def file_name(self, name: str, *, bare: tuple[str, ...] | str = "\0") -> str:
        """How this file writes a name that the rules spell so, as its nearest neighbour shows."""
        spelled = {their: key for key, their in self.names.items()}
        if name in spelled:
            return spelled[name]
        for end in sorted((match.end() for match in re.finditer(r"[./]", name)), reverse=True):
            for their, key in spelled.items():
                if their.startswith(name[:end]) and key.endswith(their[end:]):
                    return key.removesuffix(their[end:]) + name[end:]
        return name if name.startswith(bare) else self.prefix + name


def to_ours(dialect: Dialect, tensors: Mapping[str, Stored], facts: Mapping[str, Any], *, where: object) -> Translation:
    """Their tensors under our names and shapes. Raises RefusedContent naming every key that no rule knows."""
    tensors = dialect.expand(dict(tensors))
    opened = dialect.opened(tensors)
    theirs: dict[str, Stored] = {}
    raw: dict[str, str] = {}
    for key, name in opened.names.items():
        if name in theirs:
            raise RefusedContent(f"{key!r} and {raw[name]!r} are the same tensor", where=where)
        theirs[name], raw[name] = tensors[key], key
    sizes = dialect.sizes({key: tensor.shape for key, tensor in theirs.items()}, facts)
    ours: dict[str, Stored] = {}
    used: set[str] = set()
    for rule_ in dialect.rules:
        for i in sorted({i for name in rule_.theirs for i in _blocks(name, theirs)}):
            names = [name.replace("{i}", i) for name in rule_.theirs]
            lacking = [name for name in names if name not in theirs]
            if lacking:
                raise RefusedContent(f"has no tensor {opened.file_name(lacking[0])!r}", where=where)
            for name in names:
                if theirs[name].dtype not in DTYPES:
                    kind = f"{raw[name]!r} has type {theirs[name].dtype}"
                    raise RefusedContent(f"{kind}; weights are {', '.join(DTYPES)}", where=where)
            parts = [theirs[name] for name in names]
            joined = _join(parts, rule_.pattern, sizes, where, [raw[name] for name in names])
            if rule_.rows is not None:
                joined = _rows(joined, rule_.rows, where, raw[names[0]])
            ours[rule_.ours.replace("{i}", i)] = joined
            used.update(names)
    unwanted = [key for key in theirs if key not in used and dialect.is_unwanted(key)]
    unknown = [raw[key] for key in theirs if key not in used and key not in unwanted]
    if unknown:
        raise RefusedContent(f"{_some(unknown)} not part of a plain {dialect.name} ViT", where=where)
    alone = [key for key in ours if key.endswith(".bias") and f"{key[:-5]}.weight" not in ours]
    if alone:
        missing, bias = (dialect.file_name(f"{alone[0][:-5]}.{kind}", opened) for kind in ("weight", "bias"))
        raise RefusedContent(f"has no tensor {missing!r}, to which {bias!r} belongs", where=where)
    told = dialect.told({key: tensor.shape for key, tensor in theirs.items()})
    return Translation(ours, opened, told, tuple(raw[key] for key in unwanted))


@dataclass(frozen=True)
class Translation:
    """Tensors under our names, what their shapes told on the way, and the names of those that were left out."""

    tensors: dict[str, Stored]
    opened: Opened
    told: Mapping[str, Any]
    unwanted: tuple[str, ...]


def check_needs(dialect: Dialect, found: Translation, facts: Mapping[str, Any], *, where: object) -> None:
    """Raise RefusedContent for a tensor that this source's files never lack."""
    ours = found.tensors
    for need in dialect.needs:
        excused = need.field in facts or need.instead in ours or (need.beside is not None and need.beside not in ours)
        if need.tensor not in ours and not excused:
            name = dialect.file_name(need.tensor, found.opened)
            hint = f"if that is right, state {need.field}"
            raise RefusedContent(f"has no tensor {name!r}, which every {dialect.name} ViT has", where=where, hint=hint)


def to_theirs(dialect: Dialect, ours: Mapping[str, Stored], sizes: Sizes) -> dict[str, Stored]:
    """Our tensors under their names and shapes. Raises NotRepresentable naming a tensor that they have no place for."""
    theirs: dict[str, Stored] = {}
    pieces: dict[str, dict[tuple[int, int, int], Stored]] = {}
    used: set[str] = set()
    prefix = dialect.prefixes[0]
    for rule_ in dialect.rules:
        for i in _blocks(rule_.ours, ours):
            name = rule_.ours.replace("{i}", i)
            if name in used:  # an older form of the same tensor
                continue
            parts = _part(ours[name], len(rule_.theirs), rule_.pattern, sizes)
            for their, part in zip((their.replace("{i}", i) for their in rule_.theirs), parts, strict=True):
                full = their if their.startswith(dialect.outside or "\0") else prefix + their
                if rule_.rows is None:
                    theirs[full] = part
                else:
                    pieces.setdefault(full, {})[rule_.rows] = part
            used.add(name)
    for full, rows in pieces.items():
        theirs[full] = _join([rows[place] for place in sorted(rows)], None, sizes, None, [full] * len(rows))
    homeless = [key for key in ours if key not in used]
    if homeless:
        raise NotRepresentable(f"{dialect.name} has no place for {len(homeless)} tensors, first {homeless[0]!r}")
    return theirs


def check_tensors(
    found: Mapping[str, Stored],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    where: object,
    named: Callable[[str], str] = str,
) -> None:
    """Every wanted tensor is there with its shape, and nothing else. Raises RefusedContent with the first differences.

    `named` gives the file's own name of a tensor.
    """
    missing = [key for key in wanted if key not in found]
    extra = [key for key in found if key not in wanted]
    wrong = [key for key in wanted if key in found and found[key].shape != wanted[key]]
    foreign = [key for key in wanted if key in found and found[key].dtype not in DTYPES]
    if foreign:
        kind = f"{named(foreign[0])!r} has type {found[foreign[0]].dtype}"
        raise RefusedContent(f"{kind}; weights are {', '.join(DTYPES)}", where=where)
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing, first {named(missing[0])!r}")
    if extra:
        faults.append(f"{len(extra)} unexpected, first {named(extra[0])!r}")
    if wrong:
        first = f"{named(wrong[0])!r} has {list(found[wrong[0]].shape)}, needs {list(wanted[wrong[0]])}"
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


def _join(parts: list[Stored], pattern: str | None, sizes: Sizes, where: object, names: list[str]) -> Stored:
    if pattern is None and len(parts) == 1:
        return parts[0]  # keeps its place in the file
    if len({part.dtype for part in parts}) > 1:
        raise RefusedContent(f"{_odd([part.dtype for part in parts], names)} another type than its companions", where=where)
    shapes = []
    for name, part in zip(names, parts, strict=True):
        try:
            shapes.append(part.shape if pattern is None else shape_after(pattern, part.shape, sizes))
        except ValueError as error:
            raise RefusedContent(f"{name!r} has shape {list(part.shape)}: {error}", where=where) from None
    if len({shape[1:] for shape in shapes}) > 1 or not all(shapes):
        raise RefusedContent(f"{_odd(shapes, names)} another shape than its companions", where=where)
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(parts) > 1 else shapes[0]
    return Stored(parts[0].dtype, shape, partial(_joined, parts, pattern, sizes))


def _odd(values: Sequence[object], names: list[str]) -> str:
    """The one that differs from the others; of two, both."""
    odd = [name for name, value in zip(names, values, strict=True) if values.count(value) == 1]
    return f"{odd[0]!r} has" if len(odd) == 1 else f"{' or '.join(map(repr, odd))} has"


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


def _rows(whole: Stored, rows: tuple[int, int, int], where: object, name: str) -> Stored:
    first, last, of = rows
    if not whole.shape or whole.shape[0] % of:
        raise RefusedContent(f"{name!r} has shape {list(whole.shape)}: its rows do not make {of} parts", where=where)
    part = whole.shape[0] // of
    cut = slice(first * part, last * part)
    return Stored(whole.dtype, ((last - first) * part, *whole.shape[1:]), partial(_cut, whole, cut, None, {}))


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
