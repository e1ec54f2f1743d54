"""Tests of wrong input on the command line: exit code, one line on stderr, and every file unchanged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import vit_zoo
from vit_zoo.cli.commands import vitzoo

COMMAND = [sys.executable, "-m", "vit_zoo.cli"]
TINY = """
name = "tiny"
extends = "vit_ti16"
image_size = 16
patch_size = 8
dim = 16
depth = 1
heads = 2
dim_head = 8
mlp_dim = 32
num_classes = 3
"""
LONG = "a" * 5000


def changed(config: dict, part: str, **fields: object) -> str:
    """The config with some fields of a part of it replaced, as text."""
    inner = {**config["vit_zoo"], part: {**config["vit_zoo"][part], **fields}} if part else {**config["vit_zoo"], **fields}
    return json.dumps({"vit_zoo": inner})


def damaged(change) -> bytes:
    """The exported file after a change to its protobuf."""
    model = onnx.load("tiny.onnx")
    change(model)
    return model.SerializeToString()


def moved_weight(model: onnx.ModelProto) -> None:
    """Say that a weight lies in a file that does not exist."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="gone.safetensors")


def say(*pairs: str):
    """Set metadata: keys, each followed by its value."""

    def change(model: onnx.ModelProto) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, its artifacts, and files of every wrong kind."""
    folder = tmp_path_factory.mktemp("place")
    here = Path.cwd()
    os.chdir(folder)
    try:
        _fill()
    finally:
        os.chdir(here)
    return folder


def _fill() -> None:
    files = {
        "tiny.toml": TINY, "text": "x", "nothing.onnx": "", "page.onnx": "<!DOCTYPE html>", "zeros": "\0" * 99,
        "broken.json": "{",
        "list.json": "[1]", "other.json": '{"architectures": ["ViT"]}', "newer.json": '{"vit_zoo": {"schema": 2}}',
        "bare.json": '{"vit_zoo": {"schema": 1}}', "pointer.safetensors": "version https://git-lfs.github.com/spec/v1\n",
        "unclosed.toml": "depth = [", "unknown.toml": "extends = 'vit_ti16'\ndepht = 3",
        "wide.toml": "extends = 'vit_b16'\ndim = 1_000_000",
        "pickle.pth": b"\x80\x04N.", "page.png": "<html>", "torn.pth": b"PK\x03\x04torn",
    }  # fmt: skip
    for name, content in files.items():
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("empty", "loose", "weightless", "pointer", "misfit", "newer"):
        Path(name).mkdir()
    vit_zoo.save(vit_zoo.create("tiny.toml"), "tiny")
    for done in vit_zoo.export("tiny", ["onnx", "torchscript"], verify="quick"):  # with self-checks, but without reports
        done.path.with_name(f"{done.path.name}.parity.json").unlink()
    with zipfile.ZipFile("tiny.torchscript.pt", "a") as archive:
        archive.comment = b"of another process"
    config, weights = json.loads(Path("tiny/config.json").read_text()), Path("tiny/model.safetensors").read_bytes()
    Path("loose/readme").write_text("x")
    Path("weightless/config.json").write_text(json.dumps(config))
    Path("pointer/config.json").write_text(json.dumps(config))
    Path("pointer/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    Path("misfit/config.json").write_text(changed(config, "spec", dim=32))
    Path("misfit/model.safetensors").write_bytes(weights)
    Path("newer/config.json").write_text(changed(config, "", schema=2))
    Path("newer/model.safetensors").write_bytes(weights)
    Path("cut.safetensors").write_bytes(weights[:-1])
    Path("labels.json").write_text(changed(config, "", labels=["one"]))
    Path("cut.onnx").write_bytes(Path("tiny.onnx").read_bytes()[:-40])
    Path("opset.onnx").write_bytes(damaged(lambda model: setattr(model.opset_import[0], "version", 99)))
    Path("domain.onnx").write_bytes(damaged(lambda model: setattr(model.graph.node[0], "domain", "evil")))
    Path("foreign.onnx").write_bytes(damaged(lambda model: model.metadata_props.__delitem__(slice(None))))
    Path("nonsense.onnx").write_bytes(damaged(say("vit_zoo", "{")))
    Path("deep.onnx").write_bytes(damaged(say("vit_zoo.export", '{"a":' + "[" * 100_000)))
    Path("outside.onnx").write_bytes(damaged(say("vit_zoo.export", '{"outputs": ["logits"], "data": "../model.safetensors"}')))
    Path("silent.onnx").write_bytes(damaged(say("vit_zoo.export", '{"data": "gone.safetensors"}')))
    Path("lonely.onnx").write_bytes(damaged(moved_weight))
    Path("wider.onnx").write_bytes(damaged(say("vit_zoo", changed(config, "spec", dim=32))))
    Path("unprepared.onnx").write_bytes(damaged(say("vit_zoo", changed(config, "", preprocess=None))))
    features = "vit_zoo", changed(config, "spec", num_classes=0), "vit_zoo.export", '{"outputs": ["pooler_output"]}'
    Path("features.onnx").write_bytes(damaged(say(*features)))
    vit_zoo.save(vit_zoo.create("tiny.toml", seed=1), "another")
    Path("link.onnx").symlink_to("tiny.onnx")
    os.mkfifo("pipe")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save("image.png")
    Path("half.png").write_bytes(Path("image.png").read_bytes()[:40])


def without_announcement(err):
    """Standard error without the line that announces random weights, before work that may fail."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("vitzoo: tiny has RANDOM WEIGHTS"))


