"""ONNX back end of the forward: standard operators of opset 13 to 25, added without tracing and without torch.

Tokens keep the layout (b t) d from one attention to the next, so that every linear layer is one Gemm including its bias:
onnxruntime runs that faster than MatMul and Add, and Gemm(transB=1) takes torch's weights in the layout of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vit_zoo.graph.builder import GraphBuilder
from vit_zoo.graph.dynamic_positions import DynamicGrid
from vit_zoo.graph.relative_biases import pairs_of
from vit_zoo.graph.values import COLUMNS, ROWS, Dim, Heads, Scope, Shape, Value, plus

if TYPE_CHECKING:
    from vit_zoo.model.ops import Activation, Ops
    from vit_zoo.model.spec import ViTSpec

END = 2**63 - 1  # stands for the end of any axis
SIGMOID = {"quick_gelu": 1.702, "silu": 1.0}  # x sigmoid(scale x)


@dataclass
class OnnxOps(GraphBuilder):
    """The operations of `ops.py`, which add nodes while `forward.vit` runs with a `Scope` in place of a module."""

    image: Value | None = None  # the model's input; learned tokens are repeated for its batch
    grid: DynamicGrid | None = None  # None: images have a fixed size
    _batch: str | None = field(default=None, init=False)

    # operations of the forward

    def run(self, function: Callable[..., Any], m: Scope, *args: Any) -> Any:
        x, spec, *rest = args
        with self.scope(m.path):
            return function(m, x, spec, self, *rest)

    def weight(self, m: Scope) -> Value:
        shape = self.tensors[m.path].shape
        if self.grid is not None and m.path == "pos_embed":
            return self.grid.learned(self, self.float_weight(m.path))
        return Value(self.float_weight(m.path), shape)

    def table(self, m: Scope, x: Value) -> Value:
        if self.grid is not None:
            return self.grid.table(self, m.path)
        return Value(m.path, self.tables[m.path].shape)

    def patches(self, image: Value, size: tuple[int, int]) -> Value:
        if self.grid is not None:
            return self.grid.patches(self, image, size)
        (c, H, W), (p, q) = map(int, image.shape[1:]), size
        h, w = H // p, W // q
        shape: Shape = (self.batch, h * w, c * p * q)
        if self.narrow:  # in two steps: b c h (p w q) -> (b h) (c p) w q -> (b h) w (c p) q
            x = self.node("Transpose", self.reshape(image.name, c, h, p * W, batch=self.batch), perm=[0, 2, 1, 3])
            rows = self.batch * h if isinstance(self.batch, int) else -1
            x = self.node("Transpose", self.node("Reshape", x, self.ints(rows, c * p, w, q)), perm=[0, 2, 1, 3])
        else:
            x = self.node("Transpose", self.reshape(image.name, c, h, p, w, q), perm=[0, 2, 4, 1, 3, 5])
        return Value(self.node("Reshape", x, self.ints(_merged(shape), c * p * q)), shape, flat=True)

    def linear(self, m: Scope, x: Value) -> Value:
        shape = self.tensors[f"{m.path}.weight"].shape
        return self._linear_rows(m, x, 0, shape[0])

    def norm(self, m: Scope, x: Value | Heads, spec: ViTSpec) -> Value | Heads:
        norm = self._rms_norm if spec.norm == "rms" else self._norm
        with self.scope(m.path):
            if isinstance(x, Heads):
                return Heads(norm(m, self._split_heads(x), spec.norm_eps), x.n)
            return norm(m, x, spec.norm_eps)

    def act(self, x: Value, name: str) -> Value:
        if name in SIGMOID:
            scaled = x.name if SIGMOID[name] == 1 else self.node("Mul", x.name, self.float_(SIGMOID[name]))
            return self._like(x, "Mul", x.name, self.node("Sigmoid", scaled))
        if self.opset >= 20:
            return self._like(x, "Gelu", x.name, approximate="tanh" if name == "gelu_tanh" else "none")
        if name == "gelu_tanh":
            return self.tanh_gelu(x)
        # in the order that onnxruntime fuses: x / sqrt 2, erf, + 1, * x, * 0.5
        inner = self.node("Erf", self.node("Div", x.name, self.float_(math.sqrt(2))))
        gate = self.node("Add", inner, self.float_(1.0))
        return self._like(x, "Mul", self.node("Mul", x.name, gate), self.float_(0.5))

    def tanh_gelu(self, x: Value) -> Value:
        """Add the tanh form of GELU as separate operators: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
        square = self.node("Mul", x.name, x.name)
        cubic = self.node("Mul", self.node("Mul", square, x.name), self.float_(0.044715))
        inner = self.node("Mul", self.node("Add", x.name, cubic), self.float_(math.sqrt(2 / math.pi)))
        gate = self.node("Add", self.node("Tanh", inner), self.float_(1.0))
        return self._like(x, "Mul", self.node("Mul", x.name, gate), self.float_(0.5))

    def probabilities(self, x: Value, activation: Activation) -> Value:
        return self._like(x, "Sigmoid", x.name) if activation == "sigmoid" else self._like(x, "Softmax", x.name, axis=-1)

    def tanh(self, x: Value) -> Value:
        return self._like(x, "Tanh", x.name)

    def normalize(self, x: Value) -> Value:
        if self.narrow:  # the root of the mean of squares is smaller than the norm by the root of their number
            mean = self.mean_over(self.node("Mul", x.name, x.name), -1, keep=True)
            norm = self.node("Mul", self.node("Sqrt", mean), self.float_(math.sqrt(int(x.shape[-1]))))
        elif self.opset >= 18:
            norm = self.node("ReduceL2", x.name, self.ints(-1), keepdims=1)
        else:
            norm = self.node("ReduceL2", x.name, axes=[-1], keepdims=1)
        return self._like(x, "Div", x.name, norm)

    def add(self, x: Value, y: Value) -> Value:
        if x.flat != y.flat:
            layout = self.flatten if x.shape[0] == y.shape[0] else self.unflatten  # a table of positions has batch 1
            x, y = layout(x), layout(y)
        return self._like(x, "Add", x.name, y.name)

    def mul(self, x: Value, y: Value) -> Value:
        return self._like(x, "Mul", x.name, y.name)

    def halves(self, x: Value) -> tuple[Value, Value]:
        x, y = self._split(x, 2)
        return x, y

    def concat(self, parts: Sequence[Value]) -> Value:
        parts = [self.unflatten(part) for part in parts]
        known = sum(part.shape[1] for part in parts if isinstance(part.shape[1], int))
        length = next((plus(part.shape[1], known) for part in parts if isinstance(part.shape[1], str)), known)
        return Value(self.node("Concat", *(part.name for part in parts), axis=1), (self.batch, length, parts[0].shape[2]))

    def prepend(self, first: Sequence[Scope], x: Value) -> Value:
        if not first:
            return x
        parts = [self.weight(m) for m in first]
        joined = parts[0] if len(parts) == 1 else self.concat(parts)
        return self.concat([self._expand(joined), x])

    def rows(self, x: Value, start: int, stop: int | None) -> Value:
        x = self.unflatten(x)
        length, width = x.shape[1:]
        if stop is None and isinstance(length, int):
            stop = length
        if stop is not None and stop - start == 1 and not self.narrow:
            return Value(self.node("Gather", x.name, self.int_(start), axis=1), (self.batch, 1, width), flat=True)
        name = self.node("Slice", x.name, self.ints(start), self.ints(END if stop is None else stop), self.ints(1))
        return Value(name, (self.batch, plus(length, -start) if stop is None else stop - start, width))

    def map(self, x: Value, grid: tuple[int, int]) -> Value:
        x = self.unflatten(x)
        dims: Shape = (int(x.shape[2]), *((ROWS, COLUMNS) if self.grid else grid))
        return Value(self.reshape(self.node("Transpose", x.name, perm=[0, 2, 1]), *dims, batch=self.batch), (self.batch, *dims))

    def squeeze(self, x: Value) -> Value:
        b, _, d = x.shape
        return Value(self.flatten(x).name, (b, d))

    def mean(self, x: Value) -> Value:
        x = self.unflatten(x)
        return Value(self.mean_over(x.name, 1), (x.shape[0], x.shape[2]))

    def join(self, parts: Sequence[Value]) -> Value:
        if len(parts) == 1:
            return parts[0]
        width = sum(int(part.shape[1]) for part in parts)
        return Value(self.node("Concat", *(part.name for part in parts), axis=-1), (parts[0].shape[0], width))

    def average(self, parts: Sequence[Value]) -> Value:
        if len(parts) == 1:
            return parts[0]
        if not self.narrow:
            return self._like(parts[0], "Mean", *(part.name for part in parts))
        total = parts[0].name
        for part in parts[1:]:
            total = self.node("Add", total, part.name)
        return self._like(parts[0], "Mul", total, self.float_(1 / len(parts)))

    def heads(self, x: Value, heads: int) -> Heads:
        return Heads(x, heads)

    def qkv(
        self, m: Scope, x: Value, heads: int, rows: tuple[int, int] | None, biases: tuple[Scope, Scope] | None
    ) -> tuple[Heads, Heads, Heads]:
        inner = self.tensors[f"{m.path}.weight"].shape[0] // 3
        own = (None, None, None) if biases is None else (biases[0], None, biases[1])
        query = x if rows is None else self.rows(x, *rows)
        q, k, v = self._fused_linear(m, (query, x, x), inner, own)
        return Heads(q, heads), Heads(k, heads), Heads(v, heads)

    def kv(self, m: Scope, x: Value, heads: int) -> tuple[Heads, Heads]:
        k, v = self._fused_linear(m, (x, x), self.tensors[f"{m.path}.weight"].shape[0] // 2, (None, None))
        return Heads(k, heads), Heads(v, heads)

    def mixed_rotations(self, freqs: Scope, places: Value, depth: int) -> list[tuple[Value, Value]]:
        _, _, n, e = self.tensors[freqs.path].shape
        with self.scope("rope"):
            axes = self.results("Split", 2, self.float_weight(freqs.path), self.ints(1, 1), axis=0)
            columns, rows = (self.results("Split", depth, axis, self.ints(*[1] * depth), axis=1) for axis in axes)
            x, y = self.results("Split", 2, places.name, self.ints(1, 1), axis=0)  # 1 t 1 1
            angles = (
                self.node("Add", self.node("Mul", x, column), self.node("Mul", y, row))  # 1 t n e/2
                for column, row in zip(columns, rows, strict=True)
            )
            shape: Shape = (places.shape[1], n, e)
            return [(Value(self.node("Cos", angle), shape), Value(self.node("Sin", angle), shape)) for angle in angles]

    def rotate(self, x: Heads, rope: tuple[Value, Value] | None, spec: ViTSpec) -> Heads:
        if rope is None and not spec.rotates_neighbours:
            return x
        separate = self._split_heads(x)
        halves = self._neighbours(separate) if spec.rotates_neighbours else (part.name for part in self._split(separate, 2))
        first, second = halves
        if rope is None:
            return Heads(self._like(separate, "Concat", first, second, axis=-1), x.n)
        c, s = (table.name for table in rope)
        one = self.node("Sub", self.node("Mul", first, c), self.node("Mul", second, s))
        other = self.node("Add", self.node("Mul", second, c), self.node("Mul", first, s))
        return Heads(self._like(separate, "Concat", one, other, axis=-1), x.n)

    def pairs(self, m: Scope) -> Value:
        return Value(m.path, self.tables[m.path].shape)

    def relative_bias(self, table: Scope, pairs: Value) -> Value:
        if self.narrow:  # looked up before: `relative_biases.py`
            name = pairs_of(table.path)
            return Value(self.float_weight(name), self.tensors[name].shape)
        shape: Shape = (1, self.tensors[table.path].shape[1], *pairs.shape)
        columns = self.node("Transpose", self.float_weight(table.path), perm=[1, 0])
        return Value(self.node("Unsqueeze", self.node("Gather", columns, pairs.name, axis=1), self.ints(0)), shape)

    def bias_rows(self, bias: Value, rows: tuple[int, int]) -> Value:
        name = self.node("Slice", bias.name, self.ints(rows[0]), self.ints(rows[1]), self.ints(2))
        return Value(name, (*bias.shape[:2], rows[1] - rows[0], bias.shape[3]))

    def attend(self, q: Heads, k: Heads, v: Heads, dropout: float, bias: Value | None = None) -> Value:
        inner = v.inner
        shape: Shape = (self.batch, q.x.shape[1], inner)
        if self.fuses_attention:
            query = self._join_heads(q)
            query = query if query.shape[0] == self.batch else self._expand(query)
            inputs = [query.name, self._join_heads(k).name, self._join_heads(v).name, *([bias.name] if bias else [])]
            x = self.fused_attention(inputs, q.n)
            return Value(x, shape)
        x = self.matmul(self._softmax(q, k, bias), self._transposed(v, 0, 2, 1, 3))
        x = self.node("Reshape", self.node("Transpose", x, perm=[0, 2, 1, 3]), self.ints(_merged(shape), inner))
        return Value(x, shape, flat=True)

    def attention_weights(self, q: Heads, k: Heads, bias: Value | None = None) -> Value:
        return Value(self._softmax(q, k, bias), (self.batch, q.n, q.x.shape[1], k.x.shape[1]))

    def dropout(self, x: Value, rate: float) -> Value:
        return x

    def drop_path(self, x: Value, m: Scope) -> Value:
        return x

    def prunes(self, m: Scope) -> bool:
        return True

    # what `core_ops.py` and a fixed batch change

    @property
    def batch(self) -> Dim:
        """The first axis of the image: a number of images, or the name of a free axis."""
        assert self.image is not None
        return self.image.shape[0]

    @property
    def narrow(self) -> bool:
        """Whether to leave out what compilers for devices lack and what costs little to replace: Gather, Mean, ranks above 4."""
        return isinstance(self.batch, int)

    @property
    def fuses_attention(self) -> bool:
        """Whether attention is one operator."""
        return self.opset >= 23

    @property
    def has_rms_norm(self) -> bool:
        """Whether an RMS norm is one operator."""
        return self.opset >= 23

    # products, which other precisions override; inputs and results are names

    def product(self, m: Scope, x: str, start: int, stop: int, bias: str | None) -> str:
        """Multiply by rows `start` to `stop` of a layer's weight and add `bias`: (b t) i -> (b t) o."""
        weight = self.float_weight(f"{m.path}.weight", start, stop, matrix=True)
        return self.node("Gemm", x, weight, *filter(None, [bias]), transB=1)

    def bias(self, m: Scope, start: int, stop: int) -> str | None:
        """Return rows `start` to `stop` of a layer's bias; None if it has no bias."""
        return self.float_weight(f"{m.path}.bias", start, stop) if f"{m.path}.bias" in self.tensors else None

    def matmul(self, x: str, y: str) -> str:
        """Multiply two activations, as attention does: b n r e and b n e t -> b n r t, or b n r t and b n t e -> b n r e."""
        return self.node("MatMul", x, y)

    def fused_attention(self, inputs: Sequence[str], heads: int) -> str:
        """Add one Attention node, from opset 23 on: queries, keys and values, each b t (n e), and the bias if there is one."""
        return self.node("Attention", *inputs, q_num_heads=heads, kv_num_heads=heads)

    # layout: batch and tokens, or heads and their width, as one axis or as two

    def flatten(self, x: Value) -> Value:
        """Merge batch and tokens: b t d -> (b t) d; b d is left unchanged."""
        if x.flat or len(x.shape) == 2:
            return x
        return Value(self.node("Reshape", x.name, self.ints(_merged(x.shape), int(x.shape[2]))), x.shape, flat=True)

    def unflatten(self, x: Value) -> Value:
        """Separate batch and tokens: (b t) d -> b t d."""
        if not x.flat:
            return x
        return Value(self.reshape(x.name, *x.shape[1:], batch=x.shape[0]), x.shape)

    def _split_heads(self, h: Heads) -> Value:
        """Separate heads: b t (n e) -> b t n e."""
        if len(h.x.shape) == 4:
            return h.x
        b, t, inner = h.x.shape
        e = int(inner) // h.n
        return Value(self.reshape(h.x.name, t, h.n, e, batch=b), (b, t, h.n, e))

    def _join_heads(self, h: Heads) -> Value:
        """Concatenate heads: b t n e -> b t (n e)."""
        if len(h.x.shape) == 3:
            return self.unflatten(h.x)
        return Value(self.reshape(h.x.name, h.x.shape[1], h.inner, batch=h.x.shape[0]), (*h.x.shape[:2], h.inner))

    def _expand(self, x: Value) -> Value:
        """Repeat a value of batch 1 for the batch of the image: 1 t d -> b t d."""
        if isinstance(self.batch, int):
            repeated = x.name if self.batch == 1 else self.node("Concat", *[x.name] * self.batch, axis=0)
            return Value(repeated, (self.batch, *x.shape[1:]))
        if self._batch is None:
            assert self.image is not None
            self._batch = self.lengths(self.image.name, 0, 1)
        shape = self.node("Concat", self._batch, self.ints(*(int(dim) for dim in x.shape[1:])), axis=0)
        return Value(self.node("Expand", x.name, shape), (self.batch, *x.shape[1:]))

    # parts of operations

    def _fused_linear(self, m: Scope, inputs: Sequence[Value], rows: int, biases: Sequence[Scope | None]) -> list[Value]:
        """Multiply each input by its own `rows` rows of a fused weight, with its own bias (None: the layer's).

        The products are separate because the Split after a joint one would copy its result.
        """
        with self.scope(m.path):
            flat = {x: self.flatten(x) for x in dict.fromkeys(inputs)}
        layers = enumerate(zip(inputs, biases, strict=True))
        return [self._linear_rows(m, flat[x], i * rows, (i + 1) * rows, bias) for i, (x, bias) in layers]

    def _linear_rows(self, m: Scope, x: Value, start: int, stop: int, bias: Scope | None = None) -> Value:
        """Apply rows `start` to `stop` of a linear layer. `bias` replaces the layer's own."""
        with self.scope(m.path):
            flat = self.flatten(x).name
            added = self.bias(m, start, stop) if bias is None else self.float_weight(bias.path)
            return Value(self.product(m, flat, start, stop, added), (*x.shape[:-1], stop - start), flat=len(x.shape) == 3)

    def _norm(self, m: Scope, x: Value, eps: float) -> Value:
        """Add a LayerNormalization over the last axis, with the layer's bias if it has one."""
        names = [f"{m.path}.weight", *([f"{m.path}.bias"] if f"{m.path}.bias" in self.tensors else [])]
        return self._like(x, "LayerNormalization", x.name, *map(self.float_weight, names), axis=-1, epsilon=eps)

    def _rms_norm(self, m: Scope, x: Value, eps: float) -> Value:
        """Add an RMS norm over the last axis. Of the operators before opset 23, onnxruntime makes one."""
        weight = self.float_weight(f"{m.path}.weight")
        if self.has_rms_norm:
            return self._like(x, "RMSNormalization", x.name, weight, axis=-1, epsilon=eps)
        square = self.mean_over(self.node("Pow", x.name, self.float_(2.0)), -1, keep=True)
        scaled = self.node("Div", x.name, self.node("Sqrt", self.node("Add", square, self.float_(eps))))
        return self._like(x, "Mul", scaled, weight)

    def _neighbours(self, x: Value) -> tuple[str, str]:
        """Return the elements of each head with even and those with odd numbers: b t n e -> b t n e/2, twice."""
        end, last, two = self.ints(END), self.ints(-1), self.ints(2)
        first, second = (self.node("Slice", x.name, self.ints(start), end, last, two) for start in (0, 1))
        return first, second

    def _softmax(self, q: Heads, k: Heads, bias: Value | None) -> str:
        """Return the attention weights: b n r t."""
        query = self.node("Mul", self._transposed(q, 0, 2, 1, 3), self.float_((q.inner // q.n) ** -0.5))
        scores = self.matmul(query, self._transposed(k, 0, 2, 3, 1))
        return self.node("Softmax", scores if bias is None else self.node("Add", scores, bias.name), axis=-1)

    def _transposed(self, h: Heads, *perm: int) -> str:
        return self.node("Transpose", self._split_heads(h).name, perm=list(perm))

    def _split(self, x: Value, parts: int) -> list[Value]:
        """Split the last axis into equal parts."""
        width = int(x.shape[-1]) // parts
        names = self.results("Split", parts, x.name, self.ints(*[width] * parts), axis=-1)
        return [Value(name, (*x.shape[:-1], width), x.flat) for name in names]

    def _like(self, x: Value, op: str, *inputs: str, **attributes: Any) -> Value:
        """Add a node whose result has the shape and layout of `x`."""
        return Value(self.node(op, *inputs, **attributes), x.shape, x.flat)


def _merged(shape: Shape) -> int:
    """Return the length of the merged axes but the last, or -1 if one of them is not known."""
    return math.prod(map(int, shape[:-1])) if all(isinstance(dim, int) for dim in shape[:-1]) else -1


if TYPE_CHECKING:
    _complete: type[Ops] = OnnxOps  # a type error if an operation is missing or its signature differs
