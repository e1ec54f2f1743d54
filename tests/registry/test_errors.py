"""Tests of invalid zoo files and names: one error that gives the place, at once, and nothing half registered."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest

from vit_zoo.errors import InputError
from vit_zoo.registry import catalog, configs, family_file, labels, lookup, models
from vit_zoo.registry.catalog import KNOWN, Zoo
from vit_zoo.registry.pretrained_tags import read_tags

ROW = "image_size = 16, patch_size = 8, dim = 16, depth = 1, heads = 2, dim_head = 8, mlp_dim = 32"
FAMILY = "[spec]\nextends = 'vit_ti16'\n[variant]\n"

WRONG_FILES = {
    "syntax": ("depth = = 3", "not valid TOML: Invalid value (at line 1"),
    "a key twice": ("depth = 1\ndepth = 2", "not valid TOML: Cannot overwrite a value"),
    "YAML": ("depth: 3", "not valid TOML"),
    "bad UTF-8": (b"name = '\xff'", "not valid TOML: 'utf-8' codec"),
    "a NUL": ("name = 'a\0b'", "not valid TOML"),
    "deep nesting": ("a = " + "[" * 100_000, "nested too deeply"),
    "a key of 20,000 parts": (".".join("a" * 20_000) + " = 1", "more than 8 dots"),
    "a table of 20,000 parts": ("[" + " . ".join(["'a'"] * 20_000) + "]", "more than 8 dots"),
    "an inline table of 20,000 parts": ("x = {" + ".".join(['"a"'] * 20_000) + " = 1}", "more than 8 dots"),
    "an integer of 5,000 digits": ("depth = " + "9" * 5000, "not valid TOML"),
    "300 kB": ("#" * 300_000, "has 300,000 bytes; the limit is 262,144"),
    "empty": ("", "field 'image_size' is missing"),
    "an unknown field": ("extends = 'vit_ti16'\ndepht = 3", "unknown field 'depht'; nearest: depth"),
    "an unknown table": ("[variant]\n[specs]", "unknown table 'specs'"),
    "a table that is a number": ("variant = 3", "must be tables"),
    "a variant that is a number": ("[variant]\nmine = 3", "variant 'mine' must be a table"),
    "a size that is not there": (FAMILY + "mine = { size = 'xl' }", "the file defines no size 'xl'"),
    "a size that is a number": (FAMILY + "mine = { size = 3 }", "size = 3 has the wrong type"),
    "a size that is a list": (FAMILY + "mine = { size = ['a'] }", "size = ['a'] has the wrong type"),
    "a size without fields": ("[size]\nxl = 3\n" + FAMILY + "mine = { size = 'xl' }", "the file defines no size 'xl'"),
    "parameters as text": (FAMILY + "mine = { params = 'many' }", "params = 'many' has the wrong type"),
    "costs as true": (FAMILY + "mine = { gmacs = true }", "gmacs = True has the wrong type"),
    "weights that are a number": (FAMILY + "mine = { weights = 3 }", "weights = 3 has the wrong type"),
    "a family's name that is a number": ("[family]\nname = 3\n" + FAMILY + "mine = {}", "family.name must be a string"),
    "two variants where one is wanted": (FAMILY + "one = {}\ntwo = {}", "expected one variant, got 2"),
    "extends an unknown name": ("extends = 'vit_ti17'", "extends 'vit_ti17': no variant 'vit_ti17'; nearest: vit_ti16"),
    "extends a number": ("extends = 3", "extends = 3: must be the name of a variant"),
    "extends a list": ("extends = ['vit_ti16']", "must be the name of a variant"),
    "text for a number": ("extends = 'vit_ti16'\ndepth = '3'", "depth = '3': input should be a valid integer"),
    "a fraction for a number": ("extends = 'vit_ti16'\ndepth = 3.0", "depth = 3.0: input should be a valid integer"),
    "true for a number": ("extends = 'vit_ti16'\ndepth = true", "depth = True: input should be a valid integer"),
    "a number for true": ("extends = 'vit_ti16'\npatch_bias = 1", "patch_bias = 1: input should be a valid boolean"),
    "text for a fraction": ("extends = 'vit_ti16'\nnorm_eps = '1e-6'", "norm_eps = '1e-6'"),
    "not a number": ("extends = 'vit_ti16'\nnorm_eps = nan", "norm_eps = nan"),
    "zero": ("extends = 'vit_ti16'\ndim = 0", "dim = 0: input should be greater than or equal to 1"),
    "a date": ("extends = 'vit_ti16'\ndim = 1979-05-27", "dim = datetime.date"),
    "a table for a number": ("extends = 'vit_ti16'\ndim = { a = 1 }", "dim = {'a': 1}"),
    "three sides": ("extends = 'vit_ti16'\nimage_size = [8, 8, 8]", "image_size"),
    "a patch that does not divide": ("extends = 'vit_ti16'\nimage_size = 225", "16x16 does not divide image_size 225x225"),
    "112 billion parameters": ("extends = 'vit_b16'\ndim = 1_000_000", "parameters; the limit is 10,000,000,000"),
    "268 million tokens": ("extends = 'vit_ti16'\nimage_size = 16_384\npatch_size = 1", "tokens; the limit is 262,144"),
    "2**63": ("extends = 'vit_ti16'\ndim = 9223372036854775808", "less than or equal to 1000000"),
    "preprocessing that is text": ("extends = 'vit_ti16'\npreprocess = 'imagenet'", "preprocess must be a table"),
    "an unknown field of preprocessing": (
        "extends = 'vit_ti16'\n[preprocess]\ninterpolation = 'bicubic'\nmean = [0.5]\nstd = [0.5]\nzoom = 1", "preprocess.zoom"
    ),
    "a mean that is a number": (
        "extends = 'vit_ti16'\n[preprocess]\ninterpolation = 'bicubic'\nmean = 0.5\nstd = [0.5]", "preprocess.mean"
    ),
    "a mean that is text": (
        "extends = 'vit_ti16'\n[preprocess]\ninterpolation = 'bicubic'\nmean = ['0.5']\nstd = [0.5]", "preprocess.mean"
    ),
    "a std of zero": (
        "extends = 'vit_ti16'\n[preprocess]\ninterpolation = 'bicubic'\nmean = [0.5]\nstd = [0]", "std above 0"
    ),
    "a grey mean for colour": (
        "extends = 'vit_ti16'\n[preprocess]\ninterpolation = 'bicubic'\nmean = [0.5]\nstd = [0.5]", "1 means for 3 channels"
    ),
    "an unknown interpolation": (
        "extends = 'vit_ti16'\n[preprocess]\ninterpolation = 'best'\nmean = [0.5]\nstd = [0.5]", "preprocess.interpolation"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(KNOWN, "registered", Zoo())


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_files_are_refused_in_one_line(case, tmp_path):
    content, fragment = WRONG_FILES[case]
    file = tmp_path / "mine.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.monotonic()
    with pytest.raises(InputError) as found:
        models.get_spec(file)
        configs.config_of(family_file.read_variant(file))
    assert fragment in str(found.value)
    assert "\n" not in str(found.value)
    assert str(file) in str(found.value)
    assert time.monotonic() - start < 2
    if case != "two variants where one is wanted":
        with pytest.raises(InputError):
            models.register(file)
    assert not KNOWN.registered.variants


NAMES = (
    "",
    ".",
    "..",
    "../../x",
    "/etc/passwd",
    "a/b",
    "a b",
    "a\nb",
    "a\0b",
    "\x1b[31m",
    "--help",
    "Vit",
    "é",
    "a" * 97,
    "a" * 5000,
)


@pytest.mark.parametrize("name", NAMES)
def test_invalid_names(name, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f"extends = 'vit_ti16'\nname = {quoted(name)}")
    for refused in (
        lambda: models.get_spec(file),
        lambda: models.register(models.get_spec("vit_ti16"), name=name),
        lambda: models.get_spec(name),
        *([lambda: models.list_models(name)] if name != "Vit" else []),  # which is a part of many names
    ):
        with pytest.raises(InputError) as found:
            refused()
        assert str(found.value).isprintable()
        assert len(str(found.value)) < 400


def quoted(name: str) -> str:
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in name) + '"'


def test_a_missing_file_and_a_path_that_is_not_a_file(tmp_path):
    for path, fragment in ((tmp_path / "no.toml", "no such file"), (tmp_path, "not a regular file")):
        with pytest.raises(InputError, match=fragment):
            family_file.read_variant(path)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """An empty folder that VITZOO_PATH names, and a registry that has read nothing yet."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    monkeypatch.setenv("VITZOO_PATH", str(folder))
    monkeypatch.setattr(KNOWN, "read", None)
    return folder


