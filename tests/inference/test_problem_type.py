"""Tests of what outputs stand for, against transformers' own pipeline: one class of several, several classes, or values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vit_zoo
from support import peers
from support.models import SMALL, noise
from vit_zoo.errors import CheckFailed, InputError, RefusedContent
from vit_zoo.model.config import ModelConfig
from vit_zoo.model.preprocess import Preprocess

SIZES = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8,
    "intermediate_size": 96, "mlp_ratio": 2, "layer_norm_eps": 1e-6,
}  # fmt: skip
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.4] * 3,
}  # fmt: skip
MULTI, SINGLE, VALUE = "multi_label_classification", "single_label_classification", "regression"
# the class of transformers, the number of outputs, and the problem type that its config states
MODELS = {
    "several classes can apply": ("ViT", 4, MULTI),
    "several classes can apply, DINOv2": ("Dinov2", 3, MULTI),
    "yes or no": ("DeiT", 1, MULTI),
    "one class of three, stated": ("ViT", 3, SINGLE),
    "one class of three": ("DeiT", 3, None),
    "a value": ("Dinov2", 1, VALUE),
    "two values": ("ViT", 2, VALUE),
}
HOW = Preprocess(size=(32, 48), resize_to=None, interpolation="bilinear", mean=(0.5,) * 3, std=(0.4,) * 3)


def of_transformers(kind, outputs, problem_type):
    """A live model, and its folder `theirs`, with names for its classes."""
    transformers = peers.transformers
    labels = {i: f"label {i}" for i in range(outputs)}
    config = getattr(transformers, f"{kind}Config")(**SIZES, id2label=labels, label2id={name: i for i, name in labels.items()})
    config.problem_type = problem_type
    model = noise(getattr(transformers, f"{kind}ForImageClassification")(config), scale=0.15)
    model.save_pretrained("theirs")
    Path("theirs/preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return model


def scores_of_pipeline(folder):
    """Transformers' own scores for image.png, by label."""
    transformers = peers.transformers
    pipeline = transformers.pipeline(
        "image-classification",
        model=transformers.AutoModelForImageClassification.from_pretrained(folder),
        image_processor=transformers.ViTImageProcessor.from_pretrained(folder),
    )
    return {found["label"]: found["score"] for found in pipeline(Image.open("image.png"))}


def scores_of(model, **options):
    (found,) = vit_zoo.predict(model, "image.png", **options)
    return dict(zip(found.labels, found.scores, strict=True))


@pytest.fixture
def image(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save("image.png")


@pytest.fixture
def run(cli):
    """The command line, with the exit code that is expected."""

    def run(*arguments, code=0):
        done = cli(*arguments)
        assert done.code == code, done.err
        return done

    return run


def ours(outputs=4, **fields):
    """A model of ours with preprocessing."""
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, "num_classes": outputs}), scale=0.15)
    model.config = model.config.replace(name="ours", preprocess=HOW, **fields)
    return model


@pytest.mark.parametrize("case", MODELS)
def test_scores_are_those_of_transformers(image, case):
    """From a folder, and from an exported file; published, with transformers' pipeline on the staged repository."""
    of_transformers(*MODELS[case])
    expected = pytest.approx(scores_of_pipeline("theirs"), abs=1e-4)
    assert scores_of("theirs") == expected
    (done,) = vit_zoo.export("theirs", out="file.onnx")
    assert scores_of(done.path) == expected
    published = vit_zoo.publish("theirs", "me/model", dry_run="staged", licence="mit", without=["fp16", "int8"])
    assert scores_of_pipeline("staged") == expected
    assert scores_of("staged") == expected
    assert scores_of("staged/onnx/model.onnx") == expected
    softmax = MODELS[case][2] in (None, SINGLE) and MODELS[case][1] > 1
    assert ("transformers.js" in published.clients) == softmax  # its pipeline knows no other function
    assert ("problem_type" in Path("staged/config.json").read_text()) == (not softmax)
    card = Path("staged/README.md").read_text()
    assert ("topk(1)" in card, "problem_type" in card) == (softmax, not softmax)


