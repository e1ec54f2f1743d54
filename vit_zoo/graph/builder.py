"""Construction of an ONNX graph: nodes, constants and weights, each under its name.

Values are names (strings) here; `onnx_ops.py`, `dynamic_positions.py` and `preprocess.py` keep their shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vit_zoo.files import Stored
from vit_zoo.graph.values import BATCH, DOUBLE, FLOAT, INT64, UINT8, Node, Shape, Side, Weight


@dataclass
class GraphBuilder:
    """A graph under construction whose weights are taken from `tensors`.

    Nodes are named after the part of the model that adds them (`scope`). Equal constants, and equal computed shapes, exist
    once in a graph.
    """

    tensors: Mapping[str, Stored]
    opset: int
    tables: Mapping[str, Any] = field(default_factory=dict)  # arrays that the graph holds as constants, by name
    nodes: list[Node] = field(default_factory=list, init=False)
    weights: dict[str, Weight] = field(default_factory=dict, init=False)  # by initializer
    constants: dict[tuple[int, tuple[Any, ...], bool], str] = field(default_factory=dict, init=False)  # type, values, vector
    shapes: dict[str, Shape] = field(default_factory=dict, init=False)  # of results whose shape no checker can infer
    _scopes: list[str] = field(default_factory=list, init=False)
    _counts: dict[str, int] = field(default_factory=dict, init=False)  # of nodes, by scope and operator
    _computed: dict[tuple[Side, ...], str] = field(default_factory=dict, init=False)  # shapes

    # nodes

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its only output."""
        (name,) = self.results(op, 1, *inputs, **attributes)
        return name

    def results(self, op: str, count: int, *inputs: str, **attributes: Any) -> tuple[str, ...]:
        """Add a node and return the names of its `count` outputs."""
        names = self._new_names(op, count)
        self.emit(op, inputs, names, **attributes)
        return names

    def emit(self, op: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **attributes: Any) -> None:
        """Add a node whose outputs have the given names."""
        self.nodes.append(Node(op, inputs, outputs, outputs[0].partition(":")[0], attributes))

    @contextmanager
    def scope(self, path: str) -> Iterator[None]:
        """Name nodes after `path` within the block."""
        self._scopes.append(path)
        try:
            yield
        finally:
            self._scopes.pop()

    @property
    def place(self) -> str:
        """The innermost scope, after which nodes are named."""
        return self._scopes[-1] if self._scopes else "vit"

    def _new_names(self, op: str, count: int) -> tuple[str, ...]:
        where = f"{self.place}/{op}"
        number = self._counts[where] = self._counts.get(where, -1) + 1
        stem = where if number == 0 else f"{where}_{number}"
        return (stem,) if count == 1 else tuple(f"{stem}:{i}" for i in range(count))

    # weights

    def initializer(self, key: str, start: int = 0, stop: int | None = None, *, matrix: bool = False) -> str:
        """The name of a weight in its stored type, all of it or some rows. Raises RuntimeError if it was taken before.

        `matrix`: all axes but the first are merged.
        """
        stored = self.tensors[key]
        rows = stored.shape[0]
        stop = rows if stop is None else stop
        name = key if (start, stop) == (0, rows) else f"{key}[{start}:{stop}]"
        if name in self.weights:
            raise RuntimeError(f"weight {name} is used twice")
        row = stored.nbytes // rows
        rest = (stored.nbytes // row // rows, *stored.shape[1:])[1:]
        shape = (stop - start, math.prod(rest)) if matrix else (stop - start, *rest)
        self.weights[name] = Weight(key, shape, start * row, stop * row)
        return name

    def float_weight(self, key: str, start: int = 0, stop: int | None = None, *, matrix: bool = False) -> str:
        """As `initializer`, in float32: weights stored in another type get a Cast, which onnxruntime folds."""
        name = self.initializer(key, start, stop, matrix=matrix)
        return name if self.tensors[key].dtype == "F32" else self.node("Cast", name, to=FLOAT)

    # constants

    def int_(self, value: int) -> str:
        return self._constant(INT64, (value,), vector=False)

    def ints(self, *values: int) -> str:
        return self._constant(INT64, values, vector=True)

    def float_(self, value: float) -> str:
        return self._constant(FLOAT, (value,), vector=False)

    def floats(self, *values: float) -> str:
        return self._constant(FLOAT, values, vector=True)

    def double(self, value: float) -> str:
        return self._constant(DOUBLE, (value,), vector=False)

    def doubles(self, *values: float) -> str:
        return self._constant(DOUBLE, values, vector=True)

    def byte(self, value: int) -> str:
        return self._constant(UINT8, (value,), vector=False)

    def _constant(self, type_: int, values: tuple[Any, ...], *, vector: bool) -> str:
        return self.constants.setdefault((type_, values, vector), f"constant.{len(self.constants)}")

    # shapes

    def reshape(self, x: str, *sides: Side) -> str:
        """`x` as (batch, *sides), where some sides may be known by name only."""
        if all(isinstance(side, int) for side in sides):
            return self.node("Reshape", x, self.ints(-1, *map(int, sides)))
        name = self.node("Reshape", x, self._shape(-1, *sides))
        self.shapes[name] = (BATCH, *sides)
        return name

    def _shape(self, *sides: Side) -> str:
        """A shape that is computed when the graph runs."""
        if sides not in self._computed:
            with self.scope("sizes"):
                parts = [self.ints(side) if isinstance(side, int) else self._side(side) for side in sides]
                self._computed[sides] = self.node("Concat", *parts, axis=0)
        return self._computed[sides]

    def _side(self, side: str) -> str:
        """A length as an int64 of one element."""
        base, _, more = side.partition("+")
        if more and (side,) not in self._computed:
            self._computed[(side,)] = self.node("Add", base, self.ints(int(more)))
        return self._computed[(side,)] if more else base
