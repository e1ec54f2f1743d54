"""The Ray engine: Ray Data runs chunks through actors, which hold a worker each, on one machine or many.

Chunks and results are small objects, pickled in Arrow tables. Results that are large in all, such as features, are written by the
workers themselves into a folder that every machine can reach.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import platform
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from vit_zoo.errors import InputError, MissingDependency, Option, Stopped, VitzooError
from vit_zoo.inference.engine import C, R, Worker, worker_count
from vit_zoo.inference.versions import versions
from vit_zoo.progress import step

INSTALL = "pip install 'ray[data]'"
ADDRESS = "RAY_ADDRESS"  # the variable that Ray sets in the jobs that it runs
MOST_BLOCKS = 10_000  # of Ray Data, which keeps some kB about each; with more chunks than that, a block has several
CONNECT = 10.0  # seconds
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about GPUs, which are not used
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # of what Ray's C++ code writes to stderr
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # hides every line about workers that die, which Ray prints on stdout
}


class RayEngine:
    """An engine whose workers are actors of a Ray cluster.

    Attributes:
        address: The address of the cluster; None for a new one on this machine, which ends with the run.
        workers: The greatest number of workers, which have one core each; None for as many as the cluster has or can get.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self.address, self.workers, self._open = address, workers, contextlib.ExitStack()

    @classmethod
    def at(cls, address: str | None, workers: int | None) -> Self:
        """Return the engine for an address, by default that in `RAY_ADDRESS`. Raises InputError or MissingDependency at once."""
        _import_ray()
        engine = cls(address or os.environ.get(ADDRESS) or None, workers)
        engine._check()
        return engine

    def __call__(self, chunks: Iterable[C], open_worker: Callable[[], Worker[C, R]], /) -> Generator[R, None, None]:
        """Yield the results of chunks in their order.

        A worker that dies is replaced, and its chunk is run again. When the iterator is closed, the workers stop.

        Args:
            chunks: The chunks, which are pickled.
            open_worker: Function that opens a worker, which is pickled.

        Raises:
            InputError: A machine of the cluster has other versions than this one.
            MissingDependency: A machine of the cluster lacks vitzoo.
            Stopped: Ray itself failed.
            Exception: The error of a worker.
        """
        items = [pickle.dumps(chunk) for chunk in chunks]
        if items:
            with _errors():
                self._open.enter_context(_connected(self.address, self.workers))  # until the end, for the next calls
                yield from _run(items, open_worker, self.workers)

    def close(self) -> None:
        """End Ray, or the connection to it, if this engine began it."""
        self._open.close()

    def _check(self) -> None:
        """Raise InputError if nothing answers at the address. Ray itself tries for a minute, and then ends the process."""
        address = self.address
        if address in (None, "auto", "local"):
            return
        given = Option("address", repr(address), f"--address {address}")
        if "://" in str(address):
            hint = "state HOST:PORT, or run the command on the cluster with `ray job submit`"
            raise InputError(f"{given}: Ray's client protocol is not supported", hint=hint, options=[given])
        host, colon, port = str(address).rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise InputError(f"{given}: expected HOST:PORT, such as 10.0.0.1:6379", options=[given])
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
        except OSError as error:
            cause = f"{given}: no Ray cluster answers there: {error.strerror or error}"
            raise InputError(cause, hint="`ray start --head` starts one", options=[given]) from None


class _Actor:
    """What an actor does with Ray Data's batches. A worker's error is a result, so that it keeps its type on the way back."""

    def __init__(self, open_worker: Callable[[], Worker[Any, Any]], folder: str, wanted: dict[str, str]) -> None:
        self.open_worker, self.wanted = open_worker, wanted
        self.worker: Worker[Any, Any] | None = None
        with contextlib.suppress(OSError):  # relative paths are then those of the command; absolute ones need no such folder
            os.chdir(folder)

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        results = [self._result(item) for item in batch["item"].to_pylist()]
        return pa.table({"result": pa.array(results, pa.large_binary())})

    def _result(self, item: bytes) -> bytes:
        try:
            if self.worker is None:
                _check_versions(self.wanted)
                self.worker = self.open_worker()
            return pickle.dumps((self.worker(pickle.loads(item)), None))  # noqa: S301 - the driver's own objects
        except Exception as error:  # whatever it is, the driver raises it
            error.__traceback__ = error.__cause__ = error.__context__ = None
            return pickle.dumps((None, error))


