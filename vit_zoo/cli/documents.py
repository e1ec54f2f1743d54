"""The JSON documents that commands print with --json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from vit_zoo.model.ops import Activation
from vit_zoo.model.spec import ViTSpec

if TYPE_CHECKING:
    from pathlib import Path

    from vit_zoo.inference.embed import Embeddings
    from vit_zoo.inference.predict import Prediction
    from vit_zoo.loading.convert import Converted
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.publishing.publish import Published
    from vit_zoo.publishing.pull import Pulled


class Document(BaseModel):
    """A JSON document, printed with its fields in this order."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CreateDocument(Document):
    folder: str
    name: str
    parameters: int
    random_seed: int

    @classmethod
    def of(cls, folder: Path, config: ModelConfig, seed: int) -> Self:
        return cls(folder=str(folder), name=config.name, parameters=config.spec.params, random_seed=seed)


class ConvertDocument(Document):
    path: str
    dialect: str
    left_out: tuple[str, ...]
    dropped: tuple[str, ...]
    added: tuple[str, ...]
    note: str | None
    accepted: tuple[str, ...]
    difference: float | None
    spec: ViTSpec

    @classmethod
    def of(cls, done: Converted) -> Self:
        return cls(
            path=str(done.path), dialect=done.dialect, left_out=done.unwanted, dropped=done.dropped, added=done.added,
            note=done.note, accepted=done.accepted, difference=done.difference, spec=done.config.spec,
        )  # fmt: skip


class LabelDocument(Document):
    label: str
    probability: float


class ValueDocument(Document):
    label: str
    value: float  # of a regression


class PredictDocument(Document):
    file: str
    activation: Activation | None  # the function from the model's outputs to probabilities; null for a regression
    predictions: tuple[LabelDocument, ...] | tuple[ValueDocument, ...]

    @classmethod
    def of(cls, prediction: Prediction) -> Self:
        scores = list(zip(prediction.labels, prediction.scores, strict=True))
        if prediction.activation is None:
            values = tuple(ValueDocument(label=label, value=score) for label, score in scores)
            return cls(file=prediction.file, activation=None, predictions=values)
        best = tuple(LabelDocument(label=label, probability=score) for label, score in scores)
        return cls(file=prediction.file, activation=prediction.activation, predictions=best)


class EmbedDocument(Document):
    path: str
    images: int
    width: int
    dtype: str
    output: str
    normalised: bool
    failed: int
    failures: str | None
    table: str | None

    @classmethod
    def of(cls, done: Embeddings) -> Self:
        return cls(
            path=str(done.path), images=done.images, width=done.width, dtype=done.dtype, output=done.output,
            normalised=done.normalised, failed=done.failed, failures=None if done.failures is None else str(done.failures),
            table=None if done.table is None else str(done.table),
        )  # fmt: skip


class PublishDocument(Document):
    repo: str
    files: dict[str, int]
    clients: tuple[str, ...]
    not_for: dict[str, str]
    unsent: tuple[str, ...]
    licence: str | None
    source: str | None
    folder: str | None
    commit: str | None
    url: str | None
    changed: tuple[str, ...] | None

    @classmethod
    def of(cls, done: Published) -> Self:
        sent = done.sent
        return cls(
            repo=done.repo, files=done.files, clients=done.clients, not_for=done.reasons, unsent=done.unsent,
            licence=done.config.licence, source=done.config.source, folder=None if done.folder is None else str(done.folder),
            commit=None if sent is None else sent.commit, url=None if sent is None else sent.url,
            changed=None if sent is None else (*sent.added, *sent.deleted),
        )  # fmt: skip


class PullDocument(Document):
    folder: str
    name: str
    source: str | None
    licence: str | None
    licence_link: str | None
    parameters: int

    @classmethod
    def of(cls, done: Pulled) -> Self:
        config = done.config
        return cls(
            folder=str(done.folder), name=config.name, source=config.source, licence=config.licence,
            licence_link=config.licence_link, parameters=config.spec.params,
        )  # fmt: skip
