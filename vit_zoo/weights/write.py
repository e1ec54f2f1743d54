"""What can be written: each target's dialects, its container, its config, and whether a model fits in it.

A model fits if what is written reads back, by the same table, as the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable, VitzooError
from vit_zoo.files import Stored
from vit_zoo.weights.configs import hf as hf_config
from vit_zoo.weights.configs import timm as timm_config
from vit_zoo.weights.configs.image_processors import to_hf
from vit_zoo.weights.dialects.clip import OPEN_CLIP
from vit_zoo.weights.dialects.flax import GOOGLE
from vit_zoo.weights.dialects.hf import HF_DEIT, HF_DEIT_TEACHER, HF_DINOV2, HF_DINOV2_SWIGLU, HF_DINOV3, HF_DINOV3_GATED, HF_VIT
from vit_zoo.weights.dialects.hf_clip import HF_CLIP, HF_SIGLIP
from vit_zoo.weights.dialects.meta import DEIT3, DINOV2, DINOV2_SWIGLU
from vit_zoo.weights.dialects.timm import TIMM
from vit_zoo.weights.dialects.torchvision import TORCHVISION
from vit_zoo.weights.dialects.vit_pytorch import SIMPLE_VIT, VIT_PYTORCH, VIT_PYTORCH_0_40, VIT_PYTORCH_1_2, VIT_PYTORCH_1_15
from vit_zoo.weights.read import Reading, read
from vit_zoo.weights.translate import Dialect, to_theirs

if TYPE_CHECKING:
    from vit_zoo.files.stored import Array
    from vit_zoo.model_config import ModelConfig
    from vit_zoo.preprocess import Preprocess
    from vit_zoo.vit_spec import ViTSpec

ACCEPTABLE = ("norm_eps", "act")  # conventions that a user may let go, for the difference is small and can be measured
TRAINING = ("dropout", "emb_dropout", "drop_path")


@dataclass(frozen=True)
class Target:
    """A library to write for: its dialects, the first that fits, the container, and what its config says."""

    dialects: tuple[Dialect, ...]
    file: str  # the name in a folder
    wrapper: str | None = None  # what the state dict lies under in a torch file
    config: Callable[[Dialect, ModelConfig], dict[str, Any]] | None = None
    facts: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: {}  # what reading that config gives
    folder: bool = False  # without its config it cannot be read
    images: Callable[[Preprocess], dict[str, Any]] | None = None  # what preprocessor_config.json says, if it has that file


def _hf(dialect: Dialect, config: ModelConfig) -> dict[str, Any]:
    return hf_config.config_of(dialect.name, config.spec, config.labels)


def _timm(dialect: Dialect, config: ModelConfig) -> dict[str, Any]:
    return timm_config.config_of(config)


TARGETS = {
    "timm": Target(
        (TIMM,), "model.safetensors", config=_timm, facts=lambda config: timm_config.facts_of_config(config, where="timm")
    ),
    "hf": Target(
        (HF_VIT, HF_DEIT_TEACHER, HF_DEIT, HF_DINOV2, HF_DINOV2_SWIGLU, HF_DINOV3, HF_DINOV3_GATED, HF_CLIP, HF_SIGLIP),
        "model.safetensors",
        config=_hf,
        facts=lambda config: hf_config.facts_of_config(config, where="hf"),
        folder=True,
        images=to_hf,
    ),
    "torchvision": Target((TORCHVISION,), "model.pth"),
    "vit-pytorch": Target((VIT_PYTORCH, SIMPLE_VIT, VIT_PYTORCH_1_15, VIT_PYTORCH_1_2, VIT_PYTORCH_0_40), "model.pth"),
    "dinov2": Target((DINOV2, DINOV2_SWIGLU), "model.pth"),
    "deit": Target((TIMM, DEIT3), "model.pth", wrapper="model"),
    "mae": Target((TIMM,), "model.pth", wrapper="model"),
    "open_clip": Target((OPEN_CLIP,), "model.pth"),
    "google": Target((GOOGLE,), "model.npz"),
}
# parameters that a class has and that no forward for inference reads; strict loading wants them: zeros
ADDED: Mapping[str, Mapping[str, Callable[[ViTSpec], tuple[int, ...]]]] = {
    "dinov2": {"mask_token": lambda spec: (1, spec.dim)},
    "dinov2-swiglu": {"mask_token": lambda spec: (1, spec.dim)},
    "hf-dinov2": {"embeddings.mask_token": lambda spec: (1, spec.dim)},
    "hf-dinov2-swiglu": {"embeddings.mask_token": lambda spec: (1, spec.dim)},
    "hf-dinov3": {"embeddings.mask_token": lambda spec: (1, 1, spec.dim)},
    "hf-dinov3-gated": {"embeddings.mask_token": lambda spec: (1, 1, spec.dim)},
}


@dataclass(frozen=True)
class Fit:
    """How a model is written for a target: the tensors under its names, what reads back, and what differs."""

    dialect: Dialect
    tensors: dict[str, Stored]
    config: dict[str, Any] | None
    reading: Reading
    form: Form
    differs: tuple[str, ...]
    added: tuple[str, ...]


def fit(target: str, config: ModelConfig, tensors: Mapping[str, Stored], accept: Sequence[str], *, with_config: bool) -> Fit:
    """The first dialect of a target that holds the model. Raises NotRepresentable naming what it cannot say."""
    causes: list[NotRepresentable] = []
    for dialect in TARGETS[target].dialects:
        for form in forms(config.spec, tensors):
            try:
                found = _fit(TARGETS[target], dialect, config, form, with_config=with_config)
            except NotRepresentable as error:
                causes.append(error)
                continue
            refused = [name for name in found.differs if name not in accept]
            if not refused:
                return found
            name = refused[0]
            value, other = getattr(found.form.spec, name), getattr(found.reading.spec, name)
            hint = f"--accept {name} goes on with {other} and measures the difference" if name in ACCEPTABLE else None
            causes.append(NotRepresentable(f"{dialect.name} cannot say {name} = {value}: there it is {other}", hint=hint))
    raise next((cause for cause in causes if cause.hint), causes[0])


@dataclass(frozen=True)
class Form:
    """The same function with the class token's position in another place; `note` says what became of it."""

    spec: ViTSpec
    tensors: Mapping[str, Stored]
    note: str | None = None


