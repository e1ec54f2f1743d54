"""Tests of `vitzoo list` and `vitzoo show` for names, conditions and folders of zoo files."""

from __future__ import annotations

import json

import vit_zoo


def said(cli, *arguments):
    """The result of a command that succeeds."""
    result = cli(*arguments)
    assert result.code == 0, result.err
    return result


def test_list(cli, folder):
    where = "params<30M and patch_size==16 and family=='vit'"
    assert said(cli, "list", "--where", where).out.split() == vit_zoo.list_models(where=where)
    assert said(cli, "list", "vit_?16", "--sort", "-params").out.split() == ["vit_l16", "vit_b16", "vit_m16", "vit_s16"]
    rows = json.loads(said(cli, "list", "siglip_*", "--where", "pool=='mean'", "--long", "--json").out)
    assert {row["pool"] for row in rows} == {"mean"}
    assert rows[0]["params"] == vit_zoo.get_spec(rows[0]["name"]).params
    (folder / "own").mkdir()
    (folder / "own" / "leaf.toml").write_text('extends = "vit_s16"\nimage_size = [320, 160]\n')
    spec = vit_zoo.get_spec("vit_s16", image_size=(320, 160))
    long = said(cli, "list", "leaf", "--long", "--zoo", "own").out.splitlines()[1].split()
    assert long == ["leaf", "320x160", "16", f"{spec.params:,}", f"{spec.macs / 1e9:.3f}"]
    assert "leaf" not in vit_zoo.list_models()  # known while the command ran
    assert said(cli, "show", "leaf", "--zoo", "own").out.split()[:2] == ["name:", "leaf"]


def test_list_of_published_weights(cli):
    lines = said(cli, "list", "--pretrained", "--sort", "-top1", "vit_b16").out.splitlines()
    assert lines[0].split() == ["name", "top-1", "classes", "licence", "source"]
    first = "vit_b16.augreg2_in21k_ft_in1k 85.108 % 1000 apache-2.0 timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"
    assert lines[1].split() == first.split()
    accuracies = [float(line.split()[1]) for line in lines[1:] if "%" in line]
    assert accuracies == sorted(accuracies, reverse=True)
    assert "%" not in lines[-1]  # an accuracy that is not known comes last, in both directions
    assert "%" not in said(cli, "list", "--pretrained", "--sort", "top1", "vit_b16").out.splitlines()[-1]
    long = said(cli, "list", "--pretrained", "--long", "vit_b16_384.torchvision_swag").out.splitlines()
    assert long[1].split()[:4] == ["vit_b16_384.torchvision_swag", "384", "16", "86,859,496"]
    rows = json.loads(said(cli, "list", "--pretrained", "--where", "top1>88", "--json").out)
    assert all(row["top1"] > 88 and row["top1_by"] and row["repo"] and row["licence"] for row in rows)
    assert json.loads(said(cli, "list", "vit_b16", "--json").out) == ["vit_b16"]
    assert said(cli, "list", "*").out.split() == json.loads(said(cli, "list", "--json").out) == vit_zoo.list_models()
    code, _, err = cli("list", "--sort", "top1")
    assert (code, err) == (2, "vitzoo: error: sort: unknown field 'top1' (with --pretrained it is one)\n")


def test_show(cli):
    _, out, err = said(cli, "show", "dinov2_giant14_reg4_224")
    assert err == ""
    lines = {line.split(":")[0]: line.partition(":")[2].split() for line in out.splitlines() if ":" in line}
    assert lines["images"][:3] == ["224x224,", "bicubic,", "shorter"]
    assert lines["act"] == ["silu", "size", "giant"]
    assert lines["registers"] == ["4", "the", "name"]
    assert lines["pos_covers"] == ["patches", "form", "reg"]
    assert lines["norm_eps"] == ["1e-06", "family", "dinov2"]
    assert lines["qkv_bias"] == ["true", "extends", "vit_b16"]
    assert "conventions: exact GELU (giant: SwiGLU)" in out
    known = said(cli, "show", "vit_b16").out
    for fact in (
        "86,567,656 parameters, 17.564 GMACs per image, 197 tokens",
        "imagenet1k in published weights: 1,000, WNIDs sorted",
        "google/vit-base-patch16-224        transformers  but transformers has norm_eps = 1e-12, preprocess = bilinear, squashed",
        "vit_b16.augreg_in21k_ft_in1k   1000 classes    apache-2.0    84.534 % (timm 1.0.31, results-imagenet.csv)",
    ):
        assert fact in known
    stated = said(cli, "show", "vit_b16", "--set", "depth=2").out
    assert "depth:           2                stated" in stated


def test_show_as_json(cli):
    document = json.loads(said(cli, "show", "vit_b16", "--json").out)
    assert document["parameters"] == 86_567_656
    assert document["fields"]["dim"] == "size b"
    assert document["label_set"]["classes"] == 1000
    assert ("vit_b_16", "torchvision") in [(alias["alias"], alias["library"]) for alias in document["aliases"]]
    assert document["tags"][0]["tag"] == "augreg2_in21k_ft_in1k"
    tag = json.loads(said(cli, "show", "vit_b16.augreg_in21k", "--json").out)
    assert (tag["spec"]["num_classes"], tag["licence"]) == (21_843, "apache-2.0")
    assert tag["fields"]["num_classes"] == "the tag augreg_in21k"
    assert tag["label_set"]["name"] == "imagenet21k"


def test_names_of_other_libraries_are_explained_on_stderr(cli, folder):
    name = "google/vit-base-patch16-224"
    differences = "norm_eps = 1e-12, preprocess = bilinear, squashed"
    sentence = f"vitzoo: '{name}' in transformers is vit_b16, but transformers has {differences}\n"
    small = [
        part
        for field in ("dim=24", "depth=1", "heads=2", "dim_head=12", "mlp_dim=24", "image_size=32")
        for part in ("--set", field)
    ]
    assert said(cli, "show", name, "-q").err == sentence
    assert said(cli, "create", name, *small).err == sentence
    assert (folder / "vit_b16" / "model.safetensors").is_file()
    exported = said(cli, "export", name, "--random", "--onnx", *small)
    assert exported.err.startswith(sentence)
    assert "RANDOM WEIGHTS (seed 0)" in exported.err
    assert said(cli, "show", "vit_s14_reg4_336_gap").err == "vitzoo: 'vit_s14_reg4_336_gap' is vit_s14_reg4_gap_336\n"
    assert said(cli, "show", "vit_s14_reg4_gap_336").err == ""
    assert said(cli, "create", "vit_mu2_8", "--dry-run").out.startswith("would write vit_mu2_8/: vit_mu2_8")
    (folder / "google").mkdir()
    (folder / "vit_b16").rename(folder / name)  # a path that is there is meant
    assert said(cli, "show", name).err == f"vitzoo: '{name}' is taken as the folder here, not as the model name vit_b16\n"
