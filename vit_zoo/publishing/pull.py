"""Pulling of a Hub repository, in our layout, timm's or transformers', into a folder in our layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vit_zoo.errors import printable
from vit_zoo.files.atomic import copy_file
from vit_zoo.files.folder import check_folder, written_folder
from vit_zoo.hub.download import TERMS, Address, fetch
from vit_zoo.loading.load import check_content, find_weights, write_model
from vit_zoo.model.config import ModelConfig


@dataclass(frozen=True)
class Pulled:
    """A pulled repository: its folder, its config, and its address with the commit."""

    folder: Path
    config: ModelConfig
    address: str

    def __repr__(self) -> str:
        return printable(f"<Pulled {self.folder}: {self.config.name}, from {self.address}>")


def pull_model(address: Address, folder: Path, *, offline: bool | None, force: bool) -> Pulled:
    """Download a repository, check the hash of every file and every value, and write the model into a folder."""
    check_folder(folder, force=force)
    download = fetch(address, offline=offline, check=True)
    source = find_weights(str(download.address), offline=True)
    check_content(source)
    with written_folder(folder) as made:
        for path in sorted(download.folder.iterdir()):
            if TERMS.fullmatch(path.name) and path.is_file():
                copy_file(path, made / path.name)
        write_model(source.config, source.tensors, made)
    return Pulled(folder, source.config, str(download.address))
