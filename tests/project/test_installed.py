"""Tests of every kind of installation: the zoo is found, and a host without torch lists, shows and predicts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import vit_zoo
from support.paths import ROOT

COUNT = "import vit_zoo, vit_zoo.registry.catalog as z; print(len(vit_zoo.list_models()), z.zoo_folder())"


def output(*command, cwd, **environment):
    """The output of a command in an environment without this checkout."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VITZOO_PATH")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env={**clean, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def wheel(distributions):
    return distributions["vitzoo"]


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_both_distributions_have_the_same_files_and_version(distributions):
    wheel, runtime_wheel = distributions["vitzoo"], distributions["vitzoo_runtime"]
    assert runtime_wheel.name == wheel.name.replace("vitzoo-", "vitzoo_runtime-")
    assert contents(runtime_wheel) == contents(wheel)
    assert {f"vit_zoo/self_check/checkers/selfcheck.{kind}" for kind in ("py", "mjs", "cc")} <= set(contents(wheel))


def test_the_runtime_depends_on_less():
    main, runtime = (tomllib.loads((ROOT / path / "pyproject.toml").read_text())["project"] for path in (".", "runtime"))
    assert set(runtime["dependencies"]) < set(main["dependencies"])
    assert not [line for line in runtime["dependencies"] if line.startswith("torch")]
    for field in ("license", "requires-python", "scripts"):
        assert runtime[field] == main[field]


def test_the_zoo_of_a_checkout(tmp_path):
    names, folder = output(sys.executable, "-c", COUNT, cwd=ROOT).split()
    assert folder == str(ROOT / "zoo")
    assert int(names) == len(vit_zoo.list_models())
    assert output(sys.executable, "-c", COUNT, cwd=tmp_path, PYTHONPATH=str(ROOT)).split() == [names, folder]


@pytest.mark.parametrize("editable", [False, True])
def test_the_zoo_of_an_installation(editable, wheel, make_environment, tmp_path):
    python = make_environment(tmp_path, "--no-deps", *(["-e", ROOT] if editable else [wheel]))
    names, folder = output(python, "-c", COUNT, cwd=tmp_path).split()
    assert int(names) == len(vit_zoo.list_models())
    assert (Path(folder) == ROOT / "zoo") == editable
    assert (Path(folder) / "vit_digits" / "model.safetensors").is_file()


def test_a_host_without_torch(torch_free, folder):
    vitzoo = torch_free.parent / "vitzoo"
    assert output(sys.executable, "-m", "pip", "--python", torch_free, "check", cwd=folder) == "No broken requirements found.\n"
    vit_zoo.export("vit_digits")
    shutil.move("vit_digits.onnx", "renamed.bin")
    Path("vit_digits.onnx.parity.json").unlink()
    samples = sorted((ROOT / "zoo" / "vit_digits" / "samples").glob("*.png"))
    found = json.loads(output(vitzoo, "predict", "renamed.bin", *samples, "--json", cwd=folder))
    assert [item["predictions"][0]["label"] for item in found] == list("0123456789")
    assert "renamed.bin passes its self-check" in output(vitzoo, "selfcheck", "renamed.bin", cwd=folder)
    assert output(vitzoo, "list", "*", cwd=folder).split() == vit_zoo.list_models()
    assert "203,594 parameters" in output(vitzoo, "show", "renamed.bin", cwd=folder)
    assert "86,567,656 parameters" in output(vitzoo, "show", "vit_b16", cwd=folder)
    assert "203,594 parameters" in output(vitzoo, "show", "vit_digits", cwd=folder)
    doctor = json.loads(output(vitzoo, "doctor", "--json", cwd=folder))
    assert doctor["list, show, predict"] == "ready"
    assert doctor["create, export, verify"] == "missing: torch, einops (pip install torch einops huggingface-hub pyyaml)"
    assert "conflict" not in doctor
    for command, missing in ((["export", "vit_digits", "--onnx"], "torch"), (["pull", "org/name"], "huggingface_hub")):
        refused = subprocess.run([vitzoo, *command], cwd=folder, capture_output=True, text=True)
        expected = f"the package {missing} is not installed (pip install torch einops huggingface-hub pyyaml)"
        assert (refused.returncode, refused.stderr) == (4, f"vitzoo: error: {expected}\n")
