"""A benchmark: a process for each row, parity first, then all rows measured in turn."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.errors import InputError, MissingDependency, Option, RefusedContent, Stopped, shown
from vit_zoo.formats.limits import Limits
from vit_zoo.inference.bench.process import RowProcess
from vit_zoo.inference.bench.quantiles import shuffled_rounds
from vit_zoo.inference.bench.result import SHARES, Bench, Interval, Machine, Row, usable_cores
from vit_zoo.inference.bench.targets import (
    OF_FILES,
    PRECISIONS,
    QUANTISED,
    RUNTIMES,
    FileTarget,
    ForeignTarget,
    Kind,
    Making,
    ModelTarget,
    Subject,
    Target,
    Variant,
    against_applies,
    export_options,
    random_applies,
    target_of,
)
from vit_zoo.loading.facts import parsed
from vit_zoo.progress import step

if TYPE_CHECKING:
    from vit_zoo.formats.artifact import Array
    from vit_zoo.inference.bench.result import Parity
    from vit_zoo.loading.checkpoint import ModelLike

ROUNDS, SECONDS, LEAST = 100, 60.0, 6  # at most; and the rounds that are measured even if they take longer
MODULES = dict.fromkeys(RUNTIMES, "torch") | {"ort": "onnxruntime", "openvino": "openvino"}  # what each runtime needs
COMPILERS = ("g++", "c++", "clang++")


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of `bench`, which its docstring explains. Raises InputError for those that are unknown or out of range."""

    runtimes: tuple[str, ...] | None = None
    precisions: tuple[str, ...] = ()
    batches: tuple[int, ...] | None = None
    threads: tuple[int, ...] | None = None
    rounds: int = ROUNDS
    seconds: float = SECONDS
    random: bool = False
    seed: int | None = None
    against: ModelLike | None = None
    calibrate: str | os.PathLike[str] | None = None
    time_limit: float | None = None
    memory_limit: float | None = None

    def __post_init__(self) -> None:
        for what, names, known in (("runtime", self.runtimes or (), RUNTIMES), ("precision", self.precisions, PRECISIONS)):
            for name in names:
                if name not in known:
                    raise InputError(f"unknown {what} {shown(name)}; choose from {', '.join(known)}")
        for what, numbers, most in (("batch", self.batches or (), 65_536), ("threads", self.threads or (), 1024)):
            for number in numbers:
                if type(number) is not int or not 1 <= number <= most:
                    raise InputError(f"{what} must be an integer of 1 to {most:,}, got {number!r}")
        if type(self.rounds) is not int or not 1 <= self.rounds <= 1_000_000:
            raise InputError(f"rounds must be an integer of 1 to 1,000,000, got {self.rounds!r}")
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float) or not 0 < self.seconds <= 1e6:
            raise InputError(f"seconds must be above 0 and at most 1,000,000, got {self.seconds!r}")
        if self.seed is not None and not self.random:
            random = Option("random")
            raise InputError("seed applies only to random weights", hint=f"add {random}", options=[random])
        Limits.of(self.time_limit, self.memory_limit)


@dataclass
class Plan:
    """A row that is to be measured, with its process and what was found so far."""

    target: str
    subject: Subject
    variant: Variant
    batch: int
    threads: int
    process: RowProcess
    opening: float | None = None
    parity: Parity | None = None
    fault: str | None = None
    times: list[float] = field(default_factory=list)
    peak: int | None = None

    def fail(self, error: RefusedContent | Stopped) -> None:
        """Keep the reason why the row cannot be run, and end its process."""
        self.fault = error.message
        self.process.close()

    def measure(self) -> None:
        """Measure the row once, unless it has failed."""
        if self.fault is None:
            try:
                self.times.append(self.process.seconds())
                self.peak = self.process.peak()
            except (RefusedContent, Stopped) as error:
                self.fail(error)

    def images(self) -> Array:
        """Return the images that are timed: photographs and noise, or for a file that prepares them, of the model's size."""
        import numpy as np

        from vit_zoo.parity.inputs import probe_images
        from vit_zoo.parity.plan import PLANS

        frame, sessions = self.subject.reference.frame, self.subject.sessions
        if sessions is not None and sessions.prepares is not None:
            pixels = np.random.default_rng(0).integers(0, 256, (self.batch, *frame.size, frame.channels))
            return pixels.astype(np.uint8)
        names = PLANS["default"].images
        return probe_images(frame, tuple(names[i % len(names)] for i in range(self.batch)))


