"""Weight dialects as data: how a library names and stores the tensors of a Vision Transformer.

"Ours" are the names of `ViTSpec.shapes()`, which are timm's; "theirs" are those of a library's files. `{i}` in a name is the
number of a block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_zoo.files import Stored
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import ViTSpec
    from vit_zoo.weights.sidecar import SidecarFormat

Sizes = Mapping[str, int]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Rule:
    """One tensor of ours and the tensor or tensors of theirs that it is made of.

    * `pattern`: einops pattern from each of theirs to rows of ours; read backwards it is the inverse.
    * `rows` (first, last, parts): theirs is cut into `parts` equal parts along its rows, of which ours is `first` up to, not
      including, `last`. Other rules use the rest.
    * `where_present`, `where_absent`: the rule applies to blocks of a file that have, or lack, this tensor of theirs.
    """

    ours: str
    theirs: tuple[str, ...]
    pattern: str | None = None
    rows: tuple[int, int, int] | None = None
    where_present: str | None = None
    where_absent: str | None = None


def rule(
    ours: str,
    *theirs: str,
    pattern: str | None = None,
    rows: tuple[int, int, int] | None = None,
    where_present: str | None = None,
    where_absent: str | None = None,
) -> Rule:
    return Rule(ours, theirs, pattern, rows, where_present, where_absent)


def layer(
    ours: str,
    *theirs: str,
    weight: str = ".weight",
    bias: str = ".bias",
    pattern: str | None = None,
    bias_pattern: str | None = None,
) -> tuple[Rule, Rule]:
    """Two rules, for the weight and the bias of a layer.

    `weight` and `bias` are the endings of their names, `pattern` and `bias_pattern` the patterns of the two rules.
    """
    return (
        Rule(f"{ours}.weight", tuple(name + weight for name in theirs), pattern),
        Rule(f"{ours}.bias", tuple(name + bias for name in theirs), bias_pattern),
    )


def replaced(rules: tuple[Rule, ...], *others: Rule) -> tuple[Rule, ...]:
    """The rules, with `others` in place of the rules for the same tensors."""
    taken = {rule_.ours for rule_ in others}
    return (*(rule_ for rule_ in rules if rule_.ours not in taken), *others)


def grid_of(name: str) -> Callable[[Shapes], tuple[int, int] | None]:
    """The field `grid` of a dialect whose position table has this name and the axes rows, columns, d, perhaps after one of 1."""

    def grid(shapes: Shapes) -> tuple[int, int] | None:
        shape = shapes.get(name, ())
        return (shape[-3], shape[-2]) if len(shape) > 2 else None

    return grid


def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One regular expression for what any of these matches; without any, it matches nothing."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)")


@dataclass(frozen=True)
class Need:
    """A tensor of ours that every file of a dialect has, so that its absence is damage and not a variant.

    It may be absent where the user or the live module states `field`, or where the tensor `unless` is there instead.
    `where_present` limits the need to files that have that tensor.
    """

    tensor: str
    field: str
    unless: str | None = None
    where_present: str | None = None


HEAD_BIAS = Need("head.bias", "head_bias", where_present="head.weight")
POOL_LATENT = Need("attn_pool.latent", "pool", where_present="attn_pool.q.weight")


@dataclass(frozen=True)
class Dialect:
    """How one library, in a range of its versions, names and stores a Vision Transformer.

    A new dialect is one file in `dialects/` and one row in `dialects.DIALECTS`. `name`, `signature`, `rules` and
    `conventions` are required; the other fields describe what is unusual.

    Recognise a file:

    * `signature`: names that no other dialect has together. A dialect whose signature contains another's comes before it in
      `DIALECTS`.
    * `matches_shapes`: a test, by shapes, that separates two dialects with the same names.
    * `prefixes`: what the model's keys may begin with (`vit.`). Training wrappers such as `module.` are removed before.
    * `unprefixed`: beginnings of names that never have the prefix, such as a classifier next to the backbone.
    * `sometimes_unprefixed`: beginnings of names that some files write with the prefix and others without it.
    * `renames`: pairs of a regular expression and its replacement, from other spellings of a name to that of the rules.

    Translate:

    * `rules`: one for each of our tensors. If two rules are for the same tensor, the first is used for writing.
    * `prepare`: changes the tensors of a file before the rules apply, for example splits blocks that are stacked in one.
    * `pattern_sizes`: lengths of axes in patterns that a shape alone does not settle, from the file's shapes and the facts.

    Read (fields of the spec are "facts"):

    * `conventions`: facts that hold for every file of the library.
    * `conventions_by_shapes`: by the shapes of our tensors, conventions that differ for some files; None for a fact that files of
      that kind do not have in common, so that it must be stated.
    * `facts_from_shapes`: facts that the library's shapes show and ours do not, such as the width of a head.
    * `facts_from_module`: facts of a live module of the library.
    * `config_from_module`: what a live module says about classes and image preparation, as in the library's config file.
    * `run_module`: how a live module computes its result for normalised images, b c H W.
    * `head_width`: the width of a head, where all models of the library have the same.
    * `sidecar`: the format of the library's config file next to a checkpoint.
    * `needs`: tensors that no file lacks.
    * `norm_place_is_stated`: the final norm has the same name before and after pooling, and a fact states where it is.
    * `unwanted`: regular expressions of names that are known and not part of the model.
    * `unwanted_outside`: the same for names outside the model's prefix, such as those of a text tower.
    * `refused`: regular expressions of names, within the model's prefix, of tensors that variants of the library compute with and
      that a plain ViT does not have, each with what it is. They cannot be left out.
    * `position_covers`: the values of `pos_covers` that position tables may have in models with more than patch tokens.
    * `computes_in_float32`: the library computes in float32 whatever type the weights are stored in.
    * `projects`: the head projects into a space that images and texts share; its output is an embedding.
    * `resize`, `resize_with_registers`: the library's recipe (`resize_recipes.py`) for other image sizes, and that of its models
      with registers where it differs. A sidecar may name another one.
    * `resize_with_patches`: the recipe for other patches, where the library has models for which both sizes are chosen.
    * `resize_unstated`: whether a model may be of a library with another recipe, whose files look the same.
    * `grid`: the grid of a position table that is stored with rows and columns.

    Write (only for dialects in `write.TARGETS`):

    * `write_prefix`: the prefix for a spec, where it is not always the first of `prefixes`.
    * `write_facts`: facts that a written file does not hold and its user must state, besides heads and image size.
    * `write_config`: the content of the library's config.json.
    * `added`: names and shapes of tensors that the library's class has and inference does not read; they are written as zeros.
    """

    name: str
    signature: tuple[str, ...]
    rules: tuple[Rule, ...]
    conventions: Mapping[str, Any]

    matches_shapes: Callable[[Shapes], bool] = lambda shapes: True
    prefixes: tuple[str, ...] = ("",)
    unprefixed: tuple[str, ...] = ()
    sometimes_unprefixed: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()

    prepare: Callable[[dict[str, Stored]], dict[str, Stored]] = lambda tensors: tensors
    pattern_sizes: Callable[[Shapes, Mapping[str, Any]], Sizes] = lambda shapes, facts: {}

    conventions_by_shapes: Callable[[Shapes], Mapping[str, Any]] = lambda shapes: {}
    facts_from_shapes: Callable[[Shapes], dict[str, Any]] = lambda shapes: {}
    facts_from_module: Callable[[Any], dict[str, Any]] | None = None
    config_from_module: Callable[[Any], Mapping[str, Any]] = lambda module: {}
    run_module: Callable[[Any, Any], Any] = lambda module, images: module(images)
    head_width: int | None = None
    sidecar: SidecarFormat | None = None
    needs: tuple[Need, ...] = ()
    norm_place_is_stated: bool = False
    unwanted: tuple[str, ...] = ()
    unwanted_outside: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    position_covers: tuple[str, ...] = ("all", "class")
    computes_in_float32: bool = False
    projects: bool = False
    resize: str = "timm"
    resize_with_registers: str | None = None
    resize_with_patches: str | None = None
    resize_unstated: Callable[[ViTSpec], bool] = lambda spec: False
    grid: Callable[[Shapes], tuple[int, int] | None] = lambda shapes: None

    write_prefix: Callable[[ViTSpec], str] | None = None
    write_facts: Callable[[ViTSpec], dict[str, Any]] = lambda spec: {}
    write_config: Callable[[ModelConfig], dict[str, Any]] | None = None
    added: Mapping[str, Callable[[ViTSpec], tuple[int, ...]]] = field(default_factory=dict)

    @cached_property
    def _names(self) -> re.Pattern[str]:
        names = {theirs for rule_ in self.rules for theirs in rule_.theirs}
        return re.compile("|".join(re.escape(name).replace(r"\{i\}", "[0-9]+") for name in names))

    def has_rule_for(self, name: str) -> bool:
        """Whether a rule uses the tensor that they call `name`."""
        return self._names.fullmatch(name) is not None

    def is_unwanted(self, name: str, *, outside: bool) -> bool:
        """Whether a name is known and not part of the model; `outside`: it is not under the model's prefix."""
        return (self._unwanted_outside if outside else self._unwanted).fullmatch(name) is not None

    @cached_property
    def _unwanted(self) -> re.Pattern[str]:
        return _any_of(self.unwanted)

    @cached_property
    def _unwanted_outside(self) -> re.Pattern[str]:
        return _any_of((*self.unwanted, *self.unwanted_outside))

    def renamed(self, name: str) -> str:
        """The name as in the rules, from another spelling."""
        for old, new in self._renames:
            name = old.sub(new, name)
        return name

    @cached_property
    def _renames(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        return tuple((re.compile(old), new) for old, new in self.renames)

    def refusal(self, name: str) -> str | None:
        """What a tensor is that makes a model another than a plain ViT; None for any other name."""
        return next((what for pattern, what in self.refused if re.fullmatch(pattern, name)), None)

    def conventions_of(self, shapes: Shapes) -> dict[str, Any]:
        """The conventions that hold for a file with these shapes of our tensors."""
        conventions = {**self.conventions, **self.conventions_by_shapes(shapes)}
        return {name: value for name, value in conventions.items() if value is not None}

    def their_name(self, ours: str) -> str:
        """The name in the rules of one of our tensors."""
        for rule_ in self.rules:
            match = re.fullmatch(re.escape(rule_.ours).replace(r"\{i\}", "([0-9]+)"), ours)
            if match:
                return rule_.theirs[0].replace("{i}", match[1] if match.groups() else "")
        return ours
