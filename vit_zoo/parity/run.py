"""Runs: the artifact and the reference on the same images, output by output, at every batch and along every free axis."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vit_zoo.errors import InputError, VitzooError
from vit_zoo.formats import describe, open_artifact
from vit_zoo.formats.onnx_file import check_companion
from vit_zoo.formats.onnx_skeleton import declared
from vit_zoo.graph.options import Form
from vit_zoo.parity.inputs import IMAGES, Frame, images, many_images
from vit_zoo.parity.preprocess_check import SHAPES, Preparation, by_pillow, inside, levels_apart, pictures
from vit_zoo.parity.reference import ModelReference, Reference, Results
from vit_zoo.parity.report import Effort
from vit_zoo.parity.static_checks import Evidence
from vit_zoo.parity.tolerance import IMAGES as MANY
from vit_zoo.parity.tolerance import RULES, agreement, judge, relative

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.model.preprocess import Preprocess
    from vit_zoo.parity.tolerance import Rule

AXES = ("batch", "channels", "height", "width")
FIXABLE = AXES[1:]
Batches = dict[bool, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Plan:
    """What an effort runs: images, and which of them make a batch, with onnxruntime's optimiser on (True) and off."""

    images: tuple[str, ...]
    runs: Batches
    double: bool = True
    inner: bool = False  # every step of the forward, also when nothing fails
    skipped: tuple[str, ...] = ()


