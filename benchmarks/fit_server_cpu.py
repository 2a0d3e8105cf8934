"""Make the shipped profile ``x86-server-cpu`` from a table that was measured on a server.

    hwnas tables build --recipe ofa-mbv3-w1.0 --out table
    python benchmarks/fit_server_cpu.py table

The cost model is fitted to the whole networks of the table; its error is that of networks left out one at a time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hwnas.latency.device import load_profile
from hwnas.latency.fit import fit_networks
from hwnas.latency.table_networks import read_networks
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout

OUT = Path(__file__).resolve().parent.parent / "latency_tables" / "x86-server-cpu"


def main() -> None:
    """Fit, write the profile and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    conditions = load_profile(arguments.table).conditions or {}
    layout = make_layout(load_recipe(arguments.table / "recipe.yaml").supernet)
    known = read_networks(arguments.table, layout.space)
    made = fit_networks(
        layout, [k.arch for k in known], np.array([k.measured_ms for k in known]), "x86-server-cpu", "cpu",
        str(conditions["runtime"]), "fp32",
        f"measured by hwnas, {str(conditions['date'])[:7]}, on {conditions['device']}, {conditions['threads']} thread",
        "Apache-2.0", arguments.out, title="x86 server CPU (Intel Xeon with AVX-512), ONNX Runtime, 1 thread",
    )  # fmt: skip
    print(made.error)
    print("\n".join(made.notes))


if __name__ == "__main__":
    main()
