"""From what the user names to what a check compares with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import CheckFailed, InputError, NotRepresentable, OtherWeights, RefusedContent
from vit_zoo.files import write_text
from vit_zoo.formats import describe, open_artifact
from vit_zoo.formats.artifact import report_path
from vit_zoo.loading.image_folder import read_image_folder
from vit_zoo.loading.load import filled, find_weights
from vit_zoo.loading.locator import ExportedFile, parse_locator
from vit_zoo.loading.source import Checkpoint, ModelLike, of_module
from vit_zoo.model.outputs import unused_weights
from vit_zoo.parity.reference import Live
from vit_zoo.parity.report import Effort, ParityReport, checked_effort, read_report
from vit_zoo.parity.run import FIXABLE
from vit_zoo.parity.tolerance import INT8_IMAGES

if TYPE_CHECKING:
    from vit_zoo.files import Stored
    from vit_zoo.formats.artifact import Array, Description
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.parity.inputs import Frame
    from vit_zoo.parity.reference import Reference


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """The options of `verify`, as its docstring explains them. An unknown effort or axis raises InputError here."""

    effort: Effort = "default"
    fixed: tuple[str, ...] = ()
    blocks: bool = False
    pictures: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        checked_effort(self.effort)
        for axis in self.fixed:
            if axis not in FIXABLE:
                raise InputError(f"unknown axis '{axis}'; choose from {', '.join(FIXABLE)}")


def verify_model(
    artifact: ModelLike, against: ModelLike | None, options: VerifyOptions, facts: Mapping[str, Any]
) -> ParityReport:
    """The report on an artifact, or on a model, compared with `against`; it is written beside an artifact."""
    from vit_zoo.parity.reference import ModelReference
    from vit_zoo.parity.verify import check_model, check_parity

    if against is not None and not is_artifact(artifact):
        if options.pictures is not None:
            raise InputError("pictures are for quantised files", where=str(artifact))
        if options.fixed:
            raise InputError("fixed axes are those of an exported file", where=str(artifact))
        model = Live(find_weights(artifact, **facts)).reference
        return check_model(model, reference_of(against, facts), effort=options.effort, blocks=options.blocks)
    path = Path(artifact)  # type: ignore[arg-type]
    about, held = describe(path), None
    if against is None:
        held = held_by(about)
        reference: Reference = ModelReference(filled(Checkpoint(about.known_config(), held)), "the weights that it holds")
    else:
        reference = reference_of(against, facts, about)
    data = about.export.get("data")
    companion = None if data is None else path.parent / str(data)
    stack = None if options.pictures is None else _stack(Path(options.pictures), about.config or reference.config, path)
    report = check_parity(
        path, reference, companion=companion, effort=options.effort, fixed=options.fixed, tensors=held, blocks=options.blocks,
        pictures=stack,
    )  # fmt: skip
    if stack is not None and report.comparisons:  # those of a quantised file are agreements
        raise InputError(f"pictures are for quantised files; this one is {report.precision}", where=path)
    if report.replaces(read_report(path), against_itself=against is None):
        write_text(report_path(path), report.dumps())
    return report


def _stack(folder: Path, config: ModelConfig | None, path: Path) -> Array:
    """Real images, prepared as the model's config states."""
    if config is None:
        raise InputError("does not say how images are prepared", where=path)
    return read_image_folder(folder, config).stack(INT8_IMAGES)


def held_by(about: Description) -> dict[str, Stored]:
    """The weights in a file of ours. Raises CheckFailed if those beside it are not the ones that it was written for."""
    from vit_zoo.formats.onnx_file import check_companion
    from vit_zoo.formats.onnx_skeleton import weights_in

    if not about.graph:
        open_artifact(about.path)
        raise InputError("name the model to verify it against", where=about.path)
    spec = about.known_config().spec
    if about.rounded:
        raise InputError("holds rounded weights: name the model to verify it against", where=about.path)
    try:
        check_companion(about)
    except OtherWeights as error:
        raise CheckFailed(error.message, where=about.path) from None
    return weights_in(about.path, spec.shapes(), unused_weights(spec, about.export.get("outputs", ())))


def reference_of(against: ModelLike, facts: Mapping[str, Any], about: Description | None = None) -> Reference:
    """What to compare with: an artifact, another library's module by its own code, or a model of ours.

    `about` is the file that is checked, whose input tells the size of images where nothing else does.
    """
    from vit_zoo.model.vit import ViT
    from vit_zoo.parity.inputs import Frame
    from vit_zoo.parity.reference import ArtifactReference, ModuleReference

    if is_artifact(against):
        artifact = open_artifact(against)  # type: ignore[arg-type]
        if facts:
            raise InputError("an exported file states its own facts", where=_shown(against))
        config = artifact.about.config or (None if about is None else about.config)
        return ArtifactReference(artifact, _frame(config, artifact.path, {}))
    if isinstance(against, str | os.PathLike | ViT):
        return Live(find_weights(against, **facts)).reference
    try:
        like = filled(of_module(against, **facts))
    except (RefusedContent, NotRepresentable):  # no dialect of ours: its own code is enough
        frame = _frame(None, None if about is None else about.path, {**_stated(against), **facts})
        return ModuleReference(against, type(against).__name__, frame)
    return ModuleReference(against, type(against).__name__, Frame.of(like.spec, like.config.preprocess), like)


def _stated(module: Any) -> dict[str, Any]:
    """Sizes that a module of transformers states."""
    config = getattr(module, "config", None)
    config = getattr(config, "vision_config", config)
    names = {"image_size": "image_size", "patch_size": "patch_size", "channels": "num_channels"}
    return {ours: getattr(config, theirs) for ours, theirs in names.items() if getattr(config, theirs, None) is not None}


def _frame(config: ModelConfig | None, path: Path | None, facts: Mapping[str, Any]) -> Frame:
    """The images that a file or module takes: as its config says, as it states, as its input is declared."""
    from vit_zoo.parity.inputs import Frame

    if config is not None:
        return Frame.of(config.spec, config.preprocess)
    size, patch = facts.get("image_size"), facts.get("patch_size", 16)
    channels = facts.get("channels", 3)
    if size is None and path is not None and describe(path).graph:
        from vit_zoo.formats.onnx_skeleton import declared

        shape = declared(path)[1]
        if len(shape) == 4 and all(isinstance(length, int) for length in shape[1:]):
            channels, *size = shape[1:]
    if size is None:
        raise InputError("nothing tells the size of its images", hint="state it: image_size=HEIGHT or HEIGHT,WIDTH")
    pairs = [(value, value) if isinstance(value, int) else tuple(value) for value in (size, patch)]
    return Frame(int(channels), pairs[0], pairs[1], None)


def is_artifact(model: ModelLike) -> bool:
    return isinstance(model, str | os.PathLike) and isinstance(parse_locator(model), ExportedFile)


def _shown(model: ModelLike) -> str:
    return str(model) if isinstance(model, str | os.PathLike) else type(model).__name__
