"""Block tables: read as written, refused where damaged, added up and corrected by hand."""

import numpy as np
import pytest
import yaml

from hwnas.errors import MissingBlockError, TableError
from hwnas.export.graph import trace
from hwnas.latency.cost_model import CostModel
from hwnas.latency.device import Correction, load_profile
from hwnas.latency.table import Device, Row, block_ops, load_device, read_rows, relative_errors, save_device
from hwnas.space import SearchSpace
from hwnas.supernet.slot_sum import distinct_blocks


@pytest.fixture(scope="module")
def blocks(layout):
    return distinct_blocks(layout)


@pytest.fixture(scope="module")
def device(blocks):
    """A measured device with a recorded time for every block of the tiny space."""
    values = np.random.default_rng(8).uniform(0.01, 2.0, len(blocks)).round(5)
    rows = {
        b.signature: Row(float(v), round(float(v) / 37, 6), 29, "measured") for b, v in zip(blocks, values, strict=True)
    }
    return Device(load_profile("local-cpu"), rows)


CORRECTION = Correction(scale=0.9, per_block_ms=-0.003, constant_ms=0.05, n_networks=24)


def corrected(device):
    return Device(device.profile.model_copy(update={"correction": CORRECTION}), device.rows)


# -- files ----------------------------------------------------------------------------------------------


def test_a_table_is_read_as_it_was_written(device, blocks, tmp_path):
    made = corrected(device)
    save_device(made, tmp_path, blocks)
    found = load_device(tmp_path)
    assert found.profile == made.profile
    assert found.rows.keys() == device.rows.keys()
    for signature, row in device.rows.items():
        assert found.rows[signature].median_ms == row.median_ms
        assert found.rows[signature].iqr_ms == pytest.approx(row.iqr_ms, rel=1e-2)
        assert (found.rows[signature].n, found.rows[signature].origin) == (29, "measured")
    lines = (tmp_path / "blocks.csv").read_text().splitlines()
    assert lines[0].startswith("kind,")
    assert lines[0].endswith(",n,median_ms,iqr_ms,origin")
    assert len(lines) == len(blocks) + 1
    save_device(found, tmp_path / "again", blocks)
    assert (tmp_path / "again" / "blocks.csv").read_text().splitlines() == lines


def test_a_shipped_device_without_a_table_has_none():
    device = load_device("hexagon-dsp")
    assert device.name == "hexagon-dsp"
    assert device.rows == {}


HEADER = "kind,in_channels,n,median_ms,iqr_ms,origin\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,n,median_ms\nconv,1,1\n", r"lacks columns \['iqr_ms', 'origin'\]; latency_tables/README\.md"),
        ("", "lacks columns"),
        (HEADER + "conv,5,9,nan,0.1,measured\n", "line 2: median_ms is nan; times must be positive"),
        (HEADER + "conv,5,9,-0.5,0.1,measured\n", "line 2: median_ms is -0.5"),
        (HEADER + "conv,5,9,0,0.1,measured\n", "line 2: median_ms is 0.0"),
        (HEADER + "conv,5,9,inf,0.1,measured\n", "line 2: median_ms is inf"),
        (HEADER + "conv,5,9,0.5,0.1,measured\nconv,5,9,fast,0.1,measured\n", "line 3: .*fast"),
        (HEADER + "conv,5,many,0.5,0.1,measured\n", "line 2: .*many"),
        (HEADER + "conv,5,9\n", "line 2"),
        (
            HEADER + "conv,5,9,0.5,0.1,measured\nconv,7,9,0.5,0.1,measured\nconv,5,9,0.6,0.1,measured\n",
            r"line 4: block \[conv in_channels=5\] stands twice with different times",
        ),
        (HEADER + "conv,5,9,0.5,0.1,measured,more,cells\n", "line 2"),
    ],
)
def test_a_damaged_table_names_file_and_line(tmp_path, text, message):
    path = tmp_path / "blocks.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "blocks.csv").write_bytes(b"\xff\xfe\x00kind")
    with pytest.raises(TableError, match="cannot be read"):
        read_rows(tmp_path / "blocks.csv")


def test_a_row_that_stands_twice_alike_is_one_row(tmp_path):
    (tmp_path / "blocks.csv").write_text(HEADER + "conv,5,9,0.5,0.1,measured\n" * 2)
    assert read_rows(tmp_path / "blocks.csv") == {"conv in_channels=5": Row(0.5, 0.1, 9, "measured")}


# -- sums -----------------------------------------------------------------------------------------------


