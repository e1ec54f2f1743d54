"""Tests of configs with values of other types: whatever stands under a key, the model is read or refused by file and key."""

from __future__ import annotations

import copy
import json
from functools import partial

import numpy as np
import pytest

from support.refusals import refusal_of
from vit_zoo.errors import InputError, RefusedContent
from vit_zoo.files import Stored, read_json
from vit_zoo.loading.read_tensors import read_tensors
from vit_zoo.model.config import ModelConfig
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.model.spec import ViTSpec
from vit_zoo.weights.configs import hf, open_clip, timm
from vit_zoo.weights.configs.keys import check_keys, only, read
from vit_zoo.weights.configs.values import (
    EDGES,
    EPS,
    FLAG,
    MEANS,
    NAMES,
    NUMBERED_NAMES,
    SIDES,
    TEXT,
    either,
    number,
    optional,
    whole,
)
from vit_zoo.weights.dialects import DIALECTS, keras_hub
from vit_zoo.weights.dialects.clip import OPEN_CLIP
from vit_zoo.weights.dialects.timm import OPEN_CLIP_TIMM
from vit_zoo.weights.dialects.timm_eva import TIMM_EVA
from vit_zoo.weights.dialects.timm_naflex import TIMM_NAFLEX
from vit_zoo.weights.sidecar import Sidecar
from vit_zoo.weights.translate import to_theirs
from vit_zoo.weights.write import fit

NESTED = [[[[[[[[[1]]]]]]]]]
VALUES = [
    None, True, 0, 1, -1, 1.5, 10**30, 1e308, 1e-320, "", "a", "\ud800", "x\n\x1b[2J" * 99, [], [1], [0, 0], [2**40, 1],
    ["a", {}], NESTED, {}, {"a": 1}, {"0": "a"}, {"0": None}, {"height": "x"}, {"eps": "x"},
]  # fmt: skip
SPEC = ViTSpec.parse(
    {
        "image_size": 8, "patch_size": 4, "channels": 3, "dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "mlp_dim": 32,
        "num_classes": 3, "class_token": True, "registers": 0, "pos": "learned", "pos_covers": "all", "patch_bias": True,
        "patch_norms": False, "pre_norm": False, "norm_eps": 1e-6, "act": "gelu", "qkv_bias": True, "attn_out": True,
        "proj_bias": True, "mlp_bias": True, "layer_scale": False, "final_norm": "before_pool", "pool": "cls",
        "pool_tokens": "all", "head_bias": True, "dropout": 0.0, "emb_dropout": 0.0, "drop_path": 0.0,
    }
)  # fmt: skip
PREPARED = Preprocess(size=(8, 8), resize_to=9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
CLIP = {"pre_norm": True, "patch_bias": False, "final_norm": "after_pool", "head_bias": False, "norm_eps": 1e-5}
ROPE = {"pos": "rope", "pos_covers": "patches", "layer_scale": True, "num_classes": 0, "registers": 1, "qkv_bias": "qv"}
PATCHES = {"class_token": False, "pos_covers": "patches", "pool": "map", "pool_tokens": "patches", "num_classes": 0}


def zeros(spec):
    return {name: Stored("F32", shape, partial(np.zeros, shape, "<f4")) for name, shape in spec.shapes().items()}


def written(target, **fields):
    """The tensors and the documents that we write for a library, whose class has these fields."""
    spec = SPEC.replace(**fields)
    labels = ("a", "b", "c") if spec.num_classes and not fields.get("pre_norm") else None
    config = ModelConfig(name="m", spec=spec, preprocess=PREPARED, labels=labels)
    fitted = fit(target, config, zeros(spec), ("norm_eps", "act", "preprocess"), with_config=True)
    return fitted.tensors, fitted.documents(PREPARED)


def by_hand(dialect, name, document, **fields):
    """The tensors of a dialect that is not written, with a config."""
    spec = SPEC.replace(**fields)
    p, q = spec.patch_size
    return to_theirs(dialect, zeros(spec), {"p": p, "q": q, "c": 3, "h": spec.heads, "e": spec.dim_head}), {name: document}


PREPROCESS_CFG = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest", "size": 8}
OWN_TOWER = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 4, "image_size": 8, "norm_kwargs": {"eps": 1e-5}}
TIMM_TOWER = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj_bias": True}
TIMM_CFG = {"input_size": [3, 8, 8], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}
TIMM_MODEL = {"num_heads": 2, "img_size": 8, "norm_layer": "layernorm"}


def of_open_clip(tower):
    return {"model_cfg": {"embed_dim": 3, "vision_cfg": tower, "quick_gelu": True}, "preprocess_cfg": PREPROCESS_CFG}


def of_timm(name, **arguments):
    return {"architecture": name, "model_args": {**TIMM_MODEL, **arguments}, "pretrained_cfg": {**TIMM_CFG, "tag": "x"}}


