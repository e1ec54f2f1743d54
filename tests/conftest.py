"""Fixtures of every test: a folder of its own, fixed random numbers, and no access to the real Hub."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

pytest.register_assert_rewrite("support")

from support import hub_environment, torchvision_operators  # noqa: E402  registered first, so that its assertions are rewritten
from support.cli import CommandLine  # noqa: E402

hub_environment.set_up()
torchvision_operators.declare()  # test modules may import timm in any order


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capfd):
    """The command line, run in this process: `cli(*arguments)` returns exit code, stdout and stderr."""
    return CommandLine(capfd)


@pytest.fixture(scope="session", autouse=True)
def _no_cache_is_left():
    yield
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
