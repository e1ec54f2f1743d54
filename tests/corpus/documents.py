"""Bad documents: JSON in the place of configs and processors, zoo files, labels, and files of preprocessing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from corpus.changes import BAD, NAN, READ, base_of, dumped
from corpus.entry import Entry, Maker, command, content

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
        shutil.copytree(base_of(folder) / "hf", folder / "m")
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
                (command("predict BASE/tiny.onnx BASE/image.png --labels labels.json", *BAD, names="label"),),
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
        shutil.copytree(base_of(folder) / "hf", folder / "m")
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


def _zoo(text: str) -> Maker:
    return content("zoo/x.toml", text.encode("utf-8", "surrogateescape"))


ENTRIES = [
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
            (command("predict BASE/tiny.onnx BASE/image.png --labels labels.txt", *BAD, names="label"),),
        )
        for name, data in LABELS.items()
    ),
    *(
        Entry(
            f"prepare/{name}",
            content("prepare.json", dumped(what)),
            (command("predict BASE/foreign.onnx BASE/image.png --preprocess prepare.json", *BAD),),
        )
        for name, what in PREPARE.items()
    ),
]
