"""Staging of a repository in a local folder: the model in each client's layout, exported files, and their parity reports."""

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
from vit_zoo.files.atomic import copy_file
from vit_zoo.files.disk import writing
from vit_zoo.files.file_set import FileSet
from vit_zoo.files.journal import settle
from vit_zoo.formats import FORMATS, describe, format_of
from vit_zoo.formats.artifact import report_path
from vit_zoo.graph.options import Precision
from vit_zoo.hub.download import TERMS
from vit_zoo.hub.manifest import check_no_secrets
from vit_zoo.loading.checkpoint import Checkpoint
from vit_zoo.loading.load import check_content, write_model
from vit_zoo.loading.source import find_source
from vit_zoo.parity.live import Live
from vit_zoo.parity.report import ParityReport, read_report
from vit_zoo.parity.saturation import integer_products
from vit_zoo.publishing.clients import HF_WEIGHTS, Profile, profile_of
from vit_zoo.self_check.standalone import checker_files

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Description

# the ONNX files of a repository: the names that transformers.js and optimum look for
SLOTS: dict[str, str] = {"fp32": "model", "fp16": "model_fp16", "int8": "model_quantized", "bf16": "model_bf16"}
WORDS = {"labels": "labels", "preprocess": "preprocessing"}
CHECKERS = "onnx"  # the folder of the standalone checkers
STANDARD = ("fp32", "fp16", "int8")  # exported if the folder has none
PROGRAMS = tuple(row.name for row in FORMATS.values() if not row.graph)  # exported on request


@dataclass
class Staging:
    """A staged folder with its clients and its exported files."""

    folder: Path
    profile: Profile
    files: dict[str, ParityReport] = field(default_factory=dict)  # reports by the name of the artifact in the repository
    unsent: list[str] = field(default_factory=list)  # files in the model's folder that are not published, with reasons
    checkers: bool = False  # whether the standalone checkers of self-checks are in it


def stage(
    source: Checkpoint,
    folder: Path,
    *,
    without: Sequence[str] = (),
    formats: Sequence[str] = (),
    calibrate: str | os.PathLike[str] | None = None,
    note: Note,
) -> Staging:
    """Fill an empty folder. Raises CheckFailed for an artifact without a passing parity report on exactly its bytes."""
    home = _home(source)
    if home is not None:
        check_no_secrets(home)
    check_content(source)
    profile = profile_of(source, onnx="fp32" not in without)
    if profile.classifies and source.config.problem_type != "regression":
        source.config.class_activation()  # raises if nothing states what a single output stands for
    staging = Staging(folder, profile)
    note("writing the model files")
    _write_model(profile, folder)
    live = Live(profile.source)
    if home is not None:
        _copy_exports(home, source, staging, [f"onnx/{SLOTS[name]}.onnx" for name in without], note)
    if calibrate is not None and f"onnx/{SLOTS['int8']}.onnx" in staging.files:
        raise InputError("calibrate applies to a new int8 file, and the folder already has one", where=home)
    for precision in STANDARD:
        name = f"onnx/{SLOTS[precision]}.onnx"
        if precision not in without and name not in staging.files:
            note(f"writing {name}, then verifying it")
            _export_onnx(live, staging, name, precision, calibrate)
    for kind in formats:
        name = f"programs/{profile.source.config.name}{FORMATS[kind].suffix}"
        if name not in staging.files:
            note(f"writing {name}, then verifying it")
            _add_export(folder / name, staging, partial(_program, live, kind, profile.outputs))
    _add_checkers(staging)
    if any((folder / "onnx").glob("*.onnx_data")):
        _state_external(staging)
    _load_back(staging)
    return staging


def _home(source: Checkpoint) -> Path | None:
    """Return the folder of a model, or None for a single file without config.json."""
    if source.path is None:
        return None
    return source.path.parent if (source.path.parent / "config.json").is_file() else None


def _write_model(profile: Profile, folder: Path) -> None:
    write_model(profile.source.config, profile.source.tensors, folder)
    _write_json(folder / "config.json", profile.config)
    for name, document in profile.preprocessors.items():
        _write_json(folder / name, document)
    if profile.hf_tensors is not None:
        need = sum(tensor.nbytes for tensor in profile.hf_tensors.values())
        with Staged(folder / HF_WEIGHTS, need=need) as staged:
            write_safetensors(staged, profile.hf_tensors, {"format": "pt"})
            if digest_of(SafetensorsFile(staged.path).tensors) != digest_of(profile.hf_tensors):
                raise CannotWrite("the values in the file differ from those to be written", where=staged.target)
            staged.commit()


def _write_json(path: Path, document: Any) -> None:
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _copy_exports(home: Path, source: Checkpoint, staging: Staging, left_out: Collection[str], note: Note) -> None:
    """Copy the text of the licence, and files exported from this model. Other files are listed in `staging.unsent`."""
    parts = (home, home / "onnx", home / "programs")
    for part in parts:
        settle(part)
    for path in sorted(p for part in parts for p in part.glob("*") if p.is_file()):
        if path.parent == home and TERMS.fullmatch(path.name):
            copy_file(path, staging.folder / path.name)
            continue
        if source.cached:  # files in the Hub's cache may come from another program, so they are exported again
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
            staging.unsent.append(f"{path.name}: written by another tool")
        elif about.export.get("placement", "inline") != "inline":
            staging.unsent.append(f"{path.name}: its weights are in another file; it is exported again")
        else:
            name = _name_of(about, staging.profile)
            if name in left_out:
                staging.unsent.append(f"{path.name}: left out on request")
                continue
            if name in staging.files and about.rounded:
                staging.unsent.append(f"{path.name}: another int8 file is {name}")
                continue
            note(f"copying {path.name}")
            _copy_export(path, about, name, staging, source)


