"""The process of one row of a benchmark: it opens a model in one runtime, runs it, and times it when it is asked to.

Its messages are those of `formats.session`. It has its own memory, whose peak it reports, and while another row is timed it
waits for the next message and takes no core.
"""

from __future__ import annotations

import json
import sys
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_zoo.formats.session import Session, SessionError, serve
from vit_zoo.formats.timing import seconds_of, warm_up

if TYPE_CHECKING:
    import torch

    from vit_zoo.formats.artifact import Array


class Runner(ABC):
    """An opened model with the input of its next calls."""

    @abstractmethod
    def hold(self, images: Array) -> None:
        """Keep images, in the type and the memory that the runtime takes, for the next calls."""

    @abstractmethod
    def call(self) -> Any:
        """Run the images that are held."""

    @abstractmethod
    def named(self, result: Any) -> dict[str, Array]:
        """Return the outputs in the result of a call as arrays."""

    def seconds(self) -> float:
        """Return the seconds of one call, after others to warm up."""
        warm_up(self.call)
        return seconds_of(self.call)


class OrtRunner(Runner):
    """An ONNX file in onnxruntime."""

    def __init__(self, path: Path, threads: int) -> None:
        self.opened = Session(path, threads=threads)
        self.input, self.session = self.opened.inputs[0], self.opened.session

    def hold(self, images: Array) -> None:
        half = self.input.type == "tensor(float16)"
        self.images = {self.input.name: images.astype("<f2") if half else images}

    def call(self) -> Any:
        return self.session.run(None, self.images)

    def named(self, result: Any) -> dict[str, Array]:
        return dict(zip((output.name for output in self.opened.outputs), result, strict=True))


class OpenvinoRunner(Runner):
    """An ONNX file in OpenVINO, on the CPU.

    OpenVINO computes in bfloat16 by itself where the CPU has instructions for it; here it computes in the row's precision.
    """

    def __init__(self, path: Path, threads: int, precision: str, names: list[str]) -> None:
        import openvino as ov
        from openvino import properties

        config = {
            properties.hint.inference_precision: ov.Type.bf16 if precision == "bf16" else ov.Type.f32,
            properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
            properties.inference_num_threads: threads,
        }
        compiled = ov.Core().compile_model(path, "CPU", config)
        self.names = names  # in the order of the graph; OpenVINO gives an output several names
        self.half = compiled.inputs[0].get_element_type() == ov.Type.f16
        self.request = compiled.create_infer_request()

    def hold(self, images: Array) -> None:
        self.images = [images.astype("<f2") if self.half else images]

    def call(self) -> Any:
        return self.request.infer(self.images, share_inputs=True)

    def named(self, result: Any) -> dict[str, Array]:
        return {name: result[i].copy() for i, name in enumerate(self.names)}


class TorchRunner(Runner):
    """A torch module or program, whose inputs have the type `dtype`."""

    def __init__(self, module: Any, dtype: torch.dtype, names: list[str]) -> None:
        self.module, self.dtype, self.names = module, dtype, names

    def hold(self, images: Array) -> None:
        import torch

        self.images = torch.from_numpy(images).to(self.dtype)

    def call(self) -> Any:
        import torch

        with torch.inference_mode():
            return self.module(self.images)

    def named(self, result: Any) -> dict[str, Array]:
        from vit_zoo.parity.module_reference import named_outputs

        values = list(named_outputs(result).items())
        names = self.names if len(self.names) == len(values) else [name for name, _ in values]
        return {name: value.float().numpy() for name, (_, value) in zip(names, values, strict=True)}


def open_torch(message: dict[str, Any]) -> TorchRunner:
    """Open a torch model: a module in eager mode, compiled, or a program in a file that the parent has just written."""
    import torch

    torch.set_num_threads(message["threads"])
    runtime, path = message["runtime"], message["path"]
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[message["precision"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody reads them here
        if runtime in ("torchscript", "pt2"):
            from vit_zoo.formats.programs import load_pt2, load_torchscript

            with Path(path).open("rb") as file:
                program = load_torchscript(file) if runtime == "torchscript" else load_pt2(file)
            return TorchRunner(program, dtype, message["names"])
        if message["foreign"] is not None:
            from vit_zoo.inference.bench.foreign import Foreign
            from vit_zoo.inference.bench.foreign_files import Output

            module: Any = Output(Foreign.parse(message["foreign"]).make(message["seed"])).to(dtype)
        else:
            from vit_zoo.api import load

            module = load(path, dtype=dtype).eval()
    return TorchRunner(torch.compile(module) if runtime == "compile" else module, dtype, message["names"])


def open_runner(message: dict[str, Any]) -> Runner:
    match message["runtime"]:
        case "ort":
            return OrtRunner(Path(message["path"]), message["threads"])
        case "openvino":
            return OpenvinoRunner(Path(message["path"]), message["threads"], message["precision"], message["names"])
        case _:
            return open_torch(message)


def peak_memory() -> int | None:
    """Return the peak memory of this process in bytes, or None where the system does not state it."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would begin at the peak of the parent, from which this process was forked
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def answer(runner: Any, message: dict[str, Any], arrays: list[Array]) -> tuple[Any, dict[str, Any], list[Array]]:
    """Do what a message asks for. Return the open runner, and the answer."""
    try:
        match message["do"]:
            case "open":
                return open_runner(message), {}, []
            case "run":
                runner.hold(arrays[0])
                outputs = runner.named(runner.call())
                return runner, {"names": list(outputs)}, list(outputs.values())
            case "hold":
                runner.hold(arrays[0])
                return runner, {}, []
            case "time":
                return runner, {"seconds": runner.seconds()}, []
            case _:
                return runner, {"peak": peak_memory()}, []
    except (SessionError, MemoryError):
        raise
    except Exception as error:  # each runtime has its own types
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise SessionError("failed", f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}") from None


def main() -> None:
    """Run the process. Its argument: the paths to import from, whether it writes files, and the process that it dies with."""
    _, writes, dies_with = json.loads(sys.argv[1])
    serve(answer, ("numpy",), writes=writes, dies_with=dies_with)
