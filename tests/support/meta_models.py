"""Stand-ins for Meta's own code, which no package has: the modules of deit, mae and dinov2, with their names and their order.

Sources: facebookresearch deit, models.py and models_v2.py; mae, models_vit.py; dinov2, models/vision_transformer.py and
layers/. DeiT and MAE extend timm 0.3.2's class. Training, dropout and drop path are left out.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PatchEmbed(nn.Module):
    def __init__(self, image, patch, channels, dim):
        super().__init__()
        self.image, self.grid = image, (image[0] // patch[0], image[1] // patch[1])
        self.proj = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, x):
        assert tuple(x.shape[2:]) == tuple(self.image)
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, dim, heads, qkv_bias, proj_bias):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Module):
    def __init__(self, dim, hidden, bias):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden, bias=bias), nn.Linear(hidden, dim, bias=bias)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLUFFNFused(nn.Module):
    def __init__(self, dim, hidden, bias):
        super().__init__()
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.w12, self.w3 = nn.Linear(dim, 2 * hidden, bias=bias), nn.Linear(hidden, dim, bias=bias)

    def forward(self, x):
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    """dinov2's block, and timm 0.3.2's where there is no LayerScale."""

    def __init__(self, dim, heads, hidden, *, qkv_bias, proj_bias=True, ffn_bias=True, scale=False, ffn=Mlp):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads, qkv_bias, proj_bias), ffn(dim, hidden, ffn_bias)
        self.ls1, self.ls2 = (LayerScale(dim), LayerScale(dim)) if scale else (nn.Identity(), nn.Identity())

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class LayerScaleInitBlock(nn.Module):
    """models_v2.py of deit: Layer_scale_init_Block."""

    def __init__(self, dim, heads, hidden, *, qkv_bias):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads, qkv_bias, True), Mlp(dim, hidden, True)
        self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    def forward(self, x):
        x = x + self.gamma_1 * self.attn(self.norm1(x))
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class Deit(nn.Module):
    """timm 0.3.2's VisionTransformer, which `models.py` builds; with `distilled` its DistilledVisionTransformer."""

    def __init__(self, *, image, patch, channels, dim, depth, heads, hidden, classes, qkv_bias, distilled=False):
        super().__init__()
        self.patch_embed = PatchEmbed(image, patch, channels, dim)
        count = self.patch_embed.grid[0] * self.patch_embed.grid[1]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.head_dist = nn.Linear(dim, classes) if classes else nn.Identity()
        self.distilled = distilled
        self.pos_embed = nn.Parameter(torch.zeros(1, count + 1 + distilled, dim))
        self.blocks = nn.ModuleList([Block(dim, heads, hidden, qkv_bias=qkv_bias) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes) if classes else nn.Identity()

    def tokens(self, x):
        x, extra = self.patch_embed(x), [self.cls_token, *([self.dist_token] if self.distilled else [])]
        x = torch.cat([token.expand(len(x), -1, -1) for token in extra] + [x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x):
        x = self.norm(self.tokens(x))
        if self.distilled:
            return (self.head(x[:, 0]) + self.head_dist(x[:, 1])) / 2
        return self.head(x[:, 0])


class Mae(Deit):
    """models_vit.py of mae, whose `global_pool` averages the patches."""

    def __init__(self, *, global_pool, dim, **options):
        super().__init__(dim=dim, **options)
        self.global_pool = global_pool
        if global_pool:
            self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
            del self.norm

    def forward(self, x):
        x = self.tokens(x)
        return self.head(self.fc_norm(x[:, 1:].mean(1)) if self.global_pool else self.norm(x)[:, 0])


class Deit3(nn.Module):
    """vit_models in models_v2.py of deit: positions for the patches only."""

    def __init__(self, *, image, patch, channels, dim, depth, heads, hidden, classes, qkv_bias, scale):
        super().__init__()
        self.patch_embed = PatchEmbed(image, patch, channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.grid[0] * self.patch_embed.grid[1], dim))
        block = LayerScaleInitBlock if scale else Block
        self.blocks = nn.ModuleList([block(dim, heads, hidden, qkv_bias=qkv_bias) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes) if classes else nn.Identity()

    def forward(self, x):
        x = self.patch_embed(x) + self.pos_embed
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class DinoVisionTransformer(nn.Module):
    """dinov2's class: no head, square images, a mask token that inference does not read."""

    def __init__(
        self, *, image, patch, channels, dim, depth, heads, hidden, registers, qkv_bias, proj_bias, ffn_bias, scale, gated
    ):
        super().__init__()
        self.patch_embed = PatchEmbed((image, image), (patch, patch), channels, dim)
        self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        options = {"qkv_bias": qkv_bias, "proj_bias": proj_bias, "ffn_bias": ffn_bias, "scale": scale}
        ffn = SwiGLUFFNFused if gated else Mlp
        self.blocks = nn.ModuleList([Block(dim, heads, hidden, **options, ffn=ffn) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Identity()

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), 1) + self.pos_embed
        if self.register_tokens is not None:
            x = torch.cat((x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]), 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
