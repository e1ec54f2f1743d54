"""Verification of what the user names: resolves the reference, runs the check, and writes the report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import CheckFailed, InputError, NotRepresentable, Option, OtherWeights, RefusedContent, fact
from vit_zoo.files import write_text
from vit_zoo.formats import child_for, describe, open_in
from vit_zoo.formats.artifact import report_path
from vit_zoo.formats.limits import MEMORY, TIME, Limits
from vit_zoo.loading.checkpoint import Checkpoint, FileSize, ModelLike
from vit_zoo.loading.facts import parsed
from vit_zoo.loading.from_module import of_module
from vit_zoo.loading.image_folder import read_image_folder
from vit_zoo.loading.load import RANDOM, find_weights, model_of
from vit_zoo.loading.locator import ExportedFile, parse_locator
from vit_zoo.model.outputs import unused_weights
from vit_zoo.parity.live import Live
from vit_zoo.parity.report import Effort, ParityReport, checked_effort, read_report
from vit_zoo.parity.run import FIXABLE
from vit_zoo.parity.tolerance import INT8_IMAGES, Int8Limits, check_cosine

if TYPE_CHECKING:
    from vit_zoo.files import Stored
    from vit_zoo.formats.artifact import Array, Description
    from vit_zoo.formats.child import Child
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.parity.inputs import Frame
    from vit_zoo.parity.reference import Reference

AGAINST = Option("against", "MODEL")


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """The options of `verify`, which its docstring explains. Raises InputError for an unknown effort or axis."""

    effort: Effort = "default"
    fixed: tuple[str, ...] = ()
    blocks: bool = False
    pictures: str | os.PathLike[str] | None = None
    min_cosine: float | None = None
    random: bool = False
    seed: int | None = None
    time_limit: float | None = None
    memory_limit: float | None = None

    def __post_init__(self) -> None:
        checked_effort(self.effort)
        check_cosine(self.min_cosine)
        Limits.of(self.time_limit, self.memory_limit)
        for axis in self.fixed:
            if axis not in FIXABLE:
                raise InputError(f"unknown axis '{axis}'; choose from {', '.join(FIXABLE)}")

    @property
    def limits(self) -> Limits:
        """Limits of the child process that runs an ONNX file."""
        return Limits.of(self.time_limit, self.memory_limit)

    @property
    def rounded_only(self) -> str:
        """The option given that only int8 files have, as the beginning of a sentence."""
        return "pictures apply" if self.pictures is not None else "" if self.min_cosine is None else "min_cosine applies"


def verify_model(
    artifact: ModelLike, against: ModelLike | None, options: VerifyOptions, facts: Mapping[str, Any]
) -> ParityReport:
    """Compare an artifact or a model with `against`. The report on an artifact is also written next to it.

    Exported files are looked at first, before torch is imported and a model is built.
    """
    random = {"random": options.random, "seed": options.seed}
    if against is None and (options.random or options.seed is not None):
        raise InputError("random weights are for the model to compare with", hint=f"add {AGAINST}", options=[AGAINST])
    if against is not None and is_artifact(against):
        _check_graph(Path(against))  # type: ignore[arg-type]
    if against is not None and not is_artifact(artifact):
        if options.rounded_only:
            raise InputError(f"{options.rounded_only} to int8 files only", where=str(artifact))
        if options.fixed:
            raise InputError("fixed axes apply to exported files only", where=str(artifact))
        if options.limits != Limits() and not is_artifact(against):
            cause = "time_limit and memory_limit apply to ONNX files only"
            raise InputError(cause, where=str(artifact), options=[TIME, MEMORY])
        from vit_zoo.parity.verify import check_model

        model = Live(find_weights(artifact, **facts)).reference
        return check_model(
            model, reference_of(against, facts, random, limits=options.limits), effort=options.effort, blocks=options.blocks
        )
    path = Path(artifact)  # type: ignore[arg-type]
    child = child_for(path, options.limits)  # which starts while this process imports torch
    try:
        return _verify_file(path, against, options, facts, random, child)
    finally:
        if child is not None:
            child.close()


def _verify_file(
    path: Path,
    against: ModelLike | None,
    options: VerifyOptions,
    facts: Mapping[str, Any],
    random: Mapping[str, Any],
    child: Child | None,
) -> ParityReport:
    from vit_zoo.formats.onnx_skeleton import external_files
    from vit_zoo.parity.reference import ModelReference
    from vit_zoo.parity.verify import check_parity

    about, tensors = describe(path), None
    if against is None:
        tensors = weights_in_artifact(about)
        reference: Reference = ModelReference(model_of(Checkpoint(about.known_config(), tensors)), "the weights in the file")
    else:
        reference = reference_of(against, facts, random, about, limits=options.limits)
    data = about.export.get("data")
    companion = path.parent / data if data is not None and data in external_files(path) else None
    stack = None if options.pictures is None else _stack(Path(options.pictures), about.config or reference.config, path)
    report = check_parity(
        path, reference, companion=companion, effort=options.effort, fixed=options.fixed, tensors=tensors, blocks=options.blocks,
        pictures=stack, limits=Int8Limits.of(options.min_cosine), child=child,
    )  # fmt: skip
    if report.comparisons and options.rounded_only:  # an int8 file has agreements instead
        raise InputError(f"{options.rounded_only} to int8 files only; this one is {report.precision}", where=path)
    if options.min_cosine is not None and any(
        measured.decibels is not None and measured.angle is None for measured in report.agreements
    ):
        raise InputError("min_cosine does not apply: a single output has no direction", where=path)
    if report.replaces(read_report(path), against_itself=against is None):
        write_text(report_path(path), report.dumps())
    return report


def _check_graph(path: Path) -> None:
    """Raise RefusedContent for an ONNX file that is not to be run."""
    from vit_zoo.formats.onnx_admission import check_runnable

    if describe(path).graph:
        check_runnable(path)


def _stack(folder: Path, config: ModelConfig | None, path: Path) -> Array:
    """Return real images, prepared as the model's config states."""
    if config is None:
        raise InputError("the config has no preprocessing", where=path)
    return read_image_folder(folder, config).stack(INT8_IMAGES)


