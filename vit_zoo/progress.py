"""Progress of slow work. The library states its steps, and whoever wants to shows them.

    with step("checking vit_b16.onnx"), part("onnxruntime", total=8, unit="images") as progress:
        progress.advance(3)

Steps are logged by the logger `vit_zoo` at the level INFO. The command line draws the innermost one on a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from vit_zoo.errors import printable, without_tokens

T = TypeVar("T")
BYTES = "B"
LARGE = 64 * 2**20  # bytes that take long enough to read for a line in a log
LONG = 1.0  # seconds: steps that take longer are logged with their time

_active: list[Step] = []  # the innermost last


@dataclass(eq=False)
class Step:
    """A step of slow work.

    * `total`: its size in `unit`, such as images or `BYTES`; None if it is not known.
    * `least`: steps with a smaller `total` are not logged.
    * `own_display`: another library shows the progress of this step, so nothing else may write to the terminal.
    """

    text: str
    total: int | None = None
    unit: str = ""
    least: int = 0
    own_display: bool = False
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def advance(self, count: int = 1) -> None:
        """Record that `count` more units are done."""
        self.done += count

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.started

    def __str__(self) -> str:
        """Return the step in one line, with what is done of it: `writing a.onnx, 120 of 330 MB, 60 MB/s, 4 s left`."""
        text = self.text
        if not self.total:
            return f"{text}, {self.done} {self.unit}" if self.done else text
        if self.unit != BYTES:
            return f"{text}, {min(self.done, self.total)} of {self.total} {self.unit}"
        text += f", {self.done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB"
        if not self.done or self.seconds < LONG:
            return text
        rate = self.done / self.seconds
        return f"{text}, {rate / 1e6:,.0f} MB/s, {max(0, self.total - self.done) / rate:,.0f} s left"

    def _say(self, more: str) -> None:
        if (self.total or 0) >= self.least:
            say(self.text + more)


@contextmanager
def step(text: str, total: int | None = None, unit: str = "", *, least: int = 0, own_display: bool = False) -> Iterator[Step]:
    """State that a step of slow work runs within the block; `Step` explains the arguments."""
    one = Step(printable(text), total, unit, least, own_display)
    one._say("")
    _active.append(one)
    try:
        yield one
    finally:
        _active.remove(one)
    if one.seconds >= LONG:
        one._say(f": done in {one.seconds:.1f} s")


def part(detail: str, total: int | None = None, unit: str = "") -> AbstractContextManager[Step]:
    """State that a part of the innermost running step runs within the block."""
    return step(f"{_active[-1].text}: {detail}" if _active else detail, total, unit)


def counted(items: Iterable[T], text: str, total: int, unit: str, size: Callable[[T], int] = lambda item: 1) -> Iterator[T]:
    """Yield the items within a step; each advances it by `size` when the next one is requested."""
    with step(text, total, unit) as progress:
        for item in items:
            yield item
            progress.advance(size(item))


def counting(items: Iterable[T], progress: Step) -> Iterator[T]:
    """Yield the items; a step that is running advances by one when the next one is requested."""
    for item in items:
        yield item
        progress.advance()


def say(line: str) -> None:
    """Log a line of progress."""
    import logging

    logging.getLogger("vit_zoo").info("%s", printable(without_tokens(line)))


def running() -> Step | None:
    """Return the innermost step that is running."""
    return _active[-1] if _active else None
