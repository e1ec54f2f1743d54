"""Accuracy gate of int8 files on real images, and the ranking of layers by their sensitivity to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.errors import InputError
from vit_zoo.exporters.int8.calibration import fake_quantised, step_and_zero
from vit_zoo.graph.int8_ops import Layer, Quantisation
from vit_zoo.graph.int8_weights import nearest, row_steps
from vit_zoo.loading.image_folder import ImageFolder
from vit_zoo.parity.tolerance import Judgement

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.model.vit import ViT

RANKING_BATCHES = 1  # batches of images on which the sensitivity of layers is measured


@dataclass(frozen=True)
class Gate:
    """Required agreement and accuracy of a file, and the images on which they are measured."""

    images: ImageFolder
    min_agreement: float | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.min_accuracy is not None and self.images.classes is None:
            hint = "put the images into folders named after labels or class indices"
            raise InputError("min_accuracy needs images of known classes", hint=hint)

    def model_classes(self, model: ViT) -> tuple[int, ...]:
        """Return the float model's first class for each image."""
        import torch

        classes: list[int] = []
        with torch.inference_mode():
            for images in self.images.batches():
                classes += model(torch.from_numpy(images)).argmax(dim=-1).tolist()
        return tuple(classes)

    def judge(self, artifact: Artifact, model_classes: tuple[int, ...], float_layers: tuple[str, ...]) -> Judgement:
        """Measure a file's agreement with the model, and its accuracy if the classes are known.

        Images run one at a time, since dynamic ranges would depend on the rest of a batch.
        """
        classes = [int(artifact.run(x[None])["logits"][0].argmax()) for images in self.images.batches() for x in images]
        correct = self.images.classes
        return Judgement(
            images=len(classes),
            agreement=_share_equal(classes, model_classes),
            accuracy=None if correct is None else _share_equal(classes, correct),
            accuracy_before=None if correct is None else _share_equal(model_classes, correct),
            min_agreement=self.min_agreement,
            min_accuracy=self.min_accuracy,
            kept=float_layers,
        )


def _share_equal(classes: Any, others: Any) -> float:
    return float(np.mean(np.asarray(classes) == np.asarray(others)))


def fewest_float_layers(passes: Callable[[int], bool], count: int) -> int | None:
    """Find the smallest number of the `count` ranked layers that must stay in float for the gate to pass.

    The number is doubled until it passes, then found by bisection. None if the gate fails even with all layers in float.
    """
    failing, tried = 0, 1
    while not passes(tried):
        if tried == count:
            return None
        failing, tried = tried, min(2 * tried, count)
    while tried - failing > 1:
        middle = (tried + failing) // 2
        if passes(middle):
            tried = middle
        else:
            failing = middle
    return tried


def rank_by_sensitivity(model: ViT, quantisation: Quantisation, kind: str, folder: ImageFolder) -> list[str]:
    """Return the layers in order of how much the outputs change if that layer alone is rounded, the largest change first."""
    import torch

    images = [torch.from_numpy(x) for x in islice(folder.batches(), RANKING_BATCHES)]
    with torch.inference_mode():
        expected = [model(x) for x in images]
        sensitivity = {}
        for path, layer in quantisation.layers.items():
            with _rounded_layer(model, path, layer, quantisation.smoothing.get(path), kind):
                sensitivity[path] = sum(float((model(x) - y).square().sum()) for x, y in zip(images, expected, strict=True))
    return sorted(sensitivity, key=lambda path: -sensitivity[path])


@contextmanager
def _rounded_layer(model: ViT, path: str, layer: Layer, factors: Array | None, kind: str) -> Iterator[None]:
    """Round one layer of the model as an int8 file of this kind does, within the context."""
    import torch

    module, by = model.get_submodule(path), 1 if factors is None else factors
    matrix = model.get_parameter(f"{path}.weight").numpy() * by
    matrix = (layer.weight or nearest(matrix, row_steps(matrix, paired=kind != "int8-weights"))).values

    def rounded_output(m: Any, args: Any, output: Any) -> Any:
        x = args[0].numpy() / by
        if kind != "int8-weights":
            static = kind == "int8-static"
            step, zero = (layer.scale, layer.zero) if static else step_and_zero(float(x.min()), float(x.max()))
            x = fake_quantised(x, step, zero)
        y = torch.from_numpy(x @ matrix.T + (0 if layer.bias_correction is None else layer.bias_correction))
        return y if m.bias is None else y + m.bias

    handle = module.register_forward_hook(rounded_output)
    try:
        yield
    finally:
        handle.remove()
