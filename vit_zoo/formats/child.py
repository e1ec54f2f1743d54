"""Child processes that open and run ONNX files: what a file does there ends neither this process nor its memory.

A child runs `session.py`. It gets none of this process's descriptors and few environment variables. It writes no files, is
killed when its time is over, and ends when this process does. On Linux its memory is limited (RLIMIT_DATA); on macOS the
system ignores that limit, and on Windows there is none, so that only time is limited there. Nothing it sends is trusted:
arrays of numbers come back by type and shape, within the memory that it may use itself.

This is no sandbox against code: a file that takes over onnxruntime could read what the user can read.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, RefusedContent, Stopped
from vit_zoo.formats import session
from vit_zoo.formats.limits import MEMORY, TIME, Clock, Limits, memory_to_run, seconds_to_open, seconds_to_run
from vit_zoo.formats.session import SessionError, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from subprocess import Popen

    from vit_zoo.formats.artifact import Array

PROGRAM = Path(session.__file__)
# what a process, its libraries and execution providers need; not, for instance, tokens, or ORT_LOAD_CONFIG_FROM_MODEL,
# with which a file states options of its session
KEPT = ("PATH", "HOME", "TMP", "TEMP", "TMPDIR", "SYSTEMROOT", "WINDIR")
KEPT_PREFIXES = ("LD_", "DYLD_", "LC_", "CUDA", "NVIDIA_", "ROCR_", "HIP_", "OMP_", "KMP_", "OPENVINO_")
MAX_ANSWER, MAX_PROFILE = 4 * 2**20, 256 * 2**20  # bytes of text
INNER_FACTOR = 2.0  # memory for a run that returns inner values, of which many are kept at once
PIPE_SIZE = 2**20  # bytes; Linux's largest for an ordinary user


class Child:
    """A child process for one file. It starts with the first call, or earlier with `start`, and has one open session at most.

    * `size`: the bytes of the file and of its weights next to it, from which the default limits follow.
    * `total`: whether the limit of time is for everything that the file does, or else for each call.
    * `writes`: whether it may write files.
    """

    runner = "onnxruntime"  # what runs the file there, for messages

    def __init__(self, path: Path, limits: Limits, *, size: int = 0, total: bool = True, writes: bool = False) -> None:
        self.path, self.limits, self.size, self.total, self.writes = path, limits, size, total, writes
        self.opened = 0  # the number of the open session
        self._clock = Clock(limits)
        self._process: Popen[bytes] | None = None
        self._end: Any = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process, which takes a while to import onnxruntime."""
        if self._process is not None:
            return
        if not sys.executable or getattr(sys, "frozen", False):
            hint = "isolated=False opens a file that you trust"
            raise InputError("files are opened in a child process, which needs a Python interpreter", hint=hint)
        main = threading.current_thread() is threading.main_thread()  # another thread may end before this process does
        command = self._command(os.getpid() if main else 0)
        # in a group of its own, Ctrl-C does not reach it
        group: dict[str, Any] = {"process_group": 0}
        if sys.platform == "win32":
            group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter and our own file
            [sys.executable, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._environment(), **group,
        )  # fmt: skip
        self._end = weakref.finalize(self, _end, self._process)
        if sys.platform == "linux":
            import fcntl

            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # the user's pipes may be too large in all
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)  # type: ignore[arg-type]

    def _command(self, dies_with: int) -> list[str]:
        """Return the arguments of the interpreter; `dies_with` is the process that the child dies with, or 0."""
        folders = []
        for name in ("numpy", "onnxruntime"):
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            folders.append(str(Path(spec.origin).parent.parent))
        return ["-I", "-S", "-B", str(PROGRAM), json.dumps([list(dict.fromkeys(folders)), self.writes, dies_with])]

    def _environment(self) -> dict[str, str]:
        return _environment()

    def close(self) -> None:
        """End the process. A later call starts another one."""
        if self._end is not None:
            self._end()
        self._process = self._end = None
        self.opened += 1

    def open(
        self,
        *,
        providers: Sequence[str] | None,
        threads: int | None,
        optimised: bool,
        more: bytes = b"",
        profile: str | None = None,
        pixels: int = 0,
    ) -> ChildSession:
        """Open the file, in place of an earlier session. Errors and other arguments are those of `Session`.

        `pixels`: those of the images that the file makes of its input, if they may be more than those of the input.
        """
        self.opened += 1
        self.start()
        importlib.import_module("numpy")  # while the child imports it too
        limited = providers is None or list(providers) == ["CPUExecutionProvider"]
        request = {
            "do": "open", "path": str(self.path.absolute()), "providers": providers, "threads": threads, "optimised": optimised,
            "more": base64.b64encode(more).decode(), "profile": profile,
        }  # fmt: skip
        factor = None if not limited else INNER_FACTOR if more else 1.0
        memory = self._memory(factor, 0, 0, 0)
        answer, _ = self.call(request, (), work=seconds_to_open(self.size), memory=memory)
        return ChildSession(self, _values(answer.get("inputs")), _values(answer.get("outputs")), factor, pixels)

    def run(self, name: str, x: Array, pixels: int, factor: float | None, more: Mapping[str, Array] | None = None) -> list[Array]:
        """Run the open session on an input of images, and `more` inputs; `pixels` and `factor` are its `ChildSession`'s."""
        images = len(x) if x.ndim else 1
        pixels = max(pixels, math.prod(sorted(x.shape[1:])[-2:]))  # the third axis is that of the channels
        memory = self._memory(factor, images, pixels, x.size)
        work = seconds_to_run(self.size, images, pixels)
        others = dict(more or {})
        request = {"do": "run", "input": name, "more": list(others)}
        return self.call(request, (x, *others.values()), work=work, memory=memory)[1]

    def profile(self) -> str:
        """End the profile and return its text."""
        return str(self.call({"do": "profile"}, (), work=seconds_to_open(self.size), memory=None)[0].get("profile"))

    def _memory(self, factor: float | None, images: int, pixels: int, values: int) -> float | None:
        """Return the limit of memory in bytes. A device's driver maps more than it uses, so there only a stated limit applies."""
        if self.limits.memory is not None or factor is None:
            return self.limits.memory
        return factor * memory_to_run(self.size, images, pixels, values)

    def call(
        self, request: dict[str, Any], arrays: Sequence[Array], *, work: float, memory: float | None
    ) -> tuple[dict[str, Any], list[Array]]:
        """Send a request and return its answer. Raises SessionError, or Stopped if the process ended or was killed."""
        with self._lock:
            self.start()
            process, clock = self._process, self._clock if self.total else Clock(self.limits)
            seconds = clock.left(work)
            expired = threading.Event()

            def expire() -> None:
                expired.set()
                if process is not None:
                    process.kill()

            timer = threading.Timer(seconds, expire)
            timer.daemon = True
            begun = time.monotonic()
            timer.start()
            request |= {"memory": None if memory is None else int(memory), "seconds": seconds}
            try:
                answer, results = self._exchange(request, arrays, memory)
                if expired.is_set():  # at the last moment
                    raise TimeoutError
            except (OSError, EOFError, ValueError, TypeError, KeyError, RecursionError) as error:
                raise self._stopped(error, clock if expired.is_set() else None, memory) from None
            except BaseException:  # such as KeyboardInterrupt: the next answer would be that of this request
                self.close()
                raise
            finally:
                timer.cancel()
                clock.used += time.monotonic() - begun
        match answer.get("error"):
            case None:
                return answer, results
            case "memory":
                self.close()
                raise self._too_much(memory)
            case "import":
                raise RefusedContent(f"{self.runner} cannot be imported: {answer.get('text')}", where=self.path)
            case kind:
                raise SessionError(str(kind), str(answer.get("text"))[:1000])

    def _exchange(
        self, request: dict[str, Any], arrays: Sequence[Array], memory: float | None
    ) -> tuple[dict[str, Any], list[Array]]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EOFError
        session.send(process.stdin, request, arrays)
        answer = session.receive_header(process.stdout, MAX_PROFILE if request["do"] == "profile" else MAX_ANSWER)
        most = 2**62 if memory is None else int(memory) // 4
        return answer, session.receive_arrays(process.stdout, answer["arrays"], most)

    def _stopped(self, error: Exception, clock: Clock | None, memory: float | None) -> Stopped:
        """End the process, and return the reason why there is no answer."""
        process = self._process
        code = None
        if process is not None and isinstance(error, OSError | EOFError):  # it has ended, or is about to
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=1)
        self.close()
        if clock is not None:
            text = f"took more than {clock.allowed:.3g} s"
            return Stopped(text, where=self.path, hint=f"{TIME} raises this limit", options=[TIME])
        if isinstance(error, session.TooLarge):
            return self._too_much(memory)
        how = "ended" if code is None or code >= 0 else f"crashed ({_signal(-code)})"
        hint = f"if it needs more memory, {MEMORY} raises the limit"
        return Stopped(f"{self.runner} {how} while it ran the file", where=self.path, hint=hint, options=[MEMORY])

    def _too_much(self, memory: float | None) -> Stopped:
        text = "needs more memory than there is" if memory is None else f"needs more than {memory / 1e9:.3g} GB of memory"
        return Stopped(text, where=self.path, hint=f"{MEMORY} raises this limit", options=[MEMORY])


