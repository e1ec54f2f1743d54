"""Row type of the table of export formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_zoo.files import Staged
    from vit_zoo.formats.artifact import Artifact, Description
    from vit_zoo.formats.child import Child
    from vit_zoo.formats.structure import Structure
    from vit_zoo.model.vit import ViT


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """Options of onnxruntime for opening a file; None means its default. Other formats take the defaults only."""

    providers: tuple[str, ...] | None = None
    threads: int | None = None
    optimised: bool = True  # whether its graph optimiser runs
    child: Child | None = None  # the process that opens the file; None for this one


@dataclass(frozen=True, kw_only=True)
class Format:
    """An export format: its names, and the functions that recognise, describe, write, open and check its files.

    * `recognise(path, kind)`: whether a file is of this format, by its content; `kind` is the result of `files.sniff`.
    * `describe(path)`: the metadata in a file, read without running it, without torch and without onnx.
    * `open(path, about, options)`: the opened file. Raises RefusedContent for code that this process did not write.
    * `write(model, outputs, staged, export)`: writes the torch model as a file with `export` (the export options) and the
      model's config as metadata; None for ONNX, which `graph/` writes from the tensors.
    * `structure(path, opened)`: the epsilons, activations and precision that a file states, and its faults; `opened` returns
      the opened file, for formats that must be opened to read them.
    """

    name: str  # in Python, and of the option on the command line
    suffix: str
    title: str  # in help and errors: "TorchScript file"
    recognise: Callable[[Path, str], bool]
    describe: Callable[[Path], Description]
    open: Callable[[Path, Description, OpenOptions], Artifact]
    write: Callable[[ViT, tuple[str, ...], Staged, Mapping[str, Any]], None] | None
    structure: Callable[[Path, Callable[[], Artifact]], tuple[Structure, list[str]]]

    @property
    def graph(self) -> bool:
        """Whether its files are ONNX graphs; opset, precision and the placement of weights apply to these only."""
        return self.write is None
