"""Tests of `vitzoo predict` for many images: patterns, CSV, images that cannot be read, and files of other tools."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vit_zoo
from support.models import SMALL, noise
from vit_zoo.errors import InputError
from vit_zoo.formats.features import feature_of
from vit_zoo.model.preprocess import Preprocess

HOW = Preprocess(size=(32, 48), resize_to=None, interpolation="bilinear", mean=(0.5,) * 3, std=(0.4,) * 3)


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, "depth": 1}), scale=0.15)
    model.config = model.config.replace(name="ours", preprocess=HOW)
    out = tmp_path_factory.mktemp("exported") / "ours.onnx"
    (done,) = vit_zoo.export(model, out=out, outputs=["logits", "pooler_output", "last_hidden_state"], verify=False)
    return done.path


@pytest.fixture
def images(folder):
    """Nine images in two folders, two files that are none, and a name with a magic character."""
    Path("images/more").mkdir(parents=True)
    names = [f"images/{i}.png" for i in range(6)] + ["images/more/6.png", "images/more/7.png", "images/more/[8].png"]
    for i, name in enumerate(names):
        Image.fromarray(pixels(i)).save(name)
    Path("images/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not more")
    Path("images/page.png").write_text("<html>")
    return names


def rows_of(text):
    return list(csv.reader(text.splitlines()))


def test_patterns_are_expanded(exported, images, cli):
    code, out, _ = cli("predict", exported, "images/more/*.png", "images/[01].png", "images/more/[8].png")
    assert code == 0
    names = [line.split("  ")[0] for line in out.splitlines()]
    assert names == ["images/more/6.png", "images/more/7.png", "images/more/[8].png", *images[:2], images[8]]
    assert cli("predict", exported, "images/*.gif").code == 2
    assert [p.file for p in vit_zoo.predict(exported, "images/more/*.png")] == images[6:]


def test_csv_has_a_row_for_each_class(exported, images, cli):
    code, out, _ = cli("predict", exported, "images/more", "--csv", "-", "--top", "2")
    header, *rows = rows_of(out)
    assert (code, header) == (0, ["file", "rank", "label", "probability"])
    wanted = vit_zoo.predict(exported, "images/more", top=2)
    assert [(row[0], row[1], row[2]) for row in rows] == [
        (p.file, str(rank), label) for p in wanted for rank, label in enumerate(p.labels, 1)
    ]
    assert [float(row[3]) for row in rows] == pytest.approx([x for p in wanted for x in p.probabilities], rel=1e-6)
    code, table, _ = cli("predict", exported, "images/more", "--csv", "table.csv", "--top", "2")
    assert (code, table) == (0, "wrote the classes of 3 images to table.csv\n")
    assert Path("table.csv").read_text() == out
    code, _, err = cli("predict", exported, "images/more", "--csv", "-", "--json")
    assert (code, "both print the result" in err) == (2, True)
    assert cli("predict", exported, "images/more", "--csv", "none/table.csv").code == 2


def test_images_that_cannot_be_read_are_reported_at_the_end(exported, images, cli):
    code, out, err = cli("predict", exported, "images", "--csv", "table.csv")
    *reasons, last = err.splitlines()[-3:]
    assert (code, last) == (7, "vitzoo: error: 2 of 11 images cannot be read")
    assert [line.split(" (")[0] for line in reasons] == [
        f"vitzoo: images/{name}: cannot be read as an image" for name in ("broken.jpg", "page.png")
    ]
    assert [row[0] for row in rows_of(Path("table.csv").read_text())[1:]] == images
    code, out, _ = cli("predict", exported, "images", "--json")
    document = json.loads(out)
    assert (code, document["code"]) == (7, 7)
    assert [failure["file"] for failure in document["failures"]] == ["images/broken.jpg", "images/page.png"]
    assert len(document["results"]) == 9
    code, out, err = cli("predict", exported, "images/broken.jpg")  # a single image: the error itself
    assert (code, out) == (7, "")
    assert err.startswith("vitzoo: error: images/broken.jpg: cannot be read as an image")


def test_a_generator_is_not_read_ahead(exported):
    """At most one batch of the images of a generator is in memory."""
    alive, most = 0, 0

    class Counted(Image.Image):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def images():
        nonlocal alive, most
        for i in range(40):
            image = Counted()
            image.__dict__.update(Image.fromarray(pixels(i)).__dict__)
            alive, most = alive + 1, max(most, alive + 1)
            yield image

    opened = vit_zoo.open(exported)
    found = opened.predict(images())
    assert [p.file for p in found] == [f"image {i}" for i in range(40)]
    assert [p.scores for p in found] == [p.scores for p in opened.predict([pixels(i) for i in range(40)])]
    assert most <= 4


def test_an_opened_file_embeds(exported, images):
    opened = vit_zoo.open(exported)
    found = opened.embed(["images/0.png", Image.fromarray(pixels(1)), pixels(2)])
    assert (found.shape, found.dtype) == ((3, 48), np.float32)
    x = np.stack([HOW(Image.fromarray(pixels(i))) for i in range(3)])
    values = opened.run(x)
    np.testing.assert_array_equal(found, values["pooler_output"])
    tokens = opened.embed((pixels(i) for i in range(3)), output="patch_mean")
    np.testing.assert_allclose(tokens, values["last_hidden_state"][:, 1:].mean(axis=1), atol=1e-6)
    assert feature_of(opened).output == "pooler_output"
    with pytest.raises(InputError, match="has no output 'nothing'"):
        opened.embed(pixels(0), output="nothing")


@pytest.mark.parametrize("isolated", [True, False])
def test_threads_share_an_opened_file(exported, isolated):
    opened = vit_zoo.open(exported, isolated=isolated, threads=1)
    arrays = [pixels(i) for i in range(24)]
    wanted = [p.scores for p in opened.predict(arrays)]
    features = opened.embed(arrays)
    found, errors = {}, []

    def work(number):
        try:
            for turn in range(3):
                own = arrays[number::4]
                found[number, turn] = [p.scores for p in opened.predict(own)]
                np.testing.assert_allclose(opened.embed(own), features[number::4], rtol=1e-4, atol=1e-5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for (number, _), scores in found.items():
        np.testing.assert_allclose(scores, wanted[number::4], rtol=1e-4)
    assert len(found) == 12


def theirs(path, *, batch, size):
    """A classifier of torch's exporter, with a fixed batch or free sizes."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    axes = {"x": {}, "scores": {}}
    if batch is None:
        axes = {"x": {0: "batch"}, "scores": {0: "batch"}}
    if size is None:
        axes["x"] |= {2: "height", 3: "width"}
    example = torch.zeros(batch or 2, 3, *(size or (40, 40)))
    torch.onnx.export(module, (example,), path, input_names=["x"], output_names=["scores"], dynamic_axes=axes, dynamo=False)
    return module.eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("preset", "batch", "size"),
    [
        *((preset, 3, (48, 48)) for preset in ("imagenet", "clip", "siglip", "half", "prepare.toml")),
        ("imagenet", None, (48, 48)),
        ("imagenet", None, None),
    ],
)
def test_classifiers_of_other_tools_with_a_preset(preset, batch, size, folder, cli):
    module = theirs("theirs.onnx", batch=batch, size=size)
    Path("prepare.toml").write_text("[preprocess]\nmean = [0.1, 0.2, 0.3]\nstd = [0.4, 0.5, 0.6]\ninterpolation = 'bilinear'\n")
    for i in range(4):
        Image.fromarray(pixels(i)).save(f"{i}.png")
    code, _, err = cli("predict", "theirs.onnx", "0.png", "1.png")
    assert code == 2
    assert "--preprocess" in err
    flags = ["--preprocess", preset]
    if size is None:
        code, _, err = cli("predict", "theirs.onnx", "0.png", *flags)
        assert (code, "--size 224" in err) == (2, True)
        flags += ["--size", "48"]
    code, out, _ = cli(
        "predict", "theirs.onnx", *(f"{i}.png" for i in range(4)), *flags, "--labels", "a,b,c,d,e", "--json", "--top", "5"
    )
    assert code == 0
    stated = {"extends": preset, "size": 48} if size is None else preset
    from vit_zoo.loading.stated import stated_preprocess
    from vit_zoo.model.config import ModelConfig
    from vit_zoo.model.spec import article_spec

    spec = article_spec(
        image_size=48, patch_size=48, channels=3, num_classes=5, pool="mean", dim=1, depth=1, heads=1, dim_head=1, mlp_dim=1,
        dropout=0.0, emb_dropout=0.0,
    )  # fmt: skip
    how = stated_preprocess(stated, ModelConfig(name="theirs", spec=spec))
    with torch.inference_mode():
        x = torch.from_numpy(np.stack([how(Image.fromarray(pixels(i))) for i in range(4)]))
        wanted = module(x).softmax(-1).numpy()
    for document, row in zip(json.loads(out), wanted, strict=True):
        by_label = {item["label"]: item["probability"] for item in document["predictions"]}
        np.testing.assert_allclose([by_label[label] for label in "abcde"], row, atol=1e-5)


def test_fast_crop(exported, folder, cli):
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, "depth": 1, "image_size": 32, "patch_size": 16}), scale=0.15)
    crop = Preprocess(size=(32, 32), resize_to=40, interpolation="bicubic", mean=(0.5,) * 3, std=(0.4,) * 3)
    model.config = model.config.replace(name="ours", preprocess=crop)
    (done,) = vit_zoo.export(model, out="crop.onnx", verify=False)
    vit_zoo.export(model, out="inside.onnx", include=["preprocess"], verify=False)
    Image.fromarray(pixels(0)).resize((300, 200)).save("0.png")
    (plain,), (fast,) = (vit_zoo.predict(done.path, "0.png", fast_crop=fast, top=11) for fast in (False, True))
    assert fast.labels == plain.labels
    np.testing.assert_allclose(fast.scores, plain.scores, atol=0.01)
    assert cli("predict", "crop.onnx", "0.png", "--fast-crop").code == 0
    code, _, err = cli("predict", "inside.onnx", "0.png", "--fast-crop")
    assert (code, "--fast-crop does not apply: the file prepares images itself" in err) == (2, True)
