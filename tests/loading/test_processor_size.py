"""Tests of checkpoints whose processor prepares images of another size than the model's: as their library runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import vit_zoo
from support import peers
from support.models import noise
from vit_zoo.errors import InputError
from vit_zoo.files import SafetensorsFile

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BIT = {
    "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 48}, "crop_size": {"height": 42, "width": 42},
    "image_mean": MEAN, "image_std": STD,
}  # fmt: skip
WIDE = {**BIT, "crop_size": {"height": 28, "width": 42}}
DINOV3 = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": {"height": 32, "width": 32}}
SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
# transformers' classes, what its config states, the processor, and the size that results
MODELS = {
    "dinov2": ("Dinov2", {"patch_size": 14, "image_size": 70}, BIT, (42, 42)),
    "dinov2, larger": ("Dinov2", {"patch_size": 14, "image_size": 28}, BIT, (42, 42)),
    "dinov2, not square": ("Dinov2", {"patch_size": 14, "image_size": 70}, WIDE, (28, 42)),
    "registers": ("Dinov2WithRegisters", {"patch_size": 14, "image_size": 70, "num_register_tokens": 2}, BIT, (42, 42)),
    "dinov3": (
        "DINOv3ViT",
        {"patch_size": 8, "image_size": 64, "num_register_tokens": 2, "intermediate_size": 96},
        DINOV3,
        (32, 32),
    ),
}


def hf_folder(folder, name, **changes):
    """A folder of transformers with a processor; the module, and the processor with Pillow."""
    kind, fields, processor, _ = MODELS[name]
    config = getattr(peers.transformers, f"{kind}Config")(**SMALL, **{**fields, **changes})
    model = noise(getattr(peers.transformers, f"{kind}Model")(config), scale=0.1)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model.eval()


def prepared(folder, image):
    return peers.transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")(image, return_tensors="pt")


def photograph(height=61, width=107):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def tokens(model, image):
    x = torch.from_numpy(model.config.preprocess(image))[None] if isinstance(image, Image.Image) else image
    with torch.inference_mode():
        return model.eval().features(x, "last_hidden_state")["last_hidden_state"]


def relative(given, wanted):
    assert given.shape == wanted.shape
    return float((given - wanted).abs().max() / wanted.abs().max())


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "vit_zoo"]


@pytest.mark.parametrize("name", MODELS)
def test_the_processor_wins_where_the_library_interpolates(tmp_path, caplog, name):
    theirs, size = hf_folder(tmp_path / "theirs", name), MODELS[name][-1]
    with torch.inference_mode():
        wanted = theirs(**prepared(tmp_path / "theirs", photograph())).last_hidden_state
    model = vit_zoo.load(tmp_path / "theirs")
    assert model.spec.image_size == model.config.preprocess.size == size
    assert relative(tokens(model, photograph()), wanted) <= 1e-5
    (line,) = lines_of(caplog)
    stored = theirs.config.image_size
    assert f"images of {size[0]}x{size[1]}" in line
    assert f"image_size={stored} keeps the stored size" in line
    if size[0] != size[1]:
        return  # transformers runs Dinov2 with a square table of positions only
    # written for transformers again, it computes the same, and keeps the processor's numbers
    vit_zoo.convert(tmp_path / "theirs", tmp_path / "again", "hf")
    kind = getattr(peers.transformers, f"{MODELS[name][0]}Model")
    with torch.inference_mode():
        again = kind.from_pretrained(tmp_path / "again").eval()(**prepared(tmp_path / "again", photograph())).last_hidden_state
    assert relative(again, wanted) <= 1e-5
    document = json.loads((tmp_path / "again" / "preprocessor_config.json").read_text())
    assert document["size"] == MODELS[name][2]["size"]
    assert json.loads((tmp_path / "again" / "config.json").read_text())["image_size"] == size[0]


def test_a_stated_size_keeps_the_positions(tmp_path, caplog):
    hf_folder(tmp_path / "theirs", "dinov2")
    stored = SafetensorsFile(tmp_path / "theirs" / "model.safetensors").tensors["embeddings.position_embeddings"].array()
    model = vit_zoo.load(tmp_path / "theirs", image_size=70)
    assert np.array_equal(model.pos_embed.detach().numpy(), stored)
    assert (model.config.preprocess.size, model.config.preprocess.resize_to) == ((70, 70), 80)
    assert model.config.preprocess.crop_rounding == "down"
    assert vit_zoo.load(tmp_path / "theirs", image_size=56).config.preprocess.resize_to == 64
    assert lines_of(caplog) == []


@pytest.mark.parametrize("name", ["dinov2", "registers", "dinov3"])
def test_a_dynamic_file_keeps_the_stored_positions(tmp_path, caplog, name):
    """At every size it computes what transformers computes from the stored table, and not from one that was resized before."""
    theirs = hf_folder(tmp_path / "theirs", name)
    patch, size = theirs.config.patch_size, MODELS[name][-1]
    (done,) = vit_zoo.export(tmp_path / "theirs", "onnx", out=tmp_path / "a.onnx", dynamic="hw", outputs=["last_hidden_state"])
    assert done.config.spec.image_size == (theirs.config.image_size,) * 2
    opened = vit_zoo.open(tmp_path / "a.onnx")
    for height, width in (size, (3 * patch, 6 * patch)):
        x = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            wanted = theirs(x).last_hidden_state
        assert relative(torch.from_numpy(opened.run(x.numpy())["last_hidden_state"]), wanted) <= 1e-5
    assert vit_zoo.verify(tmp_path / "a.onnx", tmp_path / "theirs").ok
    assert lines_of(caplog) == []


@pytest.mark.parametrize("facts", [{}, {"image_size": 70}])
def test_a_file_is_compared_at_its_own_size(tmp_path, caplog, facts):
    hf_folder(tmp_path / "theirs", "dinov2")
    vit_zoo.export(tmp_path / "theirs", "onnx", out=tmp_path / "a.onnx", **facts)
    assert vit_zoo.verify(tmp_path / "a.onnx", tmp_path / "theirs").ok
    assert len(lines_of(caplog)) == (0 if facts else 2)


def test_patches_that_do_not_divide_the_prepared_images(tmp_path):
    hf_folder(tmp_path / "theirs", "dinov2")
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps({**BIT, "crop_size": 45}))
    with pytest.raises(InputError, match="45x45, which patches of 14x14 do not divide") as error:
        vit_zoo.load(tmp_path / "theirs")
    assert "image_size=70" in error.value.hint
    assert vit_zoo.load(tmp_path / "theirs", image_size=70).config.preprocess.size == (70, 70)


@pytest.mark.parametrize(("kind", "processor"), [("ViT", "ViT"), ("DeiT", "DeiT"), ("IJepa", "ViT")])
def test_the_model_wins_where_the_library_raises(tmp_path, caplog, kind, processor):
    config = getattr(peers.transformers, f"{kind}Config")(**SMALL, intermediate_size=96, image_size=32, patch_size=8)
    theirs = noise(getattr(peers.transformers, f"{kind}Model")(config), scale=0.1).eval()
    theirs.save_pretrained(tmp_path)
    stated = {"image_processor_type": f"{processor}ImageProcessor", "size": 48, "do_center_crop": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    with pytest.raises(ValueError, match=r"48.*32"):
        theirs(**prepared(tmp_path, photograph()))
    model = vit_zoo.load(tmp_path)
    assert model.spec.image_size == model.config.preprocess.size == (32, 32)
    (line,) = lines_of(caplog)
    assert "images of 48x48, but the model takes 32x32" in line
    assert "image_size=48 resizes the model" in line


def timm_folder(folder, pretrained_cfg, **arguments):
    model = peers.timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=5, **arguments
    )
    model = noise(model, scale=0.1).eval()
    args = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, **arguments}
    from timm.models import save_for_hf

    save_for_hf(model, folder, model_args=args, safe_serialization=True)
    document = json.loads((folder / "config.json").read_text())
    document["pretrained_cfg"] |= {"input_size": [3, 32, 32], "crop_pct": 0.9, **pretrained_cfg}
    (folder / "config.json").write_text(json.dumps(document))


def timm_logits(folder, image):
    model = peers.timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = peers.timm.data.create_transform(**peers.timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        return model(transform(image)[None])


@pytest.mark.parametrize(
    ("stated", "arguments", "size"),
    [
        ({"test_input_size": [3, 64, 64], "test_crop_pct": 1.0}, {}, (32, 32)),
        ({"input_size": [3, 48, 48], "fixed_input_size": False}, {"dynamic_img_size": True}, (48, 48)),
        ({"input_size": [3, 32, 32], "fixed_input_size": True}, {"dynamic_img_size": True}, (32, 32)),
        ({"input_size": [3, 224, 224], "fixed_input_size": True, "crop_pct": 0.875}, {}, (32, 32)),
    ],
    ids=["size for tests", "interpolates", "fixed", "size of the arguments"],
)
def test_timm_runs_at_this_size(tmp_path, stated, arguments, size):
    timm_folder(tmp_path, stated, **arguments)
    model = vit_zoo.load(tmp_path)
    assert model.spec.image_size == size
    wanted = timm_logits(tmp_path, photograph())
    with torch.inference_mode():
        given = model.eval()(torch.from_numpy(model.config.preprocess(photograph()))[None])
    assert relative(given, wanted) <= 1e-5


def test_the_command_line_says_it(tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hf_folder(tmp_path / "theirs", "dinov2")
    code, out, err = cli("show", "theirs")
    assert code == 0
    assert "42, 42" in next(line for line in out.splitlines() if line.startswith("image_size"))
    assert "its processor" in next(line for line in out.splitlines() if line.startswith("image_size"))
    assert "centre crop, margin rounded down" in out
    assert err.startswith("vitzoo: model.safetensors: the model takes images of 42x42")
    assert "--set image_size=70 keeps the stored size" in err
    assert err.count("\n") == 1
    code, out, err = cli("show", "theirs", "--set", "image_size=70")
    assert (code, err) == (0, "")
