"""Locators: parsed forms of the text that names a model, in Python and on the command line.

A registry name has precedence over a path in the current folder; another library's name comes last.
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

# a text with such a suffix names a file, even if no such file exists
SUFFIXES = (".toml", ".json", ".safetensors", ".pt", ".pth", ".bin", ".npz", ".h5")
# names of kinds of files, for errors
KINDS = {
    "pickle": "a bare pickle, which runs code when loaded",
    "empty": "an empty file",
    "unknown": "a file of unknown type",
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
    """A name with a tag, which means published weights of an architecture."""

    text: str
    named: Named


@dataclass(frozen=True)
class HubRepo:
    """A repository of the Hugging Face Hub."""

    address: Address


@dataclass(frozen=True)
class Folder:
    """A folder with a checkpoint, and perhaps a config."""

    path: Path


@dataclass(frozen=True)
class ConfigFile:
    """A config without weights: a TOML file with one variant, or a `config.json`."""

    path: Path


@dataclass(frozen=True)
class CheckpointFile:
    """A file of weights. `kind` is the result of `sniff`, or `index` for a checkpoint in several files."""

    path: Path
    kind: str


@dataclass(frozen=True)
class ExportedFile:
    """A file in one of the export formats, by any tool. `format` is its name in `FORMATS`."""

    path: Path
    format: str


Locator = RegistryName | TaggedName | HubRepo | Folder | ConfigFile | CheckpointFile | ExportedFile


def parse_locator(model: str | os.PathLike[str]) -> Locator:
    """Parse a name or path, with the registry and the content of files.

    Raises InputError for a name or path that does not exist, RefusedContent for a file that is neither a config, a
    checkpoint nor an exported file.
    """
    text = str(model)
    if not text:
        raise InputError("the name is empty")
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
    """Return the locator of an existing file, by its content. Raises RefusedContent as `parse_locator`."""
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
    raise RefusedContent(f"expected a checkpoint, got {KINDS.get(kind, f'a file of kind {kind}')}", where=path)
