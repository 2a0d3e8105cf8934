"""Tables: which networks, how the correction is fitted, and one that is really measured."""

import csv
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from hwnas.errors import RecipeError, TableError, TableMismatchError
from hwnas.export.onnx_facts import precision_of
from hwnas.latency import build, check, slowdown
from hwnas.latency.build import build_table, needs_table, seconds_of_tables
from hwnas.latency.check import check_table
from hwnas.latency.correction import correction_features, fit_correction
from hwnas.latency.device import Correction, load_profile
from hwnas.latency.interpolate import interpolate_rows
from hwnas.latency.onnx_models import block_onnx, network_onnx
from hwnas.latency.placement import node_placement
from hwnas.latency.plan import TableConfig, measured_resolutions, network_sample, plan_build
from hwnas.latency.slowdown import choose_repeats
from hwnas.latency.table import Device, Row, block_melements, load_device
from hwnas.latency.table_networks import TableNetwork, read_networks
from hwnas.latency.units import unit_warning
from hwnas.latency.validity import mismatches
from hwnas.supernet import make_layout
from hwnas.supernet.slot_sum import distinct_blocks

SMALL = TableConfig(n_networks=6, n_held_out=4, rounds=1, block_time_s=0.0005, network_time_s=0.0005)
TRUTH = Correction(
    scale=0.83, per_block_ms=-0.02, constant_ms=0.4, border_ms_per_melement=-1.5, weight_ms_per_melement=2.0,
    n_networks=20,
)  # fmt: skip


# -- what is measured ------------------------------------------------------------------------------------


def test_networks_are_different_and_begin_with_the_ends(layout):
    archs = network_sample(layout.space, 30, 0)
    assert len(set(archs)) == 30
    assert archs[:2] == [layout.space.smallest(), layout.space.largest()]
    assert network_sample(layout.space, 30, 0) == archs != network_sample(layout.space, 30, 1)
    fresh = network_sample(layout.space, 30, 0, without=archs, ends=False)
    assert not set(fresh) & set(archs)


def test_how_long_tables_take_is_known_from_a_few_timings(layout):
    assert seconds_of_tables(layout, load_device("hexagon-dsp"), SMALL) == 0, "it needs none"
    assert seconds_of_tables(layout, load_device("local-cpu"), SMALL) > 0


@pytest.fixture(scope="module")
def many_resolutions(tiny_with):
    return make_layout(tiny_with(resolutions=[8, 10, 12, 14, 16, 18, 20]))


def test_of_many_resolutions_a_few_are_measured(many_resolutions):
    space = many_resolutions.space
    assert measured_resolutions(space, TableConfig()) == (8, 12, 16, 20)
    assert measured_resolutions(space, TableConfig(resolutions=(20, 8))) == (8, 20)
    with pytest.raises(RecipeError, match=r"tables.resolutions are \[8, 9\]; take them from \[8, 10, .*smallest and"):
        measured_resolutions(space, TableConfig(resolutions=(8, 9)))
    with pytest.raises(RecipeError, match="smallest and largest"):
        measured_resolutions(space, TableConfig(resolutions=(8, 10)))


def test_the_correction_sees_measured_resolutions_only(many_resolutions):
    plan = plan_build(many_resolutions, TableConfig())
    assert {a["resolution"] for a in plan.fitted} <= {8, 12, 16, 20}
    assert len(plan.fitted) == 40
    far = [a for a in plan.held_out if a["resolution"] in (10, 14, 18)]
    assert (len(far), len(plan.held_out)) == (10, 20)
    assert not set(plan.fitted) & set(plan.held_out)
    assert set(plan.measured) < set(plan.blocks) == set(distinct_blocks(many_resolutions))


def test_rows_between_measured_sizes_are_linear_in_the_edge(many_resolutions):
    plan = plan_build(many_resolutions, TableConfig())
    rows = {b.signature: Row(0.1 + 0.03 * b.in_size_px, 0.001, 9, "measured") for b in plan.measured}
    found = interpolate_rows(plan.blocks, plan.measured, rows)
    assert set(found) == {b.signature for b in plan.blocks} - set(rows)
    for block in plan.blocks:
        if block.signature in found:
            assert found[block.signature].median_ms == pytest.approx(0.1 + 0.03 * block.in_size_px)
            assert (found[block.signature].origin, found[block.signature].n) == ("interpolated", 0)


# -- how blocks add up -----------------------------------------------------------------------------------


