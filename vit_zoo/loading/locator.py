"""Locators: parsed forms of the text that names a model, in Python and on the command line.

A folder or file in the current folder comes before a name, if it holds a model.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import read_json, sniff
from vit_zoo.files.checkpoints import CHECKPOINTS, NAMES
from vit_zoo.files.journal import settle
from vit_zoo.formats import FORMATS, format_of
from vit_zoo.hub.download import PREFIX, Address
from vit_zoo.registry.lookup import Named, find, is_alias, is_name, not_a_plain_vit
from vit_zoo.registry.other_architectures import reason_by_name

# a text with such a suffix names a file, even if no such file exists
MAX_PATH, MAX_FILE_NAME = 4096, 255  # bytes
SUFFIXES = (".toml", ".json", ".safetensors", ".pt", ".pth", ".bin", ".npz", ".h5")
REPOSITORY = re.compile(r"[\w-]+/[\w.-]+")  # ORG/NAME
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


def parse_locator(model: str | os.PathLike[str], *, names_first: bool = False) -> Locator:
    """Parse a name or path, with the registry and the content of files.

    A folder or file that holds a model comes before a registry name, unless `names_first`: where the name stands for an
    architecture. Raises InputError for a name or path that does not exist, and if a name could mean a folder or a file;
    RefusedContent for a file that is neither a config, a checkpoint nor an exported file.
    """
    text = str(model)
    if not text:
        raise InputError("the name is empty")
    if text.startswith(PREFIX):
        return HubRepo(Address.parse(text))
    path = Path(text)
    settle(path)
    settle(path.parent, path.name)
    if is_name(text):
        local = None if names_first else _local_model(path)
        return RegistryName(text, find(text)) if local is None else local
    if len(text) > MAX_PATH or any(len(os.fsencode(part)) > MAX_FILE_NAME for part in path.parts):  # an OSError for `Path`
        raise InputError("no such file or folder", where=f"{text[:96]}...")
    if path.is_dir() and not (is_alias(text) and _local_model(path) is None):
        return Folder(path)
    if path.exists() and not path.is_dir():
        return file_locator(path)
    is_file_name = path.suffix in SUFFIXES or text.endswith(tuple(row.suffix for row in FORMATS.values()))
    if is_file_name or ("/" in text and not is_alias(text)):
        reason = reason_by_name(text) if REPOSITORY.fullmatch(text) and not is_file_name else None
        raise InputError("no such file or folder", where=text) if reason is None else not_a_plain_vit(text, reason)
    named = find(text)
    return RegistryName(text, named) if named.tag is None else TaggedName(text, named)


def shadowed_name(text: str, locator: Locator) -> str | None:
    """Return a note if a text could mean a model name and a folder or file here with a model, else None."""
    path = Path(text)
    if not path.exists() or not (is_name(text) or is_alias(text)):
        return None
    try:
        name = find(text).variant.name
    except InputError:  # an ambiguous name, or a file name that begins with a name
        return None
    what = "folder" if path.is_dir() else "file"
    if isinstance(locator, RegistryName):
        holds = path.is_file() or _holds_model(path)
        return f"'{text}' is taken as the model name; for the {what} here write ./{text}" if holds else None
    return f"'{text}' is taken as the {what} here, not as the model name {name}"


def _local_model(path: Path) -> Locator | None:
    """Return the locator of a folder or file with a model, or None. Raises InputError if a folder and a file have one."""
    if path.is_file():
        try:
            return file_locator(path)
        except RefusedContent:
            return None
    if not path.is_dir() or not _holds_model(path):
        return None
    files = [file for suffix in SUFFIXES if (file := path.with_name(path.name + suffix)).is_file() and sniff(file) in CHECKPOINTS]
    if files:
        cause = f"both the folder {path}/ and the file {files[0]} hold a model"
        raise InputError(f"'{path}' is ambiguous: {cause}", hint=f"write ./{path} or {files[0]}")
    return Folder(path)


def _holds_model(folder: Path) -> bool:
    """Return whether a folder has a config or a checkpoint. One that is incomplete counts: it is an error to be reported."""
    if any((folder / name).is_file() for name in ("config.json", *NAMES)):
        return True
    return any(path.is_file() and sniff(path) in CHECKPOINTS for path in folder.iterdir())


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
