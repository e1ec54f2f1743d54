"""Tests of the registry: names, conditions, tags, families of the user, and what listing reads."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import vit_zoo
from support.models import SMALL
from vit_zoo.registry import catalog, configs, lookup, models
from vit_zoo.registry.query import parse_condition


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
    assert vit_zoo.list_models("vit_b??") == ["vit_b32", "vit_b16"]
    assert vit_zoo.list_models(["vit_*_384", "vit_ti*"])[:2] == ["vit_ti16", "vit_ti16_384"]
    with pytest.raises(vit_zoo.VitzooError, match="no variant matches 'swin"):
        vit_zoo.list_models("swin*")


# a name with no row, its canonical form, and what it says
PARAMETRIC = {
    "vit_s14": ("vit_s14", {"dim": 384, "patch_size": (14, 14), "image_size": (224, 224), "registers": 0}),
    "vit_b16_224": ("vit_b16", {"image_size": (224, 224)}),
    "vit_b16_512": ("vit_b16_512", {"image_size": (512, 512), "pool": "cls", "class_token": True}),
    "vit_s14_reg4_336_gap": (
        "vit_s14_reg4_gap_336",
        {"image_size": (336, 336), "registers": 4, "pool": "mean", "class_token": False, "final_norm": "after_pool"},
    ),
    "vit_s14_gap_336_reg4": ("vit_s14_reg4_gap_336", {"registers": 4, "pos_covers": "patches"}),
    "vit_l16_map": ("vit_l16_map", {"pool": "map", "pool_tokens": "patches", "final_norm": "before_pool"}),
    "vit_mu2_8": ("vit_mu2_8", {"dim": 32, "depth": 1, "patch_size": (2, 2), "image_size": (8, 8)}),
    "dinov2_giant14_224_reg2": ("dinov2_giant14_reg2_224", {"mlp": "swiglu", "registers": 2, "layer_scale": True}),
    "dinov3_lplus16": ("dinov3_lplus16", {"mlp": "swiglu", "pos": "rope", "qkv_bias": "qv"}),
    "siglip_l14_gap_378": ("siglip_l14_gap_378", {"pool": "mean", "act": "gelu_tanh", "num_classes": 0}),
    "clip_h14_336": ("clip_h14_336", {"num_classes": 1024, "act": "quick_gelu"}),
    "deit_distilled_s16_384": ("deit_distilled_s16_384", {"dist_token": True}),
    "mae_h14_448_gap": ("mae_h14_gap_448", {"class_token": True, "num_classes": 1000}),
    "simplevit_ti8": ("simplevit_ti8", {"pos": "sincos_moco", "image_size": (256, 256)}),
}


@pytest.mark.parametrize("name", PARAMETRIC)
def test_parametric_names(name):
    canonical, fields = PARAMETRIC[name]
    config = models.get_config(name)
    assert config.name == canonical
    assert lookup.is_name(name)
    assert {field: getattr(config.spec, field) for field in fields} == fields
    assert models.get_config(canonical) == config
    assert vit_zoo.get_spec(name, depth=2).depth == 2


def test_rows_agree_with_their_names(monkeypatch):
    """Every row of ours but vit_digits could be left out: the spec and preprocessing follow from its name."""
    rows = [name for name in catalog.variants() if name != "vit_digits"]
    stated = {name: models.get_config(name) for name in rows}
    families = catalog.families()
    from vit_zoo.registry.parametric_names import parts_of, variant_of

    for name, config in stated.items():
        parts = parts_of(name, families)
        assert parts is not None, name
        assert parts.canonical == name
        assert configs.config_of(variant_of(parts)) == config


def test_the_order_of_parts_of_a_name_does_not_matter():
    first, *others = (models.get_config(f"vit_s14{rest}") for rest in ("_reg4_gap_336", "_gap_reg4_336", "_336_gap_reg4"))
    assert all(other == first for other in others)


CONDITIONS = {
    "params<30M and patch_size==16": lambda r: r["params"] < 30_000_000 and r["patch_size"] == (16, 16),
    "params<95M and (pool=='map' or family=='dino')": lambda r: (
        r["params"] < 9.5e7 and (r["pool"] == "map" or r["family"] == "dino")
    ),
    "not class_token": lambda r: not r["class_token"],
    "not (class_token or registers>0) and gmacs>=1.5": lambda r: (
        not r["class_token"] and not r["registers"] and r["gmacs"] >= 1.5
    ),
    "norm_eps==1e-5": lambda r: r["norm_eps"] == 1e-5,
    "act!='gelu' and act!=\"gelu_tanh\"": lambda r: r["act"] not in ("gelu", "gelu_tanh"),
    "params>=1.5G": lambda r: r["params"] >= 1_500_000_000,
    "tokens<=50 or tokens>1_000": lambda r: r["tokens"] <= 50 or r["tokens"] > 1000,
    "qkv_bias=='qv'": lambda r: r["qkv_bias"] == "qv",
    "qkv_bias==true": lambda r: r["qkv_bias"] is True,
    "qkv_bias==1 or registers==1": lambda r: r["registers"] == 1,  # true is no number
    "class_token and dist_token or registers==4": lambda r: r["dist_token"] or r["registers"] == 4,
    "image_size!=224": lambda r: r["image_size"] != (224, 224),
    "name=='vit_b16'": lambda r: r["name"] == "vit_b16",
}  # fmt: skip


@pytest.mark.parametrize("where", CONDITIONS)
def test_conditions(where):
    rows = {name: configs.row_of(variant) for name, variant in catalog.variants().items()}
    wanted = [name for name, row in rows.items() if CONDITIONS[where](row)]
    assert 0 < len(wanted) < len(rows)
    assert vit_zoo.list_models(where=where) == wanted


def test_conditions_on_sizes_that_are_not_square_compare_both_sides():
    fields = ["image_size"]
    row = {"image_size": (224, 160)}
    for where, holds in (
        ("image_size>=160", True),
        ("image_size>=200", False),
        ("image_size!=224", True),
        ("image_size<300", True),
    ):
        assert parse_condition(where, fields)(row) is holds, where


def test_a_condition_and_a_pattern_combine():
    assert vit_zoo.list_models("vit_s*", where="patch_size==32") == ["vit_s32", "vit_s32_384"]
    assert models.sort_names(["vit_b16", "vit_ti16", "vit_s16"], "params") == ["vit_ti16", "vit_s16", "vit_b16"]
    assert models.sort_names(["vit_b16", "vit_ti16", "vit_b32"], "-dim") == ["vit_b16", "vit_b32", "vit_ti16"]
    assert models.sort_names(["vit_b16", "dinov3_s16", "dinov3_7b16"], "qkv_bias") == ["dinov3_7b16", "vit_b16", "dinov3_s16"]


def test_names_of_other_libraries():
    for name in ("vit_base_patch16_224", "timm/vit_base_patch16_224", "google/vit-base-patch16-224", "ViT-B/16", "vit_b_16"):
        assert vit_zoo.get_spec(name) == vit_zoo.get_spec("vit_b16"), name
    alias = lookup.find("google/siglip-so400m-patch14-384").alias
    assert (alias.name, alias.library, alias.differs["image_size"]) == ("siglip_so400m14_378", "transformers", 384)
    assert vit_zoo.create("deit_tiny_patch16_224", depth=1, dim=16, heads=2, dim_head=8, mlp_dim=16).config.name == "deit_ti16"
    found = lookup.find("vit_base_patch16_224.mae")
    assert (found.variant.name, found.tag.tag, found.alias.library) == ("mae_b16", "mae", "timm")


def test_tags():
    tag = lookup.tags_of("vit_b16")["augreg_in21k_ft_in1k"]
    assert (tag.repo, tag.file) == ("timm/vit_base_patch16_224.augreg_in21k_ft_in1k", "model.safetensors")
    assert (tag.top1, tag.top1_by, tag.licence) == (84.534, "timm 1.0.31, results-imagenet.csv", "apache-2.0")
    assert next(iter(lookup.tags_of("vit_b16"))) == "augreg2_in21k_ft_in1k"
    assert lookup.tags_of("vit_mu16") == lookup.tags_of("vit_digits") == {}
    for name in ("vit_b16.augreg_in21k_ft_in1k", "timm/vit_base_patch16_224.augreg_in21k_ft_in1k"):
        config = models.get_config(name)
        assert (config.name, config.licence) == ("vit_b16", "apache-2.0")
        assert config.labels[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert models.get_config("vit_b16").labels is None  # a name is an architecture, its classes may be anyone's
    assert models.get_config("vit_b16.augreg_in21k_ft_in1k", num_classes=10).labels is None
    large = models.get_config("vit_b16.augreg_in21k")
    assert (large.spec.num_classes, large.labels) == (21_843, None)
    assert models.get_config("vit_b16.google_in21k_ft_in1k").spec.norm_eps == 1e-12
    assert models.get_config("openclip_l14.laion2b").preprocess.mean == (0.5, 0.5, 0.5)
    assert models.get_config("vit_l16_512.torchvision_swag").spec.image_size == (512, 512)  # of a name without a row


def test_a_tag_gives_labels_and_licence(folder):
    """The weights are a file of the user, so the tag provides the licence and the names of the classes."""
    small = {"dim": 24, "depth": 1, "heads": 2, "dim_head": 12, "mlp_dim": 24, "image_size": 32}
    torch.save(vit_zoo.create("vit_b16", **small).state_dict(), "own.pt")
    facts = {**small, "norm_eps": 1e-6, "act": "gelu"}
    found = vit_zoo.export("vit_b16.augreg_in21k_ft_in1k", "onnx", out="words.onnx", weights="own.pt", **facts)[0]
    assert found.config.labels[999].startswith("toilet tissue")
    assert found.config.licence == "apache-2.0"
    bare = vit_zoo.export("vit_b16", "onnx", out="bare.onnx", weights="own.pt", **facts)[0]
    assert bare.config.labels is None
    with pytest.raises(vit_zoo.VitzooError) as error:
        vit_zoo.export("vit_b16.augreg_in21k_ft_in1k", "onnx")
    assert error.value.code == 5
    assert "hf-hub:timm/vit_base_patch16_224.augreg_in21k_ft_in1k" in str(error.value)


def test_a_variant_of_the_user(folder, monkeypatch):
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
        catalog.KNOWN.registered.variants.clear()


def test_a_family_in_a_folder_of_the_user(folder):
    (folder / "leaves.toml").write_text(
        '[spec]\nextends = "vit_ti16"\nnum_classes = 9\n[size]\nbig = { depth = 3 }\n'
        '[variant]\nleaf8 = { patch_size = 8 }\nleaf_big = { size = "big", patch_size = 16 }\n'
    )
    code = "import vit_zoo; s = vit_zoo.get_spec('leaf_big'); print(vit_zoo.list_models('leaf*'), s.depth, s.dim, s.num_classes)"
    environment = {"VITZOO_PATH": str(folder), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "['leaf8', 'leaf_big'] 3 192 9\n"


def test_a_family_is_registered_with_its_parametric_names(folder):
    (folder / "moss.toml").write_text(
        '[family]\nname = "moss"\n[spec]\nextends = "vit_ti16"\n[suffix]\nreg = {}\n'
        '[size]\nxs = { depth = 2 }\n[variant]\nmoss_xs16 = { size = "xs", patch_size = 16 }\n'
    )
    try:
        assert vit_zoo.register("moss.toml") == ["moss_xs16"]
        assert vit_zoo.get_spec("moss_xs8_reg2").registers == 2
        with pytest.raises(vit_zoo.VitzooError, match="has no suffix _gap"):
            vit_zoo.get_spec("moss_xs8_gap")
        with pytest.raises(vit_zoo.VitzooError, match="'moss_xs8' is taken"):  # a name of the family, though no row
            vit_zoo.register(vit_zoo.get_spec("vit_ti16"), name="moss_xs8")
    finally:
        catalog.KNOWN.registered.variants.clear()
        catalog.KNOWN.registered.families.clear()


def test_a_folder_of_zoo_files_can_be_removed_again(folder):
    (folder / "own").mkdir()
    (folder / "own" / "leaf.toml").write_text('extends = "vit_s16"\nnum_classes = 12\n')
    models.use_folder("own")
    try:
        assert vit_zoo.list_models()[-1] == "leaf"
        assert vit_zoo.get_spec("leaf").num_classes == 12
    finally:
        catalog.forget_folder("own")
    assert "leaf" not in vit_zoo.list_models()


def test_listing_reads_only_what_it_needs():
    """No heavy import, and no file of aliases, tags or labels."""
    code = (
        "import sys; sys.argv = ['vitzoo', 'list', 'vit_b*', '--long']\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == 'open' else None)\n"
        "def at_exit():\n"
        "    print(sorted({'torch', 'numpy', 'onnx', 'pydantic', 'einops', 'PIL'} & set(sys.modules)))\n"
        "    zoo = [name for name in opened if '/zoo/' in name]\n"
        "    print(len(zoo), [name for name in zoo if any(part in name for part in ('aliases', 'tags', 'labels', 'schema'))])\n"
        "import atexit; atexit.register(at_exit)\n"
        "from vit_zoo.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *_, modules, files = done.stdout.splitlines()
    assert modules == "[]"
    assert files == f"{len(list(catalog.zoo_folder().glob('*.toml')))} []"
    assert "vit_b16_384" in done.stdout
