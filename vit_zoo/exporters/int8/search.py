"""How an int8 file is settled: calibrated, written, judged on real images, and written again with guilty layers in float."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.exporters.int8.accuracy_gate import Gate, gentlest, ranked
from vit_zoo.exporters.int8.calibration import calibrated
from vit_zoo.formats import open_artifact
from vit_zoo.graph.int8_ops import Layer, Quantisation, quantisable
from vit_zoo.loading.image_folder import BATCH, CALIBRATING, JUDGING, Pictures, read_pictures
from vit_zoo.parity.inputs import Frame, many_images
from vit_zoo.parity.tolerance import IMAGES

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.graph.options import Precision
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.parity.reference import Live
    from vit_zoo.parity.tolerance import Judgement

BUILT_IN = 64  # images: as many rows of each as calibration keeps at most

Write = Callable[[tuple[str, ...], Quantisation], Path]


@dataclass(frozen=True)
class Rounding:
    """The images to calibrate with, if any, and what the file must reach, if anything."""

    kind: str
    calibration: Pictures | None
    gate: Gate | None

    def settle(self, live: Live, write: Write) -> Judgement | None:
        """Let `write` make the file with as few layers in float as the gate allows; how the last one written was judged."""
        whole = self._quantisation(live)
        if self.gate is None:
            write((), whole)
            return None
        gate, answers = self.gate, self.gate.answers(live.model)

        def judged(kept: Iterable[str]) -> Judgement:
            names = tuple(kept)
            return gate.judge(open_artifact(write(names, _without(whole, names))), answers, names)

        found = judged(())
        if found.ok:
            return found
        ranking = ranked(live.model, whole, self.kind, gate.pictures)
        tried: dict[int, Judgement] = {}

        def passes(count: int) -> bool:
            tried[count] = judged(ranking[:count])
            return tried[count].ok

        count = gentlest(passes, len(ranking)) or len(ranking)
        if count != list(tried)[-1]:  # the last one that was tried lies on the disk
            judged(ranking[:count])
        return tried[count]

    def stack(self) -> Array | None:
        """Real images to measure the file on."""
        pictures = self.gate.pictures if self.gate is not None else self.calibration
        return None if pictures is None else pictures.stack(IMAGES)

    def _quantisation(self, live: Live) -> Quantisation:
        if self.kind == "int8-weights":
            return Quantisation({path: Layer() for path in quantisable(live.source.config.spec)})
        if self.calibration is None:  # crops of the photographs that come with this package, other ones than verify takes
            config = live.source.config
            images = many_images(Frame.of(config.spec, config.preprocess), BUILT_IN, seed=1)
            found = calibrated(live.model, np.split(images, BUILT_IN // BATCH))
        else:
            found = calibrated(live.model, self.calibration.batches())
        if self.kind == "int8-static":
            return found
        return Quantisation({path: Layer(weight=layer.weight) for path, layer in found.layers.items()}, found.smoothing)


def _without(quantisation: Quantisation, kept: tuple[str, ...]) -> Quantisation:
    layers = {path: layer for path, layer in quantisation.layers.items() if path not in kept}
    return Quantisation(layers, {path: factors for path, factors in quantisation.smoothing.items() if path in layers})


def rounding_of(
    precision: Precision,
    config: ModelConfig,
    *,
    calibrate: str | os.PathLike[str] | None,
    evaluate: str | os.PathLike[str] | None,
    min_agreement: float | None,
    min_accuracy: float | None,
) -> Rounding | None:
    """How an int8 file of a model is settled; None for other precisions. The options fit together already.

    Raises InputError for folders without images, or with too few.
    """
    if not precision.startswith("int8"):
        return None
    gated = min_agreement is not None or min_accuracy is not None
    calibration = None if calibrate is None else read_pictures(Path(calibrate), config)
    judged = None if evaluate is None else read_pictures(Path(evaluate), config)
    if gated and judged is None and calibration is not None:
        calibration, judged = calibration.parted()
    if precision == "int8-weights":
        calibration = None
    gate = None if judged is None else Gate(judged.at_most(JUDGING), min_agreement, min_accuracy)
    return Rounding(precision, None if calibration is None else calibration.at_most(CALIBRATING), gate)
