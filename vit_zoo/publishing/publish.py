"""From a model to its repository: looked at, staged, shown, sent at once, read back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option
from vit_zoo.exporters.export_file import Note
from vit_zoo.files import write_text
from vit_zoo.files.atomic import check_folder, writing
from vit_zoo.hub.client import hub_client
from vit_zoo.hub.download import Address
from vit_zoo.hub.manifest import Item, manifest_of
from vit_zoo.hub.upload import Sent, check_tag, check_token, look, read_text, send
from vit_zoo.loading.load import find_weights, shipped_or_random_weights
from vit_zoo.loading.source import Architecture, Checkpoint, ModelLike, find_source
from vit_zoo.parity.report import ParityReport
from vit_zoo.publishing.benchmark import RECORD, Record, measure
from vit_zoo.publishing.card import card_of, checked_licence
from vit_zoo.publishing.stage import PROGRAMS, STANDARD, Staging, stage

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig


@dataclass(frozen=True)
class Published:
    """What was published, or staged: the files with their sizes, for whom they are, and the commit that holds them."""

    repo: str
    config: ModelConfig
    files: dict[str, int]  # bytes
    clients: tuple[str, ...]
    reasons: dict[str, str]  # of each client that cannot load it, why
    unsent: tuple[str, ...]  # what lies in the model's folder and did not go along
    folder: Path | None = None  # of a dry run
    sent: Sent | None = None


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """The options of `publish`, as its docstring explains them.

    Options that are unknown or contradict each other raise InputError here, before any work starts.
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
    random_weights: bool = False  # whether weights that are not trained may go

    def __post_init__(self) -> None:
        address = Address.parse(self.repo)
        if self.repo.startswith("hf-hub:") or address.revision is not None:
            branch = Option("revision", "BRANCH")
            raise InputError(f"name the repository as ORG/NAME; {branch} names a branch", where=self.repo, options=[branch])
        for what, names, known in (("format", self.formats, PROGRAMS), ("precision", self.without, STANDARD)):
            for name in names:
                if name not in known:
                    raise InputError(f"no {what} '{name}' here; there are {', '.join(known)}")
        if self.calibrate is not None and "int8" in self.without:
            raise InputError("calibration is for int8, which is left out")
        if self.tag is not None and self.create_pr:
            raise InputError("a tag is of a commit on a branch, not of a pull request")
        for name, value in (("revision", self.revision), ("tag", self.tag)):
            if value is not None:
                Address.parse(f"{self.repo}@{value}")
                if name == "revision" and len(value) == 40 and not set(value) - set("0123456789abcdef"):
                    raise InputError("is a commit; a branch is wanted", where=value)

    def licensed(self, source: Checkpoint) -> Checkpoint:
        """The checkpoint under the licence that is stated. Raises InputError for weights that must not be published so."""
        if source.config.random_seed is not None and not self.random_weights:
            message = f"{source.config.name} has RANDOM WEIGHTS: nobody would be served by them"
            allowed = Option("random_weights")
            raise InputError(message, hint=f"{allowed} publishes them", options=[allowed])
        return replace(source, config=checked_licence(source.config, self.licence))


def publish_model(model: ModelLike, options: PublishOptions, facts: Mapping[str, Any], note: Note) -> Published:
    """Publish a model, or stage it in a folder. Raises as `vit_zoo.publish`."""
    source = find_source(model, **facts)
    if isinstance(source, Architecture):
        random = options.random_weights
        source = shipped_or_random_weights(source, str(model), 0) if random else find_weights(model, **facts)
    source = options.licensed(source)
    return _sent(options, source, note) if options.dry_run is None else _staged_at(options, source, Path(options.dry_run), note)


def _staged_at(options: PublishOptions, source: Checkpoint, folder: Path, note: Note) -> Published:
    """A dry run: the whole repository in a folder that is not there yet, or empty; nothing is asked of the Hub."""
    check_folder(folder)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.vitzoo-", dir=folder.resolve().parent) as made:
        staging, items = _whole(options, source, Path(made) / folder.name, None, None, note)
        found = _published(options, staging, items)
        with writing(folder):
            staging.folder.replace(folder)
    return replace(found, folder=folder)


def _sent(options: PublishOptions, source: Checkpoint, note: Note) -> Published:
    """Stage, then bring the repository to hold just that, by one commit or by none."""
    with hub_client(options.repo) as hub:
        check_token(hub)
        remote = look(hub, options.repo, options.revision)
        check_tag(remote, options.tag)
        theirs = read_text(hub, remote, "README.md")
        record = read_text(hub, remote, RECORD)
        reports = {name: read_text(hub, remote, name) for name in remote.files if name.endswith(".parity.json")}
    with tempfile.TemporaryDirectory(prefix="vitzoo-publish-") as made:
        staging, items = _whole(options, source, Path(made) / "repository", theirs, record, note, reports)
        found = _published(options, staging, items)
        size = sum(item.size for item in items)
        note(f"sending {len(items)} files, {size / 1e6:,.1f} MB, to {options.repo}")
        for item in items:
            note(f"  {item.name}  {item.size:,}{'' if not remote.holds(item) else '  (there already)'}")
        with hub_client(options.repo) as hub:
            message = options.message or f"{source.config.name}, by vitzoo"
            sent = send(
                hub, remote, items, message=message, revision=options.revision, private=options.private,
                create_pr=options.create_pr, tag=options.tag,
            )  # fmt: skip
    return replace(found, sent=sent)


def _whole(
    options: PublishOptions,
    source: Checkpoint,
    folder: Path,
    theirs: str | None,
    record: str | None,
    note: Note,
    reports: Mapping[str, str | None] = MappingProxyType({}),
) -> tuple[Staging, list[Item]]:
    """The staged folder with its card, and what is in it. A verdict and a measurement that stand, of the same bytes, stay."""
    with writing(folder):
        folder.mkdir()
    staging = stage(source, folder, without=options.without, formats=options.formats, calibrate=options.calibrate, note=note)
    for name, report in staging.files.items():
        _keep_verdict(folder / f"{name}.parity.json", report, reports.get(f"{name}.parity.json"), staging, name)
    files = [Item(name, folder / name) for name in staging.files]
    measured = measure(files, staging.profile.source.config, Record.read(record))
    write_text(folder / RECORD, measured.dumps())
    write_text(folder / "README.md", card_of(staging, options.repo, measured, theirs))
    return staging, manifest_of(folder)


def _keep_verdict(path: Path, report: ParityReport, text: str | None, staging: Staging, name: str) -> None:
    """An earlier verdict on the same bytes, of as much effort: another machine's digits would be a change of nothing."""
    from pydantic import ValidationError

    if text is None:
        return
    try:
        known = ParityReport.model_validate_json(text)
    except ValidationError:  # of another version
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