def bench_targets(named: Sequence[ModelLike], options: BenchOptions, facts: Mapping[str, Any]) -> Bench:
    """Measure every target in each runtime and precision, batch size and number of threads. Raises as `vit_zoo.bench`."""
    if not named:
        raise InputError("no target is given: name a model or an exported file")
    targets = [target_of(each) for each in named]
    _check_applies(targets, options, facts)
    runtimes = _runtimes(options.runtimes)
    precisions = options.precisions or PRECISIONS[:1]
    kinds = [target.kinds(runtimes, precisions) for target in targets]
    _check_used(targets, kinds, options)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitzoo-bench-", ignore_cleanup_errors=True)))
        plans = []
        for number, (target, wanted) in enumerate(zip(targets, kinds, strict=True)):
            place = folder / str(number)
            place.mkdir()
            making = Making(
                place, random=options.random, seed=options.seed, against=options.against, calibrate=options.calibrate,
                limits=Limits.of(options.time_limit, options.memory_limit), facts=facts,
            )  # fmt: skip
            subject = target.make(wanted, making, targets)
            if subject.sessions is not None:
                stack.callback(subject.sessions.close)
            plans += _plans(str(target), subject, options, making.limits)
        for plan in plans:
            stack.callback(plan.process.close)
        _open(plans)
        _check_parity(plans)
        seconds = _measure([plan for plan in plans if plan.fault is None], options)
        base = next((plan for plan in plans if plan.fault is None), None)
        return Bench(rows=tuple(_row(plan, base) for plan in plans), seconds=seconds, machine=Machine.this())


def _check_applies(targets: Sequence[Target], options: BenchOptions, facts: Mapping[str, Any]) -> None:
    """Check each target, and raise InputError for an option that applies to none of them."""
    parsed(dict(facts))
    for target in targets:
        if isinstance(target, FileTarget):
            target.check()
        elif isinstance(target, ForeignTarget):
            target.named.check_installed()
    for target in targets:
        if isinstance(target, ForeignTarget):
            target.check(options.seed or 0)
    if options.random:
        random_applies(targets)
    if options.against is not None:
        against_applies(targets)
    if not any(isinstance(target, ModelTarget) for target in targets):
        if facts:
            raise InputError(f"cannot set {next(iter(facts))}: facts apply to models, not to exported files or other libraries'")
        if options.calibrate is not None:
            raise InputError("calibrate applies to models of this library, which are exported for the benchmark")
    if not any(isinstance(target, FileTarget) for target in targets) and (options.time_limit or options.memory_limit):
        raise InputError("time_limit and memory_limit apply to exported files only")


