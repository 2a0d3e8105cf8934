"""Fit the cost models of the shipped device profiles to published measurements, and say how well they hold.

    python benchmarks/fit_cost_models.py            # fit, print, store the table in benchmarks/results/
    python benchmarks/fit_cost_models.py --write    # and rewrite cost_model and error of the profiles

Data: the folder named by HWNAS_SHARED (default ../shared), see its data/README.md. Every device is fitted
to 80 % of its networks and judged on the other 20 % (seed 0), beside two simpler models fitted to the same
80 %:

- FLOPs only: ``a + b * MACs`` of the whole network;
- per edge: NAS-Bench-201 only, a constant plus one coefficient for each of the 6 edges and each operator
  on it.

All fits minimise relative error. The constants of a cost model are not negative. NAS-Bench-201 entries
under 0.1 ms, and cells without a path from input to output, are disconnected networks and left out.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.optimize import nnls
from scipy.stats import spearmanr

from hwnas.export.op import Op, OpType
from hwnas.latency.cost_model import OP_TYPES, CostModel, op_features
from hwnas.latency.table import measured_range

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HWNAS_SHARED", ROOT.parent / "shared"))
SEED = 0
HELD_OUT = 0.2
SMALLEST_MS = 0.1
DISCONNECTED = "000000"

ONE, MACS, ELEMENTS = 0, 1, 2
"""Columns of `op_features`."""

# ------------------------------------------------------------------------------------ networks as operators

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Edges of a NAS-Bench-201 cell in the order of the code's digits."""


def prune_code(code: str) -> str:
    """Return the cell's code with edges set to 0 (none) that no path from node 0 to node 3 uses."""
    kept = list(code)
    while True:
        live = [e for e, digit in zip(EDGES, kept, strict=True) if digit != "0"]
        fed = {0} | {t for _, t in live}
        read = {3} | {s for s, _ in live}
        dead = [i for i, (s, t) in enumerate(EDGES) if kept[i] != "0" and (s not in fed or t not in read)]
        if not dead:
            return "".join(kept)
        for i in dead:
            kept[i] = "0"


def cell_ops(code: str, channels: int, size_px: int) -> list[Op]:
    """Return the operators of one NAS-Bench-201 cell as a runtime executes them.

    BN and ReLU are part of their convolution, skip connections cost nothing, dead edges do not exist, and a
    node with k inputs takes k - 1 additions.

    Args:
        code: six digits, one an edge: 0 none, 1 skip, 2 conv 1x1, 3 conv 3x3, 4 average pooling 3x3.
        channels: of every feature map in the cell.
        size_px: of every feature map in the cell.
    """
    same = (channels, channels, size_px, size_px)
    kinds = {
        "2": Op("conv", *same),
        "3": Op("conv", *same, 3),
        "4": Op("avg_pool", *same, 3, groups=channels),
    }
    code = prune_code(code)
    ops = [kinds[digit] for digit in code if digit in kinds]
    for node in (1, 2, 3):
        inputs = sum(digit != "0" for digit, (_, end) in zip(code, EDGES, strict=True) if end == node)
        ops += [Op("add", *same, n_inputs=2)] * max(inputs - 1, 0)
    return ops


def nb201_ops(code: str) -> list[Op]:
    """Return the operators of the whole NAS-Bench-201 network (C=16, N=5, 32 x 32 images, 10 classes)."""
    ops = [Op("conv", 3, 16, 32, 32, 3)]
    for stage in range(3):
        channels, size_px = 16 << stage, 32 >> stage
        if stage:
            before, larger = channels // 2, 2 * size_px
            ops += [
                Op("conv", before, channels, larger, size_px, 3, 2),
                Op("conv", channels, channels, size_px, size_px, 3),
                Op("avg_pool", before, before, larger, size_px, 2, 2, before),
                Op("conv", before, channels, size_px, size_px),
                Op("add", channels, channels, size_px, size_px, n_inputs=2),
            ]
        ops += 5 * cell_ops(code, channels, size_px)
    return [*ops, Op("global_avg_pool", 64, 64, 8, 1), Op("linear", 64, 10, 1, 1)]


