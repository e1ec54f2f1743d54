"""The line: name -> spec -> model -> weights -> artifact -> parity report; each arrow is one function here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vit_zoo import __version__, registry
from vit_zoo.errors import CannotWrite, CheckFailed, HubError, InputError, RefusedContent
from vit_zoo.files import SafetensorsFile, Staged, Stored, digest_of, staging_folder, write_safetensors, write_text
from vit_zoo.files.atomic import check_target, writing
from vit_zoo.formats import SUFFIX, open_artifact
from vit_zoo.formats.artifact import report_path
from vit_zoo.model_config import ModelConfig
from vit_zoo.sources import ModelLike, Source, find_source, shipped

if TYPE_CHECKING:
    import torch

    from vit_zoo.model import ViT
    from vit_zoo.parity import ParityReport, Reference

Placement = Literal["inline", "external", "shared"]
OPSET = 20  # every client reads it; from 23 on attention is one operator, which older ones lack
Note = Callable[[str], None]  # what a person should hear while it happens


def create(
    name: str | os.PathLike[str], *, seed: int = 0, device: Any = None, dtype: torch.dtype | None = None, **overrides: Any
) -> ViT:
    """A model of a registry name or a config file with seeded random weights; `overrides` replace fields of the spec.

    Raises InputError for a name or field that does not exist, or sizes that do not fit together.
    """
    source = find_source(name, **overrides)
    if source.tensors is not None:
        raise InputError("has weights; load it instead", where=name)
    return _random_model(source.config, seed, device=device, dtype=dtype)


def load(
    source: ModelLike,
    *,
    num_classes: int | None = None,
    check: Literal["header", "full"] = "header",
    device: Any = None,
    dtype: torch.dtype | None = None,
    **facts: Any,
) -> ViT:
    """A model with its weights, from a name that has some, a folder, a checkpoint file, or another library's module.

    Only headers are read: tensors are mapped from the file and come in when used; `check="full"` reads everything,
    refuses values that are not finite and compares the content hash. `num_classes` puts a fresh head in place.
    `facts` are fields of the spec that a checkpoint cannot tell, such as `heads=3`.
    Raises HubError for a name whose weights are not on this machine, RefusedContent for tensors that do not fit.
    """
    if check not in ("header", "full"):
        raise InputError(f"check {check!r}: either 'header' or 'full'")
    found = find_source(source, **facts)
    if found.tensors is None:
        found = _with_weights(found, str(source))
    if check == "full":
        _check_content(found)
    model = _filled(found)
    if not isinstance(source, str | os.PathLike):  # the other module keeps its own memory
        for p in model.parameters():
            p.data = p.data.clone()
    if num_classes is not None and num_classes != model.spec.num_classes:
        model.set_head(num_classes)
    return model.to(device=device, dtype=dtype) if device is not None or dtype is not None else model


def save(model: ViT, folder: str | os.PathLike[str]) -> Path:
    """Write `config.json` and `model.safetensors` into a folder, which is made if it is not there; returns it.

    Files that are there are replaced, each atomically. Raises CannotWrite.
    """
    folder = Path(folder)
    source = find_source(model)
    assert source.tensors is not None
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise CannotWrite("is not a folder", where=folder)
    made = not folder.exists()
    with writing(folder):
        folder.mkdir(exist_ok=True)
    try:
        _write_model(source.config, {name: source.tensors[name] for name in source.config.spec.shapes()}, folder)
    except BaseException:
        if made:
            with suppress(OSError):  # something else may lie in it by now
                folder.rmdir()
        raise
    return folder


def _write_model(config: ModelConfig, tensors: Mapping[str, Stored], folder: Path) -> None:
    document = json.dumps(config.document(), sort_keys=True)
    metadata = {"format": "pt", "vit_zoo": document, "vit_zoo.sha256": digest_of(tensors)}
    with Staged(folder / "model.safetensors", need=sum(tensor.nbytes for tensor in tensors.values())) as staged:
        write_safetensors(staged, tensors, metadata)
        _read_back(staged.path, tensors)
        staged.commit()
    write_text(folder / "config.json", config.dumps())


@dataclass(frozen=True)
class Export:
    """What `export` wrote: the artifact, and the report on it (None when it was not verified)."""

    path: Path
    config: ModelConfig
    report: ParityReport | None


def export(
    model: ModelLike,
    to: str | Sequence[str] = "onnx",
    *,
    out: str | os.PathLike[str] | None = None,
    opset: int | None = None,
    placement: Placement | None = None,
    outputs: Sequence[str] = (),
    verify: bool = True,
    weights: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    note: Note = lambda line: None,
    **facts: Any,
) -> list[Export]:
    """Write a model as ONNX, TorchScript or .pt2 files, each verified on disk before it gets its name.

    `out` is a file (for one format) or a folder, the current one by default. `placement` of ONNX weights: `inline` in
    the file (the default below 2 GiB), `external` in `.onnx_data` beside it, `shared` with the `model.safetensors` of the
    folder. A registry name alone is exported with the random weights of `seed`, or those that ship with it.
    Raises CheckFailed when a file does not compute the model: it is then set aside as `*.rejected`.
    """
    formats = [to] if isinstance(to, str) else list(dict.fromkeys(to))
    for format_ in formats:
        if format_ not in SUFFIX:
            raise InputError(f"no format '{format_}'; there are {', '.join(SUFFIX)}")
    source = find_source(model, weights=weights, **facts)
    if "onnx" not in formats and (opset is not None or placement is not None):
        raise InputError("opset and the placement of weights are of ONNX files")
    if source.tensors is None:
        source = _architecture(source, str(model), seed)
    elif seed is not None:
        raise InputError(f"{source.config.name} has its own weights: a seed is of random ones")
    if placement == "shared" and ("onnx" not in formats or source.path is None or source.dialect not in ("vitzoo", "timm")):
        raise InputError("shared weights need an ONNX export of a folder that holds model.safetensors")
    targets = {format_: _target(source, format_, formats, out, placement) for format_ in formats}
    for target in targets.values():
        check_target(target)
    live = _Live(source)
    written = []
    for format_, target in targets.items():
        note(f"writing {target}{', then checking it' if verify else ''}")
        if format_ == "onnx":
            written.append(_export_onnx(source, target, live, opset or OPSET, placement, outputs, verify))
        else:
            written.append(_export_program(source, target, live, format_, outputs, verify))
    return written


def verify(
    artifact: str | os.PathLike[str], against: ModelLike | None = None, *, write_report: bool = True, **facts: Any
) -> ParityReport:
    """Check an artifact against a model: `against`, or the spec and the weights that the file itself holds.

    Writes `FILE.parity.json` beside it; but the verdict that these very bytes got when they were exported stays, unless
    the file contradicts itself. Does not raise for a file that fails: the report says so.
    """
    from vit_zoo.formats.onnx_file import weights_in
    from vit_zoo.parity import Reference, check_parity, read_report

    path = Path(artifact)
    opened = open_artifact(path)
    if against is not None:
        source = find_source(against, **facts)
        reference = _Live(_with_weights(source, str(against)) if source.tensors is None else source).reference
    elif opened.about.format == "onnx":
        own = Source(opened.config, weights_in(path, opened.config.spec.shapes()))
        reference = Reference(_filled(own), "the weights that it holds")
    else:
        raise InputError("name the model to verify it against", where=path)
    data = opened.about.export.get("data")
    report = check_parity(path, reference, companion=None if data is None else path.parent / str(data))
    known = read_report(path) if write_report else None
    settled = known is not None and known.ok and known.sha256 == report.sha256 and (report.ok or against is not None)
    if write_report and not settled:
        write_text(report_path(path), report.dumps())
    return report


def read_config(model: ModelLike, **facts: Any) -> ModelConfig:
    """Spec, preprocessing, labels and origin of a model, without its weights."""
    return find_source(model, **facts).config


class _Live:
    """The torch model of a source in float32, as which every artifact computes, and the reference made of it.

    Both are made when a step first needs them.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @cached_property
    def model(self) -> ViT:
        return _filled(self.source).float()

    @cached_property
    def reference(self) -> Reference:
        from vit_zoo.parity import Reference

        return Reference(self.model, _named(self.source))


