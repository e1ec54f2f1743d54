"""Tests of labels and preprocessing that the user states: their forms, what they replace, and what does not fit."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import vit_zoo
from vit_zoo.errors import InputError
from vit_zoo.loading.stated import stated_labels, stated_preprocess, without_names
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.registry.configs import presets

HALF = [0.5, 0.5, 0.5]
NAMES = ("cat", "dog", "horse")


@pytest.fixture(scope="module")
def config():
    return vit_zoo.create("vit_ti16", depth=1, num_classes=3).config


def file_of(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "value",
    [
        list(NAMES),
        "cat,dog, horse",
        {0: "cat", 1: "dog", 2: "horse"},
        {"2": "horse", "0": "cat", "1": "dog"},
        {"horse": 2, "cat": 0, "dog": 1},
    ],
)
def test_labels_are_stated_in_any_form(value):
    assert stated_labels(value) == NAMES


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "\ufeffcat\r\ndog\nhorse\n\n"),
        ("names.json", list(NAMES)),
        ("id2label.json", {"0": "cat", "1": "dog", "2": "horse"}),
        ("config.json", {"model_type": "vit", "id2label": {"0": "cat", "1": "dog", "2": "horse"}, "label2id": {"cat": 0}}),
        ("timm.json", {"architecture": "vit_tiny_patch16_224", "label_names": list(NAMES)}),
        ("ours.json", {"vit_zoo": {"labels": list(NAMES)}}),
    ],
)
def test_labels_are_read_from_files(tmp_path, name, content):
    path = file_of(tmp_path, name, content)
    assert stated_labels(path) == stated_labels(str(path)) == NAMES


def test_a_label_set_has_names():
    assert stated_labels("imagenet1k")[0] == "tench, Tinca tinca"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("a,,c", "the name of class 1 is empty"),
        ("a,b,a", "classes 0 and 2 have the same name, 'a'"),
        (["a", 3], "class 1 is 3"),
        ([], "contains no names"),
        ({"0": "a", "2": "b"}, "expected names of the classes 0 to 1, got none of class 1"),
        ("nowhere.txt", "no such file"),
        (7, "got int"),
    ],
)
def test_labels_that_are_no_names_are_refused(value, fault):
    with pytest.raises(InputError, match=fault):
        stated_labels(value)


def test_an_empty_line_is_a_missing_name(tmp_path):
    with pytest.raises(InputError, match=r"names\.txt: the name of class 1 is empty"):
        stated_labels(file_of(tmp_path, "names.txt", "cat\n\ndog\n"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        stated_labels(tmp_path / "bytes")


def test_the_number_of_labels_is_that_of_the_classes(config):
    with pytest.raises(InputError, match="2 labels for 3 classes"):
        config.with_labels(("a", "b"))
    features = config.replace(spec=config.spec.replace(num_classes=0))
    with pytest.raises(InputError, match="the model has no classes"):
        features.with_labels(("a",))


def test_classes_without_names_are_recognised(config):
    assert without_names(config)
    assert without_names(config.with_labels(("LABEL_0", "LABEL_1", "LABEL_2")))
    assert not without_names(config.with_labels(NAMES))
    assert not without_names(config.with_problem_type("regression"))


@pytest.mark.parametrize("name", [*presets(), "vit_b16", "vit_b16_384.augreg_in21k_ft_in1k", "timm/vit_base_patch16_224"])
def test_every_name_prepares_images_of_the_models_size(config, name):
    assert stated_preprocess(name, config).size == (224, 224)


def test_presets_are_those_of_the_zoo(config):
    assert stated_preprocess("imagenet", config).mean == (0.485, 0.456, 0.406)
    assert stated_preprocess("imagenet", config).resize_to == 256
    assert stated_preprocess("half", config) == vit_zoo.create("vit_ti16", depth=1).config.preprocess
    assert stated_preprocess("siglip", config).resize_to is None


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "preprocessor_config.json",
            {"image_processor_type": "ViTImageProcessor", "size": 224, "resample": 2, "image_mean": HALF, "image_std": HALF},
            (None, "bilinear"),
        ),
        (
            "processor_config.json",
            {"image_processor": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 224, "width": 224}}},
            (None, "bicubic"),
        ),
        (
            "config.json",
            {"pretrained_cfg": {"input_size": [3, 224, 224], "mean": HALF, "std": HALF, "interpolation": "bicubic"}},
            (256, "bicubic"),
        ),
        (
            "mine.toml",
            '[preprocess]\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\ninterpolation = "bilinear"\ncrop = 0.875\n',
            (256, "bilinear"),
        ),
    ],
)  # fmt: skip
def test_preprocessing_is_read_from_files(config, tmp_path, name, content, expected):
    path = file_of(tmp_path, name, content)
    found = stated_preprocess(path, config)
    assert (found.resize_to, found.interpolation) == expected
    assert found.mean == found.std == tuple(HALF)
    if isinstance(content, dict):
        assert stated_preprocess(content, config) == found
        assert stated_preprocess(SimpleNamespace(to_dict=lambda: content), config) == found
    ours = config.with_preprocess(found).document()
    assert stated_preprocess(file_of(tmp_path, "ours.json", ours), config) == found


def test_fields_modify_what_is_known(config):
    base = config.preprocess
    assert stated_preprocess({"mean": [0.1, 0.2, 0.3]}, config) == base.model_copy(update={"mean": (0.1, 0.2, 0.3)})
    assert stated_preprocess({"crop": 1}, config).resize_to == 224
    assert stated_preprocess({"crop": "none"}, config).resize_to is None
    assert stated_preprocess({"extends": "clip", "std": 1, "interpolation": "bilinear"}, config) == Preprocess(
        size=(224, 224), resize_to=224, interpolation="bilinear", mean=stated_preprocess("clip", config).mean, std=(1.0, 1.0, 1.0)
    )


def test_fields_alone_must_be_complete(config):
    bare = config.replace(preprocess=None)
    with pytest.raises(InputError) as caught:
        stated_preprocess({"mean": 0.5, "std": 0.5}, bare)
    assert "add crop=0.875, interpolation='bicubic'" in str(caught.value)
    assert "add --crop, --interpolation" in str(caught.value.for_command_line())
    complete = {"mean": 0.5, "std": 0.5, "crop": 0.9, "interpolation": "bicubic"}
    assert stated_preprocess(complete, bare) == config.preprocess


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("imagnet", "nearest: imagenet"),
        ({"crop": 2}, "must be above 0 and at most 1"),
        ({"mean": [0.5, 0.5]}, "one or three values"),
        ({"men": 0.5}, "unknown field 'preprocess.men'; nearest: mean"),
        ({"size": "small"}, r"preprocess\.size"),
        ({"size": [224, 160], "crop": 0.9}, "a share of a square image"),
        ({"image_processor_type": "PerceiverImageProcessor"}, "no preparation of images that is supported"),
        ({"model_type": "vit"}, "unknown field 'preprocess.model_type'"),
        (7, "got int"),
    ],
)
def test_preprocessing_that_is_not_known_is_refused(config, value, fault):
    with pytest.raises(InputError, match=fault):
        stated_preprocess(value, config)


def test_preprocessing_of_another_size_names_the_way_to_resize(config):
    other = stated_preprocess({"size": 240}, config)
    assert other.size == (240, 240)
    with pytest.raises(
        InputError, match=r"makes images of 240x240, the model takes 224x224 \(image_size=240 resizes the model\)"
    ):
        config.with_preprocess(other)
    with pytest.raises(InputError, match=r"state it: preprocess='imagenet'"):
        config.replace(preprocess=None).known_preprocess()


def test_both_are_facts_of_create_load_and_convert(tmp_path):
    stated = {"labels": NAMES, "preprocess": "clip"}
    model = vit_zoo.create("vit_ti16", depth=1, num_classes=3, **stated)
    assert (model.config.labels, model.config.preprocess) == (NAMES, stated_preprocess("clip", model.config))
    folder = vit_zoo.save(model, tmp_path / "saved")
    again = vit_zoo.load(folder, num_classes=2, labels="yes,no", preprocess={"mean": 0.5})
    assert again.config.labels == ("yes", "no")
    assert again.config.preprocess.mean == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match="3 labels for 2 classes"):
        vit_zoo.load(folder, num_classes=2, labels=NAMES)
    done = vit_zoo.convert(folder, tmp_path / "hf", "hf", labels="a,b,c", preprocess="imagenet")
    assert done.config.labels == ("a", "b", "c")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())["image_mean"] == [0.485, 0.456, 0.406]
    vit_zoo.convert(folder, tmp_path / "timm", "timm", labels="a,b,c")
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["label_names"] == ["a", "b", "c"]


def test_stated_parts_are_not_told_to_be_left_out(tmp_path, caplog):
    folder = vit_zoo.save(vit_zoo.create("vit_ti16", depth=1, num_classes=3, labels=NAMES), tmp_path / "saved")
    bare = tmp_path / "bare" / "weights.safetensors"
    bare.parent.mkdir()
    vit_zoo.convert(folder, bare, "timm")
    vit_zoo.export(folder, out=tmp_path / "a.onnx", weights=bare, verify=False)
    assert "preprocessing and labels left out" in caplog.text
    caplog.clear()
    vit_zoo.export(folder, out=tmp_path / "b.onnx", weights=bare, verify=False, labels=NAMES, preprocess="half")
    assert "left out" not in caplog.text
    assert vit_zoo.open(tmp_path / "b.onnx").config.labels == NAMES
