"""Whether an artifact computes the model: the file on disk, opened afresh, against torch in single and double precision.

The tolerance follows from the model itself: how far its own float32 result is from float64. Measured for ViTs of 192 to
768 dimensions: torch 2e-7 to 1.4e-6 relative, onnxruntime at most 2.9 times that; a tanh for an exact GELU 5e-5 or more.
"""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from vit_zoo import forward
from vit_zoo.errors import RefusedContent, VitzooError
from vit_zoo.files import read_json, sha256_of
from vit_zoo.formats import open_artifact
from vit_zoo.formats.artifact import report_path
from vit_zoo.torch_ops import EVAL, Float64Ops

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.model import ViT
    from vit_zoo.vit_spec import ViTSpec

RELATIVE = 1e-5  # of the largest value: 7 to 10 times the floor measured above, a fifth of the smallest GELU fault
FLOOR_FACTOR, FLOOR_SLACK = 8, 1e-6  # the slack is for models whose floor is zero by luck
# optimiser on and off, and which images make a batch; formats without an optimiser run all of them alike
RUNS = {True: ((0,), (2, 3, 4), (0, 1, 2, 3, 4)), False: ((0, 1),)}


class Comparison(BaseModel):
    """One output of one run: the largest differences from float64, over the images of the batch, and what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: str
    batch: int
    optimised: bool
    worst_input: str
    max_abs: float | None  # None: not finite
    relative: float | None
    floor: float  # torch's own float32 against float64, relative
    ok: bool


class ParityReport(BaseModel):
    """The verdict on one artifact, kept beside it as `FILE.parity.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    ok: bool
    file: str
    sha256: str
    data_sha256: str | None
    reference: str
    comparisons: tuple[Comparison, ...]
    faults: tuple[str, ...]
    tolerance: dict[str, float]
    machine: dict[str, str]
    versions: dict[str, str]

    def dumps(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    def summary(self) -> str:
        """One line for people."""
        if self.faults:
            return self.faults[0]
        worst = max(self.comparisons, key=lambda c: math.inf if c.relative is None else c.relative)
        what = (
            f"{worst.output} at batch {worst.batch}, image '{worst.worst_input}', optimiser {'on' if worst.optimised else 'off'}"
        )
        size = "not finite" if worst.relative is None else f"{worst.relative:.1e} relative"
        return f"largest difference {size} (torch's own float32: {worst.floor:.1e}): {what}"


def inputs(spec: ViTSpec) -> dict[str, Array]:
    """Seeded, normalised images that show different faults: c H W each, float32."""
    random = np.random.default_rng(0)
    shape = (spec.channels, *spec.image_size)
    h, w = spec.image_size
    ramp = np.linspace(-1, 1, h)[:, None] + np.linspace(-1, 1, w)[None] * 0.5
    per_channel = np.linspace(1, 2, spec.channels)[:, None, None]
    edges = np.where((np.arange(w) // max(1, w // 7)) % 2 == 0, 1.0, -1.0)[None, None]
    cells = random.normal(size=(spec.channels, *spec.grid))  # one constant per patch: positions show
    constant = np.kron(cells, np.ones((1, *spec.patch_size)))
    images = {
        "noise": random.normal(size=shape),
        "gradient and edges": ramp[None] * per_channel + edges * per_channel[::-1] * 0.3,
        "constant per patch": constant,
        "large": random.normal(size=shape) * 30,
        "nearly constant": 0.5 * per_channel + random.normal(size=shape) * 1e-3,
    }
    return {name: np.ascontiguousarray(image, dtype=np.float32) for name, image in images.items()}


class Reference:
    """The model that artifacts are compared with, under a name for the report; each result is computed once."""

    def __init__(self, model: ViT, name: str) -> None:
        self.model, self.name = model.float().eval(), name
        self.spec = model.spec
        self.images = inputs(model.spec)
        self.stack = np.stack(list(self.images.values()))
        self._results: dict[tuple[str, ...], tuple[dict[str, Array], dict[str, float]]] = {}

    def results(self, outputs: tuple[str, ...]) -> tuple[dict[str, Array], dict[str, float]]:
        """Outputs in float64, with one layer's weights in double at a time, and how far torch's float32 is from them."""
        if outputs not in self._results:
            with torch.inference_mode():
                single = forward.vit(self.model, torch.from_numpy(self.stack), self.spec, EVAL, outputs)
                double = forward.vit(self.model, torch.from_numpy(self.stack).double(), self.spec, Float64Ops(), outputs)
            wanted = {name: value.numpy() for name, value in double.items()}
            self._results[outputs] = wanted, {name: _relative(single[name].numpy(), wanted[name]) for name in outputs}
        return self._results[outputs]


def check_parity(path: Path, reference: Reference, *, companion: Path | None = None) -> ParityReport:
    """Run the artifact and the model on the same images and compare every output of every image.

    `path` may still have a temporary name; the report is about its bytes. A fault of the file is a fault in the
    report, not an exception.
    """
    comparisons, faults = _compare(path, reference)
    return ParityReport(
        ok=not faults,
        file=path.name,
        sha256=sha256_of(path),
        data_sha256=None if companion is None else sha256_of(companion),
        reference=reference.name,
        comparisons=tuple(comparisons),
        faults=tuple(faults),
        tolerance={"relative": RELATIVE, "floor_factor": FLOOR_FACTOR, "floor_slack": FLOOR_SLACK},
        machine={"system": platform.system(), "machine": platform.machine()},
        versions={name: version(name) for name in ("torch", "numpy", "onnx", "onnxruntime")}
        | {"python": platform.python_version()},
    )


def _compare(path: Path, reference: Reference) -> tuple[list[Comparison], list[str]]:
    names = list(reference.images)
    comparisons: list[Comparison] = []
    faults: list[str] = []
    for optimised, batches in RUNS.items():
        try:
            artifact = open_artifact(path, optimised=optimised)
        except VitzooError as error:
            return comparisons, [*faults, f"does not open: {error.message}"]
        outputs = artifact.outputs
        unknown = [name for name in outputs if name not in forward.output_names(reference.spec)]
        if unknown:
            return comparisons, [*faults, f"has an output {unknown[0]!r} that the model does not have"]
        wanted, floors = reference.results(outputs)
        for chosen in batches:
            try:
                found = artifact.run(reference.stack[list(chosen)])
            except VitzooError as error:
                faults.append(f"fails at batch {len(chosen)}: {error.message}")
                continue
            except Exception as error:  # onnxruntime's run-time errors have no common base
                faults.append(f"fails at batch {len(chosen)}: {type(error).__name__}")
                continue
            shown = [names[i] for i in chosen]
            for output in outputs:
                fault, comparison = _judge(output, found[output], wanted[output][list(chosen)], floors[output], shown, optimised)
                comparisons += [] if comparison is None else [comparison]
                faults += [] if fault is None else [fault]
    return comparisons, faults


def _relative(found: Array, wanted: Array) -> float:
    """The largest difference of any image, relative to the largest value of that image's result."""
    axes = tuple(range(1, wanted.ndim))
    scale = np.abs(wanted).max(axis=axes)
    return float((np.abs(found - wanted).max(axis=axes) / np.where(scale > 0, scale, 1)).max())


def _judge(
    output: str, found: Array, wanted: Array, floor: float, names: list[str], optimised: bool
) -> tuple[str | None, Comparison | None]:
    """Compare one output of one run, image by image."""
    batch = len(names)
    where = f"{output} at batch {batch}, optimiser {'on' if optimised else 'off'}"
    if found.shape != wanted.shape:
        return f"{where}: shape {list(found.shape)}, the model gives {list(wanted.shape)}", None
    if found.dtype != np.float32:
        return f"{where}: type {found.dtype}, float32 expected", None
    axes = tuple(range(1, found.ndim))
    error, scale = np.abs(found - wanted).max(axis=axes), np.abs(wanted).max(axis=axes)
    allowed = min(RELATIVE, FLOOR_FACTOR * floor + FLOOR_SLACK)
    ok = bool((error <= allowed * scale).all())  # False for NaN and infinity on either side
    relative = np.where(np.isfinite(error), error / np.where(scale > 0, scale, 1), np.inf)
    worst = int(relative.argmax())
    finite = bool(np.isfinite(relative[worst]))
    comparison = Comparison(
        output=output,
        batch=batch,
        optimised=optimised,
        worst_input=names[worst],
        max_abs=float(error[worst]) if finite else None,
        relative=float(relative[worst]) if finite else None,
        floor=floor,
        ok=ok,
    )
    if ok:
        return None, comparison
    size = f"{relative[worst]:.1e} relative, {allowed:.1e} allowed" if finite else "not finite"
    return f"{where}, image '{names[worst]}': {size}", comparison


def read_report(artifact: Path) -> ParityReport | None:
    """The verdict beside an artifact, if there is one. Raises RefusedContent if it is not a report."""
    path = report_path(artifact)
    if not path.is_file():
        return None
    try:
        return ParityReport.model_validate(read_json(path))
    except ValueError:
        raise RefusedContent("is not a parity report", where=path) from None
