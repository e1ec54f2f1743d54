"""What a model's linear layers see on real images, and from that how each rounds its input: range, smoothing, correction.

Smoothing after Xiao et al., 2023 (SmoothQuant), section 4; the correction of the mean after Nagel et al., 2019, section 4.2.
Both, and how much of the range is clipped, are chosen for each layer by the error that they leave in its own outputs. Then the
integers of its weights are chosen, so that the errors of channels that vary together cancel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.graph.int8_ops import Layer, Quantisation, bias_of, least_steps, quantisable, smoothable
from vit_zoo.graph.int8_weights import compensated, nearest, row_steps
from vit_zoo.loading.source import of_module

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.model.vit import ViT

STRENGTHS = (0.0, 0.35, 0.5, 0.65, 0.8)  # how much of a channel's outliers moves from the input to the weights
CLIPPED = (1e-5, 1e-4, 1e-3)  # share of the sampled values at either end that is cut off
ROWS, SEEN = 768, 12  # rows kept of a layer's input, and how many of one image
LEVELS = 255


@dataclass
class Seen:
    """What went into one layer: each channel's range, and rows of it."""

    low: Array
    high: Array
    rows: list[Array] = field(default_factory=list)


def calibrated(model: ViT, batches: Iterable[Array]) -> Quantisation:
    """Ranges, factors and corrections of every layer that int8 is worth for. The rows are those of the first images."""
    wanted = quantisable(model.spec)
    seen = watched(model, batches, wanted)
    tensors = of_module(model).tensors
    layers: dict[str, Layer] = {}
    smoothing: dict[str, Array] = {}
    for path in wanted:
        weight = model.get_parameter(f"{path}.weight").detach().numpy()
        strengths = STRENGTHS if smoothable(path, model.spec) is not None else STRENGTHS[:1]
        bias = bias_of(tensors, path)
        layers[path], factors = settled(seen[path], weight, 0.0 if bias is None else bias(), strengths)
        if factors is not None:
            smoothing[path] = factors
    return Quantisation(layers, smoothing)


def watched(model: ViT, batches: Iterable[Array], paths: Iterable[str]) -> dict[str, Seen]:
    """The inputs of layers over some images. Hooks keep the last block from leaving tokens out."""
    import torch

    seen: dict[str, Seen] = {}
    random = np.random.default_rng(0)

    def note(path: str, x: Array) -> None:
        rows = x.reshape(-1, x.shape[-1])
        low, high = rows.min(axis=0), rows.max(axis=0)
        at = seen.setdefault(path, Seen(low, high))
        at.low, at.high = np.minimum(at.low, low), np.maximum(at.high, high)
        for image in x.reshape(len(x), -1, x.shape[-1]):
            if sum(map(len, at.rows)) < ROWS:  # the class token, the row with the largest value, and some others
                extreme = int(np.abs(image).max(axis=1).argmax())
                at.rows.append(image[[0, extreme, *random.integers(0, len(image), SEEN - 2)]])

    def hook(path: str) -> Any:
        return lambda module, args: note(path, args[0].detach().numpy())

    handles = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    try:
        with torch.inference_mode():
            for images in batches:
                model(torch.from_numpy(images))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def settled(seen: Seen, weight: Array, bias: Array | float, strengths: Iterable[float]) -> tuple[Layer, Array | None]:
    """The setting that leaves the least error in the layer's outputs for the rows that were kept."""
    rows = np.concatenate(seen.rows)
    wanted = rows @ weight.T
    best: tuple[float, float, int, Array | None] | None = None
    for strength in strengths:
        factors = _factors(np.maximum(-seen.low, seen.high), weight, strength) if strength else None
        by = 1 if factors is None else factors
        scaled, matrix = rows / by, weight * by
        matrix = nearest(matrix, row_steps(matrix)).values
        for low, high in _ranges(scaled, seen.low / by, seen.high / by):
            scale, zero = step_of(low, high)
            error = float((wanted - stepped(scaled, scale, zero) @ matrix.T).var(axis=0).sum())  # the mean is corrected
            if best is None or error < best[0]:
                best = error, scale, zero, factors
    assert best is not None
    _, scale, zero, factors = best
    by = 1 if factors is None else factors
    given, matrix = stepped(rows / by, scale, zero), weight * by
    rounded = compensated(matrix, row_steps(matrix, least=least_steps(bias, scale)), given)
    lost = (wanted - given @ rounded.values.T).mean(axis=0)
    return Layer(scale, zero, lost.astype("<f4"), rounded), factors


def step_of(low: float, high: float) -> tuple[float, int]:
    """The step and the zero of 256 levels over a range, which includes 0; float32's value of the step."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = float(np.float32((high - low) / LEVELS)) if high > low else 1.0
    return step, int(np.clip(np.rint(-low / step), 0, LEVELS))


def stepped(x: Array, step: float, zero: int) -> Array:
    return ((np.clip(np.rint(x / np.float32(step)) + zero, 0, LEVELS) - zero) * np.float32(step)).astype("<f4")  # type: ignore[no-any-return]


def _ranges(scaled: Array, low: Array, high: Array) -> list[tuple[float, float]]:
    cuts = np.quantile(scaled, [*CLIPPED, *(1 - share for share in CLIPPED)]).tolist()
    return [(float(low.min()), float(high.max())), *zip(cuts[: len(CLIPPED)], cuts[len(CLIPPED) :], strict=True)]


def _factors(largest: Array, weight: Array, strength: float) -> Array:
    """Per channel, around 1: the input is divided by it, the weights multiplied."""
    columns = np.abs(weight).max(axis=0)
    usable = (largest > 0) & (columns > 0)
    raw = np.where(usable, np.maximum(largest, 1e-6) ** strength / np.maximum(columns, 1e-6) ** (1 - strength), 1.0)
    middle = np.exp(np.log(raw[usable]).mean()) if usable.any() else 1.0
    return np.where(usable, np.clip(raw / middle, 1e-3, 1e3), 1.0).astype("<f4")
