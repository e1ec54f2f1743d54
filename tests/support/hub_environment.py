"""Environment variables that keep the Hub's libraries on this machine."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


HUB_PORT = _free_port()  # a test that wants a Hub starts one here


def set_up() -> None:
    """Point the Hub's libraries to this machine. They read these variables at first import, here and in child processes."""
    os.environ |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{HUB_PORT}",
        "HF_HOME": str(Path(tempfile.gettempdir(), f"vitzoo-tests-hub-{os.getpid()}")),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        os.environ.pop(name, None)
