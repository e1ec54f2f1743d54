"""The local engine: chunks of images on the cores of this machine, one worker for each, with results in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

from vit_zoo.errors import InputError
from vit_zoo.inference.worker import Chunk, Rows

AHEAD = 2  # chunks for each worker that are at work or wait for their turn, which bounds the memory
Results = Generator[Rows, None, None]


class Worker(Protocol):
    """A function of chunks that can be stopped from another thread."""

    def __call__(self, chunk: Chunk, /) -> Rows: ...

    def close(self) -> None: ...


def worker_count(workers: int | None) -> int:
    """Return the number of workers: by default, that of the cores that this process may use. Raises InputError below 1."""
    if workers is not None:
        if workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        return workers
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def run_chunks(chunks: Iterable[Chunk], open_worker: Callable[[], Worker], workers: int | None = None) -> Results:
    """Yield the results of chunks in their order.

    Decoding, inference, and what the caller does with the results overlap. At most two chunks for each worker are in memory. When
    the iterator is closed, the workers stop at once; use `contextlib.closing`.

    Args:
        chunks: The chunks, which are read as they are needed.
        open_worker: Function that opens a worker. It is called in the worker's own thread.
        workers: Number of workers; one for each core by default.

    Raises:
        InputError: There are less than one worker.
        Exception: The error of a worker, after the results of the chunks before its own.
    """
    return _results(iter(chunks), open_worker, worker_count(workers))


def _results(chunks: Iterator[Chunk], open_worker: Callable[[], Worker], count: int) -> Results:
    own = threading.local()
    opened: list[Worker] = []
    stopped = threading.Event()

    def run(chunk: Chunk) -> Rows:
        if not hasattr(own, "worker"):
            own.worker = open_worker()
            opened.append(own.worker)
            if stopped.is_set():  # while it was opened
                own.worker.close()
        rows: Rows = own.worker(chunk)
        return rows

    pool = ThreadPoolExecutor(count, "vitzoo-worker")
    try:
        waiting: deque[Future[Rows]] = deque(pool.submit(run, chunk) for chunk in islice(chunks, AHEAD * count))
        while waiting:
            rows = waiting.popleft().result()
            waiting.extend(pool.submit(run, chunk) for chunk in islice(chunks, 1))
            yield rows
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in opened:
            worker.close()
        pool.shutdown()
