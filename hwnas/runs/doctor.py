"""What does this machine offer, and how far can its timings be trusted?"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from hwnas.latency.measure import MeasureConfig, measure, reference_model
from hwnas.latency.time_onnx import device_name
from hwnas.runs.manifest import package_versions

OPTIONAL = {
    "lightgbm": "lightgbm",
    "tensorboard": "tensorboard",
    "kornia": "kornia",
    "datasets": "datasets",
    "qai_hub": "qai-hub",
    "optuna": "optuna",
    "mlflow": "mlflow",
    "openvino": "openvino-ir",
    "litert_torch": "litert",
}

PROVIDERS = {
    "CUDAExecutionProvider": "gpu",
    "OpenVINOExecutionProvider": "openvino",
    "QNNExecutionProvider": "qnn",
}
"""Execution providers by the extra that brings them."""


def doctor() -> dict[str, Any]:
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
        "providers not installed": _missing_providers(onnxruntime.get_available_providers()),
        "timing noise": noise_floor(),
        "free disk": f"{free:.1f} GB" + (" (little: a run needs about 0.1 GB)" if free < 1 else ""),
        **package_versions(),
        "extras not installed": ", ".join(f"{e} (pip install 'hwnas[{e}]')" for e in missing) or "none",
    }


def noise_floor(sessions: int = 6) -> str:
    """Time two identical models as a search would and say how far apart they come out."""
    block = reference_model(1)
    config = MeasureConfig(sessions=sessions, burst_s=0.05)
    first, second = measure([block, block], config)
    apart = 100 * abs(first.median_ms / second.median_ms - 1)
    worst = max(apart, first.ci_percent, second.ci_percent)
    verdict = "quiet" if worst < 5 and first.stable else "noisy: close other programs before you measure"
    said = "".join(f"; {warning}" for warning in first.warnings)
    return f"two identical models differ by {apart:.1f} %, interval of a median {worst:.1f} % wide ({verdict}){said}"


def _missing_providers(available: list[str]) -> str:
    return ", ".join(f"{p} (pip install 'hwnas[{e}]')" for p, e in PROVIDERS.items() if p not in available) or "none"


def _governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if not path.exists():
        return "not readable (a virtual machine?); a fixed clock makes timings steadier"
    said = path.read_text(encoding="utf-8").strip()
    return said if said == "performance" else f"{said} (steadier timings: sudo cpupower frequency-set -g performance)"
