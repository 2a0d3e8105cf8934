"""Beside the exact peak of feature maps and the size of weights: what ONNX Runtime adds to its process, as information.

    python benchmarks/peak_memory.py      # prints, and stores the table in benchmarks/results/

ONNX Runtime keeps weights, packed copies of them, its plan of buffers and its code in the same process, so its figure
is larger; what is compared is whether the two grow alike.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from hwnas.export.onnx_file import to_onnx
from hwnas.latency.profile import profile
from hwnas.latency.table import load_device
from hwnas.objectives.memory import MODEL_SIZE, PEAK_MEMORY
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout

OUT = Path(__file__).resolve().parent / "results" / "peak_memory.txt"
RECIPE, NETWORKS = "ofa-mbv3-w1.0", 10


def main() -> None:
    """Measure, print and store."""
    layout = make_layout(load_recipe(RECIPE).supernet)
    archs = layout.space.sample(np.random.default_rng(0), NETWORKS)
    device = load_device("x86-server-cpu")  # fp32, as the files are
    peaks = PEAK_MEMORY.compile(layout, device).of_archs(archs)
    sizes = MODEL_SIZE.compile(layout, device).of_archs(archs)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{arch.key}.onnx" for arch in archs]
        for arch, path in zip(archs, paths, strict=True):
            channels, size_px, _ = layout.input_shape(arch)
            to_onnx(layout.build_subnet(arch).eval(), channels, size_px, path)
        # One process each: a process that has freed memory takes it again without growing.
        found = [profile(path, sessions=1, session_s=0.1, time_limit_s=0) for path in paths]
    ort = np.array([1024 * (m.peak_memory_mb or 0.0) for m in found])
    lines = [
        f"Feature maps and weights of {NETWORKS} networks of {RECIPE} in fp32, KiB (peak_memory.py)",
        f"{'network':<14}{'px':>5}{'peak_memory':>13}{'model_size':>12}{'sum':>9}{'ONNX Runtime':>14}{'ratio':>7}",
    ]
    for i in np.argsort(peaks + sizes):
        total = peaks[i] + sizes[i]
        lines.append(
            f"{archs[i].key:<14}{archs[i].int('resolution'):>5}{peaks[i]:>13.0f}{sizes[i]:>12.0f}{total:>9.0f}"
            f"{ort[i]:>14.0f}{ort[i] / total:>7.2f}"
        )
    lines.append(
        f"rank correlation of the sum with ONNX Runtime's figure {spearmanr(peaks + sizes, ort).statistic:.2f}"
    )
    text = "\n".join(lines) + "\n"
    print(text)
    OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
