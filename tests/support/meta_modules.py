"""Stand-ins for the modules that torch.hub gives for Meta's DINO and DINOv2: the published structure and attributes, small.

Sources: facebookresearch/dino, vision_transformer.py; facebookresearch/dinov2, dinov2/models/vision_transformer.py and
dinov2/layers. Dropout, stochastic depth and masks are left out.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from support.meta_models import LayerScale


class Mlp(nn.Module):
    def __init__(self, dim, hidden, act=nn.GELU):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), act(), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class SwiGLUFFN(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.w12, self.w3 = nn.Linear(dim, 2 * hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        one, two = self.w12(x).chunk(2, dim=-1)
        return self.w3(nn.functional.silu(one) * two)


class Attention(nn.Module):
    """DINO's, which returns its weights too, or DINOv2's."""

    def __init__(self, dim, heads, *, with_weights):
        super().__init__()
        self.num_heads, self.scale, self.with_weights = heads, (dim // heads) ** -0.5, with_weights
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        x = self.proj((weights @ v).transpose(1, 2).reshape(b, t, d))
        return (x, weights) if self.with_weights else x


class DinoBlock(nn.Module):
    def __init__(self, dim, heads, hidden, norm, act):
        super().__init__()
        self.norm1, self.attn = norm(dim), Attention(dim, heads, with_weights=True)
        self.norm2, self.mlp = norm(dim), Mlp(dim, hidden, act)

    def forward(self, x):
        y, _ = self.attn(self.norm1(x))
        x = x + y
        return x + self.mlp(self.norm2(x))


class NestedTensorBlock(nn.Module):
    def __init__(self, dim, heads, hidden, norm, mlp):
        super().__init__()
        self.norm1, self.attn, self.ls1 = norm(dim), Attention(dim, heads, with_weights=False), LayerScale(dim)
        self.norm2, self.mlp, self.ls2 = norm(dim), mlp(dim, hidden), LayerScale(dim)

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """`sizes` makes the attributes `img_size` and `patch_size`: DINO's are numbers, DINOv2's pairs."""

    def __init__(self, image, patch, dim, sizes):
        super().__init__()
        self.img_size, self.patch_size, self.num_patches = sizes(image), sizes(patch), (image // patch) ** 2
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINO's. Its head is not used."""

    def __init__(self, *, image=32, patch=8, dim=48, depth=2, heads=3, hidden=96, eps=1e-6, act=nn.GELU):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=eps)
        self.num_features = self.embed_dim = dim
        self.patch_embed = PatchEmbed(image, patch, dim, int)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, dim))
        self.pos_drop = nn.Dropout(0.0)
        self.blocks = nn.ModuleList([DinoBlock(dim, heads, hidden, norm, act) for _ in range(depth)])
        self.norm, self.head = norm(dim), nn.Identity()

    def forward(self, x):
        x = self.patch_embed(x)
        x = self.pos_drop(torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class BlockChunk(nn.ModuleList):
    def forward(self, x):
        for block in self:
            x = block(x)
        return x


class DinoVisionTransformer(nn.Module):
    """DINOv2's: blocks in chunks, each filled up with identities in front, so that the numbers of blocks do not start anew."""

    def __init__(self, *, image=28, patch=14, dim=48, depth=4, heads=3, hidden=96, eps=1e-6, mlp=Mlp, registers=0, chunks=0):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=eps)
        self.num_features = self.embed_dim = dim
        self.num_tokens, self.num_register_tokens, self.patch_size, self.num_heads = 1, registers, patch, heads
        self.patch_embed = PatchEmbed(image, patch, dim, lambda size: (size, size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        blocks = [NestedTensorBlock(dim, heads, hidden, norm, mlp) for _ in range(depth)]
        self.chunked_blocks = chunks > 0
        if chunks:
            size = depth // chunks
            parts = [[nn.Identity()] * i + blocks[i : i + size] for i in range(0, depth, size)]
            self.blocks = nn.ModuleList([BlockChunk(part) for part in parts])
        else:
            self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = norm(dim), nn.Identity()
        self.mask_token = nn.Parameter(torch.zeros(1, dim))

    def forward_features(self, x):
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        if self.register_tokens is not None:
            x = torch.cat((x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]), dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return {"x_norm_clstoken": x[:, 0], "x_norm_patchtokens": x[:, self.num_register_tokens + 1 :]}

    def forward(self, x):
        return self.head(self.forward_features(x)["x_norm_clstoken"])
