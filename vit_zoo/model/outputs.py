"""Names of the forward's outputs, and the blocks, tokens and weights that each of them needs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from vit_zoo.errors import InputError
from vit_zoo.model.ops import Rows
from vit_zoo.model.spec import ViTSpec

MAP = ".map"  # suffix of an output of tokens: its patches as b d h w
CLASSES = frozenset({"logits", "probabilities"})
EMBEDDING = "image_embeds"
OF_HEAD = CLASSES | {EMBEDDING}
POOLED = OF_HEAD | {"pooler_output"}


def output_names(spec: ViTSpec) -> list[str]:
    """List every output that `forward.vit` has for this spec:

    `logits` b k
    `probabilities` b k, their softmax; the sigmoid of each where several classes can apply (`ModelConfig.activation`)
    `image_embeds` b k, before it is divided by its norm: what `projection` computes or, without one, the name of `logits` where
      the head projects into a joint space, which `ModelConfig.output_names` knows
    `pooler_output` b d, the input of the head; the mean of both inputs if there are two heads
    `last_hidden_state` b t d, all tokens, after the final norm if that comes before pooling
    `block.N` b t d, all tokens after block N, counted from 0, without a norm
    `attn.N` b n t t, the attention weights of block N after softmax
    `block.N.map`, `last_hidden_state.map` b d h w, the patches of these tokens
    """
    names = ["logits", "probabilities", EMBEDDING] if spec.num_classes else []
    names += ["pooler_output"] if spec.pool != "none" else []
    tokens = ["last_hidden_state", *(f"block.{i}" for i in range(spec.depth))]
    return [*names, *tokens, *(f"{name}{MAP}" for name in tokens), *(f"attn.{i}" for i in range(spec.depth))]


def check_names(outputs: Iterable[str], known: Collection[str]) -> None:
    """Raise InputError for an output that is not in `known`."""
    for name in outputs:
        if name not in known:
            choices = ", ".join(name for name in known if "." not in name)
            raise InputError(
                f"unknown output '{name}'; choose from {choices}, block.N, attn.N, block.N.map, where * as N stands for all"
            )


def expanded(outputs: Iterable[str], known: Collection[str]) -> list[str]:
    """Return names of outputs with `attn.*`, `block.*` and `block.*.map` replaced by those of all blocks, in order."""
    names = []
    for output in outputs:
        pattern = re.compile(re.escape(output).replace(r"\*", r"\d+"))
        every = [name for name in known if pattern.fullmatch(name)] if ".*" in output else []
        names += every or [output]
    return names


def pooled_rows(spec: ViTSpec) -> Rows:
    """Return the rows that pool 'cls' reads: the class token, and the distillation token if there is one."""
    return 0, 1 + int(spec.dist_token)


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """The computation that a set of outputs needs."""

    values: frozenset[str]  # the outputs, with `block.N` for `block.N.map`
    blocks: int  # number of blocks to compute
    last_rows: Rows | None  # the only tokens that are read after the last block; None: all tokens
    pooled: bool  # whether pooling is needed
    projected: bool  # whether the projection is needed
    logits: bool  # whether the head is needed


def output_plan(spec: ViTSpec, outputs: Collection[str]) -> OutputPlan:
    """Return the plan for some of `output_names`."""
    values = frozenset(name.removesuffix(MAP) for name in outputs)
    inner = [int(name.split(".")[1]) for name in values if "." in name]
    last = spec.depth - 1
    all_rows = {"last_hidden_state", f"block.{last}", f"attn.{last}"} & values
    return OutputPlan(
        values=values,
        blocks=spec.depth if len(inner) < len(values) else 1 + max(inner),
        last_rows=pooled_rows(spec) if spec.pool == "cls" and not all_rows else None,
        pooled=bool(POOLED & values),
        projected=bool(spec.projection and OF_HEAD & values),
        logits=bool((CLASSES if spec.projection else OF_HEAD) & values),
    )


def unused_weights(spec: ViTSpec, outputs: Collection[str]) -> tuple[str, ...]:
    """Return prefixes of the weights that come after the last of these outputs, and so are not needed."""
    plan = output_plan(spec, outputs)
    prefixes = [] if plan.logits else ["head.", "head_dist."]
    if not plan.projected:
        prefixes += ["projection."]
    if not plan.pooled:
        prefixes += ["attn_pool.", "fc_norm.", "pre_logits."]
    if not plan.pooled and "last_hidden_state" not in plan.values:
        prefixes += ["norm."]
    return (*prefixes, *(f"blocks.{i}." for i in range(plan.blocks, spec.depth)))
