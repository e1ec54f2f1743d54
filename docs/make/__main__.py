"""Writes the pages and pictures that are made from the code and its data; what it writes is committed.

python docs/make            # write
python docs/make --check    # exit code 1 if something is not as it would be written
python docs/make --live     # the assets of the live page, which are not committed (they need `npm ci` in tests/node)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

NUMBER = re.compile(r"(?<![\w#./])\d+(?:\.\d+)?(?![\w./])")
NEAR = 0.03  # of an opacity or a place
DOCS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))

import command_line  # noqa: E402
import how_pictures  # noqa: E402
import line_picture  # noqa: E402
import live_assets  # noqa: E402
import plots  # noqa: E402
import zoo_pages  # noqa: E402


def made() -> dict[str, str]:
    """Every generated file, by its path in docs."""
    return {**zoo_pages.pages(), **command_line.pages(), **how_pictures.pictures(), **plots.pictures(), **line_picture.pictures()}


def _same(old: str, new: str) -> bool:
    """Equal, but for what another processor rounds otherwise in a picture of computed values."""
    if old == new:
        return True
    if not new.startswith("<svg"):
        return False
    (words, numbers), (others, values) = ((NUMBER.sub("", text), NUMBER.findall(text)) for text in (old, new))
    return words == others and all(abs(float(a) - float(b)) <= NEAR for a, b in zip(numbers, values, strict=True))


def main(arguments: list[str]) -> int:
    if arguments == ["--live"]:
        live_assets.build(DOCS / "assets" / "live")
        return 0
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = []
    for name, text in made().items():
        path = DOCS / name
        if path.is_file() and _same(path.read_text(), text):
            continue
        stale.append(name)
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    verb = "is stale" if arguments else "written"
    for name in stale:
        print(f"docs/{name}: {verb}")
    return int(bool(stale and arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