def _export_onnx(
    source: Source, target: Path, live: _Live, opset: int, placement: Placement | None, outputs: Sequence[str], verified: bool
) -> Export:
    from vit_zoo.graph.build import build
    from vit_zoo.graph.write import PROTO_LIMIT, inline_size, write_external, write_inline, write_shared

    assert source.tensors is not None
    graph = build(source.config.spec, source.tensors, opset=opset, outputs=outputs)
    placement = placement or ("inline" if inline_size(graph) <= PROTO_LIMIT else "external")
    details: dict[str, Any] = {**_details(verified), "opset": opset, "outputs": list(graph.outputs), "placement": placement}
    size = sum(tensor.nbytes for tensor in source.tensors.values())
    with ExitStack() as stack:
        if placement == "external":
            folder = stack.enter_context(staging_folder(target))
            staged = stack.enter_context(Staged(target, folder=folder))
            data = stack.enter_context(Staged(target.with_name(target.name + "_data"), need=size, folder=folder))
            details["data"] = data.target.name
            write_external(graph, staged, data, _metadata(source.config, details))
            return _finish(staged, source.config, _verified(staged, live, verified, data), data)
        staged = stack.enter_context(Staged(target, need=size if placement == "inline" else 0))
        if placement == "inline":
            write_inline(graph, staged, _metadata(source.config, details))
        else:
            assert source.path is not None
            details["data"] = source.path.name
            details["header_sha256"] = SafetensorsFile(source.path).header_sha256
            write_shared(graph, staged, _metadata(source.config, details), source.digest)
        return _finish(staged, source.config, _verified(staged, live, verified))


