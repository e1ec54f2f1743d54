"""What a graph under construction is made of: places in the state dict, tensors and their shapes, nodes, weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FLOAT, UINT8, INT64, HALF, DOUBLE = 1, 2, 7, 10, 11  # onnx.TensorProto.DataType
BATCH = "batch"
PATCHES = "patches"  # how many there are, where only the image tells
Side = int | str  # a length, or the name of one that is known when the graph runs
Shape = tuple[Side, ...]


def plus(side: Side, more: int) -> Side:
    """A side with more on it; one that is not known keeps the name of what it is made of."""
    if isinstance(side, int):
        return side + more
    base, _, added = side.partition("+")
    total = int(added or 0) + more
    return f"{base}+{total}" if total else base


@dataclass(frozen=True)
class Scope:
    """A place in the state dict: attributes and indices lead to names, as on a module."""

    path: str = ""

    def __getattr__(self, name: str) -> Scope:
        return Scope(f"{self.path}.{name}" if self.path else name)

    def __getitem__(self, index: int) -> Scope:
        return Scope(f"{self.path}.{index}")


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: its logical shape, and whether its first two axes lie merged."""

    name: str
    shape: Shape
    flat: bool = False


@dataclass(frozen=True)
class Heads:
    """Queries, keys or values of `n` heads: b t (n e), or b t n e where something looked at single heads."""

    x: Value
    n: int

    @property
    def inner(self) -> int:
        return math.prod(int(side) for side in self.x.shape[2:])


@dataclass(frozen=True)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Weight:
    """An initializer: a stored tensor, or rows of it, under the shape that the graph gives it."""

    key: str
    shape: tuple[int, ...]
    start: int  # bytes within the stored tensor
    stop: int
