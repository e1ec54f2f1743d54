"""The line of progress on a terminal: one line of stderr that is drawn again and again, and erased at the end."""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from vit_zoo.progress import running

DELAY = 0.5  # seconds that work takes before it is shown, so that quick commands do not flicker
INTERVAL = 0.2  # seconds between two drawings
ERASE = "\r\x1b[K"


class LiveLine:
    """Draws the innermost running step in a thread of its own, until it is closed.

    `idle` is the text while no step runs, for example during imports.
    """

    def __init__(self, idle: str) -> None:
        self._idle, self._started = idle, time.monotonic()
        self._lock = threading.RLock()
        self._shown = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._draw_until_closed, name="vitzoo progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Erase the line, and draw no more."""
        self._closed.set()
        self._thread.join()
        self._erase()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Erase the line while something else is written to the terminal."""
        with self._lock:
            self._erase()
            yield

    def _draw_until_closed(self) -> None:
        while not self._closed.wait(INTERVAL):
            try:
                with self._lock:
                    self._draw()
            except (OSError, ValueError):  # the terminal is gone
                return

    def _draw(self) -> None:
        step, seconds = running(), time.monotonic() - self._started
        if seconds < DELAY or (step is not None and step.own_display):
            self._erase()
            return
        width = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # it may change at any time; 0 if it is not known
        line = fitted(f"vitzoo: {step or self._idle}", f"  {clock(seconds)}", width - 1)
        if line != self._shown:
            self._write(ERASE + line)
            self._shown = line

    def _erase(self) -> None:
        if self._shown:
            self._write(ERASE)
            self._shown = ""

    def _write(self, text: str) -> None:
        encoding = sys.stderr.encoding or "ascii"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stderr.flush()


def fitted(text: str, end: str, width: int) -> str:
    """Return the text and `end` in at most `width` columns: the text is cut, and in a very narrow terminal `end` is left out."""
    if columns(text) + columns(end) <= width:
        return text + end
    end = end if width >= 3 * columns(end) else ""
    while text and columns(text) + columns(end) + 3 > width:
        text = text[:-1]
    return f"{text}...{end}" if width > 3 else ""


def columns(text: str) -> int:
    """Return how many columns of a terminal the text takes: some characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, such as 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
