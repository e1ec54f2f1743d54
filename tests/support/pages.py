"""Pages of the documentation and the code blocks in them."""

from __future__ import annotations

import re

from support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"((?:<!-- no-run: [^\n]*-->\n)?)```(shell|sh|python)\n(.*?)```", re.DOTALL)
QUOTE = re.compile(r"<!-- no-run: quoted from (\S+) -->\n```python\n(.*?)```", re.DOTALL)
