"""Export options, which are validated on creation and resolved for one model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

from vit_zoo.errors import InputError, Option
from vit_zoo.exporters.int8.accuracy_gate import Minima
from vit_zoo.exporters.int8.search import Int8Search, int8_search
from vit_zoo.exporters.triton import TRITON
from vit_zoo.files.folder import OUT
from vit_zoo.formats import FORMATS
from vit_zoo.graph.options import (
    COMPUTED,
    INCLUDES,
    OPSET,
    PRECISIONS,
    WITH_NORMS,
    GraphOptions,
    Include,
    Operators,
    Precision,
)
from vit_zoo.model.config import MULTI_LABEL
from vit_zoo.model.ops import Activation
from vit_zoo.model.outputs import expanded
from vit_zoo.model.resize_recipes import OTHER_RECIPE, recipe_named
from vit_zoo.parity.report import Effort, checked_effort
from vit_zoo.parity.tolerance import check_cosine

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig

PathLike = str | os.PathLike[str]
Name = TypeVar("Name", bound=str)
Placement = Literal["inline", "external", "shared"]
Dynamic = Literal["hw", "patches"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)  # each is included as the output `probabilities`
MINIMA = "min_agreement, min_accuracy, min_cosine and min_neighbours"
SHARED = Option("placement", "'shared'", "--shared")
PATCHES, IMAGES = Option("dynamic", "'patches'", "--dynamic patches"), Option("dynamic", "'hw'", "--dynamic hw")


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
    triton: PathLike | None = None
    opset: int | None = None
    placement: Placement | None = None
    outputs: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    dynamic: Dynamic | None = None
    batch: int | None = None
    operators: Operators | None = None
    verify: bool | Effort = True
    weights: PathLike | None = None
    random: bool = False
    allow_drop: tuple[str, ...] = ()
    seed: int | None = None
    precisions: tuple[Precision, ...] = ("fp32",)
    calibrate: PathLike | None = None
    evaluate: PathLike | None = None
    min_agreement: float | None = None
    min_accuracy: float | None = None
    min_cosine: float | None = None
    min_neighbours: float | None = None
    force: bool = False  # replace a file that holds another model

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise InputError(f"unknown format '{name}'; choose from {', '.join(FORMATS)}")
        if self.dynamic not in (None, *get_args(Dynamic)):
            raise InputError(f"unknown dynamic {self.dynamic!r}; choose from {', '.join(get_args(Dynamic))}")
        for part in self.include:
            if part not in (*ACTIVATIONS, *INCLUDES):
                raise InputError(f"cannot include '{part}'; choose from {', '.join((*ACTIVATIONS, *INCLUDES))}")
        if set(ACTIVATIONS) <= set(self.include):
            raise InputError(f"cannot include both {' and '.join(ACTIVATIONS)}")
        if set(INCLUDES) <= set(self.include):
            raise InputError(f"cannot include both {' and '.join(INCLUDES)}")
        if not self.precisions:
            raise InputError(f"no precision given; choose from {', '.join(PRECISIONS)}")
        self._check_graph_options()
        for precision in self.precisions:  # validates the options of the graph
            GraphOptions(
                opset=OPSET if self.opset is None else self.opset,
                precision=precision,
                include=self.preprocessing,
                dynamic=None if self.dynamic is None else COMPUTED,
                patches=self.dynamic == "patches",
                batch=self.batch,
                operators=self.operators or "all",
            )
        checked_effort(self.effort)
        self._check_int8()
        self._check_triton()

    def _check_triton(self) -> None:
        if self.triton is None:
            return
        if self.formats != ("onnx",):
            raise InputError(f"{TRITON} needs the format onnx alone, got {', '.join(self.formats)}", options=[TRITON])
        if self.out is not None:
            raise InputError(f"{TRITON} and {OUT} contradict each other", options=[TRITON, OUT])
        if self.batch is not None:
            batch = Option("batch", str(self.batch))
            raise InputError(f"{TRITON} and {batch} contradict each other: the server chooses the batch", options=[TRITON, batch])
        if self.dynamic == "patches":
            cause = f"{TRITON} and {PATCHES} contradict each other: config.pbtxt is written for files with one input"
            raise InputError(cause, options=[TRITON, PATCHES])
        if self.placement == "shared":
            cause = f"{TRITON} and {SHARED} contradict each other: a repository contains its weights"
            raise InputError(cause, options=[TRITON, SHARED])

    def _check_graph_options(self) -> None:
        graphs = [FORMATS[name].graph for name in self.formats]
        if not all(graphs) and (self.preprocessing is not None or self.dynamic is not None):
            raise InputError("preprocessing and a dynamic size apply to ONNX only")
        if not all(graphs) and (self.batch is not None or self.operators is not None):
            raise InputError("batch and operators apply to ONNX only")
        if self.operators == "all" and self.opset is not None and self.opset < WITH_NORMS:
            raise InputError(f"opset {self.opset} has no LayerNormalization, so its graphs have core operators only")
        if not any(graphs) and (self.opset is not None or self.precisions != ("fp32",)):
            raise InputError("opset and precision apply to ONNX only")
        if self.placement is not None and not any(graphs):
            raise InputError("placement applies to ONNX only")
        if self.placement not in (None, *get_args(Placement)):
            raise InputError(f"unknown placement {self.placement!r}; choose from {', '.join(get_args(Placement))}")
        if self.placement == "shared" and self.precisions != ("fp32",):
            raise InputError(f"{SHARED} needs float32: the graph points into model.safetensors", options=[SHARED])

    def _check_int8(self) -> None:
        int8 = {precision for precision in self.precisions if precision.startswith("int8")}
        if not int8:
            if self.gated or self.calibrate is not None or self.evaluate is not None:
                raise InputError(f"calibrate, evaluate, {MINIMA} apply to int8 only")
            return
        if "int8-static" in int8 and self.calibrate is None:
            images, dynamic = Option("calibrate", "FOLDER"), Option("precision", "'int8-dynamic'", "--int8 dynamic")
            hint = f"{images}; {dynamic} needs none"
            raise InputError("static int8 needs images for calibration", hint=hint, options=[images, dynamic])
        if int8 == {"int8-weights"} and self.calibrate is not None and not self.gated:
            raise InputError("int8 weights need no calibration")
        if self.gated and self.calibrate is None and self.evaluate is None:
            images = Option("evaluate", "FOLDER")
            fault = f"{MINIMA} need real images"
            raise InputError(fault, hint=str(images), options=[images])
        for name in ("min_agreement", "min_accuracy", "min_neighbours"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} must be above 0 and at most 1, got {value}")
        check_cosine(self.min_cosine)

    @property
    def files(self) -> list[tuple[str, Precision]]:
        """The format and the precision of each file, in the order in which they are written; programs are in float32."""
        return [(name, each) for name in self.formats for each in (self.precisions if FORMATS[name].graph else PRECISIONS[:1])]

    @property
    def gated(self) -> bool:
        """Whether an int8 file must reach a minimum on real images."""
        return self.minima.stated

    @property
    def minima(self) -> Minima:
        return Minima(self.min_agreement, self.min_accuracy, self.min_cosine, self.min_neighbours)

    @property
    def preprocessing(self) -> Include | None:
        return next((part for part in INCLUDES if part in self.include), None)

    @property
    def effort(self) -> Effort | None:
        """The effort of the check of each file, or None for no check."""
        return None if self.verify is False else "default" if self.verify is True else self.verify

    def resolve(self, config: ModelConfig, recipe: Any = None) -> dict[Precision, Resolved]:
        """Resolve the options for a model, for each precision. `recipe` names how positions are resized, if the user states it.

        Raises InputError for outputs, images or a recipe that do not fit the model.
        """
        return {precision: self._resolved(precision, config, recipe) for _, precision in self.files}

    def _resolved(self, precision: Precision, config: ModelConfig, recipe: Any) -> Resolved:
        outputs = self._outputs(config)
        graph = GraphOptions(
            opset=OPSET if self.opset is None else self.opset,
            outputs=outputs,
            precision=precision,
            include=self.preprocessing,
            dynamic=None if self.dynamic is None else _recipe_of(config, recipe, patches=self.dynamic == "patches"),
            patches=self.dynamic == "patches",
            batch=self.batch,
            operators=self.operators or "all",
            activation=config.class_activation() if "probabilities" in outputs and config.spec.num_classes else "softmax",
        )
        search = int8_search(
            graph.precision,
            config,
            outputs,
            calibrate=self.calibrate,
            evaluate=self.evaluate,
            minima=self.minima,
        )
        return Resolved(graph, search)

    def _outputs(self, config: ModelConfig) -> tuple[str, ...]:
        """Return the names of the outputs, with probabilities in place of logits if softmax or sigmoid is included.

        Raises InputError for the one that does not fit what the config states about the classes.
        """
        included = next((part for part in ACTIVATIONS if part in self.include), None)
        names = config.checked_outputs(expanded(self.outputs, config.output_names()))
        if included is None:
            return names
        include = {part: Option("include", f"'{part}'", f"--include {part}") for part in ACTIVATIONS}
        if "logits" not in names:
            fault = f"{include[included]} needs the output 'logits'; the outputs are {', '.join(names)}"
            raise InputError(fault, options=[include[included]])
        fitting = config.class_activation()
        if included != fitting:
            raise _other_activation(config, include[included], include[fitting])
        return tuple("probabilities" if name == "logits" else name for name in names)


def _other_activation(config: ModelConfig, included: Option, fitting: Option) -> InputError:
    """The error about a softmax of classes that do not exclude each other, or a sigmoid of classes that do."""
    if config.spec.num_classes == 1:
        cause = f"{included} does not fit a single output, whose softmax is always 1"
    elif config.problem_type is not None:
        cause = f"{included} does not fit problem_type = {config.problem_type}"
    else:
        cause = f"{included} does not fit the model: nothing states that several of its classes can apply to one image"
    hint, options = f"{fitting} fits", [included, fitting]
    if config.problem_type is None:
        hint += f"; for a sigmoid state {MULTI_LABEL} too"
        options.append(MULTI_LABEL)
    return InputError(cause, where=config.name, hint=hint, options=options)


def one_or_several(names: Name | Sequence[Name]) -> tuple[Name, ...]:
    """Return one or several formats or precisions as a tuple without duplicates."""
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def _recipe_of(config: ModelConfig, recipe: Any, *, patches: bool) -> str:
    """Return the name of the recipe by which the positions of a model follow the image size."""
    if patches and config.spec.pos != "learned":
        cause = f"{PATCHES} interpolates learned positions; this model has pos = {config.spec.pos}"
        raise InputError(cause, where=config.name, hint=f"{IMAGES} takes images of any size", options=[PATCHES, IMAGES])
    if config.spec.relative_bias != "none":
        raise InputError("dynamic does not apply to relative biases: export the model for each image size", where=config.name)
    if config.spec.learned_pos:
        name = recipe or config.resize or "timm"
        if recipe_named(name).mode == "rows":
            cause = f"recipe '{name}' interpolates no positions, so it has none for larger images"
            raise InputError(cause, hint=f"another recipe interpolates: {OTHER_RECIPE}", options=[OTHER_RECIPE])
        return str(name)
    if recipe is not None:
        raise InputError("resize applies to learned positions; this model computes its positions for any size")
    return COMPUTED
