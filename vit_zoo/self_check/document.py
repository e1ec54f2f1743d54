"""Document of a self-check, which a file contains as JSON of at most 4 KiB. docs/selfcheck.schema.json is its schema."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vit_zoo.errors import RefusedContent
from vit_zoo.files.sniff import parse_json
from vit_zoo.formats.artifact import SELFCHECK
from vit_zoo.model.spec import faults_of

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1
LONGEST = 4096  # bytes
LARGEST = 2**26  # values of an input or output, which a checker must hold in memory

Length = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Shape = Annotated[tuple[Length, ...], Field(min_length=2, max_length=8)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Pair = tuple[Number, Number]
Values = Annotated[tuple[Number, ...], Field(min_length=1, max_length=256)]


class _Part(BaseModel):
    # unknown fields are those of a newer version that kept the meaning of these
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Tensor(_Part):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    shape: Shape  # the first length is the batch

    @model_validator(mode="after")
    def _small(self) -> Self:
        if math.prod(self.shape) > LARGEST:
            raise ValueError(f"{self.name!r} has more than {LARGEST:,} values")
        return self


class Input(_Tensor):
    """The input of a file, with the shape of a run."""

    type: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC"]

    @model_validator(mode="after")
    def _four_axes(self) -> Self:
        if len(self.shape) != 4 or (self.type == "uint8") != (self.layout == "NHWC"):
            raise ValueError("an input is float32 in NCHW or uint8 in NHWC")
        return self


class Output(_Tensor):
    """What is expected of an output: numbers of both images, and the difference allowed, relative to the `largest` value."""

    tolerance: Annotated[float, Field(gt=0, lt=1, strict=True)]
    largest: Pair
    norm: Pair
    projection: Pair
    values: tuple[Values, Values]

    @model_validator(mode="after")
    def _equally_many(self) -> Self:
        if len(self.values[0]) != len(self.values[1]) or len(self.values[0]) > math.prod(self.shape[1:]):
            raise ValueError(f"{self.name!r} has values that do not fit its shape")
        return self


class SelfCheckDocument(_Part):
    """The self-check of a file: its input, what is expected of its outputs, and the outputs for which there was no room."""

    version: Annotated[int, Field(ge=1, strict=True)] = VERSION
    input: Input
    outputs: Annotated[tuple[Output, ...], Field(min_length=1, max_length=256)]
    left_out: Annotated[tuple[str, ...], Field(max_length=10_000)] = ()

    def with_tolerance(self, tolerance: float | None) -> Self:
        """Return the document with another tolerance for all outputs; None: with its own."""
        if tolerance is None:
            return self
        outputs = tuple(output.model_copy(update={"tolerance": tolerance}) for output in self.outputs)
        return self.model_copy(update={"outputs": outputs})

    def dumps(self) -> str:
        """Return the document as JSON without spaces."""
        document = self.model_dump(mode="json", exclude=set() if self.left_out else {"left_out"})
        return json.dumps(document, separators=(",", ":"))


def parse(text: str, *, where: Path) -> SelfCheckDocument:
    """Return the self-check in a file's metadata. Raises RefusedContent for one that this version cannot read."""
    try:
        if len(text) > LONGEST:
            raise ValueError(f"{len(text):,} characters; at most {LONGEST:,} are read")
        document = parse_json(text)
        version = document.get("version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise ValueError(f"version {version}, which needs a newer vitzoo")
        return SelfCheckDocument.model_validate(document)
    except ValidationError as error:
        faults = list(faults_of(error, list(SelfCheckDocument.model_fields)))
        raise RefusedContent(f"{SELFCHECK}: {'; '.join(faults[:3])}", where=where) from None
    except ValueError as error:
        raise RefusedContent(f"{SELFCHECK}: {error}", where=where) from None


def schema() -> str:
    """Return the JSON Schema of a self-check."""
    return json.dumps(SelfCheckDocument.model_json_schema(), indent=2) + "\n"
