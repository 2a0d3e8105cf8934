"""``python -m hwnas``, and the command ``hwnas``."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C is one line also while its modules are still being imported."""
    try:
        from hwnas.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues where it stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
