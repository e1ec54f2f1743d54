"""Expected outputs of a file's self-check: the model in float64, or for int8 the file itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vit_zoo.formats import open_in
from vit_zoo.formats.session import return_memory
from vit_zoo.parity.inputs import probe_images
from vit_zoo.parity.plan import PLANS
from vit_zoo.parity.preprocess_check import prepare_by_pillow
from vit_zoo.progress import step
from vit_zoo.self_check.document import LARGEST, Input, SelfCheckDocument
from vit_zoo.self_check.recipe import batches
from vit_zoo.self_check.write import selfcheck_of, tolerance

if TYPE_CHECKING:
    from pathlib import Path

    from vit_zoo.graph.options import GraphOptions
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.parity.live import Live
    from vit_zoo.parity.report import Effort

BATCH = 2  # of a file with a free batch size


def model_selfcheck(
    live: Live, outputs: Sequence[str], options: GraphOptions | None = None, effort: Effort = "quick"
) -> SelfCheckDocument | None:
    """Return the self-check of a float file: what the model computes in float64; None if there can be none.

    `options` are those of an ONNX graph; None for a program. `effort` is that of the parity check that follows: if it uses
    float64, the results for its images, the first of which are those of the self-check, are computed here for both.
    """
    from vit_zoo.model.torch_ops import RoundedOps

    config, reference = live.source.config, live.reference
    include, precision = (None, "fp32") if options is None else (options.include, options.precision)
    input_ = _input(config, options)
    if input_ is None:
        return None
    images = np.concatenate(list(batches((2, *input_.shape[1:]), input_.type)))
    plan = PLANS[effort]
    shared = include is None and plan.float64 != "never"
    if include is not None:
        images = prepare_by_pillow(config.known_preprocess(), images)
    reference.dynamic = None if options is None else options.dynamic
    with step("computing the self-check"), np.errstate(invalid="ignore"):  # of weights that are not finite
        expected = reference.expected(
            probe_images(reference.frame, plan.images) if shared else images, outputs, plan.float64 if shared else "always"
        )
        expected.measure((0, 1))
        values = expected.values
        if precision == "bf16":
            values = reference.double(images, outputs, RoundedOps())
    return_memory()  # of the weights in float64, which the check of the file can use
    kind = "preprocess" if include == "preprocess" else precision
    allowed = {name: tolerance(kind, float(expected.floors[name][:2].max())) for name in outputs}
    return selfcheck_of(input_, {name: values[name][:2] for name in outputs}, allowed, input_.shape[0])


def file_selfcheck(path: Path, config: ModelConfig, options: GraphOptions) -> SelfCheckDocument | None:
    """Return the self-check of an int8 file: what it computes here without onnxruntime's optimiser; None as above."""
    input_ = _input(config, options)
    if input_ is None:
        return None
    artifact = open_in(None, path, optimised=False)
    with step("computing the self-check"):
        runs = [artifact.run(x) for x in batches(input_.shape, input_.type)]
    expected = {name: np.concatenate([run[name] for run in runs])[:2].astype("<f8") for name in artifact.outputs}
    return selfcheck_of(input_, expected, dict.fromkeys(expected, tolerance("int8", 0.0)), input_.shape[0])


def _input(config: ModelConfig, options: GraphOptions | None) -> Input | None:
    """Return the input of a file; None for patches of images, and if a batch is too large for a checker to hold.

    Raw images are larger than what preprocessing makes of them, and not square.
    """
    from vit_zoo.graph.build import INPUT
    from vit_zoo.graph.preprocess import IMAGE

    spec = config.spec
    if options is not None and options.patches:
        return None
    batch = BATCH if options is None or options.batch is None else options.batch
    if options is None or options.include is None:
        shape = (batch, spec.channels, *spec.image_size)
        return None if math.prod(shape) > LARGEST else Input(name=INPUT, type="float32", layout="NCHW", shape=shape)
    height, width = spec.image_size
    shape = (batch, height + height // 4, width + width // 2, len(config.known_preprocess().mean))
    return None if math.prod(shape) > LARGEST else Input(name=IMAGE, type="uint8", layout="NHWC", shape=shape)
