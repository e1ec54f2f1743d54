"""Tests of Ctrl-C and SIGTERM at any moment: exit codes 130 and 143, one line, and no temporary files.

VITZOO_TEST_MOMENTS=30 pytest tests/cli/test_signals.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from vit_zoo.files.names import TEMPORARY

SIGNALS = {signal.SIGINT: (130, "vitzoo: interrupted"), signal.SIGTERM: (143, "vitzoo: terminated")}
TINY = ["--set", "depth=1", "--set", "image_size=32"]
COMMANDS = {
    "create": ["create", "vit_ti16", "-o", "old", *TINY, "--force"],
    "convert": ["convert", "model", "-o", "old", "--to", "hf", "--force"],
    "export": ["export", "model", "--onnx", "--verify", "quick", "-o", "old/a.onnx", "--force"],
}
PF_EXITING = 4  # a flag of Linux
MOMENTS = int(os.environ.get("VITZOO_TEST_MOMENTS", "1"))
READY = "import sys, os; from vit_zoo.cli import main; sys.argv[0] = 'vitzoo'; os.write(1, b'!'); main()"


def start(*arguments: str, code: str = READY, **options: object) -> subprocess.Popen[bytes]:
    """Start `vitzoo`, as its console script does, and wait until it has come to its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
    assert process.stdout.read(1) == b"!"
    return process


def ended(process: subprocess.Popen[bytes]) -> tuple[int, list[str]]:
    err = process.communicate(timeout=60)[1].decode()
    lines = [line for line in err.splitlines() if line and "RANDOM WEIGHTS" not in line]  # click ends the line with ^C
    return process.returncode, lines


def is_exiting(pid: int) -> bool:
    """Whether the system is ending a process: it takes a while to free its memory, and signals no longer reach it."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and bool(int(stat.read_text().rpartition(")")[2].split()[6]) & PF_EXITING)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    for name in ("model", "old"):
        subprocess.run(
            [sys.executable, "-m", "vit_zoo.cli", "create", "vit_ti16", "-o", name, *TINY, "-q"], cwd=folder, check=True
        )
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_at_any_moment(command, place):
    generator = random.Random(command)
    began = time.monotonic()
    assert ended(start(*COMMANDS[command], cwd=place))[0] == 0
    whole = time.monotonic() - began
    states = []
    for number in [*SIGNALS] * MOMENTS:
        process = start(*COMMANDS[command], cwd=place)
        delay = generator.random() * whole
        time.sleep(delay)
        running = process.poll() is None
        process.send_signal(number)
        running = running and not is_exiting(process.pid)
        code, lines = ended(process)
        states.append(code)
        if running:
            assert (code, lines) == (SIGNALS[number][0], [SIGNALS[number][1]]), f"after {delay:.3f} s of {whole:.3f}"
        assert not [path for path in place.rglob(".*") if TEMPORARY.fullmatch(path.name)], delay
    print(command, {code: states.count(code) for code in states})  # for `pytest -s`


BEFORE = "import sys, os, signal, time; sys.argv[0] = 'vitzoo'; from vit_zoo.cli import main, signals\n"


def in_import_of(module: str, answer: str) -> str:
    """Return a program that gets the signal while this module is being found, and answers the exception so."""
    return f"""
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "{module}":
                    try:
                        os.kill(os.getpid(), number)
                        time.sleep(5)
                    except BaseException:
                        {answer}
        sys.meta_path.insert(0, Finder())
    """


SPOTS = {
    "before any import of the command line": """
        install = signals.install
        signals.install = lambda: (install(), os.kill(os.getpid(), number))
    """,
    "in an import that makes another exception of it": in_import_of(
        "vit_zoo.cli.commands", "raise ImportError('broken') from None"
    ),
    "in an import that an exception would abort": in_import_of("vit_zoo.registry.models", "os.abort()"),
    "swallowed, and the command goes on": """
        import vit_zoo.cli.commands as commands
        import vit_zoo.registry.models as models
        def list_models(*args, **options):
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            except BaseException:
                pass
            time.sleep(30)
        models.list_models = list_models
    """,
    "swallowed, and the command ends": """
        import vit_zoo.registry.models as models
        def list_models(*args, **options):
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            except BaseException:
                return ["vit_b16"]
        models.list_models = list_models
    """,
    "in a destructor": """
        import vit_zoo.registry.models as models
        class Late:
            def __del__(self):
                os.kill(os.getpid(), number)
                time.sleep(5)
        def list_models(*args, **options):
            Late()
            time.sleep(30)
        models.list_models = list_models
    """,
    "in native code": """
        import hashlib, threading
        import vit_zoo.registry.models as models
        def list_models(*args, **options):
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2 * 10**8)  # minutes, without a look at signals
        models.list_models = list_models
    """,
    "at exit": """
        import atexit
        atexit.register(lambda: (os.kill(os.getpid(), number), time.sleep(5)))
    """,
}


@pytest.mark.parametrize("number", SIGNALS, ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("spot", SPOTS)
def test_a_signal_where_it_is_easily_lost(spot, number, tmp_path):
    code = f"{BEFORE}number = {int(number)}\nos.write(1, b'!')\n{textwrap.dedent(SPOTS[spot])}\nmain()\n"
    began = time.monotonic()
    assert ended(start("list", code=code, cwd=tmp_path)) == (SIGNALS[number][0], [SIGNALS[number][1]])
    assert time.monotonic() - began < 15


SLOW = (
    BEFORE
    + """
from pathlib import Path
import vit_zoo.registry.models as models
from vit_zoo.files import Staged
def list_models(*args, **options):
    with Staged(Path("a.onnx")) as staged:
        os.write(1, b"!")
        try:
            time.sleep(30)
        except BaseException:
            time.sleep(30)  # a clean-up that hangs
models.list_models = list_models
main()
"""
)


def test_the_second_ctrl_c_ends_at_once_and_leaves_nothing(tmp_path):
    process = start("list", code=SLOW, cwd=tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, ["vitzoo: interrupted"])
    assert time.monotonic() - began < 1.5
    assert not list(tmp_path.iterdir())


def test_a_clean_up_that_hangs_is_ended(tmp_path):
    process = start("list", code=SLOW, cwd=tmp_path)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, ["vitzoo: terminated"])
    assert not list(tmp_path.iterdir())


def test_signals_that_the_parent_ignores_stay_ignored(tmp_path):
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731  as a shell does for commands in the background
    process = start("list", "vit_b16", cwd=tmp_path, preexec_fn=ignore)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (0, [])


FORK = (
    BEFORE
    + """
os.write(1, b"!")
import vit_zoo.registry.models as models
def list_models(*args, **options):
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        os.write(tell, b"!")
        time.sleep(30)
        os._exit(1)  # never past here: `child` is 0, and a signal to that goes to the whole group
    os.read(ready, 1)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    time.sleep(2.5)
    return ["vit_b16"]
models.list_models = list_models
main()
"""
)


def test_a_signal_to_a_forked_process_is_not_one_to_its_parent(tmp_path):
    assert ended(start("list", code=FORK, cwd=tmp_path)) == (0, [])


def test_exit_handlers_run_and_output_is_complete(tmp_path):
    code = BEFORE + "import atexit; os.write(1, b'!'); atexit.register(lambda: print('bye')); main()"
    process = start("list", "vit_b16", code=code, cwd=tmp_path)
    assert process.communicate(timeout=60)[0] == b"vit_b16\nbye\n"
    assert process.returncode == 0
    assert not list(Path(tmp_path).iterdir())
