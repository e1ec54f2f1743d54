"""What an ONNX file is asked to be, beside the model in it: one value, which the file's metadata hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from vit_zoo.errors import InputError
from vit_zoo.model.resize_recipes import RECIPES

OPSETS = range(17, 26)
OPSET = 20  # every client reads it; from 23 on attention is one operator, which older ones lack

Precision = Literal["fp32", "fp16", "bf16", "int8-static", "int8-dynamic", "int8-weights"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Include = Literal["preprocess", "preprocess-exact"]
COMPUTED = "computed"  # positions that are not learned follow any size
INCLUDES: tuple[Include, ...] = get_args(Include)


@dataclass(frozen=True, kw_only=True)
class Form:
    """The opset, and the outputs by name (none: the model's own). `precision` is `fp32` for weights as they are stored;
    `dynamic` is the recipe by which positions follow the size of the image, `computed` for those that are not learned;
    `include` puts the preprocessing in front; `kept` are the layers, by path, that an int8 form leaves in float.
    """

    opset: int = OPSET
    outputs: tuple[str, ...] = ()
    precision: Precision = "fp32"
    include: Include | None = None
    dynamic: str | None = None
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise InputError(f"opset {self.opset}; ViTs are written at opset {OPSETS[0]} to {OPSETS[-1]}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision {self.precision!r}; there are {', '.join(PRECISIONS)}")
        if self.dynamic not in (None, COMPUTED, *RECIPES):
            raise InputError(f"dynamic {self.dynamic!r}; positions follow by {', '.join(RECIPES)}, or are {COMPUTED}")
        if self.include not in (None, *INCLUDES):
            raise InputError(f"include {self.include!r}; there are {', '.join(INCLUDES)}")
        if self.include is not None and self.precision.startswith("int8"):
            raise InputError("an int8 file takes prepared images, as it was calibrated with: no preprocessing in it")
        if self.dynamic is not None and self.precision.startswith("int8"):
            raise InputError("an int8 file has one size: its ranges are of that")
        if self.dynamic is not None and self.include is not None:
            raise InputError("images that the file prepares itself have one size: either --dynamic or --include preprocess")

    def document(self) -> dict[str, Any]:
        """The fields that are not as usual, with the opset and the outputs in any case: for JSON."""
        usual = Form()
        return {
            name: value for name, value in asdict(self).items() if name in ("opset", "outputs") or value != getattr(usual, name)
        }

    @classmethod
    def of(cls, export: Mapping[str, Any]) -> Self | None:
        """The form that a file's metadata state; None for what this version cannot read."""
        known = {name: export[name] for name in cls.__dataclass_fields__ if name in export}
        try:
            return cls(**{**known, **{name: tuple(known.get(name, ())) for name in ("outputs", "kept")}})
        except (TypeError, InputError):
            return None
