"""Interface of a back end: the operations that `forward.py` calls, with their shapes.

`torch_ops.py` computes tensors, `graph/onnx_ops.py` adds nodes to a graph. mypy checks that both implement every method of
`Ops`. To add a back end, implement this class. To add an operation, declare it here and implement it in both.

Shapes: b batch · t tokens · r query rows · d dim · n heads · e head width · k classes · c channels · p q patch · h w grid
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

Module = Any  # a part of the model with its parameters: a torch module, or a `Scope` of weight names
Parameter = Any  # a single parameter: a torch parameter, or a `Scope`
Tensor = Any  # a torch tensor, or a `Value` of a graph
Activation = Literal["softmax", "sigmoid"]  # from logits to probabilities
Heads = Any  # b n t e in torch; a graph keeps b t (n e) as long as it can
Rows = tuple[int, int]  # first token, and the one after the last
Rope = Any  # tables that rotate queries and keys: cosines and sines, each t 1 e/2


class Ops(Protocol):
    """A back end. The shapes are torch's; a graph may use other layouts between two operations."""

    # parts of the model, parameters, tables

    def run(self, function: Callable[..., Any], m: Module, *args: Any) -> Any:
        """Compute a part of the forward, `function(m, x, spec, op, *more)`, where `args` are `x`, `spec` and `more`.

        torch calls the module `m`, so that its hooks fire; a graph names the nodes after it.
        """

    def weight(self, m: Parameter) -> Tensor:
        """Return a parameter as a tensor of the same shape."""

    def table(self, m: Parameter, x: Tensor) -> Tensor:
        """Return a table of `positions.py` in the type of `x`: `pos_embed` 1 t d, `rope_cos` or `rope_sin` t 1 e/2."""

    # layers

    def patches(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Cut an image into flat patches of `size` p q: b c (h p) (w q) -> b (h w) (c p q)."""

    def linear(self, m: Module, x: Tensor) -> Tensor:
        """Apply a linear layer to the last axis: b t i -> b t o, or b i -> b o."""

    def norm(self, m: Module, x: Tensor, eps: float) -> Tensor:
        """Apply a norm to the last axis: b t d, b d or b n t e, shape unchanged."""

    def act(self, x: Tensor, name: str) -> Tensor:
        """Apply an activation by its name in `spec.act`, element by element."""

    def tanh(self, x: Tensor) -> Tensor:
        """Apply the hyperbolic tangent, element by element."""

    def normalize(self, x: Tensor) -> Tensor:
        """Divide each vector by its L2 norm: b d, shape unchanged."""

    def probabilities(self, x: Tensor, activation: Activation) -> Tensor:
        """Apply softmax over the classes, or the sigmoid to each: b k."""

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Apply dropout in training; otherwise return `x`."""

    def drop_path(self, x: Tensor, m: Module) -> Tensor:
        """Apply stochastic depth at the rate of the block `m` in training; otherwise return `x`."""

    # arithmetic and layout

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + y: b t d and b t d, or b t d and 1 t d."""

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x * y: b t d and b t d, or b t d and d."""

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split the last axis into its first and its second half."""

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        """Concatenate sequences of tokens, each b t d."""

    def prepend(self, first: Sequence[Parameter], x: Tensor) -> Tensor:
        """Put learned tokens, each 1 t d and repeated over the batch, in front of `x`, b t d."""

    def rows(self, x: Tensor, start: int, stop: int | None) -> Tensor:
        """Select the tokens from `start` up to, but not including, `stop` (None: to the end): b t d -> b r d."""

    def map(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Arrange patches as a map of the image: b (h w) d -> b d h w."""

    def squeeze(self, x: Tensor) -> Tensor:
        """Drop the axis of a single token: b 1 d -> b d."""

    def mean(self, x: Tensor) -> Tensor:
        """Average the tokens: b t d -> b d."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Concatenate vectors of one image: each b d -> b (sum of d)."""

    def average(self, parts: Sequence[Tensor]) -> Tensor:
        """Average tensors of the same shape: each b d -> b d."""

    # attention

    def heads(self, x: Tensor, heads: int) -> Heads:
        """Split the last axis into heads: b t (n e) -> b n t e."""

    def qkv(
        self, m: Module, x: Tensor, heads: int, rows: Rows | None, biases: tuple[Parameter, Parameter] | None
    ) -> tuple[Heads, Heads, Heads]:
        """Compute queries, keys and values by a fused layer with 3 (n e) outputs: b t d -> b n r e, b n t e, b n t e.

        Queries are computed for `rows` only (None: for all tokens). `biases`, each (n e), are added to queries and values.
        """

    def kv(self, m: Module, x: Tensor, heads: int) -> tuple[Heads, Heads]:
        """Compute keys and values by a fused layer with 2 (n e) outputs: b t d -> b n t e, b n t e."""

    def rotate(self, x: Heads, rope: Rope) -> Heads:
        """Rotate the pairs (i, i + e/2) of each head's elements: b n t e, shape unchanged."""

    def attend(self, q: Heads, k: Heads, v: Heads, dropout: float, bias: Tensor | None = None) -> Tensor:
        """Return softmax(q kᵀ / √e + bias) v with the heads concatenated: b n r e, b n t e, b n t e -> b r (n e).

        `q` may have batch 1. `bias` is 1 n r t. `dropout` is the rate for the attention weights in training.
        """

    def attention_weights(self, q: Heads, k: Heads, bias: Tensor | None = None) -> Tensor:
        """Return softmax(q kᵀ / √e + bias): b n r e, b n t e -> b n r t."""

    def prunes(self, m: Module) -> bool:
        """Return whether the last block `m` may skip the queries of tokens that no output needs."""
