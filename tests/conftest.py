"""What every test shares: noised weights, small specs, a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


# Nothing asks the real Hub. Its libraries read these when they are first imported, here and in child processes; a test that
# wants a Hub starts one at this port.
HUB_PORT = _free_port()
os.environ |= {
    "HF_ENDPOINT": f"http://127.0.0.1:{HUB_PORT}",
    "HF_HOME": str(Path(tempfile.gettempdir(), f"vitzoo-tests-hub-{os.getpid()}")),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
}
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
    os.environ.pop(_name, None)

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


@pytest.fixture(scope="session", autouse=True)
def _no_cache_is_left():
    yield
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
