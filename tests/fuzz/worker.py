"""Worker process of the fuzz harness: runs cases one after the other, and prints what became of each.

For each case it prints a line `start NUMBER` before and a line of JSON after, so that the parent knows which case a process
died of. Lines go to a descriptor of their own: stdout and stderr are the commands'.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from fuzz.case import Case

CPU_SECONDS, WALL_SECONDS = 10.0, 60.0  # limits of a case
DATA = 3 << 30  # bytes of memory that a worker may have
PEAK = 2_000_000_000  # bytes of a process's memory that are a fault
REFUSALS = (2, 3, 4, 5, 6, 7, 8)
INNERMOST = re.compile(r"vit_zoo/(\S+)$")


class TooSlow(BaseException):
    """Raised in a case that takes too long; not an Exception, which a reader may catch."""


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def place_of(error: BaseException) -> str:
    """Return the innermost line of vit_zoo in an error's traceback."""
    place = "?"
    for frame in traceback.extract_tb(error.__traceback__):
        if found := INNERMOST.search(frame.filename):
            place = f"{found[1]}:{frame.lineno} `{frame.name}`"
    return place


class Worker:
    """Runs cases in this process, with limits."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.errors: list[BaseException] = []
        import onnxruntime as ort
        import torch

        import vit_zoo.api  # noqa: F401
        from vit_zoo.cli import entry_point

        torch.set_num_threads(1)
        ort.set_default_logger_severity(4)
        self.run = entry_point.run
        report = entry_point._report

        def recorded(*arguments: Any, **named: Any) -> int:
            error = sys.exception()
            if error is not None:
                self.errors.append(error)
            return report(*arguments, **named)

        entry_point._report = recorded
        signal.signal(signal.SIGPROF, _too_slow)
        signal.signal(signal.SIGALRM, _too_slow)
        resource.setrlimit(resource.RLIMIT_DATA, (DATA, DATA))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def result(self, case: Case) -> dict[str, Any]:
        """Run a case in an empty folder, and return its kind and, for a fault, what tells it from other ones."""
        folder = Path(tempfile.mkdtemp(prefix="vitzoo-fuzz-"))
        home = Path.cwd()
        self.errors.clear()
        began = time.process_time()
        try:
            case.write(folder, self.base)
            os.chdir(folder)
            return {**self._run(case), "cpu": time.process_time() - began}
        finally:
            os.chdir(home)
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, case: Case) -> dict[str, Any]:
        code: int | None = None
        error: BaseException | None = None
        with (
            tempfile.TemporaryFile("w+", errors="backslashreplace") as out,
            tempfile.TemporaryFile("w+", errors="backslashreplace") as err,
        ):
            saved = [os.dup(1), os.dup(2)]
            streams = sys.stdout, sys.stderr
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout, sys.stderr = out, err
            try:
                signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
                signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
                code = self.run(case.line(self.base))
            except BaseException as raised:  # run() lets none through but SystemExit; TooSlow is ours
                error = raised
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
                with contextlib.suppress(OSError, ValueError):
                    out.flush()
                    err.flush()
                sys.stdout, sys.stderr = streams
                for number, old in zip((1, 2), saved, strict=True):
                    os.dup2(old, number)
                    os.close(old)
            err.seek(0)
            text = err.read()
        return self._judged(code, error, text)

    def _judged(self, code: int | None, error: BaseException | None, text: str) -> dict[str, Any]:
        if isinstance(error, TooSlow):
            return _fault("hang", "TooSlow", place_of(error), text)
        if error is not None:
            return _fault("exception", type(error).__name__, place_of(error), text)
        last = self.errors[-1] if self.errors else None
        if code not in (0, *REFUSALS):
            return _fault("exit", f"{code}: {type(last).__name__}", "?" if last is None else place_of(last), text)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if memory > PEAK or isinstance(last, MemoryError) or (last is not None and "can't allocate memory" in str(last)):
            return _fault("memory", type(last).__name__, "?" if last is None else place_of(last), text) | {"restart": True}
        strange = [line for line in text.splitlines() if not line.startswith("vitzoo: ")]
        if strange:
            return _fault("stderr", re.sub(r"\d+", "N", strange[0])[:60], "?", text)
        return {"kind": "ok" if code == 0 else "refused", "code": code}


def _fault(kind: str, error: str, place: str, text: str) -> dict[str, Any]:
    return {"kind": kind, "error": error, "place": place, "text": text[-400:]}


def work(cases: Iterable[tuple[int, Case]], base: Path, out: TextIO) -> None:
    """Run numbered cases, and print a line before and after each."""
    worker = Worker(base)
    for number, case in cases:
        print(f"start {number}", file=out, flush=True)
        result = worker.result(case)
        print(json.dumps({"number": number, **result}), file=out, flush=True)
        if result.get("restart"):
            return
