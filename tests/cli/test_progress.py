"""Tests of progress: the line on a terminal, lines with --verbose, nothing elsewhere, and the suggestions after an export."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import signal
import sys
import time

import pytest

import vit_zoo
from support.models import SMALL
from vit_zoo.cli.live_line import clock, columns, fitted
from vit_zoo.cli.next_steps import next_steps
from vit_zoo.errors import InputError
from vit_zoo.progress import BYTES, Step, counted, part, running, step

EXPORT = ("export", "vit_ti16", "--random", "--onnx", "--set", "depth=1", "--verify", "quick")


def in_terminal(*arguments: str, interrupt: bool = False, slow: float = 0.7, **variables: str) -> tuple[int, str]:
    """Run `vitzoo` in a pseudo-terminal. Return its exit code and all that it wrote there.

    Making random weights takes `slow` seconds longer, so that there is something to show.
    """
    code = f"""
import time, vit_zoo.model.vit as v
original = v.initialise
def initialise(*args):
    time.sleep({slow})
    original(*args)
v.initialise = initialise
from vit_zoo.cli import main
main()
"""
    environment = {"TERM": "xterm", **os.environ, **variables}
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-c", code, *arguments], environment)
    written = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux: the other side is closed
            break
        written += piece
        if not piece:
            break
        if interrupt and b"random weights for" in written:
            os.kill(child, signal.SIGINT)
            interrupt = False
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), written.decode().replace("\r\n", "\n")


def on_screen(written: str) -> list[str]:
    """Return the lines that stay on the screen."""
    lines = [""]
    for part_ in re.split(r"(\r\x1b\[K|\n)", written):
        if part_ == "\n":
            lines.append("")
        elif part_.startswith("\r"):
            lines[-1] = ""
        else:
            lines[-1] += part_
    return [line for line in lines if line]


def test_a_terminal_shows_what_runs_and_is_clean_at_the_end(folder):
    code, written = in_terminal(*EXPORT)
    assert code == 0
    assert re.search(r"\r\x1b\[Kvitzoo: making [\d,]+ random weights for vit_ti16  0:0\d", written)
    warning, result, use, check = on_screen(written)
    assert warning == "vitzoo: vit_ti16 has RANDOM WEIGHTS (seed 0): it is not trained"
    assert written.index(warning) < written.index("random weights for"), "announced before the work"
    assert result.startswith("vit_ti16.onnx (")
    assert use == "next: vitzoo predict vit_ti16.onnx IMAGE..."
    assert check == "      vitzoo verify vit_ti16.onnx --against vit_ti16 --random --full"


@pytest.mark.parametrize("how", ["quiet", "dumb"])
def test_no_line_is_drawn_if_it_is_not_wanted_or_cannot_be(how, folder):
    code, written = in_terminal(*EXPORT, *(["-q"] if how == "quiet" else []), **({"TERM": "dumb"} if how == "dumb" else {}))
    assert code == 0
    assert "\r" not in written
    assert "\x1b" not in written
    assert ("next:" in written) == (how == "dumb")


def test_an_interrupt_leaves_a_clean_terminal(folder):
    code, written = in_terminal(*EXPORT, interrupt=True, slow=20)
    assert code == 130
    assert on_screen(written) == ["vitzoo: vit_ti16 has RANDOM WEIGHTS (seed 0): it is not trained", "vitzoo: interrupted"]
    assert not list(folder.iterdir())


def test_elsewhere_nothing_is_added(folder, cli):
    code, out, err = cli(*EXPORT)
    assert code == 0
    assert out.count("\n") == 1
    assert err == "vitzoo: vit_ti16 has RANDOM WEIGHTS (seed 0): it is not trained\n"


def test_verbose_prints_lines_and_json_stays_one_document(folder, cli):
    code, out, err = cli(*EXPORT, "--json", "-v")
    assert code == 0
    assert len(json.loads(out)) == 1
    lines = err.splitlines()
    assert any(line.startswith("vitzoo: making ") and line.endswith(" random weights for vit_ti16") for line in lines)
    assert "vitzoo: checking vit_ti16.onnx: opening it, optimiser on" in lines
    assert logging.getLogger("vit_zoo").level == logging.NOTSET, "as before"


def test_python_logs_steps(folder, caplog):
    caplog.set_level(logging.INFO, "vit_zoo")
    vit_zoo.export(vit_zoo.create("vit_b16", **SMALL), out="a.onnx")
    assert "computing the self-check: 6 images in the model, float32" in caplog.messages
    notes: list[str] = []
    vit_zoo.export(vit_zoo.create("vit_b16", **SMALL), out="b.onnx", note=notes.append)
    assert notes == ["writing b.onnx, then verifying it"]


def test_steps_are_nested_and_end_with_their_blocks():
    with step("checking a.onnx") as outer:
        assert running() is outer
        with part("onnxruntime", 8, "images") as inner:
            inner.advance(3)
            assert str(inner) == "checking a.onnx: onnxruntime, 3 of 8 images"
            assert running() is inner
        assert running() is outer
    with pytest.raises(ValueError, match="x"), step("fails"):
        raise ValueError("x")
    assert running() is None
    seen = [(item, str(running())) for item in counted("ab", "reading", 2, "files")]
    assert seen == [("a", "reading, 0 of 2 files"), ("b", "reading, 1 of 2 files")]


def test_a_step_over_bytes_has_a_rate_and_the_time_left():
    one = Step("writing a.onnx", total=330_000_000, unit=BYTES, started=time.monotonic() - 2)
    one.advance(120_000_000)
    assert str(one) == "writing a.onnx, 120 of 330 MB, 60 MB/s, 4 s left"
    assert str(Step("empty", total=0, unit=BYTES)) == "empty"
    assert str(Step("images", unit="images", done=8)) == "images, 8 images"


def test_small_steps_are_not_logged(caplog):
    caplog.set_level(logging.INFO, "vit_zoo")
    with step("hashing a", 9, BYTES, least=10), step("hashing b", 10, BYTES, least=10):
        pass
    assert caplog.messages == ["hashing b"]


def test_a_line_fits_the_terminal():
    assert fitted("vitzoo: checking", "  0:05", 40) == "vitzoo: checking  0:05"
    for width in range(45):
        assert columns(fitted("vitzoo: checking 模型模型.onnx: float64", "  0:05", width)) <= width
    assert clock(65.4) == "1:05"


def test_suggestions_fit_the_file(folder):
    def lines(model, **options) -> list[str]:
        exports = vit_zoo.export(model, out="my file.onnx", **options)
        verify = options.get("verify")
        assert (exports[0].report is None) == (verify is False)
        return next_steps(exports, "my model", options.get("outputs"), random=False, seed=None)

    model = vit_zoo.create("vit_ti16", depth=1, num_classes=3)
    model.head.weight.data += 1  # no random weights any more
    use, check = lines(model, verify="quick")
    assert use == "vitzoo predict 'my file.onnx' IMAGE..."
    assert check == "vitzoo publish 'my model' ORG/NAME"
    use, check = lines(model, verify=False, outputs=["last_hidden_state"])
    assert use == "'my file.onnx' returns last_hidden_state"
    assert check == "vitzoo verify 'my file.onnx' --against 'my model'"


def test_random_weights_are_announced_before_they_are_made(folder, cli, monkeypatch):
    assert cli(*EXPORT, "-q").code == 0

    def stop(*args: object) -> None:
        raise InputError("stop")

    monkeypatch.setattr("vit_zoo.model.vit.initialise", stop)
    random = ("vit_ti16", "--random", "--set", "depth=1")
    for command in (
        ("export", *random, "--onnx", "-o", "other.onnx"),
        ("convert", *random, "--to", "timm", "-o", "a"),
        ("verify", "vit_ti16.onnx", "--against", *random),
    ):
        code, _, err = cli(*command)
        assert code == 2
        assert err == "vitzoo: vit_ti16 has RANDOM WEIGHTS (seed 0): it is not trained\nvitzoo: error: stop\n"
