"""Zoo files and names that are wrong: one error that says where, at once, and nothing half registered."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest

from vit_zoo import registry
from vit_zoo.errors import InputError

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
    "300 kB": ("#" * 300_000, "has 300,000 bytes; a zoo file has at most 262,144"),
    "empty": ("", "field 'image_size' is missing"),
    "an unknown field": ("extends = 'vit_ti16'\ndepht = 3", "unknown field 'depht'; nearest: depth"),
    "an unknown table": ("[variant]\n[specs]", "unknown table 'specs'"),
    "a table that is a number": ("variant = 3", "are tables"),
    "a variant that is a number": ("[variant]\nmine = 3", "variant 'mine' must be a table"),
    "a size that is not there": (FAMILY + "mine = { size = 'xl' }", "names a size 'xl'"),
    "a size that is a number": (FAMILY + "mine = { size = 3 }", "size = 3 is of the wrong type"),
    "a size that is a list": (FAMILY + "mine = { size = ['a'] }", "size = ['a'] is of the wrong type"),
    "a size without fields": ("[size]\nxl = 3\n" + FAMILY + "mine = { size = 'xl' }", "names a size 'xl'"),
    "parameters as text": (FAMILY + "mine = { params = 'many' }", "params = 'many' is of the wrong type"),
    "costs as true": (FAMILY + "mine = { gmacs = true }", "gmacs = True is of the wrong type"),
    "weights that are a number": (FAMILY + "mine = { weights = 3 }", "weights = 3 is of the wrong type"),
    "a family's name that is a number": ("[family]\nname = 3\n" + FAMILY + "mine = {}", "family.name must be text"),
    "two variants where one is wanted": (FAMILY + "one = {}\ntwo = {}", "holds 2 variants"),
    "extends an unknown name": ("extends = 'vit_ti17'", "extends 'vit_ti17': no variant 'vit_ti17'; nearest: vit_ti16"),
    "extends a number": ("extends = 3", "extends = 3: the name of a variant is wanted"),
    "extends a list": ("extends = ['vit_ti16']", "the name of a variant is wanted"),
    "text for a number": ("extends = 'vit_ti16'\ndepth = '3'", "depth = '3': input should be a valid integer"),
    "a fraction for a number": ("extends = 'vit_ti16'\ndepth = 3.0", "depth = 3.0: input should be a valid integer"),
    "true for a number": ("extends = 'vit_ti16'\ndepth = true", "depth = True: input should be a valid integer"),
    "a number for true": ("extends = 'vit_ti16'\nqkv_bias = 1", "qkv_bias = 1: input should be a valid boolean"),
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
        "extends = 'vit_ti16'\n[preprocess]\ninterpolation = 'bicubic'\nmean = [0.5]\nstd = [0.5]\ncrop = 1", "preprocess.crop"
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
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.parametrize("case", WRONG_FILES)
def test_wrong_files_are_refused_at_once_in_one_line(case, tmp_path):
    content, fragment = WRONG_FILES[case]
    file = tmp_path / "mine.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.monotonic()
    with pytest.raises(InputError) as found:
        registry.get_spec(file)
        registry.config_of(registry.read_variant(file))
    assert fragment in str(found.value)
    assert "\n" not in str(found.value)
    assert str(file) in str(found.value)
    assert time.monotonic() - start < 2
    if case != "two variants where one is wanted":
        with pytest.raises(InputError):
            registry.register(file)
    assert not registry._registered


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
def test_what_cannot_be_a_name(name, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f"extends = 'vit_ti16'\nname = {quoted(name)}")
    for refused in (
        lambda: registry.get_spec(file),
        lambda: registry.register(registry.get_spec("vit_ti16"), name=name),
        lambda: registry.get_spec(name),
        lambda: registry.list_models(name),
    ):
        with pytest.raises(InputError) as found:
            refused()
        assert str(found.value).isprintable()
        assert len(str(found.value)) < 400


def quoted(name: str) -> str:
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in name) + '"'


def test_a_file_that_is_not_there_or_is_none(tmp_path):
    for path, fragment in ((tmp_path / "no.toml", "no such file"), (tmp_path, "is not a regular file")):
        with pytest.raises(InputError, match=fragment):
            registry.read_variant(path)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """An empty folder that VITZOO_PATH names, and a registry that has read nothing yet."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    monkeypatch.setenv("VITZOO_PATH", str(folder))
    monkeypatch.setattr(registry, "_zoo", {})
    return folder


