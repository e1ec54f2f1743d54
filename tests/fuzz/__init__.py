"""Fuzzing of every reader: valid small inputs are changed at random, and the command line must refuse them or work.

From the repository's root, with the test environment's Python:

    python -m tests.fuzz --minutes 5                  all readers, five CPU-minutes
    python -m tests.fuzz --minutes 60 --jobs 2        the long run, 60 CPU-minutes in all: half an hour on two idle cores
    python -m tests.fuzz --minutes 2 --reader onnx_fields --seed 7
    python -m tests.fuzz --replay FOLDER              run one saved input again

Each case is made from the seed, the reader's name and its number, so that the same seed gives the same cases. A worker
process runs many cases, with limits of memory and time; it is restarted after a crash, and every few hundred cases. A case is
`ok`, `refused` (an error with an exit code of its own), or a fault: exit 1, an exception that is not ours, no end, too much
memory, lines of other libraries on stderr, or the death of the process. Faults are told apart by the exception's type and the
innermost line of vit_zoo; the first input of each is shrunk and written to the folder of `--out`.

`inputs/` has the smallest inputs of former faults, which `test_inputs.py` replays.
"""
