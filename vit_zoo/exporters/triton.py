"""Model repositories of NVIDIA's Triton Inference Server: a folder for each exported ONNX file, with the config that serves it.

DIR/NAME/config.pbtxt       its fields are those of `ModelConfig` in Triton's model_config.proto
DIR/NAME/labels.txt         of a classifier with names for its classes
DIR/NAME/1/model.onnx       and model.onnx_data, if the weights are external
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import CannotWrite, CheckFailed, InputError, Option
from vit_zoo.files.atomic import check_target, would_replace
from vit_zoo.files.disk import writing
from vit_zoo.files.file_set import FileSet
from vit_zoo.files.folder import written_folder
from vit_zoo.formats.artifact import report_path
from vit_zoo.formats.onnx_summary import Value, summarise

if TYPE_CHECKING:
    from vit_zoo.exporters.export_file import Export
    from vit_zoo.graph.options import Precision
    from vit_zoo.model.config import ModelConfig

    Write = Callable[[Precision, Path, FileSet], Export]

TRITON = Option("triton", "FOLDER")
VERSION, MODEL, CONFIG, LABELS = "1", "model.onnx", "config.pbtxt", "labels.txt"
TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8"}
CLASSES = ("logits", "probabilities")
MAX_BATCH, PREFERRED = 8, "4, 8"
DELAY = 2000  # microseconds that a request waits for others to share its batch; a ViT-B/16 takes longer on any CPU
HEADER = "# written by `vitzoo export --triton`; sha256 of the lines below: {}\n"


def model_path(repository: Path, name: str) -> Path:
    """Return the path of a model's ONNX file in a repository."""
    return repository / name / VERSION / MODEL


def check_repository(repository: Path) -> None:
    """Raise CannotWrite or InputError if a folder cannot be a model repository; called before slow work."""
    if repository.exists() and not repository.is_dir():
        raise CannotWrite("not a folder", where=repository)
    if not repository.resolve().parent.is_dir():
        raise InputError("no such folder", where=repository.parent)


def check_entry(entry: Path, held: ModelConfig | None) -> None:
    """Raise CannotWrite if the folder of a model has files that the user changed. `held` is the config of its ONNX file."""
    for name in (CONFIG, LABELS):
        path = entry / name
        check_target(path) if entry.is_dir() else None
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if not (_is_unchanged(text) if name == CONFIG else held is not None and text == labels_text(held)):
            raise would_replace(path, "already exists, and was changed after vitzoo wrote it, or was not written by vitzoo")


def write_repository(targets: Iterable[tuple[Precision, Path]], write: Write) -> list[Export]:
    """Write models, each complete and verified before its folder appears in the repository, in one step.

    Args:
        targets: The precision and the path of each ONNX file, as `model_path` returns it.
        write: Function that writes an ONNX file to a path and adds it to a set of files.

    Raises:
        CheckFailed: A file does not compute the model; it is set aside as `NAME.onnx.rejected` in the repository.
        CannotWrite: A folder cannot be written.
    """
    done = []
    for precision, target in targets:
        entry = target.parent.parent
        with writing(entry.parent):
            entry.parent.mkdir(exist_ok=True)
        with written_folder(entry) as made:
            path = made / VERSION / MODEL
            path.parent.mkdir()
            with FileSet() as files:
                try:
                    export = write(precision, path, files)
                except CheckFailed as error:
                    raise _kept(error, path, entry) from None
                files.commit()
            _write_config(made, entry.name, export.config, shares_rounding=precision == "int8-dynamic")
        data = None if export.data is None else target.with_name(export.data.name)
        _remove_stale(entry, export)
        done.append(replace(export, path=target, data=data))
    return done


def _write_config(made: Path, name: str, config: ModelConfig, *, shares_rounding: bool) -> None:
    labels = labels_text(config)
    with FileSet() as files:
        if labels is not None:
            files.add_text(made / LABELS, labels)
        files.add_text(
            made / CONFIG, config_text(name, made / VERSION / MODEL, labelled=labels is not None, alone=shares_rounding)
        )
        files.commit()


