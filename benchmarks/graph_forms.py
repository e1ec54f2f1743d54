"""Forms of the same ViT's graph in onnxruntime, timed in turn in one process: operators, opsets, and where pixels are normalised.

python benchmarks/graph_forms.py [--model vit_b16] [--rounds 15] [--threads 1]

Each form is compared with the file as it is exported by default, in the same run. The weights are random.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
from measure import this_machine
from onnx import numpy_helper

import vit_zoo
from vit_zoo.model.config import ModelConfig

FORMS = {
    "default (opset 20)": {},
    "opset 17": {"opset": 17},
    "opset 23, one operator for attention": {"opset": 23},
    "opset 23, attention of 4-D values": {"opset": 23},  # changed below
    "--batch 1": {"batch": 1},
    "--operators core": {"operators": "core"},
    "--batch 1 --operators core": {"batch": 1, "operators": "core"},
    "raw images": {"include": ["preprocess"]},
    "raw images, normalised in the patch projection": {"include": ["preprocess"]},  # changed below
}
BASE = {
    "raw images, normalised in the patch projection": "raw images",
    "opset 23, attention of 4-D values": "opset 23, one operator for attention",
}


def fold_normalisation(model: onnx.ModelProto, config: ModelConfig) -> None:
    """Move mean and std from the pixels into the weight and the bias of the patch projection."""
    graph, spec = model.graph, config.spec
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = {node.output[0]: node for node in graph.node}
    transpose = nodes["pixel_values"]
    sub = nodes[transpose.input[0]]
    mul = nodes[sub.input[0]]
    scale, shift = (numpy_helper.to_array(constants[node.input[1]]) for node in (mul, sub))
    transpose.input[0] = mul.input[0]
    graph.node.remove(sub)
    graph.node.remove(mul)
    weight, bias = constants["patch_embed.proj.weight"], constants["patch_embed.proj.bias"]
    matrix = numpy_helper.to_array(weight).reshape(spec.dim, spec.channels, -1)
    moved = numpy_helper.to_array(bias) - np.einsum("ocp,c->o", matrix, shift)
    bias.CopyFrom(numpy_helper.from_array(moved.astype("<f4"), bias.name))
    scaled = (matrix * scale[:, None]).reshape(spec.dim, -1)
    weight.CopyFrom(numpy_helper.from_array(scaled.astype("<f4"), weight.name))


def separate_heads(model: onnx.ModelProto, config: ModelConfig) -> None:
    """Put a Reshape and a Transpose around each input of Attention, and behind its output."""
    graph, spec = model.graph, config.spec
    shape = numpy_helper.from_array(np.array([0, 0, spec.heads, spec.dim_head], np.int64), "split")
    merged = numpy_helper.from_array(np.array([0, 0, spec.heads * spec.dim_head], np.int64), "merged")
    graph.initializer.extend([shape, merged])
    nodes = []
    for node in graph.node:
        if node.op_type != "Attention":
            nodes.append(node)
            continue
        for i, name in enumerate(list(node.input)):
            a, b = f"{node.name}/in{i}", f"{node.name}/heads{i}"
            nodes += [
                onnx.helper.make_node("Reshape", [name, "split"], [a]),
                onnx.helper.make_node("Transpose", [a], [b], perm=[0, 2, 1, 3]),
            ]
            node.input[i] = b
        out = node.output[0]
        node.output[0] = f"{out}/heads"
        del node.attribute[:]
        nodes += [
            node,
            onnx.helper.make_node("Transpose", [f"{out}/heads"], [f"{out}/rows"], perm=[0, 2, 1, 3]),
            onnx.helper.make_node("Reshape", [f"{out}/rows", "merged"], [out]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_b16")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    given = parser.parse_args()
    model = vit_zoo.create(given.model)
    config = model.config
    sessions, nodes, outputs = {}, {}, {}
    random = np.random.default_rng(0)
    pixels = random.normal(size=(1, config.spec.channels, *config.spec.image_size)).astype("<f4")
    raw = random.integers(0, 256, (1, *config.spec.image_size, config.spec.channels), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for name, options in FORMS.items():
            (done,) = vit_zoo.export(model, out=Path(folder) / "a.onnx", verify=False, force=True, **options)
            proto = onnx.load(done.path)
            if name == "raw images, normalised in the patch projection":
                fold_normalisation(proto, config)
            if name == "opset 23, attention of 4-D values":
                separate_heads(proto, config)
            session_options = onnxruntime.SessionOptions()
            session_options.intra_op_num_threads = given.threads
            session = onnxruntime.InferenceSession(proto.SerializeToString(), session_options)
            feed = {session.get_inputs()[0].name: raw if "image" in name else pixels}
            sessions[name], nodes[name] = (session, feed), len(proto.graph.node)
            outputs[name] = session.run(None, feed)[0].astype("<f8")
    times: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(given.rounds):
        for name, (session, feed) in sessions.items():
            begun = time.perf_counter()
            session.run(None, feed)
            times[name].append(time.perf_counter() - begun)
    rows = {}
    for name in FORMS:
        base = BASE.get(name, "raw images" if name == "raw images" else next(iter(FORMS)))
        ratio = median(a / b for a, b in zip(times[name], times[base], strict=True))
        far = float(np.abs(outputs[name] - outputs[base]).max() / np.abs(outputs[base]).max())
        rows[name] = {
            "nodes": nodes[name],
            "milliseconds": 1e3 * median(times[name]),
            "against": base,
            "ratio": ratio,
            "difference": far,
        }
        print(
            f"{name:48} {nodes[name]:4} nodes {rows[name]['milliseconds']:7.1f} ms  {ratio:.3f}x of {base}, difference {far:.1e}"
        )
    machine = this_machine()
    print(machine["cpu"], f"{given.threads} threads")
    if given.json:
        given.json.write_text(
            json.dumps({"machine": machine, "threads": given.threads, "model": given.model, "forms": rows}, indent=2) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