def twice_the_same_error(ask, fragment):
    """Check the error twice: a registry that failed once must not answer from what it read before the failure."""
    for _ in range(2):
        with pytest.raises(InputError) as found:
            ask()
        assert fragment in str(found.value)


def test_a_missing_folder_of_zoo_files(zoo, monkeypatch):
    for path in (zoo / "no", __file__):
        monkeypatch.setenv("VITZOO_PATH", str(path))
        twice_the_same_error(models.list_models, "no such folder (check VITZOO_PATH)")


def test_a_name_in_two_files(zoo):
    (zoo / "a.toml").write_text(f"[variant]\nmine = {{ {ROW} }}\n")
    (zoo / "b.toml").write_text(f"[variant]\nmine = {{ {ROW} }}\n")
    twice_the_same_error(models.list_models, "b.toml: variant 'mine' is already defined in")


def test_a_name_of_ours_in_a_users_file(zoo):
    (zoo / "a.toml").write_text(f"[variant]\nvit_b16 = {{ {ROW} }}\n")
    twice_the_same_error(models.list_models, "variant 'vit_b16' is already defined in")


def test_a_broken_file_in_the_folder(zoo):
    (zoo / "a.toml").write_text("depth = = 3")
    twice_the_same_error(lambda: models.get_spec("vit_b16"), "a.toml: not valid TOML")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_cycles_of_extends(zoo, length):
    for i in range(length):
        (zoo / f"v{i}.toml").write_text(f"name = 'v{i}'\nextends = 'v{(i + 1) % length}'\n")
    twice_the_same_error(lambda: models.get_spec("v0"), "extends itself: ")
    assert "v0" in models.list_models()  # listing needs no fields


