"""ONNX's spelling of the operations in `forward.py`: standard operators, opset 17 to 25, no tracing and no torch.

Tokens stay flat, (b t) d, from one attention to the next, so that every linear layer is one Gemm with its bias inside:
onnxruntime runs it faster than MatMul and Add, and Gemm(transB=1) takes torch's weights as they lie in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from vit_zoo.files import Stored
from vit_zoo.graph.values import BATCH, FLOAT, Heads, Node, Scope, Shape, Side, Value, Weight, plus

if TYPE_CHECKING:
    from vit_zoo.ops import Ops

END = 2**63 - 1  # of any axis
SIGMOID = {"quick_gelu": 1.702, "silu": 1.0}  # x sigmoid(scale x)


class Grid(Protocol):
    """Patches and their positions where only the image tells how many there are."""

    sides: tuple[str, str]  # rows and columns, each an int64 of one element

    def learned(self, op: OnnxOps, table: str) -> Value: ...

    def table(self, op: OnnxOps, path: str) -> Value: ...

    def patches(self, op: OnnxOps, image: Value, size: tuple[int, int]) -> Value: ...


@dataclass
class OnnxOps:
    """Collects nodes, weights and constants while `forward.vit` runs over a `Scope`."""

    tensors: Mapping[str, Stored]
    opset: int
    tables: Mapping[str, Any] = field(default_factory=dict)  # of `positions.py`: constants of the graph, by name
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    constants: dict[tuple[str, tuple[Any, ...], bool], str] = field(default_factory=dict)
    _computed: dict[tuple[Side, ...], str] = field(default_factory=dict)
    _where: list[str] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _batch: str | None = None
    image: Value | None = None
    grid: Grid | None = None  # None: of one size
    shapes: dict[str, Shape] = field(default_factory=dict)  # of results whose shape no checker can infer

    # the operations of forward.py

    def run(self, function: Callable[..., Any], m: Scope, *args: Any) -> Any:
        x, spec, *rest = args
        with self._in(m.path):
            return function(m, x, spec, self, *rest)

    def weight(self, m: Scope) -> Value:
        shape = self.tensors[m.path].shape
        if self.grid is not None and m.path == "pos_embed":
            return self.grid.learned(self, self._weight(m.path))
        return Value(self._weight(m.path), shape)

    def table(self, m: Scope, x: Value) -> Value:
        if self.grid is not None:
            return self.grid.table(self, m.path)
        return Value(m.path, self.tables[m.path].shape)

    def patches(self, image: Value, size: tuple[int, int]) -> Value:
        if self.grid is not None:
            return self.grid.patches(self, image, size)
        (c, H, W), (p, q) = map(int, image.shape[1:]), size
        h, w = H // p, W // q
        x = self._node("Reshape", image.name, self._ints(-1, c, h, p, w, q))
        x = self._node("Transpose", x, perm=[0, 2, 4, 1, 3, 5])
        x = self._node("Reshape", x, self._ints(-1, c * p * q))
        return Value(x, (BATCH, h * w, c * p * q), flat=True)

    def linear(self, m: Scope, x: Value) -> Value:
        shape = self.tensors[f"{m.path}.weight"].shape
        return self._gemm(m, x, 0, shape[0])

    def norm(self, m: Scope, x: Value | Heads, eps: float) -> Value | Heads:
        with self._in(m.path):
            if isinstance(x, Heads):
                return Heads(self._norm(m, self._apart(x), eps), x.n)
            return self._norm(m, x, eps)

    def act(self, x: Value, name: str) -> Value:
        if name in SIGMOID:
            scaled = x.name if SIGMOID[name] == 1 else self._node("Mul", x.name, self._float(SIGMOID[name]))
            return self._like(x, "Mul", x.name, self._node("Sigmoid", scaled))
        if self.opset >= 20:
            return self._like(x, "Gelu", x.name, approximate="tanh" if name == "gelu_tanh" else "none")
        half = self._float(0.5)
        if name == "gelu":  # the form that onnxruntime fuses: x / sqrt 2, erf, + 1, x, / 2
            inner = self._node("Erf", self._node("Div", x.name, self._float(math.sqrt(2))))
        else:  # tanh(sqrt(2 / pi) (x + 0.044715 x^3))
            square = self._node("Mul", x.name, x.name)
            cubic = self._node("Mul", self._node("Mul", square, x.name), self._float(0.044715))
            inner = self._node("Mul", self._node("Add", x.name, cubic), self._float(math.sqrt(2 / math.pi)))
            inner = self._node("Tanh", inner)
        gate = self._node("Add", inner, self._float(1.0))
        return self._like(x, "Mul", self._node("Mul", x.name, gate), half)

    def probabilities(self, x: Value) -> Value:
        return self._like(x, "Softmax", x.name, axis=-1)

    def tanh(self, x: Value) -> Value:
        return self._like(x, "Tanh", x.name)

    def add(self, x: Value, y: Value) -> Value:
        if x.flat != y.flat:
            both = self._flat if x.shape[0] == y.shape[0] else self._full  # a table of positions has batch 1
            x, y = both(x), both(y)
        return self._like(x, "Add", x.name, y.name)

    def mul(self, x: Value, y: Value) -> Value:
        return self._like(x, "Mul", x.name, y.name)

    def halves(self, x: Value) -> tuple[Value, Value]:
        x, y = self._split(x, 2)
        return x, y

    def concat(self, parts: Sequence[Value]) -> Value:
        whole = [self._full(part) for part in parts]
        known = sum(part.shape[1] for part in whole if isinstance(part.shape[1], int))
        length = next((plus(part.shape[1], known) for part in whole if isinstance(part.shape[1], str)), known)
        return Value(self._node("Concat", *(part.name for part in whole), axis=1), (BATCH, length, whole[0].shape[2]))

    def prepend(self, first: Sequence[Scope], x: Value) -> Value:
        if not first:
            return x
        parts = [self.weight(m) for m in first]
        joined = parts[0] if len(parts) == 1 else self.concat(parts)
        return self.concat([self._expand(joined), x])

    def rows(self, x: Value, start: int, stop: int | None) -> Value:
        x = self._full(x)
        length, width = x.shape[1:]
        if stop is None and isinstance(length, int):
            stop = length
        if stop is not None and stop - start == 1:
            return Value(self._node("Gather", x.name, self._int(start), axis=1), (BATCH, 1, width), flat=True)
        name = self._node("Slice", x.name, self._ints(start), self._ints(END if stop is None else stop), self._ints(1))
        return Value(name, (BATCH, plus(length, -start) if stop is None else stop - start, width))

    def map(self, x: Value, grid: tuple[int, int]) -> Value:
        x = self._full(x)
        sides: Shape = (int(x.shape[2]), *(self.grid.sides if self.grid else grid))
        return Value(self._shaped(self._node("Transpose", x.name, perm=[0, 2, 1]), *sides), (BATCH, *sides))

    def squeeze(self, x: Value) -> Value:
        b, _, d = x.shape
        return Value(self._flat(x).name, (b, d))

    def mean(self, x: Value) -> Value:
        x = self._full(x)
        if self.opset >= 18:
            name = self._node("ReduceMean", x.name, self._ints(1), keepdims=0)
        else:
            name = self._node("ReduceMean", x.name, axes=[1], keepdims=0)
        return Value(name, (x.shape[0], x.shape[2]))

    def join(self, parts: Sequence[Value]) -> Value:
        if len(parts) == 1:
            return parts[0]
        width = sum(int(part.shape[1]) for part in parts)
        return Value(self._node("Concat", *(part.name for part in parts), axis=-1), (parts[0].shape[0], width))

    def average(self, parts: Sequence[Value]) -> Value:
        return parts[0] if len(parts) == 1 else self._like(parts[0], "Mean", *(part.name for part in parts))

    def heads(self, x: Value, heads: int) -> Heads:
        return Heads(x, heads)

    def qkv(
        self, m: Scope, x: Value, heads: int, rows: tuple[int, int] | None, biases: tuple[Scope, Scope] | None
    ) -> tuple[Heads, Heads, Heads]:
        inner = self.tensors[f"{m.path}.weight"].shape[0] // 3
        own = (None, None, None) if biases is None else (biases[0], None, biases[1])
        queried = x if rows is None else self.rows(x, *rows)
        q, k, v = self._rows_of(m, (queried, x, x), inner, own)
        return Heads(q, heads), Heads(k, heads), Heads(v, heads)

    def kv(self, m: Scope, x: Value, heads: int) -> tuple[Heads, Heads]:
        k, v = self._rows_of(m, (x, x), self.tensors[f"{m.path}.weight"].shape[0] // 2, (None, None))
        return Heads(k, heads), Heads(v, heads)

    def rotate(self, x: Heads, cos: Value, sin: Value) -> Heads:
        """Turn the pairs of a head's first and second half; the tables are t 1 e/2."""
        whole = self._apart(x)
        (first, second), c, s = (part.name for part in self._split(whole, 2)), cos.name, sin.name
        one = self._node("Sub", self._node("Mul", first, c), self._node("Mul", second, s))
        other = self._node("Add", self._node("Mul", second, c), self._node("Mul", first, s))
        return Heads(self._like(whole, "Concat", one, other, axis=-1), x.n)

    def attend(self, q: Heads, k: Heads, v: Heads, dropout: float) -> Value:
        inner = v.inner
        if self.opset >= 23:
            query = self._merged(q)
            query = query if query.shape[0] == BATCH else self._expand(query)
            x = self._attention(query.name, self._merged(k).name, self._merged(v).name, q.n)
            return Value(x, (BATCH, q.x.shape[1], inner))
        x = self._matmul(self._softmax(q, k), self._transposed(v, 0, 2, 1, 3))
        x = self._node("Reshape", self._node("Transpose", x, perm=[0, 2, 1, 3]), self._ints(-1, inner))
        return Value(x, (BATCH, q.x.shape[1], inner), flat=True)

    def attention_weights(self, q: Heads, k: Heads) -> Value:
        return Value(self._softmax(q, k), (BATCH, q.n, q.x.shape[1], k.x.shape[1]))

    def dropout(self, x: Value, rate: float) -> Value:
        return x

    def drop_path(self, x: Value, m: Scope) -> Value:
        return x

    def prunes(self, m: Scope) -> bool:
        return True

    # what they are made of

    def _rows_of(self, m: Scope, inputs: Sequence[Value], rows: int, biases: Sequence[Scope | None]) -> list[Value]:
        """Each input times its share of a fused weight's rows: separate products, because Split would copy a joint one."""
        with self._in(m.path):
            flat = {x: self._flat(x) for x in dict.fromkeys(inputs)}
        given = enumerate(zip(inputs, biases, strict=True))
        return [self._gemm(m, flat[x], i * rows, (i + 1) * rows, bias) for i, (x, bias) in given]

    def _gemm(self, m: Scope, x: Value, start: int, stop: int, bias: Scope | None = None) -> Value:
        """x times some rows of a weight, all of them or a slice of a fused one; `bias` replaces the layer's own."""
        with self._in(m.path):
            flat = self._flat(x).name
            added = self._bias(m, start, stop) if bias is None else self._weight(bias.path)
            return Value(self._product(m, flat, start, stop, added), (*x.shape[:-1], stop - start), flat=len(x.shape) == 3)

    def _bias(self, m: Scope, start: int, stop: int) -> str | None:
        return self._weight(f"{m.path}.bias", start, stop) if f"{m.path}.bias" in self.tensors else None

    def _product(self, m: Scope, x: str, start: int, stop: int, bias: str | None) -> str:
        weight = self._weight(f"{m.path}.weight", start, stop, matrix=True)
        return self._node("Gemm", x, weight, *filter(None, [bias]), transB=1)

    def _matmul(self, x: str, y: str) -> str:
        return self._node("MatMul", x, y)

    def _attention(self, q: str, k: str, v: str, heads: int) -> str:
        return self._node("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads)

    def _norm(self, m: Scope, x: Value, eps: float) -> Value:
        weight, bias = self._weight(f"{m.path}.weight"), self._weight(f"{m.path}.bias")
        return self._like(x, "LayerNormalization", x.name, weight, bias, axis=-1, epsilon=eps)

    def _split(self, x: Value, parts: int) -> list[Value]:
        width = int(x.shape[-1]) // parts
        names = self._new("Split", parts)
        self._emit("Split", (x.name, self._ints(*[width] * parts)), names, axis=-1)
        return [Value(name, (*x.shape[:-1], width), x.flat) for name in names]

    def _apart(self, h: Heads) -> Value:
        """b t n e."""
        if len(h.x.shape) == 4:
            return h.x
        b, t, inner = h.x.shape
        e = int(inner) // h.n
        return Value(self._shaped(h.x.name, t, h.n, e), (b, t, h.n, e))

    def _merged(self, h: Heads) -> Value:
        """b t (n e)."""
        if len(h.x.shape) == 3:
            return self._full(h.x)
        return Value(self._shaped(h.x.name, h.x.shape[1], h.inner), (*h.x.shape[:2], h.inner))

    def _transposed(self, h: Heads, *perm: int) -> str:
        return self._node("Transpose", self._apart(h).name, perm=list(perm))

    def _softmax(self, q: Heads, k: Heads) -> str:
        query = self._node("Mul", self._transposed(q, 0, 2, 1, 3), self._float((q.inner // q.n) ** -0.5))
        return self._node("Softmax", self._matmul(query, self._transposed(k, 0, 2, 3, 1)), axis=-1)

    def _expand(self, x: Value) -> Value:
        """Batch 1 to the batch of the image."""
        if self._batch is None:
            assert self.image is not None
            self._batch = self._node("Shape", self.image.name, start=0, end=1)
        shape = self._node("Concat", self._batch, self._ints(*(int(side) for side in x.shape[1:])), axis=0)
        return Value(self._node("Expand", x.name, shape), (BATCH, *x.shape[1:]))

    def _flat(self, x: Value) -> Value:
        if x.flat or len(x.shape) == 2:
            return x
        return Value(self._node("Reshape", x.name, self._ints(-1, int(x.shape[2]))), x.shape, flat=True)

    def _full(self, x: Value) -> Value:
        if not x.flat:
            return x
        return Value(self._shaped(x.name, *x.shape[1:]), x.shape)

    def _shaped(self, x: str, *sides: Side) -> str:
        """x as b and these sides."""
        if all(isinstance(side, int) for side in sides):
            return self._node("Reshape", x, self._ints(-1, *map(int, sides)))
        name = self._node("Reshape", x, self._sizes(-1, *sides))
        self.shapes[name] = (BATCH, *sides)
        return name

    def _sizes(self, *sides: Side) -> str:
        """A shape that is computed, once for all who need it."""
        if sides not in self._computed:
            with self._in("sizes"):
                parts = [self._ints(side) if isinstance(side, int) else self._side(side) for side in sides]
                self._computed[sides] = self._node("Concat", *parts, axis=0)
        return self._computed[sides]

    def _side(self, side: str) -> str:
        """A length as an int64 of one element."""
        base, _, more = side.partition("+")
        if more and (side,) not in self._computed:
            self._computed[(side,)] = self._node("Add", base, self._ints(int(more)))
        return self._computed[(side,)] if more else base

    def _like(self, x: Value, op: str, *inputs: str, **attributes: Any) -> Value:
        return Value(self._node(op, *inputs, **attributes), x.shape, x.flat)

    def _weight(self, key: str, start: int = 0, stop: int | None = None, *, matrix: bool = False) -> str:
        """The name of a weight in float32; those stored in another type get a Cast, which onnxruntime folds."""
        name = self._initializer(key, start, stop, matrix=matrix)
        return name if self.tensors[key].dtype == "F32" else self._node("Cast", name, to=FLOAT)

    def _initializer(self, key: str, start: int = 0, stop: int | None = None, *, matrix: bool = False) -> str:
        """The name of a weight as it is stored, all of it or some rows."""
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

    def _ints(self, *values: int) -> str:
        return self._constant("i", values, vector=True)

    def _int(self, value: int) -> str:
        return self._constant("i", (value,), vector=False)

    def _float(self, value: float) -> str:
        return self._constant("f", (value,), vector=False)

    def _floats(self, *values: float) -> str:
        return self._constant("f", values, vector=True)

    def _doubles(self, *values: float) -> str:
        return self._constant("d", values, vector=True)

    def _double(self, value: float) -> str:
        return self._constant("d", (value,), vector=False)

    def _byte(self, value: int) -> str:
        return self._constant("u", (value,), vector=False)

    def _constant(self, kind: str, values: tuple[Any, ...], *, vector: bool) -> str:
        key = (kind, values, vector)
        return self.constants.setdefault(key, f"constant.{len(self.constants)}")

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        (name,) = self._new(op, 1)
        self._emit(op, inputs, (name,), **attributes)
        return name

    def _new(self, op: str, count: int) -> tuple[str, ...]:
        """Names for results, from the place in the model that makes them."""
        where = f"{self._where[-1] if self._where else 'vit'}/{op}"
        number = self._counts[where] = self._counts.get(where, -1) + 1
        stem = where if number == 0 else f"{where}_{number}"
        return (stem,) if count == 1 else tuple(f"{stem}:{i}" for i in range(count))

    def _emit(self, op: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **attributes: Any) -> None:
        self.nodes.append(Node(op, inputs, outputs, outputs[0].partition(":")[0], attributes))

    @contextmanager
    def _in(self, path: str) -> Iterator[None]:
        self._where.append(path)
        try:
            yield
        finally:
            self._where.pop()


if TYPE_CHECKING:
    _complete: type[Ops] = OnnxOps  # fails to type-check when an operation is missing or differs
