"""Client program: load repositories with transformers 4 and optimum-onnx, in an environment without vit_zoo.

stdin: a list of {repo, auto, input, output, values}; each output is an .npz of named arrays.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import torch

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    import transformers
    from optimum.onnxruntime import ORTModelForImageClassification

    for job in json.load(sys.stdin):
        images = torch.from_numpy(np.load(job["input"]))
        model, about = getattr(transformers, job["auto"]).from_pretrained(job["repo"], output_loading_info=True)
        assert not any(about[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), about
        with torch.inference_mode():
            given = model.eval()(pixel_values=images)
        found = {name: getattr(given, name).numpy() for name in job["values"]}
        if "logits" in job["values"]:
            session = ORTModelForImageClassification.from_pretrained(job["repo"], subfolder="onnx", file_name="model.onnx")
            found["optimum"] = session(pixel_values=images).logits.numpy()
        np.savez(job["output"], **found)
