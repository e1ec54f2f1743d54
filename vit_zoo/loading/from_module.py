"""The checkpoint that a torch module is: ours, or one of a library whose dialect is known."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored
from vit_zoo.loading.checkpoint import Checkpoint
from vit_zoo.loading.facts import check_without_head, of_spec, parsed
from vit_zoo.loading.read_tensors import read_tensors


def of_module(module: Any, *, check: bool = True, **facts: Any) -> Checkpoint:
    """Return the checkpoint of a torch module: ours, or one of a library whose dialect is known.

    With `check`, the module and what was read from it compute the same for the same images. Raises CheckFailed if they do
    not, RefusedContent for a module that is not read.
    """
    import torch

    from vit_zoo.weights.sidecar import SAVE_STATE

    if not isinstance(module, torch.nn.Module):
        raise InputError(f"expected a name, a path or a torch module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        cause = "is a TorchScript module, whose class is not known"
        raise RefusedContent(cause, where=type(module).__name__, hint=SAVE_STATE)
    from vit_zoo.loading.live_module import check_tensors_of_vit, is_untouched, tensors_of_module, uncompiled, with_plain_heads
    from vit_zoo.loading.module_check import check_module
    from vit_zoo.model.vit import ViT

    module, facts = uncompiled(module), parsed(facts)
    where = type(module).__name__
    check_without_head(facts, where)
    tensors, notes = tensors_of_module(module, where=where)
    if not isinstance(module, ViT):
        try:
            source = read_tensors(tensors, facts, where, module)
        except RefusedContent as error:
            if any(option.name == "allow_drop" for option in error.options):  # its code computes with these tensors
                error.hint, error.options = SAVE_STATE, ()
            raise
        if check:
            _check_foreign(module, source, tensors, facts, where)
        return replace(source, notes=(*source.notes, *notes))
    if of_spec(facts):
        raise InputError(f"cannot set {next(iter(of_spec(facts)))}: the module has a config", where=where)
    tensors = with_plain_heads(module, tensors)
    check_tensors_of_vit(module, tensors, where=where)
    config = module.config if module.is_random() else module.config.replace(random_seed=None, random_part=None)
    source = Checkpoint(config, tensors, dialect="timm", notes=notes)
    if check and not is_untouched(module):
        check_module(module, source, where=where)
    return source


def _check_foreign(module: Any, source: Checkpoint, tensors: Mapping[str, Stored], facts: Mapping[str, Any], where: str) -> None:
    """Compare another library's module with what is read from it, at the size that it has before `facts` resize it."""
    from vit_zoo.loading.module_check import check_module, padded
    from vit_zoo.weights.detect import detect
    from vit_zoo.weights.keys import open_keys

    sizes = {"image_size", "patch_size", "resize"} & set(facts)
    if sizes:
        with suppress(InputError):  # the module does not state its size: then the stated size is the module's
            source = read_tensors(tensors, {name: value for name, value in facts.items() if name not in sizes}, where, module)
    dialect = detect(tensors, where=where)
    opened = open_keys(dialect, dialect.prepare(dict(tensors)))
    inner = opened.prefix.rstrip(".")
    stated = {} if dialect.facts_from_module is None else dialect.facts_from_module(module)

    def run(module: Any, images: Any) -> Any:
        return dialect.run_module(module, padded(images, stated.get("image_size"), source.config.spec.patch_size))

    check_module(module, source, run=run, key_of=opened.key_for_ours, inner=inner, where=where)
