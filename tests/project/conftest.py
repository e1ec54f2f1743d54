"""Fixtures for the tests of installations and of tutorials: the distributions, and an environment without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv

import pytest

from support.paths import ROOT


def _run(*command, cwd):
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VITZOO_PATH")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def distributions(tmp_path_factory):
    """The wheels of vitzoo and vitzoo-runtime, built from a copy of the files that belong to them."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    for name in ("vit_zoo", "zoo", "runtime"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for project in (source, source / "runtime"):
        _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, project, cwd=source)
    return {name: next(folder.glob(f"{name}-*.whl")) for name in ("vitzoo", "vitzoo_runtime")}


@pytest.fixture(scope="session")
def torch_free(distributions, tmp_path_factory):
    """The Python of a fresh environment with vitzoo-runtime, as `pip install ./runtime` makes it."""
    folder = tmp_path_factory.mktemp("host")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", distributions["vitzoo_runtime"], cwd=folder)
    return python
