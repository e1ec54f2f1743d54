"""What a file says and holds, against the model: its structure, its metadata, its weights value by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.files import digest_of
from vit_zoo.formats.structure import Structure, differences
from vit_zoo.parity.ort_profile import Operator
from vit_zoo.parity.preprocess_check import Preparation
from vit_zoo.parity.reference import ModelReference
from vit_zoo.parity.report import BlockError, Parting
from vit_zoo.parity.saturation import IntegerProducts, integer_products

if TYPE_CHECKING:
    from vit_zoo.files import Stored
    from vit_zoo.formats.artifact import Description
    from vit_zoo.model.spec import ViTSpec
    from vit_zoo.parity.reference import Reference
    from vit_zoo.parity.tolerance import Agreement, Comparison

TRAINING = ("dropout", "emb_dropout", "drop_path")  # fields that change no result


@dataclass
class Evidence:
    """What a check has found so far."""

    comparisons: list[Comparison] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    places: list[Parting] = field(default_factory=list)  # where structure or weights differ
    blocks: list[BlockError] = field(default_factory=list)
    parting: Parting | None = None
    headroom: float | None = None
    fusion: tuple[Operator, ...] = ()
    preparation: Preparation | None = None
    integer_products: IntegerProducts | None = None
    warnings: list[str] = field(default_factory=list)

    def note(self, fault: str, place: str, operator: str | None, reason: str) -> None:
        """A fault that says where it is."""
        number = next((part for part in place.replace("/", ".").split(".") if part.isdecimal()), None)
        block = None if number is None else int(number)
        self.faults.append(fault)
        self.places.append(Parting(block=block, place=place, operator=operator, after=None, reason=reason))


def check_structure(structure: Structure, reference: Reference, found: Evidence) -> None:
    """Epsilons and activations, where numbers are blind."""
    wrong: dict[str, list[str]] = {}
    for what, node in differences(structure, reference):
        wrong.setdefault(what, []).append(node)
    for what, (node, *others) in wrong.items():
        more = f", and {len(others)} more operators" if others else ""
        place = node if node.startswith("operator ") else node.split(" ")[0]
        found.note(f"{node}: {what}{more}", place, node, what)


def check_integers(path: Path, about: Description, found: Evidence) -> None:
    """No integer product of a file of ours may saturate on any CPU; where another tool's can, the user is warned."""
    found.integer_products = measured = integer_products(path)
    if measured is not None and not measured.proven:
        wrong = found.warnings if about.config is None else found.faults
        wrong.append(str(measured))


def check_config(about: Description, reference: Reference, found: Evidence) -> None:
    """What the file says of itself is what the model says: spec, preprocessing, labels."""
    if about.config is None or reference.config is None:
        return
    check_spec(about.config.spec, reference.config.spec, found)
    for name in ("preprocess", "labels"):
        said, known = getattr(about.config, name), getattr(reference.config, name)
        if said is not None and known is not None and said != known:
            found.faults.append(f"says other {name} than the model")


def check_spec(ours: ViTSpec, theirs: ViTSpec, found: Evidence) -> None:
    for name in type(ours).model_fields:
        said, known = getattr(ours, name), getattr(theirs, name)
        if said != known and name not in TRAINING:
            found.faults.append(f"says {name} = {_plain(said)}, the model has {_plain(known)}")


def check_weights(
    path: Path, about: Description, reference: Reference, held: Mapping[str, Stored] | None, found: Evidence
) -> None:
    """The weights of a file of ours are the model's own, value by value; on its own, those that it was written with."""
    if not about.graph or about.config is None or not isinstance(reference, ModelReference):
        return
    if about.rounded:
        found.skipped.append("weights value by value: they are rounded")
        return
    if held is not None:
        stated = about.export.get("weights_sha256")
        whole = not any(stored.absent for stored in held.values())
        if stated is not None and whole and digest_of(held) != stated:
            found.faults.append("its weights are not those that it says it was written with")
    elif about.config.spec.shapes() == reference.spec.shapes():
        note_weights(list(_other_weights(path, reference)), found)


def note_weights(other: Sequence[str], found: Evidence) -> None:
    if other:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        found.note(f"holds another {other[0]!r}{more} than the model", other[0], None, "another weight")


def _other_weights(path: Path, reference: ModelReference) -> Iterator[str]:
    """Names of initializers that are rows of a tensor of the model, and hold other values."""
    import torch

    from vit_zoo.formats.onnx_skeleton import lies_in_file, skeleton

    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    state = reference.model.state_dict()
    order = {name: i for i, name in enumerate(state)}
    read = {name: stored for name, stored in skeleton(path).weights.items() if name.partition("[")[0] in state}
    for name in sorted(read, key=lambda name: order[name.partition("[")[0]]):
        key, _, rows = name.partition("[")
        start, _, stop = rows.rstrip("]").partition(":")
        mine = state[key][int(start) : int(stop)] if rows else state[key]
        stored = read[name]
        if stored.dtype not in types or stored.nbytes != mine.numel() * types[stored.dtype].itemsize or not lies_in_file(stored):
            yield name
            continue
        whole = mine.contiguous().reshape(-1).to(types[stored.dtype]).view(torch.uint8).numpy()
        at = 0
        for piece in stored.chunks():
            if not np.array_equal(np.frombuffer(piece, np.uint8), whole[at : at + len(piece)]):
                yield name
                break
            at += len(piece)


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
