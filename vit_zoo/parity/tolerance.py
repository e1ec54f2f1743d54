"""Tolerances of each precision, and the comparison of one output with the reference under them.

Measured on ViTs with 192 to 768 dimensions, relative to the largest value: torch's float32 differs from float64 by 2e-7 to
1.4e-6, and onnxruntime by at most 2.9 times as much. Replacing the exact GELU by its tanh form costs 5e-5 or more, fp16
weights 6e-4, bf16 weights 1.3e-2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from vit_zoo.errors import InputError
from vit_zoo.model.classification import softmax

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

# The floor of an image is the relative difference between torch's float32 and float64 results for it.
RELATIVE = 1e-5  # 7 to 10 times the floors measured above, and a fifth of the smallest GELU fault
FLOOR_FACTOR, FLOOR_SLACK = 8, 2e-6  # the slack covers outputs whose floor is small by chance, such as two classes
# Some images cannot be computed to RELATIVE in float32 at all, for example nearly constant patches in front of a norm. Such an
# image is allowed up to 2e-2, while the other images keep RELATIVE. Its floor varies widely from run to run, hence the factor.
ILL_FACTOR, ILL_CONDITIONED = 32, 2e-2


@dataclass(frozen=True)
class Tolerance:
    """Limits for one precision: the largest difference relative to the largest value, and the angle (1 - cosine)."""

    relative: float
    angle: float  # 1.0 for fp32, where the relative limit is far stricter

    def allowed(self, floors: Array, unmeasured: float = np.inf) -> Array:
        """Return the relative difference allowed for each image, given its floor; `unmeasured` stands for those that are NaN."""
        if self is not TOLERANCES["fp32"]:
            return np.full(len(floors), self.relative)
        floors = np.where(np.isnan(floors), unmeasured, floors)
        measured = FLOOR_FACTOR * floors + FLOOR_SLACK
        usual = min(self.relative, measured.max())
        ill = np.isfinite(measured) & (measured > self.relative)
        return np.where(ill, np.minimum(ILL_FACTOR * floors, ILL_CONDITIONED), usual)  # type: ignore[no-any-return]


TOLERANCES = {"fp32": Tolerance(RELATIVE, 1.0), "fp16": Tolerance(5e-3, 1e-5), "bf16": Tolerance(3e-2, 3e-4)}
TOLERANCE_RECORD: dict[str, Any] = {name: asdict(tolerance) for name, tolerance in TOLERANCES.items()} | {  # for the report
    "floor_factor": FLOOR_FACTOR,
    "floor_slack": FLOOR_SLACK,
    "ill_factor": ILL_FACTOR,
    "ill_conditioned": ILL_CONDITIONED,
}


class Comparison(BaseModel):
    """One output of one run compared with the reference; figures of the worst image, relative to its tolerance.

    `max_abs`, `relative` and `angle` are null if the output is not finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: str
    batch: int
    optimised: bool
    size: tuple[int, int]
    worst_input: str
    max_abs: float | None
    relative: float | None  # largest difference over the largest value of that image's result
    angle: float | None  # 1 - cosine
    divergence: float | None  # Kullback-Leibler, in nats; logits only
    top1: float | None  # share of images that agree; logits only
    top5: float | None
    floor: float | None  # relative difference of torch's float32 from float64; null if the figures are relative to float32
    allowed: float
    ok: bool


def relative(actual: Array, expected: Array) -> Array:
    """Return each image's largest difference, relative to the largest expected value of that image."""
    return _largest(actual - expected) / _scale(expected)


