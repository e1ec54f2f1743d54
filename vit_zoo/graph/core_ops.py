"""Operators that compilers for phones and neural processors have: no LayerNormalization, Gelu, Erf or Attention, rank 4 at most.

`core` derives such operations from those of any precision. What is decomposed is computed to float32's rounding, so that the
same tolerances hold.
"""

from __future__ import annotations

import math

from vit_zoo.graph.onnx_ops import OnnxOps
from vit_zoo.graph.values import Scope, Value

# The exact GELU is x Phi(x) = x sigmoid(x g(x^2)), where g is smooth. Here it is a polynomial in x^2 / 27, the one whose largest
# error of x Phi(x) for x^2 up to 27 is smallest, 6.7e-8. Beyond, it grows, and the sigmoid is 0 or 1 to float32's rounding. Its
# coefficients are of size 1, so that it can be computed in float16 too.
GELU_RANGE = 27.0
GELU = (1.59576843, 1.96205114, -0.0482999201, -2.17461548, 4.21882167, -3.82985239, 1.39922017)  # from the constant on


class CoreOps(OnnxOps):
    """The operations in core operators."""

    @property
    def narrow(self) -> bool:
        return True

    @property
    def fuses_attention(self) -> bool:
        return False

    def act(self, x: Value, name: str) -> Value:
        if name == "gelu":
            return self._exact_gelu(x)
        return self.tanh_gelu(x) if name == "gelu_tanh" else super().act(x, name)

    def _norm(self, m: Scope, x: Value, eps: float) -> Value:
        """Add a norm over the last axis as separate operators.

        The square is a Mul: of a Pow onnxruntime makes a LayerNormalization again, before it asks a device what that supports.
        """
        centred = self.node("Sub", x.name, self.mean_over(x.name, -1, keep=True))
        variance = self.mean_over(self.node("Mul", centred, centred), -1, keep=True)
        deviation = self.node("Sqrt", self.node("Add", variance, self.float_(eps)))
        scaled = self.node("Mul", self.node("Div", centred, deviation), self.float_weight(f"{m.path}.weight"))
        if f"{m.path}.bias" in self.tensors:
            scaled = self.node("Add", scaled, self.float_weight(f"{m.path}.bias"))
        return Value(scaled, x.shape, x.flat)

    def _rms_norm(self, m: Scope, x: Value, eps: float) -> Value:
        square = self.mean_over(self.node("Mul", x.name, x.name), -1, keep=True)
        scaled = self.node("Div", x.name, self.node("Sqrt", self.node("Add", square, self.float_(eps))))
        return self._like(x, "Mul", scaled, self.float_weight(f"{m.path}.weight"))

    def _neighbours(self, x: Value) -> tuple[str, str]:
        """Slices along an axis of pairs, because not every compiler has Slice with steps."""
        (b, t), (n, e) = x.shape[:2], map(int, x.shape[2:])
        pairs = self.reshape(x.name, t, n * e // 2, 2, batch=b)
        first, second = self.results("Split", 2, pairs, self.ints(1, 1), axis=-1)
        return self.reshape(first, t, n, e // 2, batch=b), self.reshape(second, t, n, e // 2, batch=b)

    def _exact_gelu(self, x: Value) -> Value:
        part = self.node("Mul", x.name, self.float_(1 / math.sqrt(GELU_RANGE)))
        square = self.node("Mul", part, part)
        highest, *others = reversed(GELU)
        g = self.node("Mul", square, self.float_(highest))
        for i, coefficient in enumerate(others):
            g = self.node("Mul", g, square) if i else g
            g = self.node("Add", g, self.float_(coefficient))
        return self._like(x, "Mul", x.name, self.node("Sigmoid", self.node("Mul", x.name, g)))


def core(ops: type[OnnxOps]) -> type[OnnxOps]:
    """Return operations in core operators: those of a precision, with what `CoreOps` replaces."""
    return type(f"Core{ops.__name__}", (CoreOps, ops), {})
