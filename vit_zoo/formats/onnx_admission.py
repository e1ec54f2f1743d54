"""Admission of ONNX files of any origin: what a file may contain for vitzoo to run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_zoo.formats.onnx_skeleton import declared

if TYPE_CHECKING:
    from pathlib import Path


def check_runnable(path: Path) -> None:
    """Raise RefusedContent for an ONNX file that is not to be run. Neither torch nor onnxruntime is imported."""
    declared(path)
