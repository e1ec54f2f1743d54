"""What the words of an export mean for one model: the form of its files; words that contradict each other are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vit_zoo.errors import InputError
from vit_zoo.formats import FORMATS
from vit_zoo.forward import checked_outputs
from vit_zoo.graph.form import COMPUTED, INCLUDES, OPSET, Form, Precision
from vit_zoo.model_config import ModelConfig
from vit_zoo.recipes import recipe_named
from vit_zoo.vit_spec import ViTSpec


def form_of(
    config: ModelConfig,
    formats: Sequence[str],
    *,
    opset: int | None,
    outputs: Sequence[str],
    precision: Precision,
    include: Sequence[str],
    dynamic: str | None,
    recipe: Any,
) -> Form:
    """The form of files in these formats. `recipe` is how positions are to follow the size, where the user states it."""
    if dynamic not in (None, "hw"):
        raise InputError(f"dynamic {dynamic!r}: 'hw', height and width")
    names, prepares = _included(include, outputs, config.spec)
    graphs = [FORMATS[name].graph for name in formats]
    if not all(graphs) and (prepares is not None or dynamic is not None):
        raise InputError("preprocessing and a dynamic size are of ONNX files alone")
    if not any(graphs) and (opset is not None or precision != "fp32"):
        raise InputError("opset and precision are of ONNX files")
    return Form(
        opset=OPSET if opset is None else opset,
        outputs=tuple(names),
        precision=precision,
        include=prepares,
        dynamic=None if dynamic is None else _follows(config, recipe),
    )


def _follows(config: ModelConfig, recipe: Any) -> str:
    """How the positions of a model follow the size of the image."""
    if config.spec.pos == "learned":
        name = recipe or config.resize or "timm"
        recipe_named(name)
        return str(name)
    if recipe is not None:
        raise InputError("its positions are computed for any size: there is nothing to resize")
    return COMPUTED


def _included(include: Sequence[str], outputs: Sequence[str], spec: ViTSpec) -> tuple[Sequence[str], Any]:
    """The outputs, with probabilities where softmax is included, and the form of the preprocessing."""
    for part in include:
        if part not in ("softmax", *INCLUDES):
            raise InputError(f"nothing called '{part}' to include; there are softmax, {', '.join(INCLUDES)}")
    prepares = [part for part in INCLUDES if part in include]
    if len(prepares) > 1:
        raise InputError(f"one of {' and '.join(INCLUDES)}")
    if "softmax" in include:
        chosen = checked_outputs(spec, outputs)
        if "logits" not in chosen:
            raise InputError(f"softmax is of logits; the outputs are {', '.join(chosen)}")
        outputs = ["probabilities" if name == "logits" else name for name in chosen]
    return outputs, prepares[0] if prepares else None
