"""Download of a model's files from a Hub repository into the cache; each is checked against the hash that the Hub gives."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import HubError, InputError, RefusedContent, Unreachable, VitzooError
from vit_zoo.files import Staged, staging_folder
from vit_zoo.files.checkpoints import NAMES
from vit_zoo.files.sharded import parts_of
from vit_zoo.files.sniff import git_oid, sha256_of
from vit_zoo.hub.client import HubClient, has_bars, hub_client
from vit_zoo.progress import step

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

PREFIX = "hf-hub:"
COMMIT = re.compile(r"[0-9a-f]{40}")
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
REVISION = re.compile(r"[\w.][\w./-]{0,254}", re.ASCII)
# files that describe the weights
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json", "README.md")
TERMS = re.compile(r"(LICEN[CS]E|NOTICE|COPYING)([.-][\w.-]+)?", re.ASCII)  # licence texts, copied with the weights
OFFLINE = "HF_HUB_OFFLINE"


@dataclass(frozen=True)
class Address:
    """A Hub repository, `ORG/NAME`, and a branch, tag or commit; None stands for the current main branch."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `hf-hub:ORG/NAME[@REVISION]`, with or without the prefix. Raises InputError."""
        repo, at, revision = text.removeprefix(PREFIX).partition("@")
        if not REPO.fullmatch(repo) or ".." in repo or "--" in repo:
            raise InputError(f"expected a repository ORG/NAME, got '{repo[:96]}'", where=text[:200])
        if at and (not REVISION.fullmatch(revision) or ".." in revision):
            raise InputError(f"expected a branch, tag or commit, got '{revision[:96]}'", where=text[:200])
        return cls(repo, revision or None)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + ("" if self.revision is None else f"@{self.revision}")


@dataclass(frozen=True)
class Fetched:
    """Files of one commit in the Hub's cache. Other programs share the cache, so the files must not be modified."""

    address: Address  # its revision is the commit
    folder: Path


def fetch(address: Address, files: Sequence[str] | None = None, *, offline: bool | None = None, check: bool = False) -> Fetched:
    """Download a model's files, or the named `files`, and return their folder in the cache.

    With `offline` or HF_HUB_OFFLINE, only the cache is used; it is also used if the Hub cannot be reached. Files that are
    already in the cache were checked when they were downloaded; `check` checks their hashes again. Raises HubError if a file
    does not exist, cannot be read, or is damaged in two downloads.
    """
    if offline or (offline is None and _is_offline()):
        return _cached(address, files)
    try:
        with hub_client(str(address)) as hub:
            return _fetch(hub, address, files, check=check)
    except Unreachable as error:
        try:  # so that a command works the same without a network
            return _cached(address, files)
        except HubError:
            raise error from None


def _fetch(hub: HubClient, address: Address, files: Sequence[str] | None, *, check: bool) -> Fetched:
    info = hub.call(lambda: hub.api.model_info(address.repo, revision=address.revision, files_metadata=True))
    sha = info.sha
    if sha is None or not COMMIT.fullmatch(sha):
        raise HubError("the Hub returned no commit", where=address)
    available = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    pinned = Address(address.repo, sha)

    def download(name: str) -> Path:
        return _download(hub, pinned, available[name], check=check)

    names = _model_files(available, files, address)
    paths = [download(name) for name in names]
    for path in paths:
        if path.name.endswith(".index.json"):
            for shard in _shards(path, available):
                download(shard)
    folder = paths[0]
    for _ in Path(names[0]).parts:
        folder = folder.parent
    _record_revision(folder, address.revision or "main")
    return Fetched(pinned, folder)


def _model_files(available: dict[str, Any], files: Sequence[str] | None, address: Address) -> list[str]:
    """Return the names of the weights, or of `files`, followed by those of the configs and licences."""
    if files is not None:
        missing = [name for name in files if name not in available]
        if missing:
            raise HubError(f"no such file: {missing[0]!r}", where=address)
        weights = list(files)
    else:
        weights = [name for name in NAMES if name in available][:1]
        if not weights:
            hint = f"expected a name such as {', '.join(NAMES[:3])}"
            raise HubError("contains no weights with a known file name", where=address, hint=hint)
    others = (name for name in available if name in CONFIGS or TERMS.fullmatch(name))
    return [*weights, *(name for name in others if name not in weights)]


def _shards(index: Path, available: dict[str, Any]) -> list[str]:
    """Return the files that an index lists. Raises RefusedContent if one is missing, and as `parts_of`."""
    shards = sorted(set(parts_of(index).values()))
    missing = [shard for shard in shards if shard not in available]
    if missing:
        raise RefusedContent(f"part {missing[0]!r} is missing", where=index.name)
    return shards


def _download(hub: HubClient, pinned: Address, file: RepoSibling, *, check: bool) -> Path:
    """Return the path of a file in the cache, with the hash that the Hub gives; a damaged file is downloaded once more."""
    from huggingface_hub import try_to_load_from_cache

    name = file.rfilename
    cached = try_to_load_from_cache(pinned.repo, name, revision=pinned.revision)
    if isinstance(cached, str) and not check:
        return Path(cached)
    for again in (False, True):
        with step(f"downloading {name} from {pinned.repo}", own_display=has_bars()):
            text = hub.call(
                lambda again=again: hub.api.hf_hub_download(pinned.repo, name, revision=pinned.revision, force_download=again)  # type: ignore[misc]
            )
        path = Path(text)
        if _is_intact(path, file):
            return path
        path.resolve().unlink(missing_ok=True)  # leave no damaged file in the shared cache
        path.unlink(missing_ok=True)
    raise HubError(f"{name!r} was damaged in two downloads: its hash is not the one that the Hub gives", where=pinned)


def _is_intact(path: Path, file: RepoSibling) -> bool:
    if file.size is not None and path.stat().st_size != file.size:
        return False
    if file.lfs is not None:
        return sha256_of(path) == file.lfs.sha256
    return file.blob_id is None or git_oid(path) == file.blob_id


def _cached(address: Address, files: Sequence[str] | None) -> Fetched:
    """Return the files of an earlier download. Raises HubError if any of them is missing."""
    folder = _snapshot(address)
    if folder is None:
        raise HubError("not in the cache", where=address, hint=f"{OFFLINE} is set" if _is_offline() else None)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    available = dict.fromkeys(names)
    try:
        for name in _model_files(available, files, address):
            if name.endswith(".index.json"):
                _shards(folder / name, available)
    except VitzooError as error:
        raise HubError(f"incomplete in the cache: {error.message}", where=address) from None
    return Fetched(Address(address.repo, folder.name), folder)


def _record_revision(snapshot: Path, revision: str) -> None:
    """Record the commit of a branch or tag in the cache, in huggingface_hub's layout.

    huggingface_hub does not do it, because the files are requested by commit, so that all are from the same one.
    """
    if COMMIT.fullmatch(revision):
        return
    reference = snapshot.parents[1] / "refs" / revision
    with contextlib.suppress(OSError):  # the cache may be read-only
        reference.parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(snapshot.parents[1] / reference.name) as folder, Staged(reference, folder=folder) as staged:
            staged.write(lambda file: file.write(snapshot.name.encode()))  # outside refs/, where every file counts as a branch
            staged.commit()


def _snapshot(address: Address) -> Path | None:
    """Return the folder of a commit in the cache; a branch or tag is the commit that it was at the last download."""
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
