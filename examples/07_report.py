"""Write the report of a run: one HTML file that works offline, and a picture of the fronts."""

import sys
from pathlib import Path

import hwnas


def main(folder: str = "runs/example") -> Path:
    """Return the path of the report."""
    path = hwnas.open_run(folder).report()
    print(path)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
