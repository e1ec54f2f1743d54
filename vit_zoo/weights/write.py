"""Targets that a model can be written for, and whether a model fits one.

A model fits if the library's class can be built as it, and if what is written reads back, by the same dialect, as the same model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import NotRepresentable, Option, VitzooError
from vit_zoo.files import DTYPES, Stored
from vit_zoo.model.spec import TRAINING
from vit_zoo.weights import target_classes as classes
from vit_zoo.weights.dialect import Dialect
from vit_zoo.weights.dialects.aimv2 import HF_AIMV2
from vit_zoo.weights.dialects.clip import OPEN_CLIP
from vit_zoo.weights.dialects.flax import GOOGLE
from vit_zoo.weights.dialects.hf import HF_DEIT, HF_DEIT_TEACHER, HF_DINOV2, HF_DINOV2_SWIGLU, HF_DINOV3, HF_DINOV3_GATED, HF_VIT
from vit_zoo.weights.dialects.hf_beit import HF_BEIT
from vit_zoo.weights.dialects.hf_clip import HF_CLIP, HF_SIGLIP
from vit_zoo.weights.dialects.meta import DEIT3, DINOV2, DINOV2_SWIGLU
from vit_zoo.weights.dialects.timm import TIMM
from vit_zoo.weights.dialects.torchvision import TORCHVISION
from vit_zoo.weights.dialects.vit_pytorch import SIMPLE_VIT, VIT_PYTORCH, VIT_PYTORCH_0_40, VIT_PYTORCH_1_2, VIT_PYTORCH_1_15
from vit_zoo.weights.equivalents import Equivalent, equivalents
from vit_zoo.weights.read import Reading, read
from vit_zoo.weights.target_classes import TargetClass, Values, shown
from vit_zoo.weights.translate import to_theirs

if TYPE_CHECKING:
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.preprocess import Preprocess
    from vit_zoo.model.spec import ViTSpec

ACCEPTABLE = ("norm_eps", "act", "preprocess")  # conventions that a user may give up: the difference is small
# a model that only differs in these is of the same kind
SIZES = ("image_size", "patch_size", "channels", "mlp_dim", "num_classes")
# layers that a model can do without: the field is then 0
DROPPABLE = {"head": "num_classes", "pre_logits": "representation", "projection": "projection"}


@dataclass(frozen=True)
class Target:
    """A library to write for.

    * `dialects`: its dialects, each with the class of the library that loads its files; the first that fits is used.
    * `file`: the name of the weights in a folder; its ending is the container.
    * `wrapper`: the key of the state dict in a torch file, where it is not at the top.
    * `config`: a folder also holds the library's config.
    * `folder`: only a folder can be written, because the weights cannot be read without the config.
    """

    dialects: tuple[tuple[Dialect, TargetClass], ...]
    file: str
    wrapper: str | None = None
    config: bool = False
    folder: bool = False


TARGETS = {
    "timm": Target(((TIMM, classes.TIMM),), "model.safetensors", config=True),
    "hf": Target(
        (
            (HF_VIT, classes.HF_VIT), (HF_DEIT_TEACHER, classes.HF_DEIT_TEACHER), (HF_DEIT, classes.HF_DEIT),
            (HF_DINOV2, classes.HF_DINOV2), (HF_DINOV2_SWIGLU, classes.HF_DINOV2_SWIGLU),
            (HF_DINOV3, classes.HF_DINOV3), (HF_DINOV3_GATED, classes.HF_DINOV3_GATED),
            (HF_CLIP, classes.HF_CLIP), (HF_SIGLIP, classes.HF_SIGLIP), (HF_BEIT, classes.HF_BEIT), (HF_AIMV2, classes.HF_AIMV2),
        ),
        "model.safetensors",
        config=True,
        folder=True,
    ),
    "torchvision": Target(((TORCHVISION, classes.TORCHVISION),), "model.pth"),
    "vit-pytorch": Target(
        (
            (VIT_PYTORCH, classes.VIT_PYTORCH), (SIMPLE_VIT, classes.SIMPLE_VIT), (VIT_PYTORCH_1_15, classes.VIT_PYTORCH_1_15),
            (VIT_PYTORCH_1_2, classes.VIT_PYTORCH_1_2), (VIT_PYTORCH_0_40, classes.VIT_PYTORCH_0_40),
        ),
        "model.pth",
    ),
    "dinov2": Target(((DINOV2, classes.META_DINOV2), (DINOV2_SWIGLU, classes.META_DINOV2_SWIGLU)), "model.pth"),
    "deit": Target(((TIMM, classes.DEIT), (DEIT3, classes.DEIT3)), "model.pth", wrapper="model"),
    "mae": Target(((TIMM, classes.MAE),), "model.pth", wrapper="model"),
    "open_clip": Target(((OPEN_CLIP, classes.OPEN_CLIP),), "model.pth"),
    "google": Target(((GOOGLE, classes.GOOGLE),), "model.npz"),
}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """How a model is written for a target.

    * `tensors`, `config`: the content of its files; no config where none is written.
    * `reading`: what reading them gives.
    * `equivalent`: the model that is written, which computes the same as the given one.
    * `differs`: fields of the spec that are others after reading.
    * `added`: tensors that are written as zeros because the library's class has them.
    * `own_preprocess`: the config states the library's own rounding of crops, which is not the model's.
    * `note`: what a user of the library's class must know.
    """

    dialect: Dialect
    tensors: dict[str, Stored]
    config: dict[str, Any] | None
    reading: Reading
    equivalent: Equivalent
    differs: tuple[str, ...]
    added: tuple[str, ...]
    own_preprocess: bool = False
    note: str | None = None

    @property
    def notes(self) -> str | None:
        """What was moved, and what a user of the library's class must know; None for nothing of either."""
        return "; ".join(note for note in (self.equivalent.note, self.note) if note) or None

    def documents(self, preprocess: Preprocess | None) -> dict[str, dict[str, Any]]:
        """The content of the files next to the weights, by their names."""
        sidecar = self.dialect.sidecar
        if self.config is None or sidecar is None:
            return {}
        documents = {sidecar.file: self.config}
        if preprocess is not None and sidecar.write_preprocess is not None:
            documents |= sidecar.write_preprocess(preprocess)
        return documents


