"""Command `selfcheck`: check on this machine, without the model, that an exported file computes what it states."""

from __future__ import annotations

from functools import partial

import click

from vit_zoo.cli.completion import complete_model, words
from vit_zoo.cli.options import limits
from vit_zoo.cli.output import Output, with_output
from vit_zoo.errors import CheckFailed


@click.command()
@click.argument("artifact", metavar="FILE", shell_complete=complete_model)
@click.option(
    "--provider",
    metavar="NAME",
    shell_complete=words("cpu", "cuda", "tensorrt", "coreml", "dml", "openvino", "qnn", "webgpu", "xnnpack"),
    help="Execution provider of onnxruntime, such as cuda or CoreMLExecutionProvider (default: cpu).",
)
@click.option("--threads", type=click.IntRange(1), metavar="INTEGER", help="Number of onnxruntime threads.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="RELATIVE",
    help="Relative difference to allow, for a device of another precision (default: what the file states).",
)
@partial(
    limits,
    time="Time that opening the file, or one run, may take (default: 15, and more by its size).",
    memory="Memory that running the file may take (default: by its size).",
)
@with_output
def selfcheck(
    artifact: str, provider: str | None, threads: int | None, tolerance: float | None, time_limit: float | None,
    memory_limit: float | None, output: Output,
) -> None:  # fmt: skip
    """Check on this machine that a file computes what it did when it was exported.

    FILE is an ONNX file that `vitzoo export` wrote and verified. It contains a recipe for two test images, and what its outputs
    must be for them, so that neither torch nor the model is needed. If an output differs, the exit code is 3, and the output
    and its difference are named.

    docs/selfcheck.md describes the format, and standalone programs for Python, JavaScript and C++.

    \b
    vitzoo selfcheck vit_digits.onnx
    vitzoo selfcheck vit_b16_fp16.onnx --provider cuda
    """
    from vit_zoo.self_check.check import selfcheck as check

    result = check(
        artifact, provider=provider, threads=threads, tolerance=tolerance, time_limit=time_limit, memory_limit=memory_limit
    )
    if not result.ok:
        if not output.json and len(result.faults) > 1:
            output.result(None, lambda: "\n".join(result.faults))
        cause = f"fails its self-check in {result.runtime}: {result.summary()}"
        raise CheckFailed(cause, where=artifact, details={"selfcheck": result.model_dump(mode="json")})

    def text() -> str:
        lines = [str(each) for each in result.outputs] if output.verbose else []
        lines += [f"not checked: {name}" for name in result.left_out]
        return "\n".join([*lines, f"{artifact} passes its self-check in {result.runtime}: {result.summary()}"])

    output.result(result, text)
