"""Artifacts: one file per format says how it is written, and how it is opened and run."""

from __future__ import annotations

import os
from pathlib import Path

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import sniff
from vit_zoo.formats.artifact import Artifact, Description, describe_archive

SUFFIX = {"onnx": ".onnx", "torchscript": ".torchscript.pt", "pt2": ".pt2"}


def describe(path: str | os.PathLike[str]) -> Description:
    """What an artifact says of itself, read without running it, without torch and without onnx."""
    from vit_zoo.formats.onnx_file import describe_onnx

    path = Path(path)
    match sniff(path):
        case "onnx":
            return describe_onnx(path)
        case "torchscript" | "pt2" as kind:
            return describe_archive(path, kind)
        case kind:
            raise RefusedContent(f"is no artifact but {_named(kind)}", where=path)


def open_artifact(
    path: str | os.PathLike[str],
    *,
    providers: list[str] | None = None,
    threads: int | None = None,
    optimised: bool = True,
) -> Artifact:
    """An artifact ready to run. ONNX files run in onnxruntime; the others only in the process that wrote them.

    `providers` and `threads` are onnxruntime's; `optimised` switches its graph optimiser. Raises RefusedContent for
    what cannot be trusted or read.
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    if sniff(path) == "onnx":
        from vit_zoo.formats.onnx_file import OnnxArtifact

        return OnnxArtifact(path, providers=providers, threads=threads, optimised=optimised)
    about = describe(path)
    if providers is not None or threads is not None:
        raise InputError("providers and threads are onnxruntime's", where=path)
    from vit_zoo.formats.programs import ProgramArtifact

    return ProgramArtifact(path, about)


def _named(kind: str) -> str:
    return {"folder": "a folder", "empty": "an empty file", "unknown": "something unknown"}.get(kind, f"a file of kind {kind}")
