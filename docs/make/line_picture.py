"""The picture at the top: the line from a name to a repository, and what is measured along it."""

from __future__ import annotations

from svg import ACCENT, arrow, picture, rect, text

# what is there, and below it what a reader should know of it
STATIONS = (
    ("name or file", ("155 architectures,", "431 published weights,", "10 libraries' files")),
    ("model", ("one forward of 200", "lines, for torch", "and for ONNX")),
    ("artifact", ("ONNX, TorchScript,", ".pt2; fp16, int8;", "285 nodes for B/16")),
    ("parity report", ("float32 and float64,", "every output and", "free axis, or exit 3")),
    ("Hub", ("one commit that six", "clients load to the", "same numbers")),
)
WIDTH, GAP, HEIGHT = 146, 26, 44


def pictures() -> dict[str, str]:
    parts = []
    for index, (name, words) in enumerate(STATIONS):
        x = 2 + index * (WIDTH + GAP)
        middle = {"anchor": "middle"}
        parts.append(rect(x, 2, WIDTH, HEIGHT, fill=ACCENT, opacity=0.12, line=ACCENT))
        parts.append(text(x + WIDTH / 2, 2 + HEIGHT / 2 + 5, name, size=14, bold=True, colour=ACCENT, **middle))
        parts += [text(x + WIDTH / 2, HEIGHT + 24 + 17 * i, word, size=12, **middle) for i, word in enumerate(words)]
        if index:
            parts.append(arrow(x - GAP + 5, 2 + HEIGHT / 2, GAP - 10))
    title = "From a name or a checkpoint to a model, an artifact, a parity report and a repository of the Hub"
    width = len(STATIONS) * (WIDTH + GAP) - GAP + 4
    return {"assets/line.svg": picture(width, HEIGHT + 70, title, parts)}
