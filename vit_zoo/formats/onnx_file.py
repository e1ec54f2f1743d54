"""ONNX files: metadata, read in one pass over the top level, and execution in onnxruntime."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, OtherWeights, RefusedContent
from vit_zoo.files import SafetensorsFile
from vit_zoo.files.wire import GRAPH, KEY, METADATA, VALUE, fields, tag
from vit_zoo.formats.artifact import MAX_METADATA, SELFCHECK, Artifact, Description, config_from, metadata_value
from vit_zoo.formats.format import Format, OpenOptions
from vit_zoo.formats.onnx_skeleton import external_files, length_of
from vit_zoo.formats.session import Session, SessionError
from vit_zoo.graph.patch_inputs import NAMES, VALUES, checked, image_axes, padded

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Axes
    from vit_zoo.formats.child import Child, ChildSession
    from vit_zoo.formats.structure import Structure

TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}  # onnxruntime's names, and ours


def describe_onnx(path: Path) -> Description:
    """Read the description in an ONNX file's metadata. The graph is skipped, so its size does not matter."""
    entries: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for number, length in fields(file, size):
                if number != METADATA:
                    file.seek(length, os.SEEK_CUR)
                    continue
                if length > MAX_METADATA:
                    raise RefusedContent(f"has {length:,} bytes of metadata; at most {MAX_METADATA:,} are read", where=path)
                end = file.tell() + length
                parts = {}
                for part, width in fields(file, end):
                    parts[part] = file.read(width).decode()
                entries[parts.get(KEY, "")] = parts.get(VALUE, "")
    except UnicodeDecodeError:
        raise RefusedContent("not a complete ONNX file: its metadata is not UTF-8", where=path) from None
    except ValueError as error:
        raise RefusedContent(f"not a complete ONNX file: {error}", where=path) from None
    selfcheck = entries.get(SELFCHECK)
    if "vit_zoo" not in entries:
        return Description(path, "onnx", None, {}, graph=True, selfcheck=selfcheck)
    config = config_from(entries["vit_zoo"], where=path)
    export = metadata_value(entries.get("vit_zoo.export", "{}"), where=path)
    return Description(path, "onnx", config, export, graph=True, selfcheck=selfcheck)


def check_companion(about: Description) -> None:
    """Raise OtherWeights if the weights file next to a graph is not the one that the graph was exported with.

    onnxruntime reads whatever lies at the offsets: with another header it would return wrong values without an error.
    Another tool, such as onnxruntime's optimiser, may have put the weights into the graph.
    """
    name = about.export.get("data")
    if name is None:
        return
    companion = about.path.parent / name
    if name not in external_files(about.path):
        return
    if not companion.is_file():
        raise RefusedContent(f"needs {name}, which is not in the same folder", where=about.path)
    if "header_sha256" in about.export:
        if SafetensorsFile(companion).header_sha256 != about.export["header_sha256"]:
            raise OtherWeights(f"was exported with another {name}; export it again", where=about.path)
        return
    with companion.open("rb") as file:
        file.seek(max(0, companion.stat().st_size - 64))
        if file.read().decode("ascii", "replace") != about.export.get("weights_sha256"):
            raise OtherWeights(f"was exported with another {name}; export it again", where=about.path)


class OnnxArtifact(Artifact):
    """An ONNX file in an onnxruntime session."""

    def __init__(self, path: Path, options: OpenOptions, *, more: bytes = b"", profile: str | None = None) -> None:
        """`more` is appended to the file's bytes; `profile` is the prefix of the path of the profile that onnxruntime writes."""
        super().__init__(describe_onnx(path))
        check_companion(self.about)
        self._child = options.child
        settings: dict[str, Any] = {"more": more, "profile": profile}
        settings |= {"providers": options.providers, "threads": options.threads, "optimised": options.optimised}
        try:
            if options.child is None:
                self.session: Session | ChildSession = Session(path, **settings)
            else:
                config = self.about.config if "include" in self.about.export else None
                pixels = 0 if config is None else math.prod(config.spec.image_size)
                self.session = options.child.open(**settings, pixels=pixels)
        except SessionError as error:
            if error.kind == "provider":
                raise InputError(error.text) from None
            raise RefusedContent(f"onnxruntime cannot load it: {error.text}", where=path) from None
        inputs = self.session.inputs
        self._patches = self.about.takes_patches and tuple(each.name for each in inputs) == NAMES
        if len(inputs) != 1 and not self._patches:
            raise RefusedContent(f"expected one input, got {len(inputs)}", where=path)
        self._input = inputs[0]
        self._half = self._input.type == "tensor(float16)"
        self.input_name, self.input_type = self._input.name, TYPES.get(self._input.type, self._input.type)

    @classmethod
    def with_values(cls, path: Path, names: Sequence[str], child: Child | None) -> OnnxArtifact:
        """Open a file with onnxruntime's optimiser off, and with its internal values of the given names as further outputs.

        They are appended to the file's bytes: repeated fields of a protobuf message are concatenated.
        """
        from onnx import GraphProto, ValueInfoProto

        more = GraphProto(output=[ValueInfoProto(name=name) for name in names]).SerializeToString()
        return cls(path, OpenOptions(optimised=False, child=child), more=tag(GRAPH, len(more)) + more)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(output.name for output in self.session.outputs)

    @property
    def input_shape(self) -> Axes:
        return self.axes

    @property
    def output_shapes(self) -> dict[str, Axes]:
        return {output.name: tuple(length_of(axis) for axis in output.shape) for output in self.session.outputs}

    @property
    def axes(self) -> tuple[int | str | None, ...]:
        """The input's axes as the file declares them: a length, or the name of a free axis."""
        if self._patches:
            return image_axes(self.config.spec)
        return tuple(length_of(axis) for axis in self._input.shape)

    def close(self) -> None:
        if self._child is not None:
            self._child.close()

    def run(self, pixel_values: Array) -> dict[str, Array]:
        fits = pixel_values.ndim == len(self.axes) == 4 and all(
            not isinstance(axis, int) or axis == length for axis, length in zip(self.axes, pixel_values.shape, strict=True)
        )
        if not fits:
            wanted = [axis if isinstance(axis, int) else axis or "free" for axis in self.axes]
            raise InputError(f"expected images of shape {wanted}, got {list(pixel_values.shape)}", where=self.path)
        if self._patches:
            return self.run_patches(padded(list(pixel_values), self.config.spec.patch_size))
        return self._run(pixel_values.astype("<f2") if self._half else pixel_values)

    def run_patches(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if not self._patches:
            return super().run_patches(inputs)
        arrays = checked(inputs, self.config.spec, self.path)
        return self._run(arrays.pop(VALUES), arrays)

    def _run(self, x: Array, more: Mapping[str, Array] | None = None) -> dict[str, Array]:
        try:
            values = self.session.run(self._input.name, x, more)
        except SessionError as error:
            cause = error.text if error.kind == "output" else f"onnxruntime failed to run it: {error.text}"
            raise RefusedContent(cause, where=self.path) from None
        return dict(zip(self.outputs, values, strict=True))


def _open(path: Path, about: Description, options: OpenOptions) -> Artifact:
    return OnnxArtifact(path, options)


def _structure(path: Path, opened: Callable[[], Artifact]) -> tuple[Structure, list[str]]:
    from vit_zoo.formats.structure import read_onnx

    return read_onnx(path)


ONNX = Format(
    name="onnx",
    suffix=".onnx",
    title="ONNX file",
    recognise=lambda path, kind: kind == "onnx",
    describe=describe_onnx,
    open=_open,
    write=None,
    structure=_structure,
)
