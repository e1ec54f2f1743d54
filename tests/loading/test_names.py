"""Tests of what a name means: published weights, a local model, or random weights where that is said."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import vit_zoo
from support import peers
from support.models import SMALL, noise
from vit_zoo import formats
from vit_zoo.errors import HubError, InputError
from vit_zoo.loading.locator import Folder, RegistryName, parse_locator

TINY = {**SMALL, "depth": 1}
SETS = [f"--set={name}={','.join(map(str, value)) if isinstance(value, tuple) else value}" for name, value in TINY.items()]
SIZES = {**TINY, "image_size": 32, "patch_size": 8}
TOML = "".join(f"{name} = {value}\n" for name, value in SIZES.items())
# names whose published weights are on the Hub, are none, or are of another library only
NAMES = [
    "vit_s16", "deit3_b16", "vit_mu16", "google/vit-base-patch16-224", "facebook/dinov2-small", "vit_base_patch16_224",
    "timm/vit_tiny_patch16_224", "vit_l_16", "openai/clip-vit-base-patch32",
]  # fmt: skip
VERBS = {
    "export": ["export", "NAME", "--onnx"],
    "torchscript": ["export", "NAME", "--torchscript", "--pt2", "-o", "."],
    "convert": ["convert", "NAME", "-o", "out", "--to", "hf"],
    "publish": ["publish", "NAME", "me/it", "--dry-run", "out", "--license", "mit"],
    "verify": ["verify", "other", "--against", "NAME"],
    "predict": ["predict", "NAME", "image.png"],
}


@pytest.fixture(scope="module")
def _models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        model = noise(vit_zoo.create("vit_s16", **TINY), seed)
        vit_zoo.save(model, folder / str(seed))
    return folder


@pytest.fixture
def trained(folder, _models):
    """Make a folder with a trained model: `trained("vit_s16")`."""

    def make(name, which=1):
        return Path(shutil.copytree(_models / str(which), folder / name))

    return make


def same(model, other):
    one, two = model.state_dict(), other.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_without_a_network_is_never_random(verb, name, trained, cli, folder):
    trained("other")
    code, out, err = cli(*(word.replace("NAME", name) for word in VERBS[verb]))
    assert (code, out) == (5, ""), err
    assert {path.name for path in folder.iterdir()} == {"other"}


@pytest.mark.parametrize("name", NAMES)
def test_the_ways_on_are_named(name, cli, folder):
    code, _, err = cli("export", name, "--onnx")
    assert code == 5
    assert "--weights FILE for weights of yours; --random for random weights" in err
    assert ("or a tag, such as" in err) == (name != "vit_mu16")
    with pytest.raises(HubError, match="weights='FILE' for weights of yours; random=True for random weights"):
        vit_zoo.export(name)


def test_random_weights_where_they_are_said(cli, folder, caplog):
    code, _, err = cli("export", "vit_s16", "--onnx", "--random", "--seed", "5", "--verify", "off", *SETS)
    assert (code, "vit_s16 has RANDOM WEIGHTS (seed 5)" in err) == (0, True)
    assert formats.describe(Path("vit_s16.onnx")).config.random_seed == 5
    wanted = vit_zoo.create("vit_s16", seed=5, **TINY)
    assert cli("convert", "vit_s16", "-o", "mine", "--random", "--seed", "5", *SETS).code == 0
    assert same(vit_zoo.load("mine"), wanted)
    assert vit_zoo.load("mine").config.random_seed == 5
    assert cli("verify", "vit_s16.onnx", "--against", "vit_s16", "--random", "--seed", "5", *SETS).code == 0
    assert cli("verify", "vit_s16.onnx", "--against", "vit_s16", "--random", "--seed", "6", *SETS).code == 3
    with caplog.at_level(logging.WARNING, "vit_zoo"):
        (done,) = vit_zoo.export("vit_s16", out="python.onnx", random=True, verify=False, **TINY)
    assert done.config.random_seed == 0
    assert "vit_s16 has RANDOM WEIGHTS (seed 0)" in caplog.text


def test_another_librarys_name_can_be_random(cli, folder):
    code, _, err = cli("export", "google/vit-base-patch16-224", "--onnx", "--random", "--verify", "off", *SETS)
    assert (code, "vit_b16 has RANDOM WEIGHTS (seed 0)" in err) == (0, True)


def test_a_config_file_gets_random_weights(cli, folder):
    Path("mine.toml").write_text(f'extends = "vit_s16"\n{TOML}')
    code, _, err = cli("export", "mine.toml", "--onnx", "--seed", "3")
    assert (code, "mine has RANDOM WEIGHTS (seed 3)" in err) == (0, True)
    assert cli("convert", "mine.toml", "-o", "mine", "--random").code == 0
    assert cli("convert", "mine.toml", "-o", "other").code == 5


def test_a_folder_that_create_made_is_exported_as_it_is(cli, folder, monkeypatch):
    assert cli("create", "vit_s16", "--seed", "4", *SETS).code == 0
    monkeypatch.chdir(folder / "vit_s16")
    code, _, err = cli("export", "--onnx")
    assert (code, "vit_s16 has RANDOM WEIGHTS (seed 4)" in err) == (0, True)
    assert Path("vit_s16.onnx").is_file()


@pytest.mark.parametrize("name", ["vit_s16", "deit_small_patch16_224", "vit_mu16", "google/vit-base-patch16-224"])
def test_a_local_model_comes_before_a_name(name, trained, cli, folder):
    made = vit_zoo.load(trained(name))
    code, _, err = cli("export", name, "--onnx", "-o", "a.onnx")
    assert (code, f"'{name}' is taken as the folder here, not as the model name" in err) == (0, True)
    assert vit_zoo.open("a.onnx").config.random_seed is None
    image = torch.randn(1, 3, 32, 48)
    found = vit_zoo.open("a.onnx").run(image.numpy())["logits"]
    np.testing.assert_allclose(found, made(image).detach().numpy(), rtol=0, atol=1e-5)
    assert cli("convert", name, "-o", "b").code == 0
    assert same(vit_zoo.load("b"), made)
    assert same(vit_zoo.load(name), made)
    assert cli("verify", "a.onnx", "--against", name).code == 0


def test_a_folder_without_a_model_is_no_model(cli, folder):
    for name in ("vit_s16", "vit_base_patch16_224"):
        Path(name).mkdir()
        Path(name, "log.txt").write_text("epoch 1")
        assert isinstance(parse_locator(name), RegistryName)
        assert cli("export", name, "--onnx").code == 5
    save_file({"a": torch.zeros(1)}, "vit_s16/epoch_1.safetensors")
    assert isinstance(parse_locator("vit_s16"), Folder)


def test_a_file_with_the_name(trained, cli, folder):
    made = vit_zoo.load(trained("model"))
    shutil.copy("model/model.safetensors", "vit_s16")
    assert same(vit_zoo.load("vit_s16"), made)
    assert "'vit_s16' is taken as the file here" in cli("show", "vit_s16").err


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_folder_and_a_file_are_asked_about(suffix, trained, cli, folder):
    trained("vit_s16")
    model = vit_zoo.load(trained("other", 2))
    save = torch.save if suffix == ".pth" else save_file
    save(model.state_dict(), f"vit_s16{suffix}")
    for arguments in (["export", "vit_s16", "--onnx"], ["convert", "vit_s16", "-o", "out"], ["show", "vit_s16"]):
        code, _, err = cli(*arguments)
        assert code == 2
        assert f"'vit_s16' is ambiguous: both the folder vit_s16/ and the file vit_s16{suffix} hold a model" in err
        assert f"write ./vit_s16 or vit_s16{suffix}" in err
    assert cli("show", "./vit_s16").code == 0


def test_a_name_stands_for_the_architecture_where_weights_are_random(trained, cli, folder):
    trained("vit_s16")
    assert not same(vit_zoo.create("vit_s16", **TINY), vit_zoo.load("vit_s16"))
    code, _, err = cli("export", "vit_s16", "--onnx", "--random", "--verify", "off", *SETS)
    assert (code, "is taken as the model name; for the folder here write ./vit_s16" in err) == (0, True)


@pytest.mark.parametrize("classes", [3, 12])
def test_another_number_of_classes_keeps_the_trained_body(classes, cli, folder):
    code, _, err = cli("export", "vit_digits", "--onnx", "--set", f"num_classes={classes}")
    assert code == 0
    assert f"vit_digits: the weights have 10 classes; the classifier for {classes} classes is new, with random weights" in err
    about = vit_zoo.open("vit_digits.onnx").config
    assert (about.random_part, about.labels, about.preprocess) == ("head", None, vit_zoo.load("vit_digits").config.preprocess)
    assert "RANDOM WEIGHTS in the new classifier" in cli("show", "vit_digits.onnx").out
    body = vit_zoo.load("vit_digits").state_dict()
    assert cli("convert", "vit_digits", "-o", "new", "--set", f"num_classes={classes}").code == 0
    new = vit_zoo.load("new")
    assert all(torch.equal(values, new.state_dict()[name]) for name, values in body.items() if not name.startswith("head."))
    assert new.head.weight.shape[0] == classes
    code, _, err = cli("publish", "new", "me/new", "--dry-run", "staged", "--license", "mit")
    assert (code, "RANDOM WEIGHTS in the new classifier" in err) == (2, True)


@pytest.mark.parametrize("classes", [0, 5])
def test_a_new_classifier_on_a_checkpoint_of_another_library(classes, folder, caplog):
    theirs = noise(peers.timm_vit())
    facts = {"heads": 3, "image_size": (32, 48), "norm_eps": 1e-6, "act": "gelu"}
    torch.save(theirs.state_dict(), "theirs.pth")
    with caplog.at_level(logging.WARNING, "vit_zoo"):
        vit_zoo.convert("theirs.pth", "out", num_classes=classes, **facts)
    made = vit_zoo.load("out")
    image = torch.randn(2, 3, 32, 48)
    found = made.features(image, "last_hidden_state")["last_hidden_state"]
    torch.testing.assert_close(found, theirs.forward_features(image), rtol=0, atol=1e-5)
    assert made.spec.num_classes == classes
    assert ("the classifier for 5 classes is new" in caplog.text) == bool(classes)
    assert made.config.random_part == ("head" if classes else None)


# what a row says goes with its published weights only


def published_like(kind):
    """A file of weights of vit_b16's architecture, small, as another library writes it."""
    if kind == "torchvision":
        from torchvision.models import VisionTransformer

        return VisionTransformer(
            image_size=32, patch_size=8, num_layers=1, num_heads=3, hidden_dim=48, mlp_dim=96, num_classes=11
        )
    return peers.timm_vit(img_size=32, patch_size=8, depth=1)


