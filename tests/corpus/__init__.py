"""Corpus of bad files: a table of hostile inputs, the commands that read them, and a runner that checks what the commands do.

From the repository's root, with the test environment's Python:

    python -m tests.corpus                      every entry, each command in a process of its own
    python -m tests.corpus --only 'onnx/loop*'  entries by name
    python -m tests.corpus --fork               all commands as forks of one process, which has imported the libraries: quick
    python -m tests.corpus --make FOLDER        only write the files

The files are made by the tables of this package, always the same; nothing is downloaded. See `runner` for what is checked.
"""
