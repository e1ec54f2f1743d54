"""Runs the commands of the corpus and checks what came of each.

A command runs in a fresh copy of its entry's folder, in a process of its own. Checked are its exit code; that it wrote one
error line, which names the file, and no traceback, C++ path or escape sequence; its time and peak memory; that no payload ran;
that the folder has the same names, bytes and modes as before; and that a refusal leaves no output.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus.entry import BASE, FAILED, OUT, Command, Entry
from support.paths import ROOT

MARK = "PWNED"
LIMITS = {False: (5.0, 1.5e9), True: (30.0, 2e9)}  # seconds and bytes, without and with a session
MEMORY = 4 << 30  # bytes of data that a command may have: more than any limit allows, less than the machine has
# what belongs into no error line: tracebacks, places in C++, addresses, other libraries' folders, advice to load it anyway
TECHNICAL = re.compile(
    r"Traceback|unexpected \w+:|\w+\.(?:cc|cpp|h|hpp|py):\d+|/onnxruntime/|site-packages|(?<![0-9])0x[0-9a-f]{6,}|weights_only"
)


@dataclass(frozen=True)
class Outcome:
    """What a command did, with its faults: none for a command that did the right thing."""

    entry: str
    arguments: tuple[str, ...]
    code: int
    seconds: float
    cpu: float
    memory: int
    error: str
    faults: tuple[str, ...]

    @property
    def line(self) -> str:
        return f"{self.entry}: `vitzoo {' '.join(self.arguments)[:200]}`: {'; '.join(self.faults)}"


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return the kind, mode and content of everything in a folder."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            facts = path.lstat()
            inner: object = None
            if stat.S_ISREG(facts.st_mode):
                sparse = facts.st_size > 1 << 26
                inner = facts.st_size if sparse else hashlib.sha256(path.read_bytes()).hexdigest()
            elif stat.S_ISLNK(facts.st_mode):
                inner = str(path.readlink())
            found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_nlink, inner)
    return found


def run_entry(entry: Entry, root: Path, start: Start) -> Iterator[Outcome]:
    """Run the commands of an entry, whose files and the valid ones are in `root`."""
    for number, command in enumerate(entry.commands):
        work = root / "runs" / f"{entry.name.replace('/', '-')}.{number}"
        shutil.rmtree(work, ignore_errors=True)
        for name in ("home", "tmp", "out"):
            (work / name).mkdir(parents=True)
        source = root / "files" / entry.name.replace("/", "-")
        subprocess.run(["cp", "-a", "--sparse=auto", str(source), str(work / "in")], check=True)
        yield _judged(entry, command, work, root / "base", start)
        shutil.rmtree(work)


def _judged(entry: Entry, command: Command, work: Path, base: Path, start: Start) -> Outcome:
    places = {BASE: str(base), OUT: "../out"}
    arguments = [re.sub(r"\b(BASE|OUT)\b", lambda match: places[match[0]], argument) for argument in command.arguments]
    before = state(work / "in")
    usage = start(arguments, work)
    faults = list(_faults(command, usage, arguments, work / "in"))
    faults += [f"a payload ran: {path.relative_to(work)}" for path in work.rglob(MARK)]
    after = state(work / "in")
    reports = {name for name in after if name.endswith(".parity.json")} if usage.code in (0, FAILED) else set()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name) and name not in reports)
    if changed:
        faults.append(f"changed: {', '.join(changed[:3])}")
    if usage.code not in (0, FAILED) and any((work / "out").iterdir()):
        faults.append(f"left output: {', '.join(sorted(path.name for path in (work / 'out').iterdir())[:3])}")
    return Outcome(entry.name, command.arguments, usage.code, usage.seconds, usage.cpu, usage.memory, usage.error, tuple(faults))


def _faults(command: Command, usage: Usage, arguments: list[str], folder: Path) -> Iterator[str]:
    if usage.code not in command.codes:
        yield f"exit {usage.code}, not {' or '.join(map(str, command.codes))}: {usage.error[:240]!r}"
    lines = usage.text.splitlines()
    errors = [line for line in lines if line.startswith("vitzoo: error: ")]
    strange = [line for line in lines if not line.startswith("vitzoo: ")]
    if strange:
        yield f"stderr: {strange[0][:160]!r}"
    elif not all(line.isprintable() for line in lines) or "\x1b" in usage.output:
        yield "characters that move the cursor"
    if len(errors) != (usage.code != 0):
        yield f"{len(errors)} error lines"
    elif errors:
        if found := TECHNICAL.search(errors[0]):
            yield f"technical: {found[0]!r} in {errors[0][:240]!r}"
        named = _named(command, arguments, folder)
        if named is not None and named not in errors[0]:
            yield f"does not name {named!r}: {errors[0][:240]!r}"
    seconds, memory = LIMITS[command.session]
    if usage.time > seconds:
        yield f"{usage.time:.1f} s"
    if usage.memory > memory:
        yield f"{usage.memory / 1e9:.1f} GB"


def _named(command: Command, arguments: list[str], folder: Path) -> str | None:
    """Return what the error has to name: the first argument that is a file of the entry."""
    if command.names is not None:
        return command.names
    with contextlib.suppress(OSError, ValueError):
        for argument in arguments:
            path = folder / argument
            inside = argument and not argument.startswith(("-", "..", "/")) and folder in path.parents
            if inside and (path.is_symlink() or path.exists()):
                return argument
    return None


# --- processes ---


@dataclass(frozen=True)
class Usage:
    """What a process returned, wrote and used. `time` is what is compared with the limit."""

    code: int
    seconds: float
    cpu: float
    memory: int
    text: str
    output: str
    time: float

    @property
    def error(self) -> str:
        return next((line for line in self.text.splitlines() if line.startswith("vitzoo: error: ")), self.text[-300:].strip())


Start = Callable[[list[str], Path], Usage]


def environment(work: Path) -> dict[str, str]:
    """Return the environment of a command: no Hub, no cache, and temporary files beside the entry's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "VITZOO"))}
    return kept | {
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "HF_HOME": str(work / "home" / "hub"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def processes(*, loaded: bool, patience: float) -> Start:
    """Return a way to run a command in a process of its own. On a `loaded` machine, CPU time is judged, not wall time."""

    def start(arguments: list[str], work: Path) -> Usage:
        with (work / "stdout").open("wb") as out, (work / "stderr").open("wb") as err:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "vit_zoo.cli", *(os.fsencode(argument) for argument in arguments)],
                cwd=work / "in", env=environment(work), stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
            return waited(process.pid, began, work, loaded=loaded, patience=patience)

    return start


def forks(*, loaded: bool, patience: float) -> Start:
    """Return a way to run a command in a fork of this process, which imports the libraries first: without their import time."""
    import onnx  # noqa: F401
    import onnxruntime as ort
    import torch

    from vit_zoo.cli import commands, entry_point  # noqa: F401

    torch.set_num_threads(1)
    ort.set_default_logger_severity(4)

    def start(arguments: list[str], work: Path) -> Usage:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.setsid()
                os.chdir(work / "in")
                os.environ |= environment(work)
                for number, name in ((1, "stdout"), (2, "stderr")):
                    os.dup2(os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
                sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace") for number in (1, 2))
                resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
                code = entry_point.run(arguments)
                sys.stdout.flush()
            finally:
                os._exit(code)
        return waited(pid, began, work, loaded=loaded, patience=patience)

    return start


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a running process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waited(pid: int, began: float, work: Path, *, loaded: bool, patience: float) -> Usage:
    """Wait for a process, which is killed after `patience` seconds of CPU, and return what it did."""
    killed = False
    pause = 0.002
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        seconds = time.monotonic() - began
        if found:
            break
        if (_cpu(pid) > patience or seconds > 6 * patience) and not killed:
            killed = True
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it left behind
    cpu = usage.ru_utime + usage.ru_stime
    text, output = ((work / name).read_bytes().decode(errors="backslashreplace") for name in ("stderr", "stdout"))
    judged = seconds if killed or not loaded else cpu
    return Usage(os.waitstatus_to_exitcode(status), seconds, cpu, usage.ru_maxrss * 1024, text, output, judged)
