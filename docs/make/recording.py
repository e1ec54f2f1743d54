"""Recording of a terminal on the home page: text, animated by CSS, from the output of the commands.

The picture contains its transcript, so that a screen reader has it, and so that a committed picture can be compared without the
values that depend on the machine. A second picture is the last frame alone.
"""

from __future__ import annotations

import re
import textwrap
from html import escape, unescape

from examples import masked, output

PICTURE, LAST_FRAME = "assets/recording.svg", "assets/recording_end.svg"
COMMANDS = (
    "vitzoo export vit_digits --onnx",
    "vitzoo predict vit_digits.onnx zoo/vit_digits/samples/digit_3.png --top 3",
    "vitzoo verify vit_digits.onnx --against digits_timm.safetensors --set heads=4 --set act=gelu_tanh -q",
)
COMMENTS = (
    "# one portable file, run and compared with the model before it gets its name",
    "# labels and preprocessing are in the file",
    "# a model that differs in one detail: which one?",
)
COLUMNS, ADVANCE, LEADING, MARGIN, BAR, SIZE = 88, 8.4, 21, 18, 34, 14
TYPING, PAUSE, READING = 1.0, 0.5, 1.3  # seconds
COLOURS = {"comment": "#8b98a9", "command": "#f2f5fa", "result": "#9fe3b4", "error": "#ffb4a8"}
STYLE = """
text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}
"""
MOTION = """.line{animation:appear .01s both}
.typed{animation:type 1s both}
@keyframes appear{from{opacity:0}to{opacity:1}}
@keyframes type{from{clip-path:inset(0 100% 0 0)}to{clip-path:inset(0 0 0 0)}}
@media (prefers-reduced-motion:reduce){.line,.typed{animation:none}}
"""


def pictures() -> dict[str, str]:
    """Return the picture; the current folder is that of the examples, after those of the command line."""
    lines = []
    for comment, command in zip(COMMENTS, COMMANDS, strict=True):
        _, printed = output(command)
        last = printed.rstrip().splitlines()[-1]
        lines += [comment, f"$ {command}", last]
    transcript = "\n".join(lines)
    return {PICTURE: picture(transcript), LAST_FRAME: picture(transcript, moving=False)}


def same(old: str, new: str) -> bool:
    """Compare two pictures: the same commands and outputs but for values of the machine, drawn by this code."""
    found = [re.search(r"<desc>(.*?)</desc>", text, re.DOTALL) for text in (old, new)]
    transcript, other = (unescape(match[1]) if match else "" for match in found)
    return masked(transcript) == masked(other) and old == picture(transcript, moving="@keyframes" in new)


def picture(transcript: str, *, moving: bool = True) -> str:
    """Return the picture of a transcript: comments, commands and one line of output for each."""
    parts, row, start = [], 0, 0.3
    for line in transcript.splitlines():
        kind = "comment" if line.startswith("# ") else "command" if line.startswith("$ ") else "result"
        kind = "error" if "error:" in line else kind
        for i, piece in enumerate(textwrap.wrap(line, COLUMNS, subsequent_indent="  " if kind == "command" else "")):
            y = BAR + MARGIN + SIZE + LEADING * row
            typed = kind == "command"
            delay = start + (TYPING if typed and i else 0)
            parts.append(_text(piece, y, COLOURS[kind], "typed" if typed else "line", delay))
            row += 1
        start += {"comment": PAUSE, "command": TYPING + PAUSE}.get(kind, READING)
        row += kind in ("result", "error")
    width, height = 2 * MARGIN + COLUMNS * ADVANCE, BAR + 2 * MARGIN + LEADING * (row - 1)
    dots = "".join(
        f'<circle cx="{20 + 18 * i}" cy="{BAR / 2:g}" r="5.5" fill="{fill}"/>'
        for i, fill in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    title = "A terminal: export a model, classify an image with the file, find a wrong activation function"
    size = f'width="{width:g}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" {size} role="img">'
    about = f"<title>{title}</title>\n<desc>{escape(transcript)}</desc>\n<style>{STYLE + (MOTION if moving else '')}</style>"
    window = f'<rect {size} rx="9" fill="#141a2b"/>\n{dots}'
    return "\n".join([head, about, window, *parts, "</svg>\n"])


def _text(words: str, y: float, colour: str, kind: str, delay: float) -> str:
    length = f'textLength="{len(words) * ADVANCE:g}" lengthAdjust="spacingAndGlyphs"'
    steps = f";animation-timing-function:steps({len(words)})" if kind == "typed" else ""
    style = f"animation-delay:{delay:g}s{steps}"
    return (
        f'<text class="{kind}" x="{MARGIN}" y="{y:g}" font-size="{SIZE}" fill="{colour}" xml:space="preserve" {length} '
        f'style="{style}">{escape(words)}</text>'
    )
