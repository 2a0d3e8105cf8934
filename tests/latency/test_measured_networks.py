"""Profiles from networks of anybody's: operator lists, ONNX files, archs; warm starts; and what cannot be fitted."""

import csv
import gzip
import json
import re
import sys

import numpy as np
import pytest

from hwnas import fit_profile
from hwnas.cli.main import main
from hwnas.errors import DeviceError, TableError
from hwnas.export.onnx_file import to_onnx
from hwnas.export.op import Op
from hwnas.latency.cost_model import CostModel
from hwnas.latency.cost_terms import coefficients_of, cost_model_of, kind_sums, model_sums
from hwnas.latency.device import devices, load_profile
from hwnas.latency.fit_candidates import best_of, candidates
from hwnas.latency.measured_networks import arch_ops, read_measured
from hwnas.latency.op_lists import read_op_lists

SAID = {"source": "us", "licence": "MIT"}
COLUMNS = ("network", "type", "in_channels", "out_channels", "in_size_px", "out_size_px", "kernel_size", "groups")
MODEL = load_profile("qcs8550-fp16").cost_model


def plain(width, depth, size=28):
    ops = [Op("conv", 3, width, size, size, 3)]
    return ops + [Op("conv", width, width, size, size, 3), Op("conv", width, width, size, size)] * depth


def mobile(width, depth, size=28):
    ops = [Op("conv", 3, width, size, size, 3)]
    for _ in range(depth):
        ops += [
            Op("conv", width, 4 * width, size, size),
            Op("depthwise_conv", 4 * width, 4 * width, size, size, 3, 1, 4 * width),
            Op("mul", 4 * width, 4 * width, size, size),
            Op("conv", 4 * width, width, size, size),
        ]
    return ops


NETS = {
    **{f"plain{i}": plain(8 * i, 1 + i % 3) for i in range(2, 8)},
    **{f"mobile{i}": mobile(8 * i, 1 + i % 4, 14 + 2 * i) for i in range(2, 8)},
}


@pytest.fixture
def lists(tmp_path):
    path = tmp_path / "ops.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, ops in NETS.items():
            for op in ops:
                writer.writerow([name, *(getattr(op, c) for c in COLUMNS[1:])])
    return path


@pytest.fixture
def written(tmp_path):
    def write(rows, columns=("network", "latency_ms"), name="m.csv"):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
        return tmp_path / name

    return write


def copy(lists, name, new):
    """Add a network of the same operators to a list."""
    text = lists.read_text()
    rows = [line for line in text.splitlines() if line.startswith(f"{name},")]
    lists.write_text(text + "".join(line.replace(name, new, 1) + "\n" for line in rows))


def times(factor=1.0, names=NETS):
    return [(n, factor * MODEL.latency_ms(NETS[n])) for n in names]


def test_lists_of_operators_are_read_as_they_were_written(lists, tmp_path):
    found = read_op_lists(lists)
    assert {name: list(ops) for name, ops in found.items()} == NETS
    (tmp_path / "ops.csv.gz").write_bytes(gzip.compress(lists.read_bytes()))
    assert read_op_lists(tmp_path / "ops.csv.gz") == found


def test_a_network_that_is_listed_twice_is_refused(lists):
    """Its operators would be added up, and the network fitted as one of twice the size."""
    copy(lists, "plain2", "plain2")
    with pytest.raises(TableError, match="the operators of network plain2 stand in two places; list a network once"):
        read_op_lists(lists)


def test_operators_that_hwnas_does_not_have_concern_only_their_network(lists):
    lists.write_text(lists.read_text() + "vit,softmax,3,3,4,4,1,1\nvit,conv,3,3,4,4,1,1\nnew,relu6,3,3,4,4,1,1\n")
    found = read_op_lists(lists)
    assert "'softmax' is none of" in found["vit"]
    assert found["new"] == (Op("relu", 3, 3, 4, 4),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,conv,x,3,4,4,1,1", "in_channels is 'x'; give a whole number from 1"),
        ("a,conv,3,3,4,-4,1,1", "out_size_px is '-4'; give a whole number"),
        ("a,conv,3,3,4.5,4,1,1", "in_size_px is '4.5'"),
        ("a,conv,3,3,4,4,1,2", "3 channels cannot be divided into 2 groups"),
        (",conv,3,3,4,4,1,1", "network is empty"),
        ("a,conv,3,3,4,4,0,1", "kernel_size is '0'; give a whole number from 1"),
        (f"a,conv,3,3,4,{'9' * 5000},1,1", "out_size_px is '9+ ... 9+'; give a whole number from 1 to 16,777,216"),
        ("a,conv,3,3,4,99999999,1,1", "out_size_px is '99999999'; give a whole number from 1 to 16,777,216"),
    ],
)
def test_bad_operators_are_refused_with_their_line(row, message, tmp_path):
    (tmp_path / "ops.csv").write_text(",".join(COLUMNS) + "\n" + row + "\n")
    with pytest.raises(TableError, match=f"line 2: {message}"):
        read_op_lists(tmp_path / "ops.csv")