def judge(
    actual: Array,
    expected: Array,
    *,
    floors: Array,
    tolerance: Tolerance,
    names: Sequence[str],
    where: dict[str, Any],
    logits: bool,
    unmeasured: float = np.inf,
) -> tuple[str | None, Comparison]:
    """Compare one output image by image. Return a fault, or None, and the comparison.

    Both arrays have the same shape. `floors` has one value for each image, and `names` names the images. `where` holds the
    fields of the comparison that identify the run: `output`, `optimised` and `size`. `logits` adds the scores of classes.
    `unmeasured` stands for floors that are NaN: infinity if none is known, 0 if none was needed.
    """
    actual = actual.astype("<f8")
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity become a fault, not a warning
        error, scale = _largest(actual - expected), _scale(expected)
        turned = angles(actual, expected)
        allowed = tolerance.allowed(floors, unmeasured)
        within = (error <= allowed * scale) & (turned <= tolerance.angle)  # False for NaN and infinity on either side
        sizes = np.where(np.isfinite(error), error / scale, np.inf)
        share = np.where(np.isfinite(sizes), np.maximum(sizes / allowed, turned / tolerance.angle), np.inf)
        if np.isfinite(floors).any():  # the others were not farther from float32, and pass
            share = np.where(np.isfinite(floors) | ~within, share, -1)
        worst = int(share.argmax())
    finite = bool(np.isfinite(sizes).all())
    scores = _scores(actual, expected) if logits and finite else {}
    comparison = Comparison(
        **where,
        batch=len(names),
        worst_input=names[worst],
        max_abs=float(error[worst]) if finite else None,
        relative=float(sizes[worst]) if finite else None,
        angle=float(turned[worst]) if finite else None,
        divergence=scores.get("divergence"),
        top1=scores.get("top1"),
        top5=scores.get("top5"),
        floor=float(floors[worst]) if np.isfinite(floors[worst]) else None,
        allowed=float(allowed[worst]),
        ok=bool(within.all()),
    )
    if comparison.ok:
        return None, comparison
    if not finite:
        return f"image '{names[worst]}': not finite", comparison
    if error[worst] <= allowed[worst] * scale[worst]:
        return f"image '{names[worst]}': 1 - cosine {turned[worst]:.1e}, allowed {tolerance.angle:.1e}", comparison
    return f"image '{names[worst]}': relative difference {sizes[worst]:.1e}, allowed {allowed[worst]:.1e}", comparison


class Agreement(BaseModel):
    """Agreement of a quantised file with its model over many images. It counts as an approximation, never as parity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: str
    images: int
    decibels: float | None  # signal to quantisation noise over all values; null if the output is not finite
    angle: float | None  # 1 - cosine of the worst image; null for a single value too, which has no direction
    top1: float | None  # share of images with the same first class; logits of classes of which one applies only
    ok: bool

    def __str__(self) -> str:
        size = "not finite" if self.decibels is None else f"{self.decibels:.1f} dB"
        size += "" if self.angle is None else f", 1 - cosine {self.angle:.1e}"
        return size + ("" if self.top1 is None else f", top-1 agreement {100 * self.top1:.1f} %")


# What the agreement of a file with its model is counted on: the first class, which of several classes apply, or for features the
# nearest neighbour of each image among the others
Agreeing = Literal["classes", "decisions", "neighbours"]
AGREEING: dict[Agreeing, str] = {
    "classes": "top-1 agreement",
    "decisions": "agreement on the classes that apply",
    "neighbours": "nearest-neighbour agreement",
}


class Judgement(BaseModel):
    """Results of a quantised file on real images: agreement with the model, and accuracy where classes are known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    agreement: float | None  # null for a regression, and for too few images
    accuracy: float | None
    accuracy_before: float | None  # accuracy of the float model
    min_agreement: float | None
    min_accuracy: float | None
    kept: tuple[str, ...]  # layers left in float, the most sensitive first
    agreeing: Agreeing = "classes"  # what the agreement counts; this and the next fields are omitted if they have their default
    cosine: float | None = None  # lowest cosine of an image's output with the model's
    min_cosine: float | None = None
    neighbours: float | None = None  # mean share of the ten nearest neighbours that stay; null where fewer images are measured
    min_neighbours: float | None = None

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {"agreeing": "classes", **dict.fromkeys(("cosine", "min_cosine", "neighbours", "min_neighbours"))}
        return {name: value for name, value in handler(self).items() if name not in defaults or value != defaults[name]}

    @property
    def ok(self) -> bool:
        return not any(_misses(*pair) for pair in self._required())

    def _required(self) -> list[tuple[float | None, float | None]]:
        """Return each figure with its minimum."""
        return [
            (self.agreement, self.min_agreement), (self.accuracy, self.min_accuracy), (self.cosine, self.min_cosine),
            (self.neighbours, self.min_neighbours),
        ]  # fmt: skip

    def __str__(self) -> str:
        share = "{:.2%}".format
        agreement, accuracy, cosine, neighbours = self._required()
        texts = [
            _figure(AGREEING[self.agreeing], *agreement, share),
            _figure("10 nearest neighbours kept", *neighbours, share),
            _figure("lowest cosine", *cosine, "{:.4f}".format),
        ]
        text = f"{', '.join(filter(None, texts)) or 'judged'} on {self.images} real images"
        if self.accuracy_before is not None:
            text += f", {_figure('accuracy', *accuracy, share)} (float model: {100 * self.accuracy_before:.2f} %)"
        return text + (f"; layers left in float: {', '.join(self.kept)}" if self.kept else "")


