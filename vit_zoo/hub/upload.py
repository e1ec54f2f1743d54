"""One commit: a staged folder takes the place of what the repository had, at once or not at all, and is read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import HubError, InputError
from vit_zoo.hub.client import LOG_IN, Conversation
from vit_zoo.hub.manifest import Item

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

SMALL = 1_048_576  # bytes of a text that is read back
# what only a publish writes, and an index that would point away from it
OURS = (
    "config.json", "preprocessor_config.json", "model.safetensors", "model.safetensors.index.json", "transformers.safetensors",
    "measurements.json",
)  # fmt: skip
VERDICT = ".parity.json"


@dataclass(frozen=True)
class Remote:
    """A repository as it is: its head, what lies in it, and the branches and tags that it has."""

    repo: str
    head: str | None  # None: there is no such repository, or no such branch yet
    exists: bool
    files: Mapping[str, RepoFile]
    tags: Mapping[str, str]  # and the commits that they stand for

    def holds(self, item: Item) -> bool:
        """Whether a file is there already, byte for byte."""
        known = self.files.get(item.name)
        if known is None or known.size != item.size:
            return False
        return known.lfs.sha256 == item.sha256 if known.lfs is not None else known.blob_id == item.oid

    def left_over(self, items: Sequence[Item]) -> list[str]:
        """Files of an earlier publish that these do not replace: they are of other weights. A file with a verdict is ours."""
        sent = {item.name for item in items}
        judged = {name.removesuffix(VERDICT) for name in self.files if name.endswith(VERDICT)}
        ours = {*OURS, *judged, *(name + VERDICT for name in judged), *(f"{name}_data" for name in judged)}
        return sorted(name for name in self.files if name in ours and name not in sent)


@dataclass(frozen=True)
class Sent:
    """What a publish came to: the commit that holds the files, and what it changed; nothing, if all was there."""

    repo: str
    commit: str
    url: str
    added: tuple[str, ...]
    deleted: tuple[str, ...]


def look(hub: Conversation, repo: str, revision: str | None) -> Remote:
    """What a repository holds now."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def ask() -> Remote:
        try:
            tags = {ref.name: ref.target_commit for ref in hub.api.list_repo_refs(repo).tags}
        except RepositoryNotFoundError as error:
            if getattr(error.response, "status_code", None) == 401 and hub.token:
                raise  # the token itself is not known
            return Remote(repo, None, exists=False, files={}, tags={})
        try:
            head = hub.api.model_info(repo, revision=revision).sha
        except RevisionNotFoundError:
            return Remote(repo, None, exists=True, files={}, tags=tags)
        return Remote(repo, head, exists=True, files={}, tags=tags)

    found = hub.again(ask)
    return found if found.head is None else replace(found, files=_files(hub, repo, found.head))


def _files(hub: Conversation, repo: str, revision: str | None) -> dict[str, Any]:
    """What a commit holds, by path. huggingface_hub asks for a listing up to six times itself."""
    from huggingface_hub.hf_api import RepoFile

    listed = hub.once(lambda: list(hub.api.list_repo_tree(repo, recursive=True, revision=revision)))
    return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}


def read_text(hub: Conversation, remote: Remote, name: str) -> str | None:
    """A small text of the repository, if it is there."""
    known = remote.files.get(name)
    if known is None or known.size > SMALL:
        return None
    path = hub.again(lambda: hub.api.hf_hub_download(remote.repo, name, revision=remote.head))
    return Path(path).read_bytes().decode(errors="replace")


def check_token(hub: Conversation) -> None:
    """Raise HubError unless there is a token, and the Hub knows it: before any slow work."""
    if hub.token is None:
        raise HubError("no token for the Hub", where=hub.what, hint=LOG_IN)
    hub.again(hub.api.whoami)


def check_tag(remote: Remote, tag: str | None) -> None:
    if tag is not None and tag in remote.tags:
        raise InputError(f"has a tag '{tag}' already", where=remote.repo)


