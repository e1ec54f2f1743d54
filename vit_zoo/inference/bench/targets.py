"""Targets of a benchmark: from what the user names to models that a row's process can open, and the reference of each."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, Option, RefusedContent
from vit_zoo.exporters.options import ExportOptions
from vit_zoo.files.file_set import FileSet
from vit_zoo.formats import FORMATS, child_for, describe, open_in
from vit_zoo.formats.limits import Limits
from vit_zoo.formats.onnx_admission import check_runnable
from vit_zoo.formats.onnx_file import check_companion
from vit_zoo.inference.bench.foreign import Foreign, input_shape, is_foreign
from vit_zoo.loading.load import RANDOM, find_weights, has_weights, is_random_by_itself, write_model
from vit_zoo.parity.resolve_reference import AGAINST, frame_of, is_artifact, reference_of, weights_in_artifact
from vit_zoo.progress import step

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Description
    from vit_zoo.loading.checkpoint import Checkpoint, ModelLike
    from vit_zoo.parity.reference import Reference
    from vit_zoo.parity.sessions import Sessions
    from vit_zoo.parity.tolerance import Tolerance

FLOATS, FULL = ("fp32", "fp16", "bf16"), ("fp32",)
QUANTISED = ("int8-static", "int8-dynamic", "int8-weights")
PRECISIONS = FLOATS + QUANTISED
# the precisions in which each runtime runs a model of ours, and of another library
OURS = {
    "eager": FLOATS, "compile": FLOATS, "torchscript": FULL, "pt2": FULL, "ort": PRECISIONS, "openvino": PRECISIONS,
}  # fmt: skip
THEIRS = {"eager": FLOATS, "compile": FLOATS, "torchscript": FULL, "pt2": FULL, "ort": FULL, "openvino": FULL}
RUNTIMES = tuple(OURS)
OF_FILES = ("ort", "openvino")  # runtimes that run ONNX files
OF_PROGRAMS = ("torchscript", "pt2")

Kind = tuple[str, str]  # a runtime and a precision


@dataclass(frozen=True)
class Variant:
    """A target in one runtime and one precision.

    * `opening`: what `worker.open_runner` needs, but for the threads.
    * `untrusted`: bytes of a file that we have not made, whose time and memory are limited; 0 for one that we have made.
    * `bytes`: size of the files on the disk; None without any.
    * `fault`: why it cannot be run, or else None.
    """

    kind: Kind
    path: Path
    opening: Mapping[str, Any]
    tolerance: Tolerance
    rounded: bool = False  # int8, which is measured as an approximation
    untrusted: int = 0
    bytes: int | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Subject:
    """A target that is ready to be opened.

    * `names`: the reference's name of each output.
    * `sessions`: an exported file that the user named.
    * `faults`: those that its static checks have found.
    """

    reference: Reference
    variants: tuple[Variant, ...]
    names: dict[str, str]
    random: bool = False
    sessions: Sessions | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Making:
    """What targets are made with: a temporary folder, and the options that concern them."""

    folder: Path
    random: bool = False
    seed: int | None = None
    against: ModelLike | None = None
    calibrate: str | os.PathLike[str] | None = None
    limits: Limits = field(default_factory=Limits)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Target(ABC):
    """What the user named."""

    named: Any

    def __str__(self) -> str:
        return str(self.named) if isinstance(self.named, str | os.PathLike | Foreign) else type(self.named).__name__

    @abstractmethod
    def kinds(self, runtimes: Sequence[str], precisions: Sequence[str]) -> list[Kind]:
        """Return the runtimes and precisions in which it can be run, of those that are wanted."""

    @abstractmethod
    def make(self, kinds: Sequence[Kind], making: Making, others: Sequence[Target]) -> Subject:
        """Make what the rows open. `others` are all targets."""


def target_of(named: ModelLike) -> Target:
    """Return the target that a name, a path or a module stands for."""
    if is_foreign(named):
        return ForeignTarget(Foreign.parse(str(named)))
    return FileTarget(Path(named)) if is_artifact(named) else ModelTarget(named)  # type: ignore[arg-type]


class ModelTarget(Target):
    """A model of ours: every runtime can run it, after an export where it needs one."""

    def __init__(self, named: ModelLike) -> None:
        self.named = named

    @property
    def needs_random(self) -> bool:
        """Whether it is a name or a config file without weights of its own."""
        return not has_weights(self.named)

    def kinds(self, runtimes: Sequence[str], precisions: Sequence[str]) -> list[Kind]:
        return [(runtime, each) for runtime in runtimes for each in precisions if each in OURS[runtime]]

    def make(self, kinds: Sequence[Kind], making: Making, others: Sequence[Target]) -> Subject:
        from vit_zoo.parity.live import Live
        from vit_zoo.parity.tolerance import TOLERANCES

        random = (making.random and self.needs_random) or is_random_by_itself(self.named)
        seed = making.seed if random else None
        source = find_weights(self.named, random=random, seed=seed, ways=(RANDOM,), **making.facts).in_float32()
        with step(f"writing {source.config.name} for each runtime"):
            model = making.folder / "model"
            model.mkdir()
            write_model(source.config, {name: source.tensors[name] for name in source.config.spec.shapes()}, model)
            live = Live(find_weights(model))
            live.reference.name = f"{source.config.name} in float32"
            output = live.source.config.output
            files = self._export(live, kinds, making)
        variants = []
        for runtime, precision in kinds:
            path = files.get(_file_key(runtime, precision), model)
            weights = path if path != model else model / "model.safetensors"
            variants.append(
                Variant(
                    (runtime, precision), path,
                    {"runtime": runtime, "precision": precision, "path": str(path), "names": [output], "foreign": None},
                    TOLERANCES[precision if precision in TOLERANCES else "bf16"],
                    rounded=precision in QUANTISED, bytes=_bytes(weights),
                )
            )  # fmt: skip
        is_random = bool(source.config.random_text)
        return Subject(live.reference, tuple(variants), {output: output}, random=is_random)

    def _export(self, live: Any, kinds: Sequence[Kind], making: Making) -> dict[Kind, Path]:
        """Write the files that the runtimes read, which the rows' parity checks verify."""
        from vit_zoo.exporters.export_file import write_onnx_file, write_program

        wanted = list(dict.fromkeys(key for kind in kinds if (key := _file_key(*kind))[0] in FORMATS))
        options = export_options([precision for form, precision in wanted if FORMATS[form].graph], making.calibrate)
        resolved = options.resolve(live.source.config)
        written = {}
        for form, precision in wanted:
            target = making.folder / f"{precision}{FORMATS[form].suffix}"
            with FileSet() as files:
                graph_options, search = resolved[precision]  # type: ignore[index]
                if FORMATS[form].graph:
                    write_onnx_file(live.source, target, live, graph_options, None, None, search, files=files)
                else:
                    write_program(live.source, target, live, form, graph_options.outputs, None, files=files)
                files.commit()
            written[form, precision] = target
        return written


