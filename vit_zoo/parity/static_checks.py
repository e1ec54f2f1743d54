"""Static checks of a file against its model: structure, metadata, weights value by value, and integer products."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.files import digest_of
from vit_zoo.formats.structure import Structure
from vit_zoo.model.spec import TRAINING
from vit_zoo.parity.ort_profile import Operator
from vit_zoo.parity.preprocess_check import Preparation
from vit_zoo.parity.reference import ModelReference
from vit_zoo.parity.report import BlockError, Divergence
from vit_zoo.parity.saturation import IntegerProducts, integer_products

if TYPE_CHECKING:
    from vit_zoo.files import Stored
    from vit_zoo.formats.artifact import Array, Description
    from vit_zoo.model.spec import ViTSpec
    from vit_zoo.parity.reference import Reference
    from vit_zoo.parity.tolerance import Agreement, Comparison

NUMBER = re.compile(r"[0-9]{1,6}")  # of a block, in a name
SMALLEST_HALF = 2.0**-24  # the smallest float16 above 0


@dataclass
class Evidence:
    """Results that a check has collected so far; most become fields of the report."""

    comparisons: list[Comparison] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    static_divergences: list[Divergence] = field(default_factory=list)  # differences of structure or weights
    blocks: list[BlockError] = field(default_factory=list)
    divergence: Divergence | None = None  # first difference of inner values
    headroom: float | None = None
    fusion: tuple[Operator, ...] = ()
    preparation: Preparation | None = None
    integer_products: IntegerProducts | None = None
    warnings: list[str] = field(default_factory=list)

    def add_fault_at(self, place: str, fault: str, operator: str | None, reason: str) -> None:
        """Add a fault that has a place in the model; the first number in the place is the block."""
        block = next(map(int, filter(NUMBER.fullmatch, place.replace("/", ".").split("."))), None)
        self.faults.append(fault)
        self.static_divergences.append(Divergence(block=block, place=place, operator=operator, after=None, reason=reason))


def check_structure(structure: Structure, reference: Reference, evidence: Evidence) -> None:
    """Check epsilons and activations, whose faults outputs may not reveal."""
    operators: dict[str, list[str]] = {}
    for difference, operator in _structure_differences(structure, reference):
        operators.setdefault(difference, []).append(operator)
    for difference, (operator, *others) in operators.items():
        more = f" (and {len(others)} more operators)" if others else ""
        place = operator if operator.startswith("operator ") else operator.split(" ")[0]
        evidence.add_fault_at(place, f"{operator}: {difference}{more}", operator, difference)


def _structure_differences(structure: Structure, reference: Reference) -> list[tuple[str, str]]:
    """Compare the structure with the reference. Return a description of each difference, and the operator that has it.

    What is not known of the reference is not compared.
    """
    faults: list[tuple[str, str]] = []
    if reference.norm_eps:
        known = {np.float32(eps) for eps in reference.norm_eps}
        expected = " or ".join(f"{eps:g}" for eps in sorted(reference.norm_eps))
        with np.errstate(over="ignore"):  # a file can state any number
            faults += [
                (f"LayerNorm epsilon {eps.value:g}, expected {expected}", eps.node)
                for eps in structure.norm_eps
                if np.float32(eps.value) not in known
            ]
    if reference.acts:
        expected = " or ".join(sorted(reference.acts))
        faults += [
            (f"activation {act.value}, expected {expected}", act.node)
            for act in structure.acts
            if act.value not in reference.acts
        ]
    return faults


def check_integers(path: Path, about: Description, evidence: Evidence) -> None:
    """Check that no integer product can saturate on any CPU: a fault in our int8 files, a warning for another tool's."""
    evidence.integer_products = measured = integer_products(path)
    if measured is not None and not measured.proven:
        messages = evidence.faults if about.rounded else evidence.warnings
        messages.append(str(measured))


