"""Config of a model: its spec and everything else but its weights, as stored in `config.json` and in exported files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vit_zoo.errors import InputError
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.model.resize_recipes import RECIPES
from vit_zoo.model.spec import ViTSpec, faults_of

SCHEMA = 1


class ModelConfig(BaseModel):
    """A spec with the model's name, preprocessing, labels, and the origin of its weights.

    `source` and `licence` are those of the weights. `random_seed` is set if the weights are random. `resize` is the recipe
    with which the source of the weights resizes positions to another image size (see `resize_recipes.py`); None means timm's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")
    spec: ViTSpec
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    source: str | None = None
    licence: str | None = None
    licence_link: str | None = None  # URL of the text, for a licence that is not well known
    random_seed: int | None = None
    resize: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.labels is not None and len(self.labels) != self.spec.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.spec.num_classes} classes")
        if self.resize not in (None, *RECIPES):
            raise ValueError(f"unknown resize '{self.resize}'; choose from {', '.join(RECIPES)}")
        if self.preprocess is not None:
            if self.preprocess.size != self.spec.image_size:
                raise ValueError(f"preprocess.size {self.preprocess.size} must equal image_size {self.spec.image_size}")
            if len(self.preprocess.mean) != self.spec.channels:
                raise ValueError(f"{len(self.preprocess.mean)} means for {self.spec.channels} channels")
        return self

    @classmethod
    def parse(cls, document: Mapping[str, Any], *, where: object) -> Self:
        """Parse the config under the key `vit_zoo` of a `config.json`. Raises InputError; `where` is the source."""
        entry = document.get("vit_zoo")
        if not isinstance(entry, dict):
            raise InputError("not a config written by vitzoo: it has no 'vit_zoo' entry", where=where)
        fields = dict(entry)
        schema = fields.pop("schema", None)
        if schema != SCHEMA:
            newer = isinstance(schema, int) and schema > SCHEMA
            raise InputError(
                f"unknown schema {schema!r}; this version of vitzoo reads schema {SCHEMA}",
                where=where,
                hint="upgrade vitzoo" if newer else None,
            )
        if isinstance(fields.get("spec"), dict):
            fields["spec"] = ViTSpec.parse(fields["spec"], where=where)
        return cls.checked(fields, where=where)

    @classmethod
    def checked(cls, fields: Mapping[str, Any], *, where: object) -> Self:
        """Return the config with these fields. Raises InputError with all faults; `where` is the source of the fields."""
        try:
            return cls(**fields)
        except ValidationError as error:
            raise InputError("; ".join(faults_of(error, list(cls.model_fields))), where=where) from None

    def document(self) -> dict[str, Any]:
        """Return the JSON document that `parse` reads."""
        fields = self.model_dump(mode="json", exclude_none=True)
        if self.preprocess is not None:
            fields["preprocess"] = self.preprocess.model_dump(mode="json")  # keeps `resize_to` if it is null
        return {"vit_zoo": {"schema": SCHEMA, **fields}}

    def to_dict(self) -> dict[str, Any]:
        """Return the config as PEFT asks for it, with the `model_type` that it looks its defaults up by: it has none for us."""
        return {"model_type": "vit_zoo", **self.model_dump(mode="json")}

    def dumps(self) -> str:
        """Return the text of `config.json`."""
        return json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n"

    def replace(self, **fields: Any) -> Self:
        """Return a copy with other values, validated. Raises InputError."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return self.checked({**values, **fields}, where=self.name)
