"""The JSON document that `vitzoo export` prints for each file. Not in documents.py because parity reports are slow to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from vit_zoo.cli.documents import Document
from vit_zoo.parity.report import ParityReport
from vit_zoo.parity.tolerance import Judgement

if TYPE_CHECKING:
    from vit_zoo.exporters.export_file import Export


class ExportDocument(Document):
    path: str
    data: str | None
    random_seed: int | None
    verified: bool
    judgement: Judgement | None
    report: ParityReport | None

    @classmethod
    def of(cls, done: Export) -> Self:
        return cls(
            path=str(done.path),
            data=None if done.data is None else str(done.data),
            random_seed=done.config.random_seed,
            verified=done.report is not None,
            judgement=done.judgement,
            report=done.report,
        )
