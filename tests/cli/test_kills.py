"""Tests that a killed command leaves the old or the new files; `python -m tests.kills` does it for every command and call."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from support.paths import ROOT, TESTS

SCENARIOS = ["current folder", "external over"]  # without and with files of different kinds


def test_kill_9_at_calls_that_change_the_disk():
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.kills", "--calls", "2", "--only", *SCENARIOS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [one["scenario"] for one in found] == [
        "create in the current folder",
        "export external over an old one",
    ]
    for one in found:
        assert one["wrong"] == {}
        assert one["old"] + one["new"] == one["kills"] >= 2
