"""What an exported ONNX file declares of its input and its outputs, read without opening it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError
from vit_zoo.formats import describe
from vit_zoo.formats.onnx_admission import check_runnable, interface
from vit_zoo.graph.patch_inputs import image_axes

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Axes, Description


@dataclass(frozen=True)
class Declared:
    """The description, input and outputs of a file, with the names that an opened `Artifact` has for them."""

    about: Description
    input_type: str
    input_shape: Axes
    output_shapes: dict[str, Axes]

    @property
    def path(self) -> Path:
        return self.about.path

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(self.output_shapes)


def declared(path: str | os.PathLike[str]) -> Declared:
    """Return what an ONNX file declares. Raises InputError for another kind of file, RefusedContent for one not to be run."""
    if not os.path.lexists(path):
        raise InputError("no such file", where=path, hint="`vitzoo export MODEL --onnx` writes the file of a model")
    about = describe(path)
    if not about.graph:
        raise InputError("expected an ONNX file; the other formats run in the process that writes them", where=path)
    check_runnable(about.path)
    type_, axes, outputs = interface(about.path)
    return Declared(about, type_, image_axes(about.known_config().spec) if about.takes_patches else axes, outputs)
