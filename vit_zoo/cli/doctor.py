"""Report of `vitzoo doctor`: versions, the CPU, and the commands that this installation can run."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from typing import Any

from vit_zoo import __version__
from vit_zoo.cli.dependencies import install_command
from vit_zoo.registry.catalog import variants

RUNTIME = ("click", "numpy", "pillow", "pydantic", "safetensors", "onnx", "onnxruntime")
WITH_TORCH = ("torch", "einops")
OURS = ("vitzoo", "vitzoo-runtime")  # the distributions; the one called vit-zoo on the package index is another project


def doctor_report() -> dict[str, Any]:
    """Return the versions of the packages in use, the CPU, the size of the zoo, and which commands are ready."""
    report: dict[str, Any] = {
        "vitzoo": __version__,
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
    }
    for name in (*RUNTIME, *WITH_TORCH):
        try:
            report[name] = version(name)
        except PackageNotFoundError:
            report[name] = "not installed"
    missing = [name for name in RUNTIME if report[name] == "not installed"]
    missing_for_torch = missing + [name for name in WITH_TORCH if report[name] == "not installed"]
    report["cpu"] = _cpu()
    if not {"numpy", "onnx", "onnxruntime"} & set(missing):
        report["int8"] = _int8()
    report["zoo"] = f"{len(variants())} variants"
    report["list, show, predict"] = f"missing: {', '.join(missing)}" if missing else "ready"
    report["create, export, verify"] = (
        f"missing: {', '.join(missing_for_torch)} ({install_command(missing_for_torch[0])})" if missing_for_torch else "ready"
    )
    if other := other_distribution():
        report["conflict"] = (
            f"the installed distribution {other} is another project, and not this one: run `pip uninstall {other}`, then "
            "`pip install --force-reinstall --no-deps .` in a checkout, because both may have written the package vit_zoo"
        )
    return report


def other_distribution() -> str | None:
    """Return the name of an installed distribution that is or may be taken for this one, or None.

    It is called vit-zoo, or has a package vit_zoo too.
    """
    for distribution in distributions():
        name = distribution.name.lower().replace("_", "-")
        packages = distribution.read_text("top_level.txt")
        # a RECORD has a line for each file; packages_distributions() takes seconds to parse all of them
        has_ours = "vit_zoo" in packages.split() if packages else "\nvit_zoo/" in f"\n{distribution.read_text('RECORD') or ''}"
        if name == "vit-zoo" or (has_ours and name not in OURS):
            return name
    return None


def _cpu() -> str:
    from vit_zoo.parity.cpu import features

    known = features()
    if known is None:
        return "not reported by this system"
    name, extensions = known
    return f"{name}: {', '.join(extensions) or 'no AVX2'}"


def _int8() -> str:
    from vit_zoo.parity.cpu import saturates

    if saturates():
        return (
            "onnxruntime adds pairs of products in 16 bits on this CPU, which can saturate: an int8 file is sure to compute the "
            "same as on other CPUs only if `vitzoo show FILE` reports it as proven"
        )
    return "onnxruntime adds products in 32 bits on this CPU: sums are exact"
