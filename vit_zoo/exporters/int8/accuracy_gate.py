"""Accuracy gate of int8 files on real images, and the ranking of layers by their sensitivity to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.errors import InputError, Option
from vit_zoo.exporters.int8.calibration import fake_quantised, step_and_zero
from vit_zoo.graph.int8_ops import Layer, Quantisation
from vit_zoo.graph.int8_weights import nearest, row_steps
from vit_zoo.loading.image_folder import ImageFolder
from vit_zoo.model.outputs import EMBEDDING
from vit_zoo.parity.neighbours import fewest_images, shared_neighbours
from vit_zoo.parity.tolerance import Agreeing, Judgement, angles
from vit_zoo.progress import counted, step

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.vit import ViT

RANKING_BATCHES = 1  # batches of images on which the sensitivity of layers is measured
NEIGHBOURS = 10  # of each image, whose share that stays is measured


@dataclass(frozen=True)
class Minima:
    """What the user requires of an int8 file on real images: shares of images, a cosine, and a share of neighbours."""

    agreement: float | None = None
    accuracy: float | None = None
    cosine: float | None = None
    neighbours: float | None = None

    @property
    def stated(self) -> bool:
        return any(value is not None for value in (self.agreement, self.accuracy, self.cosine, self.neighbours))

    def check(self, config: ModelConfig, output: str, agreeing: Agreeing | None) -> None:
        """Raise InputError for a minimum that cannot be measured on this output, with the one to use."""
        agree, turn, evaluate = Option("min_agreement", "SHARE"), Option("min_cosine", "COSINE"), Option("evaluate", "FOLDER")
        single = agreeing != "neighbours" and config.spec.num_classes == 1
        alone = f"{evaluate} alone holds the file to the limits of int8 files"
        if agreeing is None and config.problem_type is None and (self.agreement is not None or self.accuracy is not None):
            config.class_activation()  # raises: nothing states what a single output stands for
        if self.accuracy is not None and agreeing == "neighbours":
            fault = f"min_accuracy needs the output 'logits', and the file has '{output}'"
            hint = f"{agree} compares nearest neighbours, {turn} the features"
            raise InputError(fault, where=config.name, hint=hint, options=[agree, turn])
        if self.accuracy is not None and agreeing == "decisions":
            fault = "min_accuracy counts images of one class each, and here several or none can apply"
            raise InputError(fault, where=config.name, hint=f"use {agree}", options=[agree])
        if agreeing is None and (self.agreement is not None or self.accuracy is not None):
            hint = alone if single else f"{alone}, {turn} to another one"
            fault = "min_agreement and min_accuracy count classes, and the model is a regression"
            raise InputError(fault, where=config.name, hint=hint, options=[evaluate, turn])
        if self.neighbours is not None and agreeing != "neighbours":
            fault = f"min_neighbours compares features, and the file has '{output}'"
            hint = alone if agreeing is None else f"use {agree}"
            raise InputError(fault, where=config.name, hint=hint, options=[evaluate, agree])
        if self.cosine is not None and single:
            hint = alone if agreeing is None else f"use {agree}"
            fault = "min_cosine does not apply: a single output has no direction"
            raise InputError(fault, where=config.name, hint=hint, options=[evaluate, agree])


def judged_output(config: ModelConfig, outputs: Sequence[str]) -> tuple[str, Agreeing | None]:
    """Return the output that a gate judges, and what its agreement counts; None for values, or where nothing states it."""
    output = next((name for name in ("logits", "probabilities", EMBEDDING, "pooler_output") if name in outputs), outputs[0])
    if not config.classes or output not in ("logits", "probabilities"):
        return output, "neighbours"
    return output, {"softmax": "classes", "sigmoid": "decisions", None: None}[config.activation]


@dataclass(frozen=True)
class Outputs:
    """What a model or a file computes for the images of a gate, one row for each."""

    rows: Array  # of the images that are judged
    others: Array  # of further images among which nearest neighbours are searched

    @property
    def all(self) -> Array:
        return np.concatenate([self.rows, self.others])


@dataclass(frozen=True)
class Gate:
    """Requirements on a file, and the images on which they are measured: agreement, accuracy, lowest cosine, and neighbours.

    `agreeing` says what the agreement counts: the first class, which classes apply, or for features the nearest neighbour of
    each image among all images given; None for values. `output` is the file's output that is judged; one of tokens or
    maps is averaged over them.
    """

    images: ImageFolder
    output: str
    agreeing: Agreeing | None
    min_agreement: float | None = None
    min_accuracy: float | None = None
    min_cosine: float | None = None
    min_neighbours: float | None = None
    others: ImageFolder | None = None  # further images among which nearest neighbours are searched

    def __post_init__(self) -> None:
        if self.min_accuracy is not None and self.images.classes is None:
            hint = "put the images into folders named after labels or class indices"
            raise InputError("min_accuracy needs images of known classes", hint=hint)
        for minimum, k in ((self.min_agreement, 1), (self.min_neighbours, NEIGHBOURS)):
            if minimum is not None and not self._has_neighbours(k) and self.agreeing == "neighbours":
                images, least = Option("evaluate", "FOLDER"), fewest_images(k)
                few = f"{self._count} images are too few for {'' if k == 1 else f'{k} '}nearest neighbours"
                hint = f"name a folder with more images: {images}"
                raise InputError(f"{few}: at least {least} are needed", hint=hint, options=[images])

    @property
    def _count(self) -> int:
        return len(self.images.files) + (0 if self.others is None else len(self.others.files))

    def _has_neighbours(self, k: int) -> bool:
        """Return whether the outputs are features, of so many images that `k` nearest neighbours of each say something."""
        return self.agreeing == "neighbours" and self._count >= fewest_images(k)

    def outputs(self, run: Callable[[Array], Array], *, batched: bool) -> Outputs:
        """Return the outputs for all images. A file runs on one image at a time: dynamic ranges depend on the whole batch."""
        others = self.others if self.agreeing == "neighbours" else None
        rows, more = (
            [
                _pooled(run(x))
                for images in ([] if folder is None else folder.batches())
                for x in ([images] if batched else images[:, None])
            ]
            for folder in (self.images, others)
        )
        found = np.concatenate(rows)
        return Outputs(found, np.concatenate([found[:0], *more]))

    def model_outputs(self, model: ViT) -> Outputs:
        """Return the float model's outputs."""
        import torch

        def run(images: Array) -> Array:
            return model.features(torch.from_numpy(images), self.output)[self.output].numpy()

        with torch.inference_mode():
            return self.outputs(run, batched=True)

    def judge(self, artifact: Artifact, wanted: Outputs, float_layers: tuple[str, ...]) -> Judgement:
        """Compare a file's outputs with the model's (`wanted`), and with the classes of the images if they are known."""
        floats = f" with {len(float_layers)} layers in float" if float_layers else ""
        with step(f"running the int8 file{floats}", self._count, "images") as progress:

            def run(x: Array) -> Array:
                progress.advance(len(x))
                return artifact.run_any(x)[self.output]

            found = self.outputs(run, batched=False)
        correct = self.images.classes if self.agreeing == "classes" else None
        has_direction = found.rows.shape[1] > 1 and (self.agreeing == "neighbours" or self.min_cosine is not None)
        return Judgement(
            images=len(found.rows),
            agreement=self._agreement(found, wanted),
            accuracy=None if correct is None else _share_equal(found.rows.argmax(axis=1), correct),
            accuracy_before=None if correct is None else _share_equal(wanted.rows.argmax(axis=1), correct),
            min_agreement=self.min_agreement,
            min_accuracy=self.min_accuracy,
            kept=float_layers,
            agreeing=self.agreeing or "classes",
            cosine=1 - float(np.nan_to_num(angles(found.rows, wanted.rows), nan=2.0).max()) if has_direction else None,
            min_cosine=self.min_cosine,
            neighbours=self._neighbours(found, wanted, NEIGHBOURS),
            min_neighbours=self.min_neighbours,
        )

    def _agreement(self, found: Outputs, wanted: Outputs) -> float | None:
        if self.agreeing == "classes":
            return _share_equal(found.rows.argmax(axis=1), wanted.rows.argmax(axis=1))
        if self.agreeing == "decisions":
            least = 0.5 if self.output == "probabilities" else 0.0
            return float(np.mean(((found.rows > least) == (wanted.rows > least)).all(axis=1)))
        return self._neighbours(found, wanted, 1)

    def _neighbours(self, found: Outputs, wanted: Outputs, k: int) -> float | None:
        """Return the mean share of the `k` nearest neighbours that stay; None for other outputs, and for too few images."""
        if not self._has_neighbours(k):
            return None
        return float(shared_neighbours(found.all, wanted.all, k, count=len(found.rows)).mean())


def _pooled(x: Array) -> Array:
    """Return one row of values for each image: of tokens (b t d) or maps (b d H W) the mean."""
    return x if x.ndim == 2 else x.mean(axis=1 if x.ndim == 3 else (2, 3))


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


def rank_by_sensitivity(model: ViT, quantisation: Quantisation, kind: str, folder: ImageFolder, output: str) -> list[str]:
    """Return the layers in order of how much an output changes if that layer alone is rounded, the largest change first."""
    import torch

    images = [torch.from_numpy(x) for x in islice(folder.batches(), RANKING_BATCHES)]

    def run(x: Any) -> Any:
        return model.features(x, output)[output]

    with torch.inference_mode():
        expected = [run(x) for x in images]
        sensitivity = {}
        layers = quantisation.layers
        for path, layer in counted(layers.items(), "measuring the effect of each layer", len(layers), "layers"):
            with _rounded_layer(model, path, layer, quantisation.smoothing.get(path), kind):
                sensitivity[path] = sum(float((run(x) - y).square().sum()) for x, y in zip(images, expected, strict=True))
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
