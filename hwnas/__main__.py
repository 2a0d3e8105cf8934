"""``python -m hwnas``."""

from hwnas.cli import main

main()