# arguments, exit code, a part of the message
WRONG = [
    # the command line itself
    (["--nope"], 2, "No such option"),
    (["lsit"], 2, "Did you mean 'list'?"),
    (["list", "--nope"], 2, "see `vitzoo list --help`"),
    (["list", "-q", "-v"], 2, "contradict"),
    (["show"], 2, "Missing argument"),
    (["create"], 2, "Missing argument"),
    (["verify"], 2, "Missing argument"),
    (["predict"], 2, "Missing argument"),
    (["predict", "tiny.onnx"], 2, "Missing argument 'IMAGES"),
    (["completion"], 2, "Choose from: bash, zsh, fish"),
    (["completion", "powershell"], 2, "is not one of 'bash', 'zsh', 'fish'"),
    (["doctor", "me"], 2, "unexpected extra argument (me)"),
    # names
    (["list", "nope*"], 2, "no variant matches 'nope*'"),
    (["list", ""], 2, "no variant matches ''"),
    (["list", "["], 2, "no variant matches '['"),
    (["list", "vit_b16", "nope"], 2, "no variant matches 'nope'"),
    (["list", LONG], 2, "no variant matches 'aaaa"),
    (["show", "vit_b18"], 2, "no variant 'vit_b18'; nearest: "),
    (["show", ""], 2, "the name is empty"),
    (["show", "tiny", "--graph"], 2, "tiny: --graph needs an ONNX file"),
    (["show", "no.onnx", "--graph"], 2, "no.onnx: --graph needs an ONNX file"),
    (["show", "tiny.torchscript.pt", "--graph"], 2, "--graph needs an ONNX file, got a torchscript file"),
    (["show", "tiny.onnx", "--graph", "--code"], 2, "--code and --graph contradict each other"),
    (["show", "image.png", "--graph"], 7, "expected an exported file"),
    (["show", "../../x"], 2, "../../x: no such file or folder"),
    (["show", "/no/such"], 2, "no such file or folder"),
    (["show", "text/x"], 2, "no such file or folder"),
    (["show", "no.safetensors"], 2, "no such file or folder"),
    (["show", LONG], 2, "aaaa"),
    (["show", "a\nb"], 2, "no variant 'a\\nb'"),
    (["show", "\x1b[31mred"], 2, "no variant '\\x1b[31mred'"),
    (["show", "\udcff"], 2, "no variant '\\udcff'"),
    (["show", "vit_b16.some_tag"], 2, "no tag 'some_tag' for 'vit_b16'"),
    (["show", "vit_b16.augreg_in1"], 2, "nearest: augreg_in1k, augreg_in21k"),
    (["create", "vit_b16.augreg_in1k"], 2, "expected a name or a config, got a model with weights"),
    (["publish", "tiny", "nowhere"], 2, "expected a repository ORG/NAME, got 'nowhere'"),
    (["publish", "tiny", "org/name"], 2, "has RANDOM WEIGHTS"),
    (["pull", "org/name"], 5, "cannot reach the Hub"),
    (["export", "vit_b16.augreg_in1k", "--onnx"], 5, "hf-hub:timm/vit_base_patch16_224.augreg_in1k: cannot reach the Hub"),
    (["show", "small"], 2, "'small' is ambiguous: "),
    (["create", "vit_giant"], 2, "(choose from vit_g14, openclip_g14, dinov2_giant14, siglip_gopt16_256)"),
    (["export", "vit-small", "--onnx"], 2, "'vit-small' is ambiguous: "),
    (["show", "vit_s15"], 2, "(patch size 15 does not divide image size 224; nearest: 210 or 225)"),
    (["create", "vit_xl16"], 2, "(family vit has no size 'xl'; choose from mu, ti, s, m, b,"),
    (["create", "clip_b16_reg4"], 2, "(family clip has no suffix _reg"),
    (["show", "google/vit-base-patch16"], 2, "google/vit-base-patch16: no such file or folder"),
    (["list", "--where", "params<30M an dim==3"], 2, "where: expected 'and', 'or' or the end at character 12, got 'an'"),
    (["list", "--where", "parms<3"], 2, "where: unknown field 'parms' at character 1; nearest: params"),
    (["list", "--where", "params<1"], 2, "no variant satisfies params<1"),
    (["list", "--sort", "parms"], 2, "sort: unknown field 'parms'; nearest: params"),
    (["list", "--zoo", "nowhere"], 2, "nowhere: no such folder"),
    (["show", "vit_b16", "--zoo", "."], 2, "unclosed.toml: not valid TOML"),
    (["show", "hf-hub:org/name"], 5, "cannot reach the Hub"),
    (["convert", "vit_b16", "-o", "out"], 5, "cannot reach the Hub"),
    (["convert", "nothing.pth", "-o", "out"], 2, "no such file or folder"),
    (["convert", "tiny", "-o", "out", "--to", "timmm"], 2, "unknown target 'timmm'; nearest: timm"),
    (["convert", "tiny", "-o", "out", "--to", "torchvision", "--accept", "heads"], 2, "cannot accept a difference in 'heads'"),
    (["convert", "tiny", "-o", "out", "--to", "google", "--set", "grid=2,2"], 2, "the config states the grid"),
    (["convert", "tiny", "-o", "tiny", "--to", "timm"], 8, "is not empty"),
    (["convert", "tiny", "-o", "no/where", "--to", "timm"], 2, "no such folder"),
    (["convert", "tiny", "-o", "out.npz", "--to", "google"], 6, "google cannot express act = gelu, only gelu_tanh"),
    (["convert", "tiny", "-o", "out.npz", "--to", "timm"], 2, "'timm' is written as a .safetensors file or a folder"),
    (["convert", "tiny", "-o", "out", "--set", "resize=cubic"], 2, "unknown recipe 'cubic'"),
    (["convert", "tiny", "-o", "out", "--set", "resize=timm"], 2, "nothing is resized"),
    (["convert", "tiny", "-o", "out", "--allow-drop", "nothing.*"], 2, "no tensor matches 'nothing.*'"),
    # files and folders that are no model
    (["show", "."], 2, "contains several checkpoints"),
    (["show", "empty"], 2, "is empty"),
    (["show", "loose"], 2, "contains no model"),
    (["show", "weightless"], 2, "has a config.json but no model.safetensors"),
    (["show", "pointer"], 7, "git lfs pull"),
    (["show", "misfit"], 7, "'cls_token' has [1, 1, 16], needs [1, 1, 32]"),
    (["show", "newer"], 2, "upgrade vitzoo"),
    (["show", "pipe"], 7, "not a regular file"),
    (["show", "/dev/zero"], 7, "not a regular file"),
    (["show", "text"], 7, "text: expected a checkpoint, got a file of unknown type"),
    (["show", "zeros"], 7, "zeros: expected a checkpoint, got a file of unknown type"),
    (["show", "image.png"], 7, "expected a checkpoint, got an image"),
    (["show", "nothing.onnx"], 7, "nothing.onnx: expected a checkpoint, got an empty file"),
    (["show", "page.onnx"], 7, "HTML page"),
    (["show", "pointer.safetensors"], 7, "git-lfs pointer"),
    (["show", "cut.safetensors"], 7, "is truncated"),
    (["show", "pickle.pth"], 7, "bare pickle, which runs code"),
    (["show", "torn.pth"], 7, "damaged zip"),
    (["show", "broken.json"], 2, "broken.json: not valid JSON"),
    (["show", "list.json"], 7, "list.json"),
    (["show", "other.json"], 2, "not a config written by vitzoo"),
    (["show", "newer.json"], 2, "upgrade vitzoo"),
    (["show", "bare.json"], 2, "field 'name' is missing; field 'spec' is missing"),
    (["show", "labels.json"], 2, "1 labels for 3 classes"),
    (["show", "unclosed.toml"], 2, "unclosed.toml: not valid TOML"),
    (["show", "unknown.toml"], 2, "unknown field 'depht'; nearest: depth"),
    (["show", "wide.toml"], 2, "parameters; the limit is 10,000,000,000"),
    (["show", "nonsense.onnx"], 7, "metadata is not valid JSON"),
    (["show", "deep.onnx"], 7, "metadata is not valid JSON"),
    (["show", "cut.onnx"], 7, "not a complete ONNX file"),
    (["show", "tiny.onnx", "--set", "dim=32"], 2, "--set does not apply to an exported file"),
    # facts
    (["show", "vit_b16", "--set", "depth"], 2, "expected FIELD=VALUE, got 'depth'"),
    (["show", "vit_b16", "--set", "=3"], 2, "expected FIELD=VALUE, got '=3'"),
    (["show", "vit_b16", "--set", "depth=3", "--set", "depth=4"], 2, "'depth' is set twice"),
    (["show", "vit_b16", "--set", "depht=3"], 2, "unknown field 'depht'; nearest: depth"),
    *((["export", "tiny", "--onnx", "--set", f"{name}=x"], 2, f"unknown field '{name}'")
      for name in ("model", "weights", "name", "to", "seed", "out", "variant", "where", "self", "device")),
    (["show", "vit_b16", "--set", "depth=three"], 2, "depth = 'three': input should be a valid integer"),
    (["show", "vit_b16", "--set", "depth="], 2, "depth = ''"),
    (["show", "vit_b16", "--set", "depth=0"], 2, "depth = 0: input should be greater than or equal to 1"),
    (["show", "vit_b16", "--set", "depth=1.5"], 2, "depth = 1.5"),
    (["show", "vit_b16", "--set", "depth=true"], 2, "depth = True"),
    (["show", "vit_b16", "--set", "depth=1979-05-27"], 2, "depth = "),
    (["show", "vit_b16", "--set", "depth=3\nheads=4"], 2, "depth = '3\\nheads=4'"),
    (["show", "vit_b16", "--set", f"depth={'[' * 5000}"], 2, "depth = '[[["),
    (["show", "vit_b16", "--set", f"depth={'9' * 5000}"], 2, "depth = '999"),
    (["show", "vit_b16", "--set", "pool=clss"], 2, "pool = 'clss': input should be 'cls', 'mean', 'map', 'cls+mean' or 'none'"),
    (["show", "vit_b16", "--set", "image_size=225"], 2, "patch_size 16x16 does not divide image_size 225x225"),
    (["show", "vit_b16", "--set", "image_size=8,8,8"], 2, "image_size"),
    (["show", "tiny", "--set", "channels=1"], 2, "the config states channels = 3, not 1"),
    (["show", "tiny/config.json", "--set", "image_size=32"], 2, "preprocess.size (16, 16) must equal image_size (32, 32)"),
    # create
    (["create", "nope"], 2, "no variant 'nope'"),
    (["create", "tiny"], 2, "expected a name or a config, got a model with weights"),
    (["create", "tiny/model.safetensors"], 2, "expected a name or a config, got a model with weights"),
    (["create", "tiny.toml"], 8, "tiny: folder is not empty (use --force"),
    (["create", "tiny.toml", "-o", "text"], 8, "text: not a folder"),
    (["create", "tiny.toml", "-o", "text", "--force"], 8, "text: not a folder"),
    (["create", "tiny.toml", "-o", "pipe"], 8, "pipe: not a folder"),
    (["create", "tiny.toml", "-o", "no/such/folder"], 2, "no/such: no such folder"),
    (["create", "tiny.toml", "-o", "text/x"], 2, "text: no such folder"),
    (["create", "tiny.toml", "-o", LONG], 2, "File name too long"),
    (["create", "tiny.toml", "--seed", "-1"], 2, "-1 is not in the range"),
    (["create", "tiny.toml", "--seed", str(2**63)], 2, "is not in the range"),
    (["create", "tiny.toml", "--set", "heads=0"], 2, "heads = 0"),
    # export
    (["export", "tiny"], 2, "no format given; choose from --onnx"),
    (["export", "--onnx"], 2, "contains several checkpoints"),
    (["export", "nope", "--onnx"], 2, "no variant 'nope'"),
    (["export", "empty", "--onnx"], 2, "is empty"),
    (["export", "tiny.onnx", "--onnx"], 7, "expected a checkpoint, got an exported ONNX file"),
    (["export", "misfit", "--onnx"], 7, "tensors do not fit the model"),
    (["export", "tiny", "--torchscript", "--opset", "18"], 2, "opset and precision apply to ONNX only"),
    (["export", "tiny", "--pt2", "--external"], 2, "placement applies to ONNX only"),
    (["export", "tiny", "--onnx", "--opset", "12"], 2, "opset must be 13 to 25, got 12"),
    (["export", "tiny", "--onnx", "--opset", "26"], 2, "opset must be 13 to 25, got 26"),
    (["export", "tiny", "--onnx", "--opset", "16", "--dynamic", "hw"], 2, "core operators need an image of a fixed size"),
    (["export", "tiny", "--onnx", "--operators", "some"], 2, "'some' is not one of 'all', 'core'"),
    (["export", "tiny", "--onnx", "--operators", "core", "--include", "preprocess"], 2, "cannot be combined with preprocessing"),
    (["export", "tiny", "--onnx", "--batch", "0"], 2, "batch must be a whole number from 1 to 65536, got 0"),
    (["export", "tiny", "--onnx", "--batch", "x"], 2, "'x' is not a valid integer"),
    (["export", "tiny", "--onnx", "--batch", "1", "--dynamic", "hw"], 2, "a fixed batch makes every dimension static"),
    (["export", "tiny", "--onnx", "--batch", "1", "--triton", "t"], 2, "the server chooses the batch"),
    (["export", "tiny", "--pt2", "--batch", "1"], 2, "batch and operators apply to ONNX only"),
    (["export", "tiny", "--onnx", "--opset", "x"], 2, "'x' is not a valid integer"),
    (["export", "tiny", "--onnx", "--outputs", "logit"], 2, "unknown output 'logit'; choose from logits"),
    (["export", "tiny", "--onnx", "--outputs", ""], 2, "unknown output ''"),
    (["export", "tiny", "--onnx", "--outputs", "block.1"], 2, "unknown output 'block.1'"),
    (["export", "tiny", "--onnx", "--verify", "maybe"], 2, "'maybe' is not one of 'on', 'quick', 'full', 'off'"),
    (["export", "tiny", "--onnx", "-o", "no/such.onnx"], 2, "no: no such folder"),
    (["export", "tiny", "--onnx", "-o", "link.onnx"], 8, "is a symbolic link"),
    (["export", "tiny", "--onnx", "-o", "pipe"], 8, "not a regular file"),
    (["export", "tiny", "--onnx", "-o", LONG], 2, "File name too long"),
    (["export", "tiny", "--onnx", "-o", "a" * 250], 8, "File name too long"),
    (["export", "tiny", "--onnx", "--pt2", "-o", "one.onnx"], 2, "not a folder; several files need one"),
    (["export", "tiny.toml", "--onnx", "--shared"], 2, "--shared needs a safetensors file"),
    (["export", "vit_ti16", "--onnx", "--weights", "nope"], 2, "no variant 'nope'"),
    (["export", "vit_ti16", "--onnx", "--weights", "vit_b16"], 5, "cannot reach the Hub"),
    (["export", "vit_ti16", "--onnx", "--seed", "1"], 2, "seed applies only to random weights (add --random)"),
    (["export", "vit_ti16", "--onnx", "--random", "--weights", "tiny"], 2, "contradict each other"),
    (["export", "tiny", "--onnx", "--random"], 2, "expected a name or a config, got a model with weights"),
    (["export", "vit_b16.augreg_in1k", "--onnx", "--random"], 2, "expected a name or a config, got a model with weights"),
    (["export", "vit_b16", "--onnx"], 5, "--weights FILE for weights of yours; --random for random weights; or a tag"),
    (["export", "vit_b16", "--onnx", "--set", "depth=3"], 2, "the published weights have depth = 12, not 3 (--random makes"),
    (["export", "vit_mu16", "--onnx"], 5, "no published weights are known (--weights FILE"),
    (["export", "vit_b_16", "--onnx"], 5, "the weights 'torchvision_v1' of 'vit_b16' are at https://download.pytorch.org"),
    (["export", "deit3-base-p16_3rdparty_in1k", "--onnx"], 5, "no published weights by mmpretrain are known"),
    (["export", "google/vit-base-patch16-224", "--onnx"], 5, "hf-hub:google/vit-base-patch16-224: cannot reach the Hub"),
    (["export", "vit_ti16", "--onnx", "--weights", "tiny"], 2, "the config states dim = 16"),
    # verify
    (["verify", "no.onnx"], 2, "no.onnx: no such file or folder"),
    (["verify", LONG], 2, "no such file or folder"),
    (["verify", "empty"], 7, "a folder"),
    (["verify", "pipe"], 7, "not a regular file"),
    (["verify", "text"], 7, "expected an exported file, got a file of unknown type"),
    (["verify", "nothing.onnx"], 7, "an empty file"),
    (["verify", "page.onnx"], 7, "HTML page"),
    (["verify", "tiny/model.safetensors"], 7, "safetensors"),
    (["verify", "tiny.torchscript.pt"], 7, "contain code, which is not run"),
    (["verify", "cut.onnx"], 7, "not a complete ONNX file"),
    (["verify", "opset.onnx"], 7, "operator set 99 or IR version 9 is newer than the installed version"),
    (["verify", "domain.onnx"], 7, "operators of the domain 'evil' are not supported"),
    (["verify", "foreign.onnx"], 7, "has no vit_zoo metadata"),
    (["verify", "outside.onnx"], 7, "outside its folder"),
    (["verify", "silent.onnx"], 7, "vit_zoo.export: field 'outputs' is missing"),
    (["verify", "lonely.onnx"], 7, "needs gone.safetensors, which is not in the same folder"),
    (["verify", "wider.onnx"], 7, "the size of 'cls_token' contradicts the metadata"),
    (["verify", "tiny.onnx", "--set", "heads=2"], 2, "--set states facts about the --against model"),
    (["verify", "tiny.onnx", "--against", "nope"], 2, "no variant 'nope'"),
    (["verify", "tiny.onnx", "--against", "empty"], 2, "is empty"),
    (["verify", "tiny.onnx", "--against", "vit_ti16"], 5, "cannot reach the Hub"),
    # selfcheck
    (["selfcheck"], 2, "Missing argument"),
    (["selfcheck", "no.onnx"], 2, "no.onnx: no such file"),
    (["selfcheck", "empty"], 2, "empty: expected an exported file"),
    (["selfcheck", "pipe"], 2, "pipe: expected an exported file"),
    (["selfcheck", "image.png"], 7, "image.png: expected an exported file"),
    (["selfcheck", "foreign.onnx"], 7, "has no self-check"),
    (["selfcheck", "tiny.torchscript.pt"], 2, "contain code, which is not run"),
    (["selfcheck", "tiny.onnx", "--provider", "nope"], 2, "no execution provider 'nope' here; choose from"),
    (["selfcheck", "tiny.onnx", "--threads", "0"], 2, "is not in the range"),
    (["selfcheck", "tiny.onnx", "--tolerance", "0"], 2, "is not in the range"),
    (["selfcheck", "tiny.onnx", "--time-limit", "-1"], 2, "time-limit"),
    (["selfcheck", "tiny.onnx", "--memory-limit", "0.01"], 2, "memory-limit"),
    # predict
    (["predict", "tiny.onnx", "no.png"], 2, "no.png: no such file"),
    (["predict", "tiny.onnx", "image.png", "no.png"], 2, "no.png: no such file"),
    (["predict", "tiny.onnx", "empty"], 2, "empty: contains no images"),
    (["predict", "tiny.onnx", "pipe"], 7, "not a regular file"),
    (["predict", "tiny.onnx", "page.png"], 7, "page.png: cannot be read as an image"),
    (["predict", "tiny.onnx", "half.png"], 7, "half.png: cannot be read as an image"),
    (["predict", "tiny.onnx", LONG], 2, "no such file"),
    (["predict", "nope", "image.png"], 2, "no variant 'nope'"),
    (["predict", "vit_ti16", "image.png"], 5, "`vitzoo create vit_ti16` writes a folder"),
    (["predict", "tiny", "image.png", "--threads", "2"], 2, "threads applies to ONNX files only"),
    (["predict", "tiny.onnx", "image.png", "--threads", "0"], 2, "is not in the range"),
    (["predict", "tiny.onnx", "image.png", "--threads", "99999999999"], 2, "is not in the range"),
    (["predict", "tiny.onnx", "image.png", "--top", "0"], 2, "is not in the range"),
    (["predict", "tiny.torchscript.pt", "image.png"], 7, "contain code, which is not run"),
    (["predict", "foreign.onnx", "image.png"], 2, "has no preprocessing (state it: --preprocess"),
    (["predict", "features.onnx", "image.png"], 2, "gives features, not classes"),
    (["embed", "tiny.onnx", "image.png", "-o", "a.npy"], 2, "so the features must be named (it has logits [batch, "),
    (["embed", "tiny.onnx", "gone", "-o", "a.npy", "--output", "logits"], 2, "gone: no such file or folder"),
    (["embed", "tiny.onnx", "image.png", "-o", "a.txt"], 2, "must end in .parquet, .npy, .safetensors"),
    (["embed", "tiny.onnx", "image.png", "-o", "no/a.npy", "--output", "logits"], 2, "no: no such folder"),
    (["embed", "tiny.onnx", "features.onnx", "-o", "a.npy", "--output", "logits"], 2, "unknown suffix '.onnx'"),
    (["evaluate", "tiny.onnx", "gone"], 2, "gone: no such file or folder"),
    (["evaluate", "gone.onnx", "image.png"], 2, "gone.onnx: no such file"),
    (["bench", "gone.onnx"], 2, "gone.onnx"),
    (["bench", "tiny", "--runtimes", "abacus"], 2, "abacus"),
    (["probe", "tiny", "-o", "new"], 2, "no images given"),
    (["probe", "tiny", "image.png"], 2, "Missing option '-o'"),
    (["probe", "tiny", "empty", "-o", "new"], 2, "empty: contains no images"),
    (["probe", "tiny", "image.png", "-o", "new"], 2, "image.png: has no class"),
    (["probe", "tiny", "image.png", "-o", "another"], 8, "another: folder is not empty"),
    (["probe", "tiny", "image.png", "-o", "no/new"], 2, "no: no such folder"),
    (["probe", "tiny", "--classes", "text", "-o", "new"], 2, "text: expected embeddings of classes"),
    (["probe", "tiny", "--classes", "gone.npz", "-o", "new"], 2, "gone.npz: no such file"),
    (["probe", "tiny", "--classes", "pipe", "-o", "new"], 7, "pipe: not a regular file"),
    (["probe", "tiny", "--classes", "another/model.safetensors", "-o", "new"], 2, "has no 'embeddings'"),
    (["embed", "image.png", "image.png", "-o", "a.npy"], 7, "expected an exported file, got a file of kind image"),
    (["embed", "tiny.onnx", "image.png", "-o", "a.npy", "--column", "b", "--output", "logits"], 2,
     "--column b applies to CSV and Parquet tables"),
    (["predict", "unprepared.onnx", "image.png"], 2, "the config has no preprocessing"),
]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("arguments", "code", "fragment"), WRONG, ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None
)
def test_wrong_input(arguments, code, fragment, place, monkeypatch, cli):
    monkeypatch.chdir(place)
    before = contents(place)
    found, out, err = cli(*arguments)
    assert found == code
    line, end, rest = without_announcement(err).partition("\n")
    assert line.startswith("vitzoo: error: ")
    assert fragment in line
    assert line.isprintable()  # so it is one line
    assert (end, rest) == ("\n", "")
    assert len(line) < 1100
    assert out == ""
    assert contents(place) == before
    if arguments[0] in vitzoo.commands and arguments[0] != "completion":
        found, out, err = cli(*arguments, "--json")
        assert found == code
        document = json.loads(out)
        assert without_announcement(err) == f"{line}\n"
        names = ["missing", "unexpected", "misshapen"] if "tensors do not fit the model" in line else []
        assert list(document) == ["code", "kind", "message", "hint", *names]
        assert document["code"] == code
        assert contents(place) == before


