"""What is to be sent: each file of a staged folder, and nothing that must not leave this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import sha256_of, sniff
from vit_zoo.files.sniff import git_oid
from vit_zoo.formats import FORMATS
from vit_zoo.hub.download import TERMS

# by suffix, what a repository of a model may hold; never a bare pickle
TEXT = (".json", ".md", ".txt")
BINARY = (".safetensors", ".onnx_data", *(row.suffix for row in FORMATS.values()))
SECRETS = {
    "a token of the Hub": re.compile(rb"\bhf_[A-Za-z0-9]{30,}"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an AWS access key": re.compile(rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of GitHub": re.compile(rb"\b(ghp|gho|ghs|ghu|ghr)_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{50,}"),
    "an API key": re.compile(rb"\bsk-[A-Za-z0-9_-]{32,}"),
}
SECRET_NAMES = re.compile(r"\.env(\..*)?|.*\.(pem|key|p12|pfx|kdbx)|id_(rsa|dsa|ecdsa|ed25519)|\.netrc|\.htpasswd", re.ASCII)


@dataclass(frozen=True)
class Item:
    """A file that is sent, by its path in the repository."""

    name: str
    path: Path

    @cached_property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        return sha256_of(self.path)

    @cached_property
    def oid(self) -> str:
        return git_oid(self.path)


def manifest_of(folder: Path) -> list[Item]:
    """The files of a staged folder, by name. Raises RefusedContent for one that must not be sent."""
    found = [Item(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if not path.is_dir()]
    for item in found:
        _check(item)
    return found


def _check(item: Item) -> None:
    name = item.path.name
    if item.path.is_symlink() or not item.path.is_file():
        raise RefusedContent("is not a regular file, and is not sent", where=item.name)
    text = name.endswith(TEXT) or TERMS.fullmatch(name) is not None
    if not text and not name.endswith(BINARY):
        raise RefusedContent("is of no kind that a repository of a model holds", where=item.name)
    if sniff(item.path) in ("pickle", "torch", "old torch"):
        raise RefusedContent("is a pickle, which runs code when loaded, and is not sent", where=item.name)
    if text:
        content = item.path.read_bytes()
        for what, pattern in SECRETS.items():
            if pattern.search(content):
                raise RefusedContent(f"holds {what}, and is not sent", where=item.name)


def check_no_secrets(folder: Path) -> None:
    """Raise InputError for a folder that keeps keys beside its model: whoever publishes it should know."""
    for path in sorted(folder.iterdir()):
        if SECRET_NAMES.fullmatch(path.name):
            raise InputError(f"holds {path.name}, which is for secrets: move it away before publishing", where=folder)
