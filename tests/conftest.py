"""Fixtures of every test, no access to the real Hub, and how the tests are run: one thread each, on every core."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
import torch

pytest.register_assert_rewrite("support")

from support import hub_environment, torchvision_operators  # noqa: E402  registered first, so that its assertions are rewritten
from support.cli import CommandLine  # noqa: E402
from support.paths import TESTS  # noqa: E402
from support.quick import PINNED, QUICK  # noqa: E402

MOST_WORKERS = 4  # each has torch and the peers in memory, about 1.5 GB

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a background job of a shell; child processes would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)
hub_environment.set_up()
torchvision_operators.declare()  # test modules may import timm in any order
torch.set_num_threads(1)  # models are tiny: a second thread costs more than it saves
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of child processes


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Distribute folders over the cores, file by file; a file, `-k` or `--pdb` runs in this process, as `-n 0` does."""
    options = config.option
    if not config.pluginmanager.hasplugin("xdist") or options.numprocesses is not None or hasattr(config, "workerinput"):
        return
    if options.keyword or options.usepdb or options.collectonly or any(".py" in argument for argument in config.args):
        return
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    if workers > 1:
        options.numprocesses, options.dist = workers, "loadfile"  # the fixtures of a module are made once
        options.loadscopereorder = False  # the slowest files have few tests


def pytest_itemcollected(item):
    file = item.path.relative_to(TESTS).as_posix()
    names = {file, f"{file}::{item.originalname}"}
    for marker, marked in (("quick", QUICK), ("pinned", PINNED)):
        if names & marked:
            item.add_marker(marker)


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
