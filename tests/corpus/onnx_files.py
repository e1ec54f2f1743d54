"""Entries of bad ONNX files of other tools: each is shown, compared with a model, and run."""

from __future__ import annotations

from corpus.entry import FAILED, INPUT, REFUSED, Entry, Maker, command
from corpus.onnx_bombs import BOMBS, SIZES
from corpus.onnx_nodes import INPUTS, NODES
from corpus.onnx_storage import EXTERNAL, WIRE

# files of the list of 2026-11, which ended in exit 1, a hang or memory without a limit
FORMER = {
    "add_noinput", "const_complex", "const_empty", "const_nooutput", "const_type999", "const_undefined", "cos_8gb", "fn_laughs",
    "in_batch_4096", "in_batch_huge", "in_digits_axis", "in_neg_axis", "loop_fold", "loop_inf", "loop_mem", "matmul_bomb",
    "nodes_100k", "nodes_100k_wide", "nodes_20000_rev", "nodes_3000_rev", "out_opt_none", "out_scalar", "out_seq", "out_string",
    "random_normal", "in_axis_superscript", "scalar_empty", "scalar_string", "tanh_noinput", "hard_link", "symlink",
}  # fmt: skip

SLOW = {"matmul_bomb", "nodes_100k", "nodes_100k_wide", "nodes_20000_rev", "outputs_1000"}  # take seconds

AGAINST = "--against BASE/tiny"
PREDICT = "predict {} BASE/image.png --preprocess half"
# what may also be legal: small graphs, odd but runnable ones, and those whose odd part onnxruntime leaves out
LENIENT = {
    "onnx_bomb": {
        "loop_of_3", "if", "scan", "fn_one", "fn_1000", "random_small", "random_normal_like", "bernoulli", "dropout_training",
        "non_zero", "unique",
        "cos_unused", "conv_huge_pads", "sequence", "optional", "strings", "string_split", "einsum", "image_decoder",
        "range_by_0",
    },
    "onnx_size": set(SIZES),
    "onnx_input": set(INPUTS),
    "onnx_node": set(NODES),
    "onnx_wire": {"trailing", "trailing_zeros", "doubled", "unknown_fields_1m", "name_with_nul", "cut_0.99"},
    "onnx_external": set(),
}  # fmt: skip


def _entries(group: str, makers: dict[str, Maker], *, file: str = "m.onnx") -> list[Entry]:
    """Return the entries of a group: shown, compared with the model, and run."""
    found = []
    for name, make in makers.items():
        lenient = name in LENIENT[group]
        against = (0, INPUT, FAILED, REFUSED) if lenient else (FAILED, REFUSED) if group == "onnx_bomb" else (REFUSED,)
        runs = (0, INPUT, REFUSED) if lenient else (REFUSED,)
        commands = (
            command(f"show {file}", 0, REFUSED),
            command(f"verify {file} {AGAINST}", *against, session=True),
            command(PREDICT.format(file), *runs, session=True),
        )
        found.append(Entry(f"{group}/{name}", make, commands, name in FORMER, name in SLOW))
    return found


ENTRIES = [
    *_entries("onnx_bomb", BOMBS),
    *_entries("onnx_size", SIZES),
    *_entries("onnx_input", INPUTS),
    *_entries("onnx_node", NODES),
    *_entries("onnx_wire", WIRE),
    *_entries("onnx_external", EXTERNAL, file="m/m.onnx"),
]
