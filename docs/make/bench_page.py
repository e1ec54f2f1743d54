"""The page about `vitzoo bench`, with the table of its last recorded run."""

from __future__ import annotations

from plots import RESULTS

from vit_zoo.inference.bench.result import Bench, cells_of, notes_on

PAGE = "bench.md"
COMMAND = "vitzoo bench vit_digits vit_ti16 --random --precision fp32,int8-dynamic"
TEXT = """# Compare speeds

<!-- made by docs/make from benchmarks/results/bench.json -->

`vitzoo bench` measures exported files and models against each other on your CPU: latency, throughput, memory, and file size.
Beside every speed it shows parity, since a fast file that computes something else is no gain.

```sh
vitzoo export vit_digits --onnx --precision fp32,int8-weights
vitzoo bench vit_digits.onnx vit_digits_int8_weights.onnx --runtimes ort --batch 1,8 --rounds 20
```

A target is an exported ONNX file, by any tool; a model, which is exported to a temporary folder for the runtimes that need a
file; or an architecture of another library with random weights: `timm:NAME`, `torchvision:NAME`, `transformers:NAME`. Each
target in each runtime and precision, batch size and number of threads is a row:

| `--runtimes` | runs | precisions |
|---|---|---|
| `eager` | the torch module | `fp32`, `fp16`, `bf16`: all weights and values in this type |
| `compile` | the module after `torch.compile`; needs a C++ compiler, and minutes for the first call | the same |
| `torchscript`, `pt2` | programs of `torch.jit.trace` and `torch.export` | `fp32` |
| `ort` | an ONNX file in onnxruntime | all of [Precision](precision.md); of other libraries' models `fp32` |
| `openvino` | the same ONNX file in OpenVINO, computing in the row's precision | the same |

By default, all runtimes are used that are installed. An exported file has a precision of its own, and runs in `ort` and
`openvino`.

## An example

`{command}`, which took two minutes:

{table}

{notes}

![Median latency of each row against its peak memory and the size of its file](bench.svg)

`--plot FILE` draws this picture (`pip install matplotlib`), `--csv FILE` writes the rows with all figures, and `--json`
prints them with those of the parity checks.

## How it measures

* Every row has a process of its own, with its own threads and its own memory. All processes stay open. In each round every
  row is measured once, in a shuffled order with a fixed seed, so that other work on the machine affects all rows alike. A
  measurement is one call, after others for at least 20 ms to warm up.
* There are 100 rounds (`--rounds`), or as many as begin within 60 seconds (`--seconds`), but at least 6. Making, opening and
  checking the rows takes extra time.
* The intervals of the median and the 95th percentile hold with 95 % confidence for every distribution of the times. They lie
  between two of the sorted measurements, which the binomial distribution determines (order statistics), as in
  `scipy.stats.quantile_test`. An interval of the 95th percentile has an upper end from 72 rounds on; `?` stands for the
  missing one.
* The ratio is the median of each round's ratio: the time for an image, relative to that of the first row in the same round.
  On a shared machine trust the ratios, not the times.
* Peak memory is that of the complete process: the interpreter, the libraries, the model, and its runs.

## Parity

The outputs of each row are compared with the model in float32, in batches of the row's size, with [the tolerance of its
precision](verify.md). An int8 row is measured on crops of photographs, and its ratio of signal to noise is shown. A row that
fails is shown as `FAILED`, without a speed; one that its runtime cannot run, as `NOT RUN`. In both cases the reason is
printed, the other rows are measured, and the exit code is 3.

The reference of an exported file is the spec and the weights in it, which must also match their hash. For an int8 file it is
another target with the weights that it was made of. `--against MODEL` names another reference. A file by another tool is
compared with itself without onnxruntime's optimiser, and a model of another library with itself in eager mode.

In Python, `vit_zoo.bench` returns the rows:

```python
import vit_zoo

result = vit_zoo.bench("vit_digits.onnx", runtimes="ort", threads=1, rounds=10)
print(result)
for row in result.rows:
    print(row.runtime, row.p50.value, row.parity.ok)
```
"""


def pages() -> dict[str, str]:
    """Return the page, with the table of the run that `benchmarks/README.md` describes."""
    result = Bench.model_validate_json((RESULTS / "bench.json").read_text())
    notes = "\n".join(f"* {note}".replace("* *", "* \\*") for note in (*notes_on(result), *str(result.machine).split("\n")))
    return {PAGE: TEXT.format(command=COMMAND, table=_table(result), notes=notes)}


def _table(result: Bench) -> str:
    heads, *rows = cells_of(result)
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|" + "--:|" * (len(heads) - 3)]
    return "\n".join([*lines, *("| " + " | ".join(row).replace("*", "\\*") + " |" for row in rows)])
