"""Pages of the documentation and the code blocks in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT, TESTS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"((?:<!-- no-run: [^\n]*-->\n)?)```(shell|sh|python)\n(.*?)```", re.DOTALL)
FILE = re.compile(r"```\w+ title=\"([^\"]+)\"\n(.*?)```", re.DOTALL)
QUOTE = re.compile(r"<!-- no-run: quoted from (\S+) -->\n```python\n(.*?)```", re.DOTALL)
PEERS = "from support import torchvision_operators\ntorchvision_operators.declare()\n"  # on the page, an installation that works


def runnable(page: Path) -> list[tuple[str, str]]:
    """Blocks without a reason not to run, each with its kind; the README's two set-up commands are left to CI."""
    blocks = [(kind, code) for reason, kind, code in BLOCK.findall(page.read_text()) if not reason]
    return [(kind, code) for kind, code in blocks if "venv" not in code]


def run_blocks(page: Path, folder: Path, **environment: str) -> str:
    """Run the blocks of a page in order, in a folder with the zoo and the files that the page contains; return their output."""
    (folder / "zoo").symlink_to(ROOT / "zoo")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}", **environment}
    printed = ""
    for file, content in FILE.findall(page.read_text()):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content)
    for kind, code in runnable(page):
        peers = PEERS if re.search(r"^(from|import) (timm|transformers|torchvision)\b", code, re.MULTILINE) else ""
        command = [sys.executable, "-c", peers + code] if kind == "python" else ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        printed += done.stdout
    return printed
