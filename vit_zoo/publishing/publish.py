"""Publication of a model: staged in a folder, then sent to its repository in one commit and read back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option, notice, printable
from vit_zoo.exporters.export_file import Note
from vit_zoo.files import write_text
from vit_zoo.files.folder import check_folder, private_folder, written_folder
from vit_zoo.files.sniff import parse_json
from vit_zoo.hub.client import hub_client
from vit_zoo.hub.download import Address
from vit_zoo.hub.manifest import Item, manifest_of
from vit_zoo.hub.upload import Sent, check_tag, check_token, look, read_text, send
from vit_zoo.loading.checkpoint import Checkpoint, ModelLike
from vit_zoo.loading.load import find_weights, has_weights
from vit_zoo.loading.stated import without_names
from vit_zoo.model.config import LABELS
from vit_zoo.parity.report import ParityReport
from vit_zoo.publishing.benchmark import RECORD, Record, measure
from vit_zoo.publishing.card import card_of, checked_licence
from vit_zoo.publishing.stage import PROGRAMS, STANDARD, Staging, stage

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig

RANDOM_WEIGHTS = Option("random_weights")


@dataclass(frozen=True)
class Published:
    """A published or staged repository: its files with their sizes, the clients that load it, and the commit."""

    repo: str
    config: ModelConfig
    files: dict[str, int]  # bytes
    clients: tuple[str, ...]
    reasons: dict[str, str]  # why a client cannot load it, by client
    unsent: tuple[str, ...]  # files in the model's folder that were not published, with reasons
    folder: Path | None = None  # the result of a dry run
    sent: Sent | None = None

    def __repr__(self) -> str:
        size = sum(self.files.values()) / 1e6
        return printable(f"<Published {self.repo}: {len(self.files)} files, {size:,.1f} MB, for {', '.join(self.clients)}>")


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """The options of `publish`, which its docstring explains.

    Raises InputError for unknown or contradictory options, before any work starts.
    """

    repo: str
    dry_run: str | os.PathLike[str] | None = None
    revision: str | None = None
    private: bool = False
    create_pr: bool = False
    tag: str | None = None
    licence: str | None = None
    message: str | None = None
    formats: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    calibrate: str | os.PathLike[str] | None = None
    random_weights: bool = False  # whether untrained weights may be published

    def __post_init__(self) -> None:
        address = Address.parse(self.repo)
        if self.repo.startswith("hf-hub:") or address.revision is not None:
            branch = Option("revision", "BRANCH")
            raise InputError(f"expected ORG/NAME; {branch} names a branch", where=self.repo, options=[branch])
        for what, names, known in (("format", self.formats, PROGRAMS), ("precision", self.without, STANDARD)):
            for name in names:
                if name not in known:
                    raise InputError(f"unknown {what} '{name}'; choose from {', '.join(known)}")
        if self.calibrate is not None and "int8" in self.without:
            raise InputError("calibrate applies to int8, which is left out")
        if self.tag is not None and self.create_pr:
            raise InputError("cannot tag a pull request; a tag names a commit on a branch")
        for name, value in (("revision", self.revision), ("tag", self.tag)):
            if value is not None:
                Address.parse(f"{self.repo}@{value}")
                if name == "revision" and len(value) == 40 and not set(value) - set("0123456789abcdef"):
                    raise InputError("expected a branch, got a commit", where=value)

    def licensed(self, source: Checkpoint) -> Checkpoint:
        """Return the checkpoint under the stated licence. Raises InputError for random weights and for another licence."""
        if source.config.random_seed is not None and not self.random_weights:
            message = f"{source.config.name} has {source.config.random_text}, which are not published by default"
            raise InputError(message, hint=f"{RANDOM_WEIGHTS} publishes them", options=[RANDOM_WEIGHTS])
        return replace(source, config=checked_licence(source.config, self.licence))


def publish_model(model: ModelLike, options: PublishOptions, facts: Mapping[str, Any], note: Note) -> Published:
    """Publish a model, or stage it in a folder. Raises as `vit_zoo.publish`."""
    random = options.random_weights and not has_weights(model)
    source = options.licensed(find_weights(model, random=random, ways=(RANDOM_WEIGHTS,), **facts)).in_float32()
    if without_names(source.config):
        notice(
            f"the classes of {source.config.name} have no names, and clients show LABEL_0, ...; {LABELS} states them", [LABELS]
        )
    return _send(options, source, note) if options.dry_run is None else _stage_at(options, source, Path(options.dry_run), note)


def _stage_at(options: PublishOptions, source: Checkpoint, folder: Path, note: Note) -> Published:
    """Dry run: stage the repository in a new or empty folder, without any request to the Hub."""
    check_folder(folder)
    with written_folder(folder) as made:
        staging, items = _stage_with_card(options, source, made, None, None, note)
        published = _published(options, staging, items)
    return replace(published, folder=folder)


def _send(options: PublishOptions, source: Checkpoint, note: Note) -> Published:
    """Stage the repository, then update it on the Hub by one commit, or none if nothing changed."""
    with hub_client(options.repo) as hub:
        check_token(hub)
        remote = look(hub, options.repo, options.revision)
        check_tag(remote, options.tag)
        card = read_text(hub, remote, "README.md")
        record = read_text(hub, remote, RECORD)
        reports = {name: read_text(hub, remote, name) for name in remote.files if name.endswith(".parity.json")}
    with private_folder("repository") as made:
        staging, items = _stage_with_card(options, source, made, card, record, note, reports)
        published = _published(options, staging, items)
        size = sum(item.size for item in items)
        note(f"uploading {len(items)} files, {size / 1e6:,.1f} MB, to {options.repo}")
        for item in items:
            note(f"  {item.name}  {item.size:,}{'' if not remote.holds(item) else '  (unchanged)'}")
        with hub_client(options.repo) as hub:
            message = options.message or f"{source.config.name}, by vitzoo"
            sent = send(
                hub, remote, items, message=message, revision=options.revision, private=options.private,
                create_pr=options.create_pr, tag=options.tag,
            )  # fmt: skip
    return replace(published, sent=sent)


def _stage_with_card(
    options: PublishOptions,
    source: Checkpoint,
    folder: Path,
    card: str | None,
    record: str | None,
    note: Note,
    reports: Mapping[str, str | None] = MappingProxyType({}),
) -> tuple[Staging, list[Item]]:
    """Fill an empty folder, with a card, and return it with its files. Earlier reports and figures of equal files are kept."""
    staging = stage(source, folder, without=options.without, formats=options.formats, calibrate=options.calibrate, note=note)
    for name, report in staging.files.items():
        _keep_report(folder / f"{name}.parity.json", report, reports.get(f"{name}.parity.json"), staging, name)
    files = [Item(name, folder / name) for name in staging.files]
    measured = measure(files, staging.profile.source.config, Record.read(record))
    write_text(folder / RECORD, measured.dumps())
    write_text(folder / "README.md", card_of(staging, options.repo, measured, card))
    return staging, manifest_of(folder)


def _keep_report(path: Path, report: ParityReport, text: str | None, staging: Staging, name: str) -> None:
    """Keep an earlier report on the same bytes with the same effort, so that rounding on another machine changes no file."""
    if text is None:
        return
    try:
        known = ParityReport.read(parse_json(text))
    except ValueError:  # written by another version
        return
    if known.ok and known.sha256 == report.sha256 and known.effort == report.effort:
        staging.files[name] = known
        write_text(path, known.dumps())


def _published(options: PublishOptions, staging: Staging, items: Sequence[Item]) -> Published:
    return Published(
        repo=options.repo,
        config=staging.profile.source.config,
        files={item.name: item.size for item in items},
        clients=staging.profile.clients,
        reasons=dict(staging.profile.reasons),
        unsent=tuple(staging.unsent),
    )
