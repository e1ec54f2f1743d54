"""Rewrite imports of vit_zoo's modules from the flat layout before version 0.2 to the packages of today.

    python tests/support/renamed_modules.py FILE_OR_FOLDER...

Only module paths and the names imported from them change; a name that has another one now is imported under its old one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# module of before -> module of today, both below `vit_zoo.`
MODULES = {
    "line": "api",
    "recipes": "model.resize_recipes",
    "vit_spec": "model.spec",
    "model_config": "model.config",
    "preprocess": "model.preprocess",
    "positions": "model.positions",
    "forward": "model.forward",
    "torch_ops": "model.torch_ops",
    "model": "model.vit",
    "article": "model.vit_pytorch_layers",
    "zoo_files": "registry.family_file",
    "zoo_folders": "registry.catalog",
    "names": "registry.parametric_names",
    "aliases": "registry.aliases",
    "tags": "registry.pretrained_tags",
    "labels": "registry.labels",
    "citations": "registry.citations",
    "conditions": "registry.query",
    "zoo_schema": "registry.schema",
    "resolving": "registry.lookup",
    "configs": "registry.configs",
    "registry": "registry.models",
    "sources": "loading.source",
    "live": "loading.load",
    "converting": "loading.convert",
    "quantising.pictures": "loading.image_folder",
    "graph.half_ops": "graph.fp16_ops",
    "graph.form": "graph.options",
    "graph.steps": "graph.trace",
    "graph.free_grid": "graph.dynamic_positions",
    "graph.prepare": "graph.preprocess",
    "graph.kernels": "graph.interpolation",
    "formats.skeleton": "formats.onnx_skeleton",
    "formats.archives": "formats.torch_archive",
    "parity.structure": "formats.structure",
    "asked": "exporters.options",
    "artifacts": "exporters.export_file",
    "quantising.calibration": "exporters.int8.calibration",
    "quantising.gate": "exporters.int8.accuracy_gate",
    "quantising.rounding": "exporters.int8.search",
    "quantising": "exporters.int8",
    "parity.check": "parity.verify",
    "parity.references": "parity.reference",
    "against": "parity.resolve_reference",
    "parity.images": "parity.inputs",
    "parity.running": "parity.run",
    "parity.judging": "parity.tolerance",
    "parity.claims": "parity.static_checks",
    "parity.parting": "parity.bisect",
    "parity.searching": "parity.value_search",
    "parity.preparing": "parity.preprocess_check",
    "parity.fusion": "parity.ort_profile",
    "parity.headroom": "parity.fp16_range",
    "parity.picture": "parity.plot",
    "parity.this_cpu": "parity.cpu",
    "hub.conversation": "hub.client",
    "hub.fetching": "hub.download",
    "hub.sending": "hub.upload",
    "hub.cards": "hub.front_matter",
    "publishing.repository": "publishing.publish",
    "publishing.staging": "publishing.stage",
    "publishing.pulling": "publishing.pull",
    "publishing.measuring": "publishing.benchmark",
    "use.classify": "inference.predict",
    "use": "inference",
    "cli.edge": "cli.entry_point",
    "cli.voice": "cli.output",
    "cli.hub_verbs": "cli.hub_commands",
    "cli.showing": "cli.show",
    "weights.rules": "weights.dialect",
    "weights.targets": "weights.write",
    "weights.beside": "weights.sidecar",
    "weights.hf_config": "weights.configs.hf",
    "weights.timm_config": "weights.configs.timm",
    "weights.client_images": "weights.configs.image_processors",
    "weights.clip": "weights.dialects.clip",
    "weights.facebook": "weights.dialects.meta",
    "weights.flax": "weights.dialects.flax",
    "weights.hf": "weights.dialects.hf",
    "weights.hf_clip": "weights.dialects.hf_clip",
    "weights.keras_hub": "weights.dialects.keras_hub",
    "weights.timm": "weights.dialects.timm",
    "weights.timm_eva": "weights.dialects.timm_eva",
    "weights.torchvision": "weights.dialects.torchvision",
    "weights.vit_pytorch": "weights.dialects.vit_pytorch",
    "weights.patches": "weights.dialects.flat_patch",
}
# names that moved to another module than the rest of theirs, or are called otherwise: (module of before, name) -> (module, name)
NAMES: dict[tuple[str, str], tuple[str, str]] = {
    ("live", "Live"): ("parity.reference", "Live"),
    ("graph.form", "Form"): ("graph.options", "GraphOptions"),
    ("vit_spec", "did_you_mean"): ("errors", "did_you_mean"),
    ("weights.rules", "shape_after"): ("weights.translate", "shape_after"),
    ("weights.rules", "to_ours"): ("weights.translate", "to_ours"),
    ("weights.rules", "to_theirs"): ("weights.translate", "to_theirs"),
    ("weights.rules", "check_tensors"): ("weights.translate", "check_tensors"),
    ("weights.detect", "DIALECTS"): ("weights.dialects", "DIALECTS"),
    ("weights.detect", "read"): ("weights.read", "read"),
    ("weights.beside", "Beside"): ("weights.sidecar", "Sidecar"),
}

# what is read through a module or an object: pattern and replacement
ATTRIBUTES = (
    (r"from vit_zoo.model import forward\b(?=(?s:.*)\bforward\.output_names\b)", "from vit_zoo.model import outputs as forward"),
    (r"from vit_zoo.weights import detect\b(?=(?s:.*)\bdetect\.read\b)", "from vit_zoo.weights import read as detect"),
    (r"\.facts_of\(", ".facts_from_module("),
    (r"\bdialect\.sizes\(", "dialect.pattern_sizes("),
)


def moved(module: str) -> str:
    """The path of a module today, below `vit_zoo.`."""
    return MODULES.get(module, module)


def _statement(module: str, names: str, indent: str) -> str:
    """One `from` import as those that give the same names today."""
    lines = []
    for part in (part.strip() for part in names.split(",") if part.strip()):
        name, _, alias = (piece.strip() for piece in part.partition(" as "))
        below = f"{module}.{name}".lstrip(".")
        if below in MODULES:  # a module is imported
            home, _, base = MODULES[below].rpartition(".")
            lines.append((home, base, alias or name))
        else:
            home, new = NAMES.get((module, name), (moved(module), name))
            lines.append((home, new, alias or name))
    out: dict[str, list[str]] = {}
    for home, new, known in lines:
        out.setdefault(home, []).append(new if new == known else f"{new} as {known}")
    return f"\n{indent}".join(f"from vit_zoo{'.' if home else ''}{home} import {', '.join(parts)}" for home, parts in out.items())


FROM = re.compile(r"from vit_zoo((?:\.\w+)*) import (\([^)]*\)|[^\n;#]+?)(?=\s*(?:$|;|#|\\n))", re.MULTILINE)
PLAIN = re.compile(r"\bvit_zoo\.((?:\w+\.)*\w+)")


def rewritten(text: str) -> str:
    """The source of a file with today's module paths."""

    def statement(match: re.Match[str]) -> str:
        start = text.rfind("\n", 0, match.start()) + 1
        before = text[start : match.start()]
        indent = before if not before.strip() else ""
        return _statement(match[1].lstrip("."), match[2].strip("()"), indent)

    parts, at = [], 0
    for match in FROM.finditer(text):
        parts += [_paths(text[at : match.start()]), statement(match)]
        at = match.end()
    new = "".join([*parts, _paths(text[at:])])
    for pattern, replacement in ATTRIBUTES:
        new = re.sub(pattern, replacement, new)
    read = sorted({home for home in MODULES.values() if re.search(rf"(?<![\"'\w.])vit_zoo\.{re.escape(home)}\.", new)})
    imports = "".join(f"import vit_zoo.{home}\n" for home in read if f"import vit_zoo.{home}\n" not in new)
    return new.replace("import vit_zoo\n", f"import vit_zoo\n{imports}", 1)


def _paths(text: str) -> str:
    """Dotted paths outside `from` imports, such as `import vit_zoo.model` and those in strings."""

    def path(match: re.Match[str]) -> str:
        names = match[1].split(".")
        for count in range(len(names), 0, -1):
            module = ".".join(names[:count])
            rest = names[count:]
            if module in MODULES:
                home = MODULES[module]
                if rest and (module, rest[0]) in NAMES:
                    home, rest = NAMES[module, rest[0]][0], [NAMES[module, rest[0]][1], *rest[1:]]
                return ".".join(["vit_zoo", home, *rest])
        return match[0]

    return PLAIN.sub(path, text)


def main(arguments: list[str]) -> None:
    for argument in map(Path, arguments):
        for file in sorted(argument.rglob("*.py")) if argument.is_dir() else [argument]:
            text = file.read_text(encoding="utf-8")
            new = rewritten(text)
            if new != text:
                file.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
