"""Specification of a Vision Transformer as a frozen pydantic model, with its tensor shapes and its costs.

Every field is one that the forward pass reads. A field on which many families differ has no default, because a wrong guess
would be a silent bug. The few fields with a default concern single families, and the default means that the feature is absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from vit_zoo.errors import InputError, did_you_mean, shown

MAX_PARAMS = 10_000_000_000  # only ViT-22B is larger; an extra zero typed by mistake is far more likely
MAX_TOKENS = 262_144  # 8192 x 8192 pixels in patches of 16
MAX_BIASED = 4097  # tokens with relative biases, of which there is one for each pair: 1024 x 1024 pixels in patches of 16
# fields that version 0.1 does not read: files state them only if they have another value
LATER = (
    "projection", "cosine_head", "rope", "rope_grid", "relative_bias", "norm", "block_norm", "attn_norm", "mlp_norm",
    "pool_heads", "pool_mlp_dim",
)  # fmt: skip
TRAINING = ("dropout", "emb_dropout", "drop_path")  # fields without effect at inference, which no file of weights holds


def _pair(value: object) -> object:
    """Make a pair from a number, which stands for a square, or from a list, as JSON and TOML have it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    return tuple(value) if isinstance(value, list) else value


Side = Annotated[int, Field(ge=1, le=16384)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_pair)]
Width = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=1000)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class ViTSpec(BaseModel):
    """A plain Vision Transformer (Dosovitskiy et al., 2021, section 3.1) and the variations of its families.

    Sizes are (height, width) in pixels. The constructor raises pydantic's ValidationError for invalid values, and
    `ViTSpec.parse` raises InputError.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    image_size: Size
    patch_size: Size
    channels: Count
    dim: Width
    depth: Count
    heads: Count
    dim_head: Width
    mlp_dim: Width
    num_classes: Annotated[int, Field(ge=0, le=1_000_000)]

    class_token: bool
    dist_token: bool = False  # a second token with a second head; the logits are the mean of both (DeiT, 2021)
    registers: Annotated[int, Field(ge=0, le=1000)]  # Darcet et al., 2024
    # added to the tokens, or `rope`, which rotates queries and keys, or both; all but learned ones are in `positions.py`
    pos: Literal["learned", "sincos_moco", "sincos_mae", "rope", "learned+rope", "none"]
    pos_covers: Literal["all", "class", "patches"]  # tokens with a position: all, class token and patches, or patches
    patch_bias: bool
    rope: Literal["dinov3", "eva02", "pe", "axial", "mixed"] = "dinov3"  # the form of `rope`: `positions.ROTATIONS`
    # rows and columns that the patches of every image are spread over, for `rope` "eva02" and "pe"; None: one for each patch
    rope_grid: Size | None = None
    relative_bias: Literal["none", "shared", "blocks"] = "none"  # added to scores, of all blocks or for each block (BEiT, 2022)
    patch_norms: bool | Literal["after"]  # a norm before and after the patch projection (Kumar et al., 2023), or only after it
    pre_norm: bool  # a norm before the first block (CLIP)

    norm: Literal["layer", "rms"] = "layer"  # the kind of every norm; rms: without mean and bias (Zhang and Sennrich, 2019)
    norm_eps: Annotated[float, Field(gt=0, lt=1)]
    block_norm: Literal["pre", "post"] = "pre"  # post: attention and MLP have their norm after them (EVA-02-CLIP-E)
    act: Literal["gelu", "gelu_tanh", "quick_gelu", "silu"]
    mlp: Literal["plain", "swiglu"] = "plain"  # swiglu: fc1 computes gate and value, then act(gate) * value (Shazeer, 2020)
    qkv_bias: bool | Literal["qv"]  # qv: bias for queries and values, none for keys (DINOv3)
    qk_norm: bool = False  # a norm on the queries and keys of each head (Dehghani et al., 2023)
    attn_norm: bool = False  # a norm before the output projection of attention (Wang et al., 2022)
    mlp_norm: bool = False  # a norm before the last layer of the MLP (Shleifer et al., 2021)
    attn_out: bool  # False in vit-pytorch for one head with dim_head = dim: no output projection
    proj_bias: bool
    mlp_bias: bool
    layer_scale: bool  # Touvron et al., 2021

    final_norm: Literal["before_pool", "after_pool", "none"]
    pool: Literal["cls", "mean", "map", "cls+mean", "none"]  # map: attention pooling (Zhai et al., 2022)
    pool_tokens: Literal["patches", "all"]  # tokens that mean and map pool
    pool_heads: Annotated[int, Field(ge=0, le=1000)] = 0  # of `map`; 0: `heads`
    pool_mlp_dim: Annotated[int, Field(ge=0, le=1_000_000)] = 0  # of `map`; 0: `mlp_dim`
    representation: Annotated[int, Field(ge=0, le=1_000_000)] = 0  # width of a tanh layer before the head; 0 for no such layer
    # width of the layer without a bias that projects into the space of image and text embeddings, of a model whose head holds
    # embeddings of texts (Radford et al., 2021); 0 for no such layer
    projection: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    cosine_head: bool = False  # the input of the head is divided by its L2 norm
    head_bias: bool

    dropout: Rate
    emb_dropout: Rate
    drop_path: Rate

    @classmethod
    def parse(cls, fields: Mapping[str, Any], *, where: object = None) -> Self:
        """Return the spec with these fields. Raises InputError with all faults; `where` is the source of the fields."""
        try:
            return cls(**{name: _plain(value) for name, value in fields.items()})
        except ValidationError as error:
            raise InputError("; ".join(faults_of(error, list(cls.model_fields))), where=where) from None

    @classmethod
    def parse_field(cls, name: str, value: object) -> Any:
        """Return a value of one field, with numbers of NumPy as Python's. Raises InputError."""
        info = cls.model_fields[name]
        return parse_value(name, value, Annotated[info.annotation, *info.metadata, None])

    def __repr__(self) -> str:
        (height, width), (p, q) = self.image_size, self.patch_size
        size = f"{height}x{width} in patches of {p}x{q}, dim {self.dim}, depth {self.depth}, heads {self.heads}"
        return f"<ViTSpec {size}, {self.num_classes} outputs, {self.params:,} parameters>"

    def replace(self, **fields: Any) -> Self:
        """Return a copy with other values, validated. Raises InputError."""
        return self.parse({**self.model_dump(), **fields})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = [message for broken, message in self._rules() if broken]
        if faults:
            raise ValueError("; ".join(faults))
        if self.params > MAX_PARAMS:
            raise ValueError(f"{self.params:,} parameters; the limit is {MAX_PARAMS:,}")
        return self

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """Yield pairs: whether a rule is broken, and its error message."""
        (H, W), (p, q) = self.image_size, self.patch_size
        yield H % p != 0 or W % q != 0, f"patch_size {p}x{q} does not divide image_size {H}x{W}"
        yield self.pool in ("cls", "cls+mean") and not self.class_token, f"pool '{self.pool}' needs class_token"
        yield self.pos_covers == "class" and not self.class_token, "pos_covers 'class' needs class_token"
        yield (
            not self.learned_pos and self.pos_covers != "patches",
            f"pos '{self.pos}' needs pos_covers 'patches'",
        )
        yield (
            self.pos.startswith("sincos") and (self.dim % 4 != 0 or self.dim < 8),
            f"pos '{self.pos}' needs a dim of 8, 12, 16, ...",
        )
        yield (
            self.rotates and self.dim_head % 4 != 0,
            f"pos '{self.pos}' needs dim_head to be a multiple of 4, got {self.dim_head}",
        )
        yield not self.rotates and self.rope != "dinov3", f"rope '{self.rope}' needs pos 'rope' or 'learned+rope'"
        scaled = self.rotates and self.rope in ("eva02", "pe")
        yield self.rope_grid is not None and not scaled, "rope_grid needs pos 'rope' or 'learned+rope', with rope 'eva02' or 'pe'"
        yield (
            self.relative_bias != "none" and (self.prefix_tokens != 1 or not self.class_token),
            "relative_bias needs class_token, and no other tokens besides the patches",
        )
        biased = self.relative_bias != "none"
        yield biased and self.tokens > MAX_BIASED, f"{self.tokens:,} tokens; the limit is {MAX_BIASED:,} with relative_bias"
        yield (
            self.dist_token and not (self.class_token and self.pool == "cls" and self.final_norm != "after_pool"),
            "dist_token needs class_token, pool 'cls', and final_norm 'before_pool' or 'none'",
        )
        yield self.dist_token and self.pos_covers == "class", "dist_token needs pos_covers 'all' or 'patches'"
        yield self.representation > 0 and self.dist_token, "representation needs a single head, dist_token adds a second"
        yield self.representation > 0 and self.pool == "none", "representation needs a pool"
        yield self.cosine_head and not self.num_classes, "cosine_head needs classes"
        yield self.cosine_head and self.dist_token, "cosine_head needs a single head, dist_token adds a second"
        yield self.projection > 0 and not self.cosine_head, "projection needs cosine_head"
        yield self.mlp == "swiglu" and self.pool == "map", "pool 'map' needs mlp 'plain': its own MLP is plain, with the same act"
        yield self.pool == "cls+mean" and self.pool_tokens != "patches", "pool 'cls+mean' needs pool_tokens 'patches'"
        yield (
            self.pool == "cls+mean" and self.final_norm == "after_pool",
            "pool 'cls+mean' needs final_norm 'before_pool' or 'none'",
        )
        yield self.pool in ("cls", "none") and self.pool_tokens != "all", f"pool '{self.pool}' needs pool_tokens 'all'"
        yield self.pool == "none" and self.num_classes > 0, "pool 'none' returns tokens, so num_classes must be 0"
        yield self.pool == "none" and self.final_norm == "after_pool", "final_norm 'after_pool' needs a pool"
        inner = self.heads * self.dim_head
        yield (
            not self.attn_out and inner != self.dim,
            f"attn_out = false needs heads x dim_head = dim, got {inner} and {self.dim}",
        )
        yield not self.attn_out and self.proj_bias, "proj_bias needs attn_out"
        heads = self.pool_heads or self.heads
        yield (
            self.pool == "map" and self.dim % heads != 0,
            f"pool 'map' needs {'pool_heads' if self.pool_heads else 'heads'} to divide dim, got {heads} and {self.dim}",
        )
        yield self.pool != "map" and self.pool_heads > 0, "pool_heads needs pool 'map'"
        yield self.pool != "map" and self.pool_mlp_dim > 0, "pool_mlp_dim needs pool 'map'"
        yield self.tokens > MAX_TOKENS, f"{self.tokens:,} tokens; the limit is {MAX_TOKENS:,}"

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON has them, as they are stored in files."""
        defaults = {name: type(self).model_fields[name].default for name in LATER}
        fields = self.model_dump(mode="json")
        return {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}

    @property
    def grid(self) -> tuple[int, int]:
        """The number of patches as (rows, columns)."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def patch_tokens(self) -> int:
        """The number of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def prefix_tokens(self) -> int:
        """The number of tokens before the patches: class token, distillation token and registers, in this order."""
        return int(self.class_token) + int(self.dist_token) + self.registers

    @property
    def tokens(self) -> int:
        """The number of all tokens."""
        return self.prefix_tokens + self.patch_tokens

    @property
    def learned_pos(self) -> bool:
        """Whether there is a table of learned positions, which are added to the tokens."""
        return self.pos in ("learned", "learned+rope")

    @property
    def rotates(self) -> bool:
        """Whether queries and keys are rotated by their positions."""
        return self.pos in ("rope", "learned+rope")

    @property
    def rotates_neighbours(self) -> bool:
        """Whether a rotation takes pairs of neighbouring elements, (2i, 2i + 1), and not (i, i + e/2)."""
        return self.rope != "dinov3"

    @property
    def relative_shape(self) -> tuple[int, int]:
        """The shape of a table of relative biases: distances between patches and three pairs with the class token, heads."""
        return math.prod(2 * side - 1 for side in self.grid) + 3, self.heads

    @property
    def pooled_dim(self) -> int:
        """The width of the pooled output."""
        return 2 * self.dim if self.pool == "cls+mean" else self.dim

    @property
    def feature_width(self) -> int:
        """The width of `pooler_output`."""
        return self.representation or self.pooled_dim

    @property
    def head_width(self) -> int:
        """The width of the head's input."""
        return self.projection or self.feature_width

    @property
    def output(self) -> str:
        """The name of what the model returns, for a head that projects into a joint space too (`ModelConfig.output`)."""
        if self.num_classes:
            return "logits"
        return "last_hidden_state" if self.pool == "none" else "pooler_output"

    @property
    def params(self) -> int:
        """The exact number of parameters, including class token, positions and head."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def macs(self) -> int:
        """The multiply-adds for one image: convolution, linear layers and attention products, for all tokens in all blocks.

        As usual, elementwise operations such as norms, activations, softmax and rotations are not counted.
        """
        t, d, inner = self.tokens, self.dim, self.heads * self.dim_head
        mlp = (3 if self.mlp == "swiglu" else 2) * t * d * self.mlp_dim
        block = 3 * t * d * inner + 2 * t * t * inner + int(self.attn_out) * t * inner * d + mlp
        total = self.patch_tokens * self.channels * math.prod(self.patch_size) * d + self.depth * block
        total += self.pooled_dim * self.representation + self.feature_width * self.projection
        total += self.head_width * self.num_classes * (1 + self.dist_token)
        if self.pool == "map":
            pooled = self.patch_tokens if self.pool_tokens == "patches" else t
            total += 2 * pooled * d * d + 2 * pooled * d + 2 * d * d + 2 * d * (self.pool_mlp_dim or self.mlp_dim)
        return total

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of the state dict, in its order. The names are timm's."""
        d, inner, patch = self.dim, self.heads * self.dim_head, self.channels * math.prod(self.patch_size)
        shapes: dict[str, tuple[int, ...]] = {}

        def tensors(name: str, weight: tuple[int, ...], bias: bool = True) -> None:
            shapes[f"{name}.weight"] = weight
            if bias:
                shapes[f"{name}.bias"] = weight[:1]

        def norm(name: str, width: int) -> None:
            tensors(name, (width,), self.norm == "layer")

        if self.class_token:
            shapes["cls_token"] = (1, 1, d)
        if self.dist_token:
            shapes["dist_token"] = (1, 1, d)
        if self.registers:
            shapes["reg_token"] = (1, self.registers, d)
        if self.learned_pos:
            covered = {"all": self.prefix_tokens, "class": 1, "patches": 0}[self.pos_covers]
            shapes["pos_embed"] = (1, covered + self.patch_tokens, d)
        if self.patch_norms is True:
            norm("patch_embed.pre_norm", patch)
        tensors("patch_embed.proj", (d, self.channels, *self.patch_size), self.patch_bias)
        if self.patch_norms:
            norm("patch_embed.norm" if self.patch_norms == "after" else "patch_embed.post_norm", d)
        if self.rotates and self.rope == "mixed":
            shapes["rope.freqs"] = (2, self.depth, self.heads, self.dim_head // 2)
        if self.relative_bias == "shared":
            shapes["rel_pos_bias.relative_position_bias_table"] = self.relative_shape
        if self.pre_norm:
            norm("norm_pre", d)
        for i in range(self.depth):
            block = f"blocks.{i}"
            norm(f"{block}.norm1", d)
            if self.qkv_bias == "qv":
                shapes[f"{block}.attn.q_bias"] = shapes[f"{block}.attn.v_bias"] = (inner,)
            if self.relative_bias == "blocks":
                shapes[f"{block}.attn.relative_position_bias_table"] = self.relative_shape
            tensors(f"{block}.attn.qkv", (3 * inner, d), self.qkv_bias is True)
            if self.qk_norm:
                norm(f"{block}.attn.q_norm", self.dim_head)
                norm(f"{block}.attn.k_norm", self.dim_head)
            if self.attn_norm:
                norm(f"{block}.attn.norm", inner)
            if self.attn_out:
                tensors(f"{block}.attn.proj", (d, inner), self.proj_bias)
            if self.layer_scale:
                shapes[f"{block}.ls1.gamma"] = (d,)
            norm(f"{block}.norm2", d)
            tensors(f"{block}.mlp.fc1", ((2 if self.mlp == "swiglu" else 1) * self.mlp_dim, d), self.mlp_bias)
            if self.mlp_norm:
                norm(f"{block}.mlp.norm", self.mlp_dim)
            tensors(f"{block}.mlp.fc2", (d, self.mlp_dim), self.mlp_bias)
            if self.layer_scale:
                shapes[f"{block}.ls2.gamma"] = (d,)
        if self.final_norm == "before_pool":
            norm("norm", d)
        if self.pool == "map":
            shapes["attn_pool.latent"] = (1, 1, d)
            tensors("attn_pool.q", (d, d))
            tensors("attn_pool.kv", (2 * d, d))
            tensors("attn_pool.proj", (d, d))
            norm("attn_pool.norm", d)
            tensors("attn_pool.mlp.fc1", (self.pool_mlp_dim or self.mlp_dim, d))
            tensors("attn_pool.mlp.fc2", (d, self.pool_mlp_dim or self.mlp_dim))
        if self.final_norm == "after_pool":
            norm("fc_norm", d)
        if self.representation:
            tensors("pre_logits", (self.representation, self.pooled_dim))
        if self.projection:
            tensors("projection", (self.projection, self.feature_width), False)
        if self.num_classes:
            tensors("head", (self.num_classes, self.head_width), self.head_bias)
            if self.dist_token:
                tensors("head_dist", (self.num_classes, d), self.head_bias)
        return shapes


def article_spec(*, num_classes: int, pool: str, heads: int, dim_head: int, dim: int, **sizes: Any) -> ViTSpec:
    """Return the spec of vit-pytorch's ViT: norms around the patch projection, no qkv bias, eps 1e-5, exact GELU.

    Raises InputError for an unknown `pool`.
    """
    if pool not in ("cls", "mean"):
        raise InputError(f"unknown pool {pool!r}; choose from 'cls' (class token), 'mean' (mean of the patches)")
    single = heads == 1 and dim_head == dim
    return ViTSpec.parse(
        {
            "num_classes": num_classes, "heads": heads, "dim_head": dim_head, "dim": dim, **sizes,
            "class_token": pool == "cls", "registers": 0, "pos": "learned", "pos_covers": "all" if pool == "cls" else "patches",
            "patch_bias": True, "patch_norms": True, "pre_norm": False,
            "norm_eps": 1e-5, "act": "gelu", "qkv_bias": False, "attn_out": not single, "proj_bias": not single,
            "mlp_bias": True, "layer_scale": False,
            "final_norm": "before_pool", "pool": pool if num_classes else "none", "pool_tokens": "all",
            "head_bias": True, "drop_path": 0.0,
        }
    )  # fmt: skip


STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def parse_value(name: str, value: object, kind: Any) -> Any:
    """Return a stated value as a type of pydantic, with numbers of NumPy as Python's. Raises InputError, which names it."""
    try:
        return TypeAdapter(kind, config=STRICT).validate_python(_plain(value))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        expected = f"{fault['msg'][0].lower()}{fault['msg'][1:]}"
        raise InputError(f"{name} = {shown(value)}: {expected}") from None


def _plain(value: object) -> Any:
    """Return numbers and arrays of NumPy, also in a list or tuple, as Python's; anything else unchanged."""
    if type(value) in (list, tuple):
        return type(value)(map(_python_number, value))  # type: ignore[call-arg, call-overload]
    return _python_number(value)


def _python_number(value: object) -> Any:
    return value.tolist() if type(value).__module__ == "numpy" and hasattr(value, "tolist") else value


def faults_of(error: ValidationError, known: list[str]) -> Iterator[str]:
    """Yield a short message for each fault in a pydantic error; `known` are the valid fields, to suggest the nearest."""
    for fault in error.errors(include_url=False):
        field = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            yield f"unknown field '{field}'{did_you_mean(field, known)}"
        elif fault["type"] == "missing":
            yield f"field '{field}' is missing"
        elif fault["type"] == "value_error":
            yield str(fault["ctx"]["error"])
        else:
            yield f"{field} = {shown(fault['input'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