class ChildSession:
    """A session in a child process; in the place of `Session`."""

    def __init__(self, child: Child, inputs: list[Value], outputs: list[Value], factor: float | None, pixels: int) -> None:
        self.child, self.inputs, self.outputs, self._factor, self._pixels = child, inputs, outputs, factor, pixels
        self._number = child.opened

    def run(self, name: str, x: Array, more: Mapping[str, Array] | None = None) -> list[Array]:
        """Run the graph on its input of this name, and `more` inputs, and return every output in order."""
        if self.child.opened != self._number:
            raise Stopped("the child process that ran it has ended", where=self.child.path)
        values = self.child.run(name, x, self._pixels, self._factor, more)
        if len(values) != len(self.outputs):
            raise RefusedContent("onnxruntime returned another number of outputs", where=self.child.path)
        return values

    def profile(self) -> str:
        """End the profile and return its text."""
        return self.child.profile()


def _environment() -> dict[str, str]:
    """Return the environment of a child."""
    kept = {name: value for name, value in os.environ.items() if name.upper() in KEPT or name.startswith(KEPT_PREFIXES)}
    return {**kept, "OPENBLAS_NUM_THREADS": "1"}  # NumPy computes nothing there


def _end(process: Popen[bytes]) -> None:
    """End and reap a process."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # a request that was not sent completely
                pipe.close()
    process.wait()


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"


def _values(described: Any) -> list[Value]:
    """Return inputs or outputs as the child describes them. Raises RefusedContent for anything else."""
    values = []
    for entry in described if isinstance(described, list) else ():
        match entry:
            case [str(name), str(kind), [*shape]] if all(axis is None or type(axis) in (int, str) for axis in shape):
                values.append(Value(name, kind, tuple(shape)))
    if not isinstance(described, list) or len(values) != len(described):
        raise RefusedContent("onnxruntime described its inputs and outputs in another way than expected")
    return values
