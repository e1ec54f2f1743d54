"""Benchmark of start-up time: the complete process `vitzoo list` compared with `python -c "import click"`."""

from __future__ import annotations

import sys

from measure import VITZOO, Claim, Report, imported, interleaved, parser, ratios, row

HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "pydantic"}


def main() -> int:
    options = parser(__doc__, rounds=15).parse_args()
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import click": [sys.executable, "-c", "import click"],
        "vitzoo list": [VITZOO, "list"],
    }
    report = Report("start-up", options.rounds)
    found = interleaved(commands, options.rounds)
    report.rows = [row(name, runs) for name, runs in found.items()]
    of_medians, of_rounds = ratios(*([one.wall for one in found[name]] for name in ("vitzoo list", "import click")))
    heavy = sorted(HEAVY & imported(["-m", "vit_zoo.cli", "list"]))
    report.claims = [
        Claim(name="vitzoo list / import click, ratio of medians", value=of_medians, line=2.5, unit="x"),
        Claim(name="vitzoo list / import click, median of ratios", value=of_rounds, line=2.5, unit="x"),
        Claim(name=f"of {', '.join(sorted(HEAVY))} it imports ({', '.join(heavy) or 'none'})", value=len(heavy), line=0),
    ]
    return report.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
