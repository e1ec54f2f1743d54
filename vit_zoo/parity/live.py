"""A checkpoint's torch model and its reference, for all that is made of the checkpoint. Imports torch on first use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from vit_zoo.loading.load import model_of

if TYPE_CHECKING:
    from vit_zoo.loading.checkpoint import Checkpoint
    from vit_zoo.model.vit import ViT
    from vit_zoo.parity.reference import ModelReference


class Live:
    """The torch model of a checkpoint in float32, and the reference made of it. Both are made on first use."""

    def __init__(self, source: Checkpoint) -> None:
        self.source = source

    @property
    def model(self) -> ViT:
        return self.reference.model

    @cached_property
    def reference(self) -> ModelReference:
        from vit_zoo.parity.reference import ModelReference, reference_name

        return ModelReference(model_of(self.source), reference_name(self.source))
