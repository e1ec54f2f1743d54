"""The whole check: a file on disk, opened afresh: its structure, weights and numbers, its free axes, and where it fails."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import OtherWeights, VitzooError
from vit_zoo.files import sha256_of
from vit_zoo.formats import FORMATS
from vit_zoo.formats.structure import Structure
from vit_zoo.graph.options import Form
from vit_zoo.parity.bisect import parted_by_name, parted_models
from vit_zoo.parity.fp16_range import headroom
from vit_zoo.parity.inputs import images
from vit_zoo.parity.ort_profile import receipt
from vit_zoo.parity.preprocess_check import inside, pictures
from vit_zoo.parity.reference import ModelReference
from vit_zoo.parity.report import Effort, ParityReport, Parting
from vit_zoo.parity.run import INNER, PLANS, Computed, Plan, Runs, Sessions, batches_of, fits, listed, matched
from vit_zoo.parity.static_checks import (
    Evidence,
    check_config,
    check_integers,
    check_spec,
    check_structure,
    check_weights,
    note_weights,
)
from vit_zoo.parity.tolerance import RULES, TOLERANCE
from vit_zoo.parity.value_search import parted_by_value

if TYPE_CHECKING:
    from vit_zoo.files import Stored
    from vit_zoo.formats.artifact import Array
    from vit_zoo.parity.reference import Reference
    from vit_zoo.parity.tolerance import Rule


def check_parity(
    path: Path,
    reference: Reference,
    *,
    companion: Path | None = None,
    effort: Effort = "default",
    fixed: Sequence[str] = (),
    held: dict[str, Stored] | None = None,
    blocks: bool = False,
    pictures: Array | None = None,
) -> ParityReport:
    """Run the artifact and the reference on the same images and compare every output of every image.

    `path` may still have a temporary name; the report is about its bytes. A fault of the file is a fault in the report,
    not an exception. `fixed` names axes that the file declares free and that are used at the model's size alone; `held`
    are the weights in the file, where the reference is made of them; `blocks` looks behind every block in any case; `pictures`,
    b c H W, are what a quantised file is measured on.
    """
    plan, found, precision = PLANS[effort], Evidence(), "fp32"
    try:
        sessions = Sessions(path)
    except OtherWeights as error:
        found.faults.append(error.message)
    else:
        if isinstance(reference, ModelReference):
            reference.dynamic = None if sessions.form is None else sessions.form.dynamic
        structure = _structure(path, sessions, found)
        rule, precision = _rule(structure, reference)
        check_structure(structure, reference, found)
        check_config(sessions.about, reference, found)
        check_weights(path, sessions.about, reference, held, found)
        if precision == "int8" and sessions.axes is not None:
            check_integers(path, sessions.about, found)
        _run(sessions, reference, plan, rule, precision, fixed, found, pictures)
        if structure.precision == "fp16" and sessions.axes is not None:
            found.headroom = headroom(path, _some(sessions, reference, plan, len(plan.images)), sessions.batch or 2)
        sessions.close()
        if plan.inner and sessions.axes is not None and (found.comparisons or found.agreements):
            found.fusion = receipt(path, _some(sessions, reference, plan, sessions.batch or 1))
        if sessions.about.rounded:  # smoothed channels are others by intent
            found.skipped.append("inner values: they are rounded, and their channels scaled")
        elif sessions.axes is not None and (found.faults or blocks or plan.inner):
            _look_inside(path, sessions, reference, plan, rule, found)
    return _report(path.name, sha256_of(path), reference, effort, precision, found, plan, data=companion)


def check_model(model: ModelReference, reference: Reference, *, effort: Effort = "default", blocks: bool = False) -> ParityReport:
    """Compare a model with the reference; two of ours part where their steps do."""
    plan, found = PLANS[effort], Evidence()
    other = reference.like
    alike = other is not None and model.spec.shapes() == other.spec.shapes()
    if other is not None:
        check_spec(model.spec, other.spec, found)
    if other is not None and alike:
        mine, theirs = model.model.state_dict(), other.state_dict()
        note_weights([name for name, p in mine.items() if not p.equal(theirs[name])], found)
    output, wanted = model.spec.output, reference.shapes()
    its = next((name for name in (output, *wanted) if wanted.get(name) == model.shapes()[output]), None)
    if its is None:
        found.faults.append(f"gives {listed(model)}, the reference {listed(reference)}")
    else:
        checked = Computed(model, (output,))
        Runs(reference, plan, RULES["fp32"], {output: its}, found).over_batches(checked, {True: plan.runs[True]})
        if (found.faults or blocks or plan.inner) and alike and isinstance(reference, ModelReference):
            x = images(reference.frame, plan.images[:2])
            form = Form()
            found.parting, found.blocks = parted_models(model.steps(x, (output,), form), reference.steps(x, (output,), form))
    return _report(model.name, None, reference, effort, "fp32", found, plan, data=None)


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
            "headroom": found.headroom,
            "integer_products": found.integer_products,
            "warnings": tuple(found.warnings),
            "fusion": found.fusion,
            "preparation": found.preparation,
            "blocks": tuple(found.blocks),
            "parting": _first_place(found) if not ok else None,
            "faults": tuple(found.faults),
            "skipped": (*(what for what in plan.skipped if ok or what != INNER), *found.skipped, *reference.notes),
            "tolerance": TOLERANCE,
            "machine": {"system": platform.system(), "machine": platform.machine()},
            "versions": {package: version(package) for package in ("torch", "numpy", "onnx", "onnxruntime")}
            | {"python": platform.python_version()},
        }
    )


def _first_place(found: Evidence) -> Parting | None:
    """Where the two part: as their numbers do, unless something that is read in the file lies before that."""
    read = min(found.places, key=lambda place: _order(place.block), default=None)
    shown = found.parting
    if read is None or (shown is not None and _order(shown.block) <= _order(read.block)):
        return shown
    return read


def _order(block: int | None) -> int:
    return 1_000_000 if block is None else block


def _structure(path: Path, sessions: Sessions, found: Evidence) -> Structure:
    structure, faults = FORMATS[sessions.about.format].structure(path, sessions.get)
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


def _run(
    sessions: Sessions, reference: Reference, plan: Plan, rule: Rule, precision: str, fixed: Sequence[str], found: Evidence,
    pictures: Array | None,
) -> None:  # fmt: skip
    """Everything that takes running the file."""
    if not fits(sessions, reference.frame, found):
        return
    exported = sessions.about.export.get("outputs")
    ours, batches = sessions.about.config is not None, plan.runs
    if ours and list(sessions.outputs) != exported:
        found.faults.append(f"gives {', '.join(sessions.outputs)}; it was exported to give {exported}")
    if sessions.batch is not None and ours:
        found.faults.append(f"takes batches of {sessions.batch} alone")
        return
    if sessions.batch is not None:
        found.skipped.append(f"other batches: the file takes {sessions.batch} alone")
        batches = batches_of(sessions.batch, plan)
    names = matched(sessions, reference, found)
    runs = Runs(reference, plan, rule, names, found)
    if sessions.prepares and names:
        runs.over_pictures(sessions)
    elif precision == "int8" and names:
        runs.over_many(sessions, pictures)
    elif names:
        runs.over_batches(sessions, batches)
        runs.over_axes(sessions, fixed)


def _some(sessions: Sessions, reference: Reference, plan: Plan, count: int) -> Array:
    """So many images, or for a file that prepares them itself, a batch of pictures."""
    if sessions.prepares is not None:
        return next(pictures(sessions.prepares, 1))
    return images(reference.frame, (plan.images * count)[:count])


def _look_inside(path: Path, sessions: Sessions, reference: Reference, plan: Plan, rule: Rule, found: Evidence) -> None:
    """Behind which block and operation the two part; or that they do not."""
    count = sessions.batch or 2
    x = _some(sessions, reference, plan, count)
    known = all(reference.has(name) for name in sessions.outputs)
    try:
        prepared = inside(path, x) if sessions.prepares else x
        steps = reference.steps(prepared, sessions.outputs if known else tuple(reference.shapes())[:1], sessions.form)
    except VitzooError:  # a reference that does not run has its own fault
        return
    if not steps:
        found.skipped.append(f"where they part: {reference.name} shows no inner values")
        return
    if steps[0].value is None:  # in another tool's graph they are no evidence of their own: it may compute otherwise
        found.parting, found.blocks = parted_by_value(path, steps, x, rule)
        return
    found.parting, found.blocks = parted_by_name(path, steps, x, rule, lenient=not found.faults)
    if found.parting is not None and not found.faults:
        found.faults.append(found.parting.reason)
