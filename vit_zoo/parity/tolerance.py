"""How far is too far: the rules of each precision, and one output of one run judged by them.

Measured for ViTs of 192 to 768 dimensions: torch's float32 is 2e-7 to 1.4e-6 from float64, relative to the largest value,
onnxruntime at most 2.9 times that; a tanh for an exact GELU is 5e-5 or more away, fp16 weights 6e-4, bf16 1.3e-2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

RELATIVE = 1e-5  # 7 to 10 times the floor measured above, a fifth of the smallest GELU fault
FLOOR_FACTOR, FLOOR_SLACK = 8, 2e-6  # the slack is for outputs whose floor is small by luck: two classes, say
# An image whose own float32 is so far from float64 that RELATIVE is out of reach (nearly constant patches in front of a norm)
# is allowed more, up to 2e-2; the others still decide at RELATIVE. Its floor is one draw from a wide range, hence the factor.
ILL_FACTOR, ILL_CONDITIONED = 32, 2e-2


@dataclass(frozen=True)
class Rule:
    """What a precision may cost: the largest difference relative to the largest value, and the angle, 1 - cosine."""

    relative: float
    angle: float  # fp32's relative difference is the stricter one by far

    def allowed(self, floors: Array) -> Array:
        """The relative difference allowed for images whose float32 is `floors` from float64; NaN: nobody measured it."""
        if self is not RULES["fp32"]:
            return np.full(len(floors), self.relative)
        measured = FLOOR_FACTOR * np.nan_to_num(floors, nan=np.inf) + FLOOR_SLACK
        usual = min(self.relative, measured.max())
        ill = np.isfinite(measured) & (measured > self.relative)
        return np.where(ill, np.minimum(ILL_FACTOR * floors, ILL_CONDITIONED), usual)  # type: ignore[no-any-return]


RULES = {"fp32": Rule(RELATIVE, 1.0), "fp16": Rule(5e-3, 1e-5), "bf16": Rule(3e-2, 3e-4)}
TOLERANCE: dict[str, Any] = {name: asdict(rule) for name, rule in RULES.items()} | {
    "floor_factor": FLOOR_FACTOR,
    "floor_slack": FLOOR_SLACK,
    "ill_factor": ILL_FACTOR,
    "ill_conditioned": ILL_CONDITIONED,
}


class Comparison(BaseModel):
    """One output of one run against the reference: its worst image, measured by what is allowed; None: not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: str
    batch: int
    optimised: bool
    size: tuple[int, int]
    worst_input: str
    max_abs: float | None
    relative: float | None  # of the largest value of that image's result
    angle: float | None  # 1 - cosine
    divergence: float | None  # Kullback-Leibler, nats; of logits alone
    top1: float | None  # share of images that agree; of logits alone
    top5: float | None
    floor: float | None  # torch's own float32 against float64, relative
    allowed: float
    ok: bool


def relative(found: Array, wanted: Array) -> Array:
    """The largest difference of each image, relative to the largest value of that image's result."""
    return _largest(found - wanted) / _scale(wanted)


def judge(
    found: Array, wanted: Array, *, floors: Array, rule: Rule, names: Sequence[str], where: dict[str, Any], logits: bool
) -> tuple[str | None, Comparison]:
    """The comparison of one output, image by image, and the fault if there is one. Shapes agree already."""
    found = found.astype("<f8")
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are judged, not warned of
        error, scale = _largest(found - wanted), _scale(wanted)
        angles = _angles(found, wanted)
        allowed = rule.allowed(floors)
        fine = (error <= allowed * scale) & (angles <= rule.angle)  # False for NaN and infinity on either side
        sizes = np.where(np.isfinite(error), error / scale, np.inf)
        worst = int(np.where(np.isfinite(sizes), np.maximum(sizes / allowed, angles / rule.angle), np.inf).argmax())
    finite = bool(np.isfinite(sizes).all())
    scores = _scores(found, wanted) if logits and finite else {}
    comparison = Comparison(
        **where,
        batch=len(names),
        worst_input=names[worst],
        max_abs=float(error[worst]) if finite else None,
        relative=float(sizes[worst]) if finite else None,
        angle=float(angles[worst]) if finite else None,
        divergence=scores.get("divergence"),
        top1=scores.get("top1"),
        top5=scores.get("top5"),
        floor=float(floors[worst]) if np.isfinite(floors[worst]) else None,
        allowed=float(allowed[worst]),
        ok=bool(fine.all()),
    )
    if comparison.ok:
        return None, comparison
    if not finite:
        return f"image '{names[worst]}': not finite", comparison
    if error[worst] <= allowed[worst] * scale[worst]:
        return f"image '{names[worst]}': 1 - cosine {angles[worst]:.1e}, {rule.angle:.1e} allowed", comparison
    return f"image '{names[worst]}': {sizes[worst]:.1e} relative, {allowed[worst]:.1e} allowed", comparison


