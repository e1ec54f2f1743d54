"""Export formats: the table FORMATS, with one module per row, and the functions that describe and open an exported file."""

from __future__ import annotations

import os
from pathlib import Path

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import sniff
from vit_zoo.files.journal import settle
from vit_zoo.formats.artifact import Artifact, Description
from vit_zoo.formats.format import Format, OpenOptions
from vit_zoo.formats.onnx_file import ONNX
from vit_zoo.formats.pt2 import PT2
from vit_zoo.formats.torchscript import TORCHSCRIPT

FORMATS: dict[str, Format] = {row.name: row for row in (ONNX, TORCHSCRIPT, PT2)}


def format_of(path: Path, kind: str | None = None) -> Format | None:
    """Return the format of an exported file by its content, or None. `kind` is the result of `sniff`, if known."""
    kind = kind or sniff(path)
    return next((row for row in FORMATS.values() if row.recognise(path, kind)), None)


def describe(path: str | os.PathLike[str]) -> Description:
    """Read the metadata of an exported file, without running it, without torch and without onnx.

    Raises RefusedContent for a file in no export format, or one that is damaged.
    """
    path = Path(path)
    settle(path.parent, path.name)
    kind = sniff(path)
    row = format_of(path, kind)
    if row is None:
        raise RefusedContent(f"expected an exported file, got {_named(kind)}", where=path)
    return row.describe(path)


def open_artifact(
    path: str | os.PathLike[str],
    *,
    providers: list[str] | None = None,
    threads: int | None = None,
    optimised: bool = True,
) -> Artifact:
    """Open an exported file to run it, or to classify images with it. It stays open as long as the result is used.

    ONNX files of any tool run in onnxruntime. Other formats open only in the process that wrote them.

    Args:
        path: The file.
        providers: Execution providers of onnxruntime, such as `["CUDAExecutionProvider"]`; by default the CPU's.
        threads: Number of onnxruntime threads.
        optimised: Whether onnxruntime optimises the graph.

    Raises:
        InputError: An option does not apply, or a provider is not available.
        RefusedContent: The file cannot be trusted or read.
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    about = describe(path)
    if not about.graph and (providers is not None or threads is not None):
        raise InputError("providers and threads apply to ONNX files only", where=path)
    options = OpenOptions(providers=None if providers is None else tuple(providers), threads=threads, optimised=optimised)
    return FORMATS[about.format].open(path, about, options)


def _named(kind: str) -> str:
    return {"folder": "a folder", "empty": "an empty file", "unknown": "a file of unknown type"}.get(
        kind, f"a file of kind {kind}"
    )
