"""Export options, which are validated on creation and resolved for one model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from vit_zoo.errors import InputError, Option
from vit_zoo.exporters.int8.search import Int8Search, int8_search
from vit_zoo.formats import FORMATS
from vit_zoo.graph.options import COMPUTED, INCLUDES, OPSET, GraphOptions, Include, Precision
from vit_zoo.model.outputs import checked_outputs
from vit_zoo.model.resize_recipes import recipe_named
from vit_zoo.parity.report import Effort, checked_effort

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig

PathLike = str | os.PathLike[str]
Placement = Literal["inline", "external", "shared"]
SHARED = Option("placement", "'shared'", "--shared")


class Resolved(NamedTuple):
    """Export options for one model: the options of its ONNX graph, and the calibration of an int8 file."""

    graph: GraphOptions
    search: Int8Search | None


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of `export`, which its docstring explains.

    Raises InputError for unknown or contradictory options, before any work starts.
    """

    formats: tuple[str, ...] = ("onnx",)
    out: PathLike | None = None
    opset: int | None = None
    placement: Placement | None = None
    outputs: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    dynamic: Literal["hw"] | None = None
    verify: bool | Effort = True
    weights: PathLike | None = None
    allow_drop: tuple[str, ...] = ()
    seed: int | None = None
    precision: Precision = "fp32"
    calibrate: PathLike | None = None
    evaluate: PathLike | None = None
    min_agreement: float | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"unknown format '{name}'; choose from {', '.join(FORMATS)}")
        if self.dynamic not in (None, "hw"):
            raise InputError(f"unknown dynamic {self.dynamic!r}; the only choice is 'hw', for height and width")
        for part in self.include:
            if part not in ("softmax", *INCLUDES):
                raise InputError(f"cannot include '{part}'; choose from softmax, {', '.join(INCLUDES)}")
        if set(INCLUDES) <= set(self.include):
            raise InputError(f"cannot include both {' and '.join(INCLUDES)}")
        self._check_graph_options()
        # validates the options of the graph
        GraphOptions(
            opset=OPSET if self.opset is None else self.opset,
            precision=self.precision,
            include=self.preprocessing,
            dynamic=None if self.dynamic is None else COMPUTED,
        )
        checked_effort(self.effort)
        self._check_int8()

    def _check_graph_options(self) -> None:
        graphs = [FORMATS[name].graph for name in self.formats]
        if not all(graphs) and (self.preprocessing is not None or self.dynamic is not None):
            raise InputError("preprocessing and a dynamic size apply to ONNX only")
        if not any(graphs) and (self.opset is not None or self.precision != "fp32"):
            raise InputError("opset and precision apply to ONNX only")
        if self.placement is not None and not any(graphs):
            raise InputError("placement applies to ONNX only")
        if self.placement not in (None, *get_args(Placement)):
            raise InputError(f"unknown placement {self.placement!r}; choose from {', '.join(get_args(Placement))}")
        if self.placement == "shared" and self.precision != "fp32":
            raise InputError(f"{SHARED} needs float32: the graph points into model.safetensors", options=[SHARED])

    def _check_int8(self) -> None:
        if not self.precision.startswith("int8"):
            if self.gated or self.calibrate is not None or self.evaluate is not None:
                raise InputError("calibrate, evaluate, min_agreement and min_accuracy apply to int8 only")
            return
        if self.precision == "int8-static" and self.calibrate is None:
            images, dynamic = Option("calibrate", "FOLDER"), Option("precision", "'int8-dynamic'", "--int8 dynamic")
            hint = f"{images}; {dynamic} needs none"
            raise InputError("static int8 needs images for calibration", hint=hint, options=[images, dynamic])
        if self.precision == "int8-weights" and self.calibrate is not None and not self.gated:
            raise InputError("int8 weights need no calibration")
        if self.evaluate is not None and not self.gated:
            gates = Option("min_agreement", "SHARE"), Option("min_accuracy", "SHARE")
            raise InputError("evaluate needs min_agreement or min_accuracy", hint=f"{gates[0]} or {gates[1]}", options=gates)
        if self.gated and self.calibrate is None and self.evaluate is None:
            images = Option("evaluate", "FOLDER")
            raise InputError("min_agreement and min_accuracy need real images", hint=str(images), options=[images])
        for name in ("min_agreement", "min_accuracy"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} must be above 0 and at most 1, got {value}")

    @property
    def gated(self) -> bool:
        """Whether an int8 file must reach an agreement or accuracy on real images."""
        return self.min_agreement is not None or self.min_accuracy is not None

    @property
    def preprocessing(self) -> Include | None:
        return next((part for part in INCLUDES if part in self.include), None)

    @property
    def effort(self) -> Effort | None:
        """The effort of the check of each file, or None for no check."""
        return None if self.verify is False else "default" if self.verify is True else self.verify

    def resolve(self, config: ModelConfig, recipe: Any = None) -> Resolved:
        """Resolve the options for a model. `recipe` names how positions are resized, if the user states it.

        Raises InputError for outputs, images or a recipe that do not fit the model.
        """
        graph = GraphOptions(
            opset=OPSET if self.opset is None else self.opset,
            outputs=self._outputs(config),
            precision=self.precision,
            include=self.preprocessing,
            dynamic=None if self.dynamic is None else _recipe_of(config, recipe),
        )
        if self.gated and ("logits" not in (graph.outputs or (config.spec.output,)) or not config.spec.num_classes):
            raise InputError("min_agreement and min_accuracy need the output 'logits'")
        search = int8_search(
            graph.precision,
            config,
            calibrate=self.calibrate,
            evaluate=self.evaluate,
            min_agreement=self.min_agreement,
            min_accuracy=self.min_accuracy,
        )
        return Resolved(graph, search)

    def _outputs(self, config: ModelConfig) -> tuple[str, ...]:
        """Return the names of the outputs, with probabilities in place of logits if softmax is included."""
        if "softmax" not in self.include:
            return tuple(self.outputs)
        names = checked_outputs(config.spec, self.outputs)
        if "logits" not in names:
            softmax = Option("include", "'softmax'", "--include softmax")
            raise InputError(f"{softmax} needs the output 'logits'; the outputs are {', '.join(names)}", options=[softmax])
        return tuple("probabilities" if name == "logits" else name for name in names)


def formats_of(to: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several formats as a tuple without duplicates."""
    return (to,) if isinstance(to, str) else tuple(dict.fromkeys(to))


def _recipe_of(config: ModelConfig, recipe: Any) -> str:
    """Return the name of the recipe by which the positions of a model follow the image size."""
    if config.spec.pos == "learned":
        name = recipe or config.resize or "timm"
        recipe_named(name)
        return str(name)
    if recipe is not None:
        raise InputError("resize applies to learned positions; this model computes its positions for any size")
    return COMPUTED