def test_a_network_is_the_sum_of_its_blocks(device, layout, rng):
    for arch in layout.space.sample(rng, 10):
        wanted = sum(device.rows[b.signature].median_ms for _, b in layout.blocks(arch))
        assert device.estimate_ms(arch) == pytest.approx(wanted, rel=1e-12)


def test_the_correction_by_hand(device, layout, rng):
    made = corrected(device)
    for arch in layout.space.sample(rng, 10):
        chain = layout.blocks(arch)
        plain = sum(device.rows[b.signature].median_ms for _, b in chain)
        assert made.estimate_ms(arch) == pytest.approx(0.05 + 0.9 * plain - 0.003 * len(chain), rel=1e-12)


@pytest.mark.parametrize("make", [lambda d: d, corrected, lambda d: load_device("hexagon-dsp")])
def test_a_compiled_space_gives_the_same_latencies(device, layout, rng, make):
    made = make(device)
    archs = layout.space.sample(rng, 50)
    wanted = [made.estimate_ms(a) for a in archs]
    compiled = made.compile(layout)
    np.testing.assert_allclose(compiled.of_archs(archs), wanted, rtol=1e-12)
    np.testing.assert_allclose(compiled.of_genomes(layout.space.encode_many(archs)), wanted, rtol=1e-12)


def test_a_modelled_network_costs_what_the_model_says_of_its_operators(layout, rng):
    """The blocks of a chain together are the network: no operator is lost or counted twice."""
    for name in ("hexagon-dsp", "myriad-vpu"):
        device = load_device(name)
        for arch in layout.space.sample(rng, 5):
            channels, size, _ = layout.input_shape(arch)
            ops = trace(layout.build_subnet(arch)).ops(channels, size)
            assert device.estimate_ms(arch) == pytest.approx(device.profile.cost_model.latency_ms(ops), rel=1e-12)


def test_operators_of_a_block_do_not_depend_on_when_its_shape_was_traced(blocks):
    for block in blocks:
        assert block_ops(block) == trace(block.build()).ops(block.in_channels, block.in_size_px)


def test_a_measured_row_wins_over_the_model(device, blocks):
    model = CostModel.model_validate(
        {"network_overhead_ms": 3.0, "ops": {"conv": {"overhead_ms": 1.0, "source": "made"}}}
    )
    profile = device.profile.model_copy(update={"cost_model": model})
    stem = blocks[0]
    assert Device(profile, device.rows).block_ms(stem) == device.rows[stem.signature].median_ms
    assert Device(profile, device.rows).constant_ms == 0.0
    assert Device(profile).constant_ms == 3.0


def test_a_missing_block_names_block_and_command(device, blocks, layout):
    rows = {k: v for k, v in device.rows.items() if k != blocks[2].signature}
    with pytest.raises(MissingBlockError) as caught:
        Device(device.profile, rows).compile(layout)
    message = str(caught.value)
    assert f"device 'local-cpu' has no time for block [{blocks[2].signature}]" in message
    assert f"its table has {len(rows)} blocks and no cost model" in message
    assert "`hwnas " in message
    with pytest.raises(MissingBlockError, match="it has no table yet"):
        Device(device.profile).block_ms(blocks[0])


def test_an_arch_without_blocks_is_refused(device):
    arch = SearchSpace.of_choices({"op": [1, 2]}).largest()
    with pytest.raises(TableError, match="space without blocks; take it from a supernet's space"):
        device.estimate_ms(arch)


def test_a_profile_without_its_correction_is_still_read(device, blocks, tmp_path):
    save_device(device, tmp_path, blocks)
    values = yaml.safe_load((tmp_path / "profile.yaml").read_text())
    assert values["correction"] is None
    del values["correction"]
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(TableError, match=r"profile\.yaml is not as it was written.*if you changed it yourself, remove"):
        load_device(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    assert load_device(tmp_path).profile.correction is None


# -- errors ---------------------------------------------------------------------------------------------


def test_relative_errors_by_hand():
    predicted, measured = np.array([1.04, 2.16, 3.0, 5.0]), np.array([1.0, 2.0, 4.0, 5.0])
    found = relative_errors(predicted, measured)
    assert found["mape_percent"] == pytest.approx(100 * (0.04 + 0.08 + 0.25 + 0) / 4, abs=1e-3)
    assert found["within_5_percent"] == 50.0
    assert found["within_10_percent"] == 75.0
    assert found["r2"] == pytest.approx(1 - (0.04**2 + 0.16**2 + 1) / 10, abs=1e-4)
    assert found["spearman"] == 1.0


def test_relative_errors_of_values_that_do_not_vary():
    found = relative_errors(np.full(4, 2.0), np.full(4, 2.0))
    assert found["mape_percent"] == 0
    assert found["spearman"] == 0
