"""Runs of a file and its reference on the same images: every output, at several batch sizes and along every free axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.graph.patch_inputs import padded
from vit_zoo.model.outputs import EMBEDDING
from vit_zoo.parity.inputs import Frame, photo_crops, probe_images
from vit_zoo.parity.preprocess_check import (
    SHAPES,
    Preparation,
    level_differences,
    prepare_by_pillow,
    prepare_in_file,
    raw_batches,
)
from vit_zoo.parity.sessions import Computed, Runnable, Sessions
from vit_zoo.parity.tolerance import INT8_IMAGES, INT8_LIMITS, TOLERANCES, Int8Limits, agreement, judge, relative
from vit_zoo.progress import part

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.parity.expected import Expected
    from vit_zoo.parity.plan import Batches, CheckPlan
    from vit_zoo.parity.reference import Reference
    from vit_zoo.parity.static_checks import Evidence
    from vit_zoo.parity.tolerance import Comparison, Tolerance

AXES = ("batch", "channels", "height", "width")
FIXABLE = AXES[1:]  # axes that `fixed` may name


@dataclass(frozen=True)
class BatchRun:
    """A batch that the checked side has run: rows of a stack of images, their names, and the outputs by its own names."""

    rows: tuple[int, ...]
    images: tuple[str, ...]
    outputs: dict[str, Array]
    optimised: bool
    size: tuple[int, int]
    at: str  # for messages


@dataclass
class Runs:
    """Runs of a checked file or model, each compared with the reference.

    `names` maps the checked side's output names to the reference's. Comparisons and faults go to `evidence`.
    """

    reference: Reference
    plan: CheckPlan
    tolerance: Tolerance
    names: dict[str, str]
    evidence: Evidence
    first_two: dict[str, Array] | None = None  # outputs for a batch of the first two images: those of a self-check

    def compare_batches(self, checked: Sessions | Computed, batches: Batches) -> None:
        """Compare every output of every batch."""
        stack = probe_images(self.reference.frame, self.plan.images)
        expected = self._expected(stack)
        ran: list[BatchRun] = []
        for optimised, chosen in batches.items():
            try:
                runnable = checked.get(optimised)
            except (InputError, RefusedContent) as error:
                if not ran:  # the file cannot be opened at all
                    raise
                optimiser = f"optimiser {'on' if optimised else 'off'}"
                self.evidence.faults.append(f"cannot be opened with the {optimiser}: {error.message}")
                continue
            images = self.plan.images
            ran += [self._run(runnable, stack[list(b)], b, tuple(images[i] for i in b), optimised) for b in chosen]
            del runnable  # else it would still be in memory when the next one opens
        self.first_two = next((run.outputs for run in ran if run.rows == (0, 1) and run.outputs), None)
        self._compare(expected, ran, at_least=1)  # so that the report states a floor

    def outputs_for(self, shape: tuple[int, ...]) -> dict[str, Array] | None:
        """Return the outputs for a self-check's batch of this shape, if it was among those that were compared."""
        return self.first_two if shape == (2, self.reference.frame.channels, *self.reference.frame.size) else None

    def compare_raw_images(self, checked: Sessions) -> None:
        """Check a file with preprocessing inside: its pixels against Pillow's, and its outputs for the pixels it prepared."""
        preprocess, options = checked.prepares, checked.options
        assert preprocess is not None
        assert options is not None
        levels, stacks, prepared = [], [], []
        for x in raw_batches(preprocess, len(SHAPES) if self.plan.inner else 2 if self.plan.float64 == "never" else 3):
            try:
                pixels = prepare_in_file(checked, x)
            except (InputError, RefusedContent) as error:
                self.evidence.faults.append(f"fails on images of shape {list(x.shape)}: {error.message}")
                return
            prepared.append((pixels, prepare_by_pillow(preprocess, x)))
            levels.append(level_differences(preprocess, *prepared[-1]).ravel())
            stacks.append(x)
        expected = self._expected(np.concatenate([pixels for pixels, _ in prepared]))
        first = next(iter(self.names.values()))
        by_pillow = self.reference.single(np.concatenate([pillow for _, pillow in prepared]), (first,))[first]
        differences = np.concatenate(levels)
        self.evidence.preparation = measured = Preparation(
            form=options.include,
            images=len(by_pillow),
            levels=int(differences.max()),
            share=float((differences > 0).mean()),
            difference=float(relative(expected.single[first], by_pillow).max()),
        )
        if not measured.ok:
            self.evidence.faults.append(f"{options.include}: {measured}")
        ran = []
        for optimised in self.plan.batches:
            runnable, start = checked.get(optimised), 0
            for x in stacks:
                rows, images = tuple(range(start, start + len(x))), tuple(f"raw image {i}" for i in range(len(x)))
                ran.append(self._run(runnable, x, rows, images, optimised, (x.shape[1], x.shape[2])))
                start += len(x)
            del runnable
        self._compare(expected, ran, at_least=1)  # so that the report states a floor

    def compare_sizes(self, checked: Sessions, fixed: Sequence[str]) -> None:
        """Run every axis that the file declares free at two other lengths, one of which makes the image not square."""
        if checked.axes is None:
            return
        free = {axis for axis, length in zip(AXES, checked.axes, strict=True) if not isinstance(length, int)}
        self.evidence.skipped += [f"{axis}: declared free, treated as fixed" for axis in FIXABLE if axis in free & set(fixed)]
        free -= set(fixed)
        if "channels" in free:
            self._check_other_channels(checked.get())
        if not free & {"height", "width"}:
            return
        frame = self.reference.frame
        (h, w), (p, q) = frame.size, frame.patch
        ours = checked.about.config is not None
        fewer, frames = (-(h // p // 2), -(w // q // 2)), [frame]
        for rows, columns in ((1, 2), (3, 1), *([fewer] if ours else [])):
            at = frame.at((h + rows * p * ("height" in free), w + columns * q * ("width" in free)))
            names = self.plan.images[: checked.batch or 2]
            x = probe_images(at, names)
            try:
                expected = self._expected(x)
            except InputError as error:
                axes = [axis for axis in ("height", "width") if axis in free]
                hint = f"if you use one size only, pass --fixed {','.join(axes)}, in Python fixed={tuple(axes)}"
                self.evidence.faults.append(f"declares {' and '.join(axes)} free, but {error.message} ({hint})")
                return
            self._compare(expected, [self._run(checked.get(), x, tuple(range(len(x))), names, True)])
            frames.append(at)
        if checked.about.takes_patches:
            self._compare_padded(checked.get(), frames)
        if ours:
            self._check_undivided_sizes(checked.get(), frame)

    def _compare_padded(self, artifact: Artifact, frames: Sequence[Frame]) -> None:
        """Run images of different sizes in one padded batch, where padding and the other images must change no output."""
        names = self.plan.images[:1]
        images = [probe_images(frame, names)[0] for frame in frames]
        at = f"a padded batch of {len(images)} sizes"
        try:
            with part(f"running {at}"):
                outputs = artifact.run_patches(padded(images, self.reference.frame.patch))
        except (InputError, RefusedContent) as error:
            self.evidence.faults.append(f"fails at {at}: {error.message}")
            return
        for row, image in enumerate(images):
            expected, size = self._expected(image[None]), (image.shape[1], image.shape[2])
            own = {}  # without the rows of padding
            for name, value in outputs.items():
                shape = expected.single[self.names[name]].shape
                own[name] = value[row : row + 1][tuple(slice(length) for length in shape)]
            self._compare(expected, [BatchRun((0,), names, own, True, size, f"{at}, {size[0]}x{size[1]}")])

    def _check_undivided_sizes(self, artifact: Artifact, frame: Frame) -> None:
        """Check that the file refuses sizes that the patch size does not divide."""
        for axis, patch in enumerate(frame.patch):
            size = [side + (patch > 1) * (i == axis) for i, side in enumerate(frame.size)]
            if size == list(frame.size):
                continue
            try:
                artifact.run(np.zeros((1, frame.channels, *size), "<f4"))
            except (InputError, RefusedContent):
                continue
            self.evidence.faults.append(f"accepts images of {size[0]}x{size[1]}, which the patch size does not divide")

    def measure_agreement(self, checked: Sessions, pictures: Array | None = None, limits: Int8Limits = INT8_LIMITS) -> None:
        """Measure a quantised file over many images, one at a time if it accepts that.

        `pictures` are real images, prepared; crops of the built-in photographs by default.
        """
        size, artifact = checked.batch or 1, checked.get()
        count = -(-INT8_IMAGES // size) * size
        stack = photo_crops(self.reference.frame, count) if pictures is None else pictures
        if len(stack) % size:
            stack = np.resize(stack, (count, *stack.shape[1:]))
        try:
            actual = run_all(artifact.run, stack, size)
        except (InputError, RefusedContent) as error:
            self.evidence.faults.append(f"fails at batch {size}: {error.message}")
            return
        wanted = tuple(dict.fromkeys(self.names.values()))
        expected = run_all(lambda x: self.reference.single(x, wanted), stack, size, what="running the model")
        for name, of in self.names.items():
            logits = are_classes(of, expected[of], self.reference)
            measured = agreement(name, actual[name], expected[of], logits=logits, limits=limits)
            self.evidence.agreements.append(measured)
            if not measured.ok:
                self.evidence.faults.append(
                    f"{name} over {measured.images} images: {measured}; required: {limits.text(measured)}"
                )

    def _check_other_channels(self, artifact: Artifact) -> None:
        """Check that a file with a free axis of channels refuses other numbers of channels than the model's."""
        frame = self.reference.frame
        try:
            artifact.run(np.zeros((1, frame.channels + 1, *frame.size), "<f4"))
        except (InputError, RefusedContent):
            self.evidence.skipped.append("channels: declared free, but other numbers of channels are refused")
        else:
            fault = f"accepts images with {frame.channels + 1} channels, but the model takes {frame.channels}"
            self.evidence.faults.append(fault)

    def _expected(self, images: Array) -> Expected:
        return self.reference.expected(images, tuple(self.names.values()), self.plan.float64)

    def _run(
        self,
        runnable: Runnable,
        x: Array,
        rows: tuple[int, ...],
        images: tuple[str, ...],
        optimised: bool,
        size: tuple[int, int] | None = None,
    ) -> BatchRun:
        """Run one batch. If it fails, that is a fault, and there are no outputs."""
        size = size or (int(x.shape[2]), int(x.shape[3]))
        at = f"batch {len(x)}, optimiser {'on' if optimised else 'off'}"
        at += "" if size == self.reference.frame.size else f", size {size[0]}x{size[1]}"
        outputs: dict[str, Array] = {}
        try:
            with part(f"running it, {at}"):
                outputs = runnable.run(x)
        except (InputError, RefusedContent) as error:
            self.evidence.faults.append(f"fails at {at}: {error.message}")
        return BatchRun(rows, images, outputs, optimised, size, at)

    def _compare(self, expected: Expected, ran: Sequence[BatchRun], *, at_least: int = 0) -> None:
        """Compare every output of these batches: the images farthest from float32 in float64, `at_least` so many of them."""
        far = np.zeros(len(expected.images))
        for run in ran:
            named = {self.names[name]: value for name, value in run.outputs.items() if name in self.names}
            rows = list(run.rows)
            far[rows] = np.maximum(far[rows], expected.distances(named, rows, self.tolerance))
        count = max(0 if expected.measured.any() else at_least, int((far > 1).sum()))
        expected.measure(np.argsort(-far, kind="stable")[:count].tolist())
        for run in ran:
            for name in self.names if run.outputs else ():
                self._judge(expected, run, name)

    def _judge(self, expected: Expected, run: BatchRun, name: str) -> None:
        """Compare one output of one batch."""
        of, rows, config = self.names[name], list(run.rows), self.reference.config
        actual, shape = run.outputs[name], expected.single[of][rows].shape
        if actual.shape != shape:
            self.evidence.faults.append(f"{name} at {run.at}: expected shape {list(shape)}, got {list(actual.shape)}")
            return
        if actual.dtype != np.float32 and (self.tolerance is TOLERANCES["fp32"] or actual.dtype.kind != "f"):
            self.evidence.faults.append(f"{name} at {run.at}: expected float32, got {actual.dtype}")
            return

        def judged() -> tuple[str | None, Comparison]:
            return judge(
                actual,
                expected.values[of][rows],
                floors=expected.floors[of][rows],
                tolerance=self.tolerance,
                names=run.images,
                where={"output": name, "optimised": run.optimised, "size": run.size},
                logits=_are_logits(of, expected.values[of]) and not (config is not None and config.is_embedding),
                unmeasured=0.0 if expected.measurable else np.inf,
            )

        fault, comparison = judged()
        if fault is not None and expected.measure(run.rows):  # the floors of the other images may raise the tolerance
            fault, comparison = judged()
        self.evidence.comparisons.append(comparison)
        if fault is not None:
            self.evidence.faults.append(f"{name} at {run.at}, {fault}")


def match_outputs(checked: Sessions, reference: Reference, evidence: Evidence) -> dict[str, str]:
    """Return the reference's output for each of the file's: the one of the same name, or else one of the same shape.

    Outputs of our own files are matched by name only. Empty, with a fault, if an output has no match.
    """
    from vit_zoo.parity.reference import ModelReference  # which imports torch

    unknown = [name for name in checked.outputs if not reference.has(name)]
    if not unknown or (checked.about.config is not None and isinstance(reference, ModelReference)):
        if unknown:
            evidence.faults.append(f"output {unknown[0]!r}: the model has no such output")
        return {} if unknown else {name: name for name in checked.outputs}
    count, artifact = checked.batch or 1, checked.get()
    try:
        outputs = artifact.run(np.repeat(probe_images(reference.frame, ("noise",)), count, axis=0))
    except (InputError, RefusedContent) as error:
        evidence.faults.append(f"fails at batch {count}: {error.message}")
        return {}
    names: dict[str, str] = {}
    for name, value in outputs.items():
        same_shape = [n for n, shape in reference.shapes().items() if shape == value.shape[1:] and n not in names.values()]
        match = name if name in same_shape else next(iter(same_shape), None)
        if match is None:
            shape = list(value.shape[1:])
            fault = f"output {name!r}: shape {shape} matches no output of the model: {described_outputs(reference)}"
            evidence.faults.append(fault)
            return {}
        names[name] = match
    return names


def accepts_images(checked: Sessions, frame: Frame, evidence: Evidence) -> bool:
    """Return whether the file accepts images of the model's shape; add a fault if not."""
    expected = ("height", "width", frame.channels) if checked.prepares else (frame.channels, *frame.size)
    axes = ("batch", *expected) if checked.axes is None else checked.axes
    if len(axes) == 4 and all(not isinstance(a, int) or a == length for a, length in zip(axes[1:], expected, strict=True)):
        return True
    evidence.faults.append(f"input: expected shape {['batch', *expected]}, got {list(axes)}")
    return False


def batches_of(size: int, plan: CheckPlan) -> Batches:
    """Return batches of one size that together contain every image of the plan."""
    count = len(plan.images)
    rows = tuple(tuple((start + i) % count for i in range(size)) for start in range(0, count, size))
    return dict.fromkeys(plan.batches, rows)


def described_outputs(reference: Reference) -> str:
    """Return the outputs of a reference with their shapes, as text."""
    return ", ".join(f"{name} {list(shape)}" for name, shape in reference.shapes().items())


def run_all(
    run: Callable[[Array], Mapping[str, Array]], stack: Array, size: int = 1, what: str = "running it"
) -> dict[str, Array]:
    """Return every output of a file or a reference for many images, `size` at a time; `what` describes it for progress."""
    with part(what, len(stack), "images") as progress:
        rows = []
        for x in np.split(stack, len(stack) // size):
            rows.append(run(x))
            progress.advance(len(x))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def are_classes(output: str, values: Array, reference: Reference) -> bool:
    """Return whether an output of the reference scores classes of which one applies, as far as is known."""
    config = reference.config
    return _are_logits(output, values) and (config is None or not config.spec.num_classes or config.activation == "softmax")


def _are_logits(output: str, values: Array) -> bool:
    return values.ndim == 2 and output not in ("pooler_output", EMBEDDING)
