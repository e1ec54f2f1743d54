"""From a source to another library's files: written beside, read back, compared bit for bit, then renamed."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import FORCE, CannotWrite, InputError, RefusedContent, did_you_mean
from vit_zoo.files import Staged, Stored, digest_of, write_safetensors, write_text
from vit_zoo.files.atomic import check_folder, check_target, made_folder
from vit_zoo.files.checkpoints import read_checkpoint
from vit_zoo.loading.load import check_content, filled, write_model
from vit_zoo.loading.source import Checkpoint
from vit_zoo.model.config import ModelConfig

if TYPE_CHECKING:
    from vit_zoo.weights.write import Fit

CONTAINERS = {".safetensors": "safetensors", ".pth": "torch", ".pt": "torch", ".bin": "torch", ".npz": "npz"}
# what a model still is without: the tensors, and the field that says so
DROPPABLE = {"head.weight": ("num_classes", 0), "pre_logits.weight": ("representation", 0)}


@dataclass(frozen=True)
class Converted:
    """A written checkpoint: where, in which dialect, and what is not as it was."""

    path: Path
    dialect: str
    config: ModelConfig
    unwanted: tuple[str, ...]  # tensors of the source that are known and no part of the model
    dropped: tuple[str, ...]  # tensors of ours that the user let go
    added: tuple[str, ...]  # zeros that the target's class has a place for and no use
    note: str | None  # what became of the class token's position
    accepted: tuple[str, ...]  # conventions that the target does not hold
    difference: float | None  # the largest of the outputs' differences that this makes, relative to the largest output


def targets() -> tuple[str, ...]:
    from vit_zoo.weights.write import TARGETS

    return ("vitzoo", *TARGETS)


def check_choice(to: str, accept: Sequence[str]) -> None:
    """Raise InputError for a target or a convention that does not exist."""
    from vit_zoo.weights.write import ACCEPTABLE

    if to not in targets():
        raise InputError(f"no target '{to}'{did_you_mean(to, list(targets()))}", hint=f"there are {', '.join(targets())}")
    for name in accept:
        if name not in ACCEPTABLE:
            raise InputError(f"'{name}' cannot be accepted to differ; only {' and '.join(ACCEPTABLE)} can")


def write_converted(
    source: Checkpoint, out: Path, to: str, *, accept: Sequence[str] = (), allow_drop: Sequence[str] = (), force: bool = False
) -> Converted:
    """Write a source for a target, a file or a folder by the name of `out`. Raises NotRepresentable, CannotWrite."""
    check_choice(to, accept)
    config, tensors, dropped = _without(source, allow_drop)
    container = CONTAINERS.get(out.suffix)
    folder = out if container is None else None
    _check_out(out, folder, force)
    if to == "vitzoo":
        return _write_ours(source, out, folder, config, tensors, dropped)
    from vit_zoo.weights.write import TARGETS, fit

    target = TARGETS[to]
    if container is not None and (target.folder or (container == "npz") != target.file.endswith(".npz")):
        wanted = "a folder, which holds config.json too" if target.folder else f"a {Path(target.file).suffix} file or a folder"
        raise InputError(f"'{to}' is written as {wanted}", where=out)
    found = fit(to, config, tensors, accept, with_config=folder is not None)
    check_content(Checkpoint(config, tensors, source.path, digest=source.digest if tensors == source.tensors else None))
    file = out if folder is None else folder / target.file
    with nullcontext() if folder is None else made_folder(folder):
        with Staged(file, need=sum(tensor.nbytes for tensor in found.tensors.values())) as staged:
            _write(staged, found.tensors, CONTAINERS[file.suffix], target.wrapper)
            _read_back(staged.path, found, file, target.wrapper)
            staged.commit()
        if folder is not None:
            for name, content in found.documents(config.preprocess).items():
                write_text(folder / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    accepted = tuple(name for name in found.differs if name in accept)
    difference = _difference(config, found) if accepted else None
    return Converted(
        out, found.dialect.name, config, source.unwanted, dropped, found.added, found.equivalent.note, accepted, difference
    )  # fmt: skip


def _without(source: Checkpoint, patterns: Sequence[str]) -> tuple[ModelConfig, Mapping[str, Stored], tuple[str, ...]]:
    """The source without what the user lets go. Raises InputError for a pattern that names nothing, or what a model needs."""
    config, tensors = source.config, dict(source.tensors)
    foreign = {*source.unwanted}
    for pattern in patterns:
        named = fnmatch.filter(tensors, pattern)
        if not named and not fnmatch.filter(foreign, pattern):
            raise InputError(f"nothing to drop is called '{pattern}'", where=source.path)
        for name in named:
            del tensors[name]
    spec = config.spec
    for name, (field, value) in DROPPABLE.items():
        if name in source.tensors and name not in tensors:
            spec = spec.replace(**{field: value}, **({"head_bias": True} if field == "num_classes" else {}))
    wanted = spec.shapes()
    off = [name for name in (*wanted, *tensors) if (name in wanted) != (name in tensors)]
    off += [name for name in wanted if name in tensors and wanted[name] != tensors[name].shape]
    if off:
        raise InputError(
            f"without that it is no whole model: {off[0]!r}", where=source.path, hint="drop 'head.*' or 'pre_logits.*'"
        )
    gone = tuple(name for name in source.tensors if name not in tensors)
    if not gone:
        return config, source.tensors, ()
    labels = config.labels if spec.num_classes else None
    return config.replace(spec=spec, labels=labels), tensors, gone


def _check_out(out: Path, folder: Path | None, force: bool) -> None:
    if folder is None:
        check_target(out)
        if out.exists() and not force:
            raise CannotWrite("is there already", where=out, hint=f"{FORCE} replaces it", options=[FORCE])
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
        raise InputError("'vitzoo' is written as a folder, which holds config.json too", where=out)
    check_content(Checkpoint(config, tensors, source.path))
    with made_folder(folder):
        write_model(config, tensors, folder)
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


def _read_back(path: Path, found: Fit, file: Path, wrapper: str | None) -> None:
    """The file holds, bit for bit, what it was to hold."""
    if CONTAINERS[file.suffix] == "torch":  # read in pieces, where torch would map a second whole model
        from vit_zoo.files.torchscript import read_torchscript

        start = "" if wrapper is None else f"{wrapper}."
        back: Mapping[str, Stored] = {name.removeprefix(start): t for name, t in read_torchscript(path).items()}
    else:
        back = read_checkpoint(path)
    if {n: (t.dtype, t.shape) for n, t in back.items()} != {n: (t.dtype, t.shape) for n, t in found.tensors.items()}:
        raise CannotWrite("other tensors came out than went in", where=file)
    if digest_of(back) != digest_of(found.tensors):
        raise CannotWrite("other values came out than went in", where=file)


def _difference(config: ModelConfig, found: Fit) -> float:
    """How far the outputs part when the target's convention takes the place of the model's own, on eight random images."""
    import torch

    spec, tensors = found.equivalent.spec, found.equivalent.tensors
    images = torch.randn(8, spec.channels, *spec.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        sources = (Checkpoint(ModelConfig(name=config.name, spec=each), tensors) for each in (spec, found.reading.spec))
        before, after = (filled(source).eval().float()(images) for source in sources)
    if not torch.isfinite(after).all():
        raise RefusedContent("its outputs are not finite", where=config.name)
    return float((before - after).abs().max() / before.abs().max())


def lines(done: Converted) -> list[str]:
    """What a person should know of a conversion."""
    found = [f"{done.path} ({done.dialect})"]
    if done.unwanted:
        found.append(f"left out, no part of the model: {_listed(done.unwanted)}")
    if done.dropped:
        found.append(f"dropped, as allowed: {_listed(done.dropped)}")
    if done.added:
        found.append(f"added as zeros, for the class wants it and does not use it: {_listed(done.added)}")
    if done.note is not None:
        found.append(done.note)
    if done.difference is not None:
        found.append(f"accepted: {', '.join(done.accepted)}; outputs differ by up to {done.difference:.1e} of the largest")
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
