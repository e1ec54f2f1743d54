"""`Attention`, `FeedForward` and `Transformer` with the arguments of vit-pytorch's classes.

Each normalises its input first and starts with the same distributions of weights, as the originals do (vit-pytorch 1.26.11,
`vit.py`; Dosovitskiy et al., 2021).
"""

from __future__ import annotations

from torch import Tensor, nn

from vit_zoo.model.initialisation import vit_pytorch_values
from vit_zoo.model.spec import ViTSpec, article_spec
from vit_zoo.model.vit import MLP, Block, LayerNorm, SelfAttention


def _spec(dim: int, heads: int, dim_head: int, mlp_dim: int, dropout: float, depth: int = 1) -> ViTSpec:
    """Return vit-pytorch's spec for a module that takes tokens; the image, which is not used, is a single pixel."""
    return article_spec(
        image_size=1, patch_size=1, channels=1, num_classes=0, pool="mean", dim=dim, depth=depth, heads=heads,
        dim_head=dim_head, mlp_dim=mlp_dim, dropout=dropout, emb_dropout=0.0,
    )  # fmt: skip


class Attention(nn.Module):
    """LayerNorm, then multi-head self-attention on tokens b t d.

    Args:
        dim: Width of a token.
        heads: Number of attention heads.
        dim_head: Width of an attention head.
        dropout: Rate of dropout on the attention weights and after the output projection, in training.
    """

    def __init__(self, dim: int, heads: int = 8, dim_head: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        spec = _spec(dim, heads, dim_head, dim, dropout)
        self.norm = LayerNorm(dim, spec.norm_eps)
        self.attn = SelfAttention(spec)
        vit_pytorch_values(self, None)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.norm(x))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """LayerNorm, then the two-layer MLP on tokens b t d.

    Args:
        dim: Width of a token.
        hidden_dim: Width of the hidden layer.
        dropout: Rate of dropout after each layer, in training.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        spec = _spec(dim, 1, dim, hidden_dim, dropout)
        self.norm = LayerNorm(dim, spec.norm_eps)
        self.mlp = MLP(spec)
        vit_pytorch_values(self, None)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """`depth` encoder blocks and a final LayerNorm on tokens b t d.

    Args:
        dim: Width of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        dim_head: Width of an attention head.
        mlp_dim: Width of the hidden layer of each MLP.
        dropout: Rate of dropout in the blocks, in training.
    """

    def __init__(self, dim: int, depth: int, heads: int, dim_head: int, mlp_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        spec = _spec(dim, heads, dim_head, mlp_dim, dropout, depth)
        self.blocks = nn.ModuleList(Block(spec, i) for i in range(depth))
        self.norm = LayerNorm(dim, spec.norm_eps)
        vit_pytorch_values(self, None)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)  # type: ignore[no-any-return]
