"""`python -m vit_zoo.cli` is `vitzoo`."""

from vit_zoo.cli.edge import main

main()
