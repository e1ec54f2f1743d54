"""Is every name what its peer says it is, and is the registry complete, quick to list and easy to extend?"""

from __future__ import annotations

import subprocess
import sys

import peers
import pytest
import torch
from conftest import SMALL

import vit_zoo
from vit_zoo import registry
from vit_zoo.model import ViT

# every name, its parameters, and timm's name for the same architecture
NAMES = {
    "vit_ti16": (5_717_416, "vit_tiny_patch16_224"),
    "vit_ti16_384": (5_790_376, "vit_tiny_patch16_384"),
    "vit_s32": (22_878_952, "vit_small_patch32_224"),
    "vit_s32_384": (22_915_432, "vit_small_patch32_384"),
    "vit_s16": (22_050_664, "vit_small_patch16_224"),
    "vit_s16_384": (22_196_584, "vit_small_patch16_384"),
    "vit_s8": (22_055_272, "vit_small_patch8_224"),
    "vit_b32": (88_224_232, "vit_base_patch32_224"),
    "vit_b32_384": (88_297_192, "vit_base_patch32_384"),
    "vit_b16": (86_567_656, "vit_base_patch16_224"),
    "vit_b16_384": (86_859_496, "vit_base_patch16_384"),
    "vit_b8": (86_576_872, "vit_base_patch8_224"),
    "vit_l32": (306_535_400, "vit_large_patch32_224"),
    "vit_l32_384": (306_632_680, "vit_large_patch32_384"),
    "vit_l16": (304_326_632, "vit_large_patch16_224"),
    "vit_l16_384": (304_715_752, "vit_large_patch16_384"),
    "vit_l14": (304_203_752, "vit_large_patch14_224"),
    "vit_h14": (632_045_800, "vit_huge_patch14_224"),
    "vit_digits": (203_594, None),
}


def test_the_table_is_complete():
    assert list(NAMES) == sorted(NAMES, key=vit_zoo.list_models().index)
    assert set(NAMES) == set(vit_zoo.list_models())


@pytest.mark.parametrize("name", NAMES)
def test_name(name):
    params, timm_name = NAMES[name]
    config, row = registry.get_config(name), registry.get_variant(name).row
    assert config.spec.params == row["params"] == params
    assert round(config.spec.macs / 1e9, 3) == row["gmacs"]
    assert config.preprocess is not None
    ours = {name: tuple(p.shape) for name, p in ViT.empty(config).state_dict().items()}
    assert ours == config.spec.shapes()
    assert list(ours) == list(config.spec.shapes())
    if timm_name is not None:
        with torch.device("meta"):
            theirs = peers.timm.create_model(timm_name, num_classes=1000)
        assert {name: tuple(p.shape) for name, p in theirs.state_dict().items()} == ours
        assert config.spec.norm_eps == theirs.norm.eps


def test_macs_against_torch():
    """torch counts two operations for a multiply-add."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for options in ({}, {"pool": "map", "registers": 2, "pool_tokens": "patches"}, {"pool": "mean", "dim_head": 24}):
        model = vit_zoo.create("vit_b16", **{**SMALL, **options}).train()  # in training nothing is pruned
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it does not know the fused one
            model(torch.randn(1, 3, 32, 48))
        assert counter.get_total_flops() == 2 * model.spec.macs, options


def test_patterns():
    assert vit_zoo.list_models("vit_b*") == ["vit_b32", "vit_b32_384", "vit_b16", "vit_b16_384", "vit_b8"]
    assert vit_zoo.list_models(["*_384", "vit_ti*"])[:2] == ["vit_ti16", "vit_ti16_384"]
    with pytest.raises(vit_zoo.VitzooError, match="no variant matches 'swin"):
        vit_zoo.list_models("swin*")


def test_a_users_variant_is_a_file_of_a_few_lines(folder, monkeypatch):
    (folder / "leaf.toml").write_text('extends = "vit_s16"\nimage_size = 320\nnum_classes = 12\n')
    spec = vit_zoo.get_spec("leaf.toml")
    assert (spec.dim, spec.image_size, spec.num_classes) == (384, (320, 320), 12)
    assert vit_zoo.register("leaf.toml") == ["leaf"]
    try:
        assert vit_zoo.list_models()[-1] == "leaf"
        assert vit_zoo.get_spec("leaf", depth=3).depth == 3
        assert vit_zoo.register(spec.replace(depth=2), name="stump") == ["stump"]
        assert vit_zoo.create("stump", dim=24, heads=2, dim_head=12, mlp_dim=24).spec.depth == 2
        with pytest.raises(vit_zoo.VitzooError, match="'leaf' is taken"):
            vit_zoo.register("leaf.toml")
    finally:
        registry._registered.clear()


def test_a_family_in_a_folder_of_the_user(folder):
    (folder / "leaves.toml").write_text(
        '[spec]\nextends = "vit_ti16"\nnum_classes = 9\n[size]\nbig = { depth = 3 }\n'
        '[variant]\nleaf8 = { patch_size = 8 }\nleaf_big = { size = "big", patch_size = 16 }\n'
    )
    code = "import vit_zoo; s = vit_zoo.get_spec('leaf_big'); print(vit_zoo.list_models('leaf*'), s.depth, s.dim, s.num_classes)"
    environment = {"VITZOO_PATH": str(folder), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "['leaf8', 'leaf_big'] 3 192 9\n"


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['vitzoo', 'list', 'vit_b*', '--long']\n"
        "from vit_zoo.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'numpy', 'onnx', 'pydantic', 'einops', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "vit_b16_384" in done.stdout
