"""Tests of the corpus of bad files: a sample of every kind and all former faults; and of the runner, that it notices faults."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from corpus.entry import Command, Entry, content
from corpus.runner import MARK, Usage, run_entry
from corpus.table import ENTRIES
from support.paths import ROOT

LEAST = 250  # entries
KINDS = ("weights", "onnx", "configs", "rest")
PATTERNS = {
    "weights": ("pickle/*", "torch/*", "torchscript/*", "npz/*", "hdf5/*", "sharded/*", "safetensors/*"),
    "onnx": ("onnx_*",),
    "configs": ("config_*", "document/*", "toml/*", "zoo/*", "labels/*", "prepare/*", "metadata_*", "selfcheck/*", "report/*"),
    "rest": ("image/*", "name/*", "set/*", "option/*"),
}
SAMPLE = 1  # of each kind, besides former faults


def test_the_corpus_is_large_and_its_names_are_unique():
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names) >= LEAST
    kinds = {pattern.partition("/")[0].rstrip("*") for patterns in PATTERNS.values() for pattern in patterns}
    assert all(name.startswith(tuple(kinds)) for name in names)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_the_corpus(kind, files):
    """One process per kind, which forks for each command."""
    patterns = [part for pattern in PATTERNS[kind] for part in ("--only", pattern)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.corpus", "--fork", "--loaded", "--folder", files, "--sample", str(SAMPLE), *patterns],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# --- the runner ---

GOOD = Usage(7, 0.1, 0.1, 10**8, "vitzoo: error: a.bin: is refused\n", "", 0.1)


def outcome(tmp_path, result, action=lambda work: None):
    """What the runner finds when a command gives this result after an action."""
    entry = Entry("kind/name", content("a.bin", b"x"), (Command(("show", "a.bin"), (7,)),))
    place = tmp_path / "files" / "kind-name"
    place.mkdir(parents=True)
    entry.make(place)

    def start(arguments, work):
        action(work)
        return result

    return next(run_entry(entry, tmp_path, start)).faults


def changed(**fields):
    return Usage(**{**GOOD.__dict__, **fields})


def test_a_refusal_has_no_faults(tmp_path):
    assert outcome(tmp_path, GOOD) == ()


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        (changed(code=2), "exit 2, not 7"),
        (changed(code=0, text=""), "exit 0, not 7"),
        (changed(code=-9, text=""), "exit -9"),
        (changed(text=""), "0 error lines"),
        (changed(text=GOOD.text * 2), "2 error lines"),
        (changed(text=GOOD.text + "UserWarning: x\n"), "stderr: 'UserWarning: x'"),
        (changed(text="Traceback (most recent call last):\n" + GOOD.text), "stderr: 'Traceback"),
        (changed(text="vitzoo: error: a.bin: \x1b[31mred\n"), "move the cursor"),
        (changed(output="\x1b[31mred"), "move the cursor"),
        (changed(text="vitzoo: error: is refused\n"), "does not name 'a.bin'"),
        (changed(text="vitzoo: error: a.bin: unexpected KeyError: 1\n"), "technical: 'unexpected KeyError:'"),
        (changed(text="vitzoo: error: a.bin: graph.cc:123 failed\n"), "technical: 'graph.cc:123'"),
        (changed(time=5.5), "5.5 s"),
        (changed(memory=1_600_000_000), "1.6 GB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_result_is_noticed(result, fault, tmp_path):
    assert any(fault in found for found in outcome(tmp_path, result))


@pytest.mark.parametrize(
    ("action", "fault"),
    [
        (lambda work: (work / "in" / MARK).touch(), "a payload ran: in/PWNED"),
        (lambda work: (work / "home" / MARK).touch(), "a payload ran: home/PWNED"),
        (lambda work: (work / "in" / "a.bin").write_bytes(b"y"), "changed: a.bin"),
        (lambda work: (work / "in" / "a.bin").unlink(), "changed: a.bin"),
        (lambda work: (work / "in" / "a.bin").chmod(0o600), "changed: a.bin"),
        (lambda work: (work / "in" / "a.bin.parity.json").touch(), "changed: a.bin.parity.json"),
        (lambda work: (work / "out" / "half").touch(), "left output: half"),
    ],
    ids=["marker", "marker elsewhere", "bytes", "removed", "mode", "report", "output"],
)
def test_a_trace_is_noticed(action, fault, tmp_path):
    assert fault in outcome(tmp_path, GOOD, action)