def export_options(precisions: Sequence[Any], calibrate: str | os.PathLike[str] | None) -> ExportOptions:
    """Return the options of the export of a model. Raises InputError for calibration images that are missing or have no use."""
    wanted = tuple(dict.fromkeys((*precisions, "fp32")))  # programs are in float32
    return ExportOptions(formats=("onnx",), precisions=wanted, calibrate=calibrate, verify=False)


def _file_key(runtime: str, precision: str) -> Kind:
    """Return the format and the precision of the file that a runtime reads; ("", "") for one that reads none."""
    form = "onnx" if runtime in OF_FILES else runtime if runtime in OF_PROGRAMS else ""
    return (form, precision) if form else ("", "")


class ForeignTarget(Target):
    """An architecture of another library, exported by torch itself where a runtime needs a file."""

    def __init__(self, named: Foreign) -> None:
        self.named = named
        self._made: Any = None

    def check(self, seed: int) -> None:
        """Make the module. Raises InputError for a name that its library does not know."""
        with step(f"making {self.named} with random weights"):
            self._made = self.named.make(seed)

    def kinds(self, runtimes: Sequence[str], precisions: Sequence[str]) -> list[Kind]:
        return [(runtime, each) for runtime in runtimes for each in precisions if each in THEIRS[runtime]]

    def make(self, kinds: Sequence[Kind], making: Making, others: Sequence[Target]) -> Subject:
        from vit_zoo.inference.bench.foreign_files import Output, write_file
        from vit_zoo.parity.inputs import Frame
        from vit_zoo.parity.module_reference import ModuleReference
        from vit_zoo.parity.tolerance import TOLERANCES

        seed = making.seed or 0
        module = Output(self._made)
        channels, *size = input_shape(module.module)
        reference = ModuleReference(module, str(self.named), Frame(channels, (size[0], size[1]), (16, 16), None))
        variants, files = [], {}
        for runtime, precision in kinds:
            form, fault = _file_key(runtime, precision)[0], None
            path = making.folder / f"module{FORMATS[form].suffix if form else ''}"
            if form and form not in files:
                with step(f"exporting {self.named} to {form}"):
                    files[form] = write_file(form, module, reference.frame, path)
            fault = files.get(form)
            opening = {
                "runtime": runtime, "precision": precision, "path": str(path), "names": ["output"],
                "foreign": str(self.named), "seed": seed,
            }  # fmt: skip
            size_of_file = _bytes(path) if form and fault is None else None
            variants.append(Variant((runtime, precision), path, opening, TOLERANCES[precision], bytes=size_of_file, fault=fault))
        return Subject(reference, tuple(variants), {"output": "output"}, random=True)


