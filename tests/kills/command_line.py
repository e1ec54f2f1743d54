"""`python -m tests.kills`; see the package's docstring."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support import hub_environment
from support.loopback_hub import Hub

hub_environment.set_up()

import onnxruntime  # noqa: E402, F401  once here, not in each fork
import torch  # noqa: E402

import vit_zoo.files.folder as folders  # noqa: E402
from vit_zoo.cli.entry_point import run  # noqa: E402
from vit_zoo.files.names import TEMPORARY  # noqa: E402
from vit_zoo.registry.catalog import zoo_folder  # noqa: E402

CALLS = ("rename", "replace", "link", "unlink", "remove", "rmdir", "mkdir", "fsync")
TINY = ["--set", "dim=48", "--set", "heads=3", "--set", "dim_head=16", "--set", "mlp_dim=96", "--set", "image_size=32"]
OLD, NEW = [*TINY, "--set", "depth=1"], [*TINY, "--set", "depth=2"]
REPO = "org/tiny"
PICTURES = zoo_folder() / "vit_digits" / "held_out"
Hashes = dict[str, str]


@dataclass(frozen=True)
class Scenario:
    """A command, the folder in which it writes, and what a reader sees.

    * `before`: commands that make the old state; each has a folder to run in.
    * `raw`: whether every program sees the old or the new state at any moment, and not only vitzoo.
    * `here`: the folder to run the command in, below the place.
    * `resumes`: whether the same command goes on where it was killed; what it left until then is its own affair.
    """

    name: str
    command: list[str]
    before: list[list[str]] = field(default_factory=list)
    raw: bool = True
    here: str = "."
    resumes: bool = False


def scenarios() -> list[Scenario]:
    create = ["create", "vit_ti16", "-o"]
    models = [[*create, "a", *OLD, "--seed", "1"], [*create, "b", *OLD, "--seed", "2"]]
    export = ["export", "b", "--onnx", "--verify", "quick", "-o", "out", "--force"]

    def exported(name: str, *options: str, old: bool, raw: bool) -> Scenario:
        older = [["export", "a", "--onnx", "--verify", "quick", "-o", "out", *options]] if old else []
        return Scenario(f"export {name}", [*export, *options], [*models, *older], raw)

    two = ("--precision", "fp32", "--precision", "fp16")
    return [
        Scenario("create", [*create, "new", *NEW]),
        Scenario("create --force", [*create, "old", *NEW, "--force"], [[*create, "old", *OLD]]),
        Scenario("create in the current folder", [*create, ".", *NEW, "--force"], [[*create, "old", *OLD]], False, "old"),
        Scenario("convert to a folder", ["convert", "b", "-o", "new", "--to", "hf"], models),
        Scenario("convert over a folder", ["convert", "b", "-o", "old", "--to", "hf", "--force"],
                 [*models, ["convert", "a", "-o", "old", "--to", "hf"]]),
        Scenario("convert over a file", ["convert", "b", "-o", "old.pth", "--to", "timm", "--force"],
                 [*models, ["convert", "a", "-o", "old.pth", "--to", "timm"]]),
        exported("inline", old=False, raw=False),
        exported("inline over an old one", old=True, raw=False),
        exported("external", "--external", old=False, raw=False),
        exported("external over an old one", "--external", old=True, raw=False),
        exported("two precisions", *two, old=True, raw=False),
        Scenario("export shared", ["export", "b", "--onnx", "--shared", "--verify", "quick"], models, raw=False),
        Scenario("pull", ["pull", REPO, "-o", "new"]),
        Scenario("pull over a folder", ["pull", REPO, "-o", "old", "--force"], [[*create, "old", *OLD]]),
        Scenario("publish staging", ["publish", "b", "org/b", "--dry-run", "staged", "--random-weights", "--licence", "mit",
                                     "--without", "fp16", "--without", "int8"], models),
        *(
            Scenario(f"embed {suffix}", ["embed", "digits.onnx", str(PICTURES), "-o", f"features.{suffix}", "--workers", "1"],
                     [["export", "vit_digits", "--onnx", "--outputs", "pooler_output", "-o", "digits.onnx"]], resumes=True)
            for suffix in ("parquet", "npy")
        ),
    ]  # fmt: skip


def forked(
    place: Path, arguments: list[str], log: Path, before: Callable[[], None] = lambda: None, delay: float | None = None
) -> int:
    """Run a command in a fork, in a folder, and return its exit code, or minus the signal that ended it; `log` gets stderr."""
    child = os.fork()
    if not child:
        code = 99
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os.chdir(place)
            before()
            code = run(arguments)
        finally:
            os._exit(code)
    if delay is not None:
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counting(limit: int | None, report: Path | None = None) -> None:
    """Count the calls that change the disk, here and now; the one with the number `limit` is the end of this process."""
    count = 0

    def counted(function: Callable) -> Callable:
        def call(*args: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == limit:
                os.kill(os.getpid(), signal.SIGKILL)
            if report is not None:
                descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.write(descriptor, str(count).encode())
                os.close(descriptor)
            return function(*args, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    folders._exchange = counted(folders._exchange)


def hashes(place: Path) -> Hashes:
    """The hash of every file that is not temporary."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    names = {path: path.relative_to(place) for path in files}
    visible = [path for path in files if not any(TEMPORARY.fullmatch(part) for part in names[path].parts)]
    return {names[path].as_posix(): _hash(path) for path in visible if path.name != ".vitzoo-journal"}


