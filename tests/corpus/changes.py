"""Changes of JSON documents, and the exit codes that are right for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corpus.entry import INPUT, REFUSED

READ = (0, INPUT, REFUSED)
BAD = (INPUT, REFUSED)
NOT_REPRESENTABLE = 6
DIGITS = "@digits"  # replaced by an integer of 5,000 digits, which Python refuses to print
INFINITE = "@infinite"  # replaced by 1e999
NAN = "@nan"


def base_of(folder: Path) -> Path:
    return folder.parent.parent / "base"


def dumped(document: Any) -> str:
    text = json.dumps(document)
    for mark, number in ((DIGITS, "9" * 5000), (INFINITE, "1e999"), (NAN, "NaN")):
        text = text.replace(f'"{mark}"', number)
    return text


def replaced(document: Any, path: str, what: Any) -> Any:
    """Return a JSON document with the value at a dotted path replaced, or removed for `...`."""
    copy = json.loads(json.dumps(document))
    *parents, last = path.split(".")
    inner = copy
    for name in parents:
        inner = inner.setdefault(name, {}) if isinstance(inner, dict) else inner[int(name)]
    if what is ...:
        inner.pop(last, None)
    elif isinstance(inner, list):
        inner[int(last)] = what
    else:
        inner[last] = what
    return copy


def value_name(what: Any) -> str:
    text = dumped(what) if not isinstance(what, str) else what
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in text)[:24] or "empty"