class FileTarget(Target):
    """An exported ONNX file, by any tool."""

    def __init__(self, named: Path) -> None:
        self.named = named

    @cached_property
    def about(self) -> Description:
        return describe(self.named)

    def check(self) -> None:
        """Raise RefusedContent for a file that is not run, InputError for one that takes no images."""
        if self.about.takes_patches:
            raise InputError("takes patches of images, which are not timed here", where=self.named)
        if not self.about.graph:
            form = self.about.format
            hint = f"name the model: its {form} file is made for the benchmark"
            raise RefusedContent(f"{form} files contain code, which is not run", where=self.named, hint=hint)
        check_runnable(self.named)
        check_companion(self.about)

    def kinds(self, runtimes: Sequence[str], precisions: Sequence[str]) -> list[Kind]:
        from vit_zoo.formats.structure import read_onnx

        own = str(self.about.export.get("precision") or read_onnx(self.named)[0].precision)
        return [(runtime, own) for runtime in runtimes if runtime in OF_FILES]

    def make(self, kinds: Sequence[Kind], making: Making, others: Sequence[Target]) -> Subject:
        from vit_zoo.parity.run import accepts_images, match_outputs
        from vit_zoo.parity.sessions import Sessions
        from vit_zoo.parity.static_checks import Evidence
        from vit_zoo.parity.verify import check_statically

        path = self.named
        size = path.stat().st_size + check_runnable(path)
        reference, tensors = self._reference(making, others)
        sessions, evidence = Sessions(path, child_for(path, making.limits, total=False)), Evidence()
        with step(f"checking {path.name}"):
            tolerance, precision = check_statically(path, sessions, reference, tensors, evidence)[1:]
            names = match_outputs(sessions, reference, evidence) if accepts_images(sessions, reference.frame, evidence) else {}
        variants = [
            Variant(
                kind, path,
                {"runtime": kind[0], "precision": kind[1], "path": str(path.absolute()), "names": list(sessions.outputs)},
                tolerance, rounded=precision == "int8", untrusted=size, bytes=sum(_bytes(file) or 0 for file in self.about.files),
            )
            for kind in kinds
        ]  # fmt: skip
        random = self.about.config is not None and bool(self.about.config.random_text)
        return Subject(reference, tuple(variants), names, random=random, sessions=sessions, faults=tuple(evidence.faults))

    def _reference(self, making: Making, others: Sequence[Target]) -> tuple[Reference, dict[str, Any] | None]:
        """Return what the file must compute, and its own weights if it is those.

        By default, of our files the model in the file, or for an int8 file, in another target with the weights that it was made
        of; of another tool's file, the file itself without onnxruntime's optimiser.
        """
        from vit_zoo.parity.reference import ArtifactReference

        if making.against is not None:
            stated = {"random": False, "seed": None}
            return reference_of(making.against, {}, stated, self.about, limits=making.limits), None
        if self.about.config is None:
            if self.about.graph and str(self.kinds(OF_FILES, ())[0][1]) == "int8":
                cause = "the weights are rounded to int8"
                raise InputError(cause, where=self.named, hint=f"name the model to compare with: {AGAINST}", options=[AGAINST])
            artifact = open_in(child_for(self.named, making.limits, total=False), self.named, optimised=False)
            reference = ArtifactReference(artifact, frame_of(None, self.named, {}))
            reference.name = f"{self.named.name} without onnxruntime's optimiser"
            return reference, None
        origin = self.about.export.get("source_sha256")
        for other in others if self.about.rounded and origin is not None else ():
            if isinstance(other, FileTarget) and other.about.export.get("weights_sha256") == origin:
                return _in_file(other.about)[0], None
        return _in_file(self.about)


def _in_file(about: Description) -> tuple[Reference, dict[str, Any]]:
    """Return the model with the weights in a file of ours, and these weights."""
    from vit_zoo.loading.checkpoint import Checkpoint
    from vit_zoo.loading.load import model_of
    from vit_zoo.parity.reference import ModelReference

    tensors = weights_in_artifact(about)
    source: Checkpoint = Checkpoint(about.known_config(), tensors)
    return ModelReference(model_of(source), f"the weights in {about.path.name}"), tensors


def _bytes(path: Path) -> int | None:
    """Return the size of a file with its external data."""
    data = path.with_name(path.name + "_data")
    return sum(file.stat().st_size for file in (path, data) if file.is_file()) or None


def against_applies(targets: Sequence[Target]) -> None:
    """Raise InputError where no target is compared with `against`."""
    if not any(isinstance(target, FileTarget) for target in targets):
        raise InputError(f"{AGAINST} applies to exported files only", options=[AGAINST])


def random_applies(targets: Sequence[Target]) -> None:
    """Raise InputError where no target is made with random weights."""
    random = Option("random")
    if not any(isinstance(target, ModelTarget) and target.needs_random for target in targets):
        cause = f"{random} is for names and config files without weights of their own"
        raise InputError(cause, options=[random])
