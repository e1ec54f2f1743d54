"""Tests of ONNX files for patches of images of any grids in one padded batch, against transformers and timm, image by image."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime as ort
import pytest
import torch
from einops import rearrange
from PIL import Image

import vit_zoo
from support import peers
from support.families import images_for, small_model
from support.models import SMALL, noise
from support.paths import PHOTOS
from vit_zoo.errors import CheckFailed, InputError
from vit_zoo.graph import patch_ops
from vit_zoo.graph.patch_inputs import GRIDS, MASK, VALUES, grid_for, padded
from vit_zoo.model.resize_recipes import RECIPES

PATCH = 8
KINDS = {
    "class token": {},
    "class token, and registers without positions": {"pos_covers": "class", "registers": 3},
    "attention pooling": {"pool": "map", "pool_tokens": "patches", "class_token": False, "pos_covers": "patches"},
    "mean of patches": {"pool": "mean", "pool_tokens": "patches", "final_norm": "after_pool"},
    "mean of all tokens": {"pool": "mean", "pool_tokens": "all"},
    "norms of each patch": {"patch_norms": True, "pre_norm": True},
}
TOLERANCE = 1e-5


def grids(count=20, least=1):
    return [(int(r), int(c)) for r, c in np.random.default_rng(0).integers(least, 10, (count, 2))]


def images_of(sizes, patch, channels=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(channels, r * patch[0], c * patch[1], generator=generator).numpy() for r, c in sizes]


def relative(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("opset", [17, 20, 23])
@pytest.mark.parametrize("kind", KINDS)
def test_each_image_of_a_padded_batch_is_computed_as_if_alone(folder, kind, opset):
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, **KINDS[kind]}), scale=0.15)
    vit_zoo.export(model, out="a.onnx", dynamic="patches", opset=opset)
    vit_zoo.save(model, "whole")
    artifact, images = vit_zoo.open("a.onnx"), images_of(grids(), model.spec.patch_size)
    found = artifact.run_patches(padded(images, model.spec.patch_size))[model.spec.output]
    for row, image in zip(found, images, strict=True):
        with torch.inference_mode():
            resized = vit_zoo.load("whole", image_size=image.shape[1:], resize="timm")
            wanted = resized(torch.from_numpy(image)[None]).numpy()
        assert relative(row[None], wanted) <= TOLERANCE
        assert relative(artifact.run(image[None])[model.spec.output], wanted) <= TOLERANCE
    full = vit_zoo.verify("a.onnx", effort="full", blocks=True)
    assert full.ok
    assert full.skipped == ()


def test_outputs_of_each_token(folder, monkeypatch):
    """The check leaves out what stands in the rows of padding, and finds attention that is paid to padding."""
    model = noise(vit_zoo.create("vit_b16", **SMALL), scale=0.15)
    outputs = ["attn.*", "block.0", "last_hidden_state"]
    (done,) = vit_zoo.export(model, out="a.onnx", dynamic="patches", outputs=outputs)
    assert {c.output for c in done.report.comparisons} == {"attn.0", "attn.1", "attn.2", "block.0", "last_hidden_state"}
    monkeypatch.setattr(patch_ops.PatchOps, "attention_weights", patch_ops.OnnxOps.attention_weights)
    with pytest.raises(CheckFailed, match=r"attn\.0 at a padded batch of 4 sizes"):
        vit_zoo.export(model, out="a.onnx", dynamic="patches", outputs=outputs)


@pytest.mark.parametrize("recipe", [name for name, recipe in RECIPES.items() if recipe.mode != "rows"])
def test_every_recipe(folder, recipe):
    model = noise(vit_zoo.create("vit_b16", **SMALL), scale=0.15)
    vit_zoo.export(model, out="a.onnx", dynamic="patches", resize=recipe)
    vit_zoo.save(model, "whole")
    images = images_of([model.spec.grid, *grids(5)], model.spec.patch_size)
    found = vit_zoo.open("a.onnx").run_patches(padded(images, model.spec.patch_size))["logits"]
    for row, image in zip(found, images, strict=True):
        facts = {} if image.shape[1:] == model.spec.image_size else {"resize": recipe}
        with torch.inference_mode():
            wanted = vit_zoo.load("whole", image_size=image.shape[1:], **facts)(torch.from_numpy(image)[None]).numpy()
        assert relative(row[None], wanted) <= TOLERANCE


@pytest.mark.parametrize("opset", [17, 20, 23])
def test_transformers_siglip2(folder, opset):
    T = peers.transformers
    config = T.Siglip2VisionConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=72, num_patches=16, patch_size=PATCH
    )  # fmt: skip
    peer = noise(T.Siglip2VisionModel(config)).eval()
    peer.save_pretrained("saved")
    vit_zoo.export("saved", out="a.onnx", dynamic="patches", opset=opset, outputs=["pooler_output", "last_hidden_state"])
    # torch 2.13 repeats the first row where it interpolates, with antialias, to one column of several rows
    inputs = padded(images_of(grids(least=2), (PATCH, PATCH)), (PATCH, PATCH))
    found = vit_zoo.open("a.onnx").run_patches(inputs)
    given = {name: torch.from_numpy(x) for name, x in inputs.items()}
    for i, count in enumerate(inputs[MASK].sum(1)):
        with torch.inference_mode():
            alone = peer(given[VALUES][i : i + 1, :count], given[MASK][i : i + 1, :count], given[GRIDS][i : i + 1])
        assert relative(found["pooler_output"][i], alone.pooler_output[0].numpy()) <= TOLERANCE
        assert relative(found["last_hidden_state"][i, :count], alone.last_hidden_state[0].numpy()) <= TOLERANCE
    session = ort.InferenceSession("a.onnx")  # the names and types are those that transformers' processor makes
    assert {x.name: x.type for x in session.get_inputs()} == {
        VALUES: "tensor(float)", MASK: "tensor(int32)", GRIDS: "tensor(int64)",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["naflexvit_base_patch16_gap", "naflexvit_base_patch16_map", "naflexvit_base_patch16_siglip"])
def test_timm_naflexvit(folder, name):
    peer = peers.timm.create_model(
        name, embed_dim=48, depth=2, num_heads=3, patch_size=PATCH, pos_embed_grid_size=(4, 5), num_classes=7
    )
    peer = noise(peer).eval()
    vit_zoo.export(peer, out="a.onnx", dynamic="patches", resize="naflex" if name.endswith("siglip") else "timm")
    images = images_of(grids(), (PATCH, PATCH))
    inputs = padded(images, (PATCH, PATCH))
    found = vit_zoo.open("a.onnx").run_patches(inputs)["logits"]
    for row, values, (rows, columns) in zip(found, inputs[VALUES], inputs[GRIDS].tolist(), strict=True):
        places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).reshape(1, -1, 2)
        patches = torch.from_numpy(values)[None, : rows * columns]
        valid = torch.ones(1, rows * columns, dtype=torch.bool)
        with torch.inference_mode():
            wanted = peer(patches, patch_coord=places, patch_valid=valid)
        assert relative(row, wanted[0].numpy()) <= TOLERANCE


def test_other_images_and_padding_change_nothing(folder):
    model = small_model("siglip_b32_256")
    vit_zoo.export(model, out="a.onnx", dynamic="patches")
    artifact, patch = vit_zoo.open("a.onnx"), model.spec.patch_size
    images = images_of(grids(6), patch)
    inputs = padded(images, patch)
    first = artifact.run_patches(inputs)[model.config.output]
    longest = int(inputs[MASK].sum(1).argmax())
    others = {**inputs, VALUES: inputs[VALUES].copy()}
    others[VALUES][inputs[MASK] == 0] = 1000
    np.testing.assert_array_equal(artifact.run_patches(others)[model.config.output], first)
    others[VALUES][longest] = 1000
    changed = artifact.run_patches(others)[model.config.output]
    assert not np.array_equal(changed[longest], first[longest])
    np.testing.assert_array_equal(np.delete(changed, longest, 0), np.delete(first, longest, 0))


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision(folder, precision, opset):
    model = small_model("siglip_b32_256")
    vit_zoo.export(model, out="whole.onnx", dynamic="patches")
    vit_zoo.export(model, out="a.onnx", dynamic="patches", precision=precision, opset=opset)
    inputs = padded(images_of(grids(), model.spec.patch_size), model.spec.patch_size)
    wanted, found = (vit_zoo.open(name).run_patches(inputs)[model.config.output] for name in ("whole.onnx", "a.onnx"))
    assert 1e-6 < relative(found, wanted) < 0.02


@pytest.mark.parametrize("opset", [17, 23])
def test_a_lost_mask_is_found(folder, monkeypatch, opset):
    monkeypatch.setattr(patch_ops, "MASKED", 0.0)
    model = noise(vit_zoo.create("vit_b16", **SMALL), scale=0.15)
    with pytest.raises(CheckFailed, match="a padded batch of 4 sizes"):
        vit_zoo.export(model, out="a.onnx", dynamic="patches", opset=opset)


def test_padding_in_a_mean_is_found(folder, monkeypatch):
    monkeypatch.setattr(patch_ops.PatchOps, "mean", patch_ops.OnnxOps.mean)
    model = noise(vit_zoo.create("vit_b16", **{**SMALL, **KINDS["mean of patches"]}), scale=0.15)
    with pytest.raises(CheckFailed, match="a padded batch of 4 sizes"):
        vit_zoo.export(model, out="a.onnx", dynamic="patches")


def test_the_grid_of_another_image_is_found(folder, monkeypatch):
    def of_the_first(self, place, length, *more):
        first = self.node("Slice", length, self.ints(0), self.ints(1), self.ints(0))
        return weights(self, place, first, *more)

    weights = patch_ops.PatchOps._weights
    monkeypatch.setattr(patch_ops.PatchOps, "_weights", of_the_first)
    model = noise(vit_zoo.create("vit_b16", **SMALL), scale=0.15)
    with pytest.raises(CheckFailed, match="a padded batch of 4 sizes"):
        vit_zoo.export(model, out="a.onnx", dynamic="patches")


def test_what_does_not_apply(folder):
    for name in ("dinov3_s16", "simplevit_s16"):
        with pytest.raises(InputError, match="interpolates learned positions; this model has pos = "):
            vit_zoo.export(small_model(name), out="a.onnx", dynamic="patches")
    model = small_model("vit_b16")
    for options, cause in (
        ({"precision": "int8-weights"}, "fixed image size"),
        ({"operators": "core"}, "fixed size"),
        ({"outputs": ["block.0.map"]}, "has no maps"),
        ({"include": ["preprocess"]}, "fixed output size"),
        ({"batch": 2}, "static"),
        ({"triton": "repository", "out": None}, "for files with one input"),
    ):
        with pytest.raises(InputError, match=cause):
            vit_zoo.export(model, **{"out": "a.onnx", "dynamic": "patches", **options})
    vit_zoo.export(model, out="a.onnx")
    artifact = vit_zoo.open("a.onnx")
    for call in (lambda: artifact.run_patches({}), lambda: artifact.patch_inputs(PHOTOS)):
        with pytest.raises(
            InputError, match=r'a.onnx: takes images of one size at a time; export the model with dynamic="patches"'
        ):
            call()


def test_inputs_that_do_not_fit(folder):
    model = small_model("vit_b16")
    vit_zoo.export(model, out="a.onnx", dynamic="patches")
    artifact, patch = vit_zoo.open("a.onnx"), model.spec.patch_size
    inputs = padded(images_of([(1, 2), (2, 3)], patch), patch)
    cases = (
        ({VALUES: inputs[VALUES]}, "expected the inputs pixel_values, pixel_attention_mask, spatial_shapes, got pixel_values"),
        ({**inputs, VALUES: inputs[VALUES][..., :5]}, r"expected the shapes \[images, patches, 384\]"),
        ({**inputs, MASK: inputs[MASK][:1]}, "expected the shapes"),
        ({**inputs, GRIDS: np.array([[1, 2], [3, 3]])}, "image 1: a grid of 3x3 does not fit a mask of 6 patches"),
        ({**inputs, GRIDS: np.array([[0, 2], [2, 3]])}, "image 0: a grid of 0x2 does not fit a mask of 2 patches"),
        ({**inputs, MASK: np.roll(inputs[MASK], 1, 1)}, "image 0: a grid of 1x2 does not fit"),
    )
    for given, cause in cases:
        with pytest.raises(InputError, match=cause):
            artifact.run_patches(given)
    with pytest.raises(InputError, match="expected height and width that are multiples of 8 and 16, got 12x16"):
        artifact.run(np.zeros((1, 3, 12, 16), np.float32))


def test_images_are_prepared_as_by_transformers(folder):
    model = noise(vit_zoo.create("siglip_b16_224", depth=1, dim=48, heads=3, mlp_dim=72), scale=0.1)
    how = {"size": (224, 224), "resize_to": None, "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    model.config = model.config.replace(preprocess=type(model.config.preprocess)(**how))
    vit_zoo.export(model, out="a.onnx", dynamic="patches")
    artifact = vit_zoo.open("a.onnx")
    photos = [Image.open(photo).convert("RGB") for photo in sorted(PHOTOS.glob("*.jpg"))]
    photos += [photos[0].resize((90, 400)), photos[0].resize((333, 41))]
    processor = peers.transformers.Siglip2ImageProcessorPil(patch_size=16, max_num_patches=100)
    wanted = processor(photos, return_tensors="np")
    inputs = artifact.patch_inputs(photos, max_patches=100)
    longest = inputs[MASK].shape[1]
    np.testing.assert_array_equal(inputs[GRIDS], wanted[GRIDS])
    np.testing.assert_array_equal(inputs[MASK], wanted[MASK][:, :longest])
    assert np.abs(inputs[VALUES] - wanted[VALUES][:, :longest]).max() <= 1e-6
    assert artifact.run_patches(inputs)[model.config.output].shape == (len(photos), 48)


def test_grids_are_those_of_transformers():
    from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches as theirs

    random = np.random.default_rng(0)
    for height, width, most in zip(
        random.integers(4, 3000, 300), random.integers(4, 3000, 300), random.integers(1, 700, 300), strict=True
    ):
        size = int(height), int(width)
        rows, columns = grid_for(size, (16, 16), int(most))
        assert (16 * rows, 16 * columns) == theirs(*size, 16, int(most)), (size, most)


def test_a_grid_is_the_largest_of_its_aspect_ratio():
    for height, width, most in ((480, 640, 256), (1, 5000, 9), (5000, 1, 9), (7, 7, 1), (100, 101, 300)):
        rows, columns = grid_for((height, width), (8, 16), most)
        assert 1 <= rows * columns <= most
        largest = min(rows * 8 / height, columns * 16 / width)  # any larger image has more rows or columns
        for scale, fits in ((largest * 0.9999, True), (largest * 1.0001, False)):
            found = math.ceil(height * scale / 8), math.ceil(width * scale / 16)
            assert (found == (rows, columns)) == fits
            assert (math.prod(found) <= most) == fits


def test_the_command_and_what_reads_such_files(folder, cli):
    model = small_model("vit_b16")
    vit_zoo.save(model, "model")
    outputs = "logits,pooler_output"
    assert cli("export", "model", "--onnx", "--dynamic", "patches", "--outputs", outputs, "-o", "a.onnx").code == 0
    assert cli("verify", "a.onnx", "--against", "model").code == 0
    assert "patches" in cli("show", "a.onnx").out
    x = images_for(model).numpy()
    with torch.inference_mode():
        wanted = model(torch.from_numpy(x)).numpy()
    assert relative(vit_zoo.open("a.onnx").run(x)["logits"], wanted) <= TOLERANCE
    assert cli("predict", "a.onnx", PHOTOS).code == 0
    assert cli("embed", "a.onnx", PHOTOS, "-o", "b.npy").code == 0
    assert cli("bench", "a.onnx").code == 2
    assert "a.onnx: has no self-check (it takes patches" in cli("selfcheck", "a.onnx").err
    patches = rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=8, q=16)
    np.testing.assert_array_equal(padded(list(x), (8, 16))[VALUES], patches)
