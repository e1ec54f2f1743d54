"""Signals: Ctrl-C ends the command line with exit code 130, SIGTERM with 143, at whatever point they arrive.

A signal becomes an exception in the main thread, so that temporary files are removed on the way out. Four things can be in the
way, and each has an answer here. A module is being imported, which may abort the process if an exception ends it: the process
ends at once. Native code may run for a long time before the exception can be raised, and other code may swallow it: a thread
ends the process after `GRACE` seconds. A library may turn it into another exception: `received` tells the entry point the
truth. And the command may be over: `leave` runs the exit handlers and ends the process itself, without the teardown of the
interpreter, in which a signal would be lost.

This module imports nothing but what the interpreter has loaded already, so that the handlers are in place before the command
line's own imports. Before Python has come this far, a signal ends the process in the system's way.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the module `signal` imports `enum`
import _thread
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

IMPORT = "<frozen importlib._bootstrap>"
GRACE = 2.0  # seconds from the signal to the end of the process
CODES = {_signal.SIGINT: (130, "interrupted"), _signal.SIGTERM: (143, "terminated")}


class Terminated(BaseException):
    """Raised on SIGTERM, so that temporary files are removed before the process ends."""


class _State:
    """What has happened in this process."""

    number: int | None = None  # the first signal
    leaving = False
    told = False


def install() -> None:
    """Handle SIGINT and SIGTERM from now on, unless the parent process wants them ignored, as `nohup` does."""
    numbers = [number for number in CODES if _signal.getsignal(number) != _signal.SIG_IGN]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        _signal.signal(number, _handle)
    sys.unraisablehook = _unraisable
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=_forget)
    _thread.start_new_thread(_watch, (reader,))


def received() -> tuple[int, str] | None:
    """Return exit code and name of the signal that has arrived, or None."""
    return None if _State.number is None else CODES[_State.number]


def tell() -> None:
    """Print which signal has arrived."""
    signalled = received()
    if signalled is not None and not _State.told:
        _State.told = True
        erase = "\r\x1b[K" if os.isatty(2) else ""  # the line of progress
        os.write(2, f"{erase}vitzoo: {signalled[1]}\n".encode())


def leave(code: int) -> NoReturn:
    """End the process with an exit code, or with that of a signal, after the exit handlers."""
    _State.leaving = True
    try:
        import atexit

        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # the reader is gone, or the disk is full: the command has reported what it could
        code = code or 8
    finally:
        signalled = received()
        if signalled is not None:
            _clean_up()
        os._exit(code if signalled is None else signalled[0])


def _handle(number: int, frame: FrameType | None) -> None:
    if _State.number is not None or _State.leaving or _in_import(frame):
        _State.number = _State.number or number
        _end()
    _State.number = number
    raise KeyboardInterrupt if number == _signal.SIGINT else Terminated


def _in_import(frame: FrameType | None) -> bool:
    """Return whether a module is being imported. An exception would leave it half initialised; torch then aborts the process."""
    while frame is not None:
        if frame.f_code.co_filename == IMPORT:
            return True
        frame = frame.f_back
    return False


def _watch(reader: int) -> None:
    """Wait for a signal, which the interpreter writes to the pipe at once, and end the process if nothing else does."""
    while True:
        for number in os.read(reader, 1):
            if number in CODES:
                time.sleep(GRACE)
                _State.number = _State.number or number
                _end()


def _end() -> NoReturn:
    """Remove what is temporary, and end the process at once."""
    try:
        _clean_up()
        tell()
    finally:
        os._exit(CODES[_State.number or _signal.SIGTERM][0])


def _clean_up() -> None:
    """Remove the temporary files of this process: the signal may have hit their own removal."""
    temporary = sys.modules.get("vit_zoo.files.temporary")
    remove_all = getattr(temporary, "remove_all", None)  # absent while it is being imported
    if remove_all is not None:
        remove_all()


def _unraisable(unraisable: object) -> None:
    """End the process where an exception of ours is lost, as in a destructor or in a callback of native code."""
    if _State.number is not None and isinstance(getattr(unraisable, "exc_value", None), KeyboardInterrupt | Terminated):
        _end()
    sys.__unraisablehook__(unraisable)  # type: ignore[arg-type]


def _forget() -> None:
    """Let a forked process die of a signal: its parent's pipe and temporary files are not its own."""
    _signal.set_wakeup_fd(-1)
    for number in CODES:
        if _signal.getsignal(number) is _handle:
            _signal.signal(number, _signal.SIG_DFL)