def test_a_known_device_is_found_again_from_few_networks(lists, written, tmp_path):
    """Twice as slow as a shipped device: 8 networks say so, and the ones that were not timed are right, too."""
    timed = [*list(NETS)[::2], "mobile7", "plain3"]
    made = fit_profile(None, written(times(2.0, timed)), **SAID, out=tmp_path / "d", operators=lists, precision="fp16")
    assert made.error.mape_percent < 0.1
    for name, ops in NETS.items():
        assert made.cost_model.latency_ms(ops) == pytest.approx(2 * MODEL.latency_ms(ops), rel=0.01), name


def test_a_warm_start_beats_none_where_few_networks_were_timed(lists, written, tmp_path):
    """Another device of the same kind, timed with noise: a known one tells what few networks cannot."""
    noise = np.exp(np.random.default_rng(3).normal(0, 0.06, len(NETS)))
    timed = ["plain2", "plain5", "plain7", "mobile2", "mobile3", "mobile5", "mobile6"]
    rows = [(n, ms * e) for (n, ms), e in zip(times(2.0), noise, strict=True) if n in timed]
    rest = [n for n in NETS if n not in timed]

    def error(name, **options):
        made = fit_profile(None, written(rows), **SAID, out=tmp_path / name, operators=lists, **options)
        return np.mean([abs(made.cost_model.latency_ms(NETS[n]) / MODEL.latency_ms(NETS[n]) / 2 - 1) for n in rest])

    assert error("warm", bases=["qcs8550-fp16"]) < 0.05
    assert error("cold", bases=[]) > 1.5 * error("warm2", bases=["qcs8550-fp16"])


def test_parts_of_a_known_device_may_change_by_different_factors(lists, written, tmp_path):
    """Depthwise convolutions twice, operators 1.3 times as slow as on a known device: the parts are found."""
    values = MODEL.model_dump()
    for kind, cost in values["ops"].items():
        if cost["overhead_ms"] is not None:
            cost["overhead_ms"] *= 1.3
        if kind == "depthwise_conv":
            cost["gmacs_per_s"] /= 2
    device = CostModel.model_validate(values)
    sums = kind_sums(list(NETS.values()))
    ms = np.array([device.latency_ms(ops) for ops in NETS.values()])
    tried = {c.name: c for c in candidates(sums, np.zeros(len(ms)), {"known": MODEL}, len(ms))}
    loose, scaled = tried["known, in parts (0.1)"], tried["known, scaled"]
    assert scaled.freedom < tried["known, in parts (0.3)"].freedom < loose.freedom
    made = loose.made(loose.fit(ms).tolist(), "here")
    assert made.ops["depthwise_conv"].gmacs_per_s < 0.9 * MODEL.ops["depthwise_conv"].gmacs_per_s
    errors = [np.abs(c.columns @ c.fit(ms) / ms - 1).max() for c in (loose, scaled)]
    assert errors[0] < 0.5 * errors[1]
    np.testing.assert_allclose(loose.columns @ loose.fit(ms), [made.latency_ms(o) for o in NETS.values()], rtol=1e-9)


def test_the_simplest_of_equally_good_models_is_kept():
    sums = kind_sums(list(NETS.values()))
    ms = np.array([0.5 + 2 * MODEL.latency_ms(ops) for ops in NETS.values()])
    tried = candidates(sums, np.zeros(len(ms)), {"known": MODEL}, len(ms))
    kept, errors = best_of(tried, ms, range(len(ms)))
    assert kept.name == "known, scaled"
    assert errors[tried.index(kept)] <= min(errors) + 1e-6


def test_rows_may_name_archs_files_and_listed_networks_together(layout, lists, written, tmp_path):
    archs = layout.space.sample(np.random.default_rng(0), 6)
    device = load_profile("edge-tpu").cost_model
    rows = []
    for i, arch in enumerate(archs):
        ms = device.latency_ms(arch_ops(layout, arch))
        if i % 2:
            channels, size, _ = layout.input_shape(arch)
            to_onnx(layout.build_subnet(arch).eval(), channels, size, tmp_path / f"net{i}.onnx")
            rows.append(("", "", f"net{i}.onnx", ms))
        else:
            rows.append((json.dumps(arch.as_dict()), "", "", ms))
    rows += [("", n, "", device.latency_ms(NETS[n])) for n in list(NETS)[4:8]]
    path = written(rows, ("arch", "network", "file", "latency_ms"))
    networks = read_measured(path, layout, lists)
    assert [n.name for n in networks][:4] == [archs[0].key, "net1", archs[2].key, "net3"]
    made = fit_profile(layout, path, **SAID, out=tmp_path / "d", operators=lists)
    assert made.error.mape_percent < 0.1


