"""The JSON document that `vitzoo probe` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from vit_zoo.cli.documents import Document
from vit_zoo.cli.export_document import ExportDocument

if TYPE_CHECKING:
    from vit_zoo.inference.probe import Probe


class ClassDocument(Document):
    label: str
    fitted: int
    tested: int
    right: int


class FailureDocument(Document):
    image: str
    reason: str


class ProbeDocument(Document):
    folder: str
    name: str
    accuracy: float | None
    images: int | None  # on which the accuracy was measured
    C: float | None
    classes: tuple[ClassDocument, ...]
    unreadable: tuple[FailureDocument, ...]
    export: ExportDocument

    @classmethod
    def of(cls, done: Probe) -> Self:
        accuracy = done.accuracy
        return cls(
            folder=str(done.folder), name=done.config.name, C=done.C, export=ExportDocument.of(done.export),
            accuracy=None if accuracy is None else accuracy.top1, images=None if accuracy is None else accuracy.images,
            classes=tuple(ClassDocument(label=c.label, fitted=c.fitted, tested=c.tested, right=c.right) for c in done.classes),
            unreadable=tuple(FailureDocument(image=name, reason=reason) for name, reason in done.unreadable),
        )  # fmt: skip
