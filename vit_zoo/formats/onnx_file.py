"""ONNX files on disk: what they say of themselves, read in one pass over the top level, and how they run."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import DTYPES, SafetensorsFile, Stored
from vit_zoo.files.stored import ONNX_TYPES, Span
from vit_zoo.files.wire import GRAPH, INITIALIZER, KEY, METADATA, RAW_DATA, VALUE, fields, tag
from vit_zoo.formats.artifact import Artifact, Description, config_from

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

MAX_METADATA = 4_194_304


def describe_onnx(path: Path) -> Description:
    """The description in an ONNX file's metadata; the graph is skipped, so that its size does not matter."""
    entries: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for number, length in fields(file, size):
                if number != METADATA:
                    file.seek(length, os.SEEK_CUR)
                    continue
                if length > MAX_METADATA:
                    raise RefusedContent(f"has {length:,} bytes of metadata", where=path)
                end = file.tell() + length
                parts = {}
                for part, width in fields(file, end):
                    parts[part] = file.read(width).decode()
                entries[parts.get(KEY, "")] = parts.get(VALUE, "")
    except (ValueError, UnicodeDecodeError):
        raise RefusedContent("is not a whole ONNX file", where=path) from None
    if "vit_zoo" not in entries:
        return Description(path, "onnx", None, {})
    config = config_from(entries["vit_zoo"], where=path)
    try:
        export = dict(json.loads(entries.get("vit_zoo.export", "{}")))
    except (ValueError, TypeError, RecursionError):
        raise RefusedContent("has metadata that is not valid JSON", where=path) from None
    return Description(path, "onnx", config, export)


def check_companion(about: Description) -> None:
    """The file that holds the weights is the one that this graph was written for.

    onnxruntime reads whatever lies at the offsets: with another header it would answer wrongly, without an error.
    """
    name = about.export.get("data")
    if name is None:
        return
    if not isinstance(name, str) or Path(name).name != name:
        raise RefusedContent(f"keeps its weights in {name!r}, outside its folder", where=about.path)
    companion = about.path.parent / name
    if not companion.is_file():
        raise RefusedContent(f"needs {name}, which is not beside it", where=about.path)
    if "header_sha256" in about.export:
        if SafetensorsFile(companion).header_sha256 != about.export["header_sha256"]:
            raise RefusedContent(f"was written for another {name}; export again", where=about.path)
        return
    with companion.open("rb") as file:
        file.seek(max(0, companion.stat().st_size - 64))
        if file.read().decode("ascii", "replace") != about.export.get("weights_sha256"):
            raise RefusedContent(f"was written for another {name}; export again", where=about.path)


def weights_in(path: Path, shapes: Mapping[str, tuple[int, ...]], unread: tuple[str, ...]) -> dict[str, Stored]:
    """The weights that a file of ours holds or refers to, under the names and shapes of the state dict.

    Those that begin with `unread`, behind the last output, need not be in it: zeros stand for them.
    Raises RefusedContent if one is missing: then the file is not what its metadata says.
    """
    parts: dict[str, list[tuple[int, Stored]]] = {}
    try:
        for name, stored in _initializers(path):
            key, _, rows = name.partition("[")
            parts.setdefault(key, []).append((int(rows.partition(":")[0] or 0) if rows else 0, stored))
    except RefusedContent:
        raise
    except Exception:  # protobuf's errors, and ours on numbers that are none
        raise RefusedContent("is not a whole ONNX file", where=path) from None
    found = {}
    for key, shape in shapes.items():
        if key not in parts and key.startswith(unread):
            found[key] = Stored("F32", shape, partial(_zeros, shape))
            continue
        if key not in parts:
            raise RefusedContent(f"holds no weight {key!r}", where=path)
        pieces = [stored for _, stored in sorted(parts[key], key=lambda part: part[0])]
        if not all(_lies_in_file(piece) for piece in pieces):
            raise RefusedContent(f"does not hold the bytes of {key!r}", where=path)
        if sum(piece.nbytes for piece in pieces) != math.prod(shape) * DTYPES[pieces[0].dtype][0]:
            raise RefusedContent(f"holds {key!r} in another size than its metadata says", where=path)
        found[key] = Stored(pieces[0].dtype, shape, partial(_whole, pieces, shape))
    return found