def test_every_command_is_in_the_table():
    assert {arguments[0] for arguments, _, _ in WRONG} >= set(vitzoo.commands)


def test_no_arguments_show_the_help(cli):
    code, _, err = cli()
    assert code == 2
    assert "Usage: vitzoo" in err


def test_debug_shows_the_traceback_and_keeps_the_exit_code(cli):
    code, _, err = cli("show", "vit_b18", "--debug")
    assert code == 2
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-1].startswith("vitzoo: error: no variant 'vit_b18'")


def test_a_file_that_does_not_compute_its_reference(place, monkeypatch, cli):
    monkeypatch.chdir(place)
    before = contents(place)
    code, out, err = cli("verify", "tiny.onnx", "--against", "another")
    assert code == 3
    assert err.startswith("vitzoo: error: tiny.onnx: does not compute tiny, random weights of seed 1: weight 'cls_token'")
    assert err.count("\n") == 1
    assert "allowed" in out
    code, out, _ = cli("verify", "tiny.onnx", "--against", "another", "--json")
    assert code == 3
    document = json.loads(out)
    assert (document["code"], document["kind"], document["hint"]) == (3, "CheckFailed", "see tiny.onnx.parity.json")
    assert document["report"]["parting"]["place"] == "patch_embed.proj"
    report = Path("tiny.onnx.parity.json")
    assert json.loads(report.read_text())["ok"] is False
    report.unlink()
    assert contents(place) == before


