"""A module that runs code when torch loads it as TorchScript."""

from __future__ import annotations

import torch


class Planted(torch.nn.Module):
    """A module whose `__setstate__` makes the file PWNED in the current folder."""

    def __init__(self) -> None:
        super().__init__()
        self.mark = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return "PWNED", self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.mark = torch.from_file(state[0], True, 1)
        self.training = state[1]
