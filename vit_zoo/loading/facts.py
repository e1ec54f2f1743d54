"""Facts that a user states: which of them are fields of the spec, and which concern only a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_zoo.errors import InputError, Option


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
