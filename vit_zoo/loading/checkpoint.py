"""What a source is: a config and, if it has weights, its tensors under our names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union

from vit_zoo.errors import Option, notice
from vit_zoo.files import Stored
from vit_zoo.model.config import ModelConfig
from vit_zoo.progress import say

if TYPE_CHECKING:
    from torch import nn

    from vit_zoo.weights.read import Reading

ModelLike = Union[str, "os.PathLike[str]", "nn.Module"]
FileSize = tuple[int, int] | Literal["any"] | None


@dataclass(frozen=True)
class Architecture:
    """A model without weights."""

    config: ModelConfig


@dataclass(frozen=True)
class Checkpoint:
    """A model with weights: its config, and its tensors under our names, which are read on use."""

    config: ModelConfig
    tensors: Mapping[str, Stored]
    path: Path | None = None
    dialect: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)  # where each field of the spec comes from
    digest: str | None = None  # the content hash stated in the file
    unwanted: tuple[str, ...] = ()  # known tensors of the file that are not part of the model
    cached: bool = False  # whether the file is in the Hub's cache, which is not written to
    notes: tuple[str, ...] = ()  # what was decided: where the model is in the file, what is assumed, its image size (the last)
    options: tuple[Option, ...] = ()  # those that the notes refer to
    as_stored: Reading | None = None  # the model with positions as stored, where they are resized for its processor's images

    def at_stored_size(self) -> Checkpoint:
        """Return the model with the positions as stored, and the preprocessing for that size."""
        if self.as_stored is None:
            return self
        spec, how = self.as_stored.spec, self.config.preprocess
        config = self.config.replace(spec=spec, preprocess=None if how is None else how.for_size(spec.image_size))
        tensors, origin = self.as_stored.tensors, self.as_stored.origin
        return replace(self, config=config, tensors=tensors, origin=origin, notes=self.notes[:-1], options=(), as_stored=None)

    def in_float32(self) -> Checkpoint:
        """Return the same weights with those in float64 rounded to float32, in which exported files compute."""
        if all(stored.dtype != "F64" for stored in self.tensors.values()):
            return self
        where = self.path or self.config.name
        say("rounding float64 weights to float32")
        tensors = {name: stored.single(name, where=where) for name, stored in self.tensors.items()}
        return replace(self, tensors=tensors, digest=None)


def settle_size(source: Checkpoint, file_size: FileSize) -> Checkpoint:
    """Return the model for an exported file of this image size, as in `find_source`, and tell the user its notes."""
    if source.as_stored is not None and file_size in ("any", source.as_stored.spec.image_size):
        source = source.at_stored_size()
    tell(source)
    return source


def tell(source: Checkpoint) -> None:
    """Tell the user what was decided about a checkpoint, in one line."""
    if source.notes:
        name = source.config.name if source.path is None else source.path.name
        notice(f"{name}: {'; '.join(source.notes)}", source.options)