def se_channels(mid: int) -> int:
    """Return the squeeze width of once-for-all: a quarter, made divisible by 8 (at most 10 % below)."""
    n = max(8, int(mid / 4 + 4) // 8 * 8)
    return n + 8 if n < 0.9 * mid / 4 else n


def mbconv_ops(
    in_channels: int, mid: int, out_channels: int, in_px: int, out_px: int, kernel_size: int, stride: int,
    *, expand: bool, skip: bool, se: bool, hswish: bool,
) -> list[Op]:  # fmt: skip
    """Return the operators of one MobileNetV3 block; ReLU is part of a convolution, h-swish is not."""
    ops: list[Op] = []
    if expand:
        ops.append(Op("conv", in_channels, mid, in_px, in_px))
        ops += [Op("hswish", mid, mid, in_px, in_px)] * hswish
    ops.append(Op("depthwise_conv", mid, mid, in_px, out_px, kernel_size, stride, mid))
    ops += [Op("hswish", mid, mid, out_px, out_px)] * hswish
    if se:
        ops += [
            Op("global_avg_pool", mid, mid, out_px, 1),
            Op("conv", mid, se_channels(mid), 1, 1),
            Op("conv", se_channels(mid), mid, 1, 1),
            Op("hsigmoid", mid, mid, 1, 1),
            Op("mul", mid, mid, out_px, out_px, n_inputs=2),
        ]
    ops.append(Op("conv", mid, out_channels, out_px, out_px))
    ops += [Op("add", out_channels, out_channels, out_px, out_px, n_inputs=2)] * skip
    return ops


def mobilenet_ops(version: int) -> list[Op]:
    """Return the operators of MobileNet V1 or V2 (width 1.0, 224 x 224, 1,000 classes), for checks."""
    ops = [Op("conv", 3, 32, 224, 112, 3, 2)]
    channels, size_px = 32, 112
    if version == 1:
        for out, stride in zip(
            (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024),
            (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
            strict=True,
        ):
            after = size_px // stride
            ops += [
                Op("depthwise_conv", channels, channels, size_px, after, 3, stride, channels),
                Op("conv", channels, out, after, after),
            ]
            channels, size_px = out, after
    else:
        for expand, out, repeats, first_stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):  # fmt: skip
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                ops += mbconv_ops(
                    channels, expand * channels, out, size_px, size_px // stride, 3, stride,
                    expand=expand > 1, skip=i > 0, se=False, hswish=False,
                )  # fmt: skip
                channels, size_px = out, size_px // stride
        ops.append(Op("conv", 320, 1280, 7, 7))
        channels = 1280
    return [*ops, Op("global_avg_pool", channels, channels, 7, 1), Op("linear", channels, 1000, 1, 1)]


def ofa_ops(resolution: int, depth: int, expand: int, kernel_size: int) -> list[Op]:
    """Return the operators of a once-for-all MobileNetV3 (w1.2) with the same choice in every block."""
    size_px = (resolution + 1) // 2
    ops = [Op("conv", 3, 24, resolution, size_px, 3, 2), Op("hswish", 24, 24, size_px, size_px)]
    ops += mbconv_ops(24, 24, 24, size_px, size_px, 3, 1, expand=False, skip=True, se=False, hswish=False)
    channels = 24
    for out, stride, se, hswish in (
        (32, 2, False, False), (48, 2, True, False), (96, 2, False, True), (136, 1, True, True),
        (192, 2, True, True),
    ):  # fmt: skip
        for block in range(depth):
            after = -(-size_px // stride) if block == 0 else size_px
            ops += mbconv_ops(
                channels, expand * channels, out, size_px, after, kernel_size, stride if block == 0 else 1,
                expand=True, skip=block > 0, se=se, hswish=hswish,
            )  # fmt: skip
            channels, size_px = out, after
    ops += [Op("conv", 192, 1152, size_px, size_px), Op("hswish", 1152, 1152, size_px, size_px)]
    ops += [Op("global_avg_pool", 1152, 1152, size_px, 1), Op("conv", 1152, 1536, 1, 1)]
    return [*ops, Op("hswish", 1536, 1536, 1, 1), Op("linear", 1536, 1000, 1, 1)]


# ------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Measured:
    """Networks (or blocks) with measured latencies."""

    what: str
    """In words, for the published error."""
    ops: list[list[Op]]
    ms: np.ndarray
    """``(n,)`` milliseconds."""
    codes: list[str] | None = None
    """NAS-Bench-201 codes, pruned; None for other networks."""
    whole: bool = True
    """Whole networks, so with the network's overhead; False for blocks."""


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of one gzipped CSV file of the shared data, every value as text."""
    with gzip.open(SHARED / "data" / name, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_nb201(file: str, column: str, *, dead_edges: bool = True) -> Measured:
    """Return the NAS-Bench-201 networks measured in ``column``, without disconnected cells.

    Args:
        file: of the shared data, under ``nasbench201``.
        column: latency in milliseconds.
        dead_edges: False leaves out cells with an edge that no path uses.
    """
    cells = {r["index"]: (r["code"], r["effective_code"]) for r in read_rows("nasbench201/nb201_accuracy.csv.gz")}
    codes, values = [], []
    for row in read_rows(f"nasbench201/{file}"):
        code, pruned = cells[row["index"]]
        if not row[column] or float(row[column]) < SMALLEST_MS or pruned == DISCONNECTED:
            continue
        if dead_edges or code == pruned:
            codes.append(pruned)
            values.append(float(row[column]))
    known = {code: nb201_ops(code) for code in set(codes)}
    what = f"NAS-Bench-201 networks, column {column}" + ("" if dead_edges else ", cells without dead edges")
    return Measured(what, [known[c] for c in codes], np.array(values), codes)


def read_note10() -> Measured:
    """Return the blocks of the once-for-all table of the Samsung Note10."""
    ops = []
    rows = read_rows("ofa/ofa_lut_note10_ms.csv.gz")
    for r in rows:
        in_px, channels, out_px, out = (int(r[k]) for k in ("hw_in", "cin", "hw_out", "cout"))
        if r["type"] == "expanded_conv":
            mid, kernel_size, stride = int(r["mid"]), int(r["kernel"]), int(r["stride"])
            flags = {"skip": r["idskip"] == "1", "se": r["se"] == "1", "hswish": r["hswish"] == "1"}
            ops.append(
                mbconv_ops(channels, mid, out, in_px, out_px, kernel_size, stride, expand=mid != channels, **flags)
            )
        elif r["type"] == "AvgPool2D":
            ops.append([Op("global_avg_pool", channels, out, in_px, 1)])
        elif r["type"] == "Logits":
            ops.append([Op("linear", channels, out, 1, 1)])
        else:
            kernel_size, stride = (3, 2) if r["type"] == "Conv" else (1, 1)
            conv = Op("conv", channels, out, in_px, out_px, kernel_size, stride)
            ops.append([conv, Op("hswish", out, out, out_px, out_px)])
    what = "blocks of the once-for-all table (OFA-MobileNetV3 w1.2, resolutions 160 to 224)"
    return Measured(what, ops, np.array([float(r["mean_ms"]) for r in rows]), whole=False)


def read_phone(column: str) -> Measured:
    """Return the MobileNetV3 blocks of nn-Meter's phone table, measured in ``column``."""
    ops, values = [], []
    for r in read_rows("block_tables/nnmeter_phone_block_lut_ms.csv.gz"):
        key = r["key"].split("_")
        if key[0] != "conv":
            continue
        px, channels, out, expand, stride = (int(part) for part in key[1:6])
        flags = {"skip": channels == out and stride == 1, "se": key[9] == "se", "hswish": True}
        mid, out_px = expand * channels, -(-px // stride)
        ops.append(mbconv_ops(channels, mid, out, px, out_px, int(key[8]), stride, expand=expand > 1, **flags))
        values.append(float(r[column]))
    return Measured(f"MobileNetV3 blocks of nn-Meter, column {column}", ops, np.array(values), whole=False)


# ----------------------------------------------------------------------------------------------- the models


@dataclass(frozen=True)
class Term:
    """One constant of a cost model: milliseconds a unit of one quantity, in operators of some types."""

    name: str
    quantity: int
    """`ONE` (an execution), `MACS` (a million multiply-adds) or `ELEMENTS` (a million elements moved)."""
    types: tuple[OpType, ...]
    cited_ms: float | None = None
    """Milliseconds a unit where the constant is cited; None: fitted."""


def sizes_by_type(networks: Sequence[Sequence[Op]]) -> np.ndarray:
    """Return ``(n, types, 3)`` sums of `op_features` over each network's operators of each type."""
    out = np.zeros((len(networks), len(OP_TYPES), 3))
    known: dict[int, np.ndarray] = {}
    for row, ops in enumerate(networks):
        if id(ops) not in known:
            types, sizes = op_features(ops)
            np.add.at(out[row], types, sizes)
            known[id(ops)] = out[row]
        else:
            out[row] = known[id(ops)]
    return out


def fit_terms(terms: Sequence[Term], data: Sequence[Measured]) -> tuple[float, np.ndarray]:
    """Fit the terms that are not cited, and the network's overhead, to relative error.

    Returns:
        The network's overhead and ``(len(terms),)`` constants, milliseconds; none is negative.
    """
    columns, known, ms, whole = [], [], [], []
    for d in data:
        sizes = sizes_by_type(d.ops)
        by_term = np.stack(
            [sizes[:, [OP_TYPES.index(t) for t in term.types], term.quantity].sum(axis=1) for term in terms],
            axis=1,
        )
        columns.append(by_term)
        known.append(by_term @ np.array([t.cited_ms or 0.0 for t in terms]))
        ms.append(d.ms)
        whole.append(np.full(len(d.ms), float(d.whole)))
    free = [i for i, t in enumerate(terms) if t.cited_ms is None]
    y = np.concatenate(ms)
    matrix = np.column_stack([np.concatenate(whole), np.concatenate(columns)[:, free]])
    solution, _ = nnls(matrix / y[:, None], (y - np.concatenate(known)) / y)
    constants = np.array([t.cited_ms or 0.0 for t in terms])
    constants[free] = solution[1:]
    return float(solution[0]), constants


OFA_MS = (9.9, 92.4)
"""Sums of the once-for-all table for its fastest and slowest network; there are no times of whole networks."""


def score(predicted_ms: np.ndarray, measured_ms: np.ndarray) -> dict[str, float]:
    """Return the error block of a profile."""
    relative = np.abs(predicted_ms / measured_ms - 1.0)
    residual = ((measured_ms - predicted_ms) ** 2).sum() / ((measured_ms - measured_ms.mean()) ** 2).sum()
    return {
        "mape_percent": round(100 * float(relative.mean()), 2),
        "within_5_percent": round(100 * float((relative <= 0.05).mean()), 1),
        "within_10_percent": round(100 * float((relative <= 0.10).mean()), 1),
        "r2": round(1.0 - float(residual), 4),
        "spearman": round(float(spearmanr(predicted_ms, measured_ms).statistic), 4),
    }


def fit_linear(matrix: np.ndarray, ms: np.ndarray) -> np.ndarray:
    """Return coefficients of a linear model by least squares on relative error; any sign."""
    return np.asarray(np.linalg.lstsq(matrix / ms[:, None], np.ones(len(ms)), rcond=None)[0])


# ---------------------------------------------------------------------------------------------- the devices

SEEN: tuple[OpType, ...] = ("conv", "linear", "avg_pool", "global_avg_pool", "add")
"""Types in the NAS-Bench-201 networks; those of `TOGETHER` share all constants with their target."""
FITTED: tuple[OpType, ...] = ("conv", "avg_pool", "add")
CONV: tuple[OpType, ...] = ("conv", "linear")
POOL: tuple[OpType, ...] = ("avg_pool", "global_avg_pool")

ONE_PASS = "assumed: one pass over its data, like the addition; not in the fitted networks"
ONE_PASS_TYPES: tuple[OpType, ...] = (
    "mul", "hswish", "hsigmoid", "sigmoid", "concat", "split", "shuffle", "batch_norm",
)  # fmt: skip
FUSED_RELU = "executed inside the convolution before it, as in the fitted networks"
TOGETHER: dict[OpType, tuple[OpType, str]] = {
    "linear": ("conv", "fitted together with convolutions"),
    "global_avg_pool": ("avg_pool", "fitted together with average pooling"),
    "max_pool": ("avg_pool", "assumed: as average pooling; not in the fitted networks"),
}


@dataclass(frozen=True)
class Device:
    """What is fitted for one profile, and to what."""

    name: str
    read: Callable[[], Measured]
    terms: tuple[Term, ...]
    sources: dict[OpType, str]
    """Types with constants of their own: where these come from."""
    same_as: dict[OpType, tuple[OpType, str]]
    """Types that use the constants of another, and why; besides `TOGETHER` and `ONE_PASS_TYPES`."""
    phone_depthwise: bool = False
    """True: depthwise multiply-adds are slower than dense ones by the Pixel 4's ratio (`phone_ratio`)."""


ACCELERATORS, DEVICE_FILE = "nb201_latency_accelerators_ms.csv.gz", "nb201_latency_ms.csv.gz"
NB201_FIT = "fitted to NAS-Bench-201"
NCS2_BYTES_PER_S, NCS2_BYTES_PER_ELEMENT = 5.679437699e9, 2
NCS2 = "bandwidth cited: ANNETTE NCS2 roofline (Wess et al. 2021), 5.68 GB/s at 2 bytes an element"
SD855_BYTES_PER_S, SD855_BYTES_PER_ELEMENT = 4 * 2 * 4266e6, 4
SD855 = "bandwidth cited: four 16-bit channels LPDDR4X-4266 (WikiChip), 34.1 GB/s, at 4 bytes an element"
AS_POOL = "assumed: moves and computes as pooling of its kernel size"
AS_CONV = "assumed: overhead and rates of a dense convolution"
CPU_TERMS = (
    Term("multiply-adds of a convolution", MACS, CONV),
    Term("multiply-adds of pooling", MACS, POOL),
    Term("elements moved", ELEMENTS, SEEN),
)
BLOCK_PASSES: tuple[OpType, ...] = ("add", "mul", "hswish", "hsigmoid", "global_avg_pool")
OFA_FIT = "fitted to the once-for-all block table"
WITH_ADD: tuple[OpType, str] = ("add", "fitted together with the addition")
AS_DEPTHWISE: tuple[OpType, str] = (
    "depthwise_conv",
    "assumed: as a depthwise convolution of its kernel size",
)

DEVICES = (
    Device(
        "hexagon-dsp", partial(read_nb201, ACCELERATORS, "sd855_hexagon_dsp"),
        (
            Term("overhead of an operator", ONE, SEEN),
            Term("further overhead of a convolution", ONE, CONV),
            Term("multiply-adds of a convolution", MACS, CONV),
            Term("elements moved", ELEMENTS, SEEN),
        ),
        dict.fromkeys(FITTED, f"{NB201_FIT}; bandwidth and basic overhead are common to all types"),
        {"depthwise_conv": ("conv", AS_CONV)},
    ),
    Device(
        "myriad-vpu", partial(read_nb201, ACCELERATORS, "myriadx_vpu_openvino2019r2"),
        (
            Term("overhead of an operator", ONE, SEEN),
            Term("multiply-adds of a convolution", MACS, CONV),
            Term("multiply-adds of pooling", MACS, POOL),
            Term("elements moved", ELEMENTS, SEEN, 1e9 * NCS2_BYTES_PER_ELEMENT / NCS2_BYTES_PER_S),
        ),
        dict.fromkeys(FITTED, f"{NB201_FIT}; overhead common to all types; {NCS2}"),
        {"depthwise_conv": ("avg_pool", AS_POOL)},
    ),
    Device(
        "edge-tpu", partial(read_nb201, ACCELERATORS, "edge_tpu_eagle"),
        (
            Term("multiply-adds of a convolution", MACS, CONV),
            Term("elements of a convolution", ELEMENTS, CONV),
            Term("multiply-adds of pooling", MACS, POOL),
            Term("elements of an addition", ELEMENTS, ("add",)),
        ),
        dict.fromkeys(FITTED, NB201_FIT),
        {"depthwise_conv": ("conv", AS_CONV)},
    ),
    Device(
        "adreno-gpu", partial(read_nb201, ACCELERATORS, "sd855_adreno640_gpu"),
        (
            Term("overhead of an operator", ONE, SEEN),
            Term("multiply-adds of a convolution", MACS, CONV),
            Term("multiply-adds of pooling", MACS, POOL),
            Term("elements moved", ELEMENTS, SEEN, 1e9 * SD855_BYTES_PER_ELEMENT / SD855_BYTES_PER_S),
        ),
        dict.fromkeys(FITTED, f"{NB201_FIT}; overhead common to all types; {SD855}"),
        {"depthwise_conv": ("avg_pool", AS_POOL)},
    ),
    Device(
        "cortex-a76-cpu", partial(read_nb201, ACCELERATORS, "cortex_a76_tflite21"), CPU_TERMS,
        dict.fromkeys(FITTED, f"{NB201_FIT}; bandwidth common to all types"), {}, phone_depthwise=True,
    ),
    Device(
        "raspberry-pi-4", partial(read_nb201, DEVICE_FILE, "raspi4", dead_edges=False), CPU_TERMS,
        dict.fromkeys(FITTED, f"{NB201_FIT}; bandwidth common to all types"), {}, phone_depthwise=True,
    ),
    Device(
        "note10-cpu", read_note10,
        (
            Term("multiply-adds of a convolution", MACS, CONV),
            Term("multiply-adds of a depthwise convolution", MACS, ("depthwise_conv",)),
            Term("elements of a convolution", ELEMENTS, CONV),
            Term("elements of other operators", ELEMENTS, ("depthwise_conv", *BLOCK_PASSES)),
        ),
        dict.fromkeys(("conv", "depthwise_conv", "add"), OFA_FIT),
        {
            **dict.fromkeys(BLOCK_PASSES[1:], WITH_ADD),
            "avg_pool": AS_DEPTHWISE,
            "max_pool": AS_DEPTHWISE,
        },
    ),
)  # fmt: skip


@cache
def phone_ratio() -> float:
    """Return how many times longer a depthwise multiply-add takes than a dense one on the Pixel 4's CPU.

    Fitted to the MobileNetV3 blocks of nn-Meter's phone table: one rate each for dense and depthwise
    convolutions and a bandwidth common to all types.
    """
    terms = (
        Term("multiply-adds of a convolution", MACS, CONV),
        Term("multiply-adds of a depthwise convolution", MACS, ("depthwise_conv",)),
        Term("elements moved", ELEMENTS, ("conv", "depthwise_conv", *BLOCK_PASSES)),
    )
    _, constants = fit_terms(terms, [read_phone("pixel4_ms")])
    return significant(constants[1] / constants[0], 3)


def significant(value: float, digits: int = 4) -> float:
    """Round to significant digits, so that profiles stay readable."""
    return float(f"{value:.{digits}g}")


def cost_model(device: Device, overhead_ms: float, constants: np.ndarray) -> dict[str, Any]:
    """Return the ``cost_model`` block of a profile, constants rounded to four digits."""
    ops: dict[str, dict[str, Any]] = {}
    for op_type, source in device.sources.items():
        per = [0.0, 0.0, 0.0]
        for term, value in zip(device.terms, constants, strict=True):
            per[term.quantity] += value * (op_type in term.types)
        ops[op_type] = {"overhead_ms": significant(per[ONE])}
        if per[MACS] > 0:
            ops[op_type]["gmacs_per_s"] = significant(1.0 / per[MACS])
        if per[ELEMENTS] > 0:
            ops[op_type]["gelements_per_s"] = significant(1.0 / per[ELEMENTS])
        ops[op_type]["source"] = source
    if device.phone_depthwise:
        rate = ops["conv"]["gmacs_per_s"] / phone_ratio()
        reason = f"assumed: as a convolution, multiply-adds {phone_ratio()} times slower as on the Pixel 4"
        ops["depthwise_conv"] = ops["conv"] | {"gmacs_per_s": significant(rate), "source": reason}
    for op_type, (target, reason) in {**TOGETHER, **device.same_as}.items():
        ops[op_type] = {"same_as": target, "source": reason}
    for op_type in ONE_PASS_TYPES:
        if op_type not in ops:
            ops[op_type] = {"same_as": "add", "source": ONE_PASS}
    ops.setdefault("relu", {"fused": True, "source": FUSED_RELU})
    return {"network_overhead_ms": significant(overhead_ms), "ops": ops}


def predict_ms(model: CostModel, data: Measured) -> np.ndarray:
    """Return ``(n,)`` predictions of `CostModel.latency_ms` (of blocks: without the network's overhead)."""
    coefficients = np.array([model.cost_of(t).coefficients if t in model.ops else (0.0,) * 3 for t in OP_TYPES])
    overhead = model.network_overhead_ms if data.whole else 0.0
    return np.asarray(overhead + (sizes_by_type(data.ops) * coefficients).sum(axis=(1, 2)))


def split(data: Measured, seed: int) -> tuple[Measured, Measured]:
    """Return the networks to fit and the held-out ones."""
    order = np.random.default_rng(seed).permutation(len(data.ms))
    n_held_out = round(HELD_OUT * len(order))

    def take(rows: np.ndarray) -> Measured:
        codes = [data.codes[i] for i in rows] if data.codes is not None else None
        return Measured(data.what, [data.ops[i] for i in rows], data.ms[rows], codes, data.whole)

    return take(np.sort(order[n_held_out:])), take(np.sort(order[:n_held_out]))


def macs_matrix(data: Measured) -> np.ndarray:
    """Return ``(n, 2)`` features of the FLOPs-only model: 1 and millions of multiply-adds."""
    return np.array([(1.0, sum(op.macs for op in ops) / 1e6) for ops in data.ops])


def edge_matrix(data: Measured) -> np.ndarray:
    """Return ``(n, 25)`` features of the per-edge model: 1 and which operator each edge has."""
    assert data.codes is not None
    return np.array([[1.0, *(float(digit == op) for digit in code for op in "1234")] for code in data.codes])


@dataclass(frozen=True)
class Fit:
    """The result for one device."""

    device: Device
    block: dict[str, Any]
    """``cost_model`` of the profile."""
    error: dict[str, Any]
    """``error`` of the profile."""
    scores: dict[str, dict[str, float]]
    """Held-out error of each model."""
    mobilenet_ms: tuple[float, float]
    """What the model says of MobileNet V1 and V2 at 224 pixels."""


def fit_device(device: Device, seed: int = SEED) -> Fit:
    """Fit one device and judge it on its held-out networks, with the constants as they are written."""
    train, held_out = split(device.read(), seed)
    block = cost_model(device, *fit_terms(device.terms, [train]))
    model = CostModel.model_validate(block)
    scores = {"cost model": score(predict_ms(model, held_out), held_out.ms)}
    for name, matrix in (("FLOPs only", macs_matrix), ("per edge", edge_matrix)):
        if matrix is edge_matrix and train.codes is None:
            continue
        scores[name] = score(matrix(held_out) @ fit_linear(matrix(train), train.ms), held_out.ms)
    measured_ms = held_out.ms if held_out.whole else np.array(OFA_MS)
    error = {
        "networks": held_out.what, "n_held_out": len(held_out.ms), "seed": seed, **scores["cost model"],
        **measured_range(measured_ms),
    }  # fmt: skip
    v1, v2 = (model.latency_ms(mobilenet_ops(version)) for version in (1, 2))
    return Fit(device, block, error, scores, (v1, v2))


# ------------------------------------------------------------------------------------------------ the table


def table(fits: Sequence[Fit]) -> str:
    """Return the results as text: one row a device and model."""
    lines = [
        "Held-out error of latency models fitted to published measurements (fit_cost_models.py)",
        f"{100 * (1 - HELD_OUT):.0f} % fitted, {100 * HELD_OUT:.0f} % held out, seed {SEED}",
        "",
        f"{'device':<17}{'model':<12}{'held out':>9}{'MAPE %':>9}{'within 5 %':>12}{'within 10 %':>13}"
        f"{'R2':>9}{'Spearman':>10}",
    ]
    for fit in fits:
        for name, s in fit.scores.items():
            lines.append(
                f"{fit.device.name:<17}{name:<12}{fit.error['n_held_out']:>9}{s['mape_percent']:>9.2f}"
                f"{s['within_5_percent']:>12.1f}{s['within_10_percent']:>13.1f}{s['r2']:>9.4f}{s['spearman']:>10.4f}"
            )
    lines += ["", "What was held out:"]
    lines += [f"  {fit.device.name:<17}{fit.error['networks']}" for fit in fits]
    lines += ["", "Constants of each cost model (0 or absent: the fit gives the term no time)"]
    for fit in fits:
        lines.append(f"  {fit.device.name}: {fit.block['network_overhead_ms']} ms a network")
        for op_type, cost in fit.block["ops"].items():
            if "overhead_ms" in cost:
                rates = [f"{cost[k]} {u}" for k, u in RATES if k in cost]
                lines.append(f"    {op_type:<17}" + ", ".join([f"{cost['overhead_ms']} ms an operator", *rates]))
    lines += ["", "MobileNet V1 and V2, width 1.0, 224 pixels, by the cost model, ms (a check; not fitted)"]
    for fit in fits:
        lines.append(f"  {fit.device.name:<17}{fit.mobilenet_ms[0]:>8.2f}{fit.mobilenet_ms[1]:>8.2f}")
    lines += ["  published for the Edge TPU: 2.4 and 2.6 ms (coral.ai/docs/edgetpu/benchmarks)"]
    for fit in fits:
        if fit.device.name == "note10-cpu":
            model = CostModel.model_validate(fit.block)
            small, large = (model.latency_ms(ofa_ops(*choice)) for choice in ((160, 2, 3, 3), (224, 4, 6, 7)))
            lines += ["", "Smallest (r=160) and largest (r=224) once-for-all network, w1.2, ms"]
            lines += [f"  note10-cpu{small:>15.2f}{large:>8.2f}; sums of the table: {OFA_MS[0]} and {OFA_MS[1]}"]
    return "\n".join(lines) + "\n"


RATES = (("gmacs_per_s", "G multiply-adds/s"), ("gelements_per_s", "G elements/s"))


def write_profile(fit: Fit) -> None:
    """Rewrite ``cost_model`` and ``error`` of a profile; the other fields stay."""
    path = ROOT / "latency_tables" / fit.device.name / "profile.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values |= {"error": fit.error, "cost_model": fit.block}
    notes = values.pop("notes")
    text = yaml.safe_dump(values | {"notes": notes}, sort_keys=False, allow_unicode=True, width=112)
    path.write_text(text, encoding="utf-8")


def main(names: Sequence[str] = (), write: bool = False) -> list[Fit]:
    """Fit the named devices (default: all), print the table, and store it where all were fitted."""
    fits = [fit_device(device) for device in DEVICES if not names or device.name in names]
    text = table(fits)
    print(text)
    if len(fits) == len(DEVICES):
        (ROOT / "benchmarks" / "results" / "fit_cost_models.txt").write_text(text, encoding="utf-8")
    if write:
        for fit in fits:
            write_profile(fit)
    return fits


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fit the cost models of the shipped device profiles.")
    parser.add_argument("names", nargs="*", help="devices to fit; default: all")
    parser.add_argument("--write", action="store_true", help="rewrite cost_model and error of the profiles")
    arguments = parser.parse_args()
    main(arguments.names, arguments.write)