ALL = tuple(IMAGES)
INNER = "inner values, as long as nothing fails"
PLANS: dict[Effort, Plan] = {
    "quick": Plan(
        ALL[:3],
        {True: ((0,), (1, 2))},
        double=False,
        skipped=(
            "float64: the tolerance is the cap alone",
            "the optimiser off",
            "photographs, large and nearly constant images",
            INNER,
        ),
    ),
    "default": Plan(
        ALL[:6],
        {True: ((5,), (3, 4, 0), (0, 1, 2, 3, 4)), False: ((0, 1),)},
        skipped=(INNER,),
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
    """What is run: an opened artifact, or a model in memory."""

    def run(self, pixel_values: Array) -> dict[str, Array]: ...


class Sessions:
    """An artifact's sessions, one at a time: two of them would hold the weights twice. `axes` are those of ONNX files."""

    def __init__(self, path: Path) -> None:
        self.path, self.about = path, describe(path)
        self.form = None if self.about.config is None else Form.of(self.about.export)
        self.axes: tuple[int | str, ...] | None = None
        self._open: dict[bool, Artifact] = {}
        if self.about.graph:  # what it declares is read before anything is in memory
            check_companion(self.about)
            self.outputs, self.axes = declared(path)
        else:
            self.outputs = self.get().outputs

    @property
    def prepares(self) -> Preprocess | None:
        """How the file prepares images itself; None: it takes them prepared."""
        config, form = self.about.config, self.form
        return None if config is None or form is None or form.include is None else config.preprocess

    @property
    def batch(self) -> int | None:
        """The only batch that the file takes; None: any."""
        return self.axes[0] if self.axes and isinstance(self.axes[0], int) else None

    def get(self, optimised: bool = True) -> Artifact:
        if not self.about.graph:  # no optimiser to switch off
            optimised = True
        if optimised not in self._open:
            self.close()
            self._open[optimised] = open_artifact(self.path, optimised=optimised)
        return self._open[optimised]

    def close(self) -> None:
        """Forget the sessions. glibc keeps what they held, 350 MiB for ViT-B/16, until it is told to give it back."""
        self._open.clear()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class Computed:
    """A model in memory, which has neither a file nor an optimiser."""

    def __init__(self, model: ModelReference, outputs: tuple[str, ...]) -> None:
        self.model, self.outputs = model, outputs

    def get(self, optimised: bool = True) -> Computed:
        return self

    def run(self, pixel_values: Array) -> dict[str, Array]:
        return self.model.results(pixel_values, self.outputs, double=False)[0]


@dataclass
class Runs:
    """One side to be checked against the other; `names` maps its outputs to the reference's."""

    reference: Reference
    plan: Plan
    rule: Rule
    names: dict[str, str]
    found: Evidence

    def over_batches(self, checked: Sessions | Computed, batches: Batches) -> None:
        """Every batch, and every output of it."""
        stack = images(self.reference.frame, self.plan.images)
        wanted, floors = self.reference.results(stack, tuple(dict.fromkeys(self.names.values())), double=self.plan.double)
        for optimised, chosen in batches.items():
            try:
                runnable = checked.get(optimised)
            except VitzooError as error:
                if not self.found.comparisons:  # it does not open at all
                    raise
                self.found.faults.append(f"does not open with the optimiser {'on' if optimised else 'off'}: {error.message}")
                continue
            for batch in chosen:
                rows = list(batch)
                results = {n: x[rows] for n, x in wanted.items()}, {n: x[rows] for n, x in floors.items()}
                self._once(runnable, stack[rows], results, [self.plan.images[i] for i in batch], optimised)
            del runnable  # or it would outlive the next one's opening

    def over_pictures(self, checked: Sessions) -> None:
        """A file that prepares images itself: its pixels against Pillow's, its outputs for the pixels that it made."""
        how, form = checked.prepares, checked.form
        assert how is not None
        assert form is not None
        outputs = tuple(dict.fromkeys(self.names.values()))
        apart, moved, seen = [], [], []
        for x in pictures(how, len(SHAPES) if self.plan.inner else 3 if self.plan.double else 2):
            try:
                pixels = inside(checked.path, x)
            except VitzooError as error:
                self.found.faults.append(f"fails at images of shape {list(x.shape)}: {error.message}")
                return
            wanted = by_pillow(how, x)
            apart.append(levels_apart(how, pixels, wanted).ravel())
            first = outputs[:1]
            ours, theirs = (self.reference.results(part, first, double=False)[0][first[0]] for part in (wanted, pixels))
            moved.append(float(relative(theirs, ours).max()))
            seen.append((x, self.reference.results(pixels, outputs, double=self.plan.double)))
        off = np.concatenate(apart)
        self.found.preparation = measured = Preparation(
            form=form.include, images=sum(len(x) for x, _ in seen), levels=int(off.max()), share=float((off > 0).mean()),
            difference=max(moved),
        )  # fmt: skip
        if not measured.ok:
            self.found.faults.append(f"{form.include}: {measured}")
        for optimised in self.plan.runs:
            runnable = checked.get(optimised)
            for x, results in seen:
                self._once(runnable, x, results, [f"picture {i}" for i in range(len(x))], optimised, (x.shape[1], x.shape[2]))
            del runnable

    def over_axes(self, checked: Sessions, fixed: Sequence[str]) -> None:
        """Every axis that the file declares free is run at two other lengths, one of them not square."""
        if checked.axes is None:
            return
        free = {axis for axis, length in zip(AXES, checked.axes, strict=True) if not isinstance(length, int)}
        self.found.skipped += [f"{axis}: declared free, taken as fixed" for axis in FIXABLE if axis in free & set(fixed)]
        free -= set(fixed)
        if "channels" in free:
            self._other_channels(checked.get())
        if not free & {"height", "width"}:
            return
        frame = self.reference.frame
        (h, w), (p, q) = frame.size, frame.patch
        ours = checked.about.config is not None
        fewer = (-(h // p // 2), -(w // q // 2))
        for rows, columns in ((1, 2), (3, 1), *([fewer] if ours else [])):
            at = frame.at((h + rows * p * ("height" in free), w + columns * q * ("width" in free)))
            names = self.plan.images[: checked.batch or 2]
            x = images(at, names)
            try:
                results = self.reference.results(x, tuple(self.names.values()), double=self.plan.double)
            except InputError as error:
                axes = [axis for axis in ("height", "width") if axis in free]
                hint = f"--fixed {','.join(axes)} takes that as given"
                self.found.faults.append(f"declares {' and '.join(axes)} free, but {error.message} ({hint})")
                return
            self._once(checked.get(), x, results, list(names), True)
        if ours:
            self._undivided(checked.get(), frame)

    def _undivided(self, artifact: Artifact, frame: Frame) -> None:
        """A size that the patch does not divide has no answer."""
        for axis, patch in enumerate(frame.patch):
            size = [side + (patch > 1) * (i == axis) for i, side in enumerate(frame.size)]
            if size == list(frame.size):
                continue
            try:
                artifact.run(np.zeros((1, frame.channels, *size), "<f4"))
            except VitzooError:
                continue
            self.found.faults.append(f"answers images of {size[0]}x{size[1]}, which the patch does not divide")

    def over_many(self, checked: Sessions, pictures: Array | None = None) -> None:
        """A quantised file is measured over many images, one at a time where it can be: never called parity."""
        count, artifact = checked.batch or 1, checked.get()
        many = -(-MANY // count) * count
        stack = many_images(self.reference.frame, many) if pictures is None else pictures
        if len(stack) % count:
            stack = np.resize(stack, (many, *stack.shape[1:]))
        for theirs, ours in self.names.items():
            pairs = []
            for x in np.split(stack, len(stack) // count):
                wanted = self.reference.results(x, (ours,), double=False)[0][ours]
                try:
                    pairs.append((artifact.run(x)[theirs], wanted))
                except VitzooError as error:
                    self.found.faults.append(f"fails at batch {count}: {error.message}")
                    return
            given, wanted = (np.concatenate(part) for part in zip(*pairs, strict=True))
            measured = agreement(theirs, given, wanted, logits=_are_logits(ours, wanted))
            self.found.agreements.append(measured)
            if not measured.ok:
                self.found.faults.append(f"{theirs} over {measured.images} images: {measured}")

    def _other_channels(self, artifact: Artifact) -> None:
        frame = self.reference.frame
        try:
            artifact.run(np.zeros((1, frame.channels + 1, *frame.size), "<f4"))
        except VitzooError:
            self.found.skipped.append("channels: declared free, but other numbers of them are refused")
        else:
            self.found.faults.append(f"answers images of {frame.channels + 1} channels, the model takes {frame.channels}")

    def _once(
        self,
        runnable: Runnable,
        x: Array,
        results: Results,
        shown: list[str],
        optimised: bool,
        size: tuple[int, int] | None = None,
    ) -> None:
        size = size or (int(x.shape[2]), int(x.shape[3]))
        at = f"batch {len(x)}, optimiser {'on' if optimised else 'off'}"
        at += "" if size == self.reference.frame.size else f", size {size[0]}x{size[1]}"
        try:
            given = runnable.run(x)
        except VitzooError as error:
            self.found.faults.append(f"fails at {at}: {error.message}")
            return
        for theirs, ours in self.names.items():
            value, wanted = given[theirs], results[0][ours]
            if value.shape != wanted.shape:
                shapes = f"shape {list(value.shape)}, the model gives {list(wanted.shape)}"
                self.found.faults.append(f"{theirs} at {at}: {shapes}")
                continue
            if value.dtype != np.float32 and (self.rule is RULES["fp32"] or value.dtype.kind != "f"):
                self.found.faults.append(f"{theirs} at {at}: type {value.dtype}, float32 expected")
                continue
            where = {"output": theirs, "optimised": optimised, "size": size}
            logits = _are_logits(ours, wanted)
            fault, comparison = judge(
                value, wanted, floors=results[1][ours], rule=self.rule, names=shown, where=where, logits=logits
            )
            self.found.comparisons.append(comparison)
            if fault is not None:
                self.found.faults.append(f"{theirs} at {at}, {fault}")


def matched(checked: Sessions, reference: Reference, found: Evidence) -> dict[str, str]:
    """The reference's output for each of the file's: of the same name, or in other tools' files of the same shape."""
    unknown = [name for name in checked.outputs if not reference.has(name)]
    if not unknown or (checked.about.config is not None and isinstance(reference, ModelReference)):
        if unknown:
            found.faults.append(f"has an output {unknown[0]!r} that the model does not have")
        return {} if unknown else {name: name for name in checked.outputs}
    count, artifact = checked.batch or 1, checked.get()
    try:
        given = artifact.run(np.repeat(images(reference.frame, ("noise",)), count, axis=0))
    except VitzooError as error:
        found.faults.append(f"fails at batch {count}: {error.message}")
        return {}
    names: dict[str, str] = {}
    for name, value in given.items():
        alike = [n for n, shape in reference.shapes().items() if shape == value.shape[1:] and n not in names.values()]
        chosen = name if name in alike else next(iter(alike), None)
        if chosen is None:
            shape = list(value.shape[1:])
            found.faults.append(f"output {name!r} of shape {shape} is none of the model's: {listed(reference)}")
            return {}
        names[name] = chosen
    return names


def fits(checked: Sessions, frame: Frame, found: Evidence) -> bool:
    """Whether the file takes the model's images."""
    wanted = ("height", "width", frame.channels) if checked.prepares else (frame.channels, *frame.size)
    axes = ("batch", *wanted) if checked.axes is None else checked.axes
    if len(axes) == 4 and all(not isinstance(a, int) or a == length for a, length in zip(axes[1:], wanted, strict=True)):
        return True
    found.faults.append(f"takes images of shape {list(axes)}, the model {['batch', *wanted]}")
    return False


def batches_of(size: int, plan: Plan) -> Batches:
    """Every image of the plan in batches of the one size that a file takes."""
    count = len(plan.images)
    rows = tuple(tuple((start + i) % count for i in range(size)) for start in range(0, count, size))
    return dict.fromkeys(plan.runs, rows)


def listed(reference: Reference) -> str:
    """The outputs of a reference with their shapes."""
    return ", ".join(f"{name} {list(shape)}" for name, shape in reference.shapes().items())


def _are_logits(output: str, wanted: Array) -> bool:
    return wanted.ndim == 2 and output != "pooler_output"
