"""Build hook: the wheel contains the files of vitzoo's wheel, which is defined one folder up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilder


class SameFiles(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        checkout = Path(self.root).parent
        files = WheelBuilder(str(checkout)).recurse_included_files()
        build_data["force_include"] |= {file.path: file.distribution_path for file in files}
        licences = f"vitzoo_runtime-{self.metadata.version}.dist-info/licenses"
        build_data["force_include"][str(checkout / "LICENSE")] = f"{licences}/LICENSE"
