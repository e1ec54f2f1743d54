"""Check that a live torch module computes what is read from it.

A state dict does not show what a module does: a forward of its own, a hook, another epsilon in one norm. So every module of
another library is run, and compared with the model that was read from it, on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vit_zoo.errors import CheckFailed, RefusedContent, VitzooError
from vit_zoo.loading.live_module import COMPILED, has_part, part_at, plain
from vit_zoo.loading.load import model_of
from vit_zoo.model import forward
from vit_zoo.model.torch_ops import EVAL, Float64Ops
from vit_zoo.weights.dialects.timm import ACTS
from vit_zoo.weights.sidecar import SAVE_STATE

if TYPE_CHECKING:
    from vit_zoo.loading.checkpoint import Checkpoint
    from vit_zoo.model.spec import ViTSpec
    from vit_zoo.model.vit import ViT

# Two correct float32 results differ by less than LIMIT, relative to the largest value. Where an image's own rounding error is
# larger, FACTOR times that error is allowed, up to MOST. A test keeps all equal to those of `parity/tolerance.py`, which is
# above this package.
LIMIT, FACTOR, MOST = 1e-5, 32, 2e-2
HALVES = {torch.float16: 5e-3, torch.bfloat16: 3e-2}
# transformers' names of results, and ours
RESULTS = {
    "logits": "logits",
    "image_embeds": "logits",
    "pooler_output": "pooler_output",
    "last_hidden_state": "last_hidden_state",
}
HINT = f"hooks, changed parts and a forward of its own are not read; to leave them out, {SAVE_STATE}"

Block = tuple[str, nn.Module]  # with its path
Entered = dict[int, Tensor]  # tokens b t d that enter each block, by its number; those that leave the last one, by the depth


def check_module(
    module: nn.Module,
    source: Checkpoint,
    *,
    run: Callable[[Any, Tensor], Any] = lambda module, images: module(images),
    key_of: Callable[[str], str] = lambda name: name,
    inner: str = "",
    where: object,
) -> None:
    """Compare a module with what was read from it: the settings of norms and activations, and the outputs for two noise images.

    * `run`: calls the module.
    * `key_of`: the plain path of one of our tensors in the module.
    * `inner`: path of the part that holds the model, for the hint.

    Raises CheckFailed if they differ, naming the first block in which they do, and RefusedContent for a module that does not
    take the model's images. The module is as before afterwards: its mode, its type, and the state of random generators.
    """
    spec = source.config.spec
    hint = f"pass the inner model, module.{inner}, or {SAVE_STATE}" if inner else HINT
    blocks = _blocks(module, spec, key_of)
    fault = _other_setting(module, spec, blocks, key_of)
    if fault is not None:
        raise CheckFailed(fault, where=where, hint=HINT)
    images = np.random.default_rng(0).standard_normal((2, spec.channels, *spec.image_size), "<f4")
    theirs, entered = _run(module, run, images, blocks, where)
    model = model_of(source).float().eval()
    names, output = tuple(dict.fromkeys((spec.output, "last_hidden_state"))), source.config.output
    ours, wanted = _run_ours(model, images, names)
    paired = _paired(theirs, ours, spec)
    if paired is None:
        shapes = ", ".join(str(list(value.shape)) for value in theirs.values()) or "none"
        cause = f"has outputs of shape {shapes}; what is read from it has '{output}' of shape {list(ours[spec.output].shape)}"
        raise CheckFailed(cause, where=where, hint=hint)
    # tables that were rounded to half precision are less exact than ours
    limit = max((HALVES[b.dtype] for b in module.buffers() if b.dtype in HALVES), default=LIMIT)
    for name, value in paired.items():
        error = _difference(value, ours[name])
        allowed = limit if error <= limit else max(limit, min(FACTOR * _floor(model, images, name, ours[name]), MOST))
        if not error <= allowed:
            place = _first_difference(entered, wanted, max(limit, allowed))
            shown = output if name == spec.output else name
            cause = f"does not compute what its tensors and settings say: {shown} differs by {error:.1e}, allowed {allowed:.1e}"
            raise CheckFailed(f"{cause}; first difference {place}", where=where, hint=hint)


def padded(images: Tensor, size: Any, patch: tuple[int, int]) -> Tensor:
    """Images of a size that patches do not divide, whose last rows and columns have no effect, for a module that asks for it."""
    stated = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(stated) != 2:
        return images
    bottom, right = (int(stated[i]) - images.shape[2 + i] for i in range(2))
    if not (0 <= bottom < patch[0] and 0 <= right < patch[1]):
        return images
    return nn.functional.pad(images, (0, right, 0, bottom), value=9.0)


def _blocks(module: nn.Module, spec: ViTSpec, key_of: Callable[[str], str]) -> list[Block]:
    """The encoder blocks: each is the part that the paths of its tensors have in common."""
    names, blocks = list(spec.shapes()), []
    for i in range(spec.depth):
        paths = [key_of(name).split(".") for name in names if name.startswith(f"blocks.{i}.")]
        path: list[str] = []
        for parts in zip(*paths, strict=False):
            if len(set(parts)) > 1:
                break
            path.append(parts[0])
        blocks.append((".".join(path), part_at(module, ".".join(path))))
    return blocks


def _other_setting(module: nn.Module, spec: ViTSpec, blocks: Sequence[Block], key_of: Callable[[str], str]) -> str | None:
    """A norm or an activation whose setting is not the model's, or None: outputs do not show every such difference."""
    for name in spec.shapes():
        owner = name.removesuffix(".weight")
        path = key_of(name).removesuffix(".weight")
        if owner != name and "norm" in owner.rpartition(".")[2] and has_part(module, path):
            norm = part_at(module, path)
            eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", None))
            if isinstance(eps, float) and eps != spec.norm_eps:
                return f"{path} has the epsilon {eps:g}; that of the model is {spec.norm_eps:g}"
    for path, block in blocks:
        for inside, part in block.named_modules():
            act = ACTS.get((type(part).__name__, getattr(part, "approximate", "")))
            if act not in (None, spec.act):
                return f"{plain(f'{path}.{inside}')} has the activation {act}; that of the model is {spec.act}"
    return None


