"""What the CPU at hand has for int8, and what onnxruntime's product of uint8 and int8 does on it."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FEATURES = {  # as Linux calls them
    "AVX2": {"avx2"},
    "AVX512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "AMX": {"amx_int8"},
    "dot product": {"asimddp"},  # Arm
}


def features() -> tuple[str, tuple[str, ...]] | None:
    """The CPU's name, and what it has of `FEATURES`; None where the system does not say."""
    if not CPUINFO.is_file():
        return None
    fields: dict[str, str] = {}
    for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", "unnamed"), tuple(name for name, any_of in FEATURES.items() if any_of & flags)


def saturates() -> bool:
    """Whether onnxruntime cuts off 255 * 127 + 255 * 127, which it does where two products are added in 16 bits."""
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.full((4, 16), 127, np.int8), "w")
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 4])
    sums = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "pairs", [given], [sums], [weights])
    model = helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return bool((session.run(None, {"x": np.full((1, 4), 255, np.uint8)})[0] != 4 * 255 * 127).any())
