"""The lowest versions that pyproject.toml admits, as a constraints file for pip: `python tests/minimum_versions.py > FILE`.

torch is the one of constraints.txt, whose build is the only one that is there everywhere. transformers is the oldest that the
lowest huggingface-hub can be installed with, so that the quick tests find it; pandas and pyarrow are the oldest for the lowest
NumPy.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINNED = {"torch"}
PEERS = {"transformers": "5.0.0", "pandas": "2.2.2", "pyarrow": "18.0.0"}


def minimum_versions(pyproject: str, constraints: str) -> dict[str, str]:
    """Return the version of each package: the lower bounds of the dependencies, and for all others what is tested."""
    tested = dict(line.split("==") for line in constraints.splitlines() if "==" in line and not line.startswith("#"))
    project = tomllib.loads(pyproject)["project"]
    bounds = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,.*)?", text).groups() for text in project["dependencies"])
    return tested | PEERS | {name: version for name, version in bounds.items() if name not in PINNED}


if __name__ == "__main__":
    versions = minimum_versions((ROOT / "pyproject.toml").read_text(), (ROOT / "constraints.txt").read_text())
    print("\n".join(f"{name}=={version}" for name, version in versions.items()))
