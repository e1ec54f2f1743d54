"""Check on this machine that an ONNX file made by vitzoo computes what it did when it was exported.

python selfcheck.py model.onnx [PROVIDER]    needs numpy and onnxruntime; the exit code is 3 if an output differs
"""

import json
import math
import sys

import numpy as np
import onnxruntime


def hashed(x):
    x = x.astype(np.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def images(shape, kind):  # noise, and ramps that differ between channels and axes: 2 c H W
    c, h, w = shape[1:] if kind == "float32" else (shape[3], shape[1], shape[2])
    noise = (hashed(np.arange(c * h * w)) >> np.uint32(24)).reshape(c, h, w)
    k, y, x = np.ogrid[:c, :h, :w]
    both = np.stack([noise, ((k + 1) * x * 256 // w + (k + 2) * y * 256 // h) % 256])
    return ((both - 128.0) / 64).astype(np.float32) if kind == "float32" else np.moveaxis(both, 1, -1).astype(np.uint8)


def difference(values, wanted, image):  # the largest, relative to the largest value of the output
    x, places = values.reshape(-1).astype(np.float64), np.arange(values.size)
    expected, scale = np.array(wanted["values"][image]), wanted["largest"][image] or 1.0
    if len(expected) < x.size:
        places = hashed(np.arange(len(expected)) + 2**31).astype(np.int64) % x.size
    weights = (hashed(np.arange(x.size) + 2**30) >> np.uint32(24)) / 128.0 - 1
    norm, projection = math.sqrt(x @ x) - wanted["norm"][image], weights @ x - wanted["projection"][image]
    found = [*abs(x[places] - expected) / scale, *(abs(d) / scale / math.sqrt(x.size) for d in (norm, projection))]
    return max(found) if np.isfinite(found).all() else math.inf


session = onnxruntime.InferenceSession(sys.argv[1], providers=sys.argv[2:] or ["CPUExecutionProvider"])
if set(sys.argv[2:]) - set(session.get_providers()):
    sys.exit(f"onnxruntime cannot use {sys.argv[2]} here")
check = json.loads(session.get_modelmeta().custom_metadata_map["vit_zoo.selfcheck"])
shape, given, failed = check["input"]["shape"], images(check["input"]["shape"], check["input"]["type"]), False
for first in range(2 if shape[0] == 1 else 1):
    rows = (np.arange(shape[0]) + first) % 2
    outputs = session.run([output["name"] for output in check["outputs"]], {check["input"]["name"]: given[rows]})
    for wanted, values in zip(check["outputs"], outputs):
        fits = list(values.shape) == wanted["shape"]
        far = max(difference(x, wanted, image) for x, image in zip(values, rows)) if fits else math.inf
        failed |= not far <= wanted["tolerance"]
        print(f"{wanted['name']}: {far:.1e}, allowed {wanted['tolerance']:.0e}{'' if far <= wanted['tolerance'] else '  FAILED'}")
sys.exit(3 if failed else 0)