def test_features_of_a_chain_by_hand(layout, rng):
    blocks = distinct_blocks(layout)
    rows = {b.signature: Row(0.5 + i, 0.1, 9, "measured") for i, b in enumerate(blocks)}
    archs = layout.space.sample(rng, 5)
    found = correction_features(layout, archs, Device(load_profile("local-cpu"), rows))
    for arch, row in zip(archs, found, strict=True):
        chain = [b for _, b in layout.blocks(arch)]
        sizes = np.sum([block_melements(b) for b in chain], axis=0)
        times = sum(rows[b.signature].median_ms for b in chain)
        assert row.tolist() == pytest.approx([times, len(chain), 1.0, *sizes])


def test_sizes_of_a_block_by_hand(layout):
    stem = layout.blocks(layout.space.smallest())[0][1]
    assert (stem.in_channels, stem.out_channels, stem.kernel_size, stem.stride) == (5, 8, 3, 1)
    border, weights = block_melements(stem)
    assert border == pytest.approx((5 + 8) * stem.in_size_px**2 / 1e6)
    assert weights == pytest.approx(5 * 8 * 9 / 1e6)


def test_a_correction_that_holds_exactly_is_found(rng):
    n = 30
    features = np.column_stack(
        [rng.uniform(1, 9, n), rng.integers(5, 20, n), np.ones(n), rng.uniform(0, 0.5, n), rng.uniform(0, 1, n)]
    )
    measured = features @ [0.83, -0.02, 0.4, -1.5, 2.0]
    found = fit_correction(features, measured)
    assert found.model_dump() == pytest.approx({**TRUTH.model_dump(), "n_networks": n}, rel=1e-5)


def test_few_networks_fit_few_constants(rng):
    features = np.column_stack(
        [rng.uniform(1, 9, 12), rng.integers(5, 20, 12), np.ones(12), rng.uniform(0, 1, (12, 2))]
    )
    found = fit_correction(features, features[:, :3] @ [0.83, -0.02, 0.4])
    assert (found.scale, found.per_block_ms, found.constant_ms) == pytest.approx((0.83, -0.02, 0.4), rel=1e-6)
    assert (found.border_ms_per_melement, found.weight_ms_per_melement) == (0, 0)


def test_a_network_that_was_disturbed_hardly_moves_the_correction(rng):
    n = 30
    features = np.column_stack(
        [rng.uniform(1, 9, n), rng.integers(5, 20, n), np.ones(n), rng.uniform(0, 0.5, n), rng.uniform(0, 1, n)]
    )
    constants = np.array([0.83, -0.02, 0.4, -1.5, 2.0])
    measured = features @ constants
    measured[7] *= 2
    c = fit_correction(features, measured)
    found = [c.scale, c.per_block_ms, c.constant_ms, c.border_ms_per_melement, c.weight_ms_per_melement]
    others = np.arange(n) != 7
    np.testing.assert_allclose((features @ found)[others], (features @ constants)[others], rtol=0.02)


def test_a_correction_is_fitted_on_relative_error():
    """One slow network off by a little must not outweigh many fast ones."""
    features = np.column_stack([np.r_[np.full(10, 1.0), 100.0], np.full(11, 5.0), np.ones(11), np.zeros((11, 2))])
    measured = np.r_[np.full(10, 1.0), 150.0]
    found = fit_correction(features, measured)
    estimates = features[:, :3] @ [found.scale, found.per_block_ms, found.constant_ms]
    np.testing.assert_allclose(estimates, measured, rtol=1e-6)


def test_which_devices_need_a_table():
    assert needs_table(load_device("local-cpu"))
    assert not needs_table(load_device("hexagon-dsp"))
    assert not needs_table(Device(load_profile("local-cpu"), {"conv": Row(1.0, 0.1, 9, "measured")}))


# -- whole tables ----------------------------------------------------------------------------------------


class Machine:
    """Block times by a rule, networks by `TRUTH`; its speed can be told."""

    def __init__(self, layout, slow=1.0):
        self.layout, self.slow = layout, slow
        self.blocks = {f"block [{b.signature}]": b for b in distinct_blocks(layout)}
        self.archs, self.precisions = {}, set()

    def alone(self, block):
        return 0.05 + 0.02 * block.in_size_px + 0.001 * block.out_channels

    def whole(self, arch):
        chain = [b for _, b in self.layout.blocks(arch)]
        return TRUTH.constant_ms + sum(TRUTH.block_ms(self.alone(b), *block_melements(b)) for b in chain)

    def time_ms(self, name):
        return self.slow * (
            self.alone(self.blocks[name]) if name in self.blocks else self.whole(self.archs[name.split()[-1]])
        )