def _export_program(source: Source, target: Path, live: _Live, format_: str, outputs: Sequence[str], verified: bool) -> Export:
    from vit_zoo import forward
    from vit_zoo.formats.programs import write_pt2, write_torchscript

    assert source.tensors is not None
    names = forward.checked_outputs(source.config.spec, outputs)
    details = {**_details(verified), "outputs": list(names), "weights_sha256": source.digest or digest_of(source.tensors)}
    write = write_torchscript if format_ == "torchscript" else write_pt2
    with Staged(target, need=sum(tensor.nbytes for tensor in source.tensors.values())) as staged:
        write(live.model, names, staged, details)
        return _finish(staged, source.config, _verified(staged, live, verified))


def _verified(staged: Staged, live: _Live, wanted: bool, data: Staged | None = None) -> ParityReport | None:
    if not wanted:
        return None
    from vit_zoo.parity import check_parity

    return check_parity(staged.path, live.reference, companion=None if data is None else data.path)


def _finish(staged: Staged, config: ModelConfig, report: ParityReport | None, data: Staged | None = None) -> Export:
    """Name the file, or set it aside; the report goes beside it, and no old one outlives its file."""
    target = staged.target
    if report is not None and not report.ok:
        aside = staged.reject()
        if data is not None:
            data.reject()
        write_text(report_path(aside), report.model_copy(update={"file": aside.name}).dumps())
        raise CheckFailed(f"does not compute the model: {report.summary()}", where=target, hint=f"set aside as {aside.name}")
    with writing(target):
        report_path(target).unlink(missing_ok=True)
    if data is not None:
        data.commit()
    staged.commit()
    if report is not None:
        report = report.model_copy(update={"file": target.name})
        write_text(report_path(target), report.dumps())
    return Export(target, config, report)