def labels_text(config: ModelConfig) -> str | None:
    """Return the content of labels.txt: a name in each line; None for a model that has no names for its classes."""
    if config.labels is None or not config.classes:
        return None
    return "".join(f"{' '.join(label.split())}\n" for label in config.labels)


def config_text(name: str, model: Path, *, labelled: bool, alone: bool) -> str:
    """Return the content of config.pbtxt for an ONNX file.

    Triton collects requests into batches. With `alone` it does not: where the images of a batch share their rounding, the result
    for an image must not depend on the requests of others.
    """
    about = summarise(model)
    (image,) = about.inputs
    layout = "FORMAT_NHWC" if image.type == "uint8" else "FORMAT_NCHW"
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', f"max_batch_size: {1 if alone else MAX_BATCH}"]
    lines += ["input [", "  {", *_tensor(image), f"    format: {layout}", "  }", "]", "output ["]
    for i, output in enumerate(about.outputs):
        label = [f'    label_filename: "{LABELS}"'] if labelled and output.name in CLASSES else []
        lines += ["  {", *_tensor(output), *label, "  }," if i + 1 < len(about.outputs) else "  }"]
    lines.append("]")
    if not alone:
        lines += [
            "dynamic_batching {",
            f"  preferred_batch_size: [ {PREFERRED} ]",
            f"  max_queue_delay_microseconds: {DELAY}",
            "}",
        ]
    lines += ["instance_group [", "  {", "    count: 1", "    kind: KIND_AUTO", "  }", "]"]
    text = "\n".join(lines) + "\n"
    return HEADER.format(hashlib.sha256(text.encode()).hexdigest()) + text


def _tensor(value: Value) -> list[str]:
    """Return name, type and axes of an input or output; Triton adds the axis of the batch."""
    axes = ", ".join(str(axis) if isinstance(axis, int) else "-1" for axis in (value.shape or ())[1:])
    return [f'    name: "{value.name}"', f"    data_type: {TYPES[value.type]}", f"    dims: [ {axes} ]"]


def _is_unchanged(text: str) -> bool:
    """Return whether a config.pbtxt is as vitzoo wrote it."""
    first, _, rest = text.partition("\n")
    found = re.fullmatch(re.escape(HEADER.strip()).replace(re.escape("{}"), "([0-9a-f]{64})"), first)
    return found is not None and found[1] == hashlib.sha256(rest.encode()).hexdigest()


def _kept(error: CheckFailed, path: Path, entry: Path) -> CheckFailed:
    """Move files that were set aside out of a folder that is removed. Return the error about them."""
    named = {
        f"{path.name}.rejected": f"{entry.name}.onnx.rejected",
        f"{path.name}_data.rejected": f"{entry.name}.onnx_data.rejected",
        report_path(path.with_name(f"{path.name}.rejected")).name: f"{entry.name}.onnx.rejected.parity.json",
    }
    with writing(entry.parent):
        for old, new in named.items():
            if path.with_name(old).exists():
                path.with_name(old).replace(entry.parent / new)
    hint = f"set aside as {entry.parent / f'{entry.name}.onnx.rejected'}"
    return CheckFailed(error.message, where=entry / VERSION / MODEL, hint=hint, details=error.details, options=error.options)


def _remove_stale(entry: Path, export: Export) -> None:
    """Remove files of an earlier export that the new one does not have."""
    with writing(entry):
        if labels_text(export.config) is None:
            (entry / LABELS).unlink(missing_ok=True)
        if export.data is None:
            (entry / VERSION / f"{MODEL}_data").unlink(missing_ok=True)
        if export.report is None:
            report_path(entry / VERSION / MODEL).unlink(missing_ok=True)