def fit(target: str, config: ModelConfig, tensors: Mapping[str, Stored], accept: Sequence[str], *, with_config: bool) -> Fit:
    """The first dialect of a target that represents the model, or an equivalent one.

    `accept` names conventions that may differ. Raises NotRepresentable for a field that the target cannot express: of the
    dialects, the cause of the one that comes nearest.
    """
    causes: list[tuple[int, bool, NotRepresentable]] = []  # with the distance to the model, and False if there is a way on
    for dialect, library in TARGETS[target].dialects:
        for model in equivalents(config.spec, tensors):
            if beyond := library.beyond(model.spec):
                error = _cannot_express(dialect, library, model, beyond)
                causes.append((sum(1 if name in SIZES else 2 for name in beyond), not error.hint, error))
                continue
            try:
                fitted = _fit(dialect, library, config, model, accept, with_config=with_config and TARGETS[target].config)
            except NotRepresentable as error:
                causes.append((1, not error.hint, error))
                continue
            refused = [name for name in fitted.differs if name not in accept]
            if not refused:
                return fitted
            name = refused[0]
            value, other = getattr(model.spec, name), getattr(fitted.reading.spec, name)
            accepted = Option("accept", f"['{name}']", f"--accept {name}")
            hint = f"{accepted} writes {other} and measures the difference" if name in ACCEPTABLE else None
            cause = f"{dialect.name} cannot express {name} = {value}, only {other}"
            causes.append((len(refused), not hint, NotRepresentable(cause, hint=hint, options=[accepted])))
    raise min(causes, key=lambda cause: cause[:2])[2]


