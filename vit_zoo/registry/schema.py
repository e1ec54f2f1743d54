"""Schema of zoo files in pydantic: makes the JSON Schema for editors, and finds all faults of a file at once.

`python -m vit_zoo.registry.schema > zoo/schema.json` writes the JSON Schema. A test checks that the file is up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from vit_zoo.errors import did_you_mean, shown
from vit_zoo.model.preprocess import Mean, Side
from vit_zoo.model.spec import ViTSpec
from vit_zoo.registry.family_file import NAME, SIZE, read_toml

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
SideOrPair = Annotated[
    Side | tuple[Side, Side], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
]
Form = Literal["reg", "gap", "map"]
Fraction = Annotated[float, Field(gt=0, le=1)]
SizeKey = Annotated[str, Field(pattern=r"^([1-9][0-9]{0,4}|other)$")]  # an image size, or "other" for all other sizes
CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _partial(model: str, /, **more: Any) -> type[BaseModel]:
    """Return a pydantic model of the spec's fields, all optional, and of `more` fields."""
    fields: dict[str, Any] = {}
    for field, info in ViTSpec.model_fields.items():
        kind: Any = SideOrPair if field.endswith("_size") else info.annotation
        for constraint in [] if field.endswith("_size") else info.metadata:
            kind = Annotated[kind, constraint]
        fields[field] = (kind, None)
    return create_model(model, __config__=CONFIG, **fields, **more)


class FamilyTable(BaseModel):
    model_config = CONFIG

    name: Name = None  # type: ignore[assignment]
    title: str = None  # type: ignore[assignment]
    use: str = None  # type: ignore[assignment]
    conventions: str = None  # type: ignore[assignment]
    labels: str = None  # type: ignore[assignment]
    problem_type: Literal["embedding"] = None  # type: ignore[assignment]


class PreprocessTable(BaseModel):
    model_config = CONFIG

    interpolation: Literal["bilinear", "bicubic"]
    mean: Mean
    std: Mean
    crop: Fraction | dict[SizeKey, Fraction] = None  # type: ignore[assignment]
    resize_to: Side | dict[SizeKey, Side] = None  # type: ignore[assignment]


Fields = _partial("Fields")
Spec = _partial("Spec", extends=(str, None))
Row = _partial(
    "Row",
    size=(str, None),
    form=(list[Form], None),
    params=(Annotated[int, Field(ge=0)], None),
    gmacs=(Annotated[float, Field(ge=0)], None),
    weights=(str, None),
)
SizeName = Annotated[str, Field(pattern=f"^{SIZE.pattern}$")]
FamilyFile = create_model(
    "FamilyFile",
    __config__=CONFIG,
    family=(FamilyTable, None),
    spec=(Spec, None),
    preprocess=(PreprocessTable, None),
    suffix=(dict[Form, Fields], None),  # type: ignore[valid-type]
    size=(dict[SizeName, Fields], None),  # type: ignore[valid-type]
    variant=(dict[Name, Row], ...),  # type: ignore[valid-type]
)
VariantFile = _partial("VariantFile", name=(Name, None), extends=(str, None), preprocess=(PreprocessTable, None))
# the model of each table, to suggest a field for a misspelt one
TABLES: dict[str, type[BaseModel]] = {
    "family": FamilyTable, "spec": Spec, "preprocess": PreprocessTable, "size": Fields, "suffix": Fields, "variant": Row,
}  # fmt: skip


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a zoo file."""
    either: Any = FamilyFile | VariantFile
    body = TypeAdapter(either).json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A zoo file: a family, or a single variant"}
    document = _without_defaults({**head, **body})
    assert isinstance(document, dict)
    return document


def _without_defaults(node: Any) -> Any:
    """Remove the None defaults: they mean that a field is absent, and TOML has no null."""
    if isinstance(node, dict):
        return {key: _without_defaults(value) for key, value in node.items() if not (key == "default" and value is None)}
    return [_without_defaults(item) for item in node] if isinstance(node, list) else node


def faults_of_file(file: Path) -> Iterator[str]:
    """Yield each fault of a file with the path of its field. Raises InputError if the file is not TOML."""
    data = read_toml(file)
    family = "variant" in data
    try:
        (FamilyFile if family else VariantFile).model_validate(data)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            yield _fault_text(fault, family=family)
    if family:
        yield from _undefined_references(data)


def _fault_text(fault: Any, *, family: bool) -> str:
    place = [str(part) for part in fault["loc"] if not str(part).startswith(("function-", "tuple[", "dict[", "constrained-"))]
    path = ".".join(place)
    if fault["type"] == "extra_forbidden":
        return f"unknown field '{path}'{did_you_mean(place[-1], _sibling_fields(place, family=family))}"
    if fault["type"] == "missing":
        return f"field '{path}' is missing"
    return f"{path} = {shown(fault['input'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _sibling_fields(place: list[str], *, family: bool) -> list[str]:
    """Return the valid fields of the table that this path is in."""
    if len(place) == 1:
        return list((FamilyFile if family else VariantFile).model_fields)
    return list(TABLES[place[0]].model_fields) if place[0] in TABLES else []


def _undefined_references(data: dict[str, Any]) -> Iterator[str]:
    """Yield a fault for each row with a size or form that the file does not define."""
    rows = data["variant"] if isinstance(data["variant"], dict) else {}
    for name, row in rows.items():
        if not isinstance(row, dict):
            continue
        for table, keys in (("size", [row["size"]] if "size" in row else []), ("suffix", row.get("form", []))):
            known = list(data[table]) if isinstance(data.get(table), dict) else []
            for key in keys if isinstance(keys, list) else []:
                if isinstance(key, str) and key not in known:
                    yield f"variant.{name}: no {table} '{key}'{did_you_mean(key, known)}"


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))  # noqa: T201
