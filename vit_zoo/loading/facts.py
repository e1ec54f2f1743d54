"""Facts that a user states: which of them are fields of the spec, and which concern only a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from vit_zoo.errors import InputError, Option, shown
from vit_zoo.model.resize_recipes import recipe_named
from vit_zoo.model.spec import Size, ViTSpec, parse_value

OF_FILES: dict[str, Any] = {"grid": Size, "prefix": str | Annotated[int, Field(ge=0, le=1_000_000)]}  # not fields of the spec


def parsed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts as the types of their fields, without those that are None: these are not stated.

    Raises InputError for the first value that is not valid. Other names are left to the reader of the source that they concern.
    """
    return {name: _parsed(name, value) for name, value in facts.items() if value is not None}


def _parsed(name: str, value: object) -> Any:
    if name in ViTSpec.model_fields:
        return ViTSpec.parse_field(name, value)
    if name == "resize":
        recipe_named(value)
    return parse_value(name, value, OF_FILES[name]) if name in OF_FILES else value


def patterns(allow_drop: object) -> tuple[str, ...]:
    """Return the patterns of tensors that may be left out. Raises InputError for what is not a list of texts."""
    if not isinstance(allow_drop, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in allow_drop):
        raise InputError(f"allow_drop = {shown(allow_drop)}: expected a list of patterns, such as ['head.*']")
    return tuple(allow_drop)


def of_spec(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts without `allow_drop` and `head`, which concern only the tensors of files."""
    return {name: value for name, value in facts.items() if name not in ("allow_drop", "head")}


def of_model_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that concern the model for which weights are read, and not only their file."""
    return {name: value for name, value in of_spec(facts).items() if name != "prefix"}


def check_without_head(facts: Mapping[str, Any], where: object) -> None:
    """Raise InputError if a file of a head is stated for what is not a checkpoint of another library."""
    if "head" in facts:
        head = Option("head", "FILE", "--head")
        raise InputError(f"{head} applies only to a checkpoint of another library that has no head", where=where, options=[head])