def test_errors_are_published_by_family_and_for_families_left_out(lists, written, tmp_path):
    noise = np.exp(np.random.default_rng(0).normal(0, 0.05, len(NETS)))
    rows = [(n, ms * e, "odd" if n[-1] in "35" else "") for (n, ms), e in zip(times(), noise, strict=True)]
    made = fit_profile(
        None, written(rows, ("network", "latency_ms", "family")), **SAID, out=tmp_path / "d", operators=lists
    )
    assert set(made.error.mape_percent_by_family) == {"plain", "mobile", "odd"}
    assert made.family_error.networks.endswith("each family left out once")
    assert made.family_error.mape_percent != made.error.mape_percent
    assert made.error.kendall > 0.5


def test_normalisation_inside_some_networks_is_told_apart(lists, written, tmp_path):
    rows = [(n, ms + 0.4 * (i % 2), "yes" if i % 2 else "no") for i, (n, ms) in enumerate(times())]
    made = fit_profile(
        None, written(rows, ("network", "latency_ms", "normalises_input")), **SAID, out=tmp_path / "d", operators=lists
    )
    assert made.cost_model.input_normalisation_ms == pytest.approx(0.4, rel=0.02)
    ops = NETS["mobile4"]
    assert made.cost_model.latency_ms(ops) == pytest.approx(MODEL.latency_ms(ops), rel=0.02)


@pytest.mark.parametrize("given", ["yes", "no"])
def test_a_normalisation_that_all_or_no_networks_have_is_not_counted_twice(given, lists):
    sums, n = kind_sums(list(NETS.values())), len(NETS)
    known = CostModel.model_validate(MODEL.model_dump() | {"input_normalisation_ms": 0.4})
    normalises = np.full(n, float(given == "yes"))
    ms = np.array([2 * known.latency_ms(ops) for ops in NETS.values()]) + 0.8 * normalises
    for one in candidates(sums, normalises, {"known": known}, n):
        constants = one.fit(ms)
        made = one.made(constants.tolist(), "here")
        said = [made.latency_ms(ops) for ops in NETS.values()] + made.input_normalisation_ms * normalises
        np.testing.assert_allclose(said, one.columns @ constants, rtol=1e-9, err_msg=one.name)


def test_networks_of_equal_operators_are_left_out_together(lists, written, tmp_path):
    """Else a copy of a network would predict it: what the others say of the two does not depend on their times."""
    copy(lists, "mobile6", "copy6")

    def said_by_the_others(factor):
        rows = [(n, ms * factor if n == "mobile6" else ms) for n, ms in times()]
        rows.append(("copy6", dict(rows)["mobile6"]))
        made = fit_profile(None, written(rows), **SAID, out=tmp_path / "d", operators=lists, bases=["qcs8550-fp16"])
        far = [re.match(r"(?:mobile6|copy6) was measured far.*by the others ([\d.]+) ms", note) for note in made.notes]
        return [float(match[1]) for match in far if match]

    found = said_by_the_others(3.0)
    assert len(found) == 2
    assert said_by_the_others(6.0) == found


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([*times(), ("plain2", 99.0)], None, "network plain2 stands twice with different latencies"),
        (times()[:4], None, "has 4 networks; time at least 5"),
        ([*times(), ("resnet9", 1.0)], None, "network resnet9 is not in .*ops.csv; it has mobile2, "),
        ([(n, "1 ms") for n in NETS], None, "with the unit 'ms' in the cell"),
        ([(n, -1) for n in NETS], None, "latency_ms is '?-1.*"),
        ([("", ms) for _, ms in times()], None, "names no network; fill in one of arch, network, file"),
        ([("a.onnx", 1.0)], ("file", "latency_ms"), "a.onnx does not exist; file is looked for beside"),
        ([("../a.onnx", 1.0)], ("file", "latency_ms"), "'../a.onnx' is no name of a file in it"),
        ([("{}", 1.0)], ("arch", "latency_ms"), "names an arch; say of which recipe"),
        ([(1.0,)], ("latency_ms",), "lacks a column that names networks; give one of arch, network, file"),
        ([(*r, "perhaps") for r in times()], ("network", "latency_ms", "normalises_input"), "write yes or no"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rows, columns, message, lists, written, tmp_path):
    path = written(rows, *([columns] if columns else []))
    with pytest.raises(TableError, match=message) as caught:
        fit_profile(None, path, **SAID, out=tmp_path / "d", operators=lists)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "d").exists()


