"""A linear head in a file of its own, for a model that is stored without one.

Sources: facebookresearch/dino, eval_linear.py (`state_dict` with `module.linear.*`), and dinov2, hub/classifiers.py (`weight` and
`bias`). A head of twice the model's width takes the class token and the mean of the patch tokens, in this order; one of another
multiple takes the tokens of several blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.weights.detect import opened_by
from vit_zoo.weights.dialect import Dialect

TRAINING = ("optimizer.", "scheduler.", "lr_scheduler.")  # what training files hold beside the head


def with_head_file(
    model: Mapping[str, Stored], dialect: Dialect, head: Mapping[str, Stored], *, where: object, head_where: object
) -> tuple[dict[str, Stored], dict[str, Any]]:
    """The tensors of a model with the linear layer of another file as its head, and the facts that follow from its width.

    Raises InputError for a model that has a head or whose library has none, RefusedContent for a file that is not one linear
    layer for the model's features.
    """
    opened, shapes = opened_by(dialect, model)
    rule = next((rule for rule in dialect.rules if rule.ours == "head.weight"), None)
    if rule is None or rule.pattern is not None or rule.theirs[0] in shapes:
        cause = "has a head already" if rule is not None and rule.theirs[0] in shapes else "takes no head from another file"
        raise InputError(cause, where=where)
    weight, bias = _linear(head, head_where)
    norm = shapes.get(dialect.their_name("blocks.0.norm1.weight"), ())
    width, own = weight.shape[1], norm[0] if len(norm) == 1 else 0
    if not width or width not in (own, 2 * own):
        cause = f"takes {width} features, the model has {own}, or {2 * own} with the mean of its patch tokens"
        raise RefusedContent(cause, where=head_where)
    added = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    tensors = {**model, **{opened.key_for_ours(f"head.{kind}"): tensor for kind, tensor in added.items()}}
    facts = {"head_bias": bias is not None, **({} if width == own else {"pool": "cls+mean"})}
    return tensors, facts


def _linear(tensors: Mapping[str, Stored], where: object) -> tuple[Stored, Stored | None]:
    """The weight and the bias of the only layer in a file."""
    layers = {name: tensor for name, tensor in tensors.items() if not name.startswith(TRAINING) and tensor.shape}
    name = next((name for name, tensor in layers.items() if f".{name}".endswith(".weight") and len(tensor.shape) == 2), None)
    others = [other for other in layers if name is None or other not in (name, f"{name.removesuffix('weight')}bias")]
    if name is None or others:
        found = f", got {len(layers)} tensors, first {next(iter(others))!r}" if others else ""
        raise RefusedContent(f"expected the weight and the bias of one linear layer{found}", where=where)
    weight, bias = layers[name], layers.get(f"{name.removesuffix('weight')}bias")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise RefusedContent(f"expected a bias of {weight.shape[0]} values, got {list(bias.shape)}", where=where)
    return weight, bias
