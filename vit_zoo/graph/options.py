"""Options of an ONNX graph other than the model in it. The file's metadata hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from vit_zoo.errors import InputError
from vit_zoo.model.ops import Activation
from vit_zoo.model.resize_recipes import RECIPES

OPSETS = range(17, 26)
OPSET = 20  # every client reads it; from 23 on attention is one operator, which older clients lack

Precision = Literal["fp32", "fp16", "bf16", "int8-static", "int8-dynamic", "int8-weights"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Include = Literal["preprocess", "preprocess-exact"]
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
    activation: Activation = "softmax"  # of the output `probabilities`
    float_layers: tuple[str, ...] = ()  # paths of the layers that an int8 graph leaves in float

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise InputError(f"opset must be {OPSETS[0]} to {OPSETS[-1]}, got {self.opset}")
        if self.precision not in PRECISIONS:
            raise InputError(f"unknown precision {self.precision!r}; choose from {', '.join(PRECISIONS)}")
        if self.dynamic not in (None, COMPUTED, *RECIPES):
            raise InputError(f"unknown dynamic {self.dynamic!r}; choose from {', '.join(RECIPES)}, {COMPUTED}")
        if self.include not in (None, *INCLUDES):
            raise InputError(f"unknown include {self.include!r}; choose from {', '.join(INCLUDES)}")
        if self.activation not in get_args(Activation):
            raise InputError(f"unknown activation {self.activation!r}; choose from {', '.join(get_args(Activation))}")
        if self.include is not None and self.precision.startswith("int8"):
            raise InputError("int8 files cannot include preprocessing: they are calibrated on prepared images")
        if self.dynamic is not None and self.precision.startswith("int8"):
            raise InputError("int8 files have a fixed image size: ranges are calibrated at one resolution")
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
        known = {name: export[name] for name in ("opset", "precision", "include", "dynamic", "activation") if name in export}
        try:
            outputs, float_layers = tuple(export.get("outputs", ())), tuple(export.get(FLOAT_LAYERS, ()))
            return cls(**known, outputs=outputs, float_layers=float_layers)
        except (TypeError, InputError):
            return None