def test_weights_that_are_not_finite_are_set_aside(place, folder, cli):
    Path("old.onnx").write_text("old")
    weights = (place / "tiny/model.safetensors").read_bytes()
    Path("model.safetensors").write_bytes(weights[:-8] + np.full(2, np.nan, np.float32).tobytes())
    Path("config.json").write_bytes((place / "tiny/config.json").read_bytes())
    code, _, err = cli("export", "--onnx", "-o", "old.onnx", "--force")
    assert code == 3
    assert "not finite; first divergence: head (set aside as old.onnx.rejected)" in err
    assert Path("old.onnx").read_text() == "old"
    made = {"old.onnx.rejected", "old.onnx.rejected.parity.json"}
    assert set(contents(Path())) == {"config.json", "model.safetensors", "old.onnx", *made}


@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_truncated_onnx_files_are_refused(part, place, folder, cli):
    whole = (place / "tiny.onnx").read_bytes()
    Path("cut.onnx").write_bytes(whole[: int(part * len(whole))])
    for verb in (["show"], ["verify"]):
        code, _, err = cli(*verb, "cut.onnx")
        assert code == 7
        assert "cut.onnx: not a complete ONNX file" in err
    assert list(contents(Path())) == ["cut.onnx"]


def shared(place: Path, **changes: str | None) -> None:
    """An exported file whose weights lie in a second one, with a change to where it says they are."""
    for name in ("config.json", "model.safetensors"):
        Path(name).write_bytes((place / "tiny" / name).read_bytes())
    vit_zoo.export(".", "onnx", placement="shared", verify=False)
    model = onnx.load("model.onnx", load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for entry in list(tensor.external_data):
        if changes.get(entry.key, "") is None:
            tensor.external_data.remove(entry)
        elif entry.key in changes:
            entry.value = changes[entry.key]
    Path("model.onnx").write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "changes",
    [{"location": "../secret"}, {"location": "/dev/zero"}, {"location": "gone"}, {"location": None}, {"offset": "-8"},
     {"offset": "9" * 15}, {"offset": "x"}, {"length": "4"}, {"length": "9" * 15}],
    ids=str,
)  # fmt: skip
def test_wrong_locations_of_external_weights_are_refused(changes, place, folder, cli):
    (folder.parent / "secret").write_bytes(bytes(100_000))
    shared(place, **changes)
    before = contents(folder)
    code, _, err = cli("verify", "model.onnx")
    assert code == 7
    assert err.startswith("vitzoo: error: model.onnx: ")
    assert err.count("\n") == 1
    assert contents(folder) == before


