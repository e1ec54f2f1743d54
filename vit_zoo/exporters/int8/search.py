"""Search for an int8 file that meets its accuracy gate: calibrate, write, measure, and write again with layers in float."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.exporters.int8.accuracy_gate import Gate, Minima, fewest_float_layers, judged_output, rank_by_sensitivity
from vit_zoo.exporters.int8.calibration import calibrate_layers
from vit_zoo.formats import open_in
from vit_zoo.graph.int8_ops import Layer, Quantisation, quantisable
from vit_zoo.loading.image_folder import BATCH, MAX_CALIBRATION, MAX_EVALUATION, ImageFolder, read_image_folder
from vit_zoo.parity.inputs import Frame, photo_crops
from vit_zoo.parity.run import are_classes, run_all
from vit_zoo.parity.tolerance import INT8_IMAGES, Int8Limits, agreement

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.graph.options import Precision
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.parity.live import Live
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

    @property
    def limits(self) -> Int8Limits:
        """What the file must meet in its parity check: a cosine that the user states takes the place of the usual limits."""
        return Int8Limits.of(None if self.gate is None else self.gate.min_cosine)

    def run(self, live: Live, write: Write) -> Judgement | None:
        """Call `write` until the file passes the gate and the limits of int8 files with as few layers in float as possible.

        Return the results of the last file written, or None without a gate. If no file can pass, the last one has every layer
        in float.
        """
        quantisation = self._quantisation(live)
        if self.gate is None:
            write((), quantisation)
            return None
        gate, wanted = self.gate, self.gate.model_outputs(live.model)
        limited = _Limited(live, gate_pictures(gate), self.limits)
        ranking: list[str] = []
        tried: dict[int, Judgement] = {}

        def passes(count: int) -> bool:
            float_layers = tuple(ranking[:count])
            artifact = open_in(None, write(float_layers, _without(quantisation, float_layers)))
            tried[count] = gate.judge(artifact, wanted, float_layers)
            return tried[count].ok and limited.allow(artifact)

        if passes(0):
            return tried[0]
        ranking += rank_by_sensitivity(live.model, quantisation, self.kind, gate.images, gate.output)

        count = fewest_float_layers(passes, len(ranking)) or len(ranking)
        if count != list(tried)[-1]:  # the file on disk is from the last try
            passes(count)
        return tried[count]

    def pictures(self) -> Array | None:
        """Return prepared real images to measure the file on: b c H W; None if no folder is given."""
        if self.gate is not None:
            return gate_pictures(self.gate)
        return None if self.calibration is None else self.calibration.stack(INT8_IMAGES)

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


class _Limited:
    """The limits of int8 files on the images of their parity check, for a file that is not checked otherwise yet."""

    def __init__(self, live: Live, pictures: Array, limits: Int8Limits) -> None:
        self.live, self.pictures, self.limits = live, pictures, limits
        self.expected: dict[str, Array] = {}

    def allow(self, artifact: Artifact) -> bool:
        """Return whether every output of the file is within the limits."""
        reference = self.live.reference
        if not self.expected:
            outputs = tuple(artifact.outputs)
            self.expected = run_all(lambda x: reference.single(x, outputs), self.pictures)
        actual = run_all(artifact.run_any, self.pictures)
        return all(
            agreement(name, actual[name], wanted, logits=are_classes(name, wanted, reference), limits=self.limits).ok
            for name, wanted in self.expected.items()
        )


def gate_pictures(gate: Gate) -> Array:
    """Return those images of a gate on which the parity check measures the file: b c H W."""
    return gate.images.stack(INT8_IMAGES)


def _without(quantisation: Quantisation, float_layers: tuple[str, ...]) -> Quantisation:
    layers = {path: layer for path, layer in quantisation.layers.items() if path not in float_layers}
    return Quantisation(layers, {path: factors for path, factors in quantisation.smoothing.items() if path in layers})


def int8_search(
    precision: Precision,
    config: ModelConfig,
    outputs: Sequence[str],
    *,
    calibrate: str | os.PathLike[str] | None,
    evaluate: str | os.PathLike[str] | None,
    minima: Minima,
) -> Int8Search | None:
    """Return the search for an int8 export of a model, or None for another precision. `outputs` are those of the file.

    The options are consistent already (`ExportOptions`). Raises InputError for missing images, and for minima that do not fit
    the outputs.
    """
    if not precision.startswith("int8"):
        return None
    output, agreeing = judged_output(config, outputs)
    minima.check(config, output, agreeing)
    calibration = None if calibrate is None else read_image_folder(Path(calibrate), config)
    evaluation, others = (None if evaluate is None else read_image_folder(Path(evaluate), config)), None
    if minima.stated and evaluation is None and calibration is not None:
        calibration, evaluation = calibration.split()
        others = calibration.sample(MAX_CALIBRATION)
    if precision == "int8-weights":
        calibration = None
    gate = None
    if evaluation is not None:
        images = evaluation.sample(MAX_EVALUATION)
        gate = Gate(images, output, agreeing, minima.agreement, minima.accuracy, minima.cosine, minima.neighbours, others)
    return Int8Search(precision, None if calibration is None else calibration.sample(MAX_CALIBRATION), gate)
