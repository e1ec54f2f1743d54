"""Artifacts, that is exported files: their description, and the interface that maps images to named arrays."""

from __future__ import annotations

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, RefusedContent

if TYPE_CHECKING:
    import numpy as np

    from vit_zoo.model.config import ModelConfig

    Array = np.ndarray[Any, np.dtype[Any]]

EMBEDDED = "vit_zoo.json"  # the name of the extra file in TorchScript and .pt2 archives
MAX_METADATA = 4_194_304  # bytes


@dataclass(frozen=True)
class Description:
    """The metadata of an exported file. `config` is None for other tools' files; `export` holds the export options of ours."""

    path: Path
    format: str
    config: ModelConfig | None
    export: Mapping[str, Any]
    graph: bool = False  # an ONNX graph, which can be read without running it

    @property
    def rounded(self) -> bool:
        """Whether this is a file of ours with int8 weights, which differ from the model's."""
        return str(self.export.get("precision")).startswith("int8")

    def known_config(self) -> ModelConfig:
        """Return spec, preprocessing, labels and origin. Raises RefusedContent if the file does not contain them."""
        if self.config is None:
            raise RefusedContent("has no vit_zoo metadata", where=self.path)
        return self.config


class Artifact(ABC):
    """An opened artifact."""

    def __init__(self, about: Description) -> None:
        self.about = about

    @property
    def path(self) -> Path:
        return self.about.path

    @property
    def config(self) -> ModelConfig:
        """The config, as `Description.known_config` returns it."""
        return self.about.known_config()

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""

    @abstractmethod
    def run(self, pixel_values: Array) -> dict[str, Array]:
        """Return the outputs by name for normalised images, float32 [batch, channels, height, width]."""


def report_path(artifact: Path) -> Path:
    """Return the path of the parity report of a file."""
    return artifact.with_name(artifact.name + ".parity.json")


def config_from(text: str, *, where: Path) -> ModelConfig:
    """Parse the config in an artifact's metadata. Raises RefusedContent if it is not valid."""
    from vit_zoo.model.config import ModelConfig

    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise RefusedContent("metadata is not valid JSON", where=where) from None
    if not isinstance(document, dict):
        raise RefusedContent("metadata is not a JSON object", where=where)
    try:
        return ModelConfig.parse(document, where=where)
    except InputError as error:  # a file's metadata is its content, not an argument
        raise RefusedContent(error.message, where=where, hint=error.hint) from None


def embedded(config: ModelConfig, export: Mapping[str, Any]) -> str:
    """Return the text of the extra file in an archive, as `describe_archive` reads it."""
    return json.dumps({**config.document(), "vit_zoo.export": dict(export)}, sort_keys=True)


def describe_archive(path: Path, kind: str) -> Description:
    """Read the description in a TorchScript or .pt2 archive as a zip file; none of its code runs."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == EMBEDDED]
            if not names:
                return Description(path, kind, None, {})
            info = archive.getinfo(names[0])
            if info.file_size > MAX_METADATA:
                raise RefusedContent(f"has {info.file_size:,} bytes of metadata; at most {MAX_METADATA:,} are read", where=path)
            text = archive.read(info).decode()
    except RefusedContent:
        raise
    except Exception as error:  # zipfile raises more than it documents
        raise RefusedContent(f"damaged archive: {error}", where=path) from None
    config, export = config_from(text, where=path), json.loads(text).get("vit_zoo.export")
    if not isinstance(export, dict):
        raise RefusedContent("metadata has no export options", where=path)
    return Description(path, kind, config, export)
