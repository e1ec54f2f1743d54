"""TorchScript files: traced programs in torch's zip archives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.formats.artifact import Artifact, Description, describe_archive
from vit_zoo.formats.format import Format, OpenOptions

if TYPE_CHECKING:
    from vit_zoo.files import Staged
    from vit_zoo.formats.structure import Structure
    from vit_zoo.model.vit import ViT


def _open(path: Path, about: Description, options: OpenOptions) -> Artifact:
    from vit_zoo.formats.programs import ProgramArtifact, load_torchscript

    return ProgramArtifact(path, about, load_torchscript)


def _write(model: ViT, outputs: tuple[str, ...], staged: Staged, export: Mapping[str, Any]) -> None:
    from vit_zoo.formats.programs import write_torchscript

    write_torchscript(model, outputs, staged, export)


def _structure(path: Path, opened: Callable[[], Any]) -> tuple[Structure, list[str]]:
    from vit_zoo.formats.structure import read_torchscript

    return read_torchscript(opened().program), []


TORCHSCRIPT = Format(
    name="torchscript",
    suffix=".torchscript.pt",
    title="TorchScript file",
    recognise=lambda path, kind: kind == "torchscript",
    describe=partial(describe_archive, kind="torchscript"),
    open=_open,
    write=_write,
    structure=_structure,
)
