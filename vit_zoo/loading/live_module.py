"""Live torch modules: their tensors under the names of a plain model, or the reason why they have none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from vit_zoo.errors import RefusedContent
from vit_zoo.files.pickles import tensors_of
from vit_zoo.model import positions
from vit_zoo.model.vit import HEADS, ViT
from vit_zoo.weights.translate import check_tensors

if TYPE_CHECKING:
    from vit_zoo.files import Stored

COMPILED = "_orig_mod"  # torch.compile puts a module under this name
# functions of torch that compute a weight from tensors of other names: what they are called, the endings of two of these names,
# and the function that leaves a plain weight
COMPUTED = (
    ("pruning", ("_mask", "_orig"), "prune.remove"),
    ("spectral_norm", ("_u", "_orig"), "remove_spectral_norm"),
    ("weight_norm", ("_g", "_v"), "remove_weight_norm"),
)


def uncompiled(module: Any) -> Any:
    """The module that `torch.compile` was given, which has the same outputs, or the module itself."""
    while isinstance(module, nn.Module) and COMPILED in module._modules:
        module = module._modules[COMPILED]
    return module


def plain(path: str) -> str:
    """A path without the names that `torch.compile` adds."""
    return ".".join(name for name in path.split(".") if name != COMPILED)


def part_at(module: nn.Module, path: str) -> Any:
    """The part at a plain path. Raises AttributeError if there is none."""
    part = uncompiled(module)
    for name in filter(None, path.split(".")):
        part = uncompiled(getattr(part, name))
    return part


def has_part(module: nn.Module, path: str) -> bool:
    """Whether there is a part at a plain path."""
    try:
        part_at(module, path)
    except AttributeError:
        return False
    return True


def tensors_of_module(module: nn.Module, *, where: object) -> dict[str, Stored]:
    """The tensors of a module's state dict, by their plain paths.

    Raises RefusedContent for a part whose weight is not a tensor of its own: an adapter, a parametrization, pruning.
    """
    for path, part in module.named_modules():
        name = plain(path)
        if type(part).__module__.startswith("peft."):
            cause = f"{name or type(part).__name__} has an adapter of PEFT beside its weight"
            raise RefusedContent(cause, where=where, hint="merge the adapters first: model.merge_and_unload()")
        computed = _computed_weight(part)
        if computed is not None:
            kind, weight, function = computed
            expression = re.sub(r"\.(\d+)", r"[\1]", f"model.{name}")
            call = f"{function}({expression}, '{weight}')"
            raise RefusedContent(f"'{weight}' of {name} is computed by {kind}", where=where, hint=f"make it a tensor: {call}")
    return {plain(name): tensor for name, tensor in tensors_of(module.state_dict(), where=where).items()}


def _computed_weight(part: nn.Module) -> tuple[str, str, str] | None:
    """What computes a weight of this part, its name, and the function that leaves a plain one; None if nothing does."""
    parametrized = part._modules.get("parametrizations")
    if parametrized is not None:
        weight = next((name for name, _ in parametrized.named_children()), "weight")
        return "a parametrization", weight, "torch.nn.utils.parametrize.remove_parametrizations"
    own = {*part._parameters, *part._buffers}
    for kind, (one, other), function in COMPUTED:
        for name in own:
            weight = name.removesuffix(one)
            if weight != name and weight + other in own:
                return kind, weight, f"torch.nn.utils.{function}"
    return None


def check_tensors_of_vit(model: ViT, tensors: Mapping[str, Stored], *, where: object) -> None:
    """Raise RefusedContent for a model of ours whose tensors are not those of its config, because `load` would refuse them."""
    shapes = model.config.spec.shapes()
    odd = [name for name in shapes if name not in tensors] + [name for name in tensors if name not in shapes]
    if odd:
        path = odd[0].rpartition(".")[0]
        while not has_part(model, path):
            path = path.rpartition(".")[0]
        owner = f"{path or 'the model'} is of the class {type(part_at(model, path)).__name__}"
        cause = "has no tensor" if odd[0] in shapes else "has a tensor that its config does not state:"
        hint = "a classifier is one linear layer; model.set_head(num_classes) makes it" if path.startswith(HEADS) else None
        raise RefusedContent(f"{cause} '{odd[0]}'; {owner}", where=where, hint=hint)
    check_tensors(tensors, shapes, where=where)


def is_untouched(model: ViT) -> bool:
    """Whether a model of ours has the parts of its config and nothing else, so that its config states what it computes."""
    if type(model) is not ViT or model.spec != model.config.spec:
        return False
    parts, usual = dict(model.named_modules()), dict(ViT.empty(model.config).named_modules())
    if parts.keys() != usual.keys():
        return False
    for name, part in parts.items():
        more = vars(part).keys() - vars(usual[name]).keys()  # such as a forward of its own
        if more or type(part) is not type(usual[name]) or part._forward_hooks or part._forward_pre_hooks:
            return False
        if isinstance(part, nn.LayerNorm) and part.eps != model.spec.norm_eps:
            return False
    tables = positions.tables(model.spec).items()
    return all(np.array_equal(getattr(model, name).cpu().numpy(), table) for name, table in tables)
