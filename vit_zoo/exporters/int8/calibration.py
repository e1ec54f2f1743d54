"""Calibration of int8 layers on real images: range and smoothing of each layer's input, integer weights, bias correction.

Smoothing follows Xiao et al., 2023 (SmoothQuant), section 4, and bias correction Nagel et al., 2019, section 4.2. For each
layer, the strength of smoothing and the clipping of the range are those with the least error in the layer's own outputs. The
integers of the weights are chosen after that, so that the errors of channels that vary together cancel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.graph.int8_ops import Layer, Quantisation, bias_of, least_steps, quantisable, smoothable
from vit_zoo.graph.int8_weights import compensated, nearest, row_steps
from vit_zoo.loading.from_module import of_module
from vit_zoo.progress import counted, step

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.model.vit import ViT

STRENGTHS = (0.0, 0.35, 0.5, 0.65, 0.8)  # SmoothQuant's alpha: how far outliers move from the input to the weights
CLIPPED = (1e-5, 1e-4, 1e-3)  # shares of the sampled values that are clipped at either end
MAX_ROWS, ROWS_PER_IMAGE = 768, 12  # rows of a layer's input that are recorded
LEVELS = 255


@dataclass
class LayerInputs:
    """Recorded inputs of one layer: the range of each channel, and a sample of rows."""

    low: Array
    high: Array
    rows: list[Array] = field(default_factory=list)


def calibrate_layers(model: ViT, batches: Iterable[Array]) -> Quantisation:
    """Calibrate every layer that int8 export quantises. Ranges cover all images, rows only the first ones."""
    paths = quantisable(model.spec)
    inputs = record_inputs(model, batches, paths)
    tensors = of_module(model, check=False).tensors
    layers: dict[str, Layer] = {}
    smoothing: dict[str, Array] = {}
    for path in counted(paths, "calibrating", len(paths), "layers"):
        weight = model.get_parameter(f"{path}.weight").detach().numpy()
        strengths = STRENGTHS if smoothable(path, model.spec) is not None else STRENGTHS[:1]
        bias = bias_of(tensors, path)
        layers[path], factors = calibrate_layer(inputs[path], weight, 0.0 if bias is None else bias(), strengths)
        if factors is not None:
            smoothing[path] = factors
    return Quantisation(layers, smoothing)


def record_inputs(model: ViT, batches: Iterable[Array], paths: Iterable[str]) -> dict[str, LayerInputs]:
    """Run the model and record the inputs of the named layers. The hooks make the last block compute every token."""
    import torch

    inputs: dict[str, LayerInputs] = {}
    random = np.random.default_rng(0)

    def record(path: str, x: Array) -> None:
        rows = x.reshape(-1, x.shape[-1])
        low, high = rows.min(axis=0), rows.max(axis=0)
        layer = inputs.setdefault(path, LayerInputs(low, high))
        layer.low, layer.high = np.minimum(layer.low, low), np.maximum(layer.high, high)
        for image in x.reshape(len(x), -1, x.shape[-1]):
            if sum(map(len, layer.rows)) < MAX_ROWS:  # the class token, the row with the largest value, and random ones
                extreme = int(np.abs(image).max(axis=1).argmax())
                layer.rows.append(image[[0, extreme, *random.integers(0, len(image), ROWS_PER_IMAGE - 2)]])

    def hook(path: str) -> Any:
        return lambda module, args: record(path, args[0].detach().numpy())

    handles = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    try:
        with torch.inference_mode(), step("running the model on calibration images", unit="images") as progress:
            for images in batches:
                model(torch.from_numpy(images))
                progress.advance(len(images))
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def calibrate_layer(
    inputs: LayerInputs, weight: Array, bias: Array | float, strengths: Iterable[float]
) -> tuple[Layer, Array | None]:
    """Choose the range and the smoothing strength with the least error in the layer's outputs for the recorded rows.

    Return the layer, with its integer weights and bias correction, and the smoothing factors of its input channels, or None.
    """
    rows = np.concatenate(inputs.rows)
    expected = rows @ weight.T
    best: tuple[float, float, int, Array | None] | None = None
    for strength in strengths:
        factors = _smoothing_factors(np.maximum(-inputs.low, inputs.high), weight, strength) if strength else None
        by = 1 if factors is None else factors
        scaled, matrix = rows / by, weight * by
        matrix = nearest(matrix, row_steps(matrix)).values
        for low, high in _candidate_ranges(scaled, inputs.low / by, inputs.high / by):
            scale, zero = step_and_zero(low, high)
            # the variance leaves out the mean error, which the bias correction removes
            error = float((expected - fake_quantised(scaled, scale, zero) @ matrix.T).var(axis=0).sum())
            if best is None or error < best[0]:
                best = error, scale, zero, factors
    assert best is not None
    _, scale, zero, factors = best
    by = 1 if factors is None else factors
    quantised, matrix = fake_quantised(rows / by, scale, zero), weight * by
    rounded = compensated(matrix, row_steps(matrix, least=least_steps(bias, scale)), quantised)
    bias_correction = (expected - quantised @ rounded.values.T).mean(axis=0)
    return Layer(scale, zero, bias_correction.astype("<f4"), rounded), factors


def step_and_zero(low: float, high: float) -> tuple[float, int]:
    """Return the step, rounded to float32, and the zero point of 256 levels over a range, extended to include 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = float(np.float32((high - low) / LEVELS)) if high > low else 1.0
    return step, int(np.clip(np.rint(-low / step), 0, LEVELS))


def fake_quantised(x: Array, step: float, zero: int) -> Array:
    """Quantise values to uint8 and dequantise them again: float32."""
    return ((np.clip(np.rint(x / np.float32(step)) + zero, 0, LEVELS) - zero) * np.float32(step)).astype("<f4")  # type: ignore[no-any-return]


def _candidate_ranges(scaled: Array, low: Array, high: Array) -> list[tuple[float, float]]:
    """Return the full range, and one for each share of clipped values."""
    cuts = np.quantile(scaled, [*CLIPPED, *(1 - share for share in CLIPPED)]).tolist()
    return [(float(low.min()), float(high.max())), *zip(cuts[: len(CLIPPED)], cuts[len(CLIPPED) :], strict=True)]


def _smoothing_factors(largest: Array, weight: Array, strength: float) -> Array:
    """Return a factor for each channel, with a geometric mean of 1: it divides the input and multiplies the weights."""
    columns = np.abs(weight).max(axis=0)
    usable = (largest > 0) & (columns > 0)
    raw = np.where(usable, np.maximum(largest, 1e-6) ** strength / np.maximum(columns, 1e-6) ** (1 - strength), 1.0)
    middle = np.exp(np.log(raw[usable]).mean()) if usable.any() else 1.0
    return np.where(usable, np.clip(raw / middle, 1e-3, 1e3), 1.0).astype("<f4")
