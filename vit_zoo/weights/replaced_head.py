"""The linear layer that replaced a model's head, or stands beside the model, under another name.

What self-supervised training, losses and metrics leave beside a model is not its head; any other layers are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_zoo.errors import NotRepresentable, RefusedContent
from vit_zoo.files import DTYPES, Stored
from vit_zoo.weights.detect import opened_by
from vit_zoo.weights.dialect import Dialect
from vit_zoo.weights.keys import Opened
from vit_zoo.weights.translate import droppable, listed, matches, mismatch

Tensors = Mapping[str, Stored]

MOCO = ("base_encoder", "momentum_encoder")  # MoCo v3 puts its projection in place of the head of each
# names of layers that self-supervised training puts after the model, and that its users discard
TRAINING_ONLY = re.compile(
    r"(?:.*\.)?(?:projector|projection_head|proj_head|predictor|prediction_head|prototypes?|queue|dino_head|ibot_head|last_layer"
    r"|momentum_\w+|online_\w+|target_\w+|decoder|decoder_\w+|mask_token|masked_embed)(?:\..*)?"
)
# names of losses and metrics, whose tensors are not layers, and names of metrics if no matrix is beside the tensor
LOSS = re.compile(r"(?:.*\.)?(?:\w*loss|losses|loss_\w+|criterion|criteria|\w*metrics?)(?:\..*)?")
METRIC = re.compile(r"(?:.*\.)?(?:train|val|valid|validation|test)_\w+(?:\..*)?")
MASK = re.compile(r"mask_token|masked_embed")  # the input of a masked patch in training
NO_LAYERS = ("Dropout", "Identity", "Flatten")  # modules that change nothing in inference, beside a linear layer
PLAIN_HEADS = ("head", "heads", "classifier", "fc", "mlp_head", "linear_head", "head.fc")  # a head without bias needs such a name


def with_head(dialect: Dialect, tensors: Tensors, *, where: object) -> tuple[dict[str, Stored], str | None]:
    """The tensors of a model with the one linear layer that replaced its head under the usual name, and its name in `tensors`.

    The name is None, and the tensors unchanged, where the head is the usual one or nothing can be it.
    """
    return replace_head(dialect, "", dict(tensors), {}, (), where)


def check_head_of(module: Any, head: str, *, where: object) -> None:
    """Raise NotRepresentable if the layers around the linear layer `head` of a live module compute something in inference."""
    around, _, last = head.rpartition(".")
    parent = module.get_submodule(around)
    kind = type(parent.get_submodule(last)).__name__
    if kind != "Linear" or (around and type(parent).__name__ != "Sequential"):
        unknown = kind if kind != "Linear" else type(parent).__name__
        cause = f"its head {head!r} is part of a {unknown}, which may compute more than a linear layer"
        raise NotRepresentable(cause, where=where)
    others = [type(child).__name__ for name, child in parent.named_children() if name != last] if around else []
    others = [name for name in others if name not in NO_LAYERS]
    if others:
        raise NotRepresentable(f"its head {around!r} has more than a linear layer: {', '.join(others)}", where=where)


def replace_head(
    dialect: Dialect, prefix: str, model: dict[str, Stored], scope: Tensors, allow_drop: Sequence[str], where: object
) -> tuple[dict[str, Stored], str | None]:
    """The model without what is left out, and with the linear layer that replaced its head; and the file's name of that layer.

    `scope` holds all tensors of the file, those around the model included, which may be its head.
    """
    opened, shapes = opened_by(dialect, model)
    unknown = [name for name in opened.unknown() if name in model]
    moco = any(part in MOCO for part in prefix.split("."))
    gone = {
        name
        for name in unknown
        if MASK.fullmatch(name)
        or ("." not in name and model[name].dtype not in DTYPES)  # a counter, such as n_averaged
        or (moco and name.startswith("head."))
        or (any(matches(prefix + name, pattern) for pattern in allow_drop) and not dialect.refusal(opened.names.get(name, "")))
    }
    model = {name: tensor for name, tensor in model.items() if name not in gone}
    unknown = [name for name in unknown if name not in gone]
    inside = {prefix + name: model[name] for name in unknown}
    around = {name: tensor for name, tensor in scope.items() if not name.startswith(prefix)} if prefix else {}
    if any(TRAINING_ONLY.fullmatch(name) for name in (*around, *inside)):  # layers after the model belong to its training
        around = {}
    layers_around = {name.rpartition(".")[0] for name, tensor in around.items() if len(tensor.shape) > 1}
    around = {
        name: tensor
        for name, tensor in around.items()
        if tensor.dtype in DTYPES
        and not LOSS.fullmatch(name)
        and not (METRIC.fullmatch(name) and name.rpartition(".")[0] not in layers_around)
        and not any(matches(name, pattern) for pattern in allow_drop)
    }
    norm = shapes.get(dialect.their_name("blocks.0.norm1.weight"))
    weight = dialect.their_name("head.weight")
    if norm is None or len(norm) != 1:
        return model, None
    widths = {norm[0], 2 * norm[0], *shapes.get(weight, ())}
    after = _after(around, widths, prefix)
    layers = {**inside, **after}
    name = None if weight in shapes else _linear(layers, norm[0], opened, prefix)
    if name is not None and any(rule.ours == "head.weight" for rule in dialect.rules):
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in layers:
                model.pop(f"{name}.{kind}".removeprefix(prefix) if f"{name}.{kind}" in inside else "", None)
                model[opened.key_for_ours(f"head.{kind}")] = layers[f"{name}.{kind}"]
        return model, name
    if after:
        cause = f"layers after the model, {listed(list(layers))}, are not its head: it would be one linear layer"
        drop = droppable(list(layers))
        details = mismatch(unexpected=list(layers))
        raise RefusedContent(cause, where=where, hint=f"{drop} reads the ViT alone", options=[drop], details=details)
    return model, None


def _after(around: Tensors, widths: set[int], prefix: str) -> dict[str, Stored]:
    """The tensors around a model of the modules that take its features, whose widths are given, or each other's."""
    modules: dict[str, dict[str, Stored]] = {}
    for name, tensor in around.items():
        modules.setdefault(_module(name, prefix), {})[name] = tensor
    takers: dict[int, list[str]] = {}
    for module, tensors in modules.items():
        for width in {width for tensor in tensors.values() for width in _takes(tensor, len(tensors))}:
            takers.setdefault(width, []).append(module)
    after: dict[str, Stored] = {}
    done: set[str] = set()
    while widths:
        new = [module for width in sorted(widths) for module in takers.pop(width, ()) if module not in done]
        done.update(new)
        taken = {name: tensor for module in dict.fromkeys(new) for name, tensor in modules[module].items()}
        after |= taken
        widths = {tensor.shape[0] for tensor in taken.values() if len(tensor.shape) > 1}
    return {name: tensor for name, tensor in around.items() if name in after}


