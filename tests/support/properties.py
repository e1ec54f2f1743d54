"""Property tests: their settings, and random specs of every family, small enough to build."""

from __future__ import annotations

from functools import cache

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

from vit_zoo.errors import InputError
from vit_zoo.model.spec import ViTSpec
from vit_zoo.registry.catalog import families, variants
from vit_zoo.registry.configs import config_of


def examples(count: int) -> settings:
    """Settings of a test with `count` examples, which are the same in every run."""
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=slow)


# fields that a family does not fix, with some values
OTHERS = {
    "pos": ["learned", "sincos_moco", "sincos_mae", "rope", "none"], "pos_covers": ["all", "class", "patches"],
    "class_token": [True, False], "registers": [0, 1, 3], "patch_bias": [True, False], "pre_norm": [True, False],
    "act": ["gelu", "gelu_tanh", "quick_gelu", "silu"], "mlp": ["plain", "swiglu"], "qkv_bias": [True, False, "qv"],
    "qk_norm": [True, False], "layer_scale": [True, False], "final_norm": ["before_pool", "after_pool", "none"],
    "pool": ["cls", "mean", "map", "cls+mean", "none"], "pool_tokens": ["patches", "all"], "representation": [0, 5],
    "head_bias": [True, False], "num_classes": [0, 1, 5], "proj_bias": [True, False], "mlp_bias": [True, False],
}  # fmt: skip


@cache
def bases() -> list[ViTSpec]:
    """A spec of every kind that the zoo lists: those that differ in more than their sizes."""
    kinds = {}
    for name, family in families().items():
        rows = [row for row in variants().values() if row.family == name]
        for row in rows:
            spec = config_of(row).spec
            kinds.setdefault((family.name, *(getattr(spec, field) for field in OTHERS if field != "num_classes")), spec)
    return list(kinds.values())


@st.composite
def specs(draw: st.DrawFn, most_changes: int = 3) -> ViTSpec:
    """A valid spec of a few thousand parameters: a kind of the zoo with other sizes, and up to `most_changes` other fields."""
    base, heads = draw(st.sampled_from(bases())), draw(st.integers(1, 3))
    dim_head = draw(st.sampled_from([4, 8]))
    patch = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    grid = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    if draw(st.booleans()):
        patch, grid = (patch[0], patch[0]), (grid[0], grid[0])
    changes = draw(st.lists(st.sampled_from(sorted(OTHERS)), max_size=most_changes, unique=True))
    sizes = {
        "image_size": (patch[0] * grid[0], patch[1] * grid[1]), "patch_size": patch, "heads": heads, "dim_head": dim_head,
        "dim": heads * dim_head if draw(st.booleans()) or not base.attn_out else draw(st.sampled_from([8, 12, 20])),
        "depth": draw(st.integers(1, 2)), "mlp_dim": draw(st.sampled_from([4, 10])), "channels": draw(st.sampled_from([1, 3])),
    }  # fmt: skip
    try:
        return base.replace(**sizes, **{name: draw(st.sampled_from(OTHERS[name])) for name in changes})
    except InputError:
        assume(False)
        raise
