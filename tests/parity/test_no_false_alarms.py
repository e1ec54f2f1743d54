"""Tests that correct files pass: 200 exports of random architectures, weights, storage types, opsets and thread counts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import vit_zoo
from vit_zoo.errors import InputError
from vit_zoo.formats import open_in
from vit_zoo.parity import sessions

COUNT, GROUPS = 200, 20


def random_fields(random: np.random.Generator) -> dict:
    """Random fields of a spec, which need not fit together."""

    def one(*values):
        return values[random.integers(len(values))]

    heads, dim_head = one(1, 2, 3, 4), one(8, 16, 24)
    patch = (one(2, 4, 7, 8), one(2, 4, 8))
    class_token, registers = one(True, False), one(0, 0, 1, 4)
    pool = one("cls", "mean", "map", "cls+mean", "none") if class_token else one("mean", "map", "none")
    pos = one("learned", "learned", "sincos_moco", "sincos_mae", "rope", "learned+rope", "none")
    rope = one("dinov3", "eva02", "pe", "axial", "mixed") if "rope" in pos else "dinov3"
    biased = class_token and not registers
    return {
        "patch_size": patch,
        "image_size": (patch[0] * one(2, 3, 5), patch[1] * one(2, 4, 7)),
        "channels": one(1, 3, 3, 4),
        "dim": heads * dim_head if random.random() < 0.7 else heads * one(8, 20, 32),
        "depth": one(1, 2, 4, 6),
        "heads": heads,
        "dim_head": dim_head,
        "mlp_dim": one(16, 96, 200),
        "num_classes": 0 if pool == "none" else one(0, 2, 10, 100),
        "class_token": class_token,
        "registers": registers,
        "dist_token": one(False, False, True),
        "pos": pos,
        "pos_covers": one("all", "class", "patches") if pos.startswith("learned") else "patches",
        "rope": rope,
        "rope_grid": one(None, (3, 5)) if rope in ("eva02", "pe") else None,
        "relative_bias": one("none", "blocks", "shared") if biased else "none",
        "patch_norms": one(True, False, False, "after"),
        "norm": one("layer", "layer", "rms"),
        "block_norm": one("pre", "pre", "post"),
        "attn_norm": one(True, False, False),
        "mlp_norm": one(True, False, False),
        "pre_norm": one(True, False),
        "norm_eps": one(1e-5, 1e-6, 1e-12),
        "act": one("gelu", "gelu_tanh", "quick_gelu", "silu"),
        "mlp": one("plain", "plain", "swiglu"),
        "qkv_bias": one(True, False, "qv"),
        "qk_norm": one(True, False, False),
        "representation": one(0, 0, 24),
        "mlp_bias": one(True, True, False),
        "layer_scale": one(True, False),
        "final_norm": one("before_pool", "none") if pool == "none" else one("before_pool", "after_pool", "none"),
        "pool": pool,
        "pool_tokens": {"mean": one("patches", "all"), "map": one("patches", "all"), "cls+mean": "patches"}.get(pool, "all"),
    }


@torch.no_grad()
def trained_like(model, random: np.random.Generator) -> None:
    """Fill with weights in proportion to the width, biases and gains of every size, and a few channels far above the others."""
    generator = torch.Generator().manual_seed(int(random.integers(2**31)))
    wide = float(random.uniform(0.5, 2.0))
    for name, p in model.named_parameters():
        draw = torch.randn(p.shape, generator=generator)
        if p.ndim == 1 and "norm" in name and name.endswith("weight"):
            p.copy_(1 + 0.3 * draw)
            p[: max(1, len(p) // 32)] *= 5
        elif p.ndim > 1 and name.endswith("weight"):
            p.copy_(draw * wide / p[0].numel() ** 0.5)
        else:
            p.copy_(draw * 0.3)


def one_export(number: int, monkeypatch) -> tuple[str, bool, str]:
    random = np.random.default_rng(number)
    while True:
        try:
            model = vit_zoo.create("vit_ti16", **random_fields(random)).eval()
            break
        except InputError:  # fields that contradict each other: draw again
            continue
    trained_like(model, random)
    model.to([torch.float32, torch.float16, torch.bfloat16][number % 3])
    threads = int(random.integers(1, 3))
    torch.set_num_threads(threads)
    monkeypatch.setattr(sessions, "open_in", partial(open_in, threads=threads))
    opset = int(random.integers(17, 26))
    (done,) = vit_zoo.export(model, out="clean.onnx", opset=opset, verify=False, force=True)
    report = vit_zoo.verify(done.path, model, effort=("default", "full")[number % 2])
    return f"{number}: {model.spec}", report.ok, report.summary()


@pytest.mark.parametrize("group", range(GROUPS))
def test_correct_exports_pass(group, folder, monkeypatch):
    threads = torch.get_num_threads()
    try:
        results = [one_export(number, monkeypatch) for number in range(group, COUNT, GROUPS)]
    finally:
        torch.set_num_threads(threads)
    assert len(results) == COUNT // GROUPS
    assert not [(spec, summary) for spec, ok, summary in results if not ok]
