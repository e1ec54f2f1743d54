"""Readers that are fuzzed: for each, valid inputs, their mutations, and the commands that read them."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from random import Random

from fuzz import mutations, onnx_mutations
from fuzz.case import Bytes, Case, mutated

Kept = set[int] | None
Maker = Callable[[Random, Path, Kept], Case]
PREPARED = ("--preprocess", "half")


@functools.cache
def _read(path: Path) -> bytes:
    return path.read_bytes()


def one_file(name: str, sources: list[str], mutation: list[Bytes], commands: list[str]) -> Maker:
    """Return a maker of cases of one file `name`, from one of the valid files."""

    def make(rng: Random, base: Path, kept: Kept) -> Case:
        data = _read(base / rng.choice(sources))
        arguments = rng.choice(commands).split()
        return Case(arguments, {name: mutated(data, rng, mutation, kept)})

    return make


def folder(source: str, targets: dict[str, list[Bytes]], commands: list[str]) -> Maker:
    """Return a maker of cases of a folder `m`: a valid one with one of the `targets` changed."""

    def make(rng: Random, base: Path, kept: Kept) -> Case:
        names = [path.name for path in sorted((base / source).iterdir())]
        target = rng.choice(list(targets))
        data = mutated(_read(base / source / target), rng, targets[target], kept)
        copies = {f"m/{name}": f"{source}/{name}" for name in names if name != target}
        if "processor_config.json" in names and target == "preprocessor_config.json":
            del copies["m/processor_config.json"]  # which comes before the other one
        return Case(rng.choice(commands).split(), {f"m/{target}": data}, copies)

    return make


# --- options and names ---

FIELDS = (
    "image_size", "patch_size", "channels", "dim", "depth", "heads", "dim_head", "mlp_dim", "num_classes", "class_token",
    "dist_token", "registers", "pos", "pos_covers",
    "patch_bias", "pre_norm", "norm_eps", "act", "mlp", "qkv_bias", "qk_norm", "attn_out", "layer_scale", "final_norm",
    "pool", "pool_tokens", "representation", "head_bias",
    "dropout", "drop_path", "grid", "resize", "problem_type", "nothing", "",
)  # fmt: skip
SAID = (
    "true", "false", "0", "1", "-1", "2", "16", "16,16", "0,0", "1,2,3", "16x16", "x", "", "a", "1e-6", "1e999", "nan", "inf",
    "None", "[]", "[1]", "{}", "²", "٣", "1_000",
    "0x10", " 2", "2 ", "+2", "2.0", "1e3", "99999999999", "9" * 30, "9" * 5000, "gelu", "cls", "mean", "timm", "swiglu",
    "learned", "?x", "\x1b[2J", "1,", ",", "true,false", "3,5,",
)  # fmt: skip
MODELS = (
    "BASE/timm",
    "BASE/hf",
    "BASE/tiny",
    "BASE/tiny.toml",
    "BASE/torchvision.pth",
    "BASE/google.npz",
    "BASE/open_clip",
    "BASE/keras",
    "vit_ti16",
    "vit_b16_reg4",
    "clip_b16",
)


def options(rng: Random, base: Path, kept: Kept) -> Case:
    """Return a case of `--set` values."""
    model = rng.choice(MODELS)
    command = rng.choice(
        (
            ["show", model],
            ["show", model],
            ["create", model, "-o", "out", "--dry-run"],
            ["convert", model, "-o", "out", "--to", rng.choice(("vitzoo", "timm", "hf"))],
        )
    )
    given = [(rng.choice(FIELDS), rng.choice(SAID)) for _ in range(rng.choice((1, 1, 2, 3)))]
    if command[0] != "show" and not model.startswith("BASE"):
        command = ["show", model]  # nothing large is made
    return Case(
        [
            *command,
            *(
                part
                for n, (name, value) in enumerate(given)
                if kept is None or n in kept
                for part in ("--set", f"{name}={value}")
            ),
        ]
    )


OTHER_OPTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--top", SAID), ("--threads", ("0", "-1", "x", "1", "9" * 30)), ("--mean", SAID), ("--std", SAID), ("--size", SAID),
    ("--crop", SAID),
    ("--interpolation", SAID), ("--labels", (*SAID, "a,b,c", "a,a,a", "BASE/image.png", "BASE/tiny.toml", "BASE")),
    ("--preprocess", (*SAID, "imagenet", "clip", "BASE/hf", "BASE/timm", "BASE/image.png")),
)  # fmt: skip


def predict_options(rng: Random, base: Path, kept: Kept) -> Case:
    """Return a case of the options of `predict`."""
    given = [(name, rng.choice(values)) for name, values in rng.sample(OTHER_OPTIONS, rng.choice((1, 2, 3)))]
    model = rng.choice(("BASE/tiny.onnx", "BASE/foreign.onnx", "BASE/mini.onnx"))
    return Case(
        [
            "predict",
            model,
            "BASE/image.png",
            *(part for n, pair in enumerate(given) if kept is None or n in kept for part in pair),
        ]
    )


PIECES = (
    "vit", "_b", "_s", "_ti", "16", "32", "14", "_224", "_384", ".augreg", ".a", "_reg4", "dinov2", "deit", "clip", "siglip",
    "google/", "timm/", "hf-hub:", "@main", "-", "/", "..", "\\",
    "\x1b[31m", "\n", "²", "٣", "\uff56", "é", "9" * 40, "a" * 300, "*", "[", "?", "{", "%s", "~", ":", "=", " ", "", "_", "B_16",
    "vit_base_patch16_224", "facebook/dinov2-base",
    "beit", "vit_large", "g14", "so400m", "_gap", "x", "0", "-1", "1.5",
)  # fmt: skip


def names(rng: Random, base: Path, kept: Kept) -> Case:
    """Return a case of a model name."""
    name = "".join(rng.choice(PIECES) for _ in range(rng.choice((1, 2, 3, 4, 6))))
    command = rng.choice(
        (["show"], ["show"], ["list"], ["list", "--where"], ["list", "--sort"], ["create", "--dry-run"], ["show", "--json"])
    )
    return Case([*command, *(["--"] if name.startswith("-") else []), name])


WORDS = (
    "params",
    "<",
    ">",
    "<=",
    "==",
    "!=",
    "and",
    "or",
    "(",
    ")",
    "1",
    "30M",
    "1e9",
    "dim",
    "heads",
    "name",
    "'vit'",
    "family",
    "not",
    "=",
    "~",
    '"',
    "1.5.2",
    "²",
    "9" * 400,
    "\x1b",
    "tags",
)


def queries(rng: Random, base: Path, kept: Kept) -> Case:
    """Return a case of a condition for `list`."""
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 12)))
    return Case(["list", "--where", text, *(["--sort", rng.choice(WORDS)] if rng.random() < 0.3 else [])])


SHOW, CONVERT = "show {}", "convert {} -o out.safetensors"


def _reads(name: str, *more: str) -> list[str]:
    return [
        SHOW.format(name),
        SHOW.format(name),
        f"{CONVERT.format(name)} --set heads=2",
        f"convert {name} -o out --to timm",
        *more,
    ]


def _onnx(source: list[str], mutation: list[Bytes], *, foreign: bool = True) -> Maker:
    if foreign:
        lines = [
            "show m.onnx",
            "verify m.onnx --against BASE/tiny --quick",
            "predict m.onnx BASE/image.png --preprocess half",
            "show m.onnx --graph",
        ]
    else:
        lines = [
            "show m.onnx",
            "verify m.onnx --quick",
            "predict m.onnx BASE/image.png",
            "verify m.onnx --against BASE/tiny --quick",
            "selfcheck m.onnx",
            "show m.onnx --graph",
            "show m.onnx --json",
        ]
    return one_file("m.onnx", source, mutation, lines)


PROGRAM = mutations.of_zip({".json": mutations.of_json, "data.pkl": mutations.of_pickle, ".py": mutations.of_bytes})
CONFIG = [mutations.of_json]
WITH_FOLDER = [
    "show m",
    "show m",
    "convert m -o out",
    "convert m -o out.safetensors",
    "export m --onnx --verify off -o e.onnx",
    "predict m BASE/image.png",
    "show m --json",
]
READERS: dict[str, Maker] = {
    "safetensors": one_file("m.safetensors", ["timm/model.safetensors", "tiny/model.safetensors", "hf/model.safetensors"],
        [mutations.of_safetensors], _reads("m.safetensors")),
    "torch": one_file("m.pth", ["torchvision.pth", "open_clip/open_clip_pytorch_model.bin"],
        [mutations.of_zip({"data.pkl": mutations.of_pickle})], _reads("m.pth")),
    "pickle": one_file("m.pth", ["plain.pkl"], [mutations.of_pickle], ["show m.pth"]),
    "npz": one_file("m.npz", ["google.npz"], [mutations.of_zip({".npy": mutations.of_npy})], _reads("m.npz")),
    "hdf5": folder("keras", {"model.weights.h5": [mutations.of_bytes], "config.json": CONFIG},
        ["show m", "show m", "convert m -o out", "show m/model.weights.h5"]),
    "torchscript": one_file("m.pt", ["script.pt", "tiny.torchscript.pt"], [PROGRAM], [*_reads("m.pt"), "verify m.pt"]),
    "pt2": one_file("m.pt2", ["tiny.pt2"], [PROGRAM], ["show m.pt2", "verify m.pt2", "predict m.pt2 BASE/image.png"]),
    "onnx_fields": _onnx(["foreign.onnx", "mini.onnx", "mini.onnx"], [onnx_mutations.of_fields]),
    "onnx_wire": _onnx(["foreign.onnx", "mini.onnx", "mini.onnx"], [onnx_mutations.of_wire]),
    "onnx_bytes": _onnx(["foreign.onnx", "mini.onnx"], [mutations.of_bytes]),
    "onnx_metadata": _onnx(["tiny.onnx"], [onnx_mutations.of_metadata("vit_zoo"),
        onnx_mutations.of_metadata("vit_zoo.export")], foreign=False),
    "onnx_ours": _onnx(["tiny.onnx"], [onnx_mutations.of_fields, onnx_mutations.of_wire], foreign=False),
    "report": one_file("m.onnx.parity.json", ["report.json"], CONFIG,
        ["show m.onnx.parity.json", "show m.onnx.parity.json --json"]),
    "config_ours": folder("tiny", {"config.json": CONFIG}, WITH_FOLDER),
    "config_hf": folder("hf", {"config.json": CONFIG, "preprocessor_config.json": CONFIG, "processor_config.json": CONFIG},
        WITH_FOLDER),
    "config_timm": folder("timm", {"config.json": CONFIG}, WITH_FOLDER),
    "config_open_clip": folder("open_clip", {"open_clip_config.json": CONFIG}, WITH_FOLDER[:5]),
    "config_keras": folder("keras", {"config.json": CONFIG}, WITH_FOLDER[:5]),
    "sharded": folder("sharded", {"model.safetensors.index.json": CONFIG}, ["show m", "convert m -o out"]),
    "toml": one_file("m.toml", ["tiny.toml", "clip.toml"], [mutations.of_toml],
        ["show m.toml", "create m.toml -o out --dry-run"]),
    "zoo": one_file("zoo/x.toml", ["family.toml"], [mutations.of_toml],
        ["list --zoo zoo", "show x_s16 --zoo zoo", "show vit_b16 --zoo zoo"]),
    "labels": one_file("labels.txt", ["labels.txt", "labels.json"], [mutations.of_lines, mutations.of_json],
        ["predict BASE/tiny.onnx BASE/image.png --labels labels.txt"]),
    "preprocess": one_file("p.json", ["hf/preprocessor_config.json", "hf/processor_config.json", "timm/config.json",
        "tiny/config.json", "open_clip/open_clip_config.json"], CONFIG,
        ["predict BASE/foreign.onnx BASE/image.png --preprocess p.json", "show BASE/torchvision.pth --set heads=2",
        "create BASE/tiny.toml -o out --dry-run --preprocess p.json"]),
    "images": one_file("a.png", [f"image.{kind}" for kind in ("png", "jpeg", "gif", "webp", "tiff", "bmp")],
        [mutations.of_png], ["predict BASE/tiny.onnx a.png"]),
    "options": options,
    "predict_options": predict_options,
    "names": names,
    "queries": queries,
}  # fmt: skip
SELDOM = {"queries", "names", "toml", "zoo", "pickle", "predict_options", "onnx_bytes"}  # quick, or little to find


def make_case(name: str, seed: str, base: Path, kept: Kept = None) -> Case:
    """Return the case of a reader and a seed."""
    return READERS[name](Random(f"{seed}:{name}"), base, kept)


def make_base(base: Path) -> None:
    """Write the valid inputs: the corpus's, and a few more. In a process that may import torch."""
    import json
    import pickle

    import numpy as np
    import onnx
    import torch
    from onnx import helper, numpy_helper
    from PIL import Image

    from corpus.base import make_base as make_corpus_base

    make_corpus_base(base)
    model = onnx.load(base / "foreign.onnx", load_external_data=False)
    images, logits = model.graph.input[0], model.graph.output[0]
    weights = [
        numpy_helper.from_array(np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3), "w"),
        numpy_helper.from_array(np.ones(3, np.float32), "b"),
        numpy_helper.from_array(np.array([1, 3, 16, 16], np.int64), "shape"), numpy_helper.from_array(np.float32(2), "two"),
    ]  # fmt: skip
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixel_values"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["g"], transB=1),
        helper.make_node("LayerNormalization", ["g", "b", "b"], ["n"], axis=-1, epsilon=1e-6),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5), "")),
        helper.make_node("Div", ["n", "two"], ["d"]), helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "half"], ["a"]), helper.make_node("Mul", ["n", "a"], ["m"]),
        helper.make_node("Softmax", ["m"], ["s"], axis=-1), helper.make_node("Transpose", ["s"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["s", "w"], ["mm"]),
        helper.make_node("Clip", ["mm", "", "two"], ["logits"]), helper.make_node("Gelu", ["t"], ["unused"], approximate="tanh"),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [images], [logits], weights)
    (base / "mini.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    )
    script = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3)))
    out = io.BytesIO()
    torch.jit.save(script, out)
    (base / "script.pt").write_bytes(out.getvalue())
    (base / "plain.pkl").write_bytes(pickle.dumps({"a": [1, 2.5, "x", None, (True, b"y")], "b": {"c": []}}, 2))
    (base / "labels.txt").write_text("cat\ndog\nbird\n")
    (base / "labels.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog", "2": "bird"}}))
    picture = Image.open(base / "image.png")
    for kind in ("jpeg", "gif", "webp", "tiff", "bmp"):
        picture.save(base / f"image.{kind}")
    (base / "sharded").mkdir()
    from safetensors.numpy import load_file, save_file

    tensors = load_file(base / "hf" / "model.safetensors")
    names_ = sorted(tensors)
    half = len(names_) // 2
    parts = {"a.safetensors": names_[:half], "b.safetensors": names_[half:]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, base / "sharded" / file)
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (base / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    (base / "sharded" / "config.json").write_bytes((base / "hf" / "config.json").read_bytes())
    (base / "family.toml").write_text(FAMILY)


FAMILY = """[family]
name = "x"
title = "X"
conventions = "none"

[spec]
extends = "vit_b16"
image_size = 224
num_classes = 1000
norm_eps = 1e-6
act = "gelu"
pool = "cls"

[preprocess]
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
crop = 0.9

[size]
s = { dim = 384, depth = 12, heads = 6, dim_head = 64, mlp_dim = 1536 }

[variant]
x_s16 = { size = "s", patch_size = 16, image_size = 224, params = 22_050_664, gmacs = 4.599 }
"""
