"""Operations that the forward needs: the contract that a back end implements.

`torch_ops.py` computes tensors, `graph/onnx_ops.py` adds nodes to a graph; mypy checks that each of them has every method
of `Ops`. To add a back end, implement this class; to add an operation, declare it here and implement it in both.

b batch · t tokens · d dim · n heads · e head width · c channels · p q patch · h w grid · r query rows
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Module = Any  # parameters of a part of the model: a torch module, or a `Scope` of weight names
Parameter = Any  # a single parameter of one: a torch parameter, or a `Scope`
Tensor = Any  # a torch tensor, or a `Value` of a graph
Heads = Any  # b n t e in torch; a graph keeps b t (n e) as long as it can
Rows = tuple[int, int]  # first token, and the one after the last
Rope = Any  # the tables that rotate queries and keys: cosines and sines, each t 1 e/2


class Ops(Protocol):
    """A back end. Shapes are those of torch; a graph may lay values out in other ways between two operations."""

    # parts, parameters, tables

    def run(self, function: Callable[..., Any], m: Module, *args: Any) -> Any:
        """Compute `function(m, x, spec, op, ...)`, a part of the forward, given `args` without `op`."""

    def weight(self, m: Parameter) -> Tensor:
        """A parameter as a tensor, in its own shape."""

    def table(self, m: Parameter, x: Tensor) -> Tensor:
        """A table of `positions.py` in the type of `x`: `pos_embed` 1 t d, `rope_cos` and `rope_sin` t 1 e/2."""

    # layers

    def patches(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """b c (h p) (w q) -> b (h w) (c p q), for patches of `size` p q."""

    def linear(self, m: Module, x: Tensor) -> Tensor:
        """A linear layer on the last axis: b t i -> b t o, or b i -> b o."""

    def norm(self, m: Module, x: Tensor, eps: float) -> Tensor:
        """The norm of a layer over the last axis: b t d, b d or b n t e, shape unchanged."""

    def act(self, x: Tensor, name: str) -> Tensor:
        """The activation `spec.act`, element by element."""

    def tanh(self, x: Tensor) -> Tensor:
        """Hyperbolic tangent, element by element."""

    def probabilities(self, x: Tensor) -> Tensor:
        """Softmax over the classes: b k."""

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Dropout while training, else `x`."""

    def drop_path(self, x: Tensor, m: Module) -> Tensor:
        """Stochastic depth at the rate of the block `m` while training, else `x`."""

    # arithmetic and layout

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum, broadcast over the batch: b t d and b t d, or 1 t d."""

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """Product, broadcast: b t d and b t d, or d."""

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the second half of the last axis."""

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        """Tokens one after the other: each b t d."""

    def prepend(self, first: Sequence[Parameter], x: Tensor) -> Tensor:
        """Learned tokens, each 1 t d, repeated over the batch, in front of `x`, b t d."""

    def rows(self, x: Tensor, start: int, stop: int | None) -> Tensor:
        """Tokens `start` to `stop` (None: the last): b t d -> b r d."""

    def map(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches in their places: b (h w) d -> b d h w."""

    def squeeze(self, x: Tensor) -> Tensor:
        """b 1 d -> b d."""

    def mean(self, x: Tensor) -> Tensor:
        """Mean of the tokens: b t d -> b d."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Vectors of one image side by side: each b d -> b (sum of d)."""

    def average(self, parts: Sequence[Tensor]) -> Tensor:
        """Mean of tensors of one shape: each b d -> b d."""

    # attention

    def heads(self, x: Tensor, heads: int) -> Heads:
        """b t (n e) -> b n t e."""

    def qkv(
        self, m: Module, x: Tensor, heads: int, rows: Rows | None, biases: tuple[Parameter, Parameter] | None
    ) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values by one fused layer of 3 (n e) outputs: b t d -> b n r e, b n t e, b n t e.

        Queries are made for `rows` only (None: for all tokens). `biases`, each (n e), are added to queries and values.
        """

    def kv(self, m: Module, x: Tensor, heads: int) -> tuple[Heads, Heads]:
        """Keys and values by one fused layer of 2 (n e) outputs: b t d -> b n t e, b n t e."""

    def rotate(self, x: Heads, rope: Rope) -> Heads:
        """Rotate the pairs made of a head's first and second half: b n t e."""

    def attend(self, q: Heads, k: Heads, v: Heads, dropout: float, bias: Tensor | None = None) -> Tensor:
        """softmax(q kᵀ / √e + bias) v with the heads side by side: b n r e, b n t e, b n t e -> b r (n e).

        `q` may have batch 1. `bias` is 1 n r t.
        """

    def attention_weights(self, q: Heads, k: Heads, bias: Tensor | None = None) -> Tensor:
        """softmax(q kᵀ / √e + bias): b n r e, b n t e -> b n r t."""

    def prunes(self, m: Module) -> bool:
        """Whether the last block `m` may leave out rows that no output needs."""
