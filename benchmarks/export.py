"""Benchmark of ONNX export: `vitzoo export`, without its check and with it, compared with timm and both of torch's exporters.

All are complete processes: they start with nothing imported and end with ViT-B/16 in a file. Ours also hashes the weights and
syncs the file to the disk; torch's does not. With the check, random weights are made first, as timm does. Before every
process, outside the measured time, old files are synced and memory is made available, so that no process pays for another one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from measure import MIB, VITZOO, Claim, Report, imported, interleaved, parser, ratios, row, run, settle

CHECKED = "vitzoo export, checked"


def main() -> int:
    options = parser(__doc__, rounds=5)
    options.add_argument(
        "--shared-rounds", type=int, default=15, help="number of runs of the export with shared weights (default: %(default)s)"
    )
    options.add_argument("--child", nargs=2, metavar=("EXPORTER", "FILE"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child is not None:
        exporter, target = chosen.child
        _timm(exporter, Path(target))
        return 0
    report = Report("ONNX export of ViT-B/16", chosen.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run([VITZOO, "create", "vit_b16"], folder=folder)
        checkpoint = folder / "vit_b16" / "model.safetensors"
        size = checkpoint.stat().st_size
        ours = ["export", str(checkpoint), "--onnx", "--verify", "off", "--out", str(folder / "ours.onnx")]
        shared = ["export", str(checkpoint.parent), "--onnx", "--shared", "--verify", "off"]
        torch_loaded = "torch" in imported(["-m", "vit_zoo.cli", *ours])
        checked = ["export", "vit_b16", "--random", "--onnx", "--out", str(folder / "checked.onnx"), "--quiet"]
        peers = {"timm": "dynamo", "timm, dynamo=False": "older"}
        commands = {"vitzoo export": [VITZOO, *ours], CHECKED: [VITZOO, *checked]} | {
            name: [sys.executable, __file__, "--child", exporter, str(folder / f"{exporter}.onnx")]
            for name, exporter in peers.items()
        }
        found = interleaved(commands, chosen.rounds, before=settle)
        light = interleaved({"vitzoo export --shared": [VITZOO, *shared]}, chosen.shared_rounds, before=settle)
    found |= light
    walls = {name: [one.wall for one in runs] for name, runs in found.items()}
    peaks = {name: max(one.peak for one in runs) for name, runs in found.items()}
    report.rows = [row(name, runs) for name, runs in found.items()]
    for kind, value in zip(("ratio of medians", "median of ratios"), ratios(walls["timm"], walls["vitzoo export"]), strict=True):
        report.claims.append(Claim(name=f"timm / vitzoo export, wall, {kind}", value=value, line=15, side="at least", unit="x"))
    fastest = min(peers, key=lambda name: median(walls[name]))
    of_checked = ratios(walls[CHECKED], walls[fastest])
    for kind, value in zip(("ratio of medians", "median of ratios"), of_checked, strict=True):
        report.claims.append(Claim(name=f"{CHECKED} / {fastest}, wall, {kind}", value=value, line=1, unit="x"))
    report.claims += [
        Claim(name=f"{CHECKED}, peak memory", value=peaks[CHECKED] / MIB, line=1.2 * 1024, unit=" MiB"),
        Claim(name="vitzoo export, peak memory / weights", value=peaks["vitzoo export"] / size, line=1.3, unit="x"),
        Claim(name="vitzoo export, torch imported", value=int(torch_loaded), line=0),
        Claim(name="vitzoo export --shared, best wall", value=min(walls["vitzoo export --shared"]), line=0.4, unit=" s"),
        Claim(name="vitzoo export --shared, peak memory", value=peaks["vitzoo export --shared"] / 1e6, line=80, unit=" MB"),
    ]
    return report.finish(chosen.json)


def _timm(exporter: str, target: Path) -> None:
    """Export timm's model with random weights by one of torch's exporters, with a free batch size."""
    from peers import import_timm

    timm = import_timm()
    import torch

    model = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    image = torch.zeros(2, 3, 224, 224)
    if exporter == "older":
        torch.onnx.export(model, (image,), target, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
        return
    shapes = {"x": {0: torch.export.Dim("batch", min=1, max=1024)}}
    torch.onnx.export(model, (image,), target, dynamo=True, dynamic_shapes=shapes, verbose=False)


if __name__ == "__main__":
    sys.exit(main())
