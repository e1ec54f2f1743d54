"""Property tests of names: any text is a known name or an InputError, and parametric names are read as they are written."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from vit_zoo.errors import InputError
from vit_zoo.loading.locator import parse_locator
from vit_zoo.registry.catalog import families, variants
from vit_zoo.registry.lookup import find
from vit_zoo.registry.parametric_names import NameParts, parts_of, variant_of
from vit_zoo.registry.query import parse_condition

PARTS = st.sampled_from([
    "vit", "dinov2", "siglip", "b", "s", "ti", "16", "32", "_", "reg4", "gap", "map", "224", ".", "augreg_in21k", "/", "timm",
    "google", "hf-hub:", "@", "-", "patch", "0", "99999999", " ", "\x00", "é", "../", "~", "٣",
])  # fmt: skip
NAMES = st.text(max_size=40) | st.lists(PARTS, max_size=9).map("".join) | st.text(alphabet="ab_.1", min_size=500, max_size=5000)


@given(name=NAMES)
@examples(150)
def test_any_text_is_a_name_or_an_input_error(name):
    start = time.process_time()
    try:
        named = find(name)
        assert find(named.variant.name).variant == named.variant
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017
        assert len(str(error)) < 1000  # noqa: PT017
    with contextlib.suppress(InputError):
        parse_locator(name)
    assert time.process_time() - start < 2


@st.composite
def parametric(draw):
    family = draw(st.sampled_from([family for family in families().values() if family.sizes]))
    form = st.sampled_from([None, *(form for form in family.forms if form != "reg")])
    registers = draw(st.integers(1, 99)) if "reg" in family.forms and draw(st.booleans()) else 0
    patch = draw(st.integers(1, 64))
    image = patch * draw(st.integers(1, 99))
    return NameParts(family, draw(st.sampled_from(sorted(family.sizes))), patch, registers, draw(form), image)


@given(parts=parametric())
@examples(150)
def test_parametric_names_are_read_as_they_are_written(parts):
    read = parts_of(parts.canonical, families())
    assert read is not None
    assert read.canonical == parts.canonical
    assert (read.size, read.patch, read.registers, read.pool) == (parts.size, parts.patch, parts.registers, parts.pool)
    if parts.canonical not in variants():
        assert variant_of(read).fields == {**variant_of(parts).fields, **variant_of(read).fields}
        assert find(parts.canonical).variant.name == parts.canonical


@given(
    text=st.text(max_size=60)
    | st.lists(st.sampled_from(["dim", "<", "30M", "and", "not", "(", ")", "==", "'x'", "1e9", " ", "or"])).map(" ".join)
)
@examples(150)
def test_any_condition_is_compiled_or_an_input_error(text):
    try:
        assert parse_condition(text, ["dim", "name"])({"dim": 3, "name": "x"}) in (True, False)
    except InputError as error:
        assert str(error).isprintable()  # noqa: PT017


def test_a_nested_condition_has_a_limit():
    with pytest.raises(InputError):
        parse_condition("(" * 900 + "dim<3" + ")" * 90, ["dim"])
