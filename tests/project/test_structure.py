"""Tests of the package's structure: import order, imports at start-up, and public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import click
import pytest

import vit_zoo
from support.paths import TESTS
from support.quick import PINNED, QUICK
from vit_zoo.cli.commands import vitzoo

PACKAGE = Path(vit_zoo.__file__).parent

# each package may import from those before it
PACKAGES = (
    "errors", "progress", "files", "model", "registry", "graph", "weights", "formats", "self_check", "hub", "loading", "parity",
    "exporters", "publishing", "api", "inference", "cli",
)  # fmt: skip
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(tree):
    """The names that a module imports at run time, in functions too, but not for the type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def package_of(path):
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path):
    assert package_of(path) in PACKAGES, "a new package needs its place in the order"
    above = PACKAGES[: PACKAGES.index(package_of(path)) + 1]
    for name in imported(ast.parse((PACKAGE / path).read_text())):
        package, *rest = name.split(".")
        if package == "vit_zoo" and rest != ["__version__"]:
            used = rest[0] if rest[0] in PACKAGES else None
            assert used in above, f"{path} imports {name}"


def test_the_forward_is_independent_of_back_ends():
    text = (PACKAGE / "model" / "forward.py").read_text()
    modules = {name.partition(".")[0] for name in imported(ast.parse(text))}
    assert modules == {"__future__", "collections", "dataclasses", "typing", "vit_zoo"}
    assert len(text.splitlines()) <= 200


def test_no_top_level_module_has_the_name_of_a_public_function():
    modules = {package_of(path) for path in MODULES}  # vit_zoo.export would be either
    functions = {name for name in vit_zoo.__all__ if name.islower()}
    assert functions
    assert not modules & functions


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'onnx', 'onnxruntime', 'numpy', 'einops', 'pydantic', 'PIL', 'huggingface_hub', 'safetensors'}"
    code = f"import sys, vit_zoo, vit_zoo.cli.commands; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_exists_and_is_documented():
    for name in vit_zoo.__all__:
        assert getattr(vit_zoo, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vit_zoo.nothing


@pytest.mark.parametrize("verb", sorted(vitzoo.commands))
def test_every_command_shows_an_example(verb):
    command = vitzoo.commands[verb]
    text = command.get_help(click.Context(command, info_name=verb))
    assert f"vitzoo {verb}" in text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_the_quick_set_has_tests_of_every_folder():
    assert {entry.partition("/")[0] for entry in QUICK} == {path.parent.name for path in TESTS.glob("*/test_*.py")}
    for entry in QUICK | PINNED:
        file, _, function = entry.partition("::")
        assert f"def {function or 'test_'}" in (TESTS / file).read_text(), entry
