"""The details of an export in a file's metadata, under `vit_zoo.export`: parsed when the file is described.

Details that this version does not know are those of a newer one, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vit_zoo.errors import InputError, RefusedContent, shown
from vit_zoo.model.spec import faults_of

if TYPE_CHECKING:
    from pathlib import Path

    from vit_zoo.model.config import ModelConfig

KEY = "vit_zoo.export"
MAX_DEPTH = 8  # of the values that this version does not know
MAX_NAMES = 10_000  # of outputs and layers
Word = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Word], Field(max_length=MAX_NAMES)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ExportDetails(BaseModel):
    """The details of an export, all of which are optional but the outputs."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    outputs: Annotated[Names, Field(min_length=1)]
    version: Word = ""
    verify: Word = ""
    opset: Annotated[int, Field(ge=1, le=1000)] = 1
    precision: Word = ""
    placement: Word = ""
    include: Word = ""
    dynamic: Word = ""
    patches: bool = False
    activation: Word = ""
    batch: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    operators: Word = ""
    kept: Names = []
    data: Word = ""
    header_sha256: Sha256 = ""
    weights_sha256: Sha256 = ""
    source_sha256: Sha256 = ""


def check_export(export: object, config: ModelConfig, where: Path) -> None:
    """Raise RefusedContent for details of another type, for outputs that the model does not have, and for a path outside."""
    faults: list[str] = []
    if not isinstance(export, Mapping):
        raise RefusedContent(f"{KEY} = {shown(export)}: must be an object", where=where)
    try:
        details = ExportDetails.model_validate(export)
    except ValidationError as error:
        faults += faults_of(error, list(ExportDetails.model_fields))
    else:
        faults += _faults(details, config)
    faults += [f"{shown(name)} is nested too deeply" for name, value in export.items() if _is_deep(value, MAX_DEPTH)]
    if faults:
        raise RefusedContent(f"{KEY}: {'; '.join(faults[:3])}", where=where)


def _faults(details: ExportDetails, config: ModelConfig) -> list[str]:
    """Return what is wrong with details of the right types."""
    faults = []
    try:
        if len(config.checked_outputs(details.outputs)) < len(details.outputs):
            faults.append(f"outputs = {shown(details.outputs)}: an output is named twice")
    except InputError as error:
        faults.append(f"outputs = {shown(details.outputs)}: {error.message}")
    if "/" in details.data or "\0" in details.data or details.data in (".", ".."):
        faults.append(f"data = {shown(details.data)}: the weights are outside its folder")
    return faults


def _is_deep(value: Any, depth: int) -> bool:
    """Return whether lists and objects are nested more than `depth` times."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(inner) and (depth == 0 or any(_is_deep(each, depth - 1) for each in inner))