def twice_the_same_error(ask, fragment):
    """A registry that failed once must not answer from the half that it read."""
    for _ in range(2):
        with pytest.raises(InputError) as found:
            ask()
        assert fragment in str(found.value)


def test_a_folder_of_zoo_files_that_is_not_there(zoo, monkeypatch):
    for path in (zoo / "no", __file__):
        monkeypatch.setenv("VITZOO_PATH", str(path))
        twice_the_same_error(registry.list_models, "no such folder (VITZOO_PATH names it)")


def test_a_name_in_two_files(zoo):
    (zoo / "a.toml").write_text(f"[variant]\nmine = {{ {ROW} }}\n")
    (zoo / "b.toml").write_text(f"[variant]\nmine = {{ {ROW} }}\n")
    twice_the_same_error(registry.list_models, "b.toml: the name 'mine' is also in")


def test_a_name_of_ours_in_a_users_file(zoo):
    (zoo / "a.toml").write_text(f"[variant]\nvit_b16 = {{ {ROW} }}\n")
    twice_the_same_error(registry.list_models, "the name 'vit_b16' is also in")


def test_a_broken_file_in_the_folder(zoo):
    (zoo / "a.toml").write_text("depth = = 3")
    twice_the_same_error(lambda: registry.get_spec("vit_b16"), "a.toml: not valid TOML")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_variants_that_extend_each_other_in_a_circle(zoo, length):
    for i in range(length):
        (zoo / f"v{i}.toml").write_text(f"name = 'v{i}'\nextends = 'v{(i + 1) % length}'\n")
    twice_the_same_error(lambda: registry.get_spec("v0"), "extends itself: ")
    assert "v0" in registry.list_models()  # listing needs no fields


def test_a_variant_may_extend_a_users_variant(zoo):
    (zoo / "a.toml").write_text("name = 'mine'\nextends = 'vit_ti16'\ndepth = 5\n")
    (zoo / "b.toml").write_text("name = 'other'\nextends = 'mine'\nheads = 6\n")
    spec = registry.get_spec("other")
    assert (spec.depth, spec.heads, spec.dim) == (5, 6, 192)


def test_a_name_that_is_taken_is_not_registered(zoo, tmp_path):
    file = tmp_path / "two.toml"
    file.write_text(f"[spec]\nextends = 'vit_ti16'\n[variant]\nfresh = {{ {ROW} }}\nvit_b16 = {{ {ROW} }}\n")
    spec = registry.get_spec("vit_ti16")
    for refused in (
        lambda: registry.register(file),
        lambda: registry.register(spec, name="vit_b16"),
        lambda: registry.register(spec),
    ):
        with pytest.raises(InputError) as found:
            refused()
        assert len(str(found.value)) < 300
    assert "fresh" not in registry.variants()
    assert registry.register(spec, name="fresh") == ["fresh"]
    with pytest.raises(InputError, match="the name 'fresh' is taken"):
        registry.register(spec, name="fresh")


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
def test_sizes_that_are_too_large_are_refused_before_torch_is_there(fields, fragment):
    settings = [part for field in fields.split(",") for part in ("--set", field)]
    code = (
        "import sys; from vit_zoo.cli.commands import vitzoo; from vit_zoo.cli.edge import _run; "
        f"code = _run(vitzoo, ['create', 'vit_b16', *{settings}]); assert 'torch' not in sys.modules; sys.exit(code)"
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
