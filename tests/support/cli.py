"""Runner of the command line in this process."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from vit_zoo.cli.entry_point import run


class Result(NamedTuple):
    """Exit code of a command, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


class CommandLine:
    """`cli("show", "vit_b16", "--json")` runs `vitzoo show vit_b16 --json` and returns its Result."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object) -> Result:
        self._capture.readouterr()  # output from before the command
        code = run([str(argument) for argument in arguments])
        return Result(code, *self._capture.readouterr())
