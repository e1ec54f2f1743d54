"""Commands that are killed at every call that changes the disk, and at random moments; and the states that they leave.

From the repository's root, with the test environment's Python:

    python -m tests.kills                      every such call of every command
    python -m tests.kills --moments 50         and fifty random moments of each
    python -m tests.kills --only pull publish  commands with these words in their names

Each command runs in a fork of a process that has imported everything, so that a run takes a fraction of a second. A fork ends
itself by SIGKILL before its nth call of `os.rename`, `os.unlink`, `os.fsync` and the like, or is killed from outside.
"""
