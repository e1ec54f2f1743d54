"""Writer of the committed graphs in tests/data/graphs: one small model of every kind, in four forms, as `vitzoo show --graph`.

python tests/graph/graph_texts.py    # after a change of the exporter; the difference shows what it does to every kind of model
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
GRAPHS = TESTS / "data" / "graphs"
FORMS = {
    "default": {},
    "opset_23": {"opset": 23},
    "core": {"batch": 1, "operators": "core"},
    "int8": {"precision": "int8-dynamic"},
}


def texts(kind: str) -> dict[str, str]:
    """Return the graphs of a kind of model by form."""
    import vit_zoo
    from support.families import small_model
    from vit_zoo.formats.graph_text import graph_lines
    from vit_zoo.formats.onnx_skeleton import skeleton

    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for form, options in FORMS.items():
            (done,) = vit_zoo.export(small_model(kind), out=Path(folder) / f"{form}.onnx", verify=False, **options)
            made[form] = "\n".join(graph_lines(skeleton(done.path))) + "\n"
    return made


def main() -> None:
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    from support.families import KINDS

    for kind in KINDS:
        for form, text in texts(kind).items():
            path = GRAPHS / kind / f"{form}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


if __name__ == "__main__":
    main()