def _hash(path: Path) -> str:
    content = path.read_bytes()
    if path.name in ("measurements.json", "README.md"):  # figures of this machine
        content = b""
    return hashlib.sha256(content).hexdigest()[:12]


def leftovers(place: Path) -> list[str]:
    return [str(path) for path in place.rglob(".*") if TEMPORARY.fullmatch(path.name) or path.name == ".vitzoo-journal"]


class Trial:
    """A scenario with its old and its new state, in a folder of its own."""

    def __init__(self, scenario: Scenario, place: Path) -> None:
        self.scenario, self.base, self.place, self.log = scenario, place / "base", place / "place", place / "log"
        self.base.mkdir(parents=True)
        (self.base / "out").mkdir()
        for command in scenario.before:
            assert forked(self.base, command, self.log) == 0, (command, self.log.read_text())
        for folder in ("old", "out"):  # something of the user's
            if (self.base / folder).is_dir():
                (self.base / folder / "notes.txt").write_text("mine")
        self.old = hashes(self.base)
        self.fresh()
        start = time.monotonic()
        self.calls_file = place / "calls"
        code = self.run(lambda: counting(None, self.calls_file))
        assert code == 0, self.log.read_text()
        self.seconds = time.monotonic() - start
        self.calls = int(self.calls_file.read_text())
        self.new = hashes(self.place)
        assert self.new != self.old, scenario.name
        assert not leftovers(self.place), leftovers(self.place)

    def fresh(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.base, self.place)

    def run(self, before: Callable[[], None] = lambda: None, delay: float | None = None) -> int:
        return forked(self.place / self.scenario.here, self.scenario.command, self.log, before, delay)

    def killed(self, before: Callable[[], None] = lambda: None, delay: float | None = None) -> str:
        """Run the command and kill it; return what is found: `old`, `new`, or what is wrong."""
        self.fresh()
        self.run(before, delay)
        raw = hashes(self.place)
        if self.scenario.resumes:
            return self._resumed(raw)
        wrong = self._mixture(raw)
        if wrong:
            return wrong
        if self.scenario.raw and raw not in (self.old, self.new):
            return f"neither old nor new: {_difference(raw, self.old, self.new)}"
        if not self.scenario.raw:  # any command that reads one of the files
            changed = [name for name in self.new if self.new[name] != self.old.get(name)]
            target = next(name for name in changed if name.endswith((".onnx", "config.json")))
            forked(self.place, ["show", target], self.log)
        state = hashes(self.place)
        if state not in (self.old, self.new):
            return f"vitzoo sees neither old nor new: {_difference(state, self.old, self.new)}"
        code = self.run()
        if code and not (code == 8 and state == self.new):  # without --force, what exists is not replaced
            return f"the next run ended with {code}: {self.log.read_text()}"
        after = hashes(self.place)
        if after != self.new:
            return f"the next run left {_difference(after, self.old, self.new)}"
        left = leftovers(self.place)
        if left and not code:
            return f"left over: {left}"
        return "old" if state == self.old else "new"

    def _resumed(self, raw: Hashes) -> str:
        """Run the command again; return what was found before that, or what is wrong."""
        code = self.run()
        if code and not (code == 8 and raw == self.new):  # it had ended
            return f"the next run ended with {code}: {self.log.read_text()}"
        after = hashes(self.place)
        if after != self.new:
            return f"the next run left {_difference(after, self.old, self.new)}"
        left = [] if code else leftovers(self.place)
        return f"left over: {left}" if left else "new" if raw == self.new else "old"

    def _mixture(self, raw: Hashes) -> str | None:
        """Return what a program without our journal would read wrongly: a graph with other weights, a report on another file."""
        for name in raw:
            if not name.endswith(".onnx"):
                continue
            state = self.old if raw[name] == self.old.get(name) else self.new
            for other in (f"{name}_data", f"{name}.parity.json"):
                if other in raw and raw[other] != state.get(other) and self.old.get(other) != self.new.get(other):
                    return f"{name} with another {other}"
        return None


