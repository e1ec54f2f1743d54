"""Names of exported files, and what they may replace without being asked: earlier exports of the same model, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vit_zoo.errors import InputError, VitzooError
from vit_zoo.exporters.triton import check_entry, check_repository, model_path
from vit_zoo.files.atomic import check_target, would_replace
from vit_zoo.formats import FORMATS, describe
from vit_zoo.formats.artifact import report_path

if TYPE_CHECKING:
    from vit_zoo.exporters.options import ExportOptions
    from vit_zoo.formats.artifact import Description
    from vit_zoo.graph.options import Precision
    from vit_zoo.model.config import ModelConfig

# what follows the model's name in the name of a file, so that no precision replaces another
ENDINGS: dict[Precision, str] = {
    "fp32": "", "fp16": "_fp16", "bf16": "_bf16",
    "int8-static": "_int8", "int8-dynamic": "_int8_dynamic", "int8-weights": "_int8_weights",
}  # fmt: skip


def checked_targets(
    config: ModelConfig, weights: Path | None, size: int, options: ExportOptions
) -> list[tuple[str, Precision, Path]]:
    """Return the format, the precision and the path of each file, in the order in which they are written.

    `weights` is the file of the weights, and `size` its size in bytes. Raises CannotWrite if a file cannot be written, or if it
    would replace something else than an export of this model and the options do not force it.
    """
    from vit_zoo.graph.write import PROTO_LIMIT

    targets = [(name, each, _path(config.name, weights, name, each, options)) for name, each in options.files]
    # where the placement is not stated, the size of the graph decides when it is built
    external = options.placement == "external" or (options.placement is None and size > 0.9 * PROTO_LIMIT)
    if options.triton is not None:
        check_repository(Path(options.triton))
    for name, _, target in targets:
        if options.triton is None or target.parent.is_dir():
            _check_replaceable(target, config, force=options.force, external=external and FORMATS[name].graph)
        if options.triton is not None and not options.force:
            held = _held_by(target) if target.exists() else None
            check_entry(target.parent.parent, None if held is None else held.config)
    return targets


def _path(name: str, weights: Path | None, format_: str, precision: Precision, options: ExportOptions) -> Path:
    """Return the path of a file: NAME.onnx or NAME_fp16.onnx in the current folder, or model.onnx next to shared weights."""
    if options.triton is not None:
        return model_path(Path(options.triton), name + ENDINGS[precision])
    out, shared = options.out, FORMATS[format_].graph and options.placement == "shared"
    file = ("model" if shared else name + ENDINGS[precision]) + FORMATS[format_].suffix
    if out is None:
        return weights.parent / file if shared and weights is not None else Path(file)
    path = Path(out)
    if path.is_dir():
        return path / file
    if os.fspath(out).endswith(os.sep):
        raise InputError("no such folder", where=out)
    if len(options.files) > 1:
        raise InputError("not a folder; several files need one", where=path)
    return path


def _check_replaceable(target: Path, config: ModelConfig, *, force: bool, external: bool) -> None:
    """Raise CannotWrite as `checked_targets`. With `external`, the `.onnx_data` file next to the target is checked too."""
    check_target(target)
    check_target(report_path(target))
    data = target.with_name(target.name + "_data")
    if external:
        check_target(data)
    if force:
        return
    held = _held_by(target) if target.exists() else None
    if target.exists():
        cause = "it was not written by vitzoo" if held is None or held.config is None else _other(held.config, config)
        if cause is not None:
            raise would_replace(target, f"already exists, and {cause}")
    if external and data.exists() and (held is None or held.export.get("data") != data.name):
        raise would_replace(data, "already exists, and does not belong to an earlier export")


def _held_by(path: Path) -> Description | None:
    """Return the description of a file, or None if it is not an exported file that can be read."""
    try:
        return describe(path)
    except VitzooError:
        return None


def _other(held: ModelConfig, new: ModelConfig) -> str | None:
    """Return how the model in a file differs from the one to be written; None for the same model, also if trained further."""
    if held.name != new.name:
        return f"holds another model, {held.name}"
    differing = next((name for name in type(new.spec).model_fields if getattr(held.spec, name) != getattr(new.spec, name)), None)
    if differing is not None:
        values = f"{getattr(held.spec, differing)}, not {getattr(new.spec, differing)}"
        return f"holds a model with {differing} = {values}"
    if held.source is not None and new.source is not None and held.source != new.source:
        return f"holds weights of {held.source}, not of {new.source}"
    if held.random_seed is None and new.random_seed is not None:
        return "holds trained weights, not random ones"
    return None
