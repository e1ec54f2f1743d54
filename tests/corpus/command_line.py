"""Command line of the corpus."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from corpus.entry import Entry
from corpus.runner import Outcome, Start, forks, processes, run_entry, state
from corpus.table import ENTRIES, make_all, matching, sampled
from support.paths import ROOT


def main(arguments: list[str]) -> int:
    """Run the corpus and print its faults and totals. Returns 1 if there are faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description="Run the corpus of bad files.")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="glob pattern of entries; repeatable")
    parser.add_argument("--jobs", type=int, default=1, help="commands at once (processes only)")
    parser.add_argument("--fork", action="store_true", help="fork one process that has imported the libraries")
    parser.add_argument("--loaded", action="store_true", help="judge CPU time instead of wall time: the machine does other work")
    parser.add_argument(
        "--patience", type=float, default=60, metavar="SECONDS", help="CPU time after which a command is killed (default: 60)"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="former faults, and up to N other entries of each kind")
    parser.add_argument("--folder", type=Path, help="keep the files in this folder, and use those that are there")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="write the files to FOLDER and run nothing")
    parser.add_argument("--list", action="store_true", help="print the entries and their commands")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="also print the N slowest commands")
    options = parser.parse_args(arguments)
    entries = matching(*options.only)
    entries = entries if options.sample is None else sampled(entries, options.sample)
    if not entries:
        parser.error(f"no entry matches {', '.join(options.only)}")
    if options.list:
        for entry in entries:
            print(entry.name, *(f"[vitzoo {' '.join(command.arguments)[:100]}]" for command in entry.commands))
        return 0
    if options.make:
        make_all(options.make, entries)
        return 0
    root = (options.folder or Path(tempfile.mkdtemp(prefix="vitzoo-corpus-"))).resolve()
    try:
        makes = [part for name in options.only for part in ("--only", name)]
        makes += [] if options.sample is None else ["--sample", str(options.sample)]
        subprocess.run([sys.executable, "-W", "ignore", "-m", "tests.corpus", "--make", str(root), *makes], check=True, cwd=ROOT)
        return _run(entries, root, options)
    finally:
        if not options.folder:
            shutil.rmtree(root)


def _run(entries: list[Entry], root: Path, options: argparse.Namespace) -> int:
    start = (forks if options.fork else processes)(loaded=options.loaded, patience=options.patience)
    began, outcomes = time.monotonic(), []
    base = state(root / "base")
    with ThreadPoolExecutor(1 if options.fork else options.jobs) as pool:
        runs = (
            run_all(entries, root, start)
            if options.fork
            else pool.map(lambda entry: list(run_entry(entry, root, start)), entries)
        )
        for done in runs:
            outcomes += done
            for outcome in done:
                if outcome.faults:
                    print(outcome.line, flush=True)
    after = state(root / "base")
    changed = sorted(name for name in {*base, *after} if base.get(name) != after.get(name))
    if changed:
        print(f"valid files were changed: {', '.join(changed)}")
        return 1
    print_totals(outcomes, time.monotonic() - began, options.slowest)
    return int(any(outcome.faults for outcome in outcomes))


def run_all(entries: list[Entry], root: Path, start: Start) -> Iterator[list[Outcome]]:
    """Run entries one after the other in this thread: forks of a process with several threads may hang."""
    for entry in entries:
        yield list(run_entry(entry, root, start))


def print_totals(outcomes: list[Outcome], seconds: float, slowest: int) -> None:
    """Print the slowest commands, and how many commands of how many entries did the right thing."""
    for outcome in sorted(outcomes, key=lambda outcome: -outcome.cpu)[:slowest]:
        print(f"{outcome.cpu:6.1f} s {outcome.memory / 1e6:6.0f} MB  {outcome.entry}: vitzoo {' '.join(outcome.arguments)[:80]}")
    entries = {outcome.entry for outcome in outcomes}
    bad = {outcome.entry for outcome in outcomes if outcome.faults}
    faults = sum(bool(outcome.faults) for outcome in outcomes)
    print(
        f"{len(entries)} of {len(ENTRIES)} entries, {len(outcomes)} commands: {faults} commands ({len(bad)} entries) have faults;"
        f" {seconds:.0f} s, slowest {max(outcome.seconds for outcome in outcomes):.1f} s,"
        f" most memory {max(outcome.memory for outcome in outcomes) / 1e6:.0f} MB"
    )
