"""Labels and preprocessing that the user states: in a list, a name, a file of any library, or a mapping."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Union

from vit_zoo.errors import InputError, Option, did_you_mean, notice, shown
from vit_zoo.files import read_json, read_json_value, read_text
from vit_zoo.files.sniff import is_file
from vit_zoo.registry.configs import checked_preprocess, preprocess_named, preprocess_of_table, resize_to_of
from vit_zoo.registry.family_file import read_toml
from vit_zoo.registry.labels import has_names, label_names

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.preprocess import Preprocess

Labels = Sequence[str] | Mapping[Any, Any] | str | os.PathLike[str]  # as `stated_labels` takes them
PreprocessLike = Union["Preprocess", Mapping[str, Any], str, "os.PathLike[str]"]  # as `stated_preprocess` takes it

NUMBERED = "LABEL_0"  # the first of the names that transformers fills in where none are known
# what preprocessing needs where no other is modified, as the error writes it
NEEDED = {
    "mean": Option("mean", "[...]", "--mean"),
    "std": Option("std", "[...]", "--std"),
    "crop": Option("crop", "0.875", "--crop"),
    "interpolation": Option("interpolation", "'bicubic'", "--interpolation"),
}
NO_CROP = "none"
WITHOUT_CROP = Option("crop", "'none'", "--crop none")
PRESET = Option("extends", "'imagenet'", "--preprocess imagenet")
FIELDS = ("extends", "size", "resize_to", "squash", *NEEDED, "crop_rounding", "resize_dtype")
OF_TRANSFORMERS = {"image_processor_type", "feature_extractor_type", "image_mean", "do_normalize"}


@dataclass(frozen=True)
class Description:
    """What a user states about a model beside its spec; None for what is not stated."""

    problem_type: Any = None
    labels: tuple[str, ...] | None = None
    preprocess: Any = None
    labels_file: str | None = None  # where the labels come from, if that is a file

    @classmethod
    def taken_from(cls, facts: dict[str, Any], labels: Any = None, preprocess: Any = None) -> Self:
        """Take the facts that are no fields of the spec out of a mapping. Raises InputError for labels that are not valid."""
        labels, preprocess = facts.pop("labels", labels), facts.pop("preprocess", preprocess)
        file = str(labels) if isinstance(labels, str | os.PathLike) and is_file(labels) else None
        return cls(facts.pop("problem_type", None), None if labels is None else stated_labels(labels), preprocess, file)

    @property
    def stated(self) -> tuple[str, ...]:
        """The names of the facts that are stated."""
        return tuple(name for name in ("problem_type", "labels", "preprocess") if getattr(self, name) is not None)

    def of(self, config: ModelConfig) -> ModelConfig:
        """Return the config with what is stated. Raises InputError if it does not fit the model."""
        config = config.with_problem_type(self.problem_type)
        config = config.with_labels(self.labels, where=self.labels_file)
        return config if self.preprocess is None else config.with_preprocess(stated_preprocess(self.preprocess, config))


def stated_labels(value: Any) -> tuple[str, ...]:
    """Return the names of the classes, in the order of the outputs.

    `value` is a sequence of names; a mapping from numbers to names, as transformers' `id2label`, or back; a text with commas;
    the name of a label set, such as `imagenet1k`; or a file: a text file with one name in each line, or a JSON file with a list,
    such a mapping, or a config of transformers, timm or vitzoo. Raises InputError for names that are empty; tells the user of two
    classes with one name, such as ImageNet's two cranes.
    """
    where: object = "labels"
    if isinstance(value, str | os.PathLike):
        where, value = value if is_file(value) else where, _named_labels(value)
    if isinstance(value, Mapping):
        value = _listed_labels(value, where)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):  # a JSON file may hold a text alone
        raise InputError(f"expected the names of the classes, got {type(value).__name__}", where=where)
    labels = tuple(value)
    for i, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            empty = label is None or (isinstance(label, str) and not label)
            raise InputError(f"the name of class {i} is empty" if empty else f"class {i} is {shown(label)}", where=where)
    first = {label: i for i, label in reversed(list(enumerate(labels)))}
    twice = next((i for i, label in enumerate(labels) if first[label] != i), None)
    if twice is not None:
        notice(f"{where}: classes {first[labels[twice]]} and {twice} have the same name, {labels[twice]!r}")
    if not labels:
        raise InputError("contains no names", where=where)
    return labels


def _named_labels(value: str | os.PathLike[str]) -> Any:
    """Return the names in a text with commas, in a file, or of a label set."""
    text, path = str(value), Path(value)
    if is_file(path):
        content = read_text(path)
        if path.suffix == ".json" or content.lstrip().startswith(("{", "[")):
            return read_json_value(path)
        return [line.strip() for line in content.strip().splitlines()]
    if isinstance(value, str) and "," in text:
        return [name.strip() for name in text.split(",")]
    if text.isidentifier() and has_names(text):
        return label_names(text)
    raise InputError("no such file", where=text, hint="commas separate names: a,b,c")


def _listed_labels(document: Mapping[Any, Any], where: object) -> Any:
    """Return the names in a config or in a mapping between numbers and names."""
    ours = document.get("vit_zoo")
    inner = (ours.get("labels") if isinstance(ours, Mapping) else None, document.get("id2label"), document.get("label_names"))
    stated = next((each for each in inner if each is not None), document)
    if not isinstance(stated, Mapping):
        return stated
    if all(type(number) is int for number in stated.values()):
        stated = {number: name for name, number in stated.items()}
    missing = [i for i in range(len(stated)) if i not in stated and str(i) not in stated]
    if missing:
        raise InputError(f"expected names of the classes 0 to {len(stated) - 1}, got none of class {missing[0]}", where=where)
    return [stated[i] if i in stated else stated[str(i)] for i in range(len(stated))]


def without_names(config: ModelConfig) -> bool:
    """Return whether the classes of a model have no names, or the numbered ones that transformers fills in."""
    classes = config.spec.num_classes and config.problem_type != "regression"
    return bool(classes) and (config.labels is None or config.labels[0] == NUMBERED)


def stated_preprocess(value: Any, config: ModelConfig) -> Preprocess:
    """Return the preprocessing that a user states for a model.

    `value` is a `Preprocess`; the name of a preset, a family, a model or a tag; a file: preprocessor_config.json,
    processor_config.json, a config.json of timm or vitzoo, open_clip_config.json, or a TOML file with a table `preprocess`; an
    image processor of transformers; or a mapping. A mapping is the content of such a file, or has some of the fields `mean`,
    `std`, `size`, `crop`, `interpolation`, which modify what `extends` names or what the config states. Raises InputError for
    what is not known, and for what is missing.
    """
    from vit_zoo.model.preprocess import Preprocess

    if isinstance(value, Preprocess):
        return value
    if isinstance(value, str | os.PathLike):
        return _named_preprocess(value, config)
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return _of_document(value, config, None)
    raise InputError(f"preprocess: expected a name, a file or a mapping, got {type(value).__name__}")


def _named_preprocess(value: str | os.PathLike[str], config: ModelConfig) -> Preprocess:
    """Return the preprocessing in a file or of a name, at the model's image size if the file states none."""
    path = Path(value)
    if not is_file(path):
        return preprocess_named(str(value), config.spec.image_size)
    if path.suffix != ".toml":
        return _of_document(read_json(path), config, path)
    table = read_toml(path).get("preprocess")
    if not isinstance(table, dict):
        raise InputError("has no table [preprocess]", where=path)
    return preprocess_of_table(table, config.spec.image_size, where=path)


