"""The command line: one typed function a command."""

from hwnas.cli.main import main

__all__ = ["main"]
