"""Test that transformers 4 and optimum-onnx load what `vitzoo publish` makes. They need an environment of their own:

    python -m venv older && older/bin/pip install -r benchmarks/older-clients.txt
    python benchmarks/older_clients.py older/bin/python > benchmarks/results/older_clients.json

The repositories are those of `tests/support/published.py`, on a local Hub. The result contains relative differences.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import numpy as np  # noqa: E402

from support import hub_environment  # noqa: E402
from support.loopback_hub import Hub  # noqa: E402
from support.published import MODELS, Published, relative, repo_of  # noqa: E402

VERSIONS = """
import json, importlib.metadata as m
print(json.dumps({name: m.version(name) for name in ("transformers", "optimum-onnx", "onnxruntime", "torch", "huggingface-hub")}))
"""


def main(python: str) -> None:
    hub_environment.set_up()
    versions = json.loads(subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout)
    with tempfile.TemporaryDirectory() as place, Hub(hub_environment.HUB_PORT) as hub:
        published = Published(hub, Path(place))
        jobs = []
        names = ("vit", "distilled", "dinov2", "registers", "siglip")
        for name in names:
            *_, auto, _, values = MODELS[name]
            published.publish(name)
            places = {"input": f"{place}/{name}.npy", "output": f"{place}/{name}.npz"}
            jobs.append({"repo": repo_of(name), "auto": auto, "values": values, **places})
        environment = {key: value for key, value in published.environment.items() if key != "PYTHONPATH"}
        script = TESTS / "clients" / "of_older_python.py"
        subprocess.run([python, script], input=json.dumps(jobs), env=environment, text=True, check=True, stdout=sys.stderr)
        found = {}
        for name in names:
            auto = MODELS[name][2]
            given, wanted = np.load(f"{place}/{name}.npz"), published.wanted[name]
            differences = {key: float(f"{relative(given[key], wanted[key if key in wanted else 'logits']):.2g}") for key in given}
            assert max(differences.values()) <= 1e-5, (name, differences)
            found[name] = {"class": auto, "relative differences": differences}
    print(json.dumps({"versions": versions, "models": found}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1])
