"""Configs of other libraries, of processors and of vitzoo with values of other types and ranges."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from corpus.changes import BAD, DIGITS, INFINITE, NAN, NOT_REPRESENTABLE, READ, base_of, dumped, replaced, value_name
from corpus.entry import Entry, Maker, command


def _copied(source: str, file: str, change: Callable[[str], str]) -> Maker:
    """Return a maker of a copy `m` of a valid folder with one file changed."""

    def make(folder: Path) -> None:
        shutil.copytree(base_of(folder) / source, folder / "m")
        path = folder / "m" / file
        path.write_text(change(path.read_text() if path.exists() else "{}"))

    return make


def _field(source: str, file: str, path: str, what: Any) -> Maker:
    return _copied(source, file, lambda text: dumped(replaced(json.loads(text), path, what)))


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
        ("config.json", "vit_zoo.random_seed", ("a", [], 1.5, True, 10**30)),
        ("config.json", "vit_zoo.problem_type", (1, [], "nope")),
        ("config.json", "vit_zoo.nothing", (1,)),
    ),
}  # fmt: skip
# configs of other libraries have fields that are not read, because the tensors or the library's convention tell the same;
# ours are read, but for these
LEGAL: set[str] = set()


def _field_entries() -> list[Entry]:
    found = []
    for source, rows in FIELDS.items():
        for file, path, values in rows:
            for number, what in enumerate(values):
                name = f"config_{source}/{path.replace('.', '_')}_{number}_{value_name(what)}"
                codes = BAD if source == "tiny" and name.partition("/")[2] not in LEGAL else READ
                lines = [
                    command("show m", *codes, names="m"),
                    command("convert m -o OUT/c", *codes, NOT_REPRESENTABLE, names="m"),
                ]
                found.append(Entry(name, _field(source, file, path, what), tuple(lines)))
    return found


ENTRIES = _field_entries()