def _run(
    module: nn.Module, run: Callable[[Any, Tensor], Any], images: Any, blocks: Sequence[Block], where: object
) -> tuple[dict[str, Tensor], Entered]:
    """The module's results by name, and what enters its blocks."""
    entered: Entered = {}
    parameter = next(module.parameters())
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    with ExitStack() as stack:
        stack.enter_context(_undisturbed(module))
        for i, (_, block) in enumerate(blocks):
            stack.enter_context(_watched(block, i, entered, last=i == len(blocks) - 1))
        try:
            result = run(module, torch.from_numpy(images).to(parameter.device, dtype))
        except VitzooError:
            raise
        except Exception as error:  # code that is not known may raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            cause = f"does not compute with images of shape {list(images.shape)}, which its tensors are for: {reason}"
            raise RefusedContent(cause, where=where, hint=SAVE_STATE) from None
        return {name: _copied(value) for name, value in _named(result).items()}, entered


def _copied(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64, copy=True)  # the module may change it in place later


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Let a module compute in eval mode, without gradients, in float32 or float64, and restore everything afterwards.

    Weights in half precision are replaced by the same values in float32, because rounding would hide differences.
    """
    training = {part: part.training for part in module.modules()}
    halves = [(t, t.data) for t in (*module.parameters(), *module.buffers()) if t.dtype in HALVES]
    devices = {t.device for t in module.parameters()}
    compiled = any(COMPILED in part._modules or getattr(part, "_compiled_call_impl", None) is not None for part in training)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[device for device in devices if device.type == "cuda"]))
        for kind in {device.type for device in devices}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_without_tf32())
        if compiled:  # to compile takes longer than to compute
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for part in training:
                part.training = False
            for tensor, values in halves:
                tensor.data = values.float()
            yield
        finally:
            for tensor, values in halves:
                tensor.data = values
            for part, was in training.items():
                part.training = was


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Turn off TensorFloat-32, in which GPUs round the factors of products to 10 bits."""
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    allowed = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, was in zip(switches, allowed, strict=True):
            switch.allow_tf32 = was