def weights_in_artifact(about: Description) -> dict[str, Stored]:
    """Return the weights in a file of ours. Raises CheckFailed if the weights file next to it is another than on export."""
    from vit_zoo.formats.onnx_file import check_companion
    from vit_zoo.formats.onnx_skeleton import weights_in
    from vit_zoo.formats.structure import read_onnx

    if not about.graph:
        open_in(None, about.path)
        raise _needs_reference(about, f"weights in a {about.format} file cannot be read")
    spec = about.known_config().spec
    if about.rounded or read_onnx(about.path)[0].precision == "int8":  # the latter by another tool
        raise _needs_reference(about, "the weights are rounded to int8")
    try:
        check_companion(about)
    except OtherWeights as error:
        raise CheckFailed(error.message, where=about.path) from None
    return weights_in(about.path, spec.shapes(), unused_weights(spec, about.export["outputs"]))


def _needs_reference(about: Description, fault: str) -> InputError:
    return InputError(fault, where=about.path, hint=f"name the model to compare with: {AGAINST}", options=[AGAINST])


def reference_of(
    against: ModelLike,
    facts: Mapping[str, Any],
    random: Mapping[str, Any],
    about: Description | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
) -> Reference:
    """Return the reference: an artifact, another library's module, which runs its own code, or a model of ours.

    `random` holds the arguments of `find_weights` for random weights. `about` describes the file that is checked; its input
    gives the image size if nothing else states it. `limits` are those of the child process of another ONNX file.
    """
    from vit_zoo.model.vit import ViT
    from vit_zoo.parity.inputs import Frame
    from vit_zoo.parity.module_reference import ModuleReference
    from vit_zoo.parity.reference import ArtifactReference

    facts = parsed(facts)
    named = isinstance(against, str | os.PathLike) and not is_artifact(against)
    if (random["random"] or random["seed"] is not None) and not named:
        raise InputError("random weights are for a name or a config", where=_shown(against))
    if is_artifact(against):
        path = Path(against)  # type: ignore[arg-type]
        artifact = open_in(child_for(path, limits if describe(path).graph else Limits()), path)
        if facts:
            raise InputError("facts apply to checkpoints only, and this is an exported file", where=_shown(against))
        config = artifact.about.config or (None if about is None else about.config)
        return ArtifactReference(artifact, frame_of(config, artifact.path, {}))
    if isinstance(against, str | os.PathLike | ViT):
        file_size = None if about is None else _size_of(about)
        return Live(find_weights(against, **random, file_size=file_size, ways=(RANDOM,), **facts)).reference
    try:
        source = of_module(against, check=False, **facts)
    except (RefusedContent, NotRepresentable):  # no known dialect: the module runs its own code
        frame = frame_of(None, None if about is None else about.path, {**_sizes_of(against), **facts})
        return ModuleReference(against, type(against).__name__, frame)
    frame = Frame.of(source.config.spec, source.config.preprocess)
    try:
        like = model_of(of_module(against, **facts))
    except (CheckFailed, RefusedContent):  # its own code computes more than its tensors say
        like = None
    return ModuleReference(against, type(against).__name__, frame, like)


def _size_of(about: Description) -> FileSize:
    """Return the image size of an exported file, "any" if it is free, or None if it is not known."""
    if about.config is not None:
        return "any" if "dynamic" in about.export else about.config.spec.image_size
    if not about.graph:
        return None
    from vit_zoo.formats.onnx_skeleton import declared

    shape = declared(about.path)[1]
    if len(shape) != 4:
        return None
    height, width = shape[2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else "any"


def _sizes_of(module: Any) -> dict[str, Any]:
    """Return the sizes in the config of a transformers module."""
    config = getattr(module, "config", None)
    config = getattr(config, "vision_config", config)
    names = {"image_size": "image_size", "patch_size": "patch_size", "channels": "num_channels"}
    return {ours: getattr(config, theirs) for ours, theirs in names.items() if getattr(config, theirs, None) is not None}


def frame_of(config: ModelConfig | None, path: Path | None, facts: Mapping[str, Any]) -> Frame:
    """Return the images that a file or module takes, from its config, else from `facts`, else from its declared input."""
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
        size = fact("image_size", "HEIGHT,WIDTH")
        raise InputError("the image size is unknown", hint=f"state it: {size}", options=[size])
    pairs = [(value, value) if isinstance(value, int) else tuple(value) for value in (size, patch)]
    return Frame(int(channels), pairs[0], pairs[1], None)


def is_artifact(model: ModelLike) -> bool:
    """Return whether a model is the path of an exported file."""
    return isinstance(model, str | os.PathLike) and isinstance(parse_locator(model), ExportedFile)


def _shown(model: ModelLike) -> str:
    return str(model) if isinstance(model, str | os.PathLike) else type(model).__name__
