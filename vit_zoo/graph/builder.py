"""Builder of an ONNX graph: nodes, constants and weights, each with a name.

The builder handles values by name. Their shapes are known where it is used: in `onnx_ops.py`, `dynamic_positions.py` and
`preprocess.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vit_zoo.files import Stored
from vit_zoo.graph.values import BATCH, DOUBLE, FLOAT, INT64, UINT8, Dim, Node, Shape, Weight


@dataclass
class GraphBuilder:
    """A graph under construction whose weights are taken from `tensors`.

    Nodes are named after the part of the model that adds them (`scope`). Equal constants, and equal computed shapes, exist
    once in a graph.
    """

    tensors: Mapping[str, Stored]
    opset: int
    tables: Mapping[str, Any] = field(default_factory=dict)  # arrays to store as constants, by name
    nodes: list[Node] = field(default_factory=list, init=False)
    weights: dict[str, Weight] = field(default_factory=dict, init=False)  # by initializer
    constants: dict[tuple[int, tuple[Any, ...], bool], str] = field(default_factory=dict, init=False)  # type, values, vector
    shapes: dict[str, Shape] = field(default_factory=dict, init=False)  # of values whose shape cannot be inferred
    _scopes: list[str] = field(default_factory=list, init=False)
    _counts: dict[str, int] = field(default_factory=dict, init=False)  # of nodes, by scope and operator
    _computed: dict[tuple[Dim, ...], str] = field(default_factory=dict, init=False)  # shapes

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
        """Add a weight in its stored type, all of it or rows `start` to `stop`, and return its name.

        `matrix` merges all axes but the first. Raises RuntimeError if the weight is already in the graph.
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
        """Add a weight as `initializer` does, with a Cast to float32 if it is stored in another type; onnxruntime folds it."""
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

    @property
    def batch(self) -> Dim:
        """The number of images, or the name of a free axis."""
        return BATCH

    def lengths(self, x: str, start: int, stop: int) -> str:
        """Return the lengths of some axes of a value as an int64 vector."""
        if self.opset >= 15:
            return self.node("Shape", x, start=start, end=stop)
        return self.node("Slice", self.node("Shape", x), self.ints(start), self.ints(stop), self.ints(0))

    def mean_over(self, x: str, axis: int, *, keep: bool = False) -> str:
        """Add the mean over an axis, which stays with length 1 if `keep`."""
        if self.opset >= 18:
            return self.node("ReduceMean", x, self.ints(axis), keepdims=int(keep))
        return self.node("ReduceMean", x, axes=[axis], keepdims=int(keep))

    def reshape(self, x: str, *dims: Dim, batch: Dim = BATCH) -> str:
        """Add a Reshape of `x` to (batch, *dims), some of which may be names. `batch` is that of `x`, where it is fixed."""
        if all(isinstance(dim, int) for dim in dims):
            first = batch if isinstance(self.batch, int) and isinstance(batch, int) else -1
            return self.node("Reshape", x, self.ints(first, *map(int, dims)))
        name = self.node("Reshape", x, self._shape(-1, *dims))
        self.shapes[name] = (BATCH, *dims)
        return name

    def _shape(self, *dims: Dim) -> str:
        """Return a shape that is computed when the graph runs, as an int64 vector."""
        if dims not in self._computed:
            with self.scope("sizes"):
                parts = [self.ints(dim) if isinstance(dim, int) else self._dim(dim) for dim in dims]
                self._computed[dims] = self.node("Concat", *parts, axis=0)
        return self._computed[dims]

    def _dim(self, dim: str) -> str:
        """Return a named length as an int64 vector of one element."""
        base, _, more = dim.partition("+")
        if more and (dim,) not in self._computed:
            self._computed[(dim,)] = self.node("Add", base, self.ints(int(more)))
        return self._computed[(dim,)] if more else base
