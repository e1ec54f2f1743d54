"""Generator of the pages and pictures that are made from the code and its data. Its output is committed.

python docs/make            # write
python docs/make --check    # exit code 1 if a file is out of date
python docs/make --live     # write the assets of the live page, which are not committed (needs `npm ci --prefix tests/node`)
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

NUMBER = re.compile(r"(?<![\w#./])\d+(?:\.\d+)?(?![\w./])")
NEAR = 0.03  # tolerance for opacities and coordinates
DOCS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))

import bench_page  # noqa: E402
import command_line  # noqa: E402
import config_pages  # noqa: E402
import coverage_page  # noqa: E402
import embed_picture  # noqa: E402
import examples  # noqa: E402
import how_pictures  # noqa: E402
import line_picture  # noqa: E402
import live_assets  # noqa: E402
import plots  # noqa: E402
import probe_picture  # noqa: E402
import recording  # noqa: E402
import zoo_pages  # noqa: E402

WITH_OUTPUT = {command_line.PAGE: command_line.same, recording.PICTURE: recording.same, recording.LAST_FRAME: recording.same}


def made() -> dict[str, str]:
    """Return the text of every generated file, by its path in docs."""
    made = {**zoo_pages.pages(), **config_pages.pages(), **how_pictures.pictures(), **plots.pages(), **line_picture.pictures()}
    made |= coverage_page.pages()
    made |= {**embed_picture.pictures(), **probe_picture.pictures(), **bench_page.pages()}
    with examples.example_folder() as hub:
        return {**made, **command_line.pages(hub), **recording.pictures()}


def _same(name: str, old: str, new: str) -> bool:
    """Compare two texts. In pictures, numbers may differ slightly, because other processors round computed values differently."""
    if old == new:
        return True
    if name in WITH_OUTPUT:
        return WITH_OUTPUT[name](old, new)
    if not new.startswith("<svg"):
        return False
    (text, numbers), (other_text, other_numbers) = ((NUMBER.sub("", source), NUMBER.findall(source)) for source in (old, new))
    return text == other_text and all(abs(float(a) - float(b)) <= NEAR for a, b in zip(numbers, other_numbers, strict=True))


def main(arguments: list[str]) -> int:
    if arguments == ["--live"]:
        live_assets.build()
        return 0
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = []
    for name, text in made().items():
        path = DOCS / name
        if path.is_file() and _same(name, path.read_text(), text):
            continue
        stale.append(name)
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    status = "out of date" if arguments else "written"
    for name in stale:
        print(f"docs/{name}: {status}")
    return int(bool(stale and arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