@pytest.mark.parametrize("kind", ["torchvision", "timm"])
@pytest.mark.parametrize("name", ["vit_b16", "vit_s16", "vit_b_16", "vit_base_patch16_224", "deit_b16"])
def test_preprocessing_of_other_weights_is_not_taken(kind, name, folder, caplog):
    torch.save(noise(published_like(kind)).state_dict(), "mine.pth")
    with caplog.at_level(logging.WARNING, "vit_zoo"):
        (done,) = vit_zoo.export(name, weights="mine.pth", verify=False, **SIZES)
    assert (done.config.preprocess, done.config.labels) == (None, None)
    assert "mine.pth: preprocessing left out" in caplog.text


def test_the_preprocessing_of_the_files_own_folder_is_taken(folder):
    model = noise(published_like("timm"))
    Path("theirs").mkdir()
    torch.save(model.state_dict(), "theirs/pytorch_model.bin")
    cfg = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "input_size": [3, 32, 32],
    }
    names = {"architecture": "vit_base_patch16_224", "num_classes": 11, "pretrained_cfg": cfg, "label_names": list("abcdefghijk")}
    Path("theirs/config.json").write_text(json.dumps(names))
    (done,) = vit_zoo.export("vit_b16", weights="theirs", verify=False, **SIZES)
    assert (done.config.preprocess.mean, done.config.preprocess.interpolation) == ((0.1, 0.2, 0.3), "bilinear")
    assert done.config.labels == tuple("abcdefghijk")


