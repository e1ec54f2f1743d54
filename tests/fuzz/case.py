"""Fuzz cases: files, and the command that reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

COMMAND = "case.json"  # in a saved input: its arguments, and the valid files that it contains unchanged
Bytes = Callable[[bytes, Random], bytes]  # a mutation


@dataclass
class Case:
    """A command's arguments, its files, and valid files to be copied: name in the case's folder to name in the base folder."""

    arguments: list[str]
    files: dict[str, bytes] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path, base: Path) -> None:
        """Write the files into a folder. The folder of valid files is `BASE` in the arguments."""
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        for name, source in self.copies.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((base / source).read_bytes())

    def save(self, folder: Path) -> None:
        """Write the case so that `load` returns it."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        text = json.dumps({"arguments": self.arguments, "copies": self.copies}, indent=1)
        (folder / COMMAND).write_text(text + "\n")

    @classmethod
    def load(cls, folder: Path) -> Case:
        """Return a saved case."""
        told = json.loads((folder / COMMAND).read_text())
        files = {}
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                if path != folder / COMMAND:
                    files[path.relative_to(folder).as_posix()] = path.read_bytes()
        return cls(told["arguments"], files, told["copies"])

    def line(self, base: Path) -> list[str]:
        """Return the arguments with the paths of this machine."""
        return [argument.replace("BASE", str(base)) if argument.startswith("BASE/") else argument for argument in self.arguments]


def mutated(data: bytes, rng: Random, mutations: list[Bytes], kept: set[int] | None, *, most: int = 3) -> bytes:
    """Return data after one to `most` mutations, of which only the `kept` ones are applied if a set is given.

    Each mutation has random numbers of its own, so that leaving one out does not change the others.
    """
    for number in range(rng.choice((1, 1, 1, *range(1, most + 1)))):
        mutation, seed = rng.choice(mutations), rng.getrandbits(64)
        if kept is None or number in kept:
            data = mutation(data, Random(seed))
    return data


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 0.5,
    -0.0, 1e-6, 1e308, 1e999,
    float("nan"), "", "a", "0", "16", "-1", "²", "٣", "1e999", "\x1b[2J\n", "../../x", "/dev/zero", "a\0b", "a" * 300, [],
    [0], [1], [16, 16], [1, 2, 3],
    [True, True], ["a"], [[]], [None], {}, {"a": 1}, {"0": "a"}, {"height": 16, "width": 16}, "gelu", "vit", "cls", "bicubic",
)  # fmt: skip