def _lies_in_file(piece: Stored) -> bool:
    span = piece.span
    assert span is not None
    return span.length == piece.nbytes and 0 <= span.start <= span.file.stat().st_size - span.length


def _whole(pieces: list[Stored], shape: tuple[int, ...]) -> Array:
    import numpy as np

    return np.concatenate([piece.array().reshape(-1) for piece in pieces]).reshape(shape)


def _zeros(shape: tuple[int, ...]) -> Array:
    import numpy as np

    return np.zeros(shape, "<f4")


def _initializers(path: Path) -> Iterator[tuple[str, Stored]]:
    """Name and place of each initializer, read without the weights."""
    types = {code: dtype for dtype, code in ONNX_TYPES.items()}
    with path.open("rb") as file:
        for number, length in fields(file, os.fstat(file.fileno()).st_size):
            if number != GRAPH:
                file.seek(length, os.SEEK_CUR)
                continue
            end = file.tell() + length
            for part, width in fields(file, end):
                if part != INITIALIZER:
                    file.seek(width, os.SEEK_CUR)
                    continue
                tensor, span = _tensor(file, file.tell() + width, path)
                if tensor.data_type in types:
                    dtype, shape = types[tensor.data_type], tuple(tensor.dims)
                    yield tensor.name, Stored(dtype, shape, partial(_read, span, dtype, shape), span)


def _tensor(file: BinaryIO, end: int, path: Path) -> tuple[Any, Span]:
    """A TensorProto without its bytes, and where those are."""
    from onnx import TensorProto

    begin, span, kept = file.tell(), None, b""
    for part, width in fields(file, end):
        at = file.tell()
        if part == RAW_DATA:
            file.seek(begin)
            kept += file.read(at - begin - len(tag(part, width)))
            span, begin = Span(path, at, width), at + width
            file.seek(begin)
        else:
            file.seek(width, os.SEEK_CUR)
    file.seek(begin)
    kept += file.read(end - begin)
    tensor = TensorProto.FromString(kept)
    if tensor.external_data:
        place = {entry.key: entry.value for entry in tensor.external_data}
        name = place["location"]
        if Path(name).name != name:
            raise RefusedContent(f"keeps its weights in {name!r}, outside its folder", where=path)
        span = Span(path.parent / name, int(place["offset"]), int(place["length"]))
    return tensor, span or Span(path, end, 0)


def _read(span: Span, dtype: str, shape: tuple[int, ...]) -> Array:
    import numpy as np

    if not span.length:
        return np.zeros(shape, DTYPES[dtype][1])
    return np.memmap(span.file, DTYPES[dtype][1], "c", span.start, shape)


class OnnxArtifact(Artifact):
    """An ONNX file in an onnxruntime session."""

    def __init__(self, path: Path, *, providers: list[str] | None, threads: int | None, optimised: bool) -> None:
        super().__init__(describe_onnx(path))
        check_companion(self.about)
        import onnxruntime as ort

        known = ort.get_available_providers()
        for provider in providers or ():
            if provider not in known:
                raise InputError(f"no provider '{provider}'; there are {', '.join(known)}")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # threads of an idle session would go on spinning for a while and slow down whatever runs next
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self.session = ort.InferenceSession(path, options, providers=providers or ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception type for every kind of refusal
            raise RefusedContent(f"onnxruntime refuses it: {_last_sentence(error)}", where=path) from None
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise RefusedContent(f"takes {len(inputs)} inputs; images are one", where=path)
        self._input = inputs[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.session.get_outputs())

    def run(self, pixel_values: Array) -> dict[str, Array]:
        wanted = self._input.shape[1:]
        if pixel_values.ndim != 4 or list(pixel_values.shape[1:]) != wanted:
            raise InputError(f"images of shape {list(pixel_values.shape)}; the file takes {['batch', *wanted]}", where=self.path)
        try:
            found = self.session.run(None, {self._input.name: pixel_values})
        except Exception as error:  # as above
            raise RefusedContent(f"onnxruntime fails on it: {_last_sentence(error)}", where=self.path) from None
        return dict(zip(self.outputs, found, strict=True))


def _last_sentence(error: Exception) -> str:
    """onnxruntime's reason without its source paths."""
    lines = str(error).strip().splitlines()
    text = re.sub(r"/\S+\.(h|cc):\d+ .*?\) ", "", lines[-1] if lines else type(error).__name__)
    return re.split(r" : |failed:|, Error ", text)[-1][:300]
