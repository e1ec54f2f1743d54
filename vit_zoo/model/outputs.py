"""Named outputs of the forward, and what each of them needs: blocks, tokens and weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from vit_zoo.errors import InputError
from vit_zoo.model.ops import Rows
from vit_zoo.model.spec import ViTSpec

MAP = ".map"  # after the name of an output that holds tokens: its patches as b d h w
CLASSES = frozenset({"logits", "probabilities"})
POOLED = CLASSES | {"pooler_output"}


def output_names(spec: ViTSpec) -> list[str]:
    """Every output that `forward.vit` has for this spec.

    `logits` b k
    `probabilities` b k, their softmax
    `pooler_output` b d, the input of the head; with two heads, the mean of their inputs
    `last_hidden_state` b t d, all tokens, after the final norm where that comes before pooling
    `block.N` b t d, all tokens after block N, counted from 0, without a norm
    `attn.N` b n t t, the attention weights of block N after softmax
    `block.N.map`, `last_hidden_state.map` b d h w, their patches only
    """
    names = ["logits", "probabilities"] if spec.num_classes else []
    names += ["pooler_output"] if spec.pool != "none" else []
    tokens = ["last_hidden_state", *(f"block.{i}" for i in range(spec.depth))]
    return [*names, *tokens, *(f"{name}{MAP}" for name in tokens), *(f"attn.{i}" for i in range(spec.depth))]


def checked_outputs(spec: ViTSpec, outputs: Iterable[str]) -> tuple[str, ...]:
    """The outputs asked for, once each, or the model's own. Raises InputError for one that it does not have."""
    known = output_names(spec)
    for name in outputs:
        if name not in known:
            raise InputError(
                f"no output '{name}'; there are {', '.join(n for n in known if '.' not in n)}, block.N, attn.N, block.N.map"
            )
    return tuple(dict.fromkeys(outputs)) or (spec.output,)


def pooled_rows(spec: ViTSpec) -> Rows:
    """The tokens that pool 'cls' reads: the class token, and the distillation token where there is one."""
    return 0, 1 + int(spec.dist_token)


@dataclass(frozen=True, kw_only=True)
class OutputPlan:
    """What has to be computed for some outputs, and no more."""

    values: frozenset[str]  # the outputs without `.map`: what a map is made of
    blocks: int  # how many
    last_rows: Rows | None  # tokens of the last block that are read; None: all
    pooled: bool
    logits: bool


def output_plan(spec: ViTSpec, outputs: Collection[str]) -> OutputPlan:
    """The plan for outputs of `output_names`."""
    values = frozenset(name.removesuffix(MAP) for name in outputs)
    inner = [int(name.split(".")[1]) for name in values if "." in name]
    last = spec.depth - 1
    every_row = {"last_hidden_state", f"block.{last}", f"attn.{last}"} & values
    return OutputPlan(
        values=values,
        blocks=spec.depth if len(inner) < len(values) else 1 + max(inner),
        last_rows=pooled_rows(spec) if spec.pool == "cls" and not every_row else None,
        pooled=bool(POOLED & values),
        logits=bool(CLASSES & values),
    )


def unused_weights(spec: ViTSpec, outputs: Collection[str]) -> tuple[str, ...]:
    """Prefixes of the weights that these outputs do not need, because they come after the last one."""
    plan = output_plan(spec, outputs)
    prefixes = [] if plan.logits else ["head.", "head_dist."]
    if not plan.pooled:
        prefixes += ["attn_pool.", "fc_norm.", "pre_logits."]
    if not plan.pooled and "last_hidden_state" not in plan.values:
        prefixes += ["norm."]
    return (*prefixes, *(f"blocks.{i}." for i in range(plan.blocks, spec.depth)))
