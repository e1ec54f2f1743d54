"""The pip command that installs what a host without torch lacks."""

from __future__ import annotations

from importlib.util import find_spec

PACKAGES = {"torch": "torch", "einops": "einops", "huggingface_hub": "huggingface-hub", "yaml": "pyyaml"}  # not in vitzoo-runtime


def install_command(module: str) -> str:
    """Return the command that installs `module` and everything else that this installation lacks.

    It names packages of the index, never vitzoo itself: the checkout that vitzoo came from is not known here.
    """
    missing = [package for name, package in PACKAGES.items() if name == module or find_spec(name) is None]
    others = [] if module in PACKAGES else [{"PIL": "pillow"}.get(module, module)]
    return " ".join(["pip install", *others, *missing])
