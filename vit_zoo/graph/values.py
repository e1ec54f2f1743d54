"""Parts of a graph under construction: scopes of weight names, values with their shapes, nodes, weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FLOAT, UINT8, INT64, HALF, DOUBLE = 1, 2, 7, 10, 11  # onnx.TensorProto.DataType
BATCH = "batch"
PATCHES, ROWS, COLUMNS = "patches", "rows", "columns"  # numbers that are known only when a dynamic graph runs
Dim = int | str  # a length, or the name of one that is known only when the graph runs
Shape = tuple[Dim, ...]


def plus(dim: Dim, more: int) -> Dim:
    """Return dim + more; for a name, "name+more"."""
    if isinstance(dim, int):
        return dim + more
    base, _, added = dim.partition("+")
    total = int(added or 0) + more
    return f"{base}+{total}" if total else base


@dataclass(frozen=True)
class Scope:
    """A prefix of names in the state dict; attributes and indices extend it, as on a module."""

    path: str = ""

    def __getattr__(self, name: str) -> Scope:
        return Scope(f"{self.path}.{name}" if self.path else name)

    def __getitem__(self, index: int) -> Scope:
        return Scope(f"{self.path}.{index}")


@dataclass(frozen=True)
class Value:
    """A tensor in the graph: its name and logical shape; `flat` if its first two axes, batch and tokens, are merged."""

    name: str
    shape: Shape
    flat: bool = False


@dataclass(frozen=True)
class Heads:
    """Queries, keys or values of `n` heads: b t (n e), or b t n e after an operation on single heads."""

    x: Value
    n: int

    @property
    def inner(self) -> int:
        """The width of all heads, n e."""
        return math.prod(int(dim) for dim in self.x.shape[2:])


@dataclass(frozen=True)
class Node:
    """A node of the graph: operator, names of inputs and outputs, its own name, attributes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Weight:
    """An initializer: a stored tensor or some of its rows, with the shape that it has in the graph."""

    key: str
    shape: tuple[int, ...]
    start: int  # bytes within the stored tensor
    stop: int