def _target(
    source: Source, format_: str, formats: Sequence[str], out: str | os.PathLike[str] | None, placement: str | None
) -> Path:
    """Where a format goes: NAME.onnx in the current folder; shared weights, beside their file as model.onnx."""
    shared = format_ == "onnx" and placement == "shared"
    name = ("model" if shared else source.config.name) + SUFFIX[format_]
    if out is None:
        return source.path.parent / name if shared and source.path is not None else Path(name)
    path = Path(out)
    if path.is_dir():
        return path / name
    if os.fspath(out).endswith(os.sep):
        raise InputError("no such folder", where=out)
    if len(formats) > 1:
        raise InputError("several formats go into a folder, and this is none", where=path)
    return path


def _details(verified: bool) -> dict[str, Any]:
    return {"version": __version__, "verify": "see the .parity.json beside this file" if verified else "off"}


def _metadata(config: ModelConfig, details: Mapping[str, Any]) -> dict[str, str]:
    return {"vit_zoo": json.dumps(config.document(), sort_keys=True), "vit_zoo.export": json.dumps(details, sort_keys=True)}


def _named(source: Source) -> str:
    """How a report names its reference; no folder names, which are private."""
    if source.config.random_seed is not None:
        return f"{source.config.name}, random weights of seed {source.config.random_seed}"
    return source.path.name if source.path is not None else source.config.name


def _random_model(config: ModelConfig, seed: int, *, device: Any = None, dtype: torch.dtype | None = None) -> ViT:
    from vit_zoo.model import ViT, initialise

    model = ViT.empty(config)
    if dtype is not None:
        model.to(dtype)
    model.to_empty(device=device or "cpu")
    initialise(model, seed)
    return model


def _architecture(source: Source, name: str, seed: int | None) -> Source:
    """An architecture as a source with weights: those that ship with the name, else random ones, which are stamped."""
    if seed is None and name in registry.variants():
        ready = shipped(name)
        if ready is not None and ready.config.spec == source.config.spec:
            return ready
    return find_source(_random_model(source.config, seed or 0))


def _with_weights(source: Source, name: str) -> Source:
    if name in registry.variants():
        ready = shipped(name)
        if ready is not None and ready.config.spec == source.config.spec:
            return ready
    hint = f"`vitzoo create {name}` makes a folder with random ones; name a folder or a checkpoint file"
    raise HubError("no weights of it are on this machine", where=name, hint=hint)


def _filled(source: Source) -> ViT:
    """The torch model over the source's tensors, which stay where they are until they are used."""
    import torch

    from vit_zoo.model import ViT

    assert source.tensors is not None
    model = ViT.empty(source.config)
    state = {}
    for name, stored in source.tensors.items():
        array = stored.array()
        tensor = torch.from_numpy(array)
        state[name] = tensor.view(torch.bfloat16) if stored.dtype == "BF16" else tensor
    model.load_state_dict(state, assign=True)
    if source.config.random_seed is not None:
        model.mark_random()
    return model


def _check_content(source: Source) -> None:
    """Read every value: finite, and of the hash that the file states."""
    import numpy as np

    assert source.tensors is not None
    for name, stored in source.tensors.items():
        values = stored.array()
        if stored.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise RefusedContent(f"{name!r} holds {bad:,} values that are not finite", where=source.path)
    if source.digest is not None and digest_of(source.tensors) != source.digest:
        raise RefusedContent("its weights are not those that were written: the content hash differs", where=source.path)


def _read_back(path: Path, tensors: Mapping[str, Stored]) -> None:
    """What was written is a file that the safetensors library reads, with every tensor in its place."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name, stored in tensors.items():
            part = file.get_slice(name)
            if tuple(part.get_shape()) != stored.shape or part.get_dtype() != stored.dtype:
                raise CannotWrite(f"{name!r} came out wrong", where=path)
