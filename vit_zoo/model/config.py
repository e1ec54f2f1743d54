"""Config of a model: its spec and everything else but its weights, as stored in `config.json` and in exported files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vit_zoo.errors import InputError, Option, fact, shown
from vit_zoo.model.ops import Activation
from vit_zoo.model.outputs import CLASSES, EMBEDDING, check_names, output_names
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.model.resize_recipes import RECIPES, UNSTATED
from vit_zoo.model.spec import ViTSpec, faults_of

SCHEMA = 1
# transformers' words for what the outputs stand for; embedding: the head projects into a space that it shares with texts (CLIP)
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression", "embedding"]
PROBLEM_TYPES: tuple[ProblemType, ...] = get_args(ProblemType)
REGRESSION = Option("problem_type", "'regression'", "--set problem_type=regression")
MULTI_LABEL = Option("problem_type", "'multi_label_classification'", "--set problem_type=multi_label_classification")
LABELS = Option("labels", "'FILE'", "--labels FILE")
FEATURES = "in Python, vit_zoo.load(MODEL).features(images)"
PREPROCESS = Option("preprocess", "'imagenet'", "--preprocess NAME or FILE, or --mean, --std, --crop and --interpolation")


class Accuracy(BaseModel):
    """The top-1 accuracy of a model, measured by vitzoo.

    It holds for the weights with the content hash `weights` only: whoever writes others leaves it out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    top1: Annotated[float, Field(ge=0, le=1)]
    images: Annotated[int, Field(ge=1)]
    dataset: Annotated[str, Field(min_length=1, max_length=200)]  # the name of the folder or the file that lists the images
    split: Annotated[str, Field(min_length=1, max_length=200)]  # which of its images were counted
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def __str__(self) -> str:
        return f"{100 * self.top1:.2f} % of {self.images:,} images of {self.dataset} ({self.split})"


