"""Client program: load repositories of the Hub at HF_ENDPOINT with one client, and save the outputs.

stdin: the client, and a list of {repo, local, input, output}; each output is an .npz of named arrays.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def with_vit_zoo(job, images):
    import vit_zoo

    model = vit_zoo.load(f"hf-hub:{job['repo']}", check="full").eval()
    return {"value": model(images), **model.features(images, *job["values"])}


def with_timm(job, images):
    from support import peers

    found = {}
    for name, source in (("hub", f"hf-hub:{job['repo']}"), ("local", f"local-dir:{job['local']}")):
        model = peers.timm.create_model(source, pretrained=True).eval()
        found[name] = model(images)
    return found


def with_transformers(job, images):
    from support import peers

    model, about = getattr(peers.transformers, job["auto"]).from_pretrained(job["repo"], output_loading_info=True)
    assert not any(about[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), about
    given = model.eval()(pixel_values=images)
    return {name: getattr(given, name) for name in job["values"]}


def with_onnxruntime(job, images):
    import onnxruntime
    from huggingface_hub import hf_hub_download

    found = {}
    for suffix in ("", "_fp16", "_quantized"):
        session = onnxruntime.InferenceSession(hf_hub_download(job["repo"], f"onnx/model{suffix}.onnx"))
        for name, value in zip(job["values"], session.run(job["values"], {"pixel_values": images.numpy()}), strict=True):
            found[name + suffix] = torch.from_numpy(value)
    return found


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for job in asked["jobs"]:
        with torch.inference_mode():
            given = globals()[f"with_{asked['client']}"](job, torch.from_numpy(np.load(job["input"])))
        np.savez(job["output"], **{name: value.float().numpy() for name, value in given.items()})
