"""Picture at the top of the README: the line from a name to a repository, with figures for each step."""

from __future__ import annotations

from svg import ACCENT, arrow, picture, rect, text

# each step, and the lines of text below it
STEPS = (
    ("name or file", ("155 architectures,", "431 published weights,", "10 libraries' files")),
    ("model", ("one forward pass,", "under 200 lines,", "for torch and ONNX")),
    ("exported file", ("ONNX, TorchScript,", ".pt2; fp16, int8;", "296 nodes for B/16")),
    ("parity report", ("float32 and float64,", "every output and axis;", "exit 3 on failure")),
    ("Hub", ("one commit that six", "clients load with the", "same results")),
)
WIDTH, GAP, HEIGHT = 146, 26, 44


def pictures() -> dict[str, str]:
    parts = []
    for index, (name, lines) in enumerate(STEPS):
        x = 2 + index * (WIDTH + GAP)
        middle = {"anchor": "middle"}
        parts.append(rect(x, 2, WIDTH, HEIGHT, fill=ACCENT, opacity=0.12, line=ACCENT))
        parts.append(text(x + WIDTH / 2, 2 + HEIGHT / 2 + 5, name, size=14, bold=True, colour=ACCENT, **middle))
        parts += [text(x + WIDTH / 2, HEIGHT + 24 + 17 * i, line, size=12, **middle) for i, line in enumerate(lines)]
        if index:
            parts.append(arrow(x - GAP + 5, 2 + HEIGHT / 2, GAP - 10))
    title = "From a name or a checkpoint to a model, an exported file, a parity report and a Hub repository"
    width = len(STEPS) * (WIDTH + GAP) - GAP + 4
    return {"assets/line.svg": picture(width, HEIGHT + 70, title, parts)}
