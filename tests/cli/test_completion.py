"""Tests of completion in the shell: the words that are suggested, and the scripts in the shells that are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from vit_zoo.cli.completion import TARGETS
from vit_zoo.loading.convert import targets
from vit_zoo.model.resize_recipes import RECIPES
from vit_zoo.model.spec import ViTSpec
from vit_zoo.registry import catalog
from vit_zoo.registry.aliases import read_aliases
from vit_zoo.registry.catalog import variants, zoo
from vit_zoo.registry.lookup import tags_of


@pytest.fixture
def complete(monkeypatch, capfd):
    """`complete("show", "vit_b")` returns the suggestions for the last of the words, and whether files are suggested."""
    from vit_zoo.cli.entry_point import run

    def completed(*arguments):
        capfd.readouterr()
        monkeypatch.setenv("_VITZOO_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["vitzoo", *arguments]))
        monkeypatch.setenv("COMP_CWORD", str(len(arguments)))
        with pytest.raises(SystemExit):
            run([])
        lines = capfd.readouterr().out.splitlines()
        kinds = [line.split(",", 1)[0] for line in lines]
        return [line.split(",", 1)[1] for line in lines if line.startswith("plain,")], "file" in kinds

    return completed


def test_names(complete):
    every = [name for name in variants() if name.startswith("vit_b16")]
    for verb in (
        ["show"],
        ["export"],
        ["create"],
        ["verify"],
        ["predict"],
        ["convert"],
        ["publish"],
        ["verify", "x", "--against"],
    ):
        assert complete(*verb, "vit_b16") == (every, True), verb
    assert complete("list", "vit_b16") == (every, False)
    assert complete("export", "vit_ti16", "--onnx", "--weights", "vit_b16") == (every, True)
    assert complete("show", "nothing") == ([], True)


def test_tags_and_names_of_other_libraries(complete):
    assert complete("show", "vit_b16.")[0] == [tag.full_name for tag in tags_of("vit_b16").values()]
    assert complete("show", "vit_b16.goo")[0] == ["vit_b16.google_in21k_ft_in1k", "vit_b16.google_in21k"]
    theirs = [alias for alias in read_aliases(zoo().folders)[0] if alias.startswith("google/vit-base")]
    assert theirs
    assert complete("export", "google/vit-base")[0] == theirs
    assert complete("show", "nothing.")[0] == []


def test_targets_fields_and_parts(complete):
    assert targets() == TARGETS
    assert complete("convert", "x", "--to", "")[0] == list(TARGETS)
    assert complete("convert", "x", "--to", "open")[0] == ["open_clip"]
    items = complete("export", "m", "--set", "")[0]
    assert set(ViTSpec.model_fields) <= {item.partition("=")[0] for item in items}
    assert complete("export", "m", "--set", "act")[0] == ["act=gelu", "act=gelu_tanh", "act=quick_gelu", "act=silu"]
    assert complete("create", "m", "--set", "class")[0] == ["class_token=true", "class_token=false"]
    assert complete("create", "m", "--set", "dep")[0] == ["depth="]
    assert complete("create", "m", "--set", "resize")[0] == [f"resize={name}" for name in RECIPES]
    assert complete("export", "m", "--set", "depth=2", "--set", "qkv_b")[0] == ["qkv_bias=true", "qkv_bias=false", "qkv_bias=qv"]
    assert complete("export", "m", "--outputs", "logits,po")[0] == ["logits,pooler_output"]
    assert complete("export", "m", "--include", "pre")[0] == ["preprocess", "preprocess-exact"]
    assert complete("list", "--sort", "to")[0] == ["tokens"]
    assert complete("list", "--pretrained", "--sort", "to")[0] == ["top1", "top1_by", "tokens"]
    assert "--pretrained" in complete("list", "--p")[0]
    assert "--onnx" in complete("export", "--on")[0]


def test_every_suggested_value_is_valid(complete):
    from vit_zoo.registry.models import get_spec

    for item in complete("create", "m", "--set", "")[0]:
        field, _, value = item.partition("=")
        if value and field in ViTSpec.model_fields:
            annotation = str(ViTSpec.model_fields[field].annotation)
            assert value in ("true", "false") or f"'{value}'" in annotation, item
    assert get_spec("vit_b16", act="silu").act == "silu"


def test_a_damaged_zoo_suggests_nothing(complete, folder, monkeypatch):
    monkeypatch.setenv("VITZOO_PATH", str(folder / "gone"))
    monkeypatch.setattr(catalog.KNOWN, "read", None)
    assert complete("show", "vit") == ([], True)


@pytest.mark.parametrize(
    "words", [("show", "vit_b16."), ("export", "m", "--set", "a"), ("convert", "x", "--to", "h"), ("show", "goo")]
)
def test_a_completion_imports_nothing_heavy(words):
    code = (
        "import sys\nfrom vit_zoo.cli.entry_point import run\n"
        "try: run([])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'pydantic', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    variables = {"_VITZOO_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["vitzoo", *words]), "COMP_CWORD": str(len(words))}
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    assert result.stderr == "[]\n"
    assert result.stdout.startswith(("plain,", "file,"))


BASH = """
eval "$({vitzoo} completion bash)"
COMP_WORDS=(vitzoo {words}); COMP_CWORD={last}
_vitzoo_completion vitzoo
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = """
{vitzoo} completion fish | source
complete --do-complete 'vitzoo {line}'
"""


