"""Exported files with bad metadata, and bad parity reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from corpus.changes import BAD, INFINITE, READ, base_of, dumped, replaced, value_name
from corpus.entry import FAILED, REFUSED, Command, Entry, Maker, command

# --- metadata of exported files, and reports ---


def _metadata(key: str, change: Callable[[Any], Any]) -> Maker:
    """Return a maker of our ONNX file with other metadata: `change` returns a document, or the text itself."""

    def make(folder: Path) -> None:
        import onnx

        model = onnx.load(base_of(folder) / "tiny.onnx")
        entry = next(one for one in model.metadata_props if one.key == key)
        new = change(json.loads(entry.value))
        entry.value = new if isinstance(new, str) else dumped(new)
        (folder / "m.onnx").write_bytes(model.SerializeToString(deterministic=True))

    return make


def _program(file: str, change: Callable[[Any], Any]) -> Maker:
    """Return a maker of our TorchScript or .pt2 file with other metadata."""

    def make(folder: Path) -> None:
        import zipfile

        with zipfile.ZipFile(base_of(folder) / file) as given, zipfile.ZipFile(folder / file, "w") as made:
            for item in given.infolist():
                data = given.read(item)
                if item.filename.endswith("vit_zoo.json"):
                    new = change(json.loads(data))
                    data = (new if isinstance(new, str) else dumped(new)).encode()
                made.writestr(item, data)

    return make


EXPORTS: tuple[tuple[str, Sequence[Any]], ...] = (
    (
        "outputs",
        (
            3,
            "logits",
            [],
            [1],
            [None],
            {},
            None,
            ["logits", "logits"],
            ["nowhere"],
            ["x" * 5000],
            ["block.99"],
            ["block.\u00b2"],
            ...,
        ),
    ),
    ("opset", ("a", [], -1, 10**30, None, True)),
    ("placement", (1, [], "nowhere", None)),
    ("data", (1, [], "../secret", "/dev/zero", "", "m.onnx", "a\0b", "x" * 5000)),
    ("precision", (1, [], "fp12", None, "int8-static")),
    ("verify", (1, [], "maybe")),
    ("version", (1, [], None, "\x1b[2J\n")),
    ("weights_sha256", (1, [], "x", None, "0" * 64)),
    ("include", (1, [], "softmax", ["nope"], [1])),
    ("dynamic", (1, [], "hw", "nope")),
    ("axes", (1, "a", [1])),
)
CONFIGS: tuple[tuple[str, Any], ...] = (
    ("list", [1]), ("number", 1), ("null", None), ("empty", {}), ("inner_list", {"vit_zoo": []}), ("cut", "{"),
    ("deep", '{"a":' + "[" * 100_000),
    ("digits", '{"vit_zoo": {"schema": ' + "9" * 5000 + "}}"), ("nan", '{"vit_zoo": {"schema": NaN}}'),
    ("of_5_mb", '{"a": "' + "x" * 5_000_000 + '"}'),
    ("duplicate", '{"vit_zoo": {}, "vit_zoo": {}}'), ("text", "x"), ("empty_text", ""),
)  # fmt: skip
SPECS: tuple[tuple[str, Any], ...] = (
    ("spec.dim", "a"), ("spec.dim", 10**9), ("spec.depth", 0), ("spec.depth", 10**6), ("spec.depth", 2),
    ("spec.image_size", [32, 32]),
    ("spec.image_size", [10**6, 10**6]), ("spec.heads", 3), ("spec.num_classes", 10**9), ("spec.num_classes", 0),
    ("spec.patch_size", [0, 0]),
    ("spec.channels", 0), ("spec.channels", 4), ("spec.act", []), ("spec", []), ("preprocess", 3), ("preprocess.mean", ["a"]),
    ("preprocess.size", [64, 64]), ("preprocess.resize_to", 10**9), ("labels", 3), ("labels", ["a"]), ("labels", [1, 2, 3]),
    ("name", 3),
    ("name", "../../x"), ("name", "\x1b[2J"), ("random_seed", "a"), ("random_seed", 10**30), ("problem_type", 3),
    ("schema", "1"), ("source", 3),
)  # fmt: skip


SELFCHECKS: tuple[tuple[str, Any], ...] = (
    ("version", 99), ("version", 0), ("version", "1"), ("input", None), ("input.type", "int64"), ("input.layout", "CHWN"),
    ("input.shape", [2, 3, 10**9, 10**9]), ("input.shape", [10**6, 3, 16, 16]), ("input.shape", []),
    ("input.shape", [2, 3, 16, -1]),
    ("input.shape", [2, 3, 16, 24]), ("input.name", 3), ("outputs", []), ("outputs", 3), ("outputs", [{}]),
    ("outputs.0.name", "nope"),
    ("outputs.0.shape", [2, 10**6, 10**6]), ("outputs.0.shape", [2, 4]), ("outputs.0.tolerance", 0), ("outputs.0.tolerance", 1e9),
    ("outputs.0.tolerance", INFINITE), ("outputs.0.norm", [INFINITE, 1]), ("outputs.0.norm", 1),
    ("outputs.0.values", [[], []]), ("outputs.0.values", [[1] * 300, [1] * 300]), ("outputs.0.values", "x"),
    ("outputs.0.projection", [1, 1, 1]), ("left_out", 3),
)  # fmt: skip


def _selfcheck_entries() -> list[Entry]:
    """Return our ONNX file with bad self-checks."""
    changes: list[tuple[str, Callable[[Any], Any]]] = [
        (
            f"{path.replace('.', '_')}_{number}_{value_name(what)}",
            lambda document, path=path, what=what: replaced(document, path, what),
        )
        for number, (path, what) in enumerate(SELFCHECKS)
    ]
    changes += [(name, lambda document, what=what: what) for name, what in CONFIGS]
    lines = (
        command("selfcheck m.onnx", FAILED, REFUSED, session=True),
        command("show m.onnx", *READ),
        command("verify m.onnx", FAILED, REFUSED, session=True),
    )
    return [Entry(f"selfcheck/{name}", _metadata("vit_zoo.selfcheck", change), lines) for name, change in changes]


def _metadata_entries() -> list[Entry]:
    found = []
    for file, group in (
        ("m.onnx", "metadata_onnx"),
        ("tiny.torchscript.pt", "metadata_torchscript"),
        ("tiny.pt2", "metadata_pt2"),
    ):
        changes: list[tuple[str, str, Callable[[Any], Any]]] = []
        for path, values in EXPORTS:
            changes += [
                (f"export_{path}_{number}_{value_name('missing' if what is ... else what)}", "vit_zoo.export",
                 lambda document, path=path, what=what: replaced(document, path, what))
                for number, what in enumerate(values)
            ]  # fmt: skip
        changes += [(f"export_{name}", "vit_zoo.export", lambda document, what=what: what) for name, what in CONFIGS]
        changes += [(f"config_{name}", "vit_zoo", lambda document, what=what: what) for name, what in CONFIGS]
        changes += [
            (f"{path.replace('.', '_')}_{number}_{value_name(what)}", "vit_zoo",
             lambda document, path=path, what=what: replaced(document, f"vit_zoo.{path}", what))
            for number, (path, what) in enumerate(SPECS)
        ]  # fmt: skip
        for name, key, change in changes:
            if file == "m.onnx":
                lines = (
                    command("show m.onnx", *READ),
                    command("verify m.onnx", 0, FAILED, *BAD, session=True),
                    command("predict m.onnx BASE/image.png", *READ, session=True),
                )
                found.append(Entry(f"{group}/{name}", _metadata(key, change), lines))
            elif name.startswith(("config_", "spec", "labels", "name")) or "outputs" in name:
                lines = (command(f"show {file}", *READ), command(f"verify {file}", REFUSED))
                found.append(Entry(f"{group}/{name}", _program(file, partial(_in_program, key, change)), lines))
    return found


def _in_program(key: str, change: Callable[[Any], Any], document: Any) -> Any:
    """Return the document of a program, whose two parts are what ONNX files have as two entries."""
    if key == "vit_zoo":
        new = change({"vit_zoo": document["vit_zoo"]})
        return {**document, **new} if isinstance(new, dict) else new
    part = next((name for name in document if name != "vit_zoo"), "export")
    return {**document, part: change(document.get(part, {}))}


def _report(change: Callable[[Any], Any] | str) -> Maker:
    """Return a maker of our ONNX file with a parity report beside it: the valid one changed, or a text."""

    def make(folder: Path) -> None:
        shutil.copy(base_of(folder) / "tiny.onnx", folder / "m.onnx")
        valid = json.loads((base_of(folder) / "report.json").read_text())
        text = change if isinstance(change, str) else dumped(change(valid))
        (folder / "m.onnx.parity.json").write_text(text)

    return make


REPORTS: tuple[tuple[str, Any], ...] = (
    ("ok", "yes"), ("ok", 1), ("verdict", "fine"), ("precision", 3), ("effort", []), ("file", 3), ("file", "../../x"),
    ("sha256", 3), ("reference", None),
    ("comparisons", []), ("comparisons", 3), ("comparisons", [1]), ("comparisons", [{}]), ("comparisons.0.relative", "a"),
    ("comparisons.0.relative", INFINITE),
    ("comparisons.0.batch", -1), ("comparisons.0.output", 3), ("agreements", 3), ("agreements", [{}]), ("blocks", "x"),
    ("parting", 3), ("parting", {}),
    ("faults", "x"), ("faults", [1]), ("faults", ["\x1b[2J\n"]), ("skipped", 3), ("tolerance", []), ("machine", 3),
    ("versions", None), ("headroom", "a"),
    ("schema_version", 99), ("schema_version", "2"), ("unknown", 1), ("reference", "\x1b[2J\n"), ("verdict", "approximate"),
)  # fmt: skip
REPORT_TEXTS = {
    "cut": "{",
    "list": "[1]",
    "deep": "[" * 100_000,
    "digits": '{"ok": ' + "9" * 5000 + "}",
    "empty": "",
    "text": "x",
    "of_5_mb": '"' + "x" * 5_000_000,
}


def _reports() -> list[Entry]:
    lines: tuple[Command, ...] = (command("show m.onnx.parity.json", *READ), command("show m.onnx", *READ, names="m.onnx"))
    found = [
        Entry(
            f"report/{path.replace('.', '_')}_{number}_{value_name(what)}",
            _report(lambda document, path=path, what=what: replaced(document, path, what)),
            lines,
        )
        for number, (path, what) in enumerate(REPORTS)
    ]
    return found + [Entry(f"report/{name}", _report(text), lines) for name, text in REPORT_TEXTS.items()]


ENTRIES = [*_metadata_entries(), *_selfcheck_entries(), *_reports()]
