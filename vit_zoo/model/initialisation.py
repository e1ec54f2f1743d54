"""Initial values of parameters: as the published families start, and as vit-pytorch's classes do."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Values = Callable[[nn.Module, torch.Generator | None], None]  # fills all parameters of a module


@torch.no_grad()
def published_values(m: nn.Module, generator: torch.Generator | None) -> None:
    """Fill parameters as the original does: linear layers uniform (Glorot and Bengio, 2010).

    Biases are 0, norms 1, LayerScale 1e-5 (Touvron et al., 2021), tokens, positions and relative biases N(0, 0.02). Unlike the
    original's, the head is not zero: with zero logits every check of the outputs would pass.
    """
    for name, p in m.named_parameters():
        if name.endswith("gamma"):
            p.fill_(1e-5)
        elif name.endswith("freqs"):
            p.copy_(_frequencies(p, generator))
        elif name.endswith("bias"):
            p.zero_()
        elif p.ndim == 1:
            p.fill_(1)
        elif name.endswith("weight"):
            fused = {"qkv.weight": 3, "kv.weight": 2}.get(".".join(name.split(".")[-2:]), 1)
            bound = math.sqrt(6 / (p[0].numel() + p.shape[0] // fused))
            p.uniform_(-bound, bound, generator=generator)
        else:
            p.normal_(0, 0.02, generator=generator)


def _frequencies(p: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return frequencies of columns and rows, turned by a random angle for each head of each block (Heo et al., 2024)."""
    _, depth, heads, pairs = p.shape
    size = 10.0 ** (-2 * torch.arange(0, pairs, 2, device=p.device) / pairs)
    angles = torch.rand(depth, heads, 1, generator=generator, device=p.device) * 2 * math.pi
    sides = [torch.cat([size * turn(angles), size * turn(angles + math.pi / 2)], dim=-1) for turn in (torch.cos, torch.sin)]
    return torch.stack(sides).to(p.dtype)


@torch.no_grad()
def vit_pytorch_values(m: nn.Module, generator: torch.Generator | None) -> None:
    """Fill parameters as vit-pytorch 1.26.11 does: torch's defaults for layers, tokens and positions N(0, 1).

    torch draws weights and biases of a linear layer uniformly from ±1/√(inputs).
    """
    for part in m.modules():
        weight = getattr(part, "weight", None)
        bound = 0.0 if not isinstance(weight, Tensor) or weight.ndim == 1 else weight[0].numel() ** -0.5
        for name, p in part.named_parameters(recurse=False):
            if name not in ("weight", "bias"):
                p.normal_(0, 1, generator=generator)
            elif bound:
                p.uniform_(-bound, bound, generator=generator)
            else:
                p.fill_(float(name == "weight"))