def _fit(
    dialect: Dialect, library: TargetClass, config: ModelConfig, model: Equivalent, accept: Sequence[str], *, with_config: bool
) -> Fit:
    spec = model.spec
    prefix = dialect.prefixes[0] if dialect.write_prefix is None else dialect.write_prefix(spec)
    theirs = to_theirs(dialect, model.tensors, _sizes(spec), prefix)
    added = {name: shape(spec) for name, shape in dialect.added.items() if prefix + name not in theirs}
    theirs = _with_zeros(theirs, {prefix + name: shape for name, shape in added.items()})
    written, own_preprocess = _written(dialect, config.replace(spec=spec), accept) if with_config else (None, False)
    facts = {"heads": spec.heads, **dialect.write_facts(spec)}
    facts |= {"grid": spec.grid} if spec.learned_pos else {"image_size": spec.image_size}
    stated: dict[str, Any] = {}
    if written is not None and dialect.sidecar is not None:
        stated = {name: value for name, value in dialect.sidecar.facts(written, dialect.name).items() if name not in facts}
    try:
        reading = read(theirs, facts, dialect=dialect, config=stated, where=dialect.name)
    except NotRepresentable:
        raise
    except VitzooError as error:
        raise NotRepresentable(f"{dialect.name} cannot represent this model: {error.message}") from None
    # a model of patches alone has the same positions and pooling whatever these two fields are
    ignored = TRAINING if spec.prefix_tokens else (*TRAINING, "pos_covers", "pool_tokens")
    fields = [name for name in type(spec).model_fields if name not in ignored]
    differs = tuple(name for name in fields if getattr(spec, name) != getattr(reading.spec, name))
    unused = tuple(name for name, shape in added.items() if 0 not in shape)
    return Fit(dialect, theirs, written, reading, model, differs, unused, own_preprocess, library.note(spec))


def _cannot_express(dialect: Dialect, library: TargetClass, model: Equivalent, beyond: Mapping[str, Values]) -> NotRepresentable:
    """The error about a model that the library's class cannot be built as, with the tensors to leave out where that helps."""
    spec, (name, values) = model.spec, next(iter(beyond.items()))
    cause = f"{dialect.name} cannot express {name} = {shown([getattr(spec, name)])}"
    cause += f", only {shown(values)}" if values else ""
    places = {each.ours for each in dialect.rules}
    without = next((tensor for tensor in model.tensors if tensor not in places and not tensor.startswith("blocks.")), None)
    cause += "" if without is None else f", and has no place for {without!r}"
    for layers in (("head",), ("pre_logits",), ("head", "pre_logits")):
        fields, patterns = [DROPPABLE[layer] for layer in layers], [f"{layer}.*" for layer in layers]
        complete = all(getattr(spec, each) for each in fields) and (not spec.num_classes or "num_classes" in fields)
        complete = complete and not spec.dist_token and not spec.cosine_head
        if complete and not library.beyond(spec.replace(**dict.fromkeys(fields, 0))):
            flags = " ".join(f"--allow-drop '{pattern}'" for pattern in patterns)
            dropped = Option("allow_drop", str(patterns), flags)
            return NotRepresentable(cause, hint=f"{dropped} leaves it out", options=[dropped])
    return NotRepresentable(cause)


def _written(dialect: Dialect, config: ModelConfig, accept: Sequence[str]) -> tuple[dict[str, Any] | None, bool]:
    """The library's config, and whether it states the library's own rounding in place of the model's, as `accept` permits."""
    if dialect.write_config is None:
        return None, False
    try:
        return dialect.write_config(config), False
    except NotRepresentable:
        if "preprocess" not in accept or config.preprocess is None:
            raise
        return dialect.write_config(config.replace(preprocess=config.preprocess.with_defaults())), True


def _sizes(spec: ViTSpec) -> dict[str, int]:
    """The lengths of axes that patterns name: patch p q, channels c, heads h of width e."""
    p, q = spec.patch_size
    return {"p": p, "q": q, "c": spec.channels, "h": spec.heads, "e": spec.dim_head}


def _with_zeros(tensors: dict[str, Stored], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Stored]:
    """The tensors with zeros of the given shapes and of the same type. Empty ones come first, as in vit-pytorch's files."""
    import numpy as np

    dtype = next(iter(tensors.values())).dtype
    zeros = {name: Stored(dtype, shape, partial(np.zeros, shape, DTYPES[dtype][1])) for name, shape in shapes.items()}
    empty = {name: tensor for name, tensor in zeros.items() if 0 in tensor.shape}
    return {**empty, **tensors, **zeros}
