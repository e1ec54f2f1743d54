"""What every test shares: noised weights, small specs, a folder of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# Nothing asks the real Hub: its libraries read these when they are imported, here and in child processes.
os.environ |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
os.environ["HF_HOME"] = os.path.join(tempfile.gettempdir(), f"vitzoo-tests-hub-{os.getpid()}")
for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
    os.environ.pop(name, None)

import pytest
import torch
from torch import nn

SMALL = {
    "image_size": (32, 48),
    "patch_size": (8, 16),
    "dim": 48,
    "depth": 3,
    "heads": 3,
    "dim_head": 16,
    "mlp_dim": 96,
    "num_classes": 11,
}


@torch.no_grad()
def noise(model: nn.Module, seed: int = 1, *, scale: float = 0.05) -> nn.Module:
    """Replace every parameter: with fresh ones, zero biases and unit norms make any mapping agree.

    So do small ones where few dimensions make attention even: 0.15 lets queries and keys of 48 dimensions choose.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        unit = p.ndim == 1 and name.endswith("weight")  # norms
        p.copy_(float(unit) + torch.randn(p.shape, generator=generator) * (0.1 if unit else scale))
    return model.eval()


def required(program: str, place: Path | None = None) -> str:
    """Where a program is, or a package in `place`. The test is skipped without it, or fails where VITZOO_REQUIRE names it."""
    found = shutil.which(program) if place is None else str(place) if place.exists() else None
    if found is None:
        missing = pytest.fail if program in os.environ.get("VITZOO_REQUIRE", "").split(",") else pytest.skip
        missing(f"{program} is not installed")
    return str(found)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
