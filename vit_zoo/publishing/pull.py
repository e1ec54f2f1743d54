"""From a repository of the Hub to a folder of ours: ours, timm's or transformers'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vit_zoo.files.atomic import check_folder, copy_file, made_folder
from vit_zoo.hub.download import TERMS, Address, fetch
from vit_zoo.loading.load import check_content, find_weights, write_model
from vit_zoo.model.config import ModelConfig


@dataclass(frozen=True)
class Pulled:
    """A repository as a folder of ours, and the commit that it was."""

    folder: Path
    config: ModelConfig
    address: str


def pulled(address: Address, folder: Path, *, offline: bool | None, force: bool) -> Pulled:
    """Every file of the model compared with its hash, every value with what it should be, then written as our folder."""
    check_folder(folder, force=force)
    found = fetch(address, offline=offline, check=True)
    source = find_weights(str(found.address), offline=True)
    check_content(source)
    with made_folder(folder, clear=True):
        for path in sorted(found.folder.iterdir()):
            if TERMS.fullmatch(path.name) and path.is_file():
                copy_file(path, folder / path.name)
        write_model(source.config, source.tensors, folder)
    return Pulled(folder, source.config, str(found.address))