def _module(name: str, prefix: str) -> str:
    """The outermost part of a name that is not one of the model's prefix: the module beside the model, or a layer of it."""
    parts, own = name.split("."), prefix.split(".")
    shared = next((i for i, (part, other) in enumerate(zip(parts, own, strict=False)) if part != other), 0)
    return ".".join(parts[: shared + 1])


def _takes(tensor: Stored, count: int) -> tuple[int, ...]:
    """The widths of features that a tensor can take: a kernel, rows beside them, or a norm in a module of `count` tensors."""
    shape = tensor.shape
    return shape if len(shape) == 1 and count > 1 else shape[1:]


def _linear(layers: Tensors, dim: int, opened: Opened, prefix: str) -> str | None:
    """The name of the one linear layer among these, which takes `dim` features; None if there are more tensors or none."""
    weights = [name for name, tensor in layers.items() if len(tensor.shape) == 2]
    if len(weights) != 1 or not weights[0].endswith(".weight"):
        return None
    name = weights[0].removesuffix(".weight")
    classes, width = layers[weights[0]].shape
    bias = layers.get(f"{name}.bias")
    own = name.removeprefix(prefix).removeprefix(opened.prefix)
    if width != dim or len(layers) != 1 + (bias is not None) or (bias is not None and bias.shape != (classes,)):
        return None
    if any(tensor.dtype not in DTYPES for tensor in layers.values()):
        return None
    if bias is None and own not in PLAIN_HEADS:  # it may be a table of embeddings
        return None
    # not a layer within the model, such as an adapter
    parts = {theirs.split(".")[0] for rule in opened.dialect.rules if not rule.ours.startswith("head") for theirs in rule.theirs}
    return None if own.split(".")[0] in parts - {"heads"} else name
