"""Whether a quantised file still answers as the model does, on real images; and which layers are to blame if not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_zoo.errors import InputError
from vit_zoo.exporters.int8.calibration import step_of, stepped
from vit_zoo.graph.int8_ops import Layer, Quantisation
from vit_zoo.graph.int8_weights import nearest, row_steps
from vit_zoo.loading.image_folder import Pictures
from vit_zoo.parity.tolerance import Judgement

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array, Artifact
    from vit_zoo.model.vit import ViT

RANKING = 1  # batches of images that a layer's guilt is measured on


@dataclass(frozen=True)
class Gate:
    """What a file must reach, and the images that it is measured on."""

    pictures: Pictures
    min_agreement: float | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.min_accuracy is not None and self.pictures.classes is None:
            hint = "put the images into folders named as the labels, or as the numbers of the classes"
            raise InputError("min_accuracy needs the classes of the images", hint=hint)

    def answers(self, model: ViT) -> tuple[int, ...]:
        """The model's own first classes."""
        import torch

        found: list[int] = []
        with torch.inference_mode():
            for images in self.pictures.batches():
                found += model(torch.from_numpy(images)).argmax(dim=-1).tolist()
        return tuple(found)

    def judge(self, artifact: Artifact, answers: tuple[int, ...], kept: tuple[str, ...]) -> Judgement:
        """One image at a time, so that none can profit from its batch mates."""
        given = [int(artifact.run(x[None])["logits"][0].argmax()) for images in self.pictures.batches() for x in images]
        right = self.pictures.classes
        return Judgement(
            images=len(given),
            agreement=_share(given, answers),
            accuracy=None if right is None else _share(given, right),
            accuracy_before=None if right is None else _share(answers, right),
            min_agreement=self.min_agreement,
            min_accuracy=self.min_accuracy,
            kept=kept,
        )


def _share(some: Any, others: Any) -> float:
    return float(np.mean(np.asarray(some) == np.asarray(others)))


def gentlest(passes: Callable[[int], bool], count: int) -> int | None:
    """The fewest layers to leave in float, out of `count` ranked ones: doubled until it passes, then halved between.

    None if not even all of them are enough.
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


def ranked(model: ViT, quantisation: Quantisation, kind: str, pictures: Pictures) -> list[str]:
    """The layers, the one first whose rounding alone moves the outputs most."""
    import torch

    images = [torch.from_numpy(x) for x in islice(pictures.batches(), RANKING)]
    with torch.inference_mode():
        wanted = [model(x) for x in images]
        guilt = {}
        for path, layer in quantisation.layers.items():
            with _rounding(model, path, layer, quantisation.smoothing.get(path), kind):
                guilt[path] = sum(float((model(x) - y).square().sum()) for x, y in zip(images, wanted, strict=True))
    return sorted(guilt, key=lambda path: -guilt[path])


@contextmanager
def _rounding(model: ViT, path: str, layer: Layer, factors: Array | None, kind: str) -> Iterator[None]:
    """The model with one layer rounded as the file rounds it."""
    import torch

    module, by = model.get_submodule(path), 1 if factors is None else factors
    matrix = model.get_parameter(f"{path}.weight").numpy() * by
    matrix = (layer.weight or nearest(matrix, row_steps(matrix, paired=kind != "int8-weights"))).values

    def replaced(m: Any, args: Any, output: Any) -> Any:
        x = args[0].numpy() / by
        if kind != "int8-weights":
            x = stepped(x, *((layer.scale, layer.zero) if kind == "int8-static" else step_of(float(x.min()), float(x.max()))))
        found = torch.from_numpy(x @ matrix.T + (0 if layer.lost is None else layer.lost))
        return found if m.bias is None else found + m.bias

    handle = module.register_forward_hook(replaced)
    try:
        yield
    finally:
        handle.remove()
