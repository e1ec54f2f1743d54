"""Live torch modules: their tensors under the names of a plain model, or the reason why they have none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from vit_zoo.errors import RefusedContent
from vit_zoo.files.pickles import tensors_of
from vit_zoo.model import positions
from vit_zoo.model.vit import HEADS, ViT, linear_in
from vit_zoo.weights.translate import check_tensors, listed

if TYPE_CHECKING:
    from vit_zoo.files import Stored

COMPILED = "_orig_mod"  # torch.compile puts a module under this name
# the endings of the names of the tensors from which hooks of torch compute a weight: pruning, weight_norm and spectral_norm
COMPUTED_FROM = ("_orig", "_mask", "_g", "_v", "_u")


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


def tensors_of_module(module: nn.Module, *, where: object) -> tuple[dict[str, Stored], tuple[str, ...]]:
    """The tensors of a module's state dict, by their plain paths, and notes about them.

    A weight that torch's pruning or a parametrization computes from other tensors is read as computed. Raises RefusedContent for
    an adapter of PEFT.
    """
    state = {plain(name): tensor for name, tensor in module.state_dict().items()}
    computed: dict[str, list[str]] = {}
    for path, part in module.named_modules():
        name = plain(path)
        if type(part).__module__.startswith("peft."):
            cause = f"{name or type(part).__name__} has an adapter of PEFT beside its weight"
            raise RefusedContent(cause, where=where, hint="merge the adapters first: model.merge_and_unload()")
        prefix = f"{name}." if name else ""
        for weight, kind, value in _computed_weights(part):
            sources = {f"{prefix}{weight}{ending}" for ending in COMPUTED_FROM}
            inner = f"{prefix}parametrizations.{weight}."
            state = {key: tensor for key, tensor in state.items() if key not in sources and not key.startswith(inner)}
            state[prefix + weight] = value
            computed.setdefault(kind, []).append(prefix + weight)
    notes = (f"read as {kind} computes them: {listed(names)}" for kind, names in computed.items())
    return dict(tensors_of(state, where=where)), tuple(notes)


def _computed_weights(part: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """The weights that torch computes from other tensors of this part: their names, what computes them, and their values."""
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    with torch.no_grad():
        parametrized = part._modules.get("parametrizations")
        if isinstance(parametrized, nn.ModuleDict) and parametrize.is_parametrized(part):
            training = {each: each.training for each in parametrized.modules()}
            try:
                for each in training:
                    each.training = False  # otherwise, spectral_norm changes its vectors
                for weight in parametrized:
                    yield weight, "a parametrization", getattr(part, weight).detach()
            finally:
                for each, was in training.items():
                    each.training = was
        for hook in part._forward_pre_hooks.values():
            match hook:
                case BasePruningMethod():
                    yield hook._tensor_name, "pruning", hook.apply_mask(part).detach()  # type: ignore[no-untyped-call]
                case WeightNorm():
                    yield hook.name, "weight_norm", hook.compute_weight(part).detach()
                case SpectralNorm():
                    yield hook.name, "spectral_norm", hook.compute_weight(part, do_power_iteration=False).detach()


def with_plain_heads(model: ViT, tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors of a model of ours, with those of a linear layer inside a classifier under the classifier's own name."""
    names: dict[str, str] = {}
    for name in HEADS:
        found = linear_in(getattr(model, name, None))
        if found is not None and found[0]:
            names |= {f"{name}.{found[0]}.{kind}": f"{name}.{kind}" for kind in ("weight", "bias")}
    return {names.get(name, name): tensor for name, tensor in tensors.items()}


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
        hint = "a classifier is one linear layer, as model.set_head(num_classes) makes it" if path.startswith(HEADS) else None
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
        if isinstance(part, nn.LayerNorm | nn.RMSNorm) and part.eps != model.spec.norm_eps:
            return False
    tables = positions.tables(model.spec).items()
    return all(np.array_equal(getattr(model, name).cpu().numpy(), table) for name, table in tables)
