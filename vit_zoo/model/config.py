"""What a model says of itself beside its weights: the content of `config.json` and of every artifact's metadata."""

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
    """A spec with its name, preprocessing, labels and the origin of its weights.

    `random_seed` is set while the weights are untrained; `source` and `licence` are those of the weights; `resize` is the
    recipe by which their source makes positions for other image sizes (`resize_recipes.py`), timm's if it is not there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")
    spec: ViTSpec
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    source: str | None = None
    licence: str | None = None
    licence_link: str | None = None  # where its text is, if it is none that everybody knows
    random_seed: int | None = None
    resize: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.labels is not None and len(self.labels) != self.spec.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.spec.num_classes} classes")
        if self.resize not in (None, *RECIPES):
            raise ValueError(f"resize '{self.resize}' is none of {', '.join(RECIPES)}")
        if self.preprocess is not None:
            if self.preprocess.size != self.spec.image_size:
                raise ValueError(f"preprocess.size {self.preprocess.size} is not image_size {self.spec.image_size}")
            if len(self.preprocess.mean) != self.spec.channels:
                raise ValueError(f"{len(self.preprocess.mean)} means for {self.spec.channels} channels")
        return self

    @classmethod
    def parse(cls, document: Mapping[str, Any], *, where: object) -> Self:
        """The config under the key `vit_zoo` of a `config.json`. Raises InputError naming `where`."""
        ours = document.get("vit_zoo")
        if not isinstance(ours, dict):
            raise InputError("has no 'vit_zoo' entry: not a config that this package wrote", where=where)
        fields = dict(ours)
        schema = fields.pop("schema", None)
        if schema != SCHEMA:
            newer = isinstance(schema, int) and schema > SCHEMA
            raise InputError(
                f"schema {schema!r}; this version reads {SCHEMA}", where=where, hint="upgrade vitzoo" if newer else None
            )
        if isinstance(fields.get("spec"), dict):
            fields["spec"] = ViTSpec.parse(fields["spec"], where=where)
        return cls.checked(fields, where=where)

    @classmethod
    def checked(cls, fields: Mapping[str, Any], *, where: object) -> Self:
        """The config that `fields` state; every fault of them in one `InputError`, naming `where` they came from."""
        try:
            return cls(**fields)
        except ValidationError as error:
            raise InputError("; ".join(faults_of(error, list(cls.model_fields))), where=where) from None

    def document(self) -> dict[str, Any]:
        """The JSON form, as `parse` reads it."""
        fields = self.model_dump(mode="json", exclude_none=True)
        if self.preprocess is not None:
            fields["preprocess"] = self.preprocess.model_dump(mode="json")  # null is one of its values
        return {"vit_zoo": {"schema": SCHEMA, **fields}}

    def dumps(self) -> str:
        return json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n"

    def replace(self, **fields: Any) -> Self:
        """A copy with other values, validated. Raises InputError for values that contradict each other."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return self.checked({**values, **fields}, where=self.name)
