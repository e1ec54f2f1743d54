"""Measurement of complete processes that run alternately: wall time, peak memory, and their ratios.

Uses the standard library only. The kernel's figure for a process's peak memory starts at the peak of its parent process,
so the measuring process must stay small.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

MIB = 2**20
PACKAGES = (
    "vitzoo",
    "click",
    "numpy",
    "pydantic",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "torch",
    "timm",
    "transformers",
    "safetensors",
)
VITZOO = str(Path(sysconfig.get_path("scripts"), "vitzoo"))


@dataclass(frozen=True, kw_only=True)
class Run:
    """Result of one complete process: times in seconds, peak memory in bytes, and its output."""

    wall: float
    cpu: float
    peak: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object in the last line of the output."""
        document: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return document


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A measured value and its goal: `line` is an upper or a lower limit, depending on `side`."""

    name: str
    value: float
    line: float
    side: Literal["at most", "at least"] = "at most"
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.value <= self.line if self.side == "at most" else self.value >= self.line

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{self.name}: {self.value:.3g}{self.unit}, goal {self.side} {self.line:g}{self.unit}: {verdict}"


def this_machine() -> dict[str, Any]:
    """Describe this machine: processor, memory, system, load and package versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": _load(),
        "versions": {"python": platform.python_version(), **versions},
    }


@dataclass
class Report:
    """Results of a benchmark, printed as a table and written as JSON."""

    title: str
    rounds: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=this_machine)

    def finish(self, target: str | None) -> int:
        """Print the report and write it as JSON (`-` for one line on stdout). Returns the exit code: 0 if every goal is met."""
        self.machine |= {"load_after": _load(), "peak_floor_mib": round(own_peak() / MIB, 1)}
        print(f"{self.title}, {self.rounds} rounds")
        print(table(self.rows))
        for claim in self.claims:
            print(claim)
        m = self.machine
        print(f"machine: {m['cpus']} CPUs, {m['cpu']}, {m['memory_gib']} GiB, load {m['load_before']} to {m['load_after']}")
        print(f"peak memory includes at least {m['peak_floor_mib']} MiB, the peak of the measuring process")
        print("versions: " + ", ".join(f"{name} {version}" for name, version in m["versions"].items()))
        if target is not None:
            claims = [{**asdict(claim), "met": claim.met} for claim in self.claims]
            text = json.dumps({**asdict(self), "claims": claims})
            if target == "-":
                print(text)
            else:
                Path(target).write_text(text + "\n", encoding="utf-8")
        return 0 if all(claim.met for claim in self.claims) else 1


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=rounds, help="number of runs of each process (default: %(default)s)")
    options.add_argument("--json", metavar="FILE", help="write the result as JSON; - prints it as the last line of the output")
    return options


def run(command: Sequence[str], *, folder: Path | None = None) -> Run:
    """Run and measure one process. Raises RuntimeError with the end of its stderr if it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        stdout, stderr = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{stderr[-2000:]}")
    return Run(wall=wall, cpu=used.ru_utime + used.ru_stime, peak=_bytes(used.ru_maxrss), stdout=stdout, stderr=stderr)


def interleaved(
    commands: Mapping[str, Sequence[str]], rounds: int, *, folder: Path | None = None, before: Callable[[], None] | None = None
) -> dict[str, list[Run]]:
    """Run every command once per round; each round starts with another command.

    A first round is not counted: it brings files into the page cache and writes byte code. `before` is called before every
    process and is not measured.
    """
    names = list(commands)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if before is not None:
                before()
            one = run(commands[name], folder=folder)
            if number > 0:
                runs[name].append(one)
    return runs


def settle() -> None:
    """Prepare for a process that writes much: sync all files, and make 1 GiB of memory available.

    A virtual machine may return free memory to its host, and the next process would have to wait to get it again.
    """
    os.sync()
    subprocess.run([sys.executable, "-c", "b'x' * 2**30"], check=True)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Return the ratio of the medians, and the median of each round's ratio, which other load on the machine affects less."""
    return median(ours) / median(theirs), median(a / b for a, b in zip(ours, theirs, strict=True))


def imported(arguments: Sequence[str], *, folder: Path | None = None) -> set[str]:
    """Return the top-level names of the modules that `python ARGUMENTS` imports."""
    stderr = run([sys.executable, "-X", "importtime", *arguments], folder=folder).stderr
    lines = re.findall(r"^import time:\s+\d+ \|\s+\d+ \| +(\S+)$", stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in lines}


def environment() -> dict[str, str]:
    """Return this environment without variables that would change the measurement: byte code is cached, the Hub is offline."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME", "VITZOO_PATH")
    variables = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**variables, "HF_HUB_OFFLINE": "1"}


def row(name: str, runs: Iterable[Run]) -> dict[str, Any]:
    """Return a row of the table: wall time and peak memory of complete processes."""
    runs = list(runs)
    walls = [one.wall * 1e3 for one in runs]
    return {
        "": name,
        "median ms": round(median(walls), 1),
        "best ms": round(min(walls), 1),
        "worst ms": round(max(walls), 1),
        "cpu ms": round(median(one.cpu for one in runs) * 1e3, 1),
        "peak MiB": round(max(one.peak for one in runs) / MIB, 1),
    }


def own_peak() -> int:
    """Return the peak memory of this process so far, in bytes."""
    return _bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def own_memory() -> int:
    """Return the memory that this process uses now, in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _bytes(maxrss: int) -> int:
    return maxrss if sys.platform == "darwin" else maxrss * 1024


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = list(dict.fromkeys(head for one in rows for head in one))
    cells = [heads, *([str(one.get(head, "")) for head in heads] for one in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]

    def aligned(line: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join([first, *rest])

    return "\n".join(aligned(line) for line in cells)
