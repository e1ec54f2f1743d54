"""The folder of a repository, made whole on this machine: the model in each client's layout, its files, and their verdicts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import CannotWrite, CheckFailed, InputError, VitzooError
from vit_zoo.exporters.export_file import Export, Note, write_onnx_file, write_program
from vit_zoo.exporters.options import ExportOptions
from vit_zoo.files import SafetensorsFile, Staged, Stored, digest_of, sha256_of, sniff, write_safetensors, write_text
from vit_zoo.files.atomic import copy_file, writing
from vit_zoo.formats import FORMATS, describe, format_of
from vit_zoo.formats.artifact import report_path
from vit_zoo.graph.options import Precision
from vit_zoo.hub.download import TERMS
from vit_zoo.hub.manifest import check_no_secrets
from vit_zoo.loading.load import check_content, write_model
from vit_zoo.loading.source import Checkpoint, find_source
from vit_zoo.parity.reference import Live
from vit_zoo.parity.report import ParityReport, read_report
from vit_zoo.parity.saturation import integer_products
from vit_zoo.publishing.clients import THEIRS, Profile, profile_of

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Description

# the ONNX files of a repository: the names that transformers.js and optimum look for
SLOTS: dict[str, str] = {"fp32": "model", "fp16": "model_fp16", "int8": "model_quantized", "bf16": "model_bf16"}
STANDARD = ("fp32", "fp16", "int8")  # made where the folder has none
PROGRAMS = tuple(row.name for row in FORMATS.values() if not row.graph)  # made where they are asked for


@dataclass
class Staging:
    """A staged folder: for whom it is, and what is in it with which verdict."""

    folder: Path
    profile: Profile
    files: dict[str, ParityReport] = field(default_factory=dict)  # of each artifact, by its name in the repository
    unsent: list[str] = field(default_factory=list)  # what lies in the model's folder and does not go along, with the reason


def stage(
    source: Checkpoint,
    folder: Path,
    *,
    without: Sequence[str] = (),
    formats: Sequence[str] = (),
    calibrate: str | os.PathLike[str] | None = None,
    note: Note,
) -> Staging:
    """Fill an empty folder. Raises CheckFailed for an artifact whose verdict is missing, not good, or of another file."""
    home = _home(source)
    if home is not None:
        check_no_secrets(home)
    check_content(source)
    profile = profile_of(source, onnx="fp32" not in without)
    staging = Staging(folder, profile)
    note("writing the model in its clients' layouts")
    _write_model(profile, folder)
    live = Live(profile.source)
    if home is not None:
        _take(home, source, staging, [f"onnx/{SLOTS[name]}.onnx" for name in without], note)
    if calibrate is not None and f"onnx/{SLOTS['int8']}.onnx" in staging.files:
        raise InputError("calibration is for an int8 file to make, and the folder has one", where=home)
    for precision in STANDARD:
        name = f"onnx/{SLOTS[precision]}.onnx"
        if precision not in without and name not in staging.files:
            note(f"writing {name}, then checking it")
            _export_onnx(live, staging, name, precision, calibrate)
    for kind in formats:
        name = f"programs/{profile.source.config.name}{FORMATS[kind].suffix}"
        if name not in staging.files:
            note(f"writing {name}, then checking it")
            _made(folder / name, staging, partial(_program, live, kind, profile.outputs))
    if any((folder / "onnx").glob("*.onnx_data")):
        _state_external(staging)
    _load_back(staging)
    return staging


def _home(source: Checkpoint) -> Path | None:
    """The folder that a model lies in, with what lies beside it."""
    if source.path is None:
        return None
    return source.path.parent if (source.path.parent / "config.json").is_file() else None


def _write_model(profile: Profile, folder: Path) -> None:
    write_model(profile.source.config, profile.source.tensors, folder)
    _write_json(folder / "config.json", profile.config)
    if profile.preprocessor is not None:
        _write_json(folder / "preprocessor_config.json", profile.preprocessor)
    if profile.theirs is not None:
        need = sum(tensor.nbytes for tensor in profile.theirs.values())
        with Staged(folder / THEIRS, need=need) as staged:
            write_safetensors(staged, profile.theirs, {"format": "pt"})
            if digest_of(SafetensorsFile(staged.path).tensors) != digest_of(profile.theirs):
                raise CannotWrite("other values came out than went in", where=staged.target)
            staged.commit()


def _write_json(path: Path, document: Any) -> None:
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _take(home: Path, source: Checkpoint, staging: Staging, left_out: Collection[str], note: Note) -> None:
    """The licence's text, and files that were exported from this model; what does not go along is told."""
    for path in sorted(p for part in (home, home / "onnx", home / "programs") for p in part.glob("*") if p.is_file()):
        if path.parent == home and TERMS.fullmatch(path.name):
            copy_file(path, staging.folder / path.name)
            continue
        if source.cached:  # what another program may have brought is made anew
            continue
        kind = sniff(path)
        if format_of(path, kind) is None:
            if kind in ("pickle", "torch", "old torch"):
                staging.unsent.append(f"{path.name}: a pickle")
            continue
        try:
            about = describe(path)
        except VitzooError as error:
            staging.unsent.append(f"{path.name}: {error.message}")
            continue
        if about.config is None:
            staging.unsent.append(f"{path.name}: another tool's file")
        elif about.export.get("placement", "inline") != "inline":
            staging.unsent.append(f"{path.name}: its weights are in another file; it is made anew")
        else:
            name = _name_of(about, staging.profile)
            if name in left_out:
                staging.unsent.append(f"{path.name}: left out, as asked")
                continue
            note(f"taking {path.name}")
            _take_artifact(path, about, name, staging, source)