def forms(spec: ViTSpec, tensors: Mapping[str, Stored]) -> Iterator[Form]:
    """A model as it is, then as other models that compute the same."""
    for form in _positioned(spec, tensors):
        yield form
        if spec.pool == "cls" and spec.final_norm != "none" and not spec.dist_token:
            yield _normed(form)
        if (
            spec.pool == "cls"
            and spec.num_classes
            and not (spec.dist_token or spec.representation or spec.final_norm == "after_pool")
        ):
            yield _widened(form)


def _widened(form: Form) -> Form:
    """A head that reads the mean of the patches too, by zeros: what transformers' Dinov2 has for classes."""
    head = form.tensors["head.weight"]
    wide = Stored(head.dtype, (head.shape[0], 2 * head.shape[1]), partial(_beside_zeros, head))
    note = "the head reads the mean of the patches too, by weights of zero"
    spec = form.spec.replace(pool="cls+mean", pool_tokens="patches")
    return Form(spec, {**form.tensors, "head.weight": wide}, note if form.note is None else f"{form.note}; {note}")


def _normed(form: Form) -> Form:
    """The final norm on the other side of taking the class token, which is the same for that token.

    CLIP's is after it, timm's before it.
    """
    old, new = ("norm.", "fc_norm.") if form.spec.final_norm == "before_pool" else ("fc_norm.", "norm.")
    other = "after_pool" if form.spec.final_norm == "before_pool" else "before_pool"
    found = {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in form.tensors.items()}
    moved = "the final norm is on the class token alone" if other == "after_pool" else "the final norm is on every token"
    return Form(form.spec.replace(final_norm=other), found, moved if form.note is None else f"{form.note}; {moved}")


def _positioned(spec: ViTSpec, tensors: Mapping[str, Stored]) -> Iterator[Form]:
    """A model as it is; with its class token's position in the token; with a position of zeros for its class token.

    The sum is all that is ever read, so that the function is the same. timm stores DINOv2 with registers in the second form.
    """
    yield Form(spec, tensors)
    if spec.pos != "learned" or not spec.class_token or spec.dist_token:
        return
    cls, table = tensors["cls_token"], tensors["pos_embed"]
    if spec.pos_covers == "class" or (spec.pos_covers == "all" and not spec.registers):
        shape = (1, table.shape[1] - 1, table.shape[2])
        folded = {
            "cls_token": Stored(cls.dtype, cls.shape, partial(_sum, cls, table)),
            "pos_embed": Stored(table.dtype, shape, partial(_rest, table)),
        }
        note = "the class token's position is now part of the class token: their sum is the same, the way back is lost"
        yield Form(spec.replace(pos_covers="patches"), {**tensors, **folded}, note)
    elif spec.pos_covers == "patches":
        shape = (1, table.shape[1] + 1, table.shape[2])
        unfolded = {**tensors, "pos_embed": Stored(table.dtype, shape, partial(_with_zeros, table))}
        covers = "class" if spec.registers else "all"
        yield Form(spec.replace(pos_covers=covers), unfolded, "the class token got a position, of zeros")