def of_keras():
    arguments = {"num_heads": 2, "layer_norm_epsilon": 1e-6, "image_shape": [8, 8, 3]}
    return {"backbone": {"config": arguments}, "pooling": "token", "activation": None}


FLAT = {name: key for name, key in {**timm.PRETRAINED, **timm.TOP}.items() if name != "pretrained_cfg"}
PROCESSOR = ("preprocessor_config.json", (), hf.PROCESSOR)
TOWERS = (("config.json", (), hf.CLIP_TOWERS), ("config.json", ("vision_config",), hf.KEYS["clip_vision_model"]))
OPEN = (
    ("open_clip_config.json", (), open_clip.PARTS),
    ("open_clip_config.json", ("model_cfg",), open_clip.MODEL),
    ("open_clip_config.json", ("preprocess_cfg",), open_clip.PREPROCESS),
)


def hf_places(kind, *others):
    return (("config.json", (), {**hf.BASE, **hf.KEYS[kind]}), *others)


def timm_places(class_):
    tables = (((), timm.TOP), (("model_args",), timm.ARGUMENTS[class_]), (("pretrained_cfg",), timm.PRETRAINED))
    return tuple(("config.json", place, table) for place, table in tables)


def flat(tensors, documents):
    """A config of timm before 0.9, with all keys at the top."""
    document = documents["config.json"]
    return tensors, {"config.json": {**document.pop("pretrained_cfg"), **document}}


def of_naflex():
    tensors, documents = by_hand(
        TIMM_NAFLEX, "config.json", of_timm("naflexvit_base_patch16_gap"), **{**PATCHES, "pool": "mean", "num_classes": 3}
    )
    table = tensors["embeds.pos_embed"]
    return {**tensors, "embeds.pos_embed": Stored("F32", (1, 2, 2, 16), partial(np.zeros, (1, 2, 2, 16), table.dtype))}, documents


def two_towers(tensors, documents):
    tower = documents.pop("config.json")
    words = {name: tower.pop(name) for name in ("architectures", "projection_dim") if name in tower}
    return tensors, {**documents, "config.json": {"model_type": "clip", **words, "vision_config": tower}}


# kinds of folders: their tensors and documents, and the tables of keys, each with the file and the place in it
FOLDERS = {
    "vit": (partial(written, "hf"), hf_places("vit", PROCESSOR, ("processor_config.json", ("image_processor",), hf.PROCESSOR))),
    "deit": (partial(written, "hf", registers=1), hf_places("deit")),
    "dinov2": (
        partial(written, "hf", layer_scale=True, pool="cls+mean", pool_tokens="patches", mlp_dim=64), hf_places("dinov2"),
    ),
    "dinov3": (partial(written, "hf", **ROPE), hf_places("dinov3_vit")),
    "clip": (partial(written, "hf", **CLIP), hf_places("clip_vision_model")),
    "clip, two towers": (lambda: two_towers(*written("hf", **CLIP)), TOWERS),
    "siglip": (partial(written, "hf", **PATCHES), hf_places("siglip_vision_model")),
    "timm": (partial(written, "timm"), timm_places("VisionTransformer")),
    "timm, flat": (lambda: flat(*written("timm")), (("config.json", (), FLAT),)),
    "timm, Eva": (
        partial(by_hand, TIMM_EVA, "config.json", of_timm("vit_small_patch16_dinov3"), **{**ROPE, "num_classes": 3}),
        timm_places("Eva"),
    ),
    "timm, NaFlexVit": (of_naflex, timm_places("NaFlexVit")),
    "open_clip": (
        partial(by_hand, OPEN_CLIP, "open_clip_config.json", of_open_clip(OWN_TOWER), **CLIP),
        (*OPEN, ("open_clip_config.json", ("model_cfg", "vision_cfg"), open_clip.OWN)),
    ),
    "open_clip, timm": (
        partial(by_hand, OPEN_CLIP_TIMM, "open_clip_config.json", of_open_clip(TIMM_TOWER)),
        (*OPEN, ("open_clip_config.json", ("model_cfg", "vision_cfg"), open_clip.TIMM_TOWER)),
    ),
    "keras": (
        partial(by_hand, keras_hub.KERAS_HUB, "config.json", of_keras()),
        (("config.json", (), keras_hub.TASK), ("config.json", ("backbone", "config"), keras_hub.ARGUMENTS)),
    ),
}  # fmt: skip


