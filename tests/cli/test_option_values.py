"""Tests of the values of options: each is parsed as the type of its field, and a fault is one line with exit code 2."""

from __future__ import annotations

import pytest

import vit_zoo
from support.tiny import TINY

VALUES = (
    "true", "1.5", "0,0", "?x", "inf", "nan", "1,2", "", "-1", "1" + "0" * 30, "٣٣", "9" * 5000, "0x" + "f" * 5000,
    "a\x1b[31mb\x00", "[]", "{}", "[[1]]", "1979-05-27", '""', "1e400",
)  # fmt: skip
OPTIONS = ("--size", "--crop", "--mean", "--std", "--interpolation", "--preprocess", "--labels", "--head")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    path = tmp_path_factory.mktemp("bare") / "mine.safetensors"
    vit_zoo.convert(vit_zoo.create("vit_ti16", **TINY), path, "timm")
    return path


def check(done):
    assert done.code in (0, 2, 7), done.err
    faults = [line for line in done.err.splitlines() if line.startswith("vitzoo: error")]
    assert len(faults) == (done.code != 0)
    assert "\x1b" not in done.err
    assert "unexpected" not in "".join(faults)


@pytest.mark.parametrize("field", [*vit_zoo.ViTSpec.model_fields, "grid", "resize", "prefix", "problem_type"])
def test_every_value_of_set_is_parsed(field, bare, cli):
    for value in VALUES:
        for model in (bare, "vit_ti16"):
            done = cli("show", model, "--set", f"{field}={value}", *(["--set", "heads=2"] if field != "heads" else []))
            check(done)
            if done.code == 2 and value not in ("", '""') and len(value) < 40:
                assert field in done.err or "patch_size" in done.err or "recipe" in done.err or "heads" in done.err


@pytest.mark.parametrize("option", OPTIONS)
def test_every_value_of_a_stated_option_is_parsed(option, bare, folder, cli):
    for value in VALUES:
        if "\x00" not in value:  # no shell passes it on
            check(cli("convert", bare, "-o", "out.safetensors", "--set", "heads=2", "--force", option, value))


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("heads=true", "Invalid value for '--set': heads = True: input should be a valid integer"),
        ("dim=1.5", "dim = 1.5: input should be a valid integer"),
        ("resize=0,0", "unknown recipe [0, 0]; choose from timm"),
        ("image_size=?x", "image_size = '?x': input should be a valid tuple"),
        ("pool=false", "pool = False: input should be 'cls'"),
        ("act=inf", "act = inf: input should be 'gelu'"),
        ("registers=1,2", "registers = [1, 2]: input should be a valid integer"),
        ("norm_eps=nan", "norm_eps = nan: input should be a finite number"),
        ("heads=", "heads = '': input should be a valid integer"),
        ("heads=٣", "heads = '٣': input should be a valid integer"),
        (f"heads={'x' * 5000}", "heads = 'xxx"),
    ],
)
def test_faults_name_the_option_and_what_is_expected(value, fault, bare, cli):
    code, _, err = cli("show", bare, "--set", value)
    assert code == 2
    assert fault in err
    assert len(err) < 400


def test_the_name_of_an_item_in_a_list_is_text(bare, cli):
    code, _, err = cli("show", bare, "--set", "heads=2", "--set", "prefix=1.10")
    assert code == 2
    assert "no ViT under prefix '1.10'" in err


def test_a_long_list_of_labels_is_no_path(bare, folder, cli):
    names = ",".join(f"{'name' * 30} {i}" for i in range(3))
    code, _, err = cli("convert", bare, "-o", "m", "--set", "heads=2", "--labels", names)
    assert code == 0, err
    assert vit_zoo.load("./m").config.labels[2].endswith(" 2")


def test_a_file_of_labels_that_does_not_fit_is_named(bare, folder, cli):
    (folder / "names.txt").write_text("a\nb\n")
    code, _, err = cli("convert", bare, "-o", "m", "--set", "heads=2", "--labels", "names.txt")
    assert code == 2
    assert "names.txt: 2 labels for 3 classes" in err


@pytest.mark.parametrize(("option", "value"), [("--mean", "1e300"), ("--std", "1e-300"), ("--std", "1e9")])
def test_pixels_beyond_float32_are_refused(option, value, bare, folder, cli):
    code, _, err = cli("convert", bare, "-o", "m", "--set", "heads=2", "--preprocess", "half", option, value)
    assert code == 2
    assert "mean and std must be at most 1e+06, std at least 1e-06" in err
