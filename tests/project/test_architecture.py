"""Tests of the pages on the code's architecture: every path and function that they name exists, and the answers hold."""

from __future__ import annotations

import importlib
import re

import pytest

from support.paths import ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text()
STEPS = ARCHITECTURE.partition("## An export, step by step")[2].partition("\n## ")[0]
# each question of contributing.md, and what is in the file of its answer
ANSWERS = {
    "Where is the ONNX `Gelu` written?": '"Gelu"',
    "Where are timm's names mapped to ours?": "TIMM = Dialect(",
    "Where is a tolerance decided?": "TOLERANCES = {",
    "Where is the model card made?": "def card_of(",
}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_.]+)`", STEPS)) - {"vit_b16.onnx"}))
def test_a_function_of_the_worked_example_exists(name):
    if name.startswith("vit_b16."):
        return
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(["vit_zoo", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            value = getattr(value, part)
        return
    pytest.fail(f"{name} is not in vit_zoo")


def test_every_package_has_its_line():
    table = ARCHITECTURE.partition("## The packages")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \| [^|]", table, re.MULTILINE)
    listed = {name for name in rows if name != "vit_zoo"}  # the head
    package = ROOT / "vit_zoo"
    files = {path.stem for path in package.iterdir() if path.suffix == ".py" and path.stem != "__init__"}
    assert listed == files | {path.parent.name for path in package.glob("*/__init__.py")}


@pytest.mark.parametrize("question", ANSWERS)
def test_the_answers_to_the_four_questions_hold(question):
    (path,) = re.findall(rf"\| {re.escape(question)} \| `([\w/.]+)`", CONTRIBUTING)
    assert ANSWERS[question] in (ROOT / path).read_text()


def test_every_path_that_the_pages_name_exists():
    for page in (ARCHITECTURE, CONTRIBUTING):
        for path in re.findall(r"`((?:[\w-]+/)+[\w.-]*)`", page):
            assert (ROOT / path).exists() or (ROOT / "vit_zoo" / path).exists(), path
