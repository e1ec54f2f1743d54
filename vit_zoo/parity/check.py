"""The whole check: a file on disk, opened afresh: its structure, weights and numbers, its free axes, and where it fails."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vit_zoo.errors import InputError, OtherWeights, VitzooError
from vit_zoo.files import sha256_of
from vit_zoo.formats import describe, open_artifact
from vit_zoo.formats.onnx_file import OnnxArtifact
from vit_zoo.formats.programs import ProgramArtifact
from vit_zoo.parity.claims import Evidence, check_config, check_spec, check_structure, check_weights, note_weights
from vit_zoo.parity.images import IMAGES, images, many_images
from vit_zoo.parity.judging import IMAGES as MANY
from vit_zoo.parity.judging import RULES, TOLERANCE, agreement, judge
from vit_zoo.parity.parting import parted_by_name, parted_by_value, parted_models
from vit_zoo.parity.references import ModelReference
from vit_zoo.parity.report import Effort, ParityReport
from vit_zoo.parity.structure import Structure, read_onnx, read_pt2, read_torchscript

if TYPE_CHECKING:
    from vit_zoo.files import Stored
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.parity.judging import Rule
    from vit_zoo.parity.references import Reference

AXES = ("batch", "channels", "height", "width")
FIXABLE = AXES[1:]
Runs = dict[bool, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Plan:
    """What an effort runs: images, and which of them make a batch, with onnxruntime's optimiser on (True) and off."""

    images: tuple[str, ...]
    runs: Runs
    double: bool = True
    inner: bool = False  # every step of the forward, also when nothing fails
    skipped: tuple[str, ...] = ()


ALL = tuple(IMAGES)
PLANS: dict[Effort, Plan] = {
    "quick": Plan(
        ALL[:3],
        {True: ((0,), (1, 2))},
        double=False,
        skipped=(
            "float64: the tolerance is the cap alone",
            "the optimiser off",
            "photographs, large and nearly constant images",
            "inner values",
        ),
    ),
    "default": Plan(
        ALL[:6],
        {True: ((5,), (3, 4, 0), (0, 1, 2, 3, 4)), False: ((0, 1),)},
        skipped=("inner values, as long as nothing fails",),
    ),
    "full": Plan(
        ALL,
        {
            True: ((0,), (1, 2), (3, 4, 5), (6, 7, 0, 1, 2), tuple(range(8))),
            False: ((3,), (0, 1), (2, 4, 5, 6, 7)),
        },
        inner=True,
    ),
}


class Runnable(Protocol):
    """What is checked, once opened."""

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def run(self, pixel_values: Array) -> dict[str, Array]: ...


def check_parity(
    path: Path,
    reference: Reference,
    *,
    companion: Path | None = None,
    effort: Effort = "default",
    fixed: Sequence[str] = (),
    held: dict[str, Stored] | None = None,
    blocks: bool = False,
) -> ParityReport:
    """Run the artifact and the reference on the same images and compare every output of every image.

    `path` may still have a temporary name; the report is about its bytes. A fault of the file is a fault in the report,
    not an exception. `fixed` names axes that the file declares free and that are used at the model's size alone; `held`
    are the weights in the file, where the reference is made of them; `blocks` looks behind every block in any case.
    """
    for axis in fixed:
        if axis not in FIXABLE:
            raise InputError(f"no axis '{axis}' to take as fixed; there are {', '.join(FIXABLE)}")
    plan, found = PLANS[effort], Evidence()
    rule, precision = RULES["fp32"], "fp32"
    about = describe(path)
    try:
        artifact = open_artifact(path)
    except OtherWeights as error:
        found.faults.append(error.message)
    else:
        structure = _structure(path, artifact, found)
        rule, precision = _rule(structure, reference)
        check_structure(structure, reference, found)
        check_config(about, reference, found)
        check_weights(path, about, reference, held, found)
        _check_artifact(path, artifact, reference, plan, rule, precision, fixed, found)
        if about.format == "onnx":
            _look_inside(path, artifact, reference, plan, rule, blocks or plan.inner, found)
    return _report(path.name, sha256_of(path), reference, effort, precision, found, plan, data=companion)


