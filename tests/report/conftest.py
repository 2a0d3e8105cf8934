"""A report of two devices with everything in it, for tests of pages and plots."""

from dataclasses import replace

import pytest

from hwnas.report.data import (
    Column,
    Curve,
    Decision,
    DeviceReport,
    LatencyCheck,
    Overlay,
    Pieces,
    Removed,
    RunReport,
    Stage,
)

COLUMNS = (
    Column("top1_percent", "validation top-1", "%"), Column("test_top1_percent", "test top-1", "%"),
    Column("latency_ms", "latency", "ms"), Column("measured_ms", "measured", "ms"), Column("params", "params", ""),
    Column("macs", "MACs", ""), Column("introspectability", "introspectability", ""), Column("shape", "resolution", ""),
)  # fmt: skip


def model(key, top1, latency, **more):
    return {
        "key": key, "top1_percent": top1, "latency_ms": latency, "params": 12345.0, "macs": 6789012.0,
        "introspectability": 0.123456, "top1_stderr_percent": 0.5, "test_top1_percent": 88.25, "measured_ms": None,
        "shape": "12 px | 1-2 | 353", "knee": False, **more,
    }  # fmt: skip


MODELS = (model("aaa111", 90.0, 1.0), model("bbb222", 89.0, 1.5), model("ccc333", 97.5, 2.25, knee=True))


@pytest.fixture
def device():
    return DeviceReport(
        "my-dsp", "a DSP", "dsp", "modelled", "own measurements", "MIT", "runtime 1", "int8", ("a note <b>",),
        {
            "networks": "ten networks", "n_held_out": 10, "seed": 0, "mape_percent": 3.25, "within_5_percent": 80.0,
            "within_10_percent": 100.0, "r2": 0.98, "spearman": 0.99,
        },
        MODELS, [50.0, 90.0, 89.0, 97.5], [3.0, 1.0, 1.5, 2.25], "4 archs evaluated",
    )  # fmt: skip


@pytest.fixture
def report(device):
    check = LatencyCheck(["aaa111", "bbb222", "ccc333"], [1.0, 1.5, 2.25], [1.1, 1.4, 2.5], 8.25, 66.7, 1.0, 1.25)
    local = replace(device, name="my-cpu", origin="measured", error=None, check=check)
    return RunReport(
        "my run", "what it is", ("top1_percent", "latency_ms"), COLUMNS, Column("top1_percent", "top-1", "%"), 123456,
        4, {"train": 41, "validation": 17, "test": 19}, (device, local), {"my-dsp & my-cpu": 3},
        [{"phase": "full", "step": i, "loss": 2.0 / i} for i in (1, 2, 3)], {"created": "2026-11-01"},
        "top1_stderr_percent",
    )  # fmt: skip


BLOCKS = (
    {"kind": "conv", "in_channels": 1, "out_channels": 8, "in_size_px": 12, "kernel_size": 3, "stride": 2,
     "act": "relu"},
    {"kind": "mbconv", "in_channels": 8, "out_channels": 16, "in_size_px": 6, "kernel_size": 5, "stride": 1,
     "expand": 4, "se": 1},
    {"kind": "head", "in_channels": 16, "out_channels": 10, "in_size_px": 6},
)  # fmt: skip


@pytest.fixture
def full(report):
    """The same with blocks, curves, stages, commands, other runs and decisions; its fronts share one model."""
    keys = [m["key"] for m in MODELS]
    dsp, cpu = report.devices
    own = model("ddd444", 95.0, 0.5, params=999.0)
    dsp = replace(
        dsp, block_ms=[0.25, 0.5, 0.125], constant_ms=0.125, unfitted=[0.0, 0.4, 0.05],
        evaluated={"params": [1.0, 2.0, 3.0, 4.0]},
        curves=[
            Curve("1: hurricane", [1, 2], [0.5, 0.75]),
            Curve("random, predicted", [1, 2], [0.25, 0.5], [0.125, 0.375], [0.375, 0.625]),
        ],
        removed=[Removed("stage1.block1", "(3, 1)", "(5, 4)")], removed_note="space specialised: 10 of 20 archs",
        overlays=[Overlay("other-run", [model("eee555", 91.0, 1.75)])],
        stages={
            keys[0]: [
                Stage("as the supernet gave it", 88.0),
                Stage("trained to its end", 90.0, 88.25, None, 0.5, "8 epochs, best after 7"),
                Stage("INT8", None, 87.5, 0.75, 0.125), Stage("fine-tuned", 91.0, 89.0),
            ]
        },
        commands={key: [("export it", f"hwnas export {{run}} --device my-dsp --select {key}")] for key in keys},
    )  # fmt: skip
    cpu = replace(
        cpu, models=(own, MODELS[2]), block_ms=[0.125, 0.25, 0.125], constant_ms=0.0,
        check=LatencyCheck(["ddd444", "ccc333"], [0.5, 2.25], [0.75, 2.5], 8.25, 66.7, 1.0, 1.25),
    )  # fmt: skip
    return replace(
        report, devices=(dsp, cpu), blocks=BLOCKS,
        pieces={
            **{key: Pieces([("stem", 0), ("stage1.block1", 1), ("head", 2)]) for key in [*keys, "ddd444"]},
            "aaa111": Pieces(
                [("stem", 0), ("head", 2)], {"introspectability_by_layer": {"stem": 0.25, "head": 0.75}}
            ),
        },
        decisions=[Decision("train.batch_size", "32", "64")], runs=("this", "other-run"),
        differences=[("search.seed", ["0", "1"])],
    )  # fmt: skip
