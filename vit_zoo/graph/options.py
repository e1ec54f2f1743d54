"""Options of an ONNX graph other than the model in it. The file's metadata hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from vit_zoo.errors import InputError
from vit_zoo.model.ops import Activation
from vit_zoo.model.outputs import MAP
from vit_zoo.model.resize_recipes import RECIPES

OPSETS = range(13, 26)
WITH_NORMS = 17  # the first opset with LayerNormalization; below it, graphs have core operators
OPSET = 20  # every client reads it; from 23 on attention is one operator, which older clients lack

Precision = Literal["fp32", "fp16", "bf16", "int8-static", "int8-dynamic", "int8-weights"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Operators = Literal["all", "core"]
Include = Literal["preprocess", "preprocess-exact"]
MAX_BATCH = 65_536
COMPUTED = "computed"  # `dynamic` of positions that are not learned
INCLUDES: tuple[Include, ...] = get_args(Include)
FLOAT_LAYERS = "kept"  # key of `float_layers` in a file's metadata


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """Options of an ONNX graph. Raises InputError for values that are unknown or cannot be combined."""

    opset: int = OPSET
    outputs: tuple[str, ...] = ()  # by name; none: the model's own output
    precision: Precision = "fp32"  # fp32: weights as they are stored
    include: Include | None = None  # preprocessing inside the graph
    dynamic: str | None = None  # images of any size: the recipe that interpolates learned positions, or `computed`
    patches: bool = False  # with `dynamic`: the input is patches of images of any grids, padded to one length
    activation: Activation = "softmax"  # of the output `probabilities`
    float_layers: tuple[str, ...] = ()  # paths of the layers that an int8 graph leaves in float
    batch: int | None = None  # the only number of images that it takes; None: any
    operators: Operators = "all"  # core: those of compilers for phones and neural processors (`core_ops.py`)

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise InputError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}, got {self.opset}")
        if self.operators not in get_args(Operators):
            raise InputError(f"unknown operators {self.operators!r}; choose from {', '.join(get_args(Operators))}")
        if self.opset < WITH_NORMS:
            object.__setattr__(self, "operators", "core")
        if self.batch is not None and (type(self.batch) is not int or not 1 <= self.batch <= MAX_BATCH):
            raise InputError(f"batch must be a whole number from 1 to {MAX_BATCH}, got {self.batch}")
        if self.precision not in PRECISIONS:
            raise InputError(f"unknown precision {self.precision!r}; choose from {', '.join(PRECISIONS)}")
        known = [name for name, recipe in RECIPES.items() if recipe.mode != "rows"]  # a graph interpolates
        if self.dynamic not in (None, COMPUTED, *known):
            raise InputError(f"unknown dynamic {self.dynamic!r}; choose from {', '.join(known)}, {COMPUTED}")
        if self.patches and self.dynamic is None:
            raise InputError("patches of images of any grids need a dynamic size")
        maps = [name for name in self.outputs if name.endswith(MAP)]
        if self.patches and maps:
            raise InputError(f"the output '{maps[0]}' needs images of one size at a time; a file for patches has no maps")
        if self.include not in (None, *INCLUDES):
            raise InputError(f"unknown include {self.include!r}; choose from {', '.join(INCLUDES)}")
        if self.activation not in get_args(Activation):
            raise InputError(f"unknown activation {self.activation!r}; choose from {', '.join(get_args(Activation))}")
        if self.include is not None and self.precision.startswith("int8"):
            raise InputError("int8 files cannot include preprocessing: they are calibrated on prepared images")
        if self.dynamic is not None and self.precision.startswith("int8"):
            raise InputError("int8 files have a fixed image size: ranges are calibrated at one resolution")
        free = "a dynamic size" if self.dynamic is not None else "preprocessing" if self.include is not None else None
        if free is not None and self.operators == "core":
            below = f" (opsets below {WITH_NORMS} have core operators only)" if self.opset < WITH_NORMS else ""
            raise InputError(f"core operators need an image of a fixed size; they cannot be combined with {free}{below}")
        if free is not None and self.batch is not None:
            raise InputError(f"a fixed batch makes every dimension static; it cannot be combined with {free}")
        if self.dynamic is not None and self.include is not None:
            raise InputError("included preprocessing has a fixed output size: choose either dynamic or include 'preprocess'")

    def document(self) -> dict[str, Any]:
        """Return the opset, the outputs and the fields that are not defaults, for a file's metadata."""
        default = asdict(GraphOptions())
        return {
            FLOAT_LAYERS if name == "float_layers" else name: value
            for name, value in asdict(self).items()
            if name in ("opset", "outputs") or value != default[name]
        }

    @classmethod
    def of(cls, export: Mapping[str, Any]) -> Self | None:
        """Return the options in a file's metadata; None if this version cannot read them."""
        names = ("opset", "precision", "include", "dynamic", "patches", "activation", "batch", "operators")
        known = {name: export[name] for name in names if name in export}
        try:
            outputs, float_layers = tuple(export.get("outputs", ())), tuple(export.get(FLOAT_LAYERS, ()))
            return cls(**known, outputs=outputs, float_layers=float_layers)
        except (TypeError, InputError):
            return None
