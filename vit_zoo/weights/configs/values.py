"""Types of the values in documents of other libraries, with the words for them in errors.

Numbers have bounds far beyond any model, so that no arithmetic behind them overflows or asks for much memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_SIDE = 16_384  # pixels, as in `ViTSpec`
MAX_WIDTH = 1_000_000
MAX_TEXT = 10_000  # characters
MAX_LABELS = 1_000_000
SURROGATE = re.compile("[\ud800-\udfff]")
INDEX = re.compile(r"0|[1-9][0-9]{0,6}")


class Unfit(Exception):
    """A value is not of a type."""


@dataclass(frozen=True)
class Kind:
    """A type of values.

    * `expected`: what it is, for errors.
    * `parse`: the value as the readers use it. Raises Unfit for a value that is not of the type.
    * `optional`: null stands for an absent value.
    """

    expected: str
    parse: Callable[[Any], Any]
    optional: bool = False

    def reads(self, value: object) -> bool:
        """Whether a value is of the type."""
        try:
            self.parse(value)
        except Unfit:
            return False
        return True


def optional(kind: Kind) -> Kind:
    """The type, or null for an absent value."""
    return Kind(kind.expected, kind.parse, optional=True)


def either(*kinds: Kind) -> Kind:
    """The first of several types that a value has."""

    def parse(value: Any) -> Any:
        for kind in kinds:
            if kind.reads(value):
                return kind.parse(value)
        raise Unfit

    return Kind(" or ".join(kind.expected for kind in kinds), parse)


def whole(least: int, most: int) -> Kind:
    """Integers in a range, bounds included."""

    def parse(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Unfit
        return value

    return Kind(f"a whole number from {least:,} to {most:,}", parse)


def number(least: float, most: float) -> Kind:
    """Finite numbers in a range, bounds included, as floats."""

    def parse(value: Any) -> float:
        if type(value) not in (int, float) or not least <= value <= most:  # which NaN is not
            raise Unfit
        return float(value)

    return Kind(f"a number from {least:,} to {most:,}", parse)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise Unfit
    if SURROGATE.search(value):  # half of a character, which no file of ours could hold
        raise Unfit
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit
    return value


TEXT = Kind(f"a text of at most {MAX_TEXT:,} characters", _text)
FLAG = Kind("true or false", _flag)


def numbers(*lengths: int, least: float, most: float) -> Kind:
    """Lists of one of these lengths of finite numbers in a range, as tuples of floats."""
    one = number(least, most)

    def parse(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list | tuple) or len(value) not in lengths:
            raise Unfit
        return tuple(one.parse(each) for each in value)

    return Kind(f"a list of {' or '.join(map(str, lengths))} numbers from {least:,} to {most:,}", parse)


def wholes(length: int, least: int, most: int) -> Kind:
    """Lists of this length of integers in a range, as tuples."""
    one = whole(least, most)

    def parse(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list | tuple) or len(value) != length:
            raise Unfit
        return tuple(one.parse(each) for each in value)

    return Kind(f"a list of {length} whole numbers from {least:,} to {most:,}", parse)


SIDE = whole(1, MAX_SIDE)
PAIR = wholes(2, 1, MAX_SIDE)


def _size(value: Any) -> tuple[int, int]:
    height, width = PAIR.parse([value, value] if type(value) is int else value)
    return height, width


SIDES = Kind(f"{SIDE.expected}, or a list of two such numbers", _size)  # as (height, width)
WIDTH = whole(1, MAX_WIDTH)
COUNT = whole(1, 1000)
MEANS = numbers(1, 3, least=-1_000_000, most=1_000_000)
DEVIATIONS = numbers(1, 3, least=1e-12, most=1_000_000)


def _eps(value: Any) -> float:
    if value in (0, 1):
        raise Unfit
    eps: float = number(0, 1).parse(value)
    return eps


EPS = Kind("a number above 0 and below 1", _eps)


def _edges(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise Unfit
    return {name: SIDE.parse(length) for name, length in value.items()}


EDGES = Kind("an object of lengths in pixels", _edges)  # such as {"height": 224, "width": 224} or {"shortest_edge": 256}


def _section(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Unfit
    return value


SECTION = Kind("an object", _section)  # whose keys are in a table of their own


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_LABELS:
        raise Unfit
    return tuple(map(_text, value))


NAMES = Kind("a list of texts", _names)


def _numbered_names(value: Any) -> dict[int, str | None]:
    if not isinstance(value, Mapping) or len(value) > MAX_LABELS:
        raise Unfit
    names: dict[int, str | None] = {}
    for key, name in value.items():
        if type(key) is not int and not (isinstance(key, str) and INDEX.fullmatch(key)):
            raise Unfit
        if not isinstance(name, str | int | float):
            raise Unfit
        names[int(key)] = _text(name) if isinstance(name, str) else None
    return names


# classes by their numbers, as transformers' `id2label` has them: keys are texts in JSON, integers in a live config. A name that
# is a number, as in some files, is None.
NUMBERED_NAMES = Kind("an object from numbers of classes to their names", _numbered_names)