def _fit(target: Target, dialect: Dialect, config: ModelConfig, form: Form, *, with_config: bool) -> Fit:
    spec = form.spec
    theirs = to_theirs(dialect, form.tensors, _sizes(dialect, spec))
    missing = {name: shape(spec) for name, shape in ADDED.get(dialect.name, {}).items() if name not in theirs}
    theirs |= {dialect.prefixes[0] + name: _zeros(shape, theirs) for name, shape in missing.items()}
    if dialect == VIT_PYTORCH and not spec.class_token:
        theirs = {"cls_token": _zeros((0, spec.dim), theirs), **theirs}  # it is there, and empty
    theirs = _prefixed_as_needed(dialect, spec, theirs)
    written = None if target.config is None or not with_config else target.config(dialect, config.replace(spec=spec))
    told: dict[str, Any] = {"heads": spec.heads}
    told |= {"grid": spec.grid} if spec.pos == "learned" else {"image_size": spec.image_size}
    if dialect.name.startswith("vit-pytorch"):
        told |= {"patch_size": spec.patch_size, "channels": spec.channels}
    if dialect in (VIT_PYTORCH_1_15, VIT_PYTORCH_1_2, VIT_PYTORCH_0_40):
        told["pool"] = spec.pool
    if dialect == OPEN_CLIP and spec.act in ("gelu", "quick_gelu"):
        told["act"] = spec.act  # open_clip is told by its `quick_gelu`
    facts = {} if written is None else {k: v for k, v in target.facts(written).items() if k not in told}
    try:
        reading = read(theirs, told, dialect=dialect, config=facts, where=dialect.name)
    except NotRepresentable:
        raise
    except VitzooError as error:
        raise NotRepresentable(f"{dialect.name} cannot hold this model: {error.message}") from None
    silent = TRAINING if spec.prefix_tokens else (*TRAINING, "pos_covers", "pool_tokens")  # patches are all that there is
    fields = [name for name in type(spec).model_fields if name not in silent]
    differs = tuple(name for name in fields if getattr(spec, name) != getattr(reading.spec, name))
    return Fit(dialect, theirs, written, reading, form, differs, tuple(missing))


def _sizes(dialect: Dialect, spec: ViTSpec) -> dict[str, int]:
    """The lengths that patterns name, of the spec: patch p q, channels c, heads h of width e."""
    p, q = spec.patch_size
    sizes = {"p": p, "q": q, "c": spec.channels}
    return sizes if dialect.name.startswith("vit-pytorch") else {**sizes, "h": spec.heads, "e": spec.dim_head}


def _prefixed_as_needed(dialect: Dialect, spec: ViTSpec, theirs: dict[str, Stored]) -> dict[str, Stored]:
    """transformers' bare classes have no prefix, those with a head have one, of their own name."""
    if not dialect.name.startswith("hf-"):
        return theirs
    kind, _ = hf_config.class_of(dialect.name, spec)
    wanted = hf_config.PREFIXES.get(kind, "") if spec.num_classes or kind.startswith(("clip", "siglip")) else ""
    old = dialect.prefixes[0]
    return {
        name if name.startswith(dialect.outside or "\0") else wanted + name.removeprefix(old): tensor
        for name, tensor in theirs.items()
    }


def _sum(token: Stored, table: Stored) -> Array:
    import torch

    bf16 = token.dtype == "BF16"
    first, second = (torch.from_numpy(a.copy()) for a in (token.array(), table.array()[:, :1]))
    if bf16:
        return (first.view(torch.bfloat16) + second.view(torch.bfloat16)).view(torch.uint16).numpy()
    return (first + second).numpy()


def _rest(table: Stored) -> Array:
    import numpy as np

    return np.ascontiguousarray(table.array()[:, 1:])


def _beside_zeros(head: Stored) -> Array:
    import numpy as np

    return np.pad(head.array(), ((0, 0), (0, head.shape[1])))


def _with_zeros(table: Stored) -> Array:
    import numpy as np

    return np.pad(table.array(), ((0, 0), (1, 0), (0, 0)))


def _zeros(shape: tuple[int, ...], like: Mapping[str, Stored]) -> Stored:
    import numpy as np

    from vit_zoo.files import DTYPES

    dtype = next(iter(like.values())).dtype
    return Stored(dtype, shape, partial(np.zeros, shape, DTYPES[dtype][1]))