@pytest.mark.parametrize("case", ["several classes can apply, DINOv2", "two values"])
def test_a_live_module_and_a_converted_folder_state_it(image, case, run):
    live = of_transformers(*MODELS[case])
    (done,) = vit_zoo.export(live, out="live.onnx")
    assert done.config.problem_type == MODELS[case][2]
    vit_zoo.convert("theirs", "converted")
    vit_zoo.convert("converted", "back", "hf")
    expected = pytest.approx(scores_of_pipeline("theirs"), abs=1e-4)
    assert scores_of("converted") == expected
    assert scores_of_pipeline("back") == expected
    assert MODELS[case][2] in run("show", "theirs").out
    vit_zoo.convert("theirs", "features", allow_drop=["head.*"])
    assert vit_zoo.load("features").config.problem_type is None


def test_the_command_line_prints_a_probability_of_each_class_and_values(image, run):
    vit_zoo.save(ours(3, problem_type=MULTI, labels=("cat", "dog", "grass")), "several")
    vit_zoo.save(ours(2, problem_type=VALUE), "values")
    several, values = scores_of("several"), scores_of("values")
    printed = run("predict", "several", "image.png", "--top", "3").out
    assert all(f"{name} {100 * score:.1f} %" in printed for name, score in several.items())
    assert sum(several.values()) != pytest.approx(1, abs=0.05)
    assert list(values) == ["output 0", "output 1"]
    printed = run("predict", "values", "image.png").out
    assert printed.split("  ")[1:] == [f"{name} {x:.6g}" + "\n" * (name == "output 1") for name, x in values.items()]
    (document,) = json.loads(run("predict", "values", "image.png", "--json").out)
    assert [found["value"] for found in document["predictions"]] == list(values.values())
    assert document["activation"] is None
    (document,) = json.loads(run("predict", "several", "image.png", "--json").out)
    assert document["activation"] == "sigmoid"
    assert "top applies to classes" in run("predict", "values", "image.png", "--top", "2", code=2).err
    (found,) = vit_zoo.predict("values", "image.png")
    with pytest.raises(InputError, match="a regression has values, no probabilities"):
        _ = found.probabilities


@pytest.mark.parametrize("form", ["checkpoint", "folder", "file"])
def test_one_output_without_a_word_is_a_question(image, form, run):
    """Softmax would be 100 % for every image; the user states which it is."""
    model = ours(1)
    source = {"checkpoint": "theirs", "folder": "ours", "file": "ours.onnx"}[form]
    if form == "checkpoint":
        of_transformers("ViT", 1, None)
    elif form == "folder":
        vit_zoo.save(model, "ours")
    else:
        vit_zoo.export(model, out="ours.onnx")
    done = run("predict", source, "image.png", code=2)
    assert "nothing states what it stands for" in done.err
    assert "--set problem_type=regression for a value, --set problem_type=multi_label_classification for" in done.err
    (value,), (yes,) = (scores_of(source, problem_type=stated).values() for stated in (VALUE, MULTI))
    assert yes == pytest.approx(1 / (1 + np.exp(-value)))
    assert "%" in run("predict", source, "image.png", "--set", f"problem_type={MULTI}").out
    if form != "file":
        with pytest.raises(InputError, match="nothing states what it stands for"):
            vit_zoo.publish(source, "me/model", dry_run="staged", licence="mit", random_weights=True)
        assert not Path("staged").exists()
        (done,) = vit_zoo.export(source, include=["sigmoid"], problem_type=MULTI)
        assert list(scores_of(done.path).values()) == pytest.approx([yes], abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"include": ["preprocess"]}, {"precision": "fp16"}, {"dynamic": "hw"}, {"opset": 23}])
