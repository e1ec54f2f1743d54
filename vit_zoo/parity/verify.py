"""Complete check of a file on disk, or of a model, against a reference: structure, weights, outputs, and first divergence."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, OtherWeights, RefusedContent
from vit_zoo.files import sha256_of
from vit_zoo.files.names import target_name
from vit_zoo.formats import FORMATS
from vit_zoo.formats.onnx_skeleton import skeleton
from vit_zoo.formats.structure import Structure
from vit_zoo.graph.options import GraphOptions
from vit_zoo.parity.bisect import MOST_READ, computes, first_divergence_by_name, first_divergence_of_models
from vit_zoo.parity.fp16_range import headroom
from vit_zoo.parity.inputs import probe_images
from vit_zoo.parity.ort_profile import profile_operators
from vit_zoo.parity.plan import INNER, PLANS, CheckPlan
from vit_zoo.parity.preprocess_check import prepare_in_file, raw_batches
from vit_zoo.parity.reference import ModelReference
from vit_zoo.parity.remarks import remarks_on
from vit_zoo.parity.report import Divergence, Effort, ParityReport
from vit_zoo.parity.run import Runs, accepts_images, batches_of, described_outputs, match_outputs
from vit_zoo.parity.sessions import Computed, Sessions
from vit_zoo.parity.static_checks import (
    Evidence,
    add_weight_fault,
    check_config,
    check_integers,
    check_spec,
    check_structure,
    check_weights,
)
from vit_zoo.parity.tolerance import INT8_LIMITS, TOLERANCE_RECORD, TOLERANCES, Int8Limits
from vit_zoo.parity.value_search import first_divergence_by_value
from vit_zoo.progress import part, step
from vit_zoo.self_check.check import compare, document_in

if TYPE_CHECKING:
    from vit_zoo.files import Stored
    from vit_zoo.formats.artifact import Array
    from vit_zoo.formats.child import Child
    from vit_zoo.parity.reference import Reference
    from vit_zoo.parity.tolerance import Tolerance

MOST_IMAGES = 64  # of a fixed batch whose inner values are compared: the reference keeps all of them, in float64 too


def check_parity(
    path: Path,
    reference: Reference,
    *,
    companion: Path | None = None,
    effort: Effort = "default",
    fixed: Sequence[str] = (),
    tensors: dict[str, Stored] | None = None,
    blocks: bool = False,
    pictures: Array | None = None,
    limits: Int8Limits = INT8_LIMITS,
    child: Child | None = None,
) -> ParityReport:
    """Run the file and the reference on the same images and compare every output of every image.

    * `path`: the exported file. It may still have a temporary name, since the report is about its bytes.
    * `companion`: the file with its external weights; its hash goes into the report.
    * `fixed`: axes that the file declares free, but that are used at the model's size only.
    * `tensors`: the file's own weights, if the reference is made of them.
    * `blocks`: measure the error after every block, even if nothing fails.
    * `pictures`: real images, prepared (b c H W), on which a quantised file is measured.
    * `limits`: what a quantised file must meet on them.
    * `child`: the process that runs the file, which is ended afterwards; None for a file that this process has just written.

    A fault of the file becomes a fault in the report, not an exception.
    """
    with step(f"checking {target_name(path)}"):
        return _check(path, reference, companion, effort, fixed, tensors, blocks, pictures, limits, child)


def _check(
    path: Path,
    reference: Reference,
    companion: Path | None,
    effort: Effort,
    fixed: Sequence[str],
    tensors: dict[str, Stored] | None,
    blocks: bool,
    pictures: Array | None,
    limits: Int8Limits,
    child: Child | None,
) -> ParityReport:
    plan, evidence, precision = PLANS[effort], Evidence(), "fp32"
    try:
        sessions = Sessions(path, child)
    except OtherWeights as error:
        evidence.faults.append(error.message)
    else:
        if isinstance(reference, ModelReference):
            reference.dynamic = None if sessions.options is None else sessions.options.dynamic
            if reference.model.config.problem_type is None and sessions.about.config is not None:  # as with labels
                reference.activation = sessions.about.config.activation or "softmax"
        structure, tolerance, precision = check_statically(path, sessions, reference, tensors, evidence)
        runs = _run(sessions, reference, plan, tolerance, precision, fixed, evidence, pictures, limits)
        _run_selfcheck(sessions, precision, evidence, runs)
        if structure.precision == "fp16" and sessions.axes is not None:
            x = _sample_batch(sessions, reference, plan, len(plan.images))
            with part("range of float16"):
                evidence.headroom = headroom(sessions, x, sessions.batch or 2)
        sessions.close()
        if plan.inner and sessions.axes is not None and (evidence.comparisons or evidence.agreements):
            with part("onnxruntime's operators"):
                evidence.fusion = profile_operators(sessions, _sample_batch(sessions, reference, plan, sessions.batch or 1))
        if sessions.about.rounded:  # smoothing changes the inner values on purpose
            evidence.skipped.append("inner values: int8 rounds them and scales their channels")
        elif sessions.axes is not None and (evidence.faults or blocks or plan.inner):
            with part("inner values"):
                _compare_inner_values(sessions, reference, plan, tolerance, precision, evidence)
    return _report(path.name, sha256_of(path), reference, effort, precision, evidence, plan, data=companion)


def check_statically(
    path: Path, sessions: Sessions, reference: Reference, tensors: dict[str, Stored] | None, evidence: Evidence
) -> tuple[Structure, Tolerance, str]:
    """Run the checks of a file that need no outputs. Return its structure, and its tolerance and precision."""
    structure = _structure(path, sessions, evidence)
    tolerance, precision = _tolerance(structure, reference)
    check_structure(structure, reference, evidence)
    check_config(sessions.about, reference, evidence)
    with part("weights"):
        check_weights(path, sessions.about, reference, tensors, evidence, rounded=precision == "int8")
    if precision == "int8" and sessions.axes is not None:
        check_integers(path, sessions.about, evidence)
    return structure, tolerance, precision


def check_model(model: ModelReference, reference: Reference, *, effort: Effort = "default", blocks: bool = False) -> ParityReport:
    """Compare a model with the reference, and their inner values too if both are ours and of the same shapes."""
    with step(f"comparing {model.name} with {reference.name}"):
        return _check_model(model, reference, effort, blocks)


def _check_model(model: ModelReference, reference: Reference, effort: Effort, blocks: bool) -> ParityReport:
    plan, evidence = PLANS[effort], Evidence()
    other = reference.like
    same_shapes = other is not None and model.spec.shapes() == other.spec.shapes()
    if other is not None:
        check_spec(model.spec, other.spec, evidence)
    if other is not None and same_shapes:
        mine, theirs = model.model.state_dict(), other.state_dict()
        add_weight_fault([name for name, p in mine.items() if not p.equal(theirs[name])], evidence)
    output, shapes = model.model.config.output, reference.shapes()
    match = next((name for name in (output, *shapes) if shapes.get(name) == model.shapes()[output]), None)
    if match is None:
        expected, actual = described_outputs(reference), described_outputs(model)
        evidence.faults.append(f"no output of the same shape: expected {expected}, got {actual}")
    else:
        checked = Computed(model, (output,))
        runs = Runs(reference, plan, TOLERANCES["fp32"], {output: match}, evidence)
        runs.compare_batches(checked, {True: plan.batches[True]})
        if (evidence.faults or blocks or plan.inner) and same_shapes and isinstance(reference, ModelReference):
            x = probe_images(reference.frame, plan.images[:2])
            options = GraphOptions()
            evidence.divergence, evidence.blocks = first_divergence_of_models(
                model.steps(x, (output,), options), reference.steps(x, (output,), options)
            )
    return _report(model.name, None, reference, effort, "fp32", evidence, plan, data=None)


def _report(
    name: str,
    sha256: str | None,
    reference: Reference,
    effort: Effort,
    precision: str,
    evidence: Evidence,
    plan: CheckPlan,
    *,
    data: Any,
) -> ParityReport:
    ok = not evidence.faults
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
            "comparisons": tuple(evidence.comparisons),
            "agreements": tuple(evidence.agreements),
            "headroom": evidence.headroom,
            "integer_products": evidence.integer_products,
            "warnings": tuple(evidence.warnings),
            "fusion": evidence.fusion,
            "preparation": evidence.preparation,
            "blocks": tuple(evidence.blocks),
            "parting": _first_divergence(evidence) if not ok else None,
            "faults": tuple(evidence.faults),
            "skipped": (*(what for what in plan.skipped if ok or what != INNER), *evidence.skipped, *reference.notes),
            "tolerance": TOLERANCE_RECORD,
            "machine": {"system": platform.system(), "machine": platform.machine()},
            "versions": {package: version(package) for package in ("torch", "numpy", "onnx", "onnxruntime")}
            | {"python": platform.python_version()},
        }
    )


def _first_divergence(evidence: Evidence) -> Divergence | None:
    """Return the first divergence of inner values, unless structure or weights differ in an earlier block."""
    static = min(evidence.static_divergences, key=lambda one: _order(one.block), default=None)
    measured = evidence.divergence
    if static is None or (measured is not None and _order(measured.block) <= _order(static.block)):
        return measured
    return static


def _order(block: int | None) -> int:
    return 1_000_000 if block is None else block


def _structure(path: Path, sessions: Sessions, evidence: Evidence) -> Structure:
    structure, faults = FORMATS[sessions.about.format].structure(path, sessions.get)
    evidence.faults += faults
    return structure


def _tolerance(structure: Structure, reference: Reference) -> tuple[Tolerance, str]:
    """Return the tolerance and the precision of a file.

    The precision is the coarser one of its matrix products and of its stored weights; the latter do not count if the
    reference stores its weights in the same type.
    """
    if structure.precision == "int8":
        return TOLERANCES["bf16"], "int8"  # the tolerance of inner values
    stored = structure.stored - reference.stored
    rounded = "bf16" if "BF16" in stored else "fp16" if "F16" in stored else "fp32"
    precision = max(structure.precision, rounded, key=list(TOLERANCES).index)
    return TOLERANCES[precision], precision


def _run(
    sessions: Sessions,
    reference: Reference,
    plan: CheckPlan,
    tolerance: Tolerance,
    precision: str,
    fixed: Sequence[str],
    evidence: Evidence,
    pictures: Array | None,
    limits: Int8Limits,
) -> Runs | None:
    """Run the file and compare its outputs. Return the runs, if there were any."""
    if not accepts_images(sessions, reference.frame, evidence):
        return None
    exported = sessions.about.export.get("outputs")
    ours, batches = sessions.about.config is not None, plan.batches
    if ours and list(sessions.outputs) != exported:
        evidence.faults.append(f"outputs: expected {exported} (from the metadata), got {list(sessions.outputs)}")
    if ours and sessions.batch != (stated := sessions.about.export.get("batch")):
        expected = "any number of images" if stated is None else f"batches of {stated}"
        evidence.faults.append(f"accepts batches of {sessions.batch or 'any size'}; expected {expected} (from the metadata)")
        return None
    if sessions.batch is not None:
        evidence.skipped.append(f"other batch sizes: the file accepts batches of {sessions.batch} only")
        batches = batches_of(sessions.batch, plan)
    names = match_outputs(sessions, reference, evidence)
    if sessions.about.graph and not ours:
        evidence.warnings += remarks_on(sessions.path, names)
    runs = Runs(reference, plan, tolerance, names, evidence)
    if sessions.prepares and names:
        runs.compare_raw_images(sessions)
    elif precision == "int8" and names:
        runs.measure_agreement(sessions, pictures, limits)
    elif names:
        runs.compare_batches(sessions, batches)
        runs.compare_sizes(sessions, fixed)
    return runs


def _run_selfcheck(sessions: Sessions, precision: str, evidence: Evidence, runs: Runs | None) -> None:
    """Run the self-check in a file of ours, if the file still has the precision of its export.

    If the file has been run on a batch of these images, its outputs are compared without a second run.
    """
    about = sessions.about
    if about.config is None or about.selfcheck is None:
        return
    if precision != str(about.export.get("precision", "fp32")).partition("-")[0]:
        evidence.skipped.append("self-check: the precision of the file was changed after its export")
        return
    with part("self-check"):
        try:
            document = document_in(sessions.about)
            known = None if runs is None else runs.outputs_for(document.input.shape)
            run = sessions.opened().run if known is None else lambda _: known
            result = compare(document, run, sessions.path.name, "onnxruntime")
        except (InputError, RefusedContent) as error:
            evidence.faults.append(f"self-check: {error.message}")
            return
    evidence.faults += [f"self-check: {fault}" for fault in result.faults]


def _sample_batch(sessions: Sessions, reference: Reference, plan: CheckPlan, count: int) -> Array:
    """Return `count` probes, or for a file that prepares images itself, a batch of raw images."""
    if sessions.prepares is not None:
        return next(raw_batches(sessions.prepares, 1))
    return probe_images(reference.frame, (plan.images * count)[:count])


def _compare_inner_values(
    sessions: Sessions,
    reference: Reference,
    plan: CheckPlan,
    tolerance: Tolerance,
    precision: str,
    evidence: Evidence,
) -> None:
    """Find the first block and operation whose values differ, if there is one, and the error after each block."""
    count = sessions.batch or 2
    if count > MOST_IMAGES:
        evidence.skipped.append(f"inner values: of {count:,} images, the fixed batch, but {MOST_IMAGES} at most are compared")
        return
    x = _sample_batch(sessions, reference, plan, count)
    known = all(reference.has(name) for name in sessions.outputs)
    try:
        prepared = prepare_in_file(sessions, x) if sessions.prepares else x
        steps = reference.steps(prepared, sessions.outputs if known else tuple(reference.shapes())[:1], sessions.options)
    except (InputError, RefusedContent):  # a reference that does not run has caused a fault already
        return
    if not steps:
        evidence.skipped.append(f"inner values: {reference.name} has none to compare with")
        return
    as_written = precision != "int8" and all(step.value is not None for step in steps) and computes(sessions.path, steps)
    if not as_written:  # another tool's graph may compute differently inside, so this alone is no fault
        count = len(skeleton(sessions.path).proto.graph.node)
        if count > MOST_READ:
            evidence.skipped.append(f"inner values: the graph has {count:,} operators; {MOST_READ:,} at most are searched")
            return
        evidence.divergence, evidence.blocks = first_divergence_by_value(sessions, steps, x, tolerance)
        return
    divergence, evidence.blocks = first_divergence_by_name(sessions, steps, x, tolerance, lenient=not evidence.faults)
    evidence.divergence = divergence
    if divergence is not None and not evidence.faults:
        evidence.faults.append(divergence.reason)