def check_model(model: ModelReference, reference: Reference, *, effort: Effort = "default") -> ParityReport:
    """Compare a model with the reference; it has neither a file nor an optimiser. Two of ours part where their steps do."""
    plan, found = PLANS[effort], Evidence()
    alike = isinstance(reference, ModelReference) and model.spec.shapes() == reference.spec.shapes()
    if isinstance(reference, ModelReference):
        check_spec(model.spec, reference.spec, found)
        if alike:
            mine, theirs = model.model.state_dict(), reference.model.state_dict()
            note_weights([name for name, p in mine.items() if not p.equal(theirs[name])], found)
    shapes, wanted = model.shapes(), reference.shapes()
    names = {name: next((n for n in (name, *wanted) if wanted.get(n) == shape), None) for name, shape in shapes.items()}
    given = {name: its for name, its in names.items() if its is not None}
    given = {model.spec.output: given[model.spec.output]} if model.spec.output in given else given
    if not given:
        found.faults.append(f"gives {_listed(shapes)}, the reference {_listed(wanted)}")
    else:
        computed = Computed(model, tuple(given))
        _compare(lambda optimised: computed, reference, {True: plan.runs[True]}, plan, RULES["fp32"], found, given)
        if (found.faults or plan.inner) and alike:
            x = images(reference.frame, plan.images[:2])
            outputs = tuple(given)
            found.parting, found.blocks = parted_models(model.steps(x, outputs, 20), reference.steps(x, outputs, 20))
    return _report(model.name, None, reference, effort, "fp32", found, plan, data=None)


class Computed:
    """A model that runs as artifacts do."""

    def __init__(self, model: ModelReference, outputs: tuple[str, ...]) -> None:
        self.model, self.outputs = model, outputs

    def run(self, pixel_values: Array) -> dict[str, Array]:
        return self.model.results(pixel_values, self.outputs, double=False)[0]


def _report(
    name: str, sha256: str | None, reference: Reference, effort: Effort, precision: str, found: Evidence, plan: Plan, *, data: Any
) -> ParityReport:
    ok = not found.faults
    return ParityReport.model_validate(
        {
            "ok": ok,
            "verdict": "failed" if not ok else "approximate" if precision == "int8" else "parity",
            "precision": precision,
            "effort": effort,
            "file": name,
            "sha256": sha256,
            "data_sha256": None if data is None else sha256_of(data),
            "reference": reference.name,
            "comparisons": tuple(found.comparisons),
            "agreements": tuple(found.agreements),
            "blocks": tuple(found.blocks),
            "parting": found.parting or next(iter(found.places), None) if not ok else None,
            "faults": tuple(found.faults),
            "skipped": (*plan.skipped, *found.skipped, *reference.notes),
            "tolerance": TOLERANCE,
            "machine": {"system": platform.system(), "machine": platform.machine()},
            "versions": {package: version(package) for package in ("torch", "numpy", "onnx", "onnxruntime")}
            | {"python": platform.python_version()},
        }
    )


def _structure(path: Path, artifact: Artifact, found: Evidence) -> Structure:
    if isinstance(artifact, ProgramArtifact):
        return (read_torchscript if artifact.about.format == "torchscript" else read_pt2)(artifact.program)
    structure, faults = read_onnx(path)
    found.faults += faults
    return structure


def _rule(structure: Structure, reference: Reference) -> tuple[Rule, str]:
    """The rule of the precision that the file multiplies in, or stores its weights in where the reference does not."""
    if structure.precision == "int8":
        return RULES["bf16"], "int8"  # for its inner values
    stored = structure.stored - reference.stored
    lost = "bf16" if "BF16" in stored else "fp16" if "F16" in stored else "fp32"
    precision = max(structure.precision, lost, key=list(RULES).index)
    return RULES[precision], precision