def test_a_tag_states_whose_weights_a_file_has(folder, caplog):
    torch.save(noise(published_like("torchvision")).state_dict(), "vit_b_16-c867db91.pth")
    (done,) = vit_zoo.export("vit_b16.torchvision_v1", weights="vit_b_16-c867db91.pth", verify=False, **SIZES)
    assert (done.config.preprocess.mean[0], done.config.preprocess.interpolation) == (0.485, "bilinear")
    with pytest.raises(InputError, match=r"is the file of vit_b16\.torchvision_v1, not of vit_b16\.torchvision_swag"):
        vit_zoo.export("vit_b16.torchvision_swag_lc", weights="vit_b_16-c867db91.pth", **SIZES)
    (done,) = vit_zoo.export("vit_b16.augreg_in1k", weights="vit_b_16-c867db91.pth", out="a.onnx", verify=False, **SIZES)
    assert done.config.preprocess is None  # not timm's weights
    vit_zoo.convert("vit_b_16-c867db91.pth", "ours", heads=3)
    (done,) = vit_zoo.export("vit_b16.torchvision_v1", weights="ours", out="b.onnx", verify=False, **SIZES)
    assert done.config.preprocess.interpolation == "bilinear"
    assert "ours: preprocessing is that of vit_b16.torchvision_v1, whose file is vit_b_16-c867db91.pth" in caplog.text


def test_a_config_file_states_preprocessing(folder):
    torch.save(noise(published_like("torchvision")).state_dict(), "mine.pth")
    table = '[preprocess]\ninterpolation = "bilinear"\nmean = [0.3, 0.3, 0.3]\nstd = [0.2, 0.2, 0.2]\n'
    Path("plain.toml").write_text(f'extends = "vit_b16"\n{TOML}')
    Path("mine.toml").write_text(f'extends = "vit_b16"\n{TOML}{table}')
    (plain,) = vit_zoo.export("plain.toml", weights="mine.pth", verify=False)
    (mine,) = vit_zoo.export("mine.toml", weights="mine.pth", verify=False)
    assert plain.config.preprocess is None
    assert mine.config.preprocess.mean == (0.3, 0.3, 0.3)


def test_a_folder_states_nothing_about_other_weights(folder, cli):
    vit_zoo.save(vit_zoo.create("vit_b16", **SIZES), "run")
    torch.save(noise(published_like("timm")).state_dict(), "mine.pth")
    code, _, err = cli("export", "run", "--weights", "mine.pth", "--onnx", "-o", "a.onnx", "--verify", "off")
    assert (code, "mine.pth: preprocessing left out" in err) == (0, True)
    assert vit_zoo.open("a.onnx").config.preprocess is None
    assert cli("export", "run/config.json", "--weights", "mine.pth", "--onnx", "-o", "b.onnx", "--verify", "off").code == 0
    assert vit_zoo.open("b.onnx").config.preprocess is not None  # stated by the user
