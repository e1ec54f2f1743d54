"""Engines, which run chunks of images through workers, with results in order; the local one has a worker for each core."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

from vit_zoo.errors import InputError, Option, shown

AHEAD = 2  # chunks for each worker that are at work or wait for their turn, which bounds the memory
NAMES = ("local", "ray")
C = TypeVar("C")  # a chunk
R = TypeVar("R")  # its result
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Worker(Protocol[C_contra, R_co]):
    """A function of chunks that can be stopped from another thread."""

    def __call__(self, chunk: C_contra, /) -> R_co: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """A function that yields the results of chunks in their order, as `run_chunks`, with a certain number of workers."""

    def __call__(self, chunks: Iterable[C], open_worker: Callable[[], Worker[C, R]], /) -> Generator[R, None, None]: ...

    def close(self) -> None:
        """End what the calls began."""


@dataclass(frozen=True)
class LocalEngine:
    """The engine of this machine's cores."""

    workers: int

    def __call__(self, chunks: Iterable[C], open_worker: Callable[[], Worker[C, R]], /) -> Generator[R, None, None]:
        return run_chunks(chunks, open_worker, self.workers)

    def close(self) -> None:
        """Do nothing: each call ends its workers."""


def engine_of(name: str, address: str | None = None, workers: int | None = None) -> Engine:
    """Return an engine by its name; use `contextlib.closing`.

    Args:
        name: `local`, or `ray`, whose workers are the actors of a Ray cluster.
        address: The address of the cluster, such as `10.0.0.1:6379`; by default the one in `RAY_ADDRESS`, or a new one on this
            machine.
        workers: Number of workers; by default one for each core of this machine, or of the cluster.

    Raises:
        InputError: There is no such engine, it takes no address, there is no cluster at this address, or less than one worker.
        MissingDependency: Ray is not installed.
    """
    if name not in NAMES:
        raise InputError(f"unknown engine {shown(name)}; choose from {', '.join(NAMES)}")
    count = worker_count(workers)
    if name == "local":
        if address is not None:
            ray = Option("engine", "'ray'", "--engine ray")
            given = Option("address", repr(address), f"--address {address}")
            raise InputError(f"{given} applies only to {ray}", options=[ray, given])
        return LocalEngine(count)
    from vit_zoo.inference.ray_engine import RayEngine

    return RayEngine.at(address, workers)


def worker_count(workers: int | None) -> int:
    """Return the number of workers: by default, that of the cores that this process may use. Raises InputError below 1."""
    if workers is not None:
        if workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}")
        return workers
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def run_chunks(
    chunks: Iterable[C], open_worker: Callable[[], Worker[C, R]], workers: int | None = None
) -> Generator[R, None, None]:
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


def _results(chunks: Iterator[C], open_worker: Callable[[], Worker[C, R]], count: int) -> Generator[R, None, None]:
    own = threading.local()
    opened: list[Worker[C, R]] = []
    stopped = threading.Event()

    def run(chunk: C) -> R:
        if stopped.is_set():  # by the error of another chunk, which began before and is raised before
            raise CancelledError
        try:
            if not hasattr(own, "worker"):
                own.worker = open_worker()
                opened.append(own.worker)
                if stopped.is_set():  # while it was opened
                    own.worker.close()
            result: R = own.worker(chunk)
        except BaseException:
            stopped.set()
            raise
        return result

    pool = ThreadPoolExecutor(count, "vitzoo-worker")
    try:
        waiting: deque[Future[R]] = deque(pool.submit(run, chunk) for chunk in islice(chunks, AHEAD * count))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(run, chunk) for chunk in islice(chunks, 1))
            yield result
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in opened:
            worker.close()
        pool.shutdown()
