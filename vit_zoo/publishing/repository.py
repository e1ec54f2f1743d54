"""From a model to its repository: looked at, staged, shown, sent at once, read back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError
from vit_zoo.files import write_text
from vit_zoo.files.atomic import check_folder, writing
from vit_zoo.hub.conversation import conversation
from vit_zoo.hub.fetching import Address
from vit_zoo.hub.manifest import Item, manifest_of
from vit_zoo.hub.sending import Sent, check_tag, check_token, look, read_text, send
from vit_zoo.parity.report import ParityReport
from vit_zoo.publishing.card import card_of, checked_licence
from vit_zoo.publishing.measuring import RECORD, Record, measure
from vit_zoo.publishing.staging import PROGRAMS, STANDARD, Staging, stage
from vit_zoo.sources import Checkpoint

if TYPE_CHECKING:
    from vit_zoo.model_config import ModelConfig

Note = Callable[[str], None]


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


@dataclass(frozen=True)
class Plan:
    """What the user asks of a publish."""

    repo: str
    revision: str | None = None
    private: bool = False
    create_pr: bool = False
    tag: str | None = None
    licence: str | None = None
    message: str | None = None
    formats: Sequence[str] = ()
    without: Sequence[str] = ()
    calibrate: str | os.PathLike[str] | None = None
    random: bool = False  # whether weights that are not trained may go


def checked(plan: Plan, source: Checkpoint) -> Checkpoint:
    """The source as it may be published. Raises InputError for what must not be, or contradicts itself."""
    address = Address.parse(plan.repo)
    if plan.repo.startswith("hf-hub:") or address.revision is not None:
        raise InputError("name the repository as ORG/NAME; --revision names a branch", where=plan.repo)
    for what, asked, known in (("format", plan.formats, PROGRAMS), ("precision", plan.without, STANDARD)):
        for name in asked:
            if name not in known:
                raise InputError(f"no {what} '{name}' here; there are {', '.join(known)}")
    if plan.calibrate is not None and "int8" in plan.without:
        raise InputError("calibration is for int8, which is left out")
    if plan.tag is not None and plan.create_pr:
        raise InputError("a tag is of a commit on a branch, not of a pull request")
    for name, value in (("revision", plan.revision), ("tag", plan.tag)):
        if value is not None:
            Address.parse(f"{plan.repo}@{value}")
            if name == "revision" and len(value) == 40 and not set(value) - set("0123456789abcdef"):
                raise InputError("is a commit; a branch is wanted", where=value)
    if source.config.random_seed is not None and not plan.random:
        raise InputError(
            f"{source.config.name} has RANDOM WEIGHTS: nobody would be served by them", hint="--random-weights publishes them"
        )
    config = checked_licence(source.config, plan.licence)
    return replace(source, config=config)


def staged_at(plan: Plan, source: Checkpoint, folder: Path, note: Note) -> Published:
    """A dry run: the whole repository in a folder that is not there yet, or empty; nothing is asked of the Hub."""
    source = checked(plan, source)
    check_folder(folder)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.vitzoo-", dir=folder.resolve().parent) as made:
        staging, items = _whole(plan, source, Path(made) / folder.name, None, None, note)
        found = _published(plan, staging, items)
        with writing(folder):
            staging.folder.replace(folder)
    return replace(found, folder=folder)


def published(plan: Plan, source: Checkpoint, note: Note) -> Published:
    """Stage, then bring the repository to hold just that, by one commit or by none."""
    source = checked(plan, source)
    with conversation(plan.repo) as hub:
        check_token(hub)
        remote = look(hub, plan.repo, plan.revision)
        check_tag(remote, plan.tag)
        theirs = read_text(hub, remote, "README.md")
        record = read_text(hub, remote, RECORD)
        reports = {name: read_text(hub, remote, name) for name in remote.files if name.endswith(".parity.json")}
    with tempfile.TemporaryDirectory(prefix="vitzoo-publish-") as made:
        staging, items = _whole(plan, source, Path(made) / "repository", theirs, record, note, reports)
        found = _published(plan, staging, items)
        size = sum(item.size for item in items)
        note(f"sending {len(items)} files, {size / 1e6:,.1f} MB, to {plan.repo}")
        for item in items:
            note(f"  {item.name}  {item.size:,}{'' if not remote.holds(item) else '  (there already)'}")
        with conversation(plan.repo) as hub:
            message = plan.message or f"{source.config.name}, by vitzoo"
            sent = send(
                hub, remote, items, message=message, revision=plan.revision, private=plan.private,
                create_pr=plan.create_pr, tag=plan.tag,
            )  # fmt: skip
    return replace(found, sent=sent)


def _whole(
    plan: Plan,
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
    staging = stage(source, folder, without=plan.without, formats=plan.formats, calibrate=plan.calibrate, note=note)
    for name, report in staging.files.items():
        _keep_verdict(folder / f"{name}.parity.json", report, reports.get(f"{name}.parity.json"), staging, name)
    files = [Item(name, folder / name) for name in staging.files]
    measured = measure(files, staging.profile.source.config, Record.read(record))
    write_text(folder / RECORD, measured.dumps())
    write_text(folder / "README.md", card_of(staging, plan.repo, measured, theirs))
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


def _published(plan: Plan, staging: Staging, items: Sequence[Item]) -> Published:
    return Published(
        repo=plan.repo,
        config=staging.profile.source.config,
        files={item.name: item.size for item in items},
        clients=staging.profile.clients,
        reasons=dict(staging.profile.reasons),
        unsent=tuple(staging.unsent),
    )
