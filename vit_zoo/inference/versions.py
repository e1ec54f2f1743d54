"""Versions of what computes values: two machines, or two runs, give the same only with the same versions."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from vit_zoo import __version__

DEPENDENCIES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "pillow": "PIL"}  # whose versions may change values


def versions() -> dict[str, str]:
    """Return the versions of this package and of its dependencies that compute values."""
    return {"vitzoo": __version__, **{name: _version(name) for name in DEPENDENCIES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # another distribution, such as onnxruntime-gpu
        return str(import_module(DEPENDENCIES[name]).__version__)