@contextmanager
def _watched(block: nn.Module, number: int, entered: Entered, *, last: bool) -> Iterator[None]:
    """Record what enters a block, which is the input of the first of its parts that is called, and what leaves the last one."""

    def before(part: nn.Module, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        values = [value for value in (*args, *words.values()) if isinstance(value, Tensor)]
        if number not in entered and values:
            entered[number] = _copied(values[0])

    def after(part: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        value = result[0] if isinstance(result, tuple) and result else result
        if isinstance(value, Tensor):
            entered[number + 1] = _copied(value)

    hooks = [part.register_forward_pre_hook(before, with_kwargs=True) for part in block.modules()]
    if last:
        hooks.append(block.register_forward_hook(after))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _run_ours(model: ViT, images: Any, names: Sequence[str]) -> tuple[dict[str, Tensor], Entered]:
    """The same of our model."""
    first: Entered = {}
    blocks = [f"block.{i}" for i in range(model.spec.depth)]
    with torch.no_grad(), _watched(model.blocks[0], 0, first, last=False):
        values = forward.vit(model, torch.from_numpy(images), model.spec, EVAL, (*names, *blocks))
    entered = first | {i + 1: values[name].double() for i, name in enumerate(blocks)}
    return {name: values[name].double() for name in names}, entered


def _named(result: Any) -> dict[str, Tensor]:
    """The tensors of a result by their names if transformers has these, else by their numbers."""
    if isinstance(result, Mapping):
        known = {name: value for name, value in result.items() if name in RESULTS and isinstance(value, Tensor)}
        if known:
            return known
        result = list(result.values())
    values = result if isinstance(result, tuple | list) else [result]
    return {str(i): value for i, value in enumerate(values) if isinstance(value, Tensor)}


def _paired(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], spec: ViTSpec) -> dict[str, Tensor] | None:
    """Their results under the names of ours, with the model's output among them; None if they do not have it.

    Models of transformers without a pooling layer have tokens only.
    """
    found = {RESULTS[name]: value for name, value in theirs.items() if name in RESULTS}
    if not found:
        found = {name: value for name in ours for value in theirs.values() if value.shape == ours[name].shape}
        needed = spec.output
    elif "logits" in found or spec.output == "logits":
        needed = "logits"
    else:
        needed = spec.output if spec.output in found else "last_hidden_state"
    found = {name: value for name, value in found.items() if name in ours}
    fits = needed in found and all(value.shape == ours[name].shape for name, value in found.items())
    return found if fits else None


def _difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the images, relative to the largest value of each; infinite for another shape."""
    if actual.shape != expected.shape:
        return float("inf")
    scale = expected.abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    return float(((actual - expected).abs().flatten(1).amax(1) / scale).max())


def _floor(model: ViT, images: Any, name: str, single: Tensor) -> float:
    """The rounding error of our model's output in float32."""
    with torch.no_grad():
        double = forward.vit(model, torch.from_numpy(images).double(), model.spec, Float64Ops(), (name,))
    return _difference(single, double[name])


def _first_difference(entered: Entered, wanted: Entered, limit: float) -> str:
    """Where two models differ first, by what enters and leaves their blocks."""
    depth = max(wanted)
    for i, expected in wanted.items():
        if i not in entered and i == depth:  # blocks that are no module of their own, as vit-pytorch's
            return f"in block {depth - 1} or behind it"
        if i not in entered or not _difference(_sorted(entered[i], expected), _sorted(expected, expected)) <= limit:
            return f"in block {i - 1}" if i else "before block 0"
    return "behind the blocks"


def _sorted(x: Tensor, like: Tensor) -> Tensor:
    """Tokens b t d with the values of each dimension in order, because libraries have registers in other places."""
    if x.ndim != like.ndim:
        return x
    if x.shape != like.shape and x.transpose(0, 1).shape == like.shape:  # t b d, as in older versions of open_clip
        x = x.transpose(0, 1)
    return x.sort(dim=1).values
