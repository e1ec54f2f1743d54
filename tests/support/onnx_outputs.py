"""Outputs of a model in onnxruntime, and the tolerance against torch's."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from vit_zoo.files import Staged
from vit_zoo.files.pickles import tensors_of
from vit_zoo.graph.build import build
from vit_zoo.graph.options import GraphOptions
from vit_zoo.graph.write import write_inline

OPSETS = (17, 20, 23)
TOLERANCE = 1e-5  # relative to the largest value; measured: at most 1.5e-6, a tanh for an exact GELU 5e-5 or more


def relative(found, wanted) -> float:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def onnx_outputs(model, images, opset, folder, outputs=()):
    """The outputs of onnxruntime for the model's graph, after onnx's full check of the file."""
    graph = build(model.spec, tensors_of(model.state_dict(), where="model"), GraphOptions(opset=opset, outputs=outputs))
    with Staged(folder / "model.onnx") as staged:
        write_inline(graph, staged, {"vit_zoo.export": "{}"})
        staged.commit()
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    session = ort.InferenceSession(folder / "model.onnx")
    return dict(zip(graph.outputs, session.run(None, {"pixel_values": images.numpy()}), strict=True))