def _of_document(document: Mapping[str, Any], config: ModelConfig, where: Path | None) -> Preprocess:
    """Return the preprocessing in the content of a library's file, or of a mapping of ours."""
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.weights.configs import hf, open_clip
    from vit_zoo.weights.configs.image_processors import of_timm

    inner = document.get("image_processor")
    document = inner if isinstance(inner, Mapping) else document
    if "vit_zoo" in document:
        stated = ModelConfig.parse(document, where=where).preprocess
    elif OF_TRANSFORMERS & set(document):
        stated = hf.preprocess_of(document)
    elif "preprocess_cfg" in document:
        stated = open_clip.preprocess_of(document)
    elif {"pretrained_cfg", "input_size", "crop_pct"} & set(document):
        stated = of_timm({name: list(each) if isinstance(each, tuple) else each for name, each in document.items()})
    else:
        return _of_fields(document, config, where)
    if stated is None:
        raise InputError("states no preparation of images that is supported", where=where or "preprocess")
    return stated


def _of_fields(stated: Mapping[str, Any], config: ModelConfig, where: Path | None) -> Preprocess:
    """Return the preprocessing of the config, or the one that `extends` names, with these fields in place of its own."""
    unknown = next((name for name in stated if name not in FIELDS), None)
    if unknown is not None:
        near = did_you_mean(str(unknown), list(FIELDS))
        raise InputError(
            f"unknown field 'preprocess.{str(unknown)[:96]}'{near}", where=where, hint=f"choose from {', '.join(FIELDS)}"
        )
    named = stated.get("extends")
    if named is not None and not isinstance(named, str | os.PathLike):
        raise InputError(f"preprocess.extends = {shown(named)}: expected a name or a file", where=where)
    base = config.preprocess if named is None else _named_preprocess(named, config)
    size = _size(stated.get("size", config.spec.image_size), where)
    cropped = {"crop", "resize_to", "squash"} & set(stated)
    if base is None:
        missing = [option for name, option in NEEDED.items() if name not in stated and not (name == "crop" and cropped)]
        if missing:
            hint = f"add {', '.join(map(str, missing))}, or name what they modify: {PRESET}"
            raise InputError(
                "the preprocessing is not complete", where=where or config.name, hint=hint, options=[*missing, PRESET]
            )
    complete = {} if base is None else base.for_size(size).model_dump()
    complete |= {name: value for name, value in stated.items() if name not in ("extends", "crop", "squash")}
    if cropped:
        complete["resize_to"] = _resize_to(stated, size, where)
    for name in ("mean", "std"):
        if isinstance(complete[name], int | float) and not isinstance(complete[name], bool):
            complete[name] = (float(complete[name]),) * config.spec.channels
    return checked_preprocess({**complete, "size": size}, where=where)


def _resize_to(stated: Mapping[str, Any], size: tuple[int, int], where: object) -> Any:
    """Return the size before the crop that the stated fields mean; None if they state that nothing is cropped."""
    if stated.get("crop", NO_CROP) in (None, NO_CROP):
        return stated.get("resize_to")
    if size[0] != size[1]:
        cause = f"a crop is a share of a square image, not of {size[0]}x{size[1]}"
        raise InputError(cause, where=where, hint=f"{WITHOUT_CROP} squashes the image", options=[WITHOUT_CROP])
    return resize_to_of(stated, size, where=where)


def _size(value: Any, where: object) -> tuple[int, int]:
    """Return a size as (height, width)."""
    from pydantic import TypeAdapter, ValidationError

    from vit_zoo.model.spec import Size

    try:
        size: tuple[int, int] = TypeAdapter(Size).validate_python(value)
    except ValidationError:
        raise InputError(
            f"preprocess.size must be a number of pixels, or a height and a width, got {shown(value)}", where=where
        ) from None
    return size
