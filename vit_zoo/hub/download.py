"""Which files of a repository make a model, brought into the Hub's cache; each is compared with the hash that the Hub states."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import HubError, InputError, RefusedContent, Unreachable, VitzooError
from vit_zoo.files.checkpoints import NAMES
from vit_zoo.files.sniff import git_oid, read_json, sha256_of
from vit_zoo.hub.client import Conversation, conversation

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

PREFIX = "hf-hub:"
COMMIT = re.compile(r"[0-9a-f]{40}")
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
REVISION = re.compile(r"[\w.][\w./-]{0,254}", re.ASCII)
BESIDE = ("config.json", "preprocessor_config.json", "open_clip_config.json", "README.md")  # what says what the weights are
TERMS = re.compile(r"(LICEN[CS]E|NOTICE|COPYING)([.-][\w.-]+)?", re.ASCII)  # what goes wherever the weights go
OFFLINE = "HF_HUB_OFFLINE"


@dataclass(frozen=True)
class Address:
    """A repository of the Hub, `ORG/NAME`, and a branch, a tag or a commit; None: the main branch as it is now."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `hf-hub:ORG/NAME[@REVISION]`, or without the prefix. Raises InputError."""
        repo, at, revision = text.removeprefix(PREFIX).partition("@")
        if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
            raise InputError(f"'{repo[:96]}' is no ORG/NAME of the Hub", where=text[:200])
        if at and (not REVISION.fullmatch(revision) or ".." in revision):
            raise InputError(f"'{revision[:96]}' is no branch, tag or commit", where=text[:200])
        return cls(repo, revision or None)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + ("" if self.revision is None else f"@{self.revision}")


@dataclass(frozen=True)
class Fetched:
    """Files of one commit, in the Hub's cache: they are other programs' too, and are not written to."""

    address: Address  # with the commit
    folder: Path


def fetch(address: Address, files: Sequence[str] | None = None, *, offline: bool | None = None, check: bool = False) -> Fetched:
    """The files that make a model, or those named; of the cache alone where `offline` or HF_HUB_OFFLINE says so.

    What is in the cache already was compared when it came; `check` compares it again.
    Raises HubError for what is not there, may not be read, or came damaged twice.
    """
    if offline or (offline is None and _is_offline()):
        return _cached(address, files)
    try:
        with conversation(str(address)) as hub:
            return _fetch(hub, address, files, check=check)
    except Unreachable as error:
        try:  # the same command, network or not
            return _cached(address, files)
        except HubError:
            raise error from None


def _fetch(hub: Conversation, address: Address, files: Sequence[str] | None, *, check: bool) -> Fetched:
    info = hub.again(lambda: hub.api.model_info(address.repo, revision=address.revision, files_metadata=True))
    sha = info.sha
    if sha is None or not COMMIT.fullmatch(sha):
        raise HubError("the Hub does not say which commit it is", where=address)
    found = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    pinned = Address(address.repo, sha)

    def bring(name: str) -> Path:
        return _bring(hub, pinned, found[name], check=check)

    names = _wanted(found, files, address)
    paths = [bring(name) for name in names]
    for path in paths:
        if path.name.endswith(".index.json"):
            for part in _parts(path, found):
                bring(part)
    folder = paths[0]
    for _ in Path(names[0]).parts:
        folder = folder.parent
    _remember(folder, address.revision or "main")
    return Fetched(pinned, folder)


def _wanted(found: dict[str, Any], files: Sequence[str] | None, address: Address) -> list[str]:
    """The weights first, then what stands beside them."""
    if files is not None:
        missing = [name for name in files if name not in found]
        if missing:
            raise HubError(f"has no file {missing[0]!r}", where=address)
        weights = list(files)
    else:
        weights = [name for name in NAMES if name in found][:1]
        if not weights:
            raise HubError("holds no weights of a name that is known", where=address, hint=f"such as {', '.join(NAMES[:3])}")
    return [*weights, *(name for name in found if (name in BESIDE or TERMS.fullmatch(name)) and name not in weights)]


def _parts(index: Path, found: dict[str, Any]) -> list[str]:
    places = read_json(index).get("weight_map")
    parts = sorted({str(place) for place in places.values()}) if isinstance(places, dict) else []
    missing = [part for part in parts if part not in found]
    if missing:
        raise RefusedContent(f"names a part that is not there: {missing[0]!r}", where=index.name)
    return parts


def _bring(hub: Conversation, pinned: Address, file: RepoSibling, *, check: bool) -> Path:
    """One file in the cache, with the hash that the Hub states; a damaged one is fetched once more."""
    from huggingface_hub import try_to_load_from_cache

    name = file.rfilename
    known = try_to_load_from_cache(pinned.repo, name, revision=pinned.revision)
    if isinstance(known, str) and not check:
        return Path(known)
    for again in (False, True):
        text = hub.again(
            lambda again=again: hub.api.hf_hub_download(pinned.repo, name, revision=pinned.revision, force_download=again)  # type: ignore[misc]
        )
        path = Path(text)
        if _is_whole(path, file):
            return path
        path.resolve().unlink(missing_ok=True)  # the cache is everybody's
        path.unlink(missing_ok=True)
    raise HubError(f"{name!r} came damaged twice: its hash is not the one that the Hub states", where=pinned)


def _is_whole(path: Path, file: RepoSibling) -> bool:
    if file.size is not None and path.stat().st_size != file.size:
        return False
    if file.lfs is not None:
        return sha256_of(path) == file.lfs.sha256
    return file.blob_id is None or git_oid(path) == file.blob_id


def _cached(address: Address, files: Sequence[str] | None) -> Fetched:
    """What an earlier fetch left, whole or not at all."""
    folder = _snapshot(address)
    if folder is None:
        raise HubError("is not in the cache", where=address, hint=f"{OFFLINE} is set" if _is_offline() else None)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    known = dict.fromkeys(names)
    try:
        for name in _wanted(known, files, address):
            if name.endswith(".index.json"):
                _parts(folder / name, known)
    except VitzooError as error:
        raise HubError(f"is not whole in the cache: {error.message}", where=address) from None
    return Fetched(Address(address.repo, folder.name), folder)


def _remember(snapshot: Path, revision: str) -> None:
    """That a branch or tag stood for this commit, as the cache's layout has it: files are asked for by commit, so that all
    are of one."""
    if COMMIT.fullmatch(revision):
        return
    reference = snapshot.parents[1] / "refs" / revision
    with contextlib.suppress(OSError):  # a cache that others fill is still read
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(snapshot.name)


def _snapshot(address: Address) -> Path | None:
    """The folder of a commit in the cache, that which a branch or tag stood for when it was last fetched."""
    from huggingface_hub.constants import HF_HUB_CACHE

    home = Path(HF_HUB_CACHE) / f"models--{address.repo.replace('/', '--')}"
    commit = address.revision or "main"
    reference = home / "refs" / commit
    if not COMMIT.fullmatch(commit) and reference.is_file():
        commit = reference.read_text().strip()
    folder = home / "snapshots" / commit
    return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None


def _is_offline() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)
