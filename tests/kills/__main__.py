"""`python -m tests.kills`; see the package's docstring."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest's `pythonpath` has it: the folder of `support`

from kills.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
