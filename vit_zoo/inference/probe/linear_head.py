"""Fit of a linear head on features: multinomial logistic regression by scikit-learn's L-BFGS, on standardised features."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import MissingDependency, notice
from vit_zoo.progress import counted

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array

# scikit-learn's C, the inverse of the regularisation: from the strongest, so that each fit starts at the one before it
GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
HELD_OUT = 0.2  # share of each class that the accuracy is measured on
UNTUNED = 1.0  # where no class has images to choose by: scikit-learn's default
VALIDATION = 0.2  # share of the images for the fit by which the regularisation is chosen
MAX_STEPS, TOLERANCE = 5000, 1e-6  # of L-BFGS: a few hundred steps are usual, and 1e-4 is too coarse for weak regularisation


@dataclass(frozen=True)
class Split:
    """The indices of the images for the fit, of those among them that choose the regularisation, and of those held out."""

    fit: Array
    validation: Array
    held_out: Array


@dataclass(frozen=True)
class Trial:
    """A value of C that was tried, with its mean cross-entropy and its accuracy (0 to 1) on the images for validation."""

    C: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class LinearHead:
    """A head for features as the model computes them.

    Attributes:
        weight: float64 [classes, width].
        bias: float64 [classes].
        C: The regularisation.
        trials: The values that it was chosen from; none where there were too few images to choose.
    """

    weight: Array
    bias: Array
    C: float
    trials: tuple[Trial, ...]


def regression_class() -> Any:
    """Return scikit-learn's class. Raises MissingDependency."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingDependency("fitting a head needs scikit-learn", hint="pip install scikit-learn") from None
    return LogisticRegression


def split_by_class(classes: Array, share: float, seed: int) -> Split:
    """Hold out a share of the images of each class, at least one, and choose those for validation among the others.

    Args:
        classes: The class of each image, int [images]; each has at least 2.
        share: The share to hold out, between 0 and 1.
        seed: Seed of the random choice.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    parts: tuple[list[Array], ...] = ([], [], [])
    for k in range(int(classes.max()) + 1):
        images = random.permutation(np.flatnonzero(classes == k))
        held_out = min(max(1, round(share * len(images))), len(images) - 1)
        validation = round(VALIDATION * (len(images) - held_out))
        for part, chosen in zip(parts, np.split(images, [held_out, held_out + validation]), strict=True):
            part.append(chosen)
    held, validation_images, rest = (np.sort(np.concatenate(part)) for part in parts)
    return Split(np.sort(np.concatenate([rest, validation_images])), validation_images, held)


def fit_head(features: Array, classes: Array, split: Split) -> LinearHead:
    """Fit a head to the features of the images for the fit.

    The regularisation is the value of `GRID` with the smallest loss on the images for validation, when the head is fitted to the
    others; with it, the head is fitted to both. Standardisation is folded into weight and bias, which is exact.

    Args:
        features: float32 [images, width].
        classes: int [images]; each class is among the images for the fit.
        split: The images to use.
    """
    import numpy as np

    trials: tuple[Trial, ...] = ()
    chosen = UNTUNED
    if len(split.validation):
        others = np.setdiff1d(split.fit, split.validation)
        trials = tuple(_trials(features, classes, others, split.validation))
        chosen = min(trials, key=lambda trial: trial.loss).C
    else:
        notice(f"too few images to choose the regularisation: C = {UNTUNED:g}")
    weight, bias = _fitter(features[split.fit], classes[split.fit])(chosen)
    return LinearHead(weight, bias, chosen, trials)


def accuracy_of(logits: Array, classes: Array) -> float:
    """Return the share of the rows whose largest value is that of the class."""
    return float((logits.argmax(axis=1) == classes).mean())


def _trials(features: Array, classes: Array, others: Array, validation: Array) -> Iterator[Trial]:
    """Yield a trial of each value of the grid."""
    fit = _fitter(features[others], classes[others])
    for C in counted(GRID, "choosing the regularisation", len(GRID), "values"):
        weight, bias = fit(C)
        logits = features[validation].astype("<f8") @ weight.T + bias
        yield Trial(C, _cross_entropy(logits, classes[validation]), accuracy_of(logits, classes[validation]))


def _fitter(features: Array, classes: Array) -> Callable[[float], tuple[Array, Array]]:
    """Return a function of C that fits a head for features as they are; each fit starts where the last one ended."""
    import numpy as np

    mean, std = features.mean(axis=0, dtype="<f8"), features.std(axis=0, dtype="<f8")
    std = np.where(std > np.abs(mean) * 1e-6, std, 1.0)  # features that are constant but for rounding stay as they are
    standardised = (features - mean) / std
    model = regression_class()(max_iter=MAX_STEPS, tol=TOLERANCE, warm_start=True)

    def fit(C: float) -> tuple[Array, Array]:
        model.set_params(C=C)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the limit of steps, which is told below
            model.fit(standardised, classes)
        if int(np.max(model.n_iter_)) >= MAX_STEPS:
            notice(f"the fit with C = {C:g} had not converged after {MAX_STEPS:,} steps")
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # two classes, of which scikit-learn has the difference of the logits
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight = weight / std
        return weight, bias - weight @ mean

    return fit


def _cross_entropy(logits: Array, classes: Array) -> float:
    """Return the mean cross-entropy of the classes."""
    import numpy as np

    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(classes)), classes]).mean())
