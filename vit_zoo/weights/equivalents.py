"""Equivalent models: the same function with some tensors elsewhere, for targets that have no place for them as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vit_zoo.files import Stored

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array
    from vit_zoo.model.spec import ViTSpec


@dataclass(frozen=True)
class Equivalent:
    """A spec and tensors that compute the same as the model; `note` states what was moved."""

    spec: ViTSpec
    tensors: Mapping[str, Stored]
    note: str | None = None

    def changed(self, note: str, tensors: Mapping[str, Stored], **fields: object) -> Equivalent:
        """With other tensors and fields of the spec, and the note added to its own."""
        return Equivalent(self.spec.replace(**fields), tensors, note if self.note is None else f"{self.note}; {note}")


def equivalents(spec: ViTSpec, tensors: Mapping[str, Stored]) -> Iterator[Equivalent]:
    """A model as it is, then other models that compute the same."""
    for model in _with_positions_moved(Equivalent(spec, tensors)):
        yield model
        if spec.pool != "cls" or spec.dist_token:
            continue
        if spec.final_norm != "none":
            yield _with_norm_moved(model)
        if spec.num_classes and not spec.representation and spec.final_norm != "after_pool":
            yield _with_wide_head(model)


def _with_positions_moved(model: Equivalent) -> Iterator[Equivalent]:
    """A model as it is; with its class token's position added to the token; or with a position of zeros for its class token.

    Only the sum of the two is ever read. timm stores DINOv2 with registers in the second form.
    """
    yield model
    spec, tensors = model.spec, model.tensors
    if spec.pos != "learned" or not spec.class_token or spec.dist_token:
        return
    cls, table = tensors["cls_token"], tensors["pos_embed"]
    if spec.pos_covers == "class" or (spec.pos_covers == "all" and not spec.registers):
        shape = (1, table.shape[1] - 1, table.shape[2])
        moved = {
            "cls_token": Stored(cls.dtype, cls.shape, partial(_sum, cls, table)),
            "pos_embed": Stored(table.dtype, shape, partial(_without_first, table)),
        }
        note = "the class token's position was added to the class token: the sum is the same, but cannot be separated again"
        yield model.changed(note, {**tensors, **moved}, pos_covers="patches")
    elif spec.pos_covers == "patches":
        shape = (1, table.shape[1] + 1, table.shape[2])
        longer = Stored(table.dtype, shape, partial(_with_zero_first, table))
        covers = "class" if spec.registers else "all"
        yield model.changed("the class token got a position of zeros", {**tensors, "pos_embed": longer}, pos_covers=covers)


def _with_norm_moved(model: Equivalent) -> Equivalent:
    """The final norm on the other side of taking the class token, which gives the same for that token.

    CLIP has it after, timm before.
    """
    if model.spec.final_norm == "before_pool":
        old, new, other, note = "norm.", "fc_norm.", "after_pool", "the final norm is applied to the class token only"
    else:
        old, new, other, note = "fc_norm.", "norm.", "before_pool", "the final norm is applied to all tokens"
    tensors = {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in model.tensors.items()}
    return model.changed(note, tensors, final_norm=other)


def _with_wide_head(model: Equivalent) -> Equivalent:
    """A head that also reads the mean of the patches, with weights of zero, as transformers' Dinov2 has for classes."""
    head = model.tensors["head.weight"]
    wide = Stored(head.dtype, (head.shape[0], 2 * head.shape[1]), partial(_with_zero_columns, head))
    note = "the head also reads the mean of the patches, with weights of zero"
    return model.changed(note, {**model.tensors, "head.weight": wide}, pool="cls+mean", pool_tokens="patches")


def _sum(token: Stored, table: Stored) -> Array:
    import torch

    bf16 = token.dtype == "BF16"
    first, second = (torch.from_numpy(a.copy()) for a in (token.array(), table.array()[:, :1]))
    if bf16:
        return (first.view(torch.bfloat16) + second.view(torch.bfloat16)).view(torch.uint16).numpy()
    return (first + second).numpy()


def _without_first(table: Stored) -> Array:
    import numpy as np

    return np.ascontiguousarray(table.array()[:, 1:])


def _with_zero_first(table: Stored) -> Array:
    import numpy as np

    return np.pad(table.array(), ((0, 0), (1, 0), (0, 0)))


def _with_zero_columns(head: Stored) -> Array:
    import numpy as np

    return np.pad(head.array(), ((0, 0), (0, head.shape[1])))
