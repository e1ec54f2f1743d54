"""Locators: the one place that decides what a text names when a command wants a model.

A registry name comes first, whatever lies in the current folder; then an existing path; then another library's name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import read_json, sniff
from vit_zoo.files.checkpoints import CHECKPOINTS
from vit_zoo.formats import FORMATS, format_of
from vit_zoo.hub.download import PREFIX, Address
from vit_zoo.registry.lookup import Named, find, is_alias, is_name

# a text with such a suffix names a file, also one that does not exist
SUFFIXES = (".toml", ".json", ".safetensors", ".pt", ".pth", ".bin", ".npz", ".h5")
# how an error names a file that is not a checkpoint
KINDS = {
    "pickle": "a bare pickle, which runs code when loaded",
    "empty": "empty",
    "unknown": "of no known kind",
    "image": "an image",
    "HTML page": "an HTML page",
}


@dataclass(frozen=True)
class RegistryName:
    """An architecture: a row of the registry, a parametric name, or another library's name for one."""

    text: str
    named: Named


@dataclass(frozen=True)
class TaggedName:
    """A name with a tag: published weights of an architecture."""

    text: str
    named: Named


@dataclass(frozen=True)
class HubRepo:
    """A repository of the Hugging Face Hub."""

    address: Address


@dataclass(frozen=True)
class Folder:
    """A folder that holds a checkpoint, and perhaps a config."""

    path: Path


@dataclass(frozen=True)
class ConfigFile:
    """A config without weights: a TOML file with one variant, or a `config.json`."""

    path: Path


@dataclass(frozen=True)
class CheckpointFile:
    """A file of weights; `kind` is as `sniff` gives it, or `index` for one divided over several files."""

    path: Path
    kind: str


@dataclass(frozen=True)
class ExportedFile:
    """A file in one of the export formats, any tool's; `format` is its name in `FORMATS`."""

    path: Path
    format: str


Locator = RegistryName | TaggedName | HubRepo | Folder | ConfigFile | CheckpointFile | ExportedFile


def parse_locator(model: str | os.PathLike[str]) -> Locator:
    """What a name or path stands for, by the registry and by the content of files.

    Raises InputError for what does not exist, RefusedContent for a file that is neither a config, a checkpoint nor an export.
    """
    text = str(model)
    if not text:
        raise InputError("an empty name")
    if text.startswith(PREFIX):
        return HubRepo(Address.parse(text))
    if is_name(text):
        return RegistryName(text, find(text))
    path = Path(text)
    if path.is_dir():
        return Folder(path)
    if path.exists():
        return file_locator(path)
    if (
        path.suffix in SUFFIXES
        or text.endswith(tuple(row.suffix for row in FORMATS.values()))
        or ("/" in text and not is_alias(text))
    ):
        raise InputError("no such file or folder", where=text)
    named = find(text)
    return RegistryName(text, named) if named.tag is None else TaggedName(text, named)


def file_locator(path: Path) -> ConfigFile | CheckpointFile | ExportedFile:
    """What an existing file is, by its content."""
    if path.suffix == ".toml":
        return ConfigFile(path)
    kind = sniff(path)
    if kind == "json":
        return CheckpointFile(path, "index") if "weight_map" in read_json(path) else ConfigFile(path)
    row = format_of(path, kind)
    if row is not None:
        return ExportedFile(path, row.name)
    if kind in CHECKPOINTS:
        return CheckpointFile(path, kind)
    raise RefusedContent(f"is {KINDS.get(kind, f'a file of kind {kind}')}; a checkpoint is wanted", where=path)
