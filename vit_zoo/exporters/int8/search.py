"""Search for an int8 file that meets its accuracy gate: calibrate, write, measure, and write again with layers in float."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.exporters.int8.accuracy_gate import Gate, fewest_float_layers, rank_by_sensitivity
from vit_zoo.exporters.int8.calibration import calibrate_layers
from vit_zoo.formats import open_artifact
from vit_zoo.graph.int8_ops import Layer, Quantisation, quantisable
from vit_zoo.loading.image_folder import BATCH, MAX_CALIBRATION, MAX_EVALUATION, ImageFolder, read_image_folder
from vit_zoo.parity.inputs import Frame, photo_crops
from vit_zoo.parity.tolerance import INT8_IMAGES

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.graph.options import Precision
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.parity.reference import Live
    from vit_zoo.parity.tolerance import Judgement

BUILT_IN = 64  # photo crops: as many as calibration records rows of

# Writes the file with the named layers in float and the others quantised, and returns its path.
Write = Callable[[tuple[str, ...], Quantisation], Path]


@dataclass(frozen=True)
class Int8Search:
    """Options of an int8 export: its kind, and the images for calibration and the accuracy gate, if given."""

    kind: str  # a precision: int8-static, int8-dynamic or int8-weights
    calibration: ImageFolder | None
    gate: Gate | None

    def run(self, live: Live, write: Write) -> Judgement | None:
        """Call `write` until the gate passes with as few layers in float as possible.

        Return the results of the last file written, or None without a gate. If the gate cannot pass, the last file has every
        layer in float.
        """
        quantisation = self._quantisation(live)
        if self.gate is None:
            write((), quantisation)
            return None
        gate, model_classes = self.gate, self.gate.model_classes(live.model)

        def judged(layers: Iterable[str]) -> Judgement:
            float_layers = tuple(layers)
            artifact = open_artifact(write(float_layers, _without(quantisation, float_layers)))
            return gate.judge(artifact, model_classes, float_layers)

        judgement = judged(())
        if judgement.ok:
            return judgement
        ranking = rank_by_sensitivity(live.model, quantisation, self.kind, gate.images)
        tried: dict[int, Judgement] = {}

        def passes(count: int) -> bool:
            tried[count] = judged(ranking[:count])
            return tried[count].ok

        count = fewest_float_layers(passes, len(ranking)) or len(ranking)
        if count != list(tried)[-1]:  # the file on disk is from the last try
            judged(ranking[:count])
        return tried[count]

    def pictures(self) -> Array | None:
        """Return prepared real images to measure the file on: b c H W; None if no folder is given."""
        images = self.gate.images if self.gate is not None else self.calibration
        return None if images is None else images.stack(INT8_IMAGES)

    def _quantisation(self, live: Live) -> Quantisation:
        if self.kind == "int8-weights":
            return Quantisation({path: Layer() for path in quantisable(live.source.config.spec)})
        if self.calibration is None:  # crops of the built-in photographs, with another seed than `verify` uses
            config = live.source.config
            images = photo_crops(Frame.of(config.spec, config.preprocess), BUILT_IN, seed=1)
            quantisation = calibrate_layers(live.model, np.split(images, BUILT_IN // BATCH))
        else:
            quantisation = calibrate_layers(live.model, self.calibration.batches())
        if self.kind == "int8-static":
            return quantisation
        layers = {path: Layer(weight=layer.weight) for path, layer in quantisation.layers.items()}
        return Quantisation(layers, quantisation.smoothing)


def _without(quantisation: Quantisation, float_layers: tuple[str, ...]) -> Quantisation:
    layers = {path: layer for path, layer in quantisation.layers.items() if path not in float_layers}
    return Quantisation(layers, {path: factors for path, factors in quantisation.smoothing.items() if path in layers})


def int8_search(
    precision: Precision,
    config: ModelConfig,
    *,
    calibrate: str | os.PathLike[str] | None,
    evaluate: str | os.PathLike[str] | None,
    min_agreement: float | None,
    min_accuracy: float | None,
) -> Int8Search | None:
    """Return the search for an int8 export of a model, or None for another precision.

    The options are consistent already (`ExportOptions`). Raises InputError for missing images.
    """
    if not precision.startswith("int8"):
        return None
    gated = min_agreement is not None or min_accuracy is not None
    calibration = None if calibrate is None else read_image_folder(Path(calibrate), config)
    evaluation = None if evaluate is None else read_image_folder(Path(evaluate), config)
    if gated and evaluation is None and calibration is not None:
        calibration, evaluation = calibration.split()
    if precision == "int8-weights":
        calibration = None
    gate = None if evaluation is None else Gate(evaluation.sample(MAX_EVALUATION), min_agreement, min_accuracy)
    return Int8Search(precision, None if calibration is None else calibration.sample(MAX_CALIBRATION), gate)
