"""Export formats: the table FORMATS, with one module per row, and the functions that describe and open an exported file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import sniff
from vit_zoo.files.journal import settle
from vit_zoo.formats.artifact import Artifact, Description
from vit_zoo.formats.child import Child
from vit_zoo.formats.format import Format, OpenOptions
from vit_zoo.formats.limits import MEMORY, TIME, Limits
from vit_zoo.formats.onnx_admission import check_runnable
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
    providers: Sequence[str] | None = None,
    threads: int | None = None,
    optimised: bool = True,
    isolated: bool = True,
    time_limit: float | None = None,
    memory_limit: float | None = None,
) -> Artifact:
    """Open an exported file to run it, or to classify images with it. It stays open as long as the result is used.

    ONNX files of any tool run in onnxruntime, in a child process with limits of time and memory: anybody can write a file that
    runs forever, needs all memory or crashes onnxruntime, and that looks like one of ours. Other formats open only in the
    process that wrote them.

    Args:
        path: The file.
        providers: Execution providers of onnxruntime, such as `["CUDAExecutionProvider"]`; by default the CPU's.
        threads: Number of onnxruntime threads.
        optimised: Whether onnxruntime optimises the graph.
        isolated: False to open an ONNX file in this process, without limits: for files that you trust. It saves copying images
            and outputs between processes.
        time_limit: Seconds that opening the file, or one run, may take; by default 15, and more for large files and batches.
        memory_limit: GB (10^9 bytes) that the child process may use, by default 0.8 and more by the size of the file and the
            batch. With another provider than the CPU's there is no limit by default.

    Raises:
        InputError: An option does not apply, or a provider is not available.
        RefusedContent: The file cannot be trusted or read.
        Stopped: The file reached a limit, or onnxruntime crashed; so do the runs of the result.
    """
    path = Path(path)
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    limits = Limits.of(time_limit, memory_limit)
    if not isolated and limits != Limits():
        raise InputError("time_limit and memory_limit apply to a child process; they cannot be combined with isolated=False")
    child = child_for(path, limits, total=False) if isolated else None
    return open_in(child, path, providers=providers, threads=threads, optimised=optimised)


def child_for(path: Path, limits: Limits, *, total: bool = True) -> Child | None:
    """Start a child process that can open a file of an untrusted source; None for a format that has no use for one.

    `total`: whether the limit of time is for everything that the file does, or else for each run. Raises RefusedContent for a
    file that is not to be run, before the process starts.
    """
    row = format_of(path)
    if row is None or not row.graph:
        if limits != Limits():
            raise InputError("time_limit and memory_limit apply to ONNX files only", where=path, options=[TIME, MEMORY])
        return None
    size = path.stat().st_size + check_runnable(path)
    child = Child(path, limits, size=size, total=total)
    child.start()
    return child


def open_in(
    child: Child | None,
    path: Path,
    *,
    providers: Sequence[str] | None = None,
    threads: int | None = None,
    optimised: bool = True,
) -> Artifact:
    """Open an exported file in a child process; without one, in this process. Otherwise as `open_artifact`."""
    about = describe(path)
    if not about.graph and (providers is not None or threads is not None):
        raise InputError("providers and threads apply to ONNX files only", where=path)
    options = OpenOptions(
        providers=None if providers is None else tuple(providers), threads=threads, optimised=optimised, child=child
    )
    return FORMATS[about.format].open(path, about, options)


def _named(kind: str) -> str:
    return {"folder": "a folder", "empty": "an empty file", "unknown": "a file of unknown type"}.get(
        kind, f"a file of kind {kind}"
    )