@pytest.fixture
def machine(layout, monkeypatch):
    return machine_of(layout, monkeypatch)


def machine_of(layout, monkeypatch):
    """Models are not built: their bytes are their names."""
    made = Machine(layout)

    def network(layout, arch, batch_size, precision):
        made.precisions.add(precision)
        made.archs[arch.key] = arch
        return f"network {arch.key}".encode()

    for module in (build, check, slowdown):
        monkeypatch.setattr(module, "network_onnx", network)
    monkeypatch.setattr(build, "block_onnx", lambda block, batch_size, precision: f"block [{block.signature}]".encode())
    monkeypatch.setattr("hwnas.latency.measure.precision_of", lambda model: "fp32")
    return made


MEDIUM = TableConfig(n_networks=24, n_held_out=8, rounds=2)


def test_a_table_in_8_bits_times_models_in_8_bits(layout, tmp_path, machine, made_up):
    target = made_up(machine.time_ms)
    made = build_table(layout, tmp_path / "my-int8", "local-cpu-int8", target=target, config=MEDIUM)
    assert machine.precisions == {"int8"}
    assert made.profile.precision == made.profile.conditions["precision"] == "int8"
    check_table(layout, tmp_path / "my-int8", networks=4, target=target, config=MEDIUM)
    assert machine.precisions == {"int8"}, "nor does a check time others"


@pytest.mark.parametrize("precision", ["w8a16", "INT4", "fp8"])
def test_a_precision_in_which_no_models_are_written_is_refused(precision, layout, tmp_path, machine, made_up):
    other = load_profile("local-cpu").model_copy(update={"precision": precision})
    with pytest.raises(TableError, match=f"computes in '{precision}', in which hwnas writes no models to time"):
        build_table(layout, tmp_path / "mine", other, target=made_up(machine.time_ms), config=MEDIUM)
    assert not (tmp_path / "mine").exists()


