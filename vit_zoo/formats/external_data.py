"""Files next to an ONNX graph that hold its weights: which of them may be opened."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from vit_zoo.errors import RefusedContent
from vit_zoo.files.sniff import HINTS, sniff

KEYS = ("location", "offset", "length", "checksum")  # and those of weights that onnxruntime has packed
COUNT = re.compile(r"[0-9]{1,18}")  # an offset or a length


def data_file(graph: Path, name: str) -> Path:
    """Return the path of a file with weights, which a graph refers to by name. Nothing is opened.

    It must be a regular file in the graph's folder: no link of any kind, since a link can lead to any file of the user's. The
    only exception is the layout of the Hub's cache, where a snapshot's files are links to the blobs of the same repository.
    Raises RefusedContent for anything else.
    """
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise RefusedContent(f"refers to weights in {name!r}, outside its folder", where=graph)
    if name == graph.name:
        raise RefusedContent("refers to weights in itself, in place of a second file", where=graph)
    path = graph.parent / name
    try:
        state = path.lstat()
        linked = stat.S_ISLNK(state.st_mode)
        if linked and not _is_blob(path):
            raise RefusedContent(f"refers to weights in {name!r}, which is a link", where=graph, hint="put the file itself there")
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise RefusedContent(f"needs {name}, which is not in the same folder", where=graph) from None
    except OSError as error:
        raise RefusedContent(f"refers to weights in {name!r}, which cannot be read: {error.strerror}", where=graph) from None
    if not stat.S_ISREG(state.st_mode):
        raise RefusedContent(f"refers to weights in {name!r}, which is not a regular file", where=graph)
    if state.st_nlink > 1:
        cause = f"refers to weights in {name!r}, which has {state.st_nlink} hard links: it may lie outside the folder too"
        raise RefusedContent(cause, where=graph, hint="copy the file in place of the link")
    return path


def data_range(graph: Path, location: dict[str, str], size: int) -> tuple[str, int, int]:
    """Return the file name, offset and length of external data, by default `size` bytes. Raises RefusedContent for no numbers."""
    unknown = next((key for key in location if key not in KEYS and not key.startswith("prepacked")), None)
    if unknown is not None:
        raise RefusedContent(f"external data: unknown field {unknown[:40]!r}", where=graph)
    if "location" not in location:
        raise RefusedContent("has external data without a location", where=graph)
    numbers = []
    for key, default in (("offset", 0), ("length", size)):
        text = location.get(key, str(default))
        if not COUNT.fullmatch(text):
            raise RefusedContent(f"external data: {key} is {text[:40]!r}, expected a number of bytes", where=graph)
        numbers.append(int(text))
    return location["location"], numbers[0], numbers[1]


def check_range(graph: Path, tensor: str, location: dict[str, str], size: int) -> None:
    """Raise RefusedContent unless the external data of a tensor are `size` bytes that lie within a file of `data_file`."""
    name, offset, length = data_range(graph, location, size)
    path = data_file(graph, name)
    available = path.stat().st_size
    if length != size:
        raise RefusedContent(f"external data of {tensor!r}: {length:,} bytes, but its shape has {size:,}", where=graph)
    if offset + length > available:
        cause = f"does not contain the data of tensor {tensor!r}: they end at byte {offset + length:,} of {name}, which has"
        raise RefusedContent(f"{cause} {available:,}", where=graph, hint=HINTS.get(sniff(path)))


def _is_blob(link: Path) -> bool:
    """Return whether a link in a snapshot of the Hub's cache leads to a blob of the same repository."""
    folder = link.parent.resolve()
    snapshots = next((place for place in folder.parents if place.name == "snapshots"), None)
    return snapshots is not None and link.resolve().parent == snapshots.parent / "blobs"