def _check_artifact(
    path: Path, artifact: Artifact, reference: Reference, plan: Plan, rule: Rule, precision: str, fixed: Sequence[str],
    found: Evidence,
) -> None:  # fmt: skip
    axes = artifact.axes if isinstance(artifact, OnnxArtifact) else ("batch", reference.frame.channels, *reference.frame.size)
    for i, wanted in enumerate((reference.frame.channels, *reference.frame.size), 1):
        if len(axes) != 4 or (isinstance(axes[i], int) and axes[i] != wanted):
            shape = ["batch", reference.frame.channels, *reference.frame.size]
            found.faults.append(f"takes images of shape {list(axes)}, the model {shape}")
            return
    ours = artifact.about.config is not None
    if ours and list(artifact.outputs) != artifact.about.export.get("outputs"):
        found.faults.append(
            f"gives {', '.join(artifact.outputs)}; it was exported to give {artifact.about.export.get('outputs')}"
        )
    runs = plan.runs
    if isinstance(axes[0], int):
        if ours:
            found.faults.append(f"takes batches of {axes[0]} alone")
            return
        found.skipped.append(f"other batches: the file takes {axes[0]} alone")
        runs = {on: _batches_of(axes[0], len(plan.images)) for on in plan.runs}
    names = _matched(artifact, reference, found)
    if not names:
        return
    opened = {True: artifact}

    def open_(optimised: bool) -> Artifact:
        return opened.pop(optimised, None) or open_artifact(path, optimised=optimised)

    if precision == "int8":
        _check_agreement(artifact, reference, names, found)
        return
    _compare(open_, reference, runs, plan, rule, found, names)
    if isinstance(artifact, OnnxArtifact):
        _check_axes(artifact, reference, plan, rule, names, fixed, found)


def _batches_of(size: int, count: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple((start + i) % count for i in range(size)) for start in range(0, count, size))


def _matched(artifact: Artifact, reference: Reference, found: Evidence) -> dict[str, str]:
    """The reference's output for each of the file's: of the same name, or in other tools' files of the same shape."""
    outputs = artifact.outputs
    if artifact.about.config is not None or all(reference.has(name) for name in outputs):
        unknown = [name for name in outputs if not reference.has(name)]
        if unknown:
            found.faults.append(f"has an output {unknown[0]!r} that the model does not have")
        return {} if unknown else {name: name for name in outputs}
    x = images(reference.frame, ("noise",))
    axes = artifact.axes if isinstance(artifact, OnnxArtifact) else ("batch",)
    try:
        given = artifact.run(np.repeat(x, axes[0], axis=0) if isinstance(axes[0], int) else x)
    except VitzooError as error:
        found.faults.append(f"fails at batch {axes[0] if isinstance(axes[0], int) else 1}: {error.message}")
        return {}
    matched: dict[str, str] = {}
    for name, value in given.items():
        fits = [n for n, shape in reference.shapes().items() if shape == value.shape[1:] and n not in matched.values()]
        chosen = name if name in fits else next(iter(fits), None)
        if chosen is None:
            shape, known = list(value.shape[1:]), _listed(reference.shapes())
            found.faults.append(f"output {name!r} of shape {shape} is none of the model's: {known}")
            return {}
        matched[name] = chosen
    return matched


def _compare(
    open_: Callable[[bool], Runnable], reference: Reference, runs: Runs, plan: Plan, rule: Rule, found: Evidence,
    names: dict[str, str],
) -> None:  # fmt: skip
    """Every batch of the plan, and every output of it."""
    stack = images(reference.frame, plan.images)
    results = None
    for optimised, batches in runs.items():
        try:
            runnable = open_(optimised)
        except VitzooError as error:
            found.faults.append(f"does not open with the optimiser {'on' if optimised else 'off'}: {error.message}")
            continue
        names = names or {name: name for name in runnable.outputs}
        if results is None:
            results = reference.results(stack, tuple(dict.fromkeys(names.values())), double=plan.double)
        for batch in batches:
            chosen = list(batch)
            wanted = {name: value[chosen] for name, value in results[0].items()}
            _run(runnable, stack[chosen], (wanted, results[1]), [plan.images[i] for i in chosen], rule, names, optimised, found)
        del runnable  # before the next one comes into memory


def _run(
    runnable: Runnable, x: Array, results: tuple[dict[str, Array], dict[str, float | None]], shown: list[str], rule: Rule,
    names: dict[str, str], optimised: bool, found: Evidence,
) -> None:  # fmt: skip
    at = f"batch {len(x)}, optimiser {'on' if optimised else 'off'}"
    try:
        given = runnable.run(x)
    except VitzooError as error:
        found.faults.append(f"fails at {at}: {error.message}")
        return
    for theirs, ours in names.items():
        value, wanted = given[theirs], results[0][ours]
        if value.shape != wanted.shape:
            found.faults.append(f"{theirs} at {at}: shape {list(value.shape)}, the model gives {list(wanted.shape)}")
            continue
        if value.dtype != np.float32 and (rule is RULES["fp32"] or value.dtype.kind != "f"):
            found.faults.append(f"{theirs} at {at}: type {value.dtype}, float32 expected")
            continue
        size = (int(x.shape[2]), int(x.shape[3]))
        where = {"output": theirs, "optimised": optimised, "size": size}
        logits = wanted.ndim == 2 and ours != "pooler_output"
        fault, comparison = judge(value, wanted, floor=results[1][ours], rule=rule, names=shown, where=where, logits=logits)
        found.comparisons.append(comparison)
        if fault is not None:
            found.faults.append(f"{theirs} at {at}, {fault}")


