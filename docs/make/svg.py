"""SVG shapes as text, in colours that are readable on light and on dark pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from xml.sax.saxutils import escape

from PIL import Image

INK, ACCENT, OTHER, LINE = "#7d8590", "#4f6bed", "#d9822b", "#a0a7b0"
TEXT = "currentColor"  # of the page, for pictures that are part of it
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def picture(width: float, height: float, title: str, parts: Iterable[str], *, description: str = "") -> str:
    """Return a complete SVG file; `title` and `description` describe the picture for screen readers."""
    about = f"<title>{escape(title)}</title>\n" + (f"<desc>{escape(description)}</desc>\n" if description else "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}" '
        f'width="{number(width)}" height="{number(height)}" role="img" font-family="{FONT}" font-size="13">\n'
        f"{about}" + "\n".join(parts) + "\n</svg>\n"
    )


def number(value: float) -> str:
    """Format a coordinate with two decimals, which is finer than a screen and the same on every machine."""
    return f"{round(value, 2):g}"


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, colour: str = INK, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    place = f'x="{number(x)}" y="{number(y)}"'
    return f'<text {place} text-anchor="{anchor}" font-size="{size}" fill="{colour}"{weight}>{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, *, fill: str = "none", opacity: float = 1.0, line: str = "") -> str:
    edge = f' stroke="{line}"' if line else ""
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {place} fill="{fill}" fill-opacity="{number(opacity)}"{edge}/>'


def line(x: float, y: float, end_x: float, end_y: float, *, colour: str = LINE) -> str:
    place = f'x1="{number(x)}" y1="{number(y)}" x2="{number(end_x)}" y2="{number(end_y)}"'
    return f'<line {place} stroke="{colour}" stroke-opacity="0.4"/>'


def arrow(x: float, y: float, length: float) -> str:
    """Return an arrow that points to the right."""
    end = x + length
    head = f"M{number(x)} {number(y)}H{number(end)}m-6 -4l6 4l-6 4"
    return f'<path d="{head}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'


def photo(image: Image.Image, name: str) -> str:
    """Return the definition of an image from which `part` shows sections."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=72)
    data = base64.b64encode(file.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<defs><image id="{name}" {size} href="data:image/jpeg;base64,{data}"/></defs>'


def part(name: str, box: tuple[float, float, float, float], x: float, y: float, width: float, height: float) -> str:
    """Return a section of an image, `box` (left, top, width, height), placed at (x, y)."""
    view = " ".join(number(value) for value in box)
    place = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<svg {place} viewBox="{view}" preserveAspectRatio="none"><use href="#{name}"/></svg>'
