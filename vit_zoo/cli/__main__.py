"""Entry point of `python -m vit_zoo.cli`, which runs `vitzoo`."""

from vit_zoo.cli import main

main()