def _difference(state: Hashes, old: Hashes, new: Hashes) -> dict[str, str]:
    words = {}
    for name in sorted({*state, *old, *new}):
        value = state.get(name)
        if old.get(name) != new.get(name) or value != old.get(name):
            words[name] = "old" if value == old.get(name) else "new" if value == new.get(name) else "other"
    return words


@contextlib.contextmanager
def hub() -> Iterator[None]:
    """A Hub with a model to pull."""
    with Hub(port=hub_environment.HUB_PORT) as server, tempfile.TemporaryDirectory() as made:
        place = Path(made, "model")
        place.mkdir()
        assert forked(place, ["create", "vit_ti16", "-o", "tiny", *NEW, "--seed", "5"], Path(made, "log")) == 0
        files = {path.name: path.read_bytes() for path in (place / "tiny").iterdir()}
        server.create(REPO, {**files, "LICENSE": b"terms"})
        yield


def main(arguments: list[str]) -> int:
    """Kill every scenario at every call, then at random moments, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=main.__doc__)
    parser.add_argument("--moments", type=int, default=0, help="random moments for each scenario")
    parser.add_argument("--calls", type=int, default=10**6, help="at most so many calls for each scenario, spread evenly")
    parser.add_argument("--only", nargs="*", default=[""], help="scenarios whose names contain one of these")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    generator, failed = random.Random(0), False
    with hub(), tempfile.TemporaryDirectory() as made:
        for number, scenario in enumerate(one for one in scenarios() if any(part in one.name for part in given.only)):
            trial = Trial(scenario, Path(made, str(number)))
            step = max(1, -(-trial.calls // given.calls))
            at = list(range(1 + number % step, trial.calls + 1, step))
            found = {f"call {n}": trial.killed(lambda n=n: counting(n)) for n in at}
            for moment in range(given.moments):
                delay = generator.random() * trial.seconds
                found[f"moment {moment}, {delay:.3f} s"] = trial.killed(delay=delay)
            wrong = {when: state for when, state in found.items() if state not in ("old", "new")}
            failed = failed or bool(wrong)
            states = list(found.values())
            print(json.dumps({
                "scenario": scenario.name, "calls": trial.calls, "kills": len(found), "old": states.count("old"),
                "new": states.count("new"), "wrong": wrong,
            }), flush=True)  # fmt: skip
    return int(failed)