def read_unless_known(tensors, checkpoint, dialect, known):
    """Read the tensors with the sidecar beside them, unless it states what one before did."""
    sidecar = Sidecar.of(checkpoint, dialect)
    if sidecar not in known:
        known.append(sidecar)
        read_tensors(tensors, {}, checkpoint)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_value_of_another_type(name, tmp_path):
    make, tables = FOLDERS[name]
    tensors, documents = make()
    checkpoint = tmp_path / "model.safetensors"
    for file, document in documents.items():
        (tmp_path / file).write_text(json.dumps(document))
    valid = read_tensors(tensors, {}, checkpoint)
    assert valid.config.spec.heads == 2
    dialect = next(each for each in DIALECTS if each.name == valid.dialect)
    read_before = [Sidecar.of(checkpoint, dialect)]
    for file, place, keys in tables:
        for key in (key for key, entry in keys.items() if entry.effect != "none"):
            for value in VALUES:
                document = copy.deepcopy(documents.get(file, {}))
                inside = document
                for part in place:
                    inside = inside.setdefault(part, {})
                inside[key] = value
                (tmp_path / file).write_text(json.dumps(document))
                refused = refusal_of(lambda: read_unless_known(tensors, checkpoint, dialect, read_before))
                absent = value is None and (keys[key].effect != "read" or place == ("model_args",) or key in REQUIRED)
                if not absent and not accepts(keys[key], value) and "processor" not in file:
                    assert isinstance(refused, RefusedContent), (key, value)
                    assert refused.where == str(tmp_path / file)
                    assert refused.message.startswith(f"{key} = "), (key, value, refused.message)
        (tmp_path / file).write_text(json.dumps(documents.get(file, {})))


REQUIRED = ("model_type", "architecture")  # where they are null, the file is not of the library


def accepts(key, value):
    """Whether a value is of the type of a key that is read, or one of those of a key that has few."""
    if key.kind is None:
        return key.accepts(value)
    return key.kind.reads(value) or (value is None and key.kind.optional)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (whole(1, 9), [(1, 1), (9, 9)], [0, 10, True, 1.0, "1", None, [1]]),
        (number(0, 9), [(0, 0.0), (2.5, 2.5), (9, 9.0)], [-0.1, 10, True, float("nan"), float("inf"), 10**400, "1", None]),
        (EPS, [(1e-6, 1e-6), (1e-320, 1e-320)], [0, 1, True, -1e-6, float("nan"), "1e-6"]),
        (TEXT, [("", ""), ("é\n", "é\n")], ["\ud800", "a" * 10_001, b"a", None, 1]),
        (FLAG, [(True, True), (False, False)], [0, 1, "true", None, []]),
        (SIDES, [(8, (8, 8)), ([8, 9], (8, 9)), ((8, 9), (8, 9))], [0, 16_385, True, [8], [8, 9, 10], [8, None], "8", 8.0]),
        (MEANS, [([0, 1, 2], (0.0, 1.0, 2.0)), ((0.5,), (0.5,))], [[], [0, 1], [0, 1, None], [True] * 3, 0.5, [1e300] * 3]),
        (EDGES, [({"height": 8}, {"height": 8}), ({}, {})], [{"height": 0}, {1: 8}, [8], None]),
        (NAMES, [(["a", "b"], ("a", "b")), ([], ())], [["a", 1], "ab", {"0": "a"}, ["\ud800"], None]),
        (
            NUMBERED_NAMES, [({"0": "a", 1: "b"}, {0: "a", 1: "b"}), ({"0": 5}, {0: None})],
            [["a"], {"a": "b"}, {"²": "b"}, {"-1": "b"}, {"0": []}],
        ),
        (either(whole(1, 9), TEXT), [(1, 1), ("a", "a")], [0, True, []]),
    ],
    ids=lambda value: value.expected[:40] if hasattr(value, "expected") else "",
)  # fmt: skip
def test_types_of_values(kind, good, bad):
    for value, parsed in good:
        assert kind.parse(value) == parsed
        assert type(kind.parse(value)) is type(parsed)
    for value in bad:
        assert not kind.reads(value), value


def test_null_is_an_absent_value_only_where_a_library_writes_it():
    keys = {"size": read("image_size", optional(SIDES)), "heads": read("heads", whole(1, 1000)), "gate": only(False)}
    assert check_keys({"size": None, "heads": 3, "gate": None}, keys, where="f") == {"heads": 3, "gate": None}
    assert check_keys({"size": 8}, keys, where="f") == {"size": (8, 8)}
    with pytest.raises(RefusedContent) as refusal:
        check_keys({"heads": None}, keys, where="f", section="part")
    assert str(refusal.value) == "f: heads = None of part: expected a whole number from 1 to 1,000"


def test_long_values_are_cut_in_messages():
    with pytest.raises(RefusedContent) as refusal:
        check_keys({"heads": 10**4000}, {"heads": read("heads", whole(1, 1000))}, where="f")
    assert len(str(refusal.value)) < 200


def test_numbers_that_json_reads_as_infinite(tmp_path):
    (tmp_path / "a.json").write_text('{"eps": 1e999}')
    with pytest.raises(RefusedContent, match="eps = inf: expected a number above 0 and below 1"):
        check_keys(read_json(tmp_path / "a.json"), {"eps": read("norm_eps", EPS)}, where="a.json")


@pytest.mark.parametrize("content", ['{"a": 1' + "0" * 5000 + "}", '{"a": ' + "[" * 100_000, '{"a": "\udfff', '{"a": "\x01"}'])
def test_documents_that_are_not_json(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "config.json")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
