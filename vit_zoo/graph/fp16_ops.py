"""Half precision: matrix products in float16 and everything else in float32; or only the stored weights in bfloat16.

LayerNorm, softmax, GELU and the residual sums, where float16 loses digits or overflows, stay in float32: only inputs and
results of products are float16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vit_zoo.files import Stored
from vit_zoo.graph.onnx_ops import OnnxOps
from vit_zoo.graph.values import FLOAT, HALF, Scope


def halved(tensors: Mapping[str, Stored], dtype: str) -> dict[str, Stored]:
    """Round the matrices of linear layers to F16 or BF16, for F16 their biases too; other tensors are left unchanged."""
    matrices = {
        name.removesuffix(".weight") for name, tensor in tensors.items() if len(tensor.shape) > 1 and name.endswith(".weight")
    }
    suffixes = (".weight", ".bias") if dtype == "F16" else (".weight",)
    return {
        name: tensor.halved(dtype) if name.endswith(suffixes) and name.rpartition(".")[0] in matrices else tensor
        for name, tensor in tensors.items()
    }


class HalfOps(OnnxOps):
    """The operations with products in float16."""

    def product(self, m: Scope, x: str, start: int, stop: int, bias: str | None) -> str:
        weight = self.initializer(f"{m.path}.weight", start, stop, matrix=True)
        names = [self._half(x), weight, *([self._half(bias)] if bias else [])]
        return self._float32(self.node("Gemm", *names, transB=1))

    def matmul(self, x: str, y: str) -> str:
        return self._float32(self.node("MatMul", self._half(x), self._half(y)))

    def fused_attention(self, inputs: Sequence[str], heads: int) -> str:
        halves = (self._half(x) for x in inputs)
        return self._float32(self.node("Attention", *halves, q_num_heads=heads, kv_num_heads=heads, softmax_precision=FLOAT))

    def _half(self, x: str) -> str:
        return self.node("Cast", x, to=HALF)

    def _float32(self, x: str) -> str:
        return self.node("Cast", x, to=FLOAT)
