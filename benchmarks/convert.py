"""Memory benchmark of `vitzoo convert`: peak memory of the complete process for a ViT-L/16, relative to the size of the file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

from measure import MIB, VITZOO, Claim, Report, Run, parser, run

# source, output, target, and options for differences that have to be accepted
CONVERSIONS = {
    "ours to hf": ("vit_l16", "hf", "hf", []),
    "ours to torchvision": ("vit_l16", "torchvision.pth", "torchvision", []),
    "ours to google": ("vit_l16", "google.npz", "google", ["--accept", "act"]),
    "hf to torchvision": ("hf", "joined.pth", "torchvision", []),
    "torchvision to ours": ("torchvision.pth", "again", "vitzoo", []),
    "google to hf": ("google.npz", "from_google", "hf", []),
}


def main() -> int:
    chosen = parser(__doc__, rounds=1).parse_args()
    report = Report("converting ViT-L/16", chosen.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run([VITZOO, "create", "vit_l16"], folder=folder)
        size = (folder / "vit_l16" / "model.safetensors").stat().st_size
        for name, (source, out, target, more) in CONVERSIONS.items():
            command = [VITZOO, "convert", f"./{source}", "-o", out, "--to", target, "--force", *more]
            runs = [run(command, folder=folder) for _ in range(chosen.rounds)]
            report.rows.append(_row(name, runs, size))
            peak = max(one.peak for one in runs) / size
            report.claims.append(Claim(name=f"{name}, peak memory / file", value=peak, line=2.2, unit="x"))
    return report.finish(chosen.json)


def _row(name: str, runs: list[Run], size: int) -> dict[str, object]:
    peak = max(one.peak for one in runs)
    return {
        "": name,
        "s": round(median(one.wall for one in runs), 1),
        "peak MiB": round(peak / MIB),
        "of the file": round(peak / size, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
