"""Upload of a staged folder in one commit, which replaces the files of an earlier publish; the commit is then checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import HubError, InputError
from vit_zoo.hub.client import CHANGED, LOG_IN, HubClient, has_bars
from vit_zoo.hub.manifest import Item
from vit_zoo.progress import step

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

MAX_TEXT = 1_048_576  # bytes of a text that is downloaded from the repository
# files that a publish writes, and an index that would refer to other weights
PUBLISHED = (
    "config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors", "model.safetensors.index.json",
    "transformers.safetensors", "measurements.json",
)  # fmt: skip
REPORT = ".parity.json"  # suffix of a parity report


@dataclass(frozen=True)
class Remote:
    """The current state of a repository: its head commit, files and tags."""

    repo: str
    head: str | None  # None if the repository or the branch does not exist yet
    exists: bool
    files: Mapping[str, RepoFile]
    tags: Mapping[str, str]  # and their commits

    def holds(self, item: Item) -> bool:
        """Return whether the repository contains this file with the same bytes."""
        known = self.files.get(item.name)
        if known is None or known.size != item.size:
            return False
        return known.lfs.sha256 == item.sha256 if known.lfs is not None else known.blob_id == item.oid

    def stale(self, items: Sequence[Item]) -> list[str]:
        """Return the files of an earlier publish that the items do not replace; they belong to other weights.

        A file with a parity report is one that a publish wrote.
        """
        replaced = {item.name for item in items}
        reported = {name.removesuffix(REPORT) for name in self.files if name.endswith(REPORT)}
        published = {*PUBLISHED, *reported, *(name + REPORT for name in reported), *(f"{name}_data" for name in reported)}
        return sorted(name for name in self.files if name in published and name not in replaced)


@dataclass(frozen=True)
class Sent:
    """The result of a publish: the commit that contains the files, and the changes that it made, empty if there were none."""

    repo: str
    commit: str
    url: str
    added: tuple[str, ...]
    deleted: tuple[str, ...]


def look(hub: HubClient, repo: str, revision: str | None) -> Remote:
    """Return the current state of a repository at a revision."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def request() -> Remote:
        try:
            tags = {ref.name: ref.target_commit for ref in hub.api.list_repo_refs(repo).tags}
        except RepositoryNotFoundError as error:
            if getattr(error.response, "status_code", None) == 401 and hub.token:
                raise  # the token is invalid
            return Remote(repo, None, exists=False, files={}, tags={})
        try:
            head = hub.api.model_info(repo, revision=revision).sha
        except RevisionNotFoundError:
            return Remote(repo, None, exists=True, files={}, tags=tags)
        return Remote(repo, head, exists=True, files={}, tags=tags)

    remote = hub.call(request)
    return remote if remote.head is None else replace(remote, files=_files(hub, repo, remote.head))


def _files(hub: HubClient, repo: str, revision: str | None) -> dict[str, Any]:
    """Return the files of a commit by path."""
    from huggingface_hub.hf_api import RepoFile

    listed = hub.call(lambda: list(hub.api.list_repo_tree(repo, recursive=True, revision=revision)))
    return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}


def read_text(hub: HubClient, remote: Remote, name: str) -> str | None:
    """Return a small text file of the repository, or None if it does not exist or is too large."""
    known = remote.files.get(name)
    if known is None or known.size > MAX_TEXT:
        return None
    path = hub.call(lambda: hub.api.hf_hub_download(remote.repo, name, revision=remote.head))
    return Path(path).read_bytes().decode(errors="replace")


def check_token(hub: HubClient) -> None:
    """Raise HubError unless there is a token that the Hub accepts; called before slow work."""
    if hub.token is None:
        raise HubError("no Hub token", where=hub.where, hint=LOG_IN)
    hub.call(hub.api.whoami)


def check_tag(remote: Remote, tag: str | None) -> None:
    """Raise InputError if the repository already has this tag."""
    if tag is not None and tag in remote.tags:
        raise InputError(f"tag '{tag}' already exists", where=remote.repo)