def test_blocks_and_networks_in_8_bits_are_what_runtimes_make_integer_operators_of(layout, tmp_path):
    blocks = distinct_blocks(layout)
    for block in [blocks[0], blocks[len(blocks) // 2], blocks[-1]]:
        (tmp_path / "b.onnx").write_bytes(block_onnx(block, 1, "int8"))
        assert precision_of(tmp_path / "b.onnx") == "int8"
        kinds = [n.op_type for n in onnx.load(tmp_path / "b.onnx").graph.node]
        assert kinds[-2:] == ["QuantizeLinear", "DequantizeLinear"], "the output of a block has 8 bits"
        ran = node_placement(tmp_path / "b.onnx")
        assert any(op in ("QLinearConv", "QGemm") for _, op in ran.nodes), ran
        assert not any(op in ("Conv", "FusedConv") for _, op in ran.nodes), "no convolution is left in float"
    arch = layout.space.smallest()
    (tmp_path / "n.onnx").write_bytes(network_onnx(layout, arch, 1, "int8"))
    ran = node_placement(tmp_path / "n.onnx")
    assert sum(op == "QLinearConv" for _, op in ran.nodes) >= 3
    assert not any(op in ("Conv", "FusedConv", "Relu") for _, op in ran.nodes), ran


def test_a_table_of_a_known_machine_is_exact(layout, tmp_path, machine, made_up):
    told = []
    target = made_up(machine.time_ms)
    made = build_table(
        layout, tmp_path, name="local-cpu", target=target, config=MEDIUM,
        progress=lambda *args, **_: told.append(args),
    )  # fmt: skip
    assert made.profile.error.mape_percent == pytest.approx(0, abs=1e-2)
    assert made.profile.error.n_held_out == 8
    assert made.profile.origin == "measured"
    assert made.profile.conditions["device"] == "a processor, 2 cores"
    assert made.profile.conditions["resolutions"] == "11,13"
    assert made.profile.interpolation is None
    assert load_device(tmp_path) == made
    archs = layout.space.sample(np.random.default_rng(3), 20)
    np.testing.assert_allclose([made.estimate_ms(a) for a in archs], [machine.whole(a) for a in archs], rtol=1e-3)
    assert told[0][0] == "plan the table"
    assert told[0][3].endswith("blocks and 32 networks, 2 times each")
    known = read_networks(tmp_path, layout.space)
    assert [k.fitted for k in known] == [True] * 24 + [False] * 8
    assert known[0].measured_ms == pytest.approx(machine.whole(layout.space.smallest()), rel=1e-4)


def one_network(layout, n_left=1):
    """The space of the largest network and its neighbours in resolution."""
    space = layout.space.restrict({"resolution": list(layout.space["resolution"].options)[-n_left:]})
    for name in [c.name for c in space.choices if c.name != "resolution"]:
        space = space.restrict({name: [space[name].options[-1]]})
    return replace(layout, space=space)


@pytest.mark.parametrize("n_networks", [1, 2])
def test_a_space_of_few_networks_has_a_table_without_a_published_error(
    layout, n_networks, tmp_path, monkeypatch, made_up
):
    few = one_network(layout, n_networks)
    machine = machine_of(few, monkeypatch)
    made = build_table(few, tmp_path, name="mine", config=MEDIUM, target=made_up(machine.time_ms))
    assert (made.profile.error, made.profile.interpolation) == (None, None)
    assert made.profile.correction.n_networks == n_networks == few.space.size
    for arch in few.space.decode_many(few.space.all_genomes()):
        assert made.estimate_ms(arch) == pytest.approx(machine.whole(arch), rel=0.02)
    assert load_device(tmp_path) == made
    found = check_table(few, tmp_path, target=made_up(machine.time_ms), config=MEDIUM)
    assert found["n_networks"] == n_networks
    assert found["mape_percent"] < 2


def test_of_a_small_space_a_third_of_the_networks_judges(layout):
    space = one_network(layout, 2).space
    stage = next(c.name for c in space.choices if len(layout.space[c.name].options) > 2 and c.parent is None)
    several = replace(layout, space=replace(space, choices=tuple(
        layout.space[c.name] if c.name == stage else c for c in space.choices
    )))  # fmt: skip
    n = several.space.size
    if n < 6:
        pytest.skip("the space of the tests has changed")
    plan = plan_build(several, TableConfig())
    assert (len(plan.fitted), len(plan.held_out)) == (-(-2 * n // 3), n - -(-2 * n // 3))


def test_a_machine_that_jumps_is_no_other_machine(layout, tmp_path, machine, made_up):
    def jumping(moment):
        return 0.62 if (moment // 41) % 4 == 2 else 1.0

    target = made_up(machine.time_ms, jumping, noise=0.02, session_noise=0.01)
    made = build_table(layout, tmp_path, name="local-cpu", config=TableConfig(), target=target)
    assert made.profile.error.mape_percent < 2
    assert made.profile.error.spearman > 0.98


def test_an_interrupted_build_continues(layout, tmp_path, machine, made_up):
    config = MEDIUM
    whole = made_up(machine.time_ms)
    expected = build_table(layout, tmp_path / "whole", name="local-cpu", config=config, target=whole)
    n_planned = 24  # timings of the plan come first
    stopping = made_up(machine.time_ms, stop_after=n_planned + 50)
    with pytest.raises(KeyboardInterrupt):
        build_table(layout, tmp_path / "cut", name="local-cpu", config=config, target=stopping)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["timings.jsonl"]
    with (tmp_path / "cut" / "timings.jsonl").open("a") as file:
        file.write('{"model": 3, "sess')  # killed while it wrote
    rest = made_up(machine.time_ms)
    found = build_table(layout, tmp_path / "cut", name="local-cpu", config=config, target=rest)
    assert len(rest.asked) == len(whole.asked) - 50
    assert found.rows.keys() == expected.rows.keys()
    assert {s: r.median_ms for s, r in found.rows.items()} == pytest.approx(
        {s: r.median_ms for s, r in expected.rows.items()}, rel=1e-4
    )
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [
        "SHA256SUMS",
        "blocks.csv",
        "networks.csv",
        "profile.yaml",
    ]


def test_timings_of_another_build_are_dropped(layout, tmp_path, machine, made_up):
    (tmp_path / "timings.jsonl").write_text(json.dumps({"build": {"plan": "another"}}) + "\n{}\n")
    made = build_table(layout, tmp_path, name="local-cpu", config=SMALL, target=made_up(machine.time_ms))
    assert made.profile.error.n_held_out == 4


def test_held_out_networks_judge_the_correction_and_do_not_shape_it(layout, tmp_path, machine, made_up):
    """Only held-out ones take twice as long as the rule says: the table follows the rule, and is said to be wrong."""
    held_out = {a.key for a in plan_build(layout, MEDIUM).held_out}

    def time_ms(name):
        return machine.time_ms(name) * (2 if name.split()[-1] in held_out else 1)

    made = build_table(layout, tmp_path, name="mine", config=MEDIUM, target=made_up(time_ms))
    archs = layout.space.sample(np.random.default_rng(3), 20)
    np.testing.assert_allclose([made.estimate_ms(a) for a in archs], [machine.whole(a) for a in archs], rtol=1e-3)
    assert made.profile.error.mape_percent == pytest.approx(50, abs=0.1)


def test_the_error_of_interpolation_is_that_of_networks_between(many_resolutions, tmp_path, made_up, monkeypatch):
    """Networks at resolutions that were not measured take a quarter longer than blocks between would say."""
    machine = machine_of(many_resolutions, monkeypatch)

    def time_ms(name):
        ms = machine.time_ms(name)
        if name.startswith("network") and machine.archs[name.split()[-1]]["resolution"] in (10, 14, 18):
            return 1.25 * ms
        return ms

    config = TableConfig(n_networks=24, n_held_out=8, rounds=1)
    made = build_table(many_resolutions, tmp_path, name="mine", config=config, target=made_up(time_ms))
    assert made.profile.interpolation.mape_percent == pytest.approx(20, abs=0.5)
    assert made.profile.interpolation.n_held_out == 4
    assert made.profile.error.mape_percent == pytest.approx(10, abs=0.5)
    target = made_up(time_ms)
    found = check_table(many_resolutions, tmp_path, 6, config=config, target=target)
    assert set(found["resolutions"]) <= {10, 14, 18}  # where the correction was not fitted
    assert found["n_networks"] == 6


@pytest.mark.parametrize("change", ["runtime", "options", "plan"])
def test_timings_of_another_target_runtime_or_plan_are_not_continued(layout, tmp_path, machine, made_up, change):
    profile = load_profile("local-cpu")
    stopping = made_up(machine.time_ms, stop_after=24 + 50)
    with pytest.raises(KeyboardInterrupt):
        build_table(layout, tmp_path / "cut", profile, config=MEDIUM, target=stopping)
    whole, rest, config = made_up(machine.time_ms), made_up(machine.time_ms), MEDIUM
    build_table(layout, tmp_path / "whole", profile, config=MEDIUM, target=whole)
    if change == "runtime":
        rest.facts = lambda: replace(stopping.facts(), runtime="onnxruntime-2")
    if change == "options":
        profile = profile.model_copy(update={"target_options": {"host": "another"}})
    if change == "plan":
        config = MEDIUM.model_copy(update={"seed": 1})
    build_table(layout, tmp_path / "cut", profile, config=config, target=rest)
    assert len(rest.asked) == len(whole.asked)


def test_a_table_is_timed_as_its_profile_and_settings_say(layout, tmp_path, machine, made_up):
    target = made_up(machine.time_ms)
    profile = load_profile("local-cpu").model_copy(update={"threads": 3, "batch_size": 2})
    made = build_table(layout, tmp_path, profile, "mine", config=MEDIUM, target=target)
    assert {(c.threads, c.batch_size, c.provider) for c in target.configs} == {(3, 2, "CPUExecutionProvider")}
    n_blocks = len(made.rows)
    assert target.configs[-1].burst_s == (MEDIUM.block_time_s,) * n_blocks + (MEDIUM.network_time_s,) * 32
    assert (made.profile.conditions["threads"], made.profile.conditions["batch_size"]) == (3, 2)
    first, second = target.asked[-2 * (n_blocks + 32) : -(n_blocks + 32)], target.asked[-(n_blocks + 32) :]
    assert sorted(first) == sorted(second)
    assert first != second != sorted(second)


def test_fresh_networks_of_a_check_are_not_those_of_the_table(layout, tmp_path, machine, made_up):
    """Not even with the seed of the table: what it was fitted to says nothing about other networks."""
    build_table(layout, tmp_path, name="mine", config=MEDIUM, target=made_up(machine.time_ms))
    target = made_up(machine.time_ms)
    found = check_table(layout, tmp_path, MEDIUM.n_networks, seed=MEDIUM.seed, config=MEDIUM, target=target)
    assert found["n_networks"] == 24
    assert len(set(target.asked)) == 24 + 16  # and those that say how fast the machine runs now


def test_networks_that_are_timed_again_are_spread_over_the_latencies(layout):
    archs = network_sample(layout.space, 30, 0)
    known = [TableNetwork(a, True, float(i)) for i, a in enumerate(archs)]
    found = [k.measured_ms for k in choose_repeats(known)]
    assert (len(found), found[0], found[-1]) == (16, 0.0, 29.0)
    assert choose_repeats(known[:3]) == known[:3]


def test_a_check_is_judged_at_the_speed_of_now(layout, tmp_path, machine, made_up):
    """The same machine, but everything takes 1.7 times as long: the error stays near 0, and the slowdown is said."""
    build_table(layout, tmp_path, name="local-cpu", config=MEDIUM, target=made_up(machine.time_ms))
    machine.slow = 1.7
    found = check_table(layout, tmp_path, 12, config=MEDIUM, target=made_up(machine.time_ms))
    assert found["machine_slowdown"] == pytest.approx(1.7, rel=1e-3)
    assert found["mape_percent"] < 0.2
    assert found["mape_percent_as_timed"] == pytest.approx(100 * (1 - 1 / 1.7), abs=0.2)
    assert found["within_10_percent"] == 100
    assert found["spearman"] > 0.999
    assert set(found["worst"]) == {"arch", "predicted_ms", "measured_ms", "error_percent"}
    assert found["worst"]["error_percent"] < 1
    assert found["n_networks"] == 12


def test_damaged_networks_are_named(layout, tmp_path):
    (tmp_path / "networks.csv").write_text("key,fitted\nabc,1\n")
    with pytest.raises(TableError, match=r"networks\.csv is damaged.*build the table again"):
        read_networks(tmp_path, layout.space)


@pytest.mark.slow
def test_a_table_is_really_measured(layout, tmp_path):
    told = []
    made = build_table(
        layout, tmp_path, name="local-cpu", config=SMALL, progress=lambda *args, **_: told.append(args[:3])
    )
    blocks = distinct_blocks(layout)
    assert set(made.rows) == {b.signature for b in blocks}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SHA256SUMS", "blocks.csv", "networks.csv", "profile.yaml"]
    with (tmp_path / "blocks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(blocks)
    assert {r["origin"] for r in rows} == {"measured"}
    assert all(int(r["n"]) >= 3 for r in rows)
    found = load_device(tmp_path)
    assert not needs_table(found)
    assert found.profile.conditions["provider"] == "CPUExecutionProvider"
    assert found.profile.conditions["runtime"].startswith("onnxruntime-")
    assert found.profile.error.n_held_out == 4
    assert np.isfinite(found.compile(layout).of_archs(layout.space.sample(np.random.default_rng(0), 20))).all()
    assert told[0][0] == "plan the table"
    assert told[-1] == ("time blocks and networks", len(blocks) + 10, len(blocks) + 10)
    checked = check_table(layout, tmp_path, 4, config=SMALL)
    assert checked["n_networks"] == 4
    assert checked["mape_percent"] >= 0


# -- does it hold ----------------------------------------------------------------------------------------------


def test_a_table_of_another_machine_is_doubted_and_refused_with_strict(layout, tmp_path, machine, made_up):
    device = build_table(layout, tmp_path, name="local-cpu", config=SMALL, target=made_up(machine.time_ms))
    assert mismatches(device, made_up(machine.time_ms)) == []
    (text,) = mismatches(device)  # this machine is not the made-up one
    assert "device is 'a processor, 2 cores' in the table" in text
    assert "measure again with `hwnas tables build`" in text
    with pytest.raises(TableMismatchError, match="measured under other conditions"):
        mismatches(device, strict=True)
    assert mismatches(load_device("hexagon-dsp"), strict=True) == []


def test_times_in_other_units_are_flagged(layout):
    blocks = distinct_blocks(layout)
    device = load_device("note10-cpu")
    values = [device.block_ms(b) for b in blocks]
    model = device.profile.cost_model
    assert unit_warning(blocks, values, model, "note10-cpu") is None
    assert unit_warning(blocks, [7 * v for v in values], model, "note10-cpu") is None
    assert "look like microseconds" in unit_warning(blocks, [1000 * v for v in values], model, "note10-cpu")
    assert "look like seconds" in unit_warning(blocks, [v / 1000 for v in values], model, "note10-cpu")