def _misses(value: float | None, minimum: float | None) -> bool:
    return minimum is not None and (value is None or value < minimum)


def _figure(name: str, value: float | None, minimum: float | None, form: Callable[[float], str]) -> str:
    """Return a figure as text, with its minimum if it misses that; nothing if it was not measured."""
    if value is None:
        return ""
    missed = f", required {form(minimum)}" if minimum is not None and value < minimum else ""
    return f"{name} {form(value)}{missed}".replace("%", " %")


INT8_IMAGES = 64  # images that an int8 file is measured on


@dataclass(frozen=True)
class Int8Limits:
    """What an int8 file must meet on these images: decibels over all values, angle (1 - cosine) of each image, top-1 share."""

    decibels: float = 25.0
    angle: float = 2e-3
    top1: float = 0.90

    @staticmethod
    def of(min_cosine: float | None) -> Int8Limits:
        """Return the limits with another cosine, and the decibels that it leaves to an output of the right length."""
        if min_cosine is None:
            return INT8_LIMITS
        angle = 1 - min_cosine
        return Int8Limits(min(INT8_LIMITS.decibels, -10 * float(np.log10(2 * angle))), angle)

    def text(self, measured: Agreement) -> str:
        """Return the limits of the figures that were measured."""
        text = f"{self.decibels:.1f} dB" + ("" if measured.angle is None else f", 1 - cosine {self.angle:.1e}")
        return text + ("" if measured.top1 is None else f", top-1 agreement {100 * self.top1:.0f} %")

    def allow(self, decibels: float, angle: float | None, top1: float | None) -> bool:
        """Return whether the figures are within the limits. None: not measured."""
        within = decibels >= self.decibels and (angle is None or angle <= self.angle)
        return within and (top1 is None or top1 >= self.top1)


INT8_LIMITS = Int8Limits()


def check_cosine(min_cosine: float | None) -> None:
    """Raise InputError for a cosine that is no limit; 1 would allow no rounding at all."""
    if min_cosine is not None and not 0 < min_cosine < 1:
        raise InputError(f"min_cosine must be above 0 and below 1, got {min_cosine}")


def agreement(output: str, actual: Array, expected: Array, *, logits: bool, limits: Int8Limits = INT8_LIMITS) -> Agreement:
    """Measure how far an output of an int8 file is from the model's over many images.

    `logits`: it scores classes of which one applies.
    """
    actual = actual.astype("<f8")
    finite = bool(np.isfinite(actual).all() and np.isfinite(expected).all())
    if not finite:
        return Agreement(output=output, images=len(expected), decibels=None, angle=None, top1=None, ok=False)
    noise = float(np.square(actual - expected).sum())
    decibels = 10 * np.log10(float(np.square(expected).sum()) / noise) if noise else 300.0
    angle = float(angles(actual, expected).max()) if expected[0].size > 1 else None
    top1 = _scores(actual, expected)["top1"] if logits else None
    ok = limits.allow(decibels, angle, top1)
    return Agreement(output=output, images=len(expected), decibels=decibels, angle=angle, top1=top1, ok=ok)


def _largest(x: Array) -> Array:
    return np.abs(x.reshape(len(x), -1)).max(axis=1)  # type: ignore[no-any-return]


def _scale(expected: Array) -> Array:
    """Return the largest value of each image's result, or 1 where all values are 0."""
    scale = _largest(expected)
    return np.where(scale > 0, scale, 1)


def angles(actual: Array, expected: Array) -> Array:
    """Return 1 - cosine for each image, computed from the difference of unit vectors, which loses no digits."""
    a, b = (x.reshape(len(x), -1).astype("<f8") for x in (actual, expected))
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    a, b = (x / np.where(length > 0, length, 1) for x, length in zip((a, b), lengths, strict=True))
    return np.square(a - b).sum(axis=1) / 2  # type: ignore[no-any-return]


def _scores(actual: Array, expected: Array) -> dict[str, float]:
    """Compare the classes that two sets of logits rank first, and their distributions."""
    p, q = (np.maximum(softmax(x), 1e-300) for x in (expected, actual))  # whose logarithms are finite
    five = min(5, expected.shape[-1])
    theirs, ours = (np.argsort(-x, axis=-1, kind="stable")[..., :five] for x in (expected, actual))
    return {
        "top1": float((theirs[..., 0] == ours[..., 0]).mean()),
        "top5": float(np.mean([set(a) == set(b) for a, b in zip(theirs.reshape(-1, five), ours.reshape(-1, five), strict=True)])),
        "divergence": float((p * (np.log(p) - np.log(q))).sum(axis=-1).max()),
    }
