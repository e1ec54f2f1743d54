"""What to do next with an exported file: the lines that `export` prints for a person at a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_zoo.exporters.export_file import Export

SCORES = ("logits", "probabilities")  # outputs that `predict` reads


def next_steps(
    exports: Sequence[Export], model: str | None, outputs: Sequence[str] | None, *, random: bool, seed: int | None
) -> list[str]:
    """Return two lines: how to use the first file, and how to check or publish it.

    `model`, `outputs`, `random` and `seed` are the options of the export.
    """
    from vit_zoo.formats import FORMATS, describe

    export = exports[0]
    config, path, source = export.config, shlex.quote(str(export.path)), shlex.quote(model or ".")
    names = outputs or (config.spec.output,)
    if FORMATS[describe(export.path).format].graph and set(SCORES) & set(names) and config.preprocess is not None:
        use = f"vitzoo predict {path} IMAGE..."
    else:
        use = f"{path} returns {', '.join(names)}"
    made = f" --random{'' if seed is None else f' --seed {seed}'}" if random else ""
    if export.report is None:
        return [use, f"vitzoo verify {path} --against {source}{made}"]
    if config.random_text:
        return [use, f"vitzoo verify {path} --against {source}{made} --full"]
    return [use, f"vitzoo publish {source} ORG/NAME"]