def send(
    hub: HubClient,
    remote: Remote,
    items: Sequence[Item],
    *,
    message: str,
    revision: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    tag: str | None = None,
) -> Sent:
    """Upload the items in one commit on top of `remote.head`, and delete the stale files of an earlier publish.

    A repository or branch that does not exist is created. Raises HubError; the repository is then unchanged, unless the
    message says otherwise.
    """
    if not remote.exists:
        hub.call(lambda: hub.api.create_repo(remote.repo, private=private, exist_ok=True))
        remote = look(hub, remote.repo, revision)
    if remote.head is None:
        hub.call(lambda: hub.api.create_branch(remote.repo, branch=str(revision), exist_ok=True))
        remote = look(hub, remote.repo, revision)
    _check_ignored(hub, remote, items)
    changed = [item for item in items if not remote.holds(item)]
    stale = remote.stale(items)
    commit, url = str(remote.head), f"{hub.api.endpoint}/{remote.repo}/tree/{revision or 'main'}"
    if changed or stale:
        with step(f"uploading {len(changed)} files to {remote.repo}", own_display=has_bars()):
            commit, url = _commit(hub, remote, changed, stale, items, message=message, revision=revision, create_pr=create_pr)
        _check_commit(hub, remote.repo, commit, items)
    if tag is not None:
        check_tag(remote, tag)
        hub.call(lambda: hub.api.create_tag(remote.repo, tag=tag, revision=commit, exist_ok=True))
    return Sent(remote.repo, commit, url, tuple(item.name for item in changed), tuple(stale))


def _check_ignored(hub: HubClient, remote: Remote, items: Sequence[Item]) -> None:
    """Raise HubError if .gitignore matches an item: the Hub ignores such files in a commit without an error."""
    if ".gitignore" not in remote.files:
        return
    from fnmatch import fnmatch

    lines = (read_text(hub, remote, ".gitignore") or "").splitlines()
    for pattern in (line.strip() for line in lines):
        if not pattern or pattern.startswith(("#", "!")):
            continue
        stripped = pattern.strip("/")
        for item in items:
            parts = item.name.split("/")
            paths = [item.name, *("/".join(parts[:n]) for n in range(1, len(parts)))]
            if any(fnmatch(path, stripped) for path in (paths if "/" in pattern.rstrip("/") else [*paths, *parts])):
                message = f".gitignore excludes {item.name}: '{pattern}'"
                raise HubError(message, where=remote.repo, hint="remove that line from the repository's .gitignore")


def _commit(
    hub: HubClient,
    remote: Remote,
    changed: Sequence[Item],
    stale: Sequence[str],
    items: Sequence[Item],
    *,
    message: str,
    revision: str | None,
    create_pr: bool,
) -> tuple[str, str]:
    """Make the commit, only once, and return its id and URL. If the Hub's answer is lost, the commit is found by its files."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    before = _pull_requests(hub, remote.repo) if create_pr else set()

    def request() -> tuple[str, str]:
        operations = [CommitOperationAdd(item.name, str(item.path)) for item in changed]
        removals = [CommitOperationDelete(name, is_folder=False) for name in stale]
        commit = hub.api.create_commit(
            remote.repo,
            [*operations, *removals],
            commit_message=message,
            revision=revision,
            parent_commit=remote.head,
            create_pr=create_pr,
        )
        return commit.oid, str(commit.pr_url or commit.commit_url)

    def find_result() -> tuple[str, str] | None:
        """Return the commit if the Hub made it although no answer arrived; a retry would make a second one."""
        if create_pr:
            for reference in _pull_requests(hub, remote.repo) - before:
                proposed = look(hub, remote.repo, reference)
                if all(proposed.holds(item) for item in items):
                    return str(proposed.head), f"{hub.api.endpoint}/{remote.repo}/discussions/{reference.rsplit('/', 1)[-1]}"
            return None
        now = look(hub, remote.repo, revision)
        if now.head == remote.head:
            return None
        if all(now.holds(item) for item in items):
            return str(now.head), f"{hub.api.endpoint}/{remote.repo}/commit/{now.head}"
        raise HubError(CHANGED, where=remote.repo, hint="nothing was uploaded; try again")

    return hub.call(request, find_result)


def _pull_requests(hub: HubClient, repo: str) -> set[str]:
    """Return the git references of the repository's pull requests."""
    references = hub.call(lambda: hub.api.list_repo_refs(repo, include_pull_requests=True))
    return {reference.ref for reference in references.pull_requests or ()}


def _check_commit(hub: HubClient, repo: str, commit: str, items: Sequence[Item]) -> None:
    """Raise HubError unless the commit contains all items with their sizes and hashes."""
    remote = Remote(repo, commit, exists=True, files=_files(hub, repo, commit), tags={})
    different = [item.name for item in items if not remote.holds(item)]
    if different:
        message = f"commit {commit[:12]} does not contain {different[0]} as it was uploaded"
        raise HubError(message, where=repo, hint="the repository was changed; check it, then publish again")