def _runtimes(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the runtimes to use: all that are installed, or those that are wanted. Raises MissingDependency."""
    if wanted is None:
        return tuple(name for name in RUNTIMES if _lacks(name) is None)
    for name in wanted:
        missing = _lacks(name)
        if missing is not None:
            raise missing
    return tuple(dict.fromkeys(wanted))


def _lacks(runtime: str) -> MissingDependency | None:
    """Return the error about what a runtime needs and is not there, or None."""
    module = MODULES[runtime]
    if find_spec(module) is None:
        return MissingDependency(f"the runtime {runtime} needs {module}", hint=f"pip install {module}")
    if runtime == "compile" and not any(map(shutil.which, filter(None, (os.environ.get("CXX"), *COMPILERS)))):
        hint = "install g++ or clang, or name a compiler in the environment variable CXX"
        return MissingDependency("the runtime compile needs a C++ compiler, and none is found", hint=hint)
    return None


def _check_used(targets: Sequence[Target], kinds: Sequence[Sequence[Kind]], options: BenchOptions) -> None:
    """Raise InputError for a target without rows, and for a runtime or a precision that is asked for and has no row."""
    for target, its in zip(targets, kinds, strict=True):
        if not its:
            how = f"runtimes {', '.join(options.runtimes or ())}" if options.runtimes else "the installed runtimes"
            precisions = f" in {', '.join(options.precisions)}" if options.precisions else ""
            hint = f"exported files run in {' and '.join(OF_FILES)}" if isinstance(target, FileTarget) else None
            raise InputError(f"{how} cannot run it{precisions}", where=target, hint=hint)
    for what, at, wanted in (("runtime", 0, options.runtimes or ()), ("precision", 1, options.precisions)):
        used = {kind[at] for its in kinds for kind in its}
        for name in wanted:
            if name not in used:
                raise InputError(f"the {what} {name} has no row: no target runs with it")
    if options.precisions and not any(not isinstance(target, FileTarget) for target in targets):
        raise InputError("precision applies to models; an exported file has its own")
    if "int8-static" in options.precisions and options.calibrate is None:
        calibrate, dynamic = Option("calibrate", "FOLDER"), Option("precision", "'int8-dynamic'", "--precision int8-dynamic")
        hint = f"{calibrate}; {dynamic} needs none"
        raise InputError("static int8 needs images for calibration", hint=hint, options=[calibrate, dynamic])
    quantised = [name for name in options.precisions if name in QUANTISED]
    if quantised or options.calibrate is not None:
        export_options(quantised, options.calibrate)


def _plans(target: str, subject: Subject, options: BenchOptions, limits: Limits) -> list[Plan]:
    """Return the rows of a target, the first axis slowest: runtime and precision, batch, threads."""
    only = None if subject.sessions is None else subject.sessions.batch
    batches = options.batches or (only or 1,)
    if only is not None and set(batches) != {only}:
        raise InputError(f"accepts batches of {only} only", where=target, hint=f"batch={only}")
    plans = []
    for variant in subject.variants:
        for batch in dict.fromkeys(batches):
            for threads in dict.fromkeys(options.threads or (usable_cores(),)):
                opening = {**variant.opening, "threads": threads}
                process = RowProcess(variant.path, opening, limits, variant.untrusted)
                plans.append(Plan(target, subject, variant, batch, threads, process, fault=variant.fault))
    return plans


def _open(plans: Sequence[Plan]) -> None:
    """Open every row and run it once, which compiles it, on all cores at once."""
    todo = [plan for plan in plans if plan.fault is None]
    images = {id(plan): plan.images() for plan in todo}

    def open_one(plan: Plan) -> None:
        start = time.perf_counter()
        try:
            plan.process.open_model()
            plan.process.run(images[id(plan)])
            plan.process.hold(images[id(plan)])
            plan.opening = time.perf_counter() - start
        except (RefusedContent, Stopped) as error:
            plan.fail(error)

    with step("opening the rows", len(todo), "rows") as progress:
        pool = ThreadPoolExecutor(usable_cores())
        try:
            for _ in pool.map(open_one, todo):
                progress.advance()
        except BaseException:  # such as KeyboardInterrupt: the threads would wait for their rows, which may take minutes
            for plan in todo:
                plan.process.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _check_parity(plans: Sequence[Plan]) -> None:
    """Compare the outputs of every row with those of its reference."""
    from vit_zoo.inference.bench.parity import parity_of

    with step("checking parity", len(plans), "rows") as progress:
        for plan in plans:
            if plan.fault is None:
                try:
                    plan.parity = parity_of(plan.process, plan.subject, plan.variant, plan.batch)
                    plan.process.hold(plan.images())
                except (RefusedContent, Stopped) as error:
                    plan.fail(error)
            if plan.parity is not None and not plan.parity.ok:
                plan.fault = plan.parity.fault
                plan.process.close()
            progress.advance()


def _measure(plans: Sequence[Plan], options: BenchOptions) -> float:
    """Measure every row once in each round, in a shuffled order. Return the seconds that it took.

    No round begins after `seconds`, but for the first ones, without which a median has no confidence interval.
    """
    if not plans:
        return 0.0
    start = time.perf_counter()
    rounds = islice(shuffled_rounds(len(plans)), options.rounds)
    with step("measuring", options.rounds, "rounds") as progress:
        for number, order in enumerate(rounds):
            if number >= LEAST and time.perf_counter() - start > options.seconds:
                break
            for plan in (plans[index] for index in order):
                plan.measure()
            progress.advance()
    return time.perf_counter() - start


def _row(plan: Plan, base: Plan | None) -> Row:
    """Return the result of a row, relative to the base row."""
    runtime, precision = plan.variant.kind
    row = Row(
        target=plan.target, runtime=runtime, precision=precision, batch=plan.batch, threads=plan.threads,
        random=plan.subject.random, parity=plan.parity, file_bytes=plan.variant.bytes, opening=plan.opening, fault=plan.fault,
    )  # fmt: skip
    if plan.fault is not None or base is None:
        return row
    each = base.batch / plan.batch  # the times of an image are compared
    ratios = [each * mine / theirs for mine, theirs in zip(plan.times, base.times, strict=True)]
    p50 = Interval.of(plan.times, SHARES["p50"])
    return row.model_copy(
        update={
            "p50": p50,
            "p95": Interval.of(plan.times, SHARES["p95"]),
            "images_per_second": plan.batch / p50.value,
            "ratio": Interval.of(ratios, 0.5),
            "rounds": len(plan.times),
            "peak_bytes": plan.peak,
        }
    )