def test_a_variant_may_extend_a_users_variant(zoo):
    (zoo / "a.toml").write_text("name = 'mine'\nextends = 'vit_ti16'\ndepth = 5\n")
    (zoo / "b.toml").write_text("name = 'other'\nextends = 'mine'\nheads = 6\n")
    spec = models.get_spec("other")
    assert (spec.depth, spec.heads, spec.dim) == (5, 6, 192)


def test_a_name_that_is_taken_is_not_registered(zoo, tmp_path):
    file = tmp_path / "two.toml"
    file.write_text(f"[spec]\nextends = 'vit_ti16'\n[variant]\nfresh = {{ {ROW} }}\nvit_b16 = {{ {ROW} }}\n")
    spec = models.get_spec("vit_ti16")
    for refused in (
        lambda: models.register(file),
        lambda: models.register(spec, name="vit_b16"),
        lambda: models.register(spec),
    ):
        with pytest.raises(InputError) as found:
            refused()
        assert len(str(found.value)) < 300
    assert "fresh" not in catalog.variants()
    assert models.register(spec, name="fresh") == ["fresh"]
    with pytest.raises(InputError, match="the name 'fresh' is taken"):
        models.register(spec, name="fresh")


# a name, and a part of what is said of it
UNKNOWN = {
    "vit_b18": "no variant 'vit_b18'; nearest: vit_b8, vit_b16, vit_b16_384 (patch size 18 does not divide image size 224",
    "vit_s14_336_gap_400": "(two suffixes of one kind: 336 and 400)",
    "vit_s14_reg4_reg2": "(two suffixes of one kind: reg4 and reg2)",
    "vit_s14_gap_map": "(two suffixes of one kind: gap and map)",
    "vit_s14_384": "patch size 14 does not divide image size 384; nearest: 378 or 392",
    "vit_s500": "patch size 500 does not divide image size 224; nearest: 500",
    "vit_xl16": "(family vit has no size 'xl'; choose from mu, ti, s, m, b, l, so400m, h, g, bigg, e)",
    "dinov2_g14": "(family dinov2 has no size 'g'; choose from s, b, l, giant)",
    "clip_b16_reg4": "(family clip has no suffix _reg; it has none)",
    "dinov2_s14_gap": "(family dinov2 has no suffix _gap; choose from _reg)",
    "vit_s14_reg0": "no variant 'vit_s14_reg0'",
    "vit_s014": "no variant 'vit_s014'",
    "vit_s14_": "no variant 'vit_s14_'",
    "VIT_S14": "no variant 'VIT_S14'",
    "vit_s14_gap_gap": "(two suffixes of one kind: gap and gap)",
    "vit_s999999999999": "no variant 'vit_s999999999999'",
    "vit_base_patch16_225": "nearest: vit_base_patch16_224",
    "google/vit-base-patch16": "nearest: google/vit-base-patch16",
    "small": "'small' is ambiguous: Google's and timm's is 384 wide and 12 deep, MMPretrain's",
    "giant": "(choose from vit_g14, openclip_g14, dinov2_giant14, siglip_gopt16_256)",
    "vit_small": "'vit_small' is ambiguous",
    "vit-giant": "'vit-giant' is ambiguous",
    "vit_b16.augreg_in1": "nearest: augreg_in1k, augreg_in21k, augreg_in21k_ft_in1k (see `vitzoo show vit_b16`)",
    "vit_base_patch16_224.augreg_in1": "no tag 'augreg_in1' for 'vit_b16'",
    "vit_b16.": "no tag '' for 'vit_b16'",
    "vit_mu16.best": "no tag 'best' for 'vit_mu16' (no published weights are known for it)",
    "small.augreg": "'small' is ambiguous",
    ".augreg_in21k": "no variant '.augreg_in21k'",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_well_formed_names_that_do_not_exist(name):
    with pytest.raises(InputError) as found:
        models.get_spec(name)
    assert UNKNOWN[name] in str(found.value)


CONDITIONS = {
    "": "where: expected a field at character 1, got the end",
    "params<": "expected a number, 'text', true or false at character 8, got the end",
    "params<30M an patch_size==16": "expected 'and', 'or' or the end at character 12, got 'an'",
    "parms<30M": "unknown field 'parms' at character 1; nearest: params",
    "30M<params": "expected a field at character 1, got '30M'",
    "act==gelu": "expected a number, 'text', true or false at character 6, got 'gelu'",
    "(params<30M": "expected ')' at character 12, got the end",
    "params<30M)": "at character 11, got ')'",
    "params<30MB": "cannot read '30MB' at character 8",
    "params=30": "cannot read '=30' at character 7",
    "params<30M; import os": "cannot read '; import os' at character 11",
    "__import__('os')": "unknown field '__import__' at character 1",
    "act<3": "cannot compare 'act', which is 'silu', with 3 using <",
    "params": "not true or false; compare it with a value",
    "act=='geluu'": "no variant satisfies act=='geluu'",
    "(" * 60 + "class_token": "nested more than 50 levels deep",
    "not " * 60 + "class_token": "nested more than 50 levels deep",
    "params<" + "9" * 2000: "2,007 characters; the limit is 1,000",
    "params<1e999": "cannot read",
}


@pytest.mark.parametrize("where", CONDITIONS)
def test_invalid_conditions(where):
    start = time.monotonic()
    with pytest.raises(InputError) as found:
        models.list_models(where=where)
    assert CONDITIONS[where] in str(found.value)
    assert len(str(found.value)) < 300
    assert time.monotonic() - start < 2


def test_sorting_by_an_unknown_field():
    with pytest.raises(InputError, match="unknown field 'parms'; nearest: params"):
        models.sort_names(["vit_b16"], "-parms")


MANY_FAULTS = """
[family]
nmae = "x"
[spec]
extends = "vit_b16"
depht = 3
[preprocess]
interpolation = "best"
mean = [0.5]
std = [0.5]
[size]
b1 = {}
b = { pool = "clss", dim = 3.5 }
[variant]
Mine = { size = "bb", patch_size = 0, form = ["gap"] }
other = 3
"""
FAULTS = (
    "unknown field 'family.nmae'; nearest: name",
    "unknown field 'spec.depht'; nearest: depth",
    "preprocess.interpolation = 'best': input should be 'bilinear' or 'bicubic'",
    "size.b1",
    "size.b.pool = 'clss'",
    "size.b.dim = 3.5: input should be a valid integer",
    "variant.Mine",
    "variant.Mine.patch_size = 0",
    "variant.other = 3",
    "variant.Mine: no size 'bb'; nearest: b",
    "variant.Mine: no suffix 'gap'",
)


def test_all_faults_of_a_file_are_reported_at_once(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(MANY_FAULTS)
    for refuse in (lambda: models.check_file(file), lambda: models.register(file), lambda: models.use_folder(tmp_path)):
        with pytest.raises(InputError) as found:
            refuse()
        text = str(found.value)
        assert text.startswith(f"{file}: ")
        assert [fault for fault in FAULTS if fault not in text] == []
    assert KNOWN.extra == []


@pytest.mark.parametrize(
    "text", ["[spec]\nextends = 'vit_b16'\ndim = {}\n[variant]\nmine = {{}}\n", "name = {}\nextends = 'vit_b16'\n"]
)
def test_an_integer_of_thousands_of_digits(text, tmp_path):
    """TOML's hexadecimal numbers have no limit, and Python refuses to print them."""
    file = tmp_path / "mine.toml"
    file.write_text(text.format(f"0x{'f' * 5000}"))
    with pytest.raises(InputError, match="int too long to show"):
        models.register(file)


def test_every_contradictory_row_of_a_file_is_reported(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        "[spec]\nextends = 'vit_b16'\n[variant]\none = { patch_size = 15 }\ntwo = {}\nthree = { class_token = false }"
    )
    with pytest.raises(InputError) as found:
        models.register(file)
    assert "one: patch_size 15x15 does not divide image_size 224x224; three: pool 'cls' needs class_token" in str(found.value)


def test_a_duplicate_family(zoo, tmp_path):
    file = tmp_path / "vit.toml"
    file.write_text("[spec]\nextends = 'vit_ti16'\n[variant]\nmine = {}\n")
    with pytest.raises(InputError, match="family 'vit' is already defined in"):
        models.register(file)
    (zoo / "vit.toml").write_text(f"[variant]\nmine = {{ {ROW} }}\n")
    KNOWN.read = None
    twice_the_same_error(models.list_models, "family 'vit' is already defined in")


def test_a_parametric_name_is_taken(zoo, tmp_path):
    with pytest.raises(InputError, match="the name 'vit_b16_512' is taken"):
        models.register(models.get_spec("vit_ti16"), name="vit_b16_512")


WRONG_DATA = {
    "aliases/mine.toml": ("[[group]]\nnames = { a = 'vit_b16' }", "expected 'library', and groups"),
    "aliases/list.toml": ("library = 'mine'\n[[group]]\nnames = ['a']", "expected 'library', and groups"),
    "aliases/unclear.toml": ("[[ambiguous]]\nnames = ['a']", "expected 'library', and groups"),
    "aliases/twice.toml": ("library = 'mine'\n[[group]]\nnames = { 'ViT-B/16' = 'vit_b16' }", "duplicate alias 'ViT-B/16'"),
    "aliases/broken.toml": ("library = ", "not valid TOML"),
    "aliases/number.toml": ("library = 'mine'\n[[group]]\nnames = { a = 3 }", "expected 'library', and groups"),
    "aliases/note.toml": ("library = 'mine'\n[[group]]\nnote = 3\nnames = { a = 'vit_b16' }", "expected 'library', and groups"),
    "aliases/differs.toml": (
        "library = 'mine'\n[[group]]\ndiffers = ['x']\nnames = { a = 'vit_b16' }",
        "expected 'library', and",
    ),
    "aliases/why.toml": ("[[ambiguous]]\nnames = ['a']\nwhy = 3\ncandidates = ['vit_b16']", "expected 'library', and groups"),
}


@pytest.mark.parametrize("file", WRONG_DATA)
def test_invalid_aliases(file, zoo):
    content, fragment = WRONG_DATA[file]
    (zoo / "aliases").mkdir()
    (zoo / file).write_text(content)
    assert "vit_b16" in models.list_models()  # listing reads none of it
    assert models.get_spec("vit_b16").dim == 768
    twice_the_same_error(lambda: models.get_spec("ViT-L/16"), fragment)


def test_a_users_aliases_and_tags(zoo):
    """Next to a user's zoo files, as next to ours."""
    for name in ("aliases", "tags"):
        (zoo / name).mkdir()
    (zoo / "leaf.toml").write_text("[spec]\nextends = 'vit_ti16'\n[variant]\nleaf_a = { depth = 2 }\n")
    (zoo / "aliases" / "mine.toml").write_text(
        "library = 'mine'\n[[group]]\ndiffers = { act = 'silu' }\n[group.names]\n'leaf/a' = 'leaf_a'\n"
    )
    tag = "repo = 'me/leaf', file = 'model.safetensors', dialect = 'timm', revision = 'unpinned', licence = 'mit'"
    more = "num_classes = 3, pixels = 'half', interpolation = 'bicubic'"
    (zoo / "tags" / "leaf.toml").write_text(
        f"[pixels]\nhalf = {{ mean = [0.5], std = [0.5] }}\n[leaf_a]\nbest = {{ {tag}, {more} }}\n"
    )
    assert lookup.find("leaf/a").alias.sentence == "'leaf/a' in mine is leaf_a, but mine has act = silu"
    assert lookup.find("leaf_a.best").tag.address == "me/leaf/model.safetensors"
    (zoo / "tags" / "leaf.toml").write_text("[leaf_a]\nbest = { repo = 'me/leaf' }\n")
    read_tags.cache_clear()
    with pytest.raises(InputError, match=r"leaf\.toml: invalid tag: 'interpolation'"):
        lookup.tags_of("leaf_a")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("repo", "3"), ("file", "[]"), ("dialect", "true"), ("licence", "{}"), ("num_classes", "'3'"), ("num_classes", "true"),
        ("labels", "3"), ("top1", "'x'"), ("top1", f"{10**400}"), ("top1", "nan"), ("origin", "3"), ("spec", "[]"),
        ("revision", "1979-05-27"),
    ],
)  # fmt: skip
def test_values_of_a_tag_have_types(key, value, zoo):
    (zoo / "tags").mkdir()
    (zoo / "leaf.toml").write_text("[spec]\nextends = 'vit_ti16'\n[variant]\nleaf_a = { depth = 2 }\n")
    fields = {
        "repo": "'me/leaf'", "file": "'a'", "dialect": "'timm'", "revision": "'unpinned'", "licence": "'mit'", "num_classes": "3",
        "pixels": "'half'", "interpolation": "'bicubic'", key: value,
    }  # fmt: skip
    row = ", ".join(f"{name} = {each}" for name, each in fields.items())
    (zoo / "tags" / "leaf.toml").write_text(f"[pixels]\nhalf = {{ mean = [0.5], std = [0.5] }}\n[leaf_a]\nbest = {{ {row} }}\n")
    read_tags.cache_clear()
    with pytest.raises(InputError, match=rf"leaf\.toml: invalid tag: leaf_a\.best: {key} = "):
        lookup.tags_of("leaf_a")
    read_tags.cache_clear()


def test_a_missing_label_set():
    with pytest.raises(InputError, match="unknown label set 'imagenet2k'; choose from imagenet1k"):
        labels.label_set("imagenet2k")
    with pytest.raises(InputError, match="no class names for label set 'imagenet21k'"):
        labels.label_names("imagenet21k")


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ("dim=1000000", "parameters; the limit is"),
        ("dim=1000000000", "less than or equal to 1000000"),
        ("num_classes=9223372036854775808", "less than or equal to 1000000"),
        ("depth=100000000", "less than or equal to 1000"),
        ("image_size=16384,patch_size=1", "268,435,457 tokens; the limit is"),
    ],
)
def test_sizes_that_are_too_large_are_refused_before_torch_is_imported(fields, fragment):
    settings = [part for field in fields.split(",") for part in ("--set", field)]
    code = (
        "import sys; from vit_zoo.cli.entry_point import run; "
        f"code = run(['create', 'vit_b16', *{settings}]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert fragment in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - start < 10