class ModelConfig(BaseModel):
    """A spec with the model's name, preprocessing, labels, and the origin of its weights.

    `source` and `licence` are those of the weights. `random_seed` is set if the weights are random, and `random_part` if only
    a part of them is: a new classifier on trained weights. `resize` is the recipe
    with which the source of the weights resizes positions to another image size (see `resize_recipes.py`); None means timm's,
    `unstated` that the file did not show it.
    `problem_type` states what the outputs stand for; None means classes of which one applies, except for a single output, and in
    files of version 0.1, which do not state embeddings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$")
    spec: ViTSpec
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = Field(default=None, repr=False)  # which may be thousands
    source: str | None = None
    licence: str | None = None
    licence_link: str | None = None  # URL of the text, for a licence that is not well known
    random_seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**64)] | None = None  # as torch takes them
    random_part: Literal["head"] | None = None
    resize: str | None = None
    problem_type: ProblemType | None = None
    accuracy: Accuracy | None = None

    @property
    def random_text(self) -> str:
        """What is random about the weights, in capitals, with the seed; empty if nothing is."""
        if self.random_seed is None:
            return ""
        what = "RANDOM WEIGHTS" if self.random_part is None else "RANDOM WEIGHTS in the new classifier"
        return f"{what} (seed {self.random_seed})"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.labels is not None and len(self.labels) != self.spec.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.spec.num_classes} classes")
        if self.is_embedding and self.labels is not None:
            raise ValueError("labels do not apply to an embedding")
        if self.problem_type is not None and not self.spec.num_classes:
            raise ValueError(f"problem_type '{self.problem_type}' needs classes")
        if self.resize not in (None, UNSTATED, *RECIPES):
            raise ValueError(f"unknown resize {shown(self.resize)}; choose from {', '.join(RECIPES)}")
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
        if type(schema) is not int or schema != SCHEMA:
            newer = type(schema) is int and schema > SCHEMA
            raise InputError(
                f"unknown schema {shown(schema)}; this version of vitzoo reads schema {SCHEMA}",
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

    @property
    def is_embedding(self) -> bool:
        """Whether the head computes an embedding instead of classes."""
        return self.problem_type == "embedding"

    @property
    def classes(self) -> int:
        """The number of classes, or of the values of a regression; 0 if the model computes features."""
        return 0 if self.is_embedding else self.spec.num_classes

    @property
    def output(self) -> str:
        """The name of the model's own output."""
        return EMBEDDING if self.is_embedding else self.spec.output

    def output_names(self) -> list[str]:
        """Return the names of all outputs, of which the head's stand for what the problem type says."""
        others = CLASSES if self.is_embedding else set() if self.spec.projection else {EMBEDDING}
        return [name for name in output_names(self.spec) if name not in others]

    def checked_outputs(self, outputs: Iterable[str]) -> tuple[str, ...]:
        """Return the outputs without duplicates, or the model's own if there are none. Raises InputError as `check_names`."""
        check_names(outputs, self.output_names())
        return tuple(dict.fromkeys(outputs)) or (self.output,)

    @property
    def activation(self) -> Activation | None:
        """The function that makes probabilities of the logits; None if they are no classes, or nothing states what they are.

        The rule is that of transformers' pipeline, except for one output of a model that states no problem type: there the
        pipeline applies the sigmoid, while the training of transformers fits a regression.
        """
        if self.problem_type == "regression" or not self.classes:
            return None
        if self.spec.num_classes == 1:
            return None if self.problem_type is None else "sigmoid"
        return "sigmoid" if self.problem_type == "multi_label_classification" else "softmax"

    def class_activation(self) -> Activation:
        """Return `activation`. Raises InputError where there is none, with the fact to state if it is missing."""
        if self.activation is not None:
            return self.activation
        if not self.classes:
            width = self.spec.num_classes or self.spec.feature_width
            what = f"the model has no classes: it computes features, '{self.output}'"
            what += f" of width {width}" if self.spec.pool != "none" else ""
            raise InputError(what, where=self.name, hint=f"{FEATURES} returns them")
        if self.problem_type == "regression":
            raise InputError("the model is a regression: its outputs are values, not probabilities", where=self.name)
        raise InputError(
            "the model has one output, and nothing states what it stands for",
            where=self.name,
            hint=f"state it: {REGRESSION} for a value, {MULTI_LABEL} for the probability of yes",
            options=[REGRESSION, MULTI_LABEL],
        )

    def with_problem_type(self, stated: Any) -> Self:
        """Return a copy with the problem type that the user states, if any. Raises InputError if the config has another."""
        if stated is None:
            return self
        if not isinstance(stated, str) or stated not in PROBLEM_TYPES:
            raise InputError(f"unknown problem_type {shown(stated)}; choose from {', '.join(PROBLEM_TYPES)}")
        if not self.spec.num_classes:
            raise InputError("problem_type does not apply: the model has no classes", where=self.name)
        if self.problem_type not in (None, stated, "embedding"):
            raise InputError(f"the config states problem_type = {self.problem_type}, not {stated}", where=self.name)
        return self.replace(problem_type=stored_problem_type(stated, self.spec.num_classes))

    def with_labels(self, labels: tuple[str, ...] | None, *, where: object = None) -> Self:
        """Return a copy with these names of the classes, if any are stated.

        Raises InputError for another number of them; `where` is their file, or None for the name of the model.
        """
        if labels is None:
            return self
        classes = self.classes
        if not classes:
            raise InputError("labels do not apply: the model has no classes", where=where or self.name)
        if len(labels) != classes:
            raise InputError(f"{len(labels)} labels for {classes} classes", where=where or self.name)
        return self.replace(labels=labels)

    def with_preprocess(self, preprocess: Preprocess | None) -> Self:
        """Return a copy with this preprocessing, if any is stated.

        Raises InputError if it makes images of another size, or with another number of channels, than the model takes.
        """
        if preprocess is None:
            return self
        size, taken = preprocess.size, self.spec.image_size
        if size != taken:
            resized = fact("image_size", str(size[0]) if size[0] == size[1] else f"{size[0]},{size[1]}")
            cause = f"the preprocessing makes images of {size[0]}x{size[1]}, the model takes {taken[0]}x{taken[1]}"
            raise InputError(cause, where=self.name, hint=f"{resized} resizes the model", options=[resized])
        return self.replace(preprocess=preprocess, accuracy=self.accuracy if preprocess == self.preprocess else None)

    def for_weights(self, digest: str | None) -> Self:
        """Return the config of weights with this content hash: without the accuracy of others. None if the hash is not known."""
        if self.accuracy is None or self.accuracy.weights == digest:
            return self
        return self.replace(accuracy=None)

    def known_preprocess(self) -> Preprocess:
        """Return the preprocessing. Raises InputError if the config has none, with the options that state it."""
        if self.preprocess is None:
            hint = f"state it: {PREPROCESS}"
            raise InputError("the config has no preprocessing", where=self.name, hint=hint, options=[PREPROCESS])
        return self.preprocess

    def document(self) -> dict[str, Any]:
        """Return the JSON document that `parse` reads."""
        fields = self.model_dump(mode="json", exclude_none=True)
        fields["spec"] = self.spec.document()
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


def stored_problem_type(stated: ProblemType | None, num_classes: int) -> ProblemType | None:
    """Return what a config stores for a problem type: nothing where there are no classes, or for what None means.

    One output of a single label is yes or no: transformers' pipeline applies the sigmoid. Its configs of today refuse the word.
    """
    if not num_classes:
        return None
    if stated == "single_label_classification":
        return None if num_classes > 1 else "multi_label_classification"
    return stated
