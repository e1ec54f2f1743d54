"""Int8 features of this machine's CPU, and whether onnxruntime's products of uint8 and int8 saturate on it."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FEATURES = {  # each with its flags in /proc/cpuinfo
    "AVX2": {"avx2"},
    "AVX512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "AMX": {"amx_int8"},
    "dot product": {"asimddp"},  # Arm
}


def features() -> tuple[str, tuple[str, ...]] | None:
    """Return the CPU's name and those of `FEATURES` that it has, or None where the system has no /proc/cpuinfo."""
    if not CPUINFO.is_file():
        return None
    fields: dict[str, str] = {}
    for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", "unnamed"), tuple(name for name, names in FEATURES.items() if names & flags)


def saturates() -> bool:
    """Return whether onnxruntime cuts off 255 * 127 + 255 * 127, as it does where it adds two products in 16 bits."""
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.full((4, 16), 127, np.int8), "w")
    inputs = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])
    sums = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "pairs", [inputs], [sums], [weights])
    model = helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return bool((session.run(None, {"x": np.full((1, 4), 255, np.uint8)})[0] != 4 * 255 * 127).any())