def send(
    hub: Conversation,
    remote: Remote,
    items: Sequence[Item],
    *,
    message: str,
    revision: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    tag: str | None = None,
) -> Sent:
    """Bring a repository to hold these files, in one commit on top of the head that was looked at.

    A repository or branch that is not there is made. Raises HubError; the repository then is as it was, unless it says
    otherwise.
    """
    if not remote.exists:
        hub.again(lambda: hub.api.create_repo(remote.repo, private=private, exist_ok=True))
        remote = look(hub, remote.repo, revision)
    if remote.head is None:
        hub.again(lambda: hub.api.create_branch(remote.repo, branch=str(revision), exist_ok=True))
        remote = look(hub, remote.repo, revision)
    _check_ignored(hub, remote, items)
    changed = [item for item in items if not remote.holds(item)]
    stale = remote.left_over(items)
    commit, url = str(remote.head), f"{hub.api.endpoint}/{remote.repo}/tree/{revision or 'main'}"
    if changed or stale:
        commit, url = _commit(hub, remote, changed, stale, items, message=message, revision=revision, create_pr=create_pr)
        _read_back(hub, remote.repo, commit, items)
    if tag is not None:
        check_tag(remote, tag)
        hub.again(lambda: hub.api.create_tag(remote.repo, tag=tag, revision=commit, exist_ok=True))
    return Sent(remote.repo, commit, url, tuple(item.name for item in changed), tuple(stale))


def _check_ignored(hub: Conversation, remote: Remote, items: Sequence[Item]) -> None:
    """The Hub drops what the repository's .gitignore names, and says nothing."""
    if ".gitignore" not in remote.files:
        return
    from fnmatch import fnmatch

    lines = (read_text(hub, remote, ".gitignore") or "").splitlines()
    for pattern in (line.strip() for line in lines):
        if not pattern or pattern.startswith(("#", "!")):
            continue
        bare = pattern.strip("/")
        for item in items:
            parts = item.name.split("/")
            whole = [item.name, *("/".join(parts[:n]) for n in range(1, len(parts)))]
            if any(fnmatch(name, bare) for name in (whole if "/" in pattern.rstrip("/") else [*whole, *parts])):
                raise HubError(f"its .gitignore drops {item.name}: '{pattern}'", where=remote.repo, hint="remove that line there")


def _commit(
    hub: Conversation,
    remote: Remote,
    changed: Sequence[Item],
    stale: Sequence[str],
    items: Sequence[Item],
    *,
    message: str,
    revision: str | None,
    create_pr: bool,
) -> tuple[str, str]:
    """The commit, made once; one whose answer was lost is found by what it holds."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    before = _proposals(hub, remote.repo) if create_pr else set()

    def make() -> tuple[str, str]:
        operations = [CommitOperationAdd(item.name, str(item.path)) for item in changed]
        removals = [CommitOperationDelete(name, is_folder=False) for name in stale]
        done = hub.api.create_commit(
            remote.repo,
            [*operations, *removals],
            commit_message=message,
            revision=revision,
            parent_commit=remote.head,
            create_pr=create_pr,
        )
        return done.oid, str(done.pr_url or done.commit_url)

    def settled() -> tuple[str, str] | None:
        """Was it heard although no answer came? Then one more would be a second one."""
        if create_pr:
            for reference in _proposals(hub, remote.repo) - before:
                proposed = look(hub, remote.repo, reference)
                if all(proposed.holds(item) for item in items):
                    return str(proposed.head), f"{hub.api.endpoint}/{remote.repo}/discussions/{reference.rsplit('/', 1)[-1]}"
            return None
        now = look(hub, remote.repo, revision)
        if now.head == remote.head:
            return None
        if all(now.holds(item) for item in items):
            return str(now.head), f"{hub.api.endpoint}/{remote.repo}/commit/{now.head}"
        raise HubError("was changed by someone else meanwhile", where=remote.repo, hint="nothing was sent; run it again")

    return hub.again(make, settled)


def _proposals(hub: Conversation, repo: str) -> set[str]:
    found = hub.again(lambda: hub.api.list_repo_refs(repo, include_pull_requests=True))
    return {ref.ref for ref in found.pull_requests or ()}


def _read_back(hub: Conversation, repo: str, commit: str, items: Sequence[Item]) -> None:
    """The commit holds what was to be sent, by size and hash."""
    remote = Remote(repo, commit, exists=True, files=_files(hub, repo, commit), tags={})
    off = [item.name for item in items if not remote.holds(item)]
    if off:
        what = f"commit {commit[:12]} does not hold {off[0]} as it was sent"
        raise HubError(what, where=repo, hint="the repository was changed; look at it, and publish again")