def _check_versions(wanted: dict[str, str]) -> None:
    """Raise InputError if this machine would compute other values than that of the command."""
    here = versions()
    other = [f"{name} {here[name]} instead of {wanted[name]}" for name in wanted if here[name] != wanted[name]]
    if other:
        raise InputError(f"has {', '.join(other)}", where=platform.node(), hint="all machines need the same versions")


def _check_machines(wanted: dict[str, str]) -> None:
    """Raise InputError or MissingDependency if a machine of the cluster cannot work; Ray would start its workers without end."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray = _import_ray()
    check = ray.remote(max_retries=0, num_cpus=0)(_check_versions)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    ray.get([check.options(scheduling_strategy=strategy).remote(wanted) for strategy in there])


def _run(items: list[bytes], open_worker: Callable[[], Worker[C, R]], workers: int | None) -> Iterator[R]:
    """Yield the results of pickled chunks, on the cluster to which this process is connected."""
    _check_machines(versions())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Data's about its own use of itself
        results = _dataset(items, open_worker, workers)
    # Ray Data replaces actors that die, and runs their tasks again, without end; `_check_machines` has seen that they can work
    for row in results.iter_rows():
        value, error = pickle.loads(row["result"])  # noqa: S301 - our own actors' objects
        if error is not None:
            raise error
        yield value


def _dataset(items: list[bytes], open_worker: Callable[[], Worker[C, R]], workers: int | None) -> Any:
    """Return Ray Data's dataset of pickled results, which are computed when it is read."""
    ray = _import_ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    free = int(ray.cluster_resources().get("CPU", 1))
    at_once = min(workers or free, free, len(items))
    pool = ray.data.ActorPoolStrategy(
        min_size=1, initial_size=max(at_once, 1), max_size=workers, max_tasks_in_flight_per_actor=2
    )  # one chunk is at work, and one is there when it ends
    return ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS)).map_batches(
        _Actor, fn_constructor_args=(open_worker, str(Path.cwd()), versions()), batch_size=1, batch_format="pyarrow",
        compute=pool, num_cpus=1,
    )  # fmt: skip


def _import_ray() -> Any:
    """Return Ray, with Ray Data. Raises MissingDependency."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingDependency("the engine ray needs Ray Data", hint=INSTALL) from None
    return ray


@contextlib.contextmanager
def _connected(address: str | None, workers: int | None) -> Iterator[None]:
    """Connect this process to a cluster within the block, or start one; what it was connected to before stays."""
    ray = _import_ray()
    _silence()
    if ray.is_initialized():
        yield
        return
    settings = {"include_dashboard": False, "num_cpus": worker_count(workers)} if address in (None, "local") else {}
    with _own_signals(), step("starting Ray" if settings else "connecting to Ray"):
        try:
            with _without_stderr():
                ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Stopped(f"Ray does not start: {_line(error)}") from None
    _silence()
    try:
        yield
    finally:
        with _own_signals():
            ray.shutdown()


def _silence() -> None:
    """Keep Ray's loggers from the terminal; what goes wrong is raised."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Discard what is written to stderr within the block: Ray's C++ code writes there that it is told to be quiet."""
    saved = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restore this process's handlers of signals, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn Ray's errors into this package's."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, VitzooError):
            raise error.cause from None
        raise Stopped(f"Ray failed: {_line(error)}") from None
    except ray.exceptions.RayError as error:
        text = str(error)
        if "No module named 'vit_zoo" in text:
            raise MissingDependency("a machine of the Ray cluster lacks vitzoo", hint="install it on all of them") from None
        raise Stopped(f"Ray failed: {_line(error)}") from None


def _line(error: Exception) -> str:
    """Return the last line of an error's text that is not empty, where Ray states the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