@pytest.fixture
def vitzoo(folder):
    """A command `vitzoo` in a folder of the search path."""
    command = folder / "vitzoo"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vit_zoo.cli "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_in_bash(vitzoo):
    for words, expected in (
        ("show vit_ti", ["vit_ti16", "vit_ti16_384"]),
        ("create m --set dep", ["depth="]),
        ("exp", ["export"]),
    ):
        code = BASH.format(vitzoo="vitzoo", words=words, last=len(words.split()))
        result = subprocess.run(["bash", "-c", code], env=vitzoo, capture_output=True, text=True, check=True)
        assert result.stdout.split() == expected
    script = subprocess.run(["vitzoo", "completion", "bash"], env=vitzoo, capture_output=True, text=True, check=True).stdout
    assert "compopt -o nospace" in script  # after FIELD=


@pytest.mark.parametrize(
    ("shell", "word", "expected"),
    [("zsh", "2", "plain\nvit_ti16\nViT and AugReg"), ("fish", "vit_ti", "plain,vit_ti16\tViT and AugReg")],
)
def test_what_zsh_and_fish_read(vitzoo, shell, word, expected):
    """They show the family's title beside a name; the scripts themselves are click's."""
    variables = {**vitzoo, "_VITZOO_COMPLETE": f"{shell}_complete", "COMP_WORDS": "vitzoo show vit_ti", "COMP_CWORD": word}
    result = subprocess.run(["vitzoo"], env=variables, capture_output=True, text=True, check=True)
    assert expected in result.stdout


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_in_fish(vitzoo):
    code = FISH.format(vitzoo="vitzoo", line="show vit_ti")
    result = subprocess.run(["fish", "-c", code], env=vitzoo, capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["vit_ti16", "vit_ti16_384"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_the_script_of_zsh_is_valid(vitzoo):
    code = 'autoload -U compinit; compinit -u; eval "$(vitzoo completion zsh)"; print $_comps[vitzoo]'
    result = subprocess.run(["zsh", "-c", code], env=vitzoo, capture_output=True, text=True, check=True)
    assert result.stdout == "_vitzoo_completion\n"


def test_a_completion_is_fast():
    """As fast as `vitzoo list`, within the noise of this machine: the best of three."""

    def seconds(arguments, variables):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "vit_zoo.cli", *arguments], env={**os.environ, **variables}, capture_output=True, check=False
        )
        return time.perf_counter() - start

    variables = {"_VITZOO_COMPLETE": "bash_complete", "COMP_WORDS": "vitzoo show vit_b", "COMP_CWORD": "2"}
    best = min(seconds([], variables) for _ in range(3))
    assert best < 2 * min(seconds(["list"], {}) for _ in range(3)) + 0.1
