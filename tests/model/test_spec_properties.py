"""Property tests of specs and configs: shapes and counts, documents, and values of any type."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from support.properties import OTHERS, examples, specs
from vit_zoo.errors import InputError
from vit_zoo.model.config import ModelConfig
from vit_zoo.model.preprocess import Preprocess
from vit_zoo.model.resize_recipes import RECIPES
from vit_zoo.model.spec import ViTSpec
from vit_zoo.model.vit import ViT

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**63, 10**400)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
FIELDS = st.sampled_from(sorted(ViTSpec.model_fields))


@given(spec=specs())
@examples(80)
def test_shapes_and_parameters_are_those_of_the_module(spec):
    module = ViT.empty(ModelConfig(name="any", spec=spec))
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert shapes == spec.shapes()
    assert list(shapes) == list(spec.shapes())
    assert sum(parameter.numel() for parameter in module.parameters()) == spec.params
    assert spec.macs > 0
    assert spec.tokens == spec.prefix_tokens + spec.patch_tokens


@st.composite
def configs(draw):
    spec = draw(specs())
    size = spec.image_size
    prepared = Preprocess(
        size=size, interpolation=draw(st.sampled_from(["bilinear", "bicubic"])),
        resize_to=draw(st.none() | st.integers(max(size), 16_384) | st.just((size[0] + 3, size[1]))),
        mean=(draw(st.floats(-1e6, 1e6)),) * spec.channels, std=(draw(st.floats(1e-6, 1e6)),) * spec.channels,
        crop_rounding=draw(st.sampled_from(["even", "down"])), resize_dtype=draw(st.sampled_from(["uint8", "float32"])),
    )  # fmt: skip
    classes = spec.num_classes
    text = st.none() | st.text(max_size=20)
    return ModelConfig(
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)), spec=spec,
        preprocess=draw(st.none() | st.just(prepared)),
        labels=draw(st.none() | st.lists(st.text(), min_size=classes, max_size=classes).map(tuple)),
        source=draw(text), licence=draw(text), licence_link=draw(text), random_seed=draw(st.none() | st.integers(0, 2**63 - 1)),
        resize=draw(st.sampled_from([None, *RECIPES])),
    )  # fmt: skip


@given(config=configs())
@examples(40)
def test_a_config_is_read_from_its_document(config):
    assert ModelConfig.parse(json.loads(config.dumps()), where="config.json") == config
    assert ModelConfig.parse(config.document(), where="config.json").dumps() == config.dumps()


@given(spec=specs(most_changes=0), name=FIELDS, value=VALUES)
@examples(120)
def test_a_value_of_any_type_is_valid_or_an_input_error(spec, name, value):
    try:
        changed = spec.replace(**{name: value})
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    assert changed == ViTSpec.parse(json.loads(changed.model_dump_json()))


@given(
    path=st.lists(st.sampled_from(["vit_zoo", "spec", "preprocess", "labels", "schema", "name", *OTHERS]), max_size=3),
    value=VALUES,
)
@examples(120)
def test_a_document_of_any_content_is_a_config_or_an_input_error(path, value):
    document = json.loads(ModelConfig(name="any", spec=ViTSpec.parse(BASE)).dumps())
    inner = document
    for key in path[:-1]:
        inner = inner.setdefault(key, {}) if isinstance(inner, dict) else {}
    if path and isinstance(inner, dict):
        inner[path[-1]] = value
    try:
        config = ModelConfig.parse(document, where="config.json")
    except InputError as error:
        assert "config.json" in str(error)  # noqa: PT017
        return
    assert ModelConfig.parse(config.document(), where="again") == config


BASE = {
    "image_size": 8, "patch_size": 4, "channels": 3, "dim": 8, "depth": 1, "heads": 1, "dim_head": 8, "mlp_dim": 8,
    "num_classes": 3,
    "class_token": True, "registers": 0, "pos": "learned", "pos_covers": "all", "patch_bias": True, "patch_norms": False,
    "pre_norm": False, "norm_eps": 1e-6, "act": "gelu", "qkv_bias": True, "attn_out": True, "proj_bias": True, "mlp_bias": True,
    "layer_scale": False, "final_norm": "before_pool", "pool": "cls", "pool_tokens": "all", "head_bias": True, "dropout": 0.0,
    "emb_dropout": 0.0, "drop_path": 0.0,
}  # fmt: skip