def test_latencies_that_no_device_has_are_refused(lists, written, tmp_path):
    for factor in (1e300, 1e-300):
        path = written([(n, f"{ms * factor:g}") for n, ms in times()])
        with pytest.raises(TableError, match=r"line 2: latency_ms is .* ms; give 1e-06 to 1e.09 ms"):
            fit_profile(None, path, **SAID, out=tmp_path / "d", operators=lists, unit="ms")
    with pytest.raises(TableError, match=r"no device has \(network_overhead_ms: .*are they milliseconds"):
        cost_model_of(2e9, [], [], "here")


def test_a_name_without_a_list_says_what_to_give(written, tmp_path):
    with pytest.raises(TableError, match="give the list of its operators"):
        fit_profile(None, written(times()), **SAID, out=tmp_path / "d")


def test_networks_of_one_family_are_refused_with_what_is_missing(lists, written, tmp_path):
    rows = times(names=[n for n in NETS if n.startswith("plain")])
    with pytest.raises(TableError, match=r"one family \('plain'\), without depthwise convolutions: .*other families"):
        fit_profile(None, written(rows), **SAID, out=tmp_path / "d", operators=lists)
    # With everything that takes time in them, one family is enough to fit to; and archs of one recipe are.
    rows = times(names=[n for n in NETS if n.startswith("mobile")])
    assert fit_profile(None, written(rows), **SAID, out=tmp_path / "d", operators=lists).family_error is None


@pytest.mark.parametrize(("factor", "unit", "said"), [(1e3, "us", "microseconds"), (1e-3, "s", "seconds")])
def test_other_units_are_refused_unless_they_are_named(factor, unit, said, lists, written, tmp_path):
    path = written(times(factor))
    with pytest.raises(TableError, match=f"they look like {said}: give --unit {unit}, or --unit ms"):
        fit_profile(None, path, **SAID, out=tmp_path / "d", operators=lists)
    made = fit_profile(None, path, **SAID, out=tmp_path / "d", operators=lists, unit=unit)
    assert made.cost_model.latency_ms(NETS["plain4"]) == pytest.approx(MODEL.latency_ms(NETS["plain4"]), rel=0.01)
    as_given = fit_profile(None, path, **SAID, out=tmp_path / "e", operators=lists, unit="ms")
    assert as_given.cost_model.latency_ms(NETS["plain4"]) == pytest.approx(
        factor * MODEL.latency_ms(NETS["plain4"]), rel=0.01
    )
    with pytest.raises(TableError, match="unit 'min' is unknown"):
        fit_profile(None, path, **SAID, out=tmp_path / "d", operators=lists, unit="min")


def test_models_with_more_constants_than_networks_are_not_tried(lists, written, tmp_path):
    sums = kind_sums(list(NETS.values())[:4])
    assert max(c.columns.shape[1] for c in candidates(sums, np.zeros(4), {}, 4)) == 2
    rows = [(n, 1.0 + i) for i, n in enumerate(["plain2", "a2", "b2", "c2", "d2"])]
    for name in ("a2", "b2", "c2", "d2"):
        copy(lists, "plain2", name)
    for row in rows:
        assert row[0] in read_op_lists(lists)
    with pytest.raises(TableError, match="1 different networks are fewer than the constants of any model"):
        fit_profile(
            None, written([(*r, r[0]) for r in rows], ("network", "latency_ms", "family")), **SAID,
            out=tmp_path / "d", operators=lists, bases=[],
        )  # fmt: skip


def test_an_unknown_base_is_refused(lists, written, tmp_path):
    with pytest.raises(DeviceError, match="device 'no-such' is unknown"):
        fit_profile(None, written(times()), **SAID, out=tmp_path / "d", operators=lists, bases=["no-such"])


def test_sums_by_kind_give_what_cost_models_say():
    sums = kind_sums(list(NETS.values()))
    for profile in devices():
        if profile.cost_model is not None:
            expected = [float(profile.cost_model.ops_ms(ops).sum()) for ops in NETS.values()]
            np.testing.assert_allclose(model_sums(profile.cost_model, sums), expected, rtol=1e-12)
            assert coefficients_of(profile.cost_model, sums).shape == sums.shape[1:]


def test_the_command_fits_without_a_recipe_and_says_errors_by_family(lists, written, tmp_path, monkeypatch, capsys):
    path = written(times(2.0))
    words = ["--operators", lists, "--source", "us", "--licence", "MIT", "--out", tmp_path / "board"]

    def call(*more):
        monkeypatch.setattr(sys, "argv", ["hwnas", "tables", "fit", *map(str, (path, *words, *more))])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, capsys.readouterr()

    code, said = call()
    assert code == 0, said.err
    assert "by family: mobile " in said.out
    code, said = call("--json")
    assert json.loads(said.out)["error"]["mape_percent_by_family"].keys() == {"mobile", "plain"}
    code, said = call("train.seed=3")
    assert code == 2
    assert "changes a recipe; give one with --recipe" in said.err
