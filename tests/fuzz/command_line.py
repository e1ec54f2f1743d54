"""Command line of the fuzz harness: workers, totals, and the inputs of faults."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import queue
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.case import COMMAND, Case
from fuzz.readers import READERS, SELDOM, make_base, make_case
from support.paths import ROOT

BATCH = 300  # cases of one worker process
SILENCE = 90.0  # seconds without a line from a worker, after which it is killed: code that no signal interrupts
SHRINKS = 12  # attempts to make an input smaller


@dataclass
class Totals:
    """What all cases gave."""

    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    cpu: float = 0.0
    faults: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    seen: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def main(arguments: list[str]) -> int:
    """Fuzz, or replay saved inputs. Returns 1 if there are faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz every reader.")
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU-minutes of all workers together (default: 1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same cases (default: random)")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes at once (default: 1)")
    parser.add_argument("--reader", action="append", choices=sorted(READERS), help="only this reader; repeatable")
    parser.add_argument(
        "--out", type=Path, default=Path(tempfile.gettempdir(), "vitzoo-fuzz"), help="folder for inputs of faults"
    )
    parser.add_argument("--base", type=Path, help="keep the valid inputs in this folder, and use those that are there")
    parser.add_argument(
        "--replay", type=Path, action="append", default=[], metavar="FOLDER", help="run a saved input; repeatable"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _as_worker(json.loads(options.worker))
    base = (options.base or Path(tempfile.mkdtemp(prefix="vitzoo-fuzz-base-"))).resolve()
    try:
        if not (base / "family.toml").exists():
            write_base(base)
        if options.replay:
            return _replay(options.replay, base)
        return _fuzz(options, base)
    finally:
        if not options.base:
            shutil.rmtree(base, ignore_errors=True)


def environment() -> dict[str, str]:
    """Return the environment of workers: no Hub and no cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VITZOO"))}
    return kept | {
        "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": "/nonexistent/hub",
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "MALLOC_ARENA_MAX": "2",
    }  # fmt: skip


# --- the worker's side ---


def _as_worker(task: dict[str, Any]) -> int:
    if "make" in task:
        shutil.rmtree(task["make"], ignore_errors=True)
        make_base(Path(task["make"]))
        return 0
    from fuzz.worker import work

    lines = os.fdopen(os.dup(1), "w")
    base = Path(task["base"])
    work(_cases(task, base), base, lines)
    return 0


def _cases(task: dict[str, Any], base: Path) -> Iterator[tuple[int, Case]]:
    if "folders" in task:
        for number, folder in enumerate(task["folders"]):
            yield number, Case.load(Path(folder))
        return
    kept = None if task.get("kept") is None else set(task["kept"])
    for number in range(task["first"], task["first"] + task["count"]):
        yield number, make_case(task["reader"], f"{task['seed']}:{number}", base, kept)


# --- the parent's side ---


def write_base(base: Path) -> None:
    """Write the valid inputs, in a process of its own: this one imports no torch."""
    if _as_child({"make": str(base)}).wait():
        raise SystemExit("the valid inputs cannot be made")


def _as_child(task: dict[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz", "--worker", json.dumps(task)], cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "make" not in task else None, stderr=subprocess.PIPE if "make" not in task else None,
        text=True, start_new_session=True,
    )  # fmt: skip


def results(task: dict[str, Any], deadline: float | None = None) -> Iterator[dict[str, Any]]:
    """Run a worker and yield the result of each case. The last one may be that the process died, or was silent too long."""
    process = _as_child(task)
    assert process.stdout is not None
    assert process.stderr is not None
    current: int | None = None
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
    reader.start()
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    buffer = ""
    silent = False
    try:
        while True:
            if not selector.select(SILENCE):
                silent = True
                break
            data = os.read(process.stdout.fileno(), 65536).decode(errors="replace")
            if not data:
                break
            buffer += data
            *lines, buffer = buffer.split("\n")
            for line in lines:
                if line.startswith("start "):
                    current = int(line[6:])
                elif line.startswith("{"):
                    current = None
                    yield json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        reader.join(timeout=5)
        process.stdout.close()
        process.stderr.close()
    if current is not None:
        kind = "hang" if silent else "death"
        yield {
            "number": current,
            "kind": kind,
            "error": "silence" if silent else f"signal {code}",
            "place": "?",
            "text": "".join(errors)[-400:],
            "cpu": 0.0,
        }
    elif code > 0:
        raise SystemExit(f"the worker failed: {''.join(errors)[-2000:]}")


def key_of(result: dict[str, Any]) -> tuple[str, str, str]:
    """Return what tells a fault from other ones. Lines move, functions do not."""
    return result["kind"], result["error"], result["place"]


def _fuzz(options: argparse.Namespace, base: Path) -> int:
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    readers = options.reader or list(READERS)
    print(f"seed {seed}; {len(readers)} readers; {options.minutes:g} CPU-minutes; faults go to {options.out}", flush=True)
    totals, lock, began = Totals(), threading.Lock(), time.monotonic()
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()
    for turn in itertools.count():
        for name in readers:
            if turn % 4 == 0 or name not in SELDOM or len(readers) == 1:
                tasks.put({"reader": name, "seed": seed, "first": turn * BATCH, "count": BATCH, "base": str(base)})
        if turn == 400:  # more than any run
            break
    share = options.minutes * 60 / max(len(readers), 1) / 3  # one reader's worker is not to use up all the time

    def run() -> None:
        while totals.cpu < options.minutes * 60:
            try:
                task = tasks.get_nowait()
            except queue.Empty:
                return
            _batch(task, totals, lock, options, share)

    threads = [threading.Thread(target=run) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _print_totals(totals, time.monotonic() - began)
    return int(bool(totals.faults))


def _batch(task: dict[str, Any], totals: Totals, lock: threading.Lock, options: argparse.Namespace, share: float) -> None:
    """Run a worker's cases; after a death, those that are left with another worker."""
    name, end, spent = task["reader"], task["first"] + task["count"], 0.0
    first = task["first"]
    while first < end and totals.cpu < options.minutes * 60 and spent < max(share, 20.0):
        last = first - 1
        for result in results({**task, "first": first, "count": end - first}):
            last = result["number"]
            spent += result.get("cpu", 0.0)
            with lock:
                totals.cpu += result.get("cpu", 0.0)
                totals.kinds[name, result["kind"]] += 1
            if result["kind"] not in ("ok", "refused"):
                _fault(task, result, totals, lock, options.out)
            if totals.cpu >= options.minutes * 60 or spent >= max(share, 20.0):
                break
        if last < first:
            return
        first = last + 1


def _fault(task: dict[str, Any], result: dict[str, Any], totals: Totals, lock: threading.Lock, out: Path) -> None:
    key = key_of(result)
    with lock:
        totals.seen[key] += 1
        if key in totals.faults:
            return
        totals.faults[key] = result
    base = Path(task["base"])
    case = _shrunk(task, result, key, base)
    name = f"{task['reader']}-{task['seed']}-{result['number']}"
    case.save(out / name)
    (out / name / "fault.txt").write_text(f"{result['kind']}: {result['error']}\n{result['place']}\n{result['text']}\n")
    print(f"{name}: {result['kind']} {result['error']} at {result['place']}: vitzoo {' '.join(case.arguments)[:120]}", flush=True)


def _shrunk(task: dict[str, Any], result: dict[str, Any], key: tuple[str, str, str], base: Path) -> Case:
    """Return the case of a fault with fewer mutations, if fewer give the same fault."""
    seed = f"{task['seed']}:{result['number']}"
    kept: set[int] | None = None
    whole = make_case(task["reader"], seed, base)
    if key[0] in ("hang", "death", "memory"):
        return whole  # each attempt would take long
    for one in range(3):
        attempt = make_case(task["reader"], seed, base, {one})
        if attempt == whole:
            return whole
        again = {**task, "first": result["number"], "count": 1, "kept": [one]}
        if any(key_of({"error": "", "place": "", **found}) == key for found in results(again)):
            kept = {one}
            break
    return whole if kept is None else make_case(task["reader"], seed, base, kept)


def _replay(folders: list[Path], base: Path) -> int:
    """Run saved inputs, or all in a folder of them, and print what became of each."""
    saved = [path.parent for folder in folders for path in sorted(folder.resolve().rglob(COMMAND))]
    bad = 0
    done = 0
    while done < len(saved):
        for result in results({"folders": [str(folder) for folder in saved[done:]], "base": str(base)}):
            fault = result["kind"] not in ("ok", "refused")
            bad += fault
            folder = saved[done]
            done += 1
            told = (
                f"{result['error']} at {result['place']}: {result['text'].strip()[-200:]}" if fault else f"exit {result['code']}"
            )
            print(f"{folder.name}: {result['kind']} {told}")
    return int(bool(bad))


def _print_totals(totals: Totals, seconds: float) -> None:
    names = sorted({name for name, _ in totals.kinds})
    faults = sum(totals.seen.values())
    for name in names:
        kinds = {kind: count for (reader, kind), count in sorted(totals.kinds.items()) if reader == name}
        print(f"{name:<16} {sum(kinds.values()):7,} cases: {', '.join(f'{count:,} {kind}' for kind, count in kinds.items())}")
    for key, count in totals.seen.most_common():
        print(f"{count:7,} x {key[0]}: {key[1]} at {key[2]}")
    cases = sum(totals.kinds.values())
    print(
        f"{cases:,} cases in {totals.cpu / 60:.1f} CPU-minutes ({seconds / 60:.1f} minutes):"
        f" {faults:,} faults, {len(totals.faults)} different ones"
    )