def _take_artifact(path: Path, about: Description, name: str, staging: Staging, source: Checkpoint) -> None:
    """An exported file, if it has a good verdict, of these bytes, and was made from these weights."""
    report = read_report(path)
    again = f"`vitzoo export` makes it anew; or move {path.name} away"
    if report is None:
        raise CheckFailed("has no parity report", where=path, hint=again)
    if not report.ok:
        raise CheckFailed(f"its parity report says that it failed: {report.summary()}", where=path, hint=again)
    if report.sha256 != sha256_of(path):
        raise CheckFailed("its parity report is of another file", where=path, hint=again)
    products = integer_products(path) if report.precision == "int8" else None  # a report of an older version says nothing of it
    if products is not None and not products.proven:
        raise CheckFailed(str(products), where=path, hint=again)
    whose = (source.tensors, staging.profile.source.tensors)  # as it lies there, and as it is sent
    if not any(is_made_from(about, tensors) for tensors in whose if tensors is not None):
        raise CheckFailed("was exported from other weights than the model's", where=path, hint=again)
    if name in staging.files:
        raise InputError(f"two files would be {name}: the second is {path.name}", where=path.parent, hint="move one away")
    target = staging.folder / name
    target.parent.mkdir(exist_ok=True)
    copy_file(path, target)
    report = report.model_copy(update={"file": target.name})
    write_text(report_path(target), report.dumps())
    staging.files[name] = report


def is_made_from(about: Description, tensors: Mapping[str, Stored]) -> bool:
    """Whether an artifact of ours was exported from these very weights, those that it holds or whose hash it states."""
    from vit_zoo.parity.resolve_reference import weights_in_artifact

    for key in ("source_sha256", "weights_sha256"):
        if key in about.export:
            return bool(about.export[key] == digest_of(tensors))
    held = {name: tensor for name, tensor in weights_in_artifact(about).items() if not tensor.absent}
    return digest_of(held) == digest_of({name: tensor for name, tensor in tensors.items() if name in held})


def _name_of(about: Description, profile: Profile) -> str:
    """The name in the repository: a plain file gets that which clients look for, any other keeps its own."""
    if not about.graph:
        return f"programs/{profile.source.config.name}{FORMATS[about.format].suffix}"
    plain = not {"include", "dynamic"} & set(about.export) and tuple(about.export.get("outputs", ())) == profile.outputs
    precision = str(about.export.get("precision", "fp32")).partition("-")[0]
    if plain:
        return f"onnx/{SLOTS[precision]}.onnx"
    if about.path.stem in SLOTS.values():  # clients look for a plain file there
        raise InputError("is no plain file, and has the name of one: rename it", where=about.path)
    return f"onnx/{about.path.name}"


def _export_onnx(live: Live, staging: Staging, name: str, precision: str, calibrate: str | os.PathLike[str] | None) -> None:
    config = live.source.config
    full: Precision = "fp32" if precision == "fp32" else "fp16"
    if precision == "int8":
        full = "int8-weights" if calibrate is None else "int8-static"
    images = calibrate if full == "int8-static" else None
    options = ExportOptions(outputs=staging.profile.outputs, precision=full, calibrate=images)
    form, rounding = options.resolve(config)
    _made(
        staging.folder / name,
        staging,
        lambda target: write_onnx_file(live.source, target, live, form, None, "default", rounding),
    )


def _made(target: Path, staging: Staging, write: Callable[[Path], Export]) -> None:
    with writing(target):
        target.parent.mkdir(exist_ok=True)
    done = write(target)
    assert done.report is not None
    staging.files[target.relative_to(staging.folder).as_posix()] = done.report


def _program(live: Live, kind: str, outputs: Sequence[str], target: Path) -> Export:
    return write_program(live.source, target, live, kind, outputs, "default")


def _state_external(staging: Staging) -> None:
    """transformers.js fetches a file's weights only where the config says that they lie beside it."""
    files = sorted(path.name.removesuffix("_data") for path in (staging.folder / "onnx").glob("*.onnx_data"))
    document = {**staging.profile.config, "transformers.js_config": {"use_external_data_format": dict.fromkeys(files, 1)}}
    _write_json(staging.folder / "config.json", document)


def _load_back(staging: Staging) -> None:
    """What was staged is the model, as our own code reads it."""
    back, meant = find_source(staging.folder), staging.profile.source
    if not isinstance(back, Checkpoint) or back.config != meant.config or digest_of(back.tensors) != digest_of(meant.tensors):
        raise CannotWrite("another model came out than went in", where=staging.folder)