def test_sigmoid_in_the_graph(image, options):
    model = ours(problem_type=MULTI)
    (done,) = vit_zoo.export(model, **{**options, "include": ["sigmoid", *options.get("include", [])]})
    assert done.report.ok
    assert vit_zoo.verify(done.path, model).ok
    assert scores_of(done.path) == pytest.approx(scores_of(model), abs=2e-2 if "include" in options else 2e-3)
    if not options:
        x = torch.randn(3, 3, 32, 48)
        with torch.inference_mode():
            expected = model(x).sigmoid()
            assert model.features(x, "probabilities")["probabilities"].allclose(expected)
        (found,) = ort.InferenceSession(done.path).run(None, {"pixel_values": x.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("format_", ["torchscript", "pt2"])
def test_sigmoid_in_a_program(folder, format_):
    model = ours(problem_type=MULTI)
    (done,) = vit_zoo.export(model, format_, include=["sigmoid"])
    assert done.report.ok
    x = torch.randn(3, 3, 32, 48)
    program = torch.jit.load(done.path) if format_ == "torchscript" else torch.export.load(done.path).module()
    assert program(x).allclose(model(x).sigmoid(), atol=1e-5)


def test_the_wrong_function_in_a_file_fails(folder):
    """A file of the softmax is not the model of which several classes can apply, and the other way round."""
    vit_zoo.save(ours(), "one")
    (softmax,) = vit_zoo.export("one", out="softmax.onnx", include=["softmax"])
    (sigmoid,) = vit_zoo.export("one", out="sigmoid.onnx", include=["sigmoid"], problem_type=MULTI)
    several = ours(problem_type=MULTI)
    assert "probabilities" in vit_zoo.verify(softmax.path, several).summary()
    assert vit_zoo.verify(sigmoid.path, several).ok
    assert vit_zoo.verify(sigmoid.path, "one").ok  # whose config does not say otherwise
    assert vit_zoo.verify(sigmoid.path).ok
    vit_zoo.export(ours(problem_type=VALUE), out="value.onnx")
    assert "problem type differs" in vit_zoo.verify("value.onnx", several).summary()


REFUSED = {
    "does not fit problem_type = multi_label_classification (--include sigmoid fits)": (4, MULTI, ["--include", "softmax"]),
    "--include softmax fits; for a sigmoid state --set problem_type=multi_label_classification too": (
        4, None, ["--include", "sigmoid"],
    ),
    "a single output, whose softmax is always 1 (--include sigmoid fits)": (1, MULTI, ["--include", "softmax"]),
    "a regression: its outputs are values": (2, VALUE, ["--include", "softmax"]),
    "regression: its outputs are values, not probabilities": (1, VALUE, ["--outputs", "probabilities"]),
    "nothing states what it stands for": (1, None, ["--include", "softmax"]),
    "state it: --set problem_type=regression": (1, None, ["--outputs", "logits,probabilities"]),
    "cannot include both softmax and sigmoid": (4, MULTI, ["--include", "softmax", "--include", "sigmoid"]),
    "states problem_type = multi_label_classification, not regression": (4, MULTI, ["--set", "problem_type=regression"]),
    "unknown problem_type 'multilabel'; choose from single_label_classification": (4, None, ["--set", "problem_type=multilabel"]),
    "problem_type does not apply: the model has no classes": (0, None, ["--set", "problem_type=regression"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_fit_is_refused(folder, fault, run):
    outputs, problem_type, flags = REFUSED[fault]
    vit_zoo.save(ours(outputs, problem_type=problem_type), "ours")
    assert fault in run("export", "ours", "--onnx", *flags, code=2).err
    assert not list(Path().glob("*.onnx*"))


def test_a_file_of_the_softmax_cannot_be_told_otherwise(image):
    (done,) = vit_zoo.export(ours(), include=["softmax"])
    with pytest.raises(InputError, match="computes the softmax already"):
        vit_zoo.predict(done.path, "image.png", problem_type=MULTI)
    with pytest.raises(InputError, match="cannot set heads: an exported file contains its own config"):
        vit_zoo.predict(done.path, "image.png", heads=3)


def test_a_new_head_states_its_own(folder, run):
    vit_zoo.save(ours(problem_type=MULTI), "ours")
    assert vit_zoo.load("ours").config.problem_type == MULTI
    assert vit_zoo.load("ours", num_classes=7).config.problem_type is None
    model = vit_zoo.load("ours", num_classes=1, problem_type=VALUE)
    assert model.config.problem_type == VALUE
    model.set_head(3, problem_type=SINGLE)
    assert model.config.problem_type is None  # what None means
    assert vit_zoo.load("ours", num_classes=0).config.problem_type is None
    assert vit_zoo.create("vit_b16", **SMALL, problem_type=VALUE).config.problem_type == VALUE
    run("create", "vit_digits", "-o", "made", "--set", f"problem_type={MULTI}")
    assert vit_zoo.load("made").config.problem_type == MULTI
    one = ours(1)
    assert "probabilities" not in one.features(torch.zeros(1, 3, 32, 48))
    with pytest.raises(InputError, match="nothing states"):
        one.features(torch.zeros(1, 3, 32, 48), "probabilities")


def test_a_checkpoint_that_cannot_state_it(image):
    """Bare tensors: the user states it once, at the export, and the file tells it from then on."""
    save_file(noise(peers.timm_vit(num_classes=3)).state_dict(), "timm.safetensors")
    facts = {"heads": 3, "image_size": (32, 48), "problem_type": MULTI}
    model = vit_zoo.load("timm.safetensors", **facts)
    model.config = model.config.replace(preprocess=HOW)
    (done,) = vit_zoo.export(model, out="file.onnx")
    with torch.inference_mode():
        expected = model(torch.from_numpy(HOW(Image.open("image.png"))[None])).sigmoid()[0]
    assert sorted(scores_of(done.path).values()) == pytest.approx(sorted(expected.tolist()), abs=1e-5)


def test_files_of_another_problem_are_not_published(folder):
    vit_zoo.save(ours(), "ours")
    vit_zoo.export("ours", out="ours/ours.onnx")
    with pytest.raises(CheckFailed, match="was exported with problem_type = None, the model has multi_label_classification"):
        vit_zoo.publish("ours", "me/x", dry_run="staged", licence="mit", random_weights=True, problem_type=MULTI)


def test_a_config_with_another_word_is_refused(folder):
    of_transformers("ViT", 3, None)
    config = json.loads(Path("theirs/config.json").read_text())
    for word in ("multilabel", ["regression"], 3):
        Path("theirs/config.json").write_text(json.dumps({**config, "problem_type": word}))
        with pytest.raises(RefusedContent, match="problem_type"):
            vit_zoo.load("theirs")


def test_a_published_config_that_contradicts_itself_is_refused(folder):
    vit_zoo.publish(ours(problem_type=MULTI), "me/x", dry_run="staged", licence="mit", without=["fp16", "int8"])
    text = Path("staged/config.json").read_text()
    assert vit_zoo.load("staged").config.problem_type == MULTI
    for word, fault in ((VALUE, f"states two problem types: {VALUE}, and {MULTI}"), ("multilabel", "unknown problem_type")):
        Path("staged/config.json").write_text(json.dumps({**json.loads(text), "problem_type": word}))
        with pytest.raises(RefusedContent, match=fault):
            vit_zoo.load("staged")


def test_configs_without_it_are_written_as_before():
    config = ours().config
    assert "problem_type" not in config.dumps()
    stated = config.with_problem_type(SINGLE)
    assert stated == config
    assert ours(1).config.with_problem_type(SINGLE).problem_type == MULTI  # yes or no, as an older pipeline takes it
    assert json.loads(config.with_problem_type(MULTI).dumps())["vit_zoo"]["problem_type"] == MULTI
    assert ModelConfig.parse(config.with_problem_type(VALUE).document(), where="").problem_type == VALUE
