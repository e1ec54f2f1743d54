"""torch back end of the forward.

Submodules are called, never bypassed, so that hooks, adapters and fine-tuning see every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

if TYPE_CHECKING:
    from vit_zoo.model.ops import Activation, Ops
    from vit_zoo.model.spec import ViTSpec

ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
}


class TorchOps:
    """The operations of `ops.py` on torch tensors and the modules of `vit.py`, in eval mode."""

    training = False

    def run(self, function: Callable[..., Any], m: Any, *args: Any) -> Any:
        """Call the module of this part, which calls `function`, so that hooks fire."""
        return m(*args)

    def weight(self, m: Tensor) -> Tensor:
        return m

    def table(self, m: Tensor, x: Tensor) -> Tensor:
        return m.to(x.dtype)

    def patches(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        return rearrange(image, "b c (h p) (w q) -> b (h w) (c p q)", p=size[0], q=size[1])

    def linear(self, m: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return m(x)

    def norm(self, m: Callable[[Tensor], Tensor], x: Tensor, spec: ViTSpec) -> Tensor:
        return m(x)

    def act(self, x: Tensor, name: str) -> Tensor:
        return ACTS[name](x)

    def probabilities(self, x: Tensor, activation: Activation) -> Tensor:
        return x.sigmoid() if activation == "sigmoid" else x.softmax(-1)

    def tanh(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def normalize(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1, eps=0.0)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, y = x.chunk(2, dim=-1)
        return x, y

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), dim=1)

    def prepend(self, first: Sequence[Tensor], x: Tensor) -> Tensor:
        if not first:
            return x
        return torch.cat([*(self.weight(w).expand(x.shape[0], -1, -1) for w in first), x], dim=1)

    def rows(self, x: Tensor, start: int, stop: int | None) -> Tensor:
        return x[:, start:stop]

    def map(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return rearrange(x, "b (h w) d -> b d h w", h=grid[0])

    def squeeze(self, x: Tensor) -> Tensor:
        return rearrange(x, "b 1 d -> b d")

    def mean(self, x: Tensor) -> Tensor:
        return reduce(x, "b t d -> b d", "mean")

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)

    def average(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else sum(parts[1:], parts[0]) / len(parts)

    def heads(self, x: Tensor, heads: int) -> Tensor:
        return rearrange(x, "b t (n e) -> b n t e", n=heads)

    def qkv(
        self, m: Any, x: Tensor, heads: int, rows: tuple[int, int] | None, biases: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if rows is None:
            q, k, v = self.linear(m, x).chunk(3, dim=-1)
        else:
            inner = m.weight.shape[0] // 3
            q = self._linear_rows(m, self.rows(x, *rows), slice(None, inner))
            k, v = self._linear_rows(m, x, slice(inner, None)).chunk(2, dim=-1)
        if biases is not None:
            q, v = q + self.weight(biases[0]), v + self.weight(biases[1])
        return self.heads(q, heads), self.heads(k, heads), self.heads(v, heads)

    def kv(self, m: Any, x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        k, v = self.linear(m, x).chunk(2, dim=-1)
        return self.heads(k, heads), self.heads(v, heads)

    def mixed_rotations(self, freqs: Tensor, places: Tensor, depth: int) -> list[tuple[Tensor, Tensor]]:
        x, y = (places.unsqueeze(1) * self.weight(freqs).unsqueeze(2)).unbind()  # depth t n e/2
        return [(angles.cos(), angles.sin()) for angles in (x + y).unbind()]

    def rotate(self, x: Tensor, rope: tuple[Tensor, Tensor] | None, spec: ViTSpec) -> Tensor:
        first, second = (x[..., ::2], x[..., 1::2]) if spec.rotates_neighbours else x.chunk(2, dim=-1)
        if rope is None:
            return torch.cat([first, second], dim=-1)
        cos, sin = (table.transpose(0, 1) for table in rope)  # 1 t e/2 or n t e/2
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    def pairs(self, m: Tensor) -> Tensor:
        return m

    def relative_bias(self, table: Tensor, pairs: Tensor) -> Tensor:
        return rearrange(self.weight(table)[pairs], "s t n -> 1 n s t")

    def bias_rows(self, bias: Tensor, rows: tuple[int, int]) -> Tensor:
        return bias[:, :, slice(*rows)]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float, bias: Tensor | None = None) -> Tensor:
        q = q.expand(k.shape[0], -1, -1, -1)  # a learned query has batch 1
        rate = dropout if self.training else 0.0
        return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate), "b n t e -> b t (n e)")

    def attention_weights(self, q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return torch.softmax(scores if bias is None else scores + bias, dim=-1)

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        return x

    def drop_path(self, x: Tensor, m: Any) -> Tensor:
        return x

    def prunes(self, m: Any) -> bool:
        """Return False if the last block has hooks, or an adapter in place of its qkv layer: they must see all tokens."""
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in m.modules())
        return not hooked and getattr(type(m.attn.qkv), "forward", None) is nn.Linear.forward

    def _linear_rows(self, m: Any, x: Tensor, rows: slice) -> Tensor:
        """Apply some rows of a linear layer's weight: a part of its output features."""
        bias = None if m.bias is None else self.weight(m.bias[rows])
        return F.linear(x, self.weight(m.weight[rows]), bias)


class TrainingOps(TorchOps):
    """The operations in training mode: with dropout and stochastic depth, and all tokens in every block."""

    training = True

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        return F.dropout(x, rate) if rate else x

    def drop_path(self, x: Tensor, m: Any) -> Tensor:
        """Stochastic depth (Huang et al., 2016): drop the branch of random samples and scale up the others."""
        if not m.drop_path:
            return x
        mask = x.new_empty(x.shape[0], 1, 1).bernoulli_(1 - m.drop_path)
        return x.mul(mask).div(1 - m.drop_path)

    def prunes(self, m: Any) -> bool:
        return False


class Float64Ops(TorchOps):
    """The same computation in float64, converting one layer's weights at a time: the reference of `parity/`."""

    def run(self, function: Callable[..., Any], m: Any, *args: Any) -> Any:
        x, spec, *rest = args
        return function(m, x, spec, self, *rest)

    def weight(self, m: Tensor) -> Tensor:
        return m.double()

    def linear(self, m: Any, x: Tensor) -> Tensor:
        bias = None if m.bias is None else m.bias.double()
        return F.linear(x, m.weight.double().flatten(1), bias)

    def norm(self, m: Any, x: Tensor, spec: ViTSpec) -> Tensor:
        if spec.norm == "rms":
            return F.rms_norm(x, x.shape[-1:], m.weight.double(), spec.norm_eps)
        bias = None if m.bias is None else m.bias.double()
        return F.layer_norm(x, x.shape[-1:], m.weight.double(), bias, spec.norm_eps)

    def prunes(self, m: Any) -> bool:
        return True


class RoundedOps(Float64Ops):
    """The computation in float64 with the matrices of linear layers rounded to bfloat16, as a bf16 graph stores them."""

    def linear(self, m: Any, x: Tensor) -> Tensor:
        bias = None if m.bias is None else m.bias.double()
        return F.linear(x, m.weight.bfloat16().double().flatten(1), bias)

    def _linear_rows(self, m: Any, x: Tensor, rows: slice) -> Tensor:
        bias = None if m.bias is None else m.bias[rows].double()
        return F.linear(x, m.weight[rows].bfloat16().double(), bias)


EVAL, TRAIN = TorchOps(), TrainingOps()

if TYPE_CHECKING:
    _complete: type[Ops] = TorchOps  # a type error if an operation is missing or its signature differs
