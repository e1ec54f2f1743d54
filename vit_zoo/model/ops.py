"""Interface of a back end: the operations that `forward.py` calls, with their shapes.

`torch_ops.py` computes tensors, `graph/onnx_ops.py` adds nodes to a graph. mypy checks that both implement every method of
`Ops`. To add a back end, implement this class. To add an operation, declare it here and implement it in both.

Shapes: b batch · t tokens · r query rows · d dim · n heads · e head width · k classes · c channels · p q patch · h w grid
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from vit_zoo.model.spec import ViTSpec

Module = Any  # a part of the model with its parameters: a torch module, or a `Scope` of weight names
Parameter = Any  # a single parameter: a torch parameter, or a `Scope`
Tensor = Any  # a torch tensor, or a `Value` of a graph
Activation = Literal["softmax", "sigmoid"]  # from logits to probabilities
Heads = Any  # b n t e in torch; a graph keeps b t (n e) as long as it can
Rows = tuple[int, int]  # first token, and the one after the last
Rope = Any  # tables that rotate queries and keys: cosines and sines, each t 1 e/2, or t n e/2 where each head has its own


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
        """Return a table of `positions.py` in the type of `x`.

        `pos_embed` is 1 t d, `rope_cos` and `rope_sin` are t 1 e/2, `rope_places` is 2 t 1 1.
        """

    # layers

    def patches(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Cut an image into flat patches of `size` p q: b c (h p) (w q) -> b (h w) (c p q)."""

    def linear(self, m: Module, x: Tensor) -> Tensor:
        """Apply a linear layer to the last axis: b t i -> b t o, or b i -> b o."""

    def norm(self, m: Module, x: Tensor, spec: ViTSpec) -> Tensor:
        """Apply a norm of the kind `spec.norm` to the last axis: b t d, b d or b n t e, shape unchanged."""

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

    def mixed_rotations(self, freqs: Parameter, places: Tensor, depth: int) -> Sequence[Rope]:
        """Compute the tables of each block from learned frequencies of columns and rows, 2 depth n e/2, and places, 2 t 1 1."""

    def rotate(self, x: Heads, rope: Rope | None, spec: ViTSpec) -> Heads:
        """Rotate pairs of each head's elements, by nothing if `rope` is None: b n t e.

        The pairs are (2i, 2i + 1) if `spec.rotates_neighbours`, else (i, i + e/2). In the result, the first elements of all
        pairs come before the second ones, for queries and keys alike, so that their products do not depend on the order.
        """

    def pairs(self, m: Parameter) -> Tensor:
        """Return the table `relative_rows` of `positions.py`: for each pair of tokens, a row of a table of biases, t t."""

    def relative_bias(self, table: Parameter, pairs: Tensor) -> Tensor:
        """Look up the bias of each pair of tokens in a table, rows n: 1 n t t."""

    def bias_rows(self, bias: Tensor, rows: Rows) -> Tensor:
        """Select the queries `rows` of a bias: 1 n t t -> 1 n r t."""

    def attend(self, q: Heads, k: Heads, v: Heads, dropout: float, bias: Tensor | None = None) -> Tensor:
        """Return softmax(q kᵀ / √e + bias) v with the heads concatenated: b n r e, b n t e, b n t e -> b r (n e).

        `q` may have batch 1. `bias` is 1 n r t. `dropout` is the rate for the attention weights in training.
        """

    def attention_weights(self, q: Heads, k: Heads, bias: Tensor | None = None) -> Tensor:
        """Return softmax(q kᵀ / √e + bias): b n r e, b n t e -> b n r t."""

    def prunes(self, m: Module) -> bool:
        """Return whether the last block `m` may skip the queries of tokens that no output needs."""
