"""Conversion of checkpoints to other libraries' files: written under a temporary name, read back bit for bit, then renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import CannotWrite, InputError, RefusedContent, did_you_mean, printable
from vit_zoo.files import Staged, Stored, digest_of, write_safetensors, write_text
from vit_zoo.files.atomic import check_target, would_replace
from vit_zoo.files.checkpoints import read_checkpoint
from vit_zoo.files.folder import check_folder, written_folder
from vit_zoo.files.names import final_path
from vit_zoo.loading.checkpoint import Checkpoint
from vit_zoo.loading.load import check_content, model_of, without, write_model
from vit_zoo.model.config import ModelConfig

if TYPE_CHECKING:
    from vit_zoo.weights.write import Fit

CONTAINERS = {".safetensors": "safetensors", ".pth": "torch", ".pt": "torch", ".bin": "torch", ".npz": "npz"}


@dataclass(frozen=True)
class Converted:
    """A written checkpoint: its path, its dialect, and its differences from the source."""

    path: Path
    dialect: str
    config: ModelConfig
    unwanted: tuple[str, ...]  # known tensors of the source that are not part of the model
    dropped: tuple[str, ...]  # tensors of the model that the user allowed to drop
    added: tuple[str, ...]  # zeros for parameters that the target's class has but does not use
    note: str | None  # what was moved, such as the class token's position, and what a user of the target must know
    accepted: tuple[str, ...]  # conventions that the target cannot express
    difference: float | None  # largest change of the outputs by `accepted`, relative to the largest output

    def __repr__(self) -> str:
        return printable(f"<Converted {self.path}: {self.config.name}, {self.dialect}>")


def targets() -> tuple[str, ...]:
    """Return the names of the targets of `convert`."""
    from vit_zoo.weights.write import TARGETS

    return ("vitzoo", *TARGETS)


def check_choice(to: str, accept: Sequence[str]) -> None:
    """Raise InputError for a target or a convention that does not exist."""
    from vit_zoo.weights.write import ACCEPTABLE

    if to not in targets():
        raise InputError(f"unknown target '{to}'{did_you_mean(to, list(targets()))}", hint=f"choose from {', '.join(targets())}")
    for name in accept:
        if name not in ACCEPTABLE:
            raise InputError(f"cannot accept a difference in '{name}'; choose from {', '.join(ACCEPTABLE)}")


def write_converted(
    source: Checkpoint, out: Path, to: str, *, accept: Sequence[str] = (), allow_drop: Sequence[str] = (), force: bool = False
) -> Converted:
    """Write a checkpoint for the target `to`. `out` is a file if it has the suffix of one, and a folder otherwise.

    `accept` names conventions that may differ, `allow_drop` patterns of tensors that may be left out. Raises
    NotRepresentable for a model that the target cannot express, CannotWrite for a file that cannot be written.
    """
    check_choice(to, accept)
    config, tensors, dropped = without(source, allow_drop)
    container = CONTAINERS.get(out.suffix)
    folder = out if container is None else None
    _check_out(out, folder, force)
    if to == "vitzoo":
        return _write_ours(source, out, folder, config, tensors, dropped)
    from vit_zoo.weights.write import TARGETS, fit

    target = TARGETS[to]
    if container is not None and (target.folder or (container == "npz") != target.file.endswith(".npz")):
        kind = "a folder, with config.json" if target.folder else f"a {Path(target.file).suffix} file or a folder"
        raise InputError(f"'{to}' is written as {kind}", where=out)
    fitted = fit(to, config, tensors, accept, with_config=folder is not None)
    check_content(Checkpoint(config, tensors, source.path, digest=source.digest if tensors == source.tensors else None))
    with nullcontext(None) if folder is None else written_folder(folder) as made:
        file = out if made is None else made / target.file
        with Staged(file, need=sum(tensor.nbytes for tensor in fitted.tensors.values())) as staged:
            _write(staged, fitted.tensors, CONTAINERS[file.suffix], target.wrapper)
            _read_back(staged.path, fitted, file, target.wrapper)
            staged.commit()
        if made is not None:
            for name, content in fitted.documents(config.preprocess).items():
                write_text(made / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    accepted = tuple(name for name in fitted.differs if name in accept)
    difference = _difference(config, fitted) if accepted else None
    accepted += ("preprocess",) if fitted.own_preprocess else ()
    return Converted(out, fitted.dialect.name, config, source.unwanted, dropped, fitted.added, fitted.notes, accepted, difference)


def _check_out(out: Path, folder: Path | None, force: bool) -> None:
    if folder is None:
        check_target(out)
        if out.exists() and not force:
            raise would_replace(out)
        return
    check_folder(folder, force=force)


def _write_ours(
    source: Checkpoint,
    out: Path,
    folder: Path | None,
    config: ModelConfig,
    tensors: Mapping[str, Stored],
    dropped: tuple[str, ...],
) -> Converted:
    if folder is None:
        raise InputError("'vitzoo' is written as a folder, with config.json", where=out)
    check_content(Checkpoint(config, tensors, source.path))
    with written_folder(folder) as made:
        write_model(config, tensors, made)
    return Converted(out, "vitzoo", config, source.unwanted, dropped, (), None, (), None)


def _write(staged: Staged, tensors: Mapping[str, Stored], container: str, wrapper: str | None) -> None:
    match container:
        case "safetensors":
            write_safetensors(staged, tensors, {"format": "pt"})
        case "npz":
            from vit_zoo.files.npz import write_npz

            write_npz(staged, tensors)
        case "torch":
            from vit_zoo.files.pickles import write_torch

            write_torch(staged, tensors, wrapper)


def _read_back(path: Path, fitted: Fit, file: Path, wrapper: str | None) -> None:
    """Raise CannotWrite unless the file contains the tensors bit for bit."""
    if CONTAINERS[file.suffix] == "torch":  # read in pieces, where torch would map a second copy of the model
        from vit_zoo.files.torchscript import read_torchscript

        start = "" if wrapper is None else f"{wrapper}."
        back: Mapping[str, Stored] = {name.removeprefix(start): t for name, t in read_torchscript(path).items()}
    else:
        back = read_checkpoint(path)
    if {n: (t.dtype, t.shape) for n, t in back.items()} != {n: (t.dtype, t.shape) for n, t in fitted.tensors.items()}:
        raise CannotWrite("the tensors in the file differ from those to be written", where=final_path(file))
    if digest_of(back) != digest_of(fitted.tensors):
        raise CannotWrite("the values in the file differ from those to be written", where=final_path(file))


def _difference(config: ModelConfig, fitted: Fit) -> float:
    """Return the largest relative change of the outputs on eight random images under the target's conventions."""
    import torch

    spec, tensors = fitted.equivalent.spec, fitted.equivalent.tensors
    images = torch.randn(8, spec.channels, *spec.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        sources = (Checkpoint(ModelConfig(name=config.name, spec=each), tensors) for each in (spec, fitted.reading.spec))
        before, after = (model_of(source).eval().float()(images) for source in sources)
    if not torch.isfinite(after).all():
        raise RefusedContent("outputs are not finite", where=config.name)
    return float((before - after).abs().max() / before.abs().max())


def summary_lines(done: Converted) -> list[str]:
    """Return the lines that report a conversion to the user."""
    lines = [f"{done.path} ({done.dialect})"]
    if done.unwanted:
        lines.append(f"left out, not part of the model: {_listed(done.unwanted)}")
    if done.dropped:
        lines.append(f"dropped: {_listed(done.dropped)}")
    if done.added:
        lines.append(f"added as zeros, which the target's class requires but does not use: {_listed(done.added)}")
    if done.note is not None:
        lines.append(done.note)
    if done.difference is not None:
        fields = ", ".join(name for name in done.accepted if name != "preprocess")
        lines.append(f"accepted: {fields}; outputs differ by up to {done.difference:.1e} of the largest")
    if "preprocess" in done.accepted:
        lines.append("accepted: preprocess; the target rounds differently, and its crop can begin one pixel further")
    return lines


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