def test_another_weights_file_under_the_same_name_is_refused(place, folder, cli):
    shared(place)
    assert cli("verify", "model.onnx", "-q").code == 0
    for other, fragment in (
        ("another/model.safetensors", "was exported with another model.safetensors; export it again"),
        ("cut.safetensors", "of model.safetensors, which has"),
        ("pointer/model.safetensors", "git lfs pull"),
    ):
        Path("model.safetensors").write_bytes((place / other).read_bytes())
        for arguments in (["verify", "model.onnx"], ["predict", "model.onnx", str(place / "image.png")]):
            failed = arguments[0] == "verify" and other.startswith("another")  # a whole file, but not the right one
            code, _, err = cli(*arguments)
            assert code == (3 if failed else 7)
            assert fragment in err


def test_labels_cannot_move_the_cursor(place, folder, cli):
    config = json.loads((place / "tiny/config.json").read_text())
    Path("model.onnx").write_bytes((place / "tiny.onnx").read_bytes())
    model = onnx.load("model.onnx")
    say("vit_zoo", changed(config, "", labels=["\x1b[2J", "\x1b[2J\x07", "\x9b2J"]))(model)
    Path("model.onnx").write_bytes(model.SerializeToString())
    for arguments in (["predict", "model.onnx", str(place / "image.png"), "--top", "3"], ["show", "model.onnx"]):
        code, out, _ = cli(*arguments)
        assert code == 0
        assert "\\x1b[2J" in out
        assert out.replace("\n", "").isprintable()


