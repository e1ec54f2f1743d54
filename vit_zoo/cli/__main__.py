"""`python -m vit_zoo.cli` is `vitzoo`."""

from vit_zoo.cli.entry_point import main

main()