class Agreement(BaseModel):
    """How near an approximation comes over many images: never called parity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: str
    images: int
    decibels: float | None  # signal to quantisation noise, over all values; None: not finite
    angle: float | None  # the worst image's 1 - cosine
    top1: float | None  # share of images whose first class agrees; of logits alone
    ok: bool

    def __str__(self) -> str:
        size = "not finite" if self.decibels is None else f"{self.decibels:.1f} dB, 1 - cosine {self.angle:.1e}"
        return size + ("" if self.top1 is None else f", the same first class for {100 * self.top1:.1f} %")


class Judgement(BaseModel):
    """How a file answers real images: the share with the model's first class, and of right ones where classes are known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    agreement: float
    accuracy: float | None
    accuracy_before: float | None  # the model's own
    min_agreement: float | None
    min_accuracy: float | None
    kept: tuple[str, ...]  # layers left in float, the guiltiest first

    @property
    def ok(self) -> bool:
        fine = self.min_agreement is None or self.agreement >= self.min_agreement
        return fine and (self.min_accuracy is None or (self.accuracy is not None and self.accuracy >= self.min_accuracy))

    def __str__(self) -> str:
        text = f"the model's first class for {100 * self.agreement:.2f} % of {self.images} real images"
        if self.accuracy is not None and self.accuracy_before is not None:
            text += f", {100 * self.accuracy:.2f} % right (the model: {100 * self.accuracy_before:.2f} %)"
        return text + (f"; left in float: {', '.join(self.kept)}" if self.kept else "")


DECIBELS, ANGLE, TOP1, IMAGES = 25.0, 2e-3, 0.90, 64  # what an int8 file must reach over that many images


def agreement(output: str, found: Array, wanted: Array, *, logits: bool) -> Agreement:
    found = found.astype("<f8")
    finite = bool(np.isfinite(found).all() and np.isfinite(wanted).all())
    if not finite:
        return Agreement(output=output, images=len(wanted), decibels=None, angle=None, top1=None, ok=False)
    noise = float(np.square(found - wanted).sum())
    decibels = 10 * np.log10(float(np.square(wanted).sum()) / noise) if noise else 300.0
    angle = float(_angles(found, wanted).max())
    top1 = _scores(found, wanted)["top1"] if logits else None
    ok = decibels >= DECIBELS and angle <= ANGLE and (top1 is None or top1 >= TOP1)
    return Agreement(output=output, images=len(wanted), decibels=decibels, angle=angle, top1=top1, ok=ok)


def _largest(x: Array) -> Array:
    return np.abs(x.reshape(len(x), -1)).max(axis=1)  # type: ignore[no-any-return]


def _scale(wanted: Array) -> Array:
    """The largest value of each image's result; 1 where all are 0."""
    scale = _largest(wanted)
    return np.where(scale > 0, scale, 1)


def _angles(found: Array, wanted: Array) -> Array:
    """1 - cosine of each image's result, from the difference of unit vectors, which keeps its digits."""
    a, b = (x.reshape(len(x), -1).astype("<f8") for x in (found, wanted))
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    a, b = (x / np.where(length > 0, length, 1) for x, length in zip((a, b), lengths, strict=True))
    return np.square(a - b).sum(axis=1) / 2  # type: ignore[no-any-return]


def _scores(found: Array, wanted: Array) -> dict[str, float]:
    """What logits are for: the classes they name, and their distributions."""
    p, q = _softmax(wanted), _softmax(found)
    five = min(5, wanted.shape[-1])
    first, best = (np.argsort(-x, axis=-1, kind="stable")[..., :five] for x in (wanted, found))
    return {
        "top1": float((first[..., 0] == best[..., 0]).mean()),
        "top5": float(np.mean([set(a) == set(b) for a, b in zip(first.reshape(-1, five), best.reshape(-1, five), strict=True)])),
        "divergence": float((p * (np.log(p) - np.log(q))).sum(axis=-1).max()),
    }


def _softmax(x: Array) -> Array:
    powers = np.exp(x.astype("<f8") - x.max(axis=-1, keepdims=True))
    return np.maximum(powers / powers.sum(axis=-1, keepdims=True), 1e-300)  # type: ignore[no-any-return]