# --- processes: streams that close, signals ---


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, timeout=60, check=False, **options)


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["show", "vit_b16"], ["show", "nope", "--json"], ["--help"]])
def test_a_closed_pipe_is_no_error(arguments):
    read, write = os.pipe()
    os.close(read)
    done = run(*arguments, stdout=write)
    os.close(write)
    assert done.returncode == (2 if "nope" in arguments else 0)
    assert done.stderr.count("\n") == ("nope" in arguments)


def test_a_shell_pipe_may_close_early():
    line = f"set -o pipefail; {' '.join(COMMAND)} list --long --json | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[\n", "")


def test_stdout_on_a_full_disk_is_an_error():
    with Path("/dev/full").open("w") as full:
        done = run("list", stdout=full)
    assert (done.returncode, done.stderr) == (8, "vitzoo: error: no space left: the disk is full\n")


def test_stdout_and_stderr_may_be_closed():
    line = " ".join(COMMAND)
    for streams, code in ((">&-", 0), (">&- 2>&-", 0)):
        assert subprocess.run(["bash", "-c", f"{line} list {streams}"], timeout=60, check=False).returncode == code


def test_names_that_the_terminal_cannot_encode(place, tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xc3\xa9.png"
    Path(os.fsdecode(name)).write_bytes((place / "image.png").read_bytes())
    for flags in ([], ["--json"]):
        done = run(
            "predict", str(place / "tiny.onnx"), os.fsdecode(name), *flags,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        assert done.returncode == 0
        assert "error" not in done.stderr
        assert "/\\udcff" in done.stdout


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_during_an_export_keeps_the_old_file(number, code, word, folder):
    Path("vit_ti16.onnx").write_text("old")
    with subprocess.Popen(
        [*COMMAND, "export", "vit_ti16", "--random", "--onnx", "--force", "-v"], stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if "writing vit_ti16.onnx" in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(60) == code
    assert rest.strip() == f"vitzoo: {word}"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"vit_ti16.onnx": "old"}


def test_a_full_disk_during_create_and_export(place, tmp_path):
    """A file size limit of 16 kB stands for the disk."""
    import resource

    (tmp_path / "tiny.onnx").write_text("old")
    for arguments in (["create", str(place / "tiny.toml"), "-o", "."], ["export", str(place / "tiny"), "--onnx"]):
        done = run(
            *arguments, "--force", cwd=tmp_path,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384)),
        )  # fmt: skip
        assert done.returncode == 8
        *announced, _ = done.stderr.splitlines()  # random weights are announced before they are written
        assert len(announced) == (arguments[0] == "export")
        assert "File too large" in done.stderr
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"tiny.onnx": "old"}


def test_a_new_folder_is_removed_when_writing_fails(tmp_path):
    import resource

    command = [sys.executable, "-m", "vit_zoo.cli", "create", "vit_digits"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))  # noqa: E731
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 8
    assert list(tmp_path.iterdir()) == []


def test_archives_of_programs_with_damaged_metadata(place, folder, cli):
    def write(content: bytes) -> None:
        with zipfile.ZipFile(place / "tiny.torchscript.pt") as source, zipfile.ZipFile("model.pt", "w") as archive:
            for name in source.namelist():
                archive.writestr(name, content if name.endswith("vit_zoo.json") else source.read(name))

    for content in (b"{", b"[]", b"{}", b'{"vit_zoo": 3}', b"\xff", b"{" + b" " * 5_000_000 + b"}"):
        write(content)
        for verb in ("show", "verify"):
            code, _, err = cli(verb, "model.pt")
            assert code == 7
            assert err.startswith("vitzoo: error: model.pt: ")
