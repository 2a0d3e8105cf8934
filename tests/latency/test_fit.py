"""A profile from a few whole networks: the right model is found, and its error is that of networks left out."""

import csv

import numpy as np
import pytest

from hwnas.errors import TableError
from hwnas.latency.device import load_profile
from hwnas.latency.fit import fit_networks, read_measurements, sample_networks
from hwnas.latency.measure import MeasureConfig, measure_onnx
from hwnas.latency.table import block_ops, load_device

SAID = {
    "name": "my-board",
    "kind": "npu",
    "runtime": "vendor-1.2",
    "precision": "int8",
    "source": "us",
    "licence": "MIT",
}


def ops_of(layout, arch):
    return [op for _, b in layout.blocks(arch) for op in block_ops(b)]


@pytest.fixture(scope="module")
def archs(layout):
    return layout.space.sample(np.random.default_rng(4), 12)


def test_a_scaled_device_is_found_exactly(layout, archs, tmp_path):
    base = load_profile("hexagon-dsp").cost_model
    latency_ms = np.array([0.7 + 3.1 * float(base.ops_ms(ops_of(layout, a)).sum()) for a in archs])
    made = fit_networks(layout, archs, latency_ms, folder=tmp_path, **SAID)
    assert made.error.mape_percent < 0.01
    assert (made.error.n_held_out, made.origin) == (12, "modelled")
    assert "hexagon-dsp, scaled" in made.notes[0]
    device = load_device(tmp_path)
    fresh = layout.space.sample(np.random.default_rng(5), 10)
    expected = [0.7 + 3.1 * float(base.ops_ms(ops_of(layout, a)).sum()) for a in fresh]
    np.testing.assert_allclose([device.estimate_ms(a) for a in fresh], expected, rtol=1e-4)
    np.testing.assert_allclose(device.compile(layout).of_archs(fresh), expected, rtol=1e-4)


def test_constants_of_another_kind_of_device_are_found(layout, archs, tmp_path):
    def truth(arch):
        ops = [op for op in ops_of(layout, arch) if op.type != "relu"]
        dense = sum(op.macs for op in ops if op.type in ("conv", "linear"))
        windowed = sum(op.macs for op in ops if op.type == "depthwise_conv")
        return 0.2 + dense / 5e6 + windowed / 0.1e6

    made = fit_networks(layout, archs, np.array([truth(a) for a in archs]), folder=tmp_path, **SAID)
    assert made.error.mape_percent < 0.01
    device = load_device(tmp_path)
    fresh = layout.space.sample(np.random.default_rng(5), 10)
    np.testing.assert_allclose([device.estimate_ms(a) for a in fresh], [truth(a) for a in fresh], rtol=1e-4)


def test_noise_shows_in_the_published_error(layout, archs, tmp_path):
    base = load_profile("edge-tpu").cost_model
    noise = np.exp(np.random.default_rng(6).normal(0, 0.05, len(archs)))
    latency_ms = np.array([float(base.ops_ms(ops_of(layout, a)).sum()) for a in archs]) * noise
    made = fit_networks(layout, archs, latency_ms, folder=tmp_path, **SAID)
    assert 1 < made.error.mape_percent < 15


def test_networks_are_written_with_a_file_to_fill_in(layout, tmp_path):
    path = sample_networks(layout, tmp_path, 6)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    with pytest.raises(TableError, match="line 2: latency_ms is ''; fill in milliseconds"):
        read_measurements(path, layout)
    quick = MeasureConfig(sessions=1, burst_s=0.001, min_runs=3, warmup_runs=3)
    assert measure_onnx(tmp_path / rows[0]["file"], quick).conditions.input_shape == (5, 11, 11)
    for i, row in enumerate(rows):
        row["latency_ms"] = 1.5 + i
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    archs, latency_ms = read_measurements(path, layout)
    assert archs[0] == layout.space.smallest()
    assert latency_ms.tolist() == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arch\n", r"lacks the column\(s\) latency_ms; it has arch"),
        ("arch,latency_ms\n{},1\n", "line 2: arch is none of this recipe"),
        ("arch,latency_ms\nx,1\n", "line 2: arch is none of this recipe"),
        ("arch,latency_ms\n", "has 0 networks; time at least 5, better 10 to 20"),
    ],
)
def test_bad_measurements_are_refused(text, message, layout, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(TableError, match=message):
        read_measurements(tmp_path / "m.csv", layout)


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf"])
def test_times_must_be_positive(value, layout, tmp_path):
    arch = layout.space.smallest().as_dict()
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["arch", "latency_ms"], [str(arch).replace("'", '"'), value]])
    with pytest.raises(
        TableError, match=r"line 2: latency_ms is .*(times must be positive numbers|fill in milliseconds)"
    ):
        read_measurements(tmp_path / "m.csv", layout)
