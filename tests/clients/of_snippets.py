"""Client program: run the Python blocks of model cards, each in an empty namespace, as a reader pastes it into a new file.

stdin: a list of {name, folder, code}; stdout: a list of {name, out, error}, one for each block. One process runs all, because
importing the clients takes longer than their work.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import peers  # noqa: F401  the clients, imported in the order that works


def run(name, folder, code):
    out, error = io.StringIO(), ""
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        try:
            exec(compile(code, name, "exec"), {"__name__": "__main__"})
        except Exception:
            error = traceback.format_exc()
    return {"name": name, "out": out.getvalue(), "error": error}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    print(json.dumps([run(**block) for block in asked]))
