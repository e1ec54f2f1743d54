"""Runner of the commands whose output the pages show, in an empty folder with the zoo."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HUB = "https://huggingface.co"
sys.path.insert(0, str(ROOT / "tests"))

from support import hub_environment  # noqa: E402

hub_environment.set_up()  # before the Hub's client is imported: the examples use a Hub on this machine

from support.loopback_hub import Hub  # noqa: E402
from vit_zoo.cli.entry_point import run  # noqa: E402

HASH = re.compile(r"\b[0-9a-f]{40,64}\b")
NUMBER = re.compile(r"\d[\w.,+-]*")
WORST = re.compile(r"\): \w+ at batch \d+, image '[^']*', optimiser \w+")  # where the largest difference is
MACHINE = re.compile(r"^(python|system|cpu|int8): .*$", re.MULTILINE)


@contextlib.contextmanager
def example_folder() -> Iterator[Hub]:
    """Make a folder the current one, and serve a Hub, for as long as the block runs.

    It holds the zoo, and the held-out digits of `vit_digits` in folders of their classes.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, Hub(port=hub_environment.HUB_PORT) as hub:
        os.chdir(folder)
        Path("zoo").symlink_to(ROOT / "zoo")
        for file in sorted(Path("zoo/vit_digits/held_out").glob("*.png")):
            folder_of_class = Path("scans", file.stem.partition("_")[2])
            folder_of_class.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder_of_class)
        try:
            yield hub
        finally:
            os.chdir(before)
            shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)


def output(line: str) -> tuple[int, str]:
    """Run a command and return its exit code and what it prints, stdout and stderr together."""
    arguments = shlex.split(line)[1:]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = run(arguments)
    return code, printed.getvalue().replace(f"{ROOT}/", "").replace(os.environ["HF_ENDPOINT"], HUB)


def masked(text: str) -> str:
    """Return the output without the values that another processor rounds differently, and without those of the machine."""
    return NUMBER.sub("0", HASH.sub("0", MACHINE.sub(r"\1:", WORST.sub(")", text))))
