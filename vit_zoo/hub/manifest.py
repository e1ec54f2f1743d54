"""List of the files to upload from a staged folder, with checks that no secret and no pickle is among them."""

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
from vit_zoo.self_check.standalone import is_checker

# suffixes of the files that a model repository may contain; none is a pickle
TEXT = (".json", ".md", ".txt")
BINARY = (".safetensors", ".onnx_data", *(row.suffix for row in FORMATS.values()))
SECRETS = {
    "a Hub token": re.compile(rb"\bhf_[A-Za-z0-9]{30,}"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an AWS access key": re.compile(rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(rb"\b(ghp|gho|ghs|ghu|ghr)_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{50,}"),
    "an API key": re.compile(rb"\bsk-[A-Za-z0-9_-]{32,}"),
}
SECRET_NAMES = re.compile(r"\.env(\..*)?|.*\.(pem|key|p12|pfx|kdbx)|id_(rsa|dsa|ecdsa|ed25519)|\.netrc|\.htpasswd", re.ASCII)


@dataclass(frozen=True)
class Item:
    """A file to upload: its path in the repository and its local path."""

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
        """The git object id."""
        return git_oid(self.path)


def manifest_of(folder: Path) -> list[Item]:
    """Return the files of a staged folder, sorted by path. Raises RefusedContent for a file that must not be uploaded."""
    items = [Item(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if not path.is_dir()]
    for item in items:
        _check(item)
    return items


def _check(item: Item) -> None:
    name = item.path.name
    if item.path.is_symlink() or not item.path.is_file():
        raise RefusedContent("not a regular file, cannot be published", where=item.name)
    text = name.endswith(TEXT) or TERMS.fullmatch(name) is not None
    if not text and not name.endswith(BINARY) and not is_checker(item.path):
        raise RefusedContent("type of file not allowed in a model repository", where=item.name)
    if sniff(item.path) in ("pickle", "torch", "old torch"):
        raise RefusedContent("is a pickle, which runs code when loaded; cannot be published", where=item.name)
    if text:
        content = item.path.read_bytes()
        for what, pattern in SECRETS.items():
            if pattern.search(content):
                raise RefusedContent(f"contains {what}; cannot be published", where=item.name)


def check_no_secrets(folder: Path) -> None:
    """Raise InputError if a folder contains files for secrets next to the model."""
    for path in sorted(folder.iterdir()):
        if SECRET_NAMES.fullmatch(path.name):
            raise InputError(f"contains {path.name}, a file for secrets; move it elsewhere before publishing", where=folder)