def _check_axes(
    artifact: OnnxArtifact, reference: Reference, plan: Plan, rule: Rule, names: dict[str, str], fixed: Sequence[str],
    found: Evidence,
) -> None:  # fmt: skip
    """Every axis that the file declares free is run at two other lengths, one of them not square."""
    free = {axis for axis, length in zip(AXES, artifact.axes, strict=True) if not isinstance(length, int)}
    found.skipped += [f"{axis}: declared free, taken as fixed" for axis in FIXABLE if axis in free & set(fixed)]
    free -= set(fixed)
    frame = reference.frame
    if "channels" in free:
        try:
            artifact.run(np.zeros((1, frame.channels + 1, *frame.size), "<f4"))
        except VitzooError:
            found.skipped.append("channels: declared free, but other numbers of them are refused")
        else:
            found.faults.append(f"answers images of {frame.channels + 1} channels, the model takes {frame.channels}")
    (h, w), (p, q) = frame.size, frame.patch
    for more in ((1, 2), (3, 1)) if free & {"height", "width"} else ():
        size = (h + more[0] * p * ("height" in free), w + more[1] * q * ("width" in free))
        axes = " and ".join(axis for axis in ("height", "width") if axis in free)
        at = frame.at(size)
        x = images(at, plan.images[:2])
        try:
            results = reference.results(x, tuple(names.values()), double=plan.double)
        except InputError as error:
            hint = f"--fixed {axes.replace(' and ', ',')} takes that as given"
            found.faults.append(f"declares {axes} free, but {error.message} ({hint})")
            return
        _run(artifact, x, results, list(plan.images[:2]), rule, names, True, found)


def _check_agreement(artifact: Artifact, reference: Reference, names: dict[str, str], found: Evidence) -> None:
    """A quantised file is measured over many images, one at a time: never called parity."""
    for theirs, ours in names.items():
        pairs = []
        for x in many_images(reference.frame, MANY):
            wanted = reference.results(x[None], (ours,), double=False)[0][ours]
            pairs.append((artifact.run(x[None])[theirs], wanted))
        given, wanted = (np.concatenate(part) for part in zip(*pairs, strict=True))
        measured = agreement(theirs, given, wanted, logits=wanted.ndim == 2 and ours != "pooler_output")
        found.agreements.append(measured)
        if not measured.ok:
            size = "not finite" if measured.decibels is None else f"{measured.decibels:.1f} dB, 1 - cosine {measured.angle:.1e}"
            top = "" if measured.top1 is None else f", the same first class for {100 * measured.top1:.0f} %"
            found.faults.append(f"{theirs} over {measured.images} images: {size}{top}")


def _look_inside(
    path: Path, artifact: Artifact, reference: Reference, plan: Plan, rule: Rule, always: bool, found: Evidence
) -> None:
    """Behind which block and operation the two part; on request also where nothing fails."""
    assert isinstance(artifact, OnnxArtifact)
    if not found.faults and not always:
        return
    batch = artifact.axes[0] if isinstance(artifact.axes[0], int) else 2
    x = images(reference.frame, plan.images[:batch] if batch <= len(plan.images) else plan.images[:1] * batch)
    export = artifact.about.export
    ours = artifact.about.config is not None and isinstance(export.get("opset"), int)
    outputs = artifact.outputs if all(reference.has(name) for name in artifact.outputs) else tuple(reference.shapes())[:1]
    try:
        steps = reference.steps(x, outputs, int(export["opset"]) if ours else None)
    except VitzooError:  # a reference that does not run has its own fault
        return
    if not steps:
        found.skipped.append(f"where they part: {reference.name} shows no inner values")
        return
    look = parted_by_name if ours and steps[0].value is not None else parted_by_value
    found.parting, found.blocks = look(path, steps, x, rule)
    if found.parting is not None and not found.faults:
        found.faults.append(found.parting.reason)


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
