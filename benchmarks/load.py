"""Benchmark of loading a local checkpoint: time and memory of `vit_zoo.load`, the lower limit, transformers and timm.

Every measurement has its own process, and imports finish before the clock starts. `first` is the first load in the
process, `again` the second. `touch` reads every weight once after the first load; until then a mapped file is not in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import mmap
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from measure import MIB, VITZOO, Claim, Report, Run, interleaved, own_memory, own_peak, parser, ratios, run

Load = Callable[[Path], Any]


def main() -> int:
    options = parser(__doc__, rounds=7)
    options.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child is not None:
        way, folder = chosen.child
        _child(way, Path(folder))
        return 0
    report = Report("loading", chosen.rounds)
    with tempfile.TemporaryDirectory() as temporary:
        base, large = Path(temporary, "vit_b16"), Path(temporary, "vit_l16")
        for folder in (base, large):
            run([VITZOO, "create", folder.name, "--out", str(folder)])
        run(_command("make-transformers", base))
        found = interleaved({way: _command(way, base) for way in WAYS}, chosen.rounds)
        memory = interleaved({way: _command(way, large) for way in ("vit_zoo", "limit")}, min(chosen.rounds, 3))
        size = (large / "model.safetensors").stat().st_size
    first = {way: [one.document["first"] for one in runs] for way, runs in found.items()}
    growth = {way: max(one.document["growth"] for one in runs) / size for way, runs in memory.items()}
    report.rows = [_row(f"{way}, vit_b16", runs) for way, runs in found.items()]
    report.rows += [_row(f"{way}, vit_l16", runs) for way, runs in memory.items()]
    for other, line in (("limit", 2.5), ("transformers", 0.2)):
        for kind, value in zip(("ratio of medians", "median of ratios"), ratios(first["vit_zoo"], first[other]), strict=True):
            report.claims.append(Claim(name=f"vit_b16, vit_zoo / {other}, {kind}", value=value, line=line, unit="x"))
    report.claims.append(
        Claim(name="vit_l16, peak memory beyond the imports / file", value=growth["vit_zoo"], line=1.25, unit="x")
    )
    return report.finish(chosen.json)


def _limit() -> Load:
    """Return the lower limit: the bare module tree on the meta device with views of the mapped file, without any checks."""
    import torch
    from torch import nn

    class Linear(nn.Linear):
        def reset_parameters(self) -> None:
            pass

    class LayerNorm(nn.LayerNorm):
        def reset_parameters(self) -> None:
            pass

    class PatchProjection(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(dim, 3, 16, 16))
            self.bias = nn.Parameter(torch.empty(dim))

    class PatchEmbedding(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.proj = PatchProjection(dim)

    class Attention(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.qkv, self.proj = Linear(dim, 3 * dim), Linear(dim, dim)

    class MLP(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.fc1, self.fc2 = Linear(dim, 4 * dim), Linear(4 * dim, dim)

    class Block(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.norm1, self.attn = LayerNorm(dim), Attention(dim)
            self.norm2, self.mlp = LayerNorm(dim), MLP(dim)

    class Tree(nn.Module):
        def __init__(self, dim: int, depth: int) -> None:
            super().__init__()
            self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.empty(1, 197, dim))
            self.patch_embed = PatchEmbedding(dim)
            self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
            self.norm = LayerNorm(dim)
            self.head = Linear(dim, 1000)

    def load(folder: Path) -> Any:
        with (folder / "model.safetensors").open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        del header["__metadata__"]
        state = {}
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            flat = torch.frombuffer(mapped, dtype=torch.float32, count=(stop - start) // 4, offset=8 + length + start)
            state[name] = flat.view(entry["shape"])
        sizes = {768: 12, 1024: 24}  # width: depth
        dim = header["norm.weight"]["shape"][0]
        with torch.device("meta"):
            model = Tree(dim, sizes[dim])
        model.load_state_dict(state, assign=True)
        return model.eval()

    return load


def _vit_zoo() -> Load:
    import vit_zoo.api
    import vit_zoo.model.vit
    import vit_zoo.weights.translate

    return vit_zoo.api.load


def _transformers() -> Load:
    from peers import import_transformers_vit

    model, _ = import_transformers_vit()
    return lambda folder: model.from_pretrained(folder / "transformers", local_files_only=True).eval()


def _timm() -> Load:
    from peers import import_timm
    from safetensors.torch import load_file

    timm = import_timm()

    def load(folder: Path) -> Any:
        model = timm.create_model("vit_base_patch16_224", pretrained=False)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()

    return load


WAYS: dict[str, Callable[[], Load]] = {"vit_zoo": _vit_zoo, "limit": _limit, "transformers": _transformers, "timm": _timm}


def _child(way: str, folder: Path) -> None:
    if way == "make-transformers":
        from peers import import_transformers_vit

        model, config = import_transformers_vit()
        model(config(num_labels=1000)).save_pretrained(folder / "transformers")
        return
    import numpy as np
    import torch

    load = WAYS[way]()
    torch.set_num_threads(1)  # summing a weight is too small a task for a second thread
    torch.from_numpy(np.ones(1024, np.float32)).sum().item()
    gc.collect()
    imports = own_memory()
    start = time.perf_counter()
    model = load(folder)
    loaded = time.perf_counter()
    with torch.no_grad():
        total = sum(p.sum().item() for p in model.parameters())
    touched = time.perf_counter()
    growth = own_peak() - imports
    again = time.perf_counter()
    load(folder)
    end = time.perf_counter()
    parameters = sum(p.numel() for p in model.parameters())
    found = {"first": loaded - start, "touch": touched - loaded, "again": end - again, "growth": growth, "imports": imports}
    print(json.dumps({**found, "parameters": parameters, "sum": total}))


def _command(way: str, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--child", way, str(folder)]


def _row(name: str, runs: list[Run]) -> dict[str, Any]:
    found = [one.document for one in runs]
    times = {part: median(one[part] for one in found) * 1e3 for part in ("first", "touch", "again")}
    return {
        "": name,
        **{f"{part} ms": round(value, 1) for part, value in times.items()},
        "best first ms": round(min(one["first"] for one in found) * 1e3, 1),
        "imports MiB": round(median(one["imports"] for one in found) / MIB),
        "growth MiB": round(max(one["growth"] for one in found) / MIB),
    }


if __name__ == "__main__":
    sys.exit(main())