def _copy_export(path: Path, about: Description, name: str, staging: Staging, source: Checkpoint) -> None:
    """Copy an exported file. Raises CheckFailed unless a report on its bytes passed, and it has the weights of the model."""
    report = read_report(path)
    hint = f"run `vitzoo export` again, or move {path.name} away"
    if report is None:
        raise CheckFailed("has no parity report", where=path, hint=hint)
    if not report.ok:
        raise CheckFailed(f"failed its parity check: {report.summary()}", where=path, hint=hint)
    if report.sha256 != sha256_of(path):
        raise CheckFailed("its parity report describes another file", where=path, hint=hint)
    products = integer_products(path) if report.precision == "int8" else None  # reports of older versions lack it
    if products is not None and not products.proven:
        raise CheckFailed(str(products), where=path, hint=hint)
    assert about.config is not None
    if about.config.problem_type != source.config.problem_type:
        cause = f"was exported with problem_type = {about.config.problem_type}, the model has {source.config.problem_type}"
        raise CheckFailed(cause, where=path, hint=hint)
    for part, word in WORDS.items():
        if getattr(about.config, part) != getattr(source.config, part):
            raise CheckFailed(f"was exported with other {word} than the model's", where=path, hint=hint)
    # as stored, and as published
    if not any(is_exported_from(about, tensors) for tensors in (source.tensors, staging.profile.source.tensors)):
        raise CheckFailed("was exported from other weights than the model's", where=path, hint=hint)
    if name in staging.files:
        raise InputError(f"two files map to {name}; the second is {path.name}", where=path.parent, hint="move one away")
    target = staging.folder / name
    target.parent.mkdir(exist_ok=True)
    copy_file(path, target)
    report = report.model_copy(update={"file": target.name})
    write_text(report_path(target), report.dumps())
    staging.files[name] = report


def is_exported_from(about: Description, tensors: Mapping[str, Stored]) -> bool:
    """Return whether an artifact of ours was exported from these weights, by the weights in it or by their hash."""
    from vit_zoo.parity.resolve_reference import weights_in_artifact

    for key in ("source_sha256", "weights_sha256"):
        if key in about.export:
            return bool(about.export[key] == digest_of(tensors))
    held = {name: tensor for name, tensor in weights_in_artifact(about).items() if not tensor.absent}
    return digest_of(held) == digest_of({name: tensor for name, tensor in tensors.items() if name in held})


def _name_of(about: Description, profile: Profile) -> str:
    """Return the name in the repository: the name that clients expect for a file with default options, else its own."""
    if not about.graph:
        return f"programs/{profile.source.config.name}{FORMATS[about.format].suffix}"
    plain = (
        not {"include", "dynamic", "batch", "operators"} & set(about.export)
        and tuple(about.export.get("outputs", ())) == profile.outputs
    )
    precision = str(about.export.get("precision", "fp32")).partition("-")[0]
    if plain:
        return f"onnx/{SLOTS[precision]}.onnx"
    if about.path.stem in SLOTS.values():  # clients expect a file with default options there
        raise InputError("clients expect a file with default options under this name", where=about.path, hint="rename it")
    return f"onnx/{about.path.name}"


def _export_onnx(live: Live, staging: Staging, name: str, precision: str, calibrate: str | os.PathLike[str] | None) -> None:
    config = live.source.config
    full: Precision = "fp32" if precision == "fp32" else "fp16"
    if precision == "int8":
        full = "int8-weights" if calibrate is None else "int8-static"
    images = calibrate if full == "int8-static" else None
    judged = None if staging.profile.classifies else images  # rounding costs features more: some layers may stay in float
    options = ExportOptions(outputs=staging.profile.outputs, precisions=(full,), calibrate=images, evaluate=judged)
    graph_options, search = options.resolve(config)[full]
    _add_export(
        staging.folder / name,
        staging,
        lambda target, files: write_onnx_file(live.source, target, live, graph_options, None, "default", search, files=files),
    )


def _add_export(target: Path, staging: Staging, write: Callable[[Path, FileSet], Export]) -> None:
    with writing(target):
        target.parent.mkdir(exist_ok=True)
    with FileSet() as files:
        done = write(target, files)
        files.commit()
    assert done.report is not None
    staging.files[target.relative_to(staging.folder).as_posix()] = done.report


def _program(live: Live, kind: str, outputs: Sequence[str], target: Path, files: FileSet) -> Export:
    return write_program(live.source, target, live, kind, outputs, "default", files=files)


def _add_checkers(staging: Staging) -> None:
    """Put the standalone checkers beside the ONNX files, if any of these has a self-check."""
    files = [staging.folder / name for name in staging.files]
    if any(about.graph and about.selfcheck is not None for about in map(describe, files)):
        for name, path in checker_files().items():
            copy_file(path, staging.folder / CHECKERS / name)
            staging.checkers = True


def _state_external(staging: Staging) -> None:
    """State in the config which files have external weights; transformers.js fetches no others."""
    files = sorted(path.name.removesuffix("_data") for path in (staging.folder / "onnx").glob("*.onnx_data"))
    document = {**staging.profile.config, "transformers.js_config": {"use_external_data_format": dict.fromkeys(files, 1)}}
    _write_json(staging.folder / "config.json", document)


def _load_back(staging: Staging) -> None:
    """Raise CannotWrite unless the staged folder reads back as the same model."""
    back, expected = find_source(staging.folder), staging.profile.source
    if (
        not isinstance(back, Checkpoint)
        or back.config != expected.config
        or digest_of(back.tensors) != digest_of(expected.tensors)
    ):
        raise CannotWrite("the staged folder does not read back as the same model", where=staging.folder)
