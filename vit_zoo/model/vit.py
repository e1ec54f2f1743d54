"""The Vision Transformer as a torch module: parameters under timm's names; the computation is `forward.py`.

Modules are created without values and filled once, by `initialise` with a seed or from a checkpoint (`weights/`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vit_zoo.errors import InputError, RefusedContent, printable
from vit_zoo.files import digest_of
from vit_zoo.model import forward, positions
from vit_zoo.model.config import ModelConfig
from vit_zoo.model.initialisation import Values, published_values, vit_pytorch_values
from vit_zoo.model.outputs import check_names
from vit_zoo.model.spec import ViTSpec, article_spec
from vit_zoo.model.torch_ops import EVAL, TRAIN, TorchOps

Pair = int | Sequence[int]
HEADS = ("head", "head_dist")
CLOSING = (*HEADS, "projection")  # layers that `set_head` replaces
ORIGIN = 80  # characters of the origin of the weights in the representation of a model
# modules that change nothing in inference, and may stand in a classifier beside its linear layer
NO_LAYERS = (nn.Dropout, nn.Identity, nn.Flatten)


class Linear(nn.Linear):
    """`nn.Linear` without initial values."""

    def reset_parameters(self) -> None:
        pass


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` without initial values."""

    def reset_parameters(self) -> None:
        pass


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` without initial values."""

    def reset_parameters(self) -> None:
        pass


def norm_of(spec: ViTSpec, width: int) -> LayerNorm | RMSNorm:
    """Return a norm of the kind that the spec has."""
    return RMSNorm(width, spec.norm_eps) if spec.norm == "rms" else LayerNorm(width, spec.norm_eps)


class PatchProjection(nn.Module):
    """A linear layer on flat patches, whose weight has the shape of a convolution's, d c p q, as checkpoints store it."""

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(spec.dim, spec.channels, *spec.patch_size))
        self.bias = nn.Parameter(torch.empty(spec.dim)) if spec.patch_bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class Part(nn.Module):
    """A part of the forward as a module, so that hooks see its calls.

    A subclass sets `function` to its function in `forward.py`. It is called as a method, so its argument `m` is the module.
    """

    function: Callable[..., Any]

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        self.spec = spec

    @property
    def op(self) -> TorchOps:
        return TRAIN if self.training else EVAL

    def forward(self, x: Tensor, spec: ViTSpec | None = None, *context: Any) -> Tensor:
        """Compute `function` on `x`. `spec` defaults to the model's own, `context` to that of tokens alone."""
        y: Tensor = self.function(x, spec or self.spec, self.op, *context)
        return y


class PatchEmbedding(Part):
    function = forward.patch_embedding

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__(spec)
        if spec.patch_norms is True:
            self.pre_norm = norm_of(spec, spec.channels * spec.patch_size[0] * spec.patch_size[1])
        self.proj = PatchProjection(spec)
        if spec.patch_norms:
            self.add_module("norm" if spec.patch_norms == "after" else "post_norm", norm_of(spec, spec.dim))


class SelfAttention(Part):
    function = forward.attention

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__(spec)
        inner = spec.heads * spec.dim_head
        if spec.qkv_bias == "qv":
            self.q_bias = nn.Parameter(torch.empty(inner))
            self.v_bias = nn.Parameter(torch.empty(inner))
        if spec.relative_bias == "blocks":
            self.relative_position_bias_table = nn.Parameter(torch.empty(spec.relative_shape))
        self.qkv = Linear(spec.dim, 3 * inner, bias=spec.qkv_bias is True)
        if spec.qk_norm:
            self.q_norm = norm_of(spec, spec.dim_head)
            self.k_norm = norm_of(spec, spec.dim_head)
        if spec.attn_norm:
            self.norm = norm_of(spec, inner)
        if spec.attn_out:
            self.proj = Linear(inner, spec.dim, bias=spec.proj_bias)


class MLP(Part):
    function = forward.mlp

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__(spec)
        self.fc1 = Linear(spec.dim, (2 if spec.mlp == "swiglu" else 1) * spec.mlp_dim, bias=spec.mlp_bias)
        if spec.mlp_norm:
            self.norm = norm_of(spec, spec.mlp_dim)
        self.fc2 = Linear(spec.mlp_dim, spec.dim, bias=spec.mlp_bias)


class PoolMLP(nn.Module):
    """The MLP of attention pooling, whose layers `forward.attention_pool` calls."""

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        width = spec.pool_mlp_dim or spec.mlp_dim
        self.fc1 = Linear(spec.dim, width)
        self.fc2 = Linear(width, spec.dim)


class RotaryFrequencies(nn.Module):
    """Learned frequencies of rotary positions: of columns and rows, for each head of each block (Heo et al., 2024)."""

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.empty(2, spec.depth, spec.heads, spec.dim_head // 2))


class SharedRelativeBias(nn.Module):
    """The table of relative biases that all blocks share."""

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty(spec.relative_shape))


class LayerScale(nn.Module):
    """Factors of a residual branch (Touvron et al., 2021); `forward.residual` multiplies by them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))


class Block(Part):
    function = forward.block
    checkpointing = False  # whether training keeps the block's input only, see `ViT.set_grad_checkpointing`

    def __init__(self, spec: ViTSpec, index: int) -> None:
        super().__init__(spec)
        self.drop_path = spec.drop_path * index / max(spec.depth - 1, 1)  # rises linearly (Huang et al., 2016)
        self.norm1 = norm_of(spec, spec.dim)
        self.attn = SelfAttention(spec)
        if spec.layer_scale:
            self.ls1 = LayerScale(spec.dim)
        self.norm2 = norm_of(spec, spec.dim)
        self.mlp = MLP(spec)
        if spec.layer_scale:
            self.ls2 = LayerScale(spec.dim)

    def forward(self, x: Tensor, spec: ViTSpec | None = None, *context: Any) -> Tensor:
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return super().forward(x, spec, *context)
        y: Tensor = checkpoint(super().forward, x, spec, *context, use_reentrant=False)
        return y


class AttentionPool(Part):
    function = forward.attention_pool

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__(spec)
        self.latent = nn.Parameter(torch.empty(1, 1, spec.dim))
        self.q = Linear(spec.dim, spec.dim)
        self.kv = Linear(spec.dim, 2 * spec.dim)
        self.proj = Linear(spec.dim, spec.dim)
        self.norm = norm_of(spec, spec.dim)
        self.mlp = PoolMLP(spec)


class ViT(Part):
    """A Vision Transformer, constructed with the arguments of vit-pytorch's (1.26.11).

    Names, architecture and the distributions of the initial weights are the same. `ViT.from_spec` constructs all other families.
    Images are b c H W, normalised. The result is `logits` b k, or with `num_classes=0` all tokens after the final norm, b t d.

    Args:
        image_size: Height and width of the images in pixels, or one number for both.
        patch_size: Height and width of a patch; they must divide those of the image.
        num_classes: Number of classes; 0 for no head.
        dim: Width of a token.
        depth: Number of blocks.
        heads: Number of attention heads.
        mlp_dim: Width of the hidden layer of each MLP.
        pool: What the head reads: `cls`, the class token, or `mean`, the mean of the patches of a model without a class token.
        channels: Number of channels of the images.
        dim_head: Width of an attention head.
        dropout: Rate of dropout in the blocks, in training.
        emb_dropout: Rate of dropout after the positions are added, in training.

    Raises:
        InputError: Sizes do not fit together.
    """

    config: ModelConfig

    def __init__(
        self,
        *,
        image_size: Pair,
        patch_size: Pair,
        num_classes: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        pool: Literal["cls", "mean"] = "cls",
        channels: int = 3,
        dim_head: int = 64,
        dropout: float = 0.0,
        emb_dropout: float = 0.0,
    ) -> None:
        spec = article_spec(
            image_size=image_size, patch_size=patch_size, num_classes=num_classes, dim=dim, depth=depth, heads=heads,
            mlp_dim=mlp_dim, pool=pool, channels=channels, dim_head=dim_head, dropout=dropout, emb_dropout=emb_dropout,
        )  # fmt: skip
        self._build(ModelConfig(name="vit", spec=spec))
        initialise(self, values=vit_pytorch_values)

    @classmethod
    def from_spec(cls, spec: ViTSpec, *, seed: int | None = None, device: Any = None, dtype: torch.dtype | None = None) -> Self:
        """Return a model of any family with random weights.

        Args:
            spec: The spec of the model.
            seed: Seed for the random weights; by default, torch's global generator draws one.
            device: Device of the parameters, as in torch.
            dtype: Type of the parameters, torch's default type by default.
        """
        model = cls.empty(ModelConfig(name="vit", spec=spec))
        if dtype is not None:
            model.to(dtype)
        model.to_empty(device=device or torch.get_default_device())
        initialise(model, seed)
        return model

    @classmethod
    def empty(cls, config: ModelConfig) -> Self:
        """Return a model on the meta device: all names and shapes, without memory or values."""
        model = cls.__new__(cls)
        with torch.device("meta"):
            model._build(config)
        return model.eval()

    def _build(self, config: ModelConfig) -> None:
        spec = config.spec
        super().__init__(spec)
        self.config = config
        self._random: dict[str, int] = {}  # checksums of random values, by parameter
        self._random_digest: str | None = None  # or the content hash of all of them, if they were read from a file that states it
        if spec.class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, spec.dim))
        if spec.dist_token:
            self.dist_token = nn.Parameter(torch.empty(1, 1, spec.dim))
        if spec.registers:
            self.reg_token = nn.Parameter(torch.empty(1, spec.registers, spec.dim))
        if spec.learned_pos:
            self.pos_embed = nn.Parameter(torch.empty(spec.shapes()["pos_embed"]))
        self.patch_embed = PatchEmbedding(spec)
        if spec.rotates and spec.rope == "mixed":
            self.rope = RotaryFrequencies(spec)
        if spec.relative_bias == "shared":
            self.rel_pos_bias = SharedRelativeBias(spec)
        fill_tables(self)
        self.register_load_state_dict_post_hook(fill_tables)  # type: ignore[no-untyped-call]
        if spec.pre_norm:
            self.norm_pre = norm_of(spec, spec.dim)
        self.blocks = nn.ModuleList(Block(spec, i) for i in range(spec.depth))
        if spec.final_norm == "before_pool":
            self.norm = norm_of(spec, spec.dim)
        if spec.pool == "map":
            self.attn_pool = AttentionPool(spec)
        if spec.final_norm == "after_pool":
            self.fc_norm = norm_of(spec, spec.dim)
        if spec.representation:
            self.pre_logits = Linear(spec.pooled_dim, spec.representation)
        if spec.projection:
            self.projection = Linear(spec.feature_width, spec.projection, bias=False)
        if spec.num_classes:
            self._make_heads(spec)

    def extra_repr(self) -> str:
        """Return the line that torch prints before the modules: name, image size, parameters and origin of the weights."""
        config, (height, width) = self.config, self.spec.image_size
        origin = config.random_text if config.random_seed is not None and self.is_random() else config.source or ""
        origin = printable(origin if len(origin) <= ORIGIN else f"{origin[: ORIGIN - 3]}...")
        return f"{config.name}, {height}x{width}, {self.spec.params:,} parameters{f', {origin}' if origin else ''}"

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]  # the parts take tokens
        return self._outputs(image, (self.spec.output,))[self.spec.output]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move or cast parameters, as torch does; tables follow to the device and stay float32, random weights stay marked."""
        random = self.is_random()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        fill_tables(self)
        if random:
            self.mark_random(self.config.random_part)
        return self

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Move parameters without their values, as torch does, but without `empty_like`: of meta tensors it imports sympy."""
        return self._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device=device), recurse)

    def features(self, image: Tensor, *outputs: str) -> dict[str, Tensor]:
        """Return named tensors: outputs of an export, `class_token` b d and `patch_tokens` b t d.

        Class and patch tokens are rows of `last_hidden_state`.

        Args:
            image: Normalised images, b c H W.
            *outputs: The names, such as `pooler_output` or `block.5.map`; by default all without a block number.

        Raises:
            InputError: A name is unknown, or `probabilities` of outputs for which `config.activation` has no function.
        """
        spec, p = self.spec, self.spec.prefix_tokens
        token_rows = {"class_token": slice(0, 1)} if spec.class_token else {}
        token_rows["patch_tokens"] = slice(p, None)
        none = {"probabilities"} if spec.num_classes and self.config.activation is None else set()
        if none & set(outputs):
            self.config.class_activation()  # raises
        known = [*(name for name in self.config.output_names() if name not in none), *token_rows]
        names = outputs or tuple(name for name in known if "." not in name)
        check_names(names, known)
        needed = dict.fromkeys("last_hidden_state" if name in token_rows else name for name in names)
        tensors = self._outputs(image, tuple(needed))
        for name, rows in token_rows.items():
            if name in names:
                x = tensors["last_hidden_state"][:, rows]
                tensors[name] = x[:, 0] if name == "class_token" else x
        return {name: tensors[name] for name in names}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Train with less memory: compute each block again in the backward pass instead of keeping its inner values.

        Gradients are the same, with dropout and stochastic depth too. Inference and exports do not change.

        Args:
            enable: Whether to do so from now on.
        """
        for part in self.modules():
            if isinstance(part, Block):
                part.checkpointing = enable

    def set_head(
        self, num_classes: int, labels: Sequence[str] | None = None, *, problem_type: str | None = None, seed: int = 0
    ) -> None:
        """Replace the classifier by a new one with random weights. The model counts as random until it is trained.

        It reads the pooled features; a projection before the classifier is removed with it.

        Args:
            num_classes: Number of classes; 0 for no classifier.
            labels: Names of the classes.
            problem_type: What its outputs stand for, as in `vit_zoo.load`.
            seed: Seed for the random weights.
        """
        spec = self.spec.replace(num_classes=num_classes, projection=0, cosine_head=False)
        config = self.config.replace(
            spec=spec, labels=None if labels is None else tuple(labels), problem_type=None, accuracy=None
        )
        config = config.with_problem_type(problem_type)
        like, all_random = self.patch_embed.proj.weight, self.is_random() and self.config.random_part is None
        if not all_random:  # the rest is trained
            random = {"random_seed": seed, "random_part": "head"} if num_classes else {"random_seed": None, "random_part": None}
            config = config.replace(**random)
        for name in [name for name, _ in self.named_children() if name in CLOSING]:
            delattr(self, name)
        if num_classes:
            generator = torch.Generator(device=like.device).manual_seed(seed)
            for head in self._make_heads(spec).values():
                published_values(head.to(like), generator)
        self._set_spec(config)
        self.mark_random(None if all_random else "head")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, as torch does. With a new classifier, `model.head = nn.Linear(...)`, the config changes too.

        Raises InputError for a classifier of a model that the spec gives none, because it does not pool its tokens.
        """
        if name not in HEADS or not isinstance(value, nn.Module):
            super().__setattr__(name, value)
            return
        config, random = self._config_with(name, value), self.is_random()
        super().__setattr__(name, value)
        if config.spec != self.spec:
            self._set_spec(config)
        if random:  # as in `set_head`: random until a part of it changes
            self.mark_random(self.config.random_part)

    def _config_with(self, name: str, head: nn.Module) -> ModelConfig:
        """The config with the classes of the heads, `head` among them: those of linear layers, or none of identities.

        Labels and the problem type are dropped if the number is another. Other modules are left to the user: `save` refuses them.
        """
        spec = self.spec
        heads = [head if each == name else getattr(self, each, None) for each in HEADS[: 1 + spec.dist_token]]
        linear = [linear_in(each) for each in heads]
        forms = {type(h) if found is None else found[1].weight.shape for h, found in zip(heads, linear, strict=True)}
        biases = {found is not None and found[1].bias is not None for found in linear}
        match [*forms, *biases]:
            case [(int() as classes, int() as width), bool() as bias] if width == spec.head_width:
                spec = spec.replace(num_classes=classes, head_bias=bias)
            case [nn.Identity, False]:
                spec = spec.replace(num_classes=0, head_bias=True)
        labels = self.config.labels
        kept = labels is not None and len(labels) == spec.num_classes
        problem_type = self.config.problem_type if spec.num_classes == self.spec.num_classes else None
        return self.config.replace(spec=spec, labels=labels if kept else None, problem_type=problem_type)

    def mark_random(self, part: Literal["head"] | None = None, digest: str | None = None) -> None:
        """Record that the parameters have random values: all of them, or those of the classifier.

        With `digest`, the content hash of all of them, none is read.
        """
        self._random, self._random_digest = {}, None
        if part is None and digest is not None:
            self._random_digest = digest
        else:
            prefixes = ("",) if part is None else tuple(f"{name}." for name in HEADS)
            self._random = {name: _checksum(p) for name, p in self._named().items() if name.startswith(prefixes)}

    def _named(self) -> dict[str, Tensor]:
        """The parameters by our names, which `torch.compile` changes."""
        return {name.replace("_orig_mod.", ""): p for name, p in self.named_parameters()}

    def is_random(self) -> bool:
        """Return whether the parameters marked as random have the same values still.

        Values are compared, however they change: by an optimizer, through `.data`, or by loading. A copy on another device or
        in another type is the same.
        """
        parameters = self._named()
        if self._random_digest is not None:
            from vit_zoo.files.pickles import tensors_of

            try:
                return digest_of(tensors_of(parameters, where=type(self).__name__)) == self._random_digest
            except RefusedContent:  # a type that files do not have
                return False
        return bool(self._random) and all(
            name in parameters and _checksum(parameters[name]) == checksum for name, checksum in self._random.items()
        )

    def _make_heads(self, spec: ViTSpec) -> dict[str, nn.Module]:
        heads = {name: Linear(spec.head_width, spec.num_classes, bias=spec.head_bias) for name in HEADS[: 1 + spec.dist_token]}
        for name, head in heads.items():
            self.add_module(name, head)
        return dict(heads)

    def _set_spec(self, config: ModelConfig) -> None:
        self.config = config
        for part in self.modules():
            if isinstance(part, Part):
                part.spec = config.spec

    def _outputs(self, image: Tensor, outputs: tuple[str, ...]) -> dict[str, Tensor]:
        expected = (self.spec.channels, *self.spec.image_size)
        if image.ndim != 4 or tuple(image.shape[1:]) != expected:
            raise InputError(f"expected images of shape (batch, {', '.join(map(str, expected))}), got {tuple(image.shape)}")
        return forward.vit(self, image, self.spec, self.op, outputs, self.config.activation or "softmax")


def linear_in(head: Any) -> tuple[str, nn.Linear] | None:
    """The path and the linear layer in a classifier that computes what this layer does; None for another classifier."""
    if isinstance(head, nn.Linear):
        return "", head
    if type(head) is not nn.Sequential:
        return None
    match [(path, part) for path, part in head.named_children() if not isinstance(part, NO_LAYERS)]:
        case [(path, nn.Linear() as layer)]:
            return path, layer
    return None


def initialise(model: ViT, seed: int | None = None, values: Values = published_values) -> None:
    """Fill all parameters with random values. Without a seed, torch's global generator draws one."""
    if seed is None:
        seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    device = next(model.parameters()).device
    generator = None if device.type == "meta" else torch.Generator(device=device).manual_seed(seed)
    values(model, generator)
    fill_tables(model)
    model.config = model.config.replace(random_seed=seed, random_part=None)
    model.mark_random()


@torch.no_grad()
def _checksum(p: Tensor) -> int:
    """Return the sum of a tensor's values, read as integers of 64 bits; it is exact, so it is the same on every device."""
    if p.is_meta:
        return 0
    flat = p.detach().reshape(-1)
    per_integer = 8 // flat.element_size()
    if flat.storage_offset() % per_integer:  # torch views aligned memory only
        flat = flat.clone()
    whole = flat.numel() - flat.numel() % per_integer
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()]
    return int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].view(integers).sum())


def fill_tables(model: ViT, *_: Any) -> None:
    """Compute the position tables anew, in float32. Called whenever parameters are filled or moved.

    Tables are not stored; one that was cast to half precision would stay rounded.
    """
    device = model.patch_embed.proj.weight.device
    for name, table in positions.tables(model.spec).items():
        model.register_buffer(name, torch.from_numpy(table).to(device), persistent=False)
