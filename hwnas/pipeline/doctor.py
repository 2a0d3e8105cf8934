"""What does this machine offer, and how far can its timings be trusted?"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.export.graph import trace
from hwnas.export.onnx_file import build_onnx
from hwnas.latency.measure import MeasureConfig, device_name, measure_onnx
from hwnas.pipeline.manifest import package_versions
from hwnas.supernet.blocks import MBConvSpec

OPTIONAL = {
    "lightgbm": "lightgbm",
    "tensorboard": "tensorboard",
    "kornia": "kornia",
    "ray": "ray",
    "datasets": "datasets",
}


def examine() -> dict[str, Any]:
    """Return facts by name: hardware, versions, execution providers, noise of timings, free disk, missing extras."""
    import onnxruntime

    free = shutil.disk_usage(Path.cwd()).free / 1e9
    missing = [extra for module, extra in OPTIONAL.items() if find_spec(module) is None]
    return {
        "processor": device_name(),
        "cores usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "governor": _governor(),
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "onnxruntime providers": ", ".join(onnxruntime.get_available_providers()),
        "timing noise": noise_floor(),
        "free disk": f"{free:.1f} GB" + (" (little: a run needs about 0.1 GB)" if free < 1 else ""),
        **package_versions(),
        "extras not installed": ", ".join(f"hwnas[{e}]" for e in missing) or "none",
    }


def noise_floor(sessions: int = 6) -> str:
    """Time the same model in fresh sessions and say how far their medians lie apart."""
    spec = MBConvSpec(24, 24, 14, 96, True, 5, 1, True, "hswish", True)
    model = build_onnx(trace(spec.build()), spec.in_channels, spec.in_size_px, 1)
    config = MeasureConfig(time_limit_s=0.3)
    medians = np.array([measure_onnx(model, config).median_ms for _ in range(sessions)])
    spread = 100 * float(np.ptp(medians) / np.median(medians))
    verdict = "quiet" if spread < 5 else "noisy: close other programs before you measure"
    return f"{spread:.1f} % between {sessions} sessions of one block ({verdict})"


def _governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text(encoding="utf-8").strip() if path.exists() else "not readable"
