"""Bad configs: those of other libraries and of vitzoo, processors, zoo files, label files, metadata and reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from corpus.entry import FAILED, INPUT, REFUSED, Command, Entry, Maker, command, content

READ = (0, INPUT, REFUSED)
BAD = (INPUT, REFUSED)
NOT_REPRESENTABLE = 6
DIGITS = "@digits"  # replaced by an integer of 5,000 digits, which Python refuses to print
INFINITE = "@infinite"  # replaced by 1e999
NAN = "@nan"


def _base(folder: Path) -> Path:
    return folder.parent.parent / "base"


def _dumped(document: Any) -> str:
    text = json.dumps(document)
    for mark, number in ((DIGITS, "9" * 5000), (INFINITE, "1e999"), (NAN, "NaN")):
        text = text.replace(f'"{mark}"', number)
    return text


def replaced(document: Any, path: str, what: Any) -> Any:
    """Return a JSON document with the value at a dotted path replaced, or removed for `...`."""
    copy = json.loads(json.dumps(document))
    *parents, last = path.split(".")
    inner = copy
    for name in parents:
        inner = inner.setdefault(name, {}) if isinstance(inner, dict) else inner[int(name)]
    if what is ...:
        inner.pop(last, None)
    elif isinstance(inner, list):
        inner[int(last)] = what
    else:
        inner[last] = what
    return copy


def _copied(source: str, file: str, change: Callable[[str], str]) -> Maker:
    """Return a maker of a copy `m` of a valid folder with one file changed."""

    def make(folder: Path) -> None:
        shutil.copytree(_base(folder) / source, folder / "m")
        path = folder / "m" / file
        path.write_text(change(path.read_text() if path.exists() else "{}"))

    return make


def _field(source: str, file: str, path: str, what: Any) -> Maker:
    return _copied(source, file, lambda text: _dumped(replaced(json.loads(text), path, what)))


# file, field, bad values: each is an entry
SIZES: Sequence[Any] = ("a", [], True, 0, -1, None, [1, 2, 3], 10**30, {}, 2.5, DIGITS)
NUMBERS: Sequence[Any] = ("a", [], True, 0, -1, None, 10**30, {}, 2.5)
FIELDS: dict[str, tuple[tuple[str, str, Sequence[Any]], ...]] = {
    "hf": (
        ("config.json", "image_size", SIZES),
        ("config.json", "patch_size", SIZES),
        ("config.json", "hidden_size", NUMBERS),
        ("config.json", "num_hidden_layers", NUMBERS),
        ("config.json", "num_attention_heads", NUMBERS),
        ("config.json", "num_channels", ("a", [], True, 0, 10**30)),
        ("config.json", "layer_norm_eps", ("a", [], True, -1, {}, INFINITE, NAN)),
        ("config.json", "hidden_act", (1, [], {}, "os.system", True, "\x1b[2J")),
        ("config.json", "intermediate_size", ("a", [], True, 0, -1)),
        ("config.json", "qkv_bias", ("a", [], 3, {})),
        ("config.json", "model_type", (1, [], {}, True, "../../x", "\x1b[2J\n", "a" * 5000)),
        ("config.json", "architectures", (1, "a", {}, [1], [[]], True)),
        ("config.json", "id2label", (1, "a", [], [1], True, {"a": "b"}, {"0": 1}, {"0": None}, {"-1": "a"}, {"9" * 50: "a"},
        {"²": "a"})),
        ("config.json", "problem_type", (1, [], {}, "guess", True)),
        ("config.json", "num_labels", ("a", [], -1)),
        ("preprocessor_config.json", "size", (0, -1, "a", [], True, {"height": "a"}, {"shortest_edge": 10**30},
        {"height": []}, {})),
        ("preprocessor_config.json", "crop_size", (0, -1, "a", [], True, {"height": -1, "width": 2})),
        ("preprocessor_config.json", "image_mean", ("a", [], 1, [1], ["a", "b", "c"], [True] * 3, {}, [[1], [2], [3]],
        [INFINITE] * 3)),
        ("preprocessor_config.json", "image_std", ([0, 0, 0], [-1, 1, 1], "a", [], None, [NAN] * 3)),
        ("preprocessor_config.json", "resample", ("a", 99, -1, [], True, {})),
        ("preprocessor_config.json", "rescale_factor", ("a", [], 0, -1, {}, INFINITE)),
        ("preprocessor_config.json", "do_resize", ("a", [], {})),
        ("preprocessor_config.json", "image_processor_type", (1, [], {}, "../../x", "\x1b[2J")),
        ("processor_config.json", "image_processor", (1, "a", [], None, True)),
        ("processor_config.json", "image_processor.size", (1, "a", [], {"height": {}})),
    ),
    "timm": (
        ("config.json", "architecture", (1, [], {}, None, True, "../../x", "a" * 5000, "\x1b[2J")),
        ("config.json", "num_classes", ("a", [], True, -1, 10**30, {})),
        ("config.json", "global_pool", (1, [], {}, True, "nope")),
        ("config.json", "model_args", (1, "a", [], True)),
        ("config.json", "model_args.img_size", SIZES),
        ("config.json", "model_args.patch_size", SIZES),
        ("config.json", "model_args.embed_dim", NUMBERS),
        ("config.json", "model_args.depth", NUMBERS),
        ("config.json", "model_args.num_heads", NUMBERS),
        ("config.json", "model_args.mlp_ratio", ("a", [], True, 0, -1, {}, INFINITE, NAN)),
        ("config.json", "model_args.act_layer", (1, [], {}, "os.system", True)),
        ("config.json", "model_args.reg_tokens", ("a", [], True, -1, 10**30)),
        ("config.json", "model_args.class_token", ("a", [], 3)),
        ("config.json", "model_args.init_values", ("a", [], {})),
        ("config.json", "model_args.norm_layer", (1, [], {}, "os.system")),
        ("config.json", "pretrained_cfg", (1, "a", [], True)),
        ("config.json", "pretrained_cfg.input_size", (1, "a", [], [3], [3, "a", 16], [3, 0, 0], [3, -1, 16], [3, 10**30, 16],
        [True] * 3)),
        ("config.json", "pretrained_cfg.mean", ("a", 1, [], [1], ["a"] * 3, {}, [NAN] * 3)),
        ("config.json", "pretrained_cfg.std", ([0, 0, 0], [-1] * 3, "a", [])),
        ("config.json", "pretrained_cfg.crop_pct", ("a", [], 0, -1, 10**30, {}, NAN)),
        ("config.json", "pretrained_cfg.interpolation", (1, [], {}, "nope", True)),
        ("config.json", "pretrained_cfg.crop_mode", (1, [], {}, "nope")),
        ("config.json", "label_names", (1, "a", {}, [1], [None], [[]])),
    ),
    "open_clip": (
        ("open_clip_config.json", "model_cfg", (1, "a", [], None, True)),
        ("open_clip_config.json", "model_cfg.vision_cfg", (1, "a", [], None, True)),
        ("open_clip_config.json", "model_cfg.embed_dim", NUMBERS),
        ("open_clip_config.json", "model_cfg.vision_cfg.image_size", SIZES),
        ("open_clip_config.json", "model_cfg.vision_cfg.patch_size", SIZES),
        ("open_clip_config.json", "model_cfg.vision_cfg.layers", ("a", [], True, 0, [3, 4, 6, 3], 10**30)),
        ("open_clip_config.json", "model_cfg.vision_cfg.width", NUMBERS),
        ("open_clip_config.json", "model_cfg.vision_cfg.head_width", NUMBERS),
        ("open_clip_config.json", "model_cfg.vision_cfg.mlp_ratio", ("a", [], True, 0, -1, {}, NAN)),
        ("open_clip_config.json", "model_cfg.quick_gelu", ("a", [], 3)),
        ("open_clip_config.json", "preprocess_cfg", (1, "a", [], True)),
        ("open_clip_config.json", "preprocess_cfg.mean", ("a", 1, [], ["a"] * 3)),
        ("open_clip_config.json", "preprocess_cfg.std", ([0] * 3, "a", [])),
        ("open_clip_config.json", "preprocess_cfg.size", ("a", [], 0, -1, {}, 10**30)),
        ("open_clip_config.json", "preprocess_cfg.interpolation", (1, [], "nope")),
        ("open_clip_config.json", "preprocess_cfg.resize_mode", (1, [], "nope")),
    ),
    "keras": (
        ("config.json", "backbone", (1, "a", [], None)),
        ("config.json", "backbone.config", (1, "a", [], None)),
        ("config.json", "backbone.config.image_shape", ("a", 1, [], [32], ["a"] * 3, [0, 0, 3], [-1, 32, 3], [True] * 3,
        [10**30, 32, 3])),
        ("config.json", "backbone.config.patch_size", SIZES),
        ("config.json", "backbone.config.num_layers", NUMBERS),
        ("config.json", "backbone.config.num_heads", NUMBERS),
        ("config.json", "backbone.config.hidden_dim", NUMBERS),
        ("config.json", "backbone.config.layer_norm_epsilon", ("a", [], True, -1, {}, NAN)),
        ("config.json", "backbone.class_name", (1, [], {}, None)),
        ("config.json", "num_classes", ("a", [], True, -1, {})),
        ("config.json", "pooling", (1, [], {}, "nope")),
    ),
    "tiny": (
        ("config.json", "vit_zoo", (1, "a", [], None, True)),
        ("config.json", "vit_zoo.schema", (0, 2, "1", None, [], True, 10**30)),
        ("config.json", "vit_zoo.name", (1, [], None, "", "../../x", "/etc/x", "a" * 5000, "\x1b[2J\n", "a\0b", ".", "--help")),
        ("config.json", "vit_zoo.spec", (1, "a", [], None, {})),
        ("config.json", "vit_zoo.spec.image_size", SIZES),
        ("config.json", "vit_zoo.spec.patch_size", ("a", [], 0, [0, 0], [-1, 8], [True, True], [2.5, 8], [10**30, 1])),
        ("config.json", "vit_zoo.spec.dim", (*NUMBERS, 10**9, DIGITS)),
        ("config.json", "vit_zoo.spec.depth", (*NUMBERS, 10**9)),
        ("config.json", "vit_zoo.spec.heads", (*NUMBERS, 10**9)),
        ("config.json", "vit_zoo.spec.num_classes", ("a", -1, True, 10**12)),
        ("config.json", "vit_zoo.spec.registers", ("a", -1, True, 10**9)),
        ("config.json", "vit_zoo.spec.norm_eps", ("a", -1, [], True, INFINITE, NAN)),
        ("config.json", "vit_zoo.spec.act", (1, [], "os.system", None)),
        ("config.json", "vit_zoo.spec.pos", (1, [], "nope")),
        ("config.json", "vit_zoo.spec.pool", (1, [], "nope")),
        ("config.json", "vit_zoo.spec.dropout", ("a", -1, 2, NAN)),
        ("config.json", "vit_zoo.spec.unknown", (1,)),
        ("config.json", "vit_zoo.preprocess", (1, "a", [], {})),
        ("config.json", "vit_zoo.preprocess.size", ("a", 1, [], [0, 0], [-1, 1], [10**9, 10**9], [True, True])),
        ("config.json", "vit_zoo.preprocess.resize_to", ("a", 0, -1, [], 10**30)),
        ("config.json", "vit_zoo.preprocess.mean", ("a", 1, [], [1], ["a"] * 3, [NAN] * 3)),
        ("config.json", "vit_zoo.preprocess.std", ([0] * 3, [-1] * 3, "a")),
        ("config.json", "vit_zoo.preprocess.interpolation", (1, [], "nope")),
        ("config.json", "vit_zoo.labels", (1, "a", ["a"], [1, 2, 3], {}, ["a"] * 30_000)),
        ("config.json", "vit_zoo.random_seed", ("a", [], -1, True, 10**30)),
        ("config.json", "vit_zoo.problem_type", (1, [], "nope")),
        ("config.json", "vit_zoo.nothing", (1,)),
    ),
}  # fmt: skip
# configs of other libraries have fields that are not read, because the tensors or the library's convention tell the same;
# ours are read, but for these
LEGAL: set[str] = set()


def _value_name(what: Any) -> str:
    text = _dumped(what) if not isinstance(what, str) else what
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text)[:24] or "empty"


def _field_entries() -> list[Entry]:
    found = []
    for source, rows in FIELDS.items():
        for file, path, values in rows:
            for number, what in enumerate(values):
                name = f"config_{source}/{path.replace('.', '_')}_{number}_{_value_name(what)}"
                codes = BAD if source == "tiny" and name.partition("/")[2] not in LEGAL else READ
                lines = [
                    command("show m", *codes, names="m"),
                    command("convert m -o OUT/c", *codes, NOT_REPRESENTABLE, names="m"),
                ]
                found.append(Entry(name, _field(source, file, path, what), tuple(lines)))
    return found


# --- whole documents ---

MERGES = "\n".join([
    "a0: &a0 {k: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]}}" for i in range(1, 20)),
])  # fmt: skip
LAUGHS = "\n".join(["a0: &a0 lol", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12))])
DOCUMENTS: dict[str, str] = {
    "empty": "",
    "cut": '{"model_type": "vit", ',
    "list": "[1]",
    "number": "1",
    "null": "null",
    "text": '"vit"',
    "nan": '{"model_type": "vit", "image_size": NaN}',
    "infinite": '{"model_type": "vit", "image_size": 1e999}',
    "duplicate": '{"model_type": "vit", "model_type": "deit"}',
    "deep": '{"a":' + "[" * 100_000,
    "deep_closed": '{"model_type": "vit", "a":' + "[" * 900 + "]" * 900 + "}",
    "digits": '{"model_type": "vit", "hidden_size": ' + "9" * 5000 + "}",
    "not_utf8": '{"model_type": "v\udcff"}',
    "of_5_mb": '{"model_type": "vit", "x": "' + "x" * 5_000_000 + '"}',
    "keys_100k": json.dumps({str(i): i for i in range(100_000)}),
    "labels_100k": json.dumps({"model_type": "vit", "id2label": {str(i): "x" for i in range(100_000)}}),
    "yaml_merges": MERGES,
    "yaml_laughs": LAUGHS,
    "trailing": '{"model_type": "vit"} x',
    "nul": '{"model_type": "v\0t"}',
    "html": "<!DOCTYPE html>",
    "lfs": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "unknown": '{"architectures": ["ResNet"], "model_type": "resnet"}',
    "empty_object": "{}",
    "auto_map": '{"model_type": "vit", "auto_map": {"AutoModel": "evil.Model"}, "architectures": ["Evil"]}',
}


def _document(text: str) -> Maker:
    def make(folder: Path) -> None:
        shutil.copytree(_base(folder) / "hf", folder / "m")
        (folder / "m" / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    return make


def _documents() -> list[Entry]:
    found = []
    for name, text in DOCUMENTS.items():
        raw = text.encode("utf-8", "surrogateescape")
        found += [
            Entry(f"document/folder_{name}", _document(text), (command("show m", *READ, names="m"),)),
            Entry(f"document/processor_{name}", _processor(raw), (command("show m", *READ, names="m"),)),
            Entry(
                f"document/labels_{name}",
                content("labels.json", raw),
                (command("predict BASE/tiny.onnx BASE/image.png --labels labels.json", *BAD),),
            ),
            Entry(
                f"document/preprocess_{name}",
                content("prepare.json", raw),
                (command("predict BASE/foreign.onnx BASE/image.png --preprocess prepare.json", *BAD),),
            ),
            Entry(f"document/config_{name}", content("config.json", raw), (command("create config.json -o OUT/m", *BAD),)),
        ]
    return found


def _processor(raw: bytes) -> Maker:
    def make(folder: Path) -> None:
        shutil.copytree(_base(folder) / "hf", folder / "m")
        (folder / "m" / "processor_config.json").unlink()
        (folder / "m" / "preprocessor_config.json").write_bytes(raw)

    return make


# --- zoo files and label files ---

SPEC = 'name = "tiny"\nextends = "vit_ti16"\n'
TOML: dict[str, str] = {
    "unclosed": "depth = [",
    "unknown_field": SPEC + "depht = 3",
    "extends_itself": 'name = "a"\nextends = "a"',
    "extends_number": "extends = 1",
    "extends_list": 'extends = ["vit_ti16"]',
    "extends_path": 'extends = "../../vit_ti16"',
    "extends_missing": 'name = "a"\ndim = 8',
    "name_path": 'name = "../../x"\nextends = "vit_ti16"',
    "name_escapes": 'name = "\\u001b[2J\\n"\nextends = "vit_ti16"',
    "name_of_5000": f'name = "{"a" * 5000}"\nextends = "vit_ti16"',
    "name_number": 'name = 1\nextends = "vit_ti16"',
    "dim_huge": SPEC + "dim = 1_000_000",
    "dim_2_to_the_63": SPEC + f"dim = {2**63 - 1}",
    "dim_digits": SPEC + "dim = " + "9" * 5000,
    "dim_hex": SPEC + "dim = 0x" + "f" * 5000,
    "dim_true": SPEC + "dim = true",
    "dim_text": SPEC + 'dim = "192"',
    "dim_float": SPEC + "dim = 192.5",
    "dim_infinite": SPEC + "dim = inf",
    "dim_date": SPEC + "dim = 2026-01-01",
    "depth_0": SPEC + "depth = 0",
    "depth_million": SPEC + "depth = 1000000",
    "depth_negative": SPEC + "depth = -1",
    "heads_0": SPEC + "heads = 0",
    "image_size_list": SPEC + "image_size = [224, 224, 224]",
    "image_size_empty": SPEC + "image_size = []",
    "image_size_0": SPEC + "image_size = 0",
    "image_size_huge": SPEC + "image_size = 16_000_000",
    "patch_size_0": SPEC + "patch_size = 0",
    "eps_nan": SPEC + "norm_eps = nan",
    "duplicate": SPEC + "dim = 8\ndim = 16",
    "dots_20000": SPEC + "a" + ".a" * 20_000 + " = 1",
    "tables_deep": "[" + ".".join(["a"] * 3000) + "]",
    "arrays_deep": SPEC + "dim = " + "[" * 50_000,
    "not_utf8": SPEC + "act = '\udcff'",
    "nul": SPEC + "act = '\0'",
    "of_5_mb": SPEC + "# " + "x" * 5_000_000,
    "keys_100k": SPEC + "\n".join(f"a{i} = {i}" for i in range(100_000)),
    "empty": "",
    "json": '{"a": 1}',
    "family_without_variant": '[family]\nname = "x"',
    "family_of_numbers": "[family]\nname = 1\n[variant]\nx = 1",
    "variant_list": '[family]\nname = "x"\n[variant]\nx = [1]',
}
FAMILY = '[family]\nname="x"\ntitle="X"\nconventions="c"\n[spec]\nextends="vit_b16"\n[variant]\n'
ZOO: dict[str, str] = {name: text for name, text in TOML.items() if name != "empty"} | {
    "variant_huge": FAMILY + "x1 = { dim = 99999999999999 }",
    "variant_text": FAMILY + 'x1 = { dim = "a" }',
    "variant_path": FAMILY + '"../../x" = { dim = 8 }',
}
LABELS: dict[str, bytes] = {
    "empty": b"",
    "one": b"a\n",
    "four": b"a\nb\nc\nd\n",
    "not_utf8": b"a\n\xff\nc\n",
    "blank_lines": b"\n\n\n",
    "binary": bytes(range(256)),
    "of_5_mb": b"x" * 5_000_000,
    "lines_million": b"\n".join(b"%d" % i for i in range(600_000)),
    "json_list": b'["a", "b"]',
    "json_numbers": b"[1, 2, 3]",
    "json_null": b"[null, null, null]",
    "json_map_gap": b'{"0": "a", "2": "c", "3": "d"}',
    "json_map_text": b'{"a": "a", "b": "c", "c": "d"}',
    "json_map_negative": b'{"-1": "a", "0": "b", "1": "c"}',
    "json_map_superscript": '{"²": "a", "0": "b", "1": "c"}'.encode(),
    "json_map_digits": b'{"' + b"9" * 5000 + b'": "a", "0": "b", "1": "c"}',
    "json_lists": b'[["a"], ["b"], ["c"]]',
    "json_deep": b"[" * 100_000,
    "id2label_number": b'{"id2label": 1}',
    "id2label_list": b'{"id2label": [1]}',
    "pickle": b"\x80\x02cos\nsystem\n(X\x0b\x00\x00\x00touch PWNEDtR.",
    "html": b"<!DOCTYPE html>",
}
HALF = {"size": [16, 16], "resize_to": 16, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
PREPARE: dict[str, Any] = {
    "mean_text": {**HALF, "mean": "a"},
    "mean_two": {**HALF, "mean": [0.5, 0.5]},
    "mean_nan": {**HALF, "mean": [NAN] * 3},
    "std_0": {**HALF, "std": [0, 0, 0]},
    "size_huge": {**HALF, "size": [10**9, 10**9]},
    "size_negative": {**HALF, "size": [-1, 16]},
    "size_text": {**HALF, "size": "16"},
    "resize_huge": {**HALF, "resize_to": 10**9},
    "nested": {"vit_zoo": {"vit_zoo": {}}},
    "processor_number": {"image_processor_type": 7},
    "processor_other": {"image_processor_type": "DonutImageProcessor", "size": {}},
    "pretrained_cfg_number": {"pretrained_cfg": 7},
    "pretrained_cfg_input": {"pretrained_cfg": {"input_size": "a", "mean": None}},
    "huge_numbers": {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 10**30, "width": 10**30}, "image_mean": [1e308] * 3,
    },
}  # fmt: skip

# --- metadata of exported files, and reports ---


def _metadata(key: str, change: Callable[[Any], Any]) -> Maker:
    """Return a maker of our ONNX file with other metadata: `change` returns a document, or the text itself."""

    def make(folder: Path) -> None:
        import onnx

        model = onnx.load(_base(folder) / "tiny.onnx")
        entry = next(one for one in model.metadata_props if one.key == key)
        new = change(json.loads(entry.value))
        entry.value = new if isinstance(new, str) else _dumped(new)
        (folder / "m.onnx").write_bytes(model.SerializeToString(deterministic=True))

    return make


def _program(file: str, change: Callable[[Any], Any]) -> Maker:
    """Return a maker of our TorchScript or .pt2 file with other metadata."""

    def make(folder: Path) -> None:
        import zipfile

        with zipfile.ZipFile(_base(folder) / file) as given, zipfile.ZipFile(folder / file, "w") as made:
            for item in given.infolist():
                data = given.read(item)
                if item.filename.endswith("vit_zoo.json"):
                    new = change(json.loads(data))
                    data = (new if isinstance(new, str) else _dumped(new)).encode()
                made.writestr(item, data)

    return make


EXPORTS: tuple[tuple[str, Sequence[Any]], ...] = (
    (
        "outputs",
        (
            3,
            "logits",
            [],
            [1],
            [None],
            {},
            None,
            ["logits", "logits"],
            ["nowhere"],
            ["x" * 5000],
            ["block.99"],
            ["block.\u00b2"],
            ...,
        ),
    ),
    ("opset", ("a", [], -1, 10**30, None, True)),
    ("placement", (1, [], "nowhere", None)),
    ("data", (1, [], "../secret", "/dev/zero", "", "m.onnx", "a\0b", "x" * 5000)),
    ("precision", (1, [], "fp12", None, "int8-static")),
    ("verify", (1, [], "maybe")),
    ("version", (1, [], None, "\x1b[2J\n")),
    ("weights_sha256", (1, [], "x", None, "0" * 64)),
    ("include", (1, [], "softmax", ["nope"], [1])),
    ("dynamic", (1, [], "hw", "nope")),
    ("axes", (1, "a", [1])),
)
CONFIGS: tuple[tuple[str, Any], ...] = (
    ("list", [1]), ("number", 1), ("null", None), ("empty", {}), ("inner_list", {"vit_zoo": []}), ("cut", "{"),
    ("deep", '{"a":' + "[" * 100_000),
    ("digits", '{"vit_zoo": {"schema": ' + "9" * 5000 + "}}"), ("nan", '{"vit_zoo": {"schema": NaN}}'),
    ("of_5_mb", '{"a": "' + "x" * 5_000_000 + '"}'),
    ("duplicate", '{"vit_zoo": {}, "vit_zoo": {}}'), ("text", "x"), ("empty_text", ""),
)  # fmt: skip
SPECS: tuple[tuple[str, Any], ...] = (
    ("spec.dim", "a"), ("spec.dim", 10**9), ("spec.depth", 0), ("spec.depth", 10**6), ("spec.depth", 2),
    ("spec.image_size", [32, 32]),
    ("spec.image_size", [10**6, 10**6]), ("spec.heads", 3), ("spec.num_classes", 10**9), ("spec.num_classes", 0),
    ("spec.patch_size", [0, 0]),
    ("spec.channels", 0), ("spec.channels", 4), ("spec.act", []), ("spec", []), ("preprocess", 3), ("preprocess.mean", ["a"]),
    ("preprocess.size", [64, 64]), ("preprocess.resize_to", 10**9), ("labels", 3), ("labels", ["a"]), ("labels", [1, 2, 3]),
    ("name", 3),
    ("name", "../../x"), ("name", "\x1b[2J"), ("random_seed", "a"), ("random_seed", 10**30), ("problem_type", 3),
    ("schema", "1"), ("source", 3),
)  # fmt: skip


def _metadata_entries() -> list[Entry]:
    found = []
    for file, group in (
        ("m.onnx", "metadata_onnx"),
        ("tiny.torchscript.pt", "metadata_torchscript"),
        ("tiny.pt2", "metadata_pt2"),
    ):
        changes: list[tuple[str, str, Callable[[Any], Any]]] = []
        for path, values in EXPORTS:
            changes += [
                (f"export_{path}_{number}_{_value_name('missing' if what is ... else what)}", "vit_zoo.export",
                 lambda document, path=path, what=what: replaced(document, path, what))
                for number, what in enumerate(values)
            ]  # fmt: skip
        changes += [(f"export_{name}", "vit_zoo.export", lambda document, what=what: what) for name, what in CONFIGS]
        changes += [(f"config_{name}", "vit_zoo", lambda document, what=what: what) for name, what in CONFIGS]
        changes += [
            (f"{path.replace('.', '_')}_{number}_{_value_name(what)}", "vit_zoo",
             lambda document, path=path, what=what: replaced(document, f"vit_zoo.{path}", what))
            for number, (path, what) in enumerate(SPECS)
        ]  # fmt: skip
        for name, key, change in changes:
            if file == "m.onnx":
                lines = (
                    command("show m.onnx", *READ),
                    command("verify m.onnx", 0, FAILED, *BAD, session=True),
                    command("predict m.onnx BASE/image.png", *READ, session=True),
                )
                found.append(Entry(f"{group}/{name}", _metadata(key, change), lines))
            elif name.startswith(("config_", "spec", "labels", "name")) or "outputs" in name:
                lines = (command(f"show {file}", *READ), command(f"verify {file}", REFUSED))
                found.append(Entry(f"{group}/{name}", _program(file, partial(_in_program, key, change)), lines))
    return found


def _in_program(key: str, change: Callable[[Any], Any], document: Any) -> Any:
    """Return the document of a program, whose two parts are what ONNX files have as two entries."""
    if key == "vit_zoo":
        new = change({"vit_zoo": document["vit_zoo"]})
        return {**document, **new} if isinstance(new, dict) else new
    part = next((name for name in document if name != "vit_zoo"), "export")
    return {**document, part: change(document.get(part, {}))}


def _report(change: Callable[[Any], Any] | str) -> Maker:
    """Return a maker of our ONNX file with a parity report beside it: the valid one changed, or a text."""

    def make(folder: Path) -> None:
        shutil.copy(_base(folder) / "tiny.onnx", folder / "m.onnx")
        valid = json.loads((_base(folder) / "report.json").read_text())
        text = change if isinstance(change, str) else _dumped(change(valid))
        (folder / "m.onnx.parity.json").write_text(text)

    return make


REPORTS: tuple[tuple[str, Any], ...] = (
    ("ok", "yes"), ("ok", 1), ("verdict", "fine"), ("precision", 3), ("effort", []), ("file", 3), ("file", "../../x"),
    ("sha256", 3), ("reference", None),
    ("comparisons", []), ("comparisons", 3), ("comparisons", [1]), ("comparisons", [{}]), ("comparisons.0.relative", "a"),
    ("comparisons.0.relative", INFINITE),
    ("comparisons.0.batch", -1), ("comparisons.0.output", 3), ("agreements", 3), ("agreements", [{}]), ("blocks", "x"),
    ("parting", 3), ("parting", {}),
    ("faults", "x"), ("faults", [1]), ("faults", ["\x1b[2J\n"]), ("skipped", 3), ("tolerance", []), ("machine", 3),
    ("versions", None), ("headroom", "a"),
    ("schema_version", 99), ("schema_version", "2"), ("unknown", 1), ("reference", "\x1b[2J\n"), ("verdict", "approximate"),
)  # fmt: skip
REPORT_TEXTS = {
    "cut": "{",
    "list": "[1]",
    "deep": "[" * 100_000,
    "digits": '{"ok": ' + "9" * 5000 + "}",
    "empty": "",
    "text": "x",
    "of_5_mb": '"' + "x" * 5_000_000,
}


def _reports() -> list[Entry]:
    lines: tuple[Command, ...] = (command("show m.onnx.parity.json", *READ), command("show m.onnx", *READ, names="m.onnx"))
    found = [
        Entry(
            f"report/{path.replace('.', '_')}_{number}_{_value_name(what)}",
            _report(lambda document, path=path, what=what: replaced(document, path, what)),
            lines,
        )
        for number, (path, what) in enumerate(REPORTS)
    ]
    return found + [Entry(f"report/{name}", _report(text), lines) for name, text in REPORT_TEXTS.items()]


def _zoo(text: str) -> Maker:
    return content("zoo/x.toml", text.encode("utf-8", "surrogateescape"))


ENTRIES = [
    *_field_entries(),
    *_documents(),
    *(
        Entry(
            f"toml/{name}",
            content("m.toml", text.encode("utf-8", "surrogateescape")),
            (command("create m.toml -o OUT/m", *BAD), command("show m.toml", *BAD)),
        )
        for name, text in TOML.items()
    ),
    *(
        Entry(f"zoo/{name}", _zoo(text), (command("show vit_b16 --zoo zoo", *BAD), command("list --zoo zoo", *BAD, names="zoo")))
        for name, text in ZOO.items()
    ),
    *(
        Entry(
            f"labels/{name}",
            content("labels.txt", data),
            (command("predict BASE/tiny.onnx BASE/image.png --labels labels.txt", *BAD),),
        )
        for name, data in LABELS.items()
    ),
    *(
        Entry(
            f"prepare/{name}",
            content("prepare.json", _dumped(what)),
            (command("predict BASE/foreign.onnx BASE/image.png --preprocess prepare.json", *BAD),),
        )
        for name, what in PREPARE.items()
    ),
    *_metadata_entries(),
    *_reports(),
]