def check_config(about: Description, reference: Reference, evidence: Evidence) -> None:
    """Check that the metadata agree with the model: spec, preprocessing, labels and problem type."""
    if about.config is None or reference.config is None:
        return
    check_spec(about.config.spec, reference.config.spec, evidence)
    words = {"preprocess": "preprocessing differs", "labels": "labels differ", "problem_type": "problem type differs"}
    for name, differ in words.items():
        stated, expected = getattr(about.config, name), getattr(reference.config, name)
        if stated is not None and expected is not None and stated != expected:
            evidence.faults.append(f"metadata: {differ} from the model's")


def check_spec(spec: ViTSpec, reference: ViTSpec, evidence: Evidence) -> None:
    """Check that two specs agree in every field that affects the result."""
    for name in type(spec).model_fields:
        stated, expected = getattr(spec, name), getattr(reference, name)
        if stated != expected and name not in TRAINING:
            evidence.faults.append(f"spec: {name} is {_plain(stated)}, expected {_plain(expected)}")


def check_weights(
    path: Path,
    about: Description,
    reference: Reference,
    tensors: Mapping[str, Stored] | None,
    evidence: Evidence,
    *,
    rounded: bool,
) -> None:
    """Check the weights of one of our files.

    With `tensors`, the file's own weights, it is checked on its own: they must match the hash in its metadata. Otherwise
    they must equal the reference's, value by value. Those of an int8 file (`rounded`) never do.
    """
    if not about.graph or about.config is None or not isinstance(reference, ModelReference):
        return
    if rounded:
        evidence.skipped.append("weights, value by value: int8 rounds them")
        return
    if tensors is not None:
        stated = about.export.get("weights_sha256")
        complete = not any(stored.absent for stored in tensors.values())
        if stated is not None and complete and digest_of(tensors) != stated:
            evidence.faults.append("metadata: the weights do not match weights_sha256")
    elif about.config.spec.shapes() == reference.spec.shapes():
        add_weight_fault(list(_different_weights(path, reference)), evidence)


def add_weight_fault(names: Sequence[str], evidence: Evidence) -> None:
    """Add a fault for weights that differ from the model's, if there are any."""
    if names:
        differ = f"and {len(names) - 1} more differ" if len(names) > 1 else "differs"
        evidence.add_fault_at(names[0], f"weight {names[0]!r} {differ} from the model's", None, "weight differs")


def _different_weights(path: Path, reference: ModelReference) -> Iterator[str]:
    """Yield the names of initializers that hold other values than the model's tensor, or than the rows of it they stand for."""
    import torch

    from vit_zoo.formats.onnx_skeleton import lies_in_file, skeleton, weight_of

    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    state = reference.model.state_dict()
    order = {name: i for i, name in enumerate(state)}
    places = {name: (place, stored) for name, stored in skeleton(path).weights.items() if (place := weight_of(name))}
    weights = [(name, *place, stored) for name, (place, stored) in places.items() if place[0] in state]
    for name, key, rows, stored in sorted(weights, key=lambda weight: order[weight[1]]):
        expected = state[key] if rows.start is None else state[key][rows]
        size = expected.numel() * types[stored.dtype].itemsize if stored.dtype in types else None
        if stored.nbytes != size or not lies_in_file(stored):
            yield name
            continue
        content = expected.contiguous().reshape(-1).to(types[stored.dtype]).view(torch.uint8).numpy()
        at = 0
        for piece in stored.chunks():
            found, wanted = np.frombuffer(piece, np.uint8), content[at : at + len(piece)]
            if not np.array_equal(found, wanted) and not (stored.dtype == "F16" and _rounded_alike(found, wanted)):
                yield name
                break
            at += len(piece)


def _rounded_alike(found: Array, wanted: Array) -> bool:
    """Return whether float16 values differ by their smallest step at most: onnxruntime's converter rounds none of them to 0."""
    a, b = (x.view("<f2").astype("<f4") for x in (found, wanted))
    return bool(np.abs(a - b).max(initial=0) <= SMALLEST_HALF)


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
