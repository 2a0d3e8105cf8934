"""Every shipped device profile: loads, predicts sensibly, and is what its own fit gives."""

import importlib.util
import itertools
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from hwnas.export.op import Op
from hwnas.latency.cost_model import OP_TYPES
from hwnas.latency.device import load_profile, shipped_devices
from hwnas.latency.table import load_device
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("HWNAS_SHARED", ROOT.parent / "shared"))
MODELLED = [name for name in shipped_devices() if load_profile(name).cost_model is not None]
needs_data = pytest.mark.skipif(
    not (SHARED / "data" / "nasbench201").is_dir(),
    reason=f"the measurements are not at {SHARED} (set HWNAS_SHARED)",
)


@pytest.fixture(scope="module")
def fit():
    spec = importlib.util.spec_from_file_location("fit_cost_models", ROOT / "benchmarks" / "fit_cost_models.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def block(fit, channels=24, size_px=16, kernel_size=3, expand=3, se=True):
    return fit.mbconv_ops(
        channels, expand * channels, channels, size_px, size_px, kernel_size, 1,
        expand=True, skip=True, se=se, hswish=True,
    )  # fmt: skip


def test_the_profiles_named_in_the_readme_are_those_that_ship():
    readme = (ROOT / "latency_tables" / "README.md").read_text()
    listed = re.findall(r"^\| ([a-z0-9-]+) \| .* \| (?:measured|modelled) \|", readme, flags=re.MULTILINE)
    assert sorted(listed) == shipped_devices()
    for name in MODELLED:
        row = re.search(rf"^\| {name} \|.*$", readme, flags=re.MULTILINE).group()
        error = load_profile(name).error
        assert f"| {error.mape_percent} % | {error.within_10_percent} % |" in row
        assert row.endswith(f"| {error.r2:.3f} | {error.spearman:.3f} |")


@pytest.mark.parametrize("name", shipped_devices())
def test_every_profile_loads_and_says_where_it_comes_from(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.notes
    assert (profile.origin == "modelled") == (profile.cost_model is not None)


@pytest.mark.parametrize("name", MODELLED)
def test_every_operator_type_is_costed_and_only_relu_is_free(name):
    model = load_profile(name).cost_model
    assert set(model.ops) - {"pointwise_conv", "grouped_conv"} == set(OP_TYPES)
    assert [t for t in OP_TYPES if model.ops[t].fused] == ["relu"]
    for op_type in OP_TYPES:
        if op_type != "relu":
            assert model.op_ms(Op(op_type, 8, 8, 7, 7)) > 0


@pytest.mark.parametrize("name", MODELLED)
def test_latency_grows_with_every_size_of_a_mobilenet_block(name, fit):
    model = load_profile(name).cost_model

    def grows(choices, *, strictly=True):
        times = [model.latency_ms(block(fit, **choice)) for choice in choices]
        assert times[0] > 0
        assert all(a < b if strictly else a <= b for a, b in itertools.pairwise(times))

    grows([{"channels": c} for c in (8, 16, 24, 40, 112)])
    grows([{"size_px": s} for s in (2, 4, 8, 14, 28, 112)])
    grows([{"kernel_size": k} for k in (3, 5, 7)])
    grows([{"expand": e} for e in (1, 3, 4, 6)])
    grows([{"se": se} for se in (False, True)])


def test_squeeze_excite_costs_more_of_a_block_on_accelerators_than_on_cpus(fit):
    def share(name):
        model = load_profile(name).cost_model
        with_se, without = (sum(model.op_ms(op) for op in block(fit, 96, 14, se=se)) for se in (True, False))
        return with_se / without - 1

    cpus = max(share(name) for name in ("cortex-a76-cpu", "raspberry-pi-4", "note10-cpu"))
    assert cpus < min(share(name) for name in ("hexagon-dsp", "myriad-vpu", "edge-tpu"))


def test_cells_become_operators_without_dead_edges(fit):
    assert fit.prune_code("333000") == "000000"
    assert fit.prune_code("300300") == "000300"
    assert fit.prune_code("003342") == "000300"
    types = [op.type for op in fit.cell_ops("334131", 16, 32)]
    assert types == ["conv", "conv", "avg_pool", "conv", "add", "add", "add"]
    assert fit.cell_ops("000100", 16, 32) == []
    assert [op.type for op in fit.cell_ops("400020", 16, 32)] == ["avg_pool", "conv"]


def test_macs_of_a_nas_bench_201_network_are_the_published_ones(fit):
    assert sum(op.macs for op in fit.nb201_ops("334131")) == 113_951_360
    assert sum(op.macs for op in fit.nb201_ops("421211")) == 15_647_360


def test_macs_of_mobilenets_are_the_published_ones(fit):
    assert sum(op.macs for op in fit.mobilenet_ops(1)) == 568_740_352
    assert sum(op.macs for op in fit.mobilenet_ops(2)) == 300_774_272


@needs_data
def test_pruning_agrees_with_the_published_codes(fit):
    rows = fit.read_rows("nasbench201/nb201_accuracy.csv.gz")
    assert all(fit.prune_code(r["code"]) == r["effective_code"] for r in rows[::7])


NPU_DATA = SHARED / "data" / "npu"
OF_NPUS = [n for n in MODELLED if load_profile(n).family_error is not None]


@needs_data
@pytest.mark.parametrize(
    "name",
    [n for n in MODELLED if n != "x86-server-cpu" and n not in OF_NPUS],  # that one's data are timings of ours
)
def test_a_profile_holds_what_its_fit_gives(name, fit):
    (device,) = (d for d in fit.DEVICES if d.name == name)
    result = fit.fit_device(device)
    profile = load_profile(name)
    error = result.error
    assert profile.error.model_dump() == pytest.approx(error | {"networks": profile.error.networks}, abs=0.11)
    for op_type, cost in result.block["ops"].items():
        for key, value in cost.items():
            stored = getattr(profile.cost_model.ops[op_type], key)
            assert stored == pytest.approx(value, rel=2e-3) if isinstance(value, float) else stored == value
    beaten = [s["mape_percent"] for name, s in result.scores.items() if name == "FLOPs only"]
    assert error["mape_percent"] < beaten[0]


@needs_data
def test_note10_profile_reproduces_the_extreme_networks_of_its_table(fit):
    model = load_profile("note10-cpu").cost_model
    assert model.latency_ms(fit.ofa_ops(160, 2, 3, 3)) == pytest.approx(9.9, rel=0.05)
    assert model.latency_ms(fit.ofa_ops(224, 4, 6, 7)) == pytest.approx(92.4, rel=0.05)


@pytest.fixture(scope="module")
def npu():
    path = ROOT / "benchmarks" / "fit_npu.py"
    spec = importlib.util.spec_from_file_location("fit_npu", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def npu_data(npu):
    if not NPU_DATA.is_dir():
        pytest.skip(f"the measurements are not at {NPU_DATA} (set HWNAS_SHARED)")
    return npu.Data()


def test_every_npu_of_the_benchmark_ships(npu):
    assert sorted(s.name for s in npu.SOURCES) == OF_NPUS


@pytest.mark.parametrize("name", OF_NPUS)
def test_profiles_of_npus_meet_their_bars_and_say_what_they_rest_on(name):
    profile = load_profile(name)
    assert profile.error.mape_percent <= {"fp16": 8, "int8": 10}[profile.precision]
    assert profile.error.kendall >= 0.88
    assert set(profile.error.mape_percent_by_family) == set(profile.family_error.mape_percent_by_family)
    assert "QAIRT 2.43" in profile.runtime
    notes = " ".join(profile.notes)
    assert "Not in the data" in notes
    assert ("none h-swish" in notes) == (profile.precision == "int8")


@pytest.mark.parametrize("name", OF_NPUS)
def test_a_profile_of_an_npu_is_what_its_fit_gives(name, npu, npu_data):
    (made,) = npu.fits_of(npu_data, [name])
    profile, values = load_profile(name), npu.profile_of(made)
    assert made.ships()
    assert profile.cost_model.model_dump() == made.model.model_dump()
    for error in ("error", "family_error"):
        assert getattr(profile, error).model_dump() == values[error]
    # Better than what there was, with networks and with families left out.
    flops = npu.columns(made.data, npu.TODAY[0], normalisation=False)
    for groups, error in ((made.data.models, profile.error), (made.data.families, profile.family_error)):
        simple = npu.scores(npu.left_out(flops, made.data.ms, groups), made.data)
        assert error.mape_percent < simple["mape_percent"]


def test_what_the_npu_profiles_predict_is_what_was_measured(npu, npu_data):
    """Their cost model on the listed operators, normalisation included, and not only the matrix of the fit."""
    made = npu.fit_source(npu.SOURCES[0], npu_data.measured(npu.SOURCES[0]))
    model = load_profile(npu.SOURCES[0].name).cost_model
    predicted = [
        model.latency_ms(ops) + n * model.input_normalisation_ms
        for ops, n in zip(made.data.ops, made.data.normalises, strict=True)
    ]
    off = abs(predicted / made.data.ms - 1)
    assert off.mean() < 0.06
    assert "densenet121" not in made.data.models


def test_constants_do_not_depend_on_the_network_that_is_left_out(npu, npu_data):
    """A network that is left out is predicted by the others alone: its own time does not matter."""
    source = npu.SOURCES[0]
    data = npu_data.measured(source)
    x = npu.columns(data, source.terms)
    changed = data.ms.copy()
    changed[3] *= 5
    assert npu.left_out(x, data.ms, data.models)[3] == npu.left_out(x, changed, data.models)[3]


@pytest.mark.parametrize("recipe", ["digits-mbv3", "mnist-ofav2", "mnist-hurricane", "ofa-proxyless", "ofa-resnet50d"])
def test_npus_predict_every_family_of_networks_sensibly(recipe):
    """Positive, finite, longer at a higher resolution, and between the smallest and the largest arch."""
    layout = make_layout(load_recipe(recipe).supernet)
    space = layout.space
    archs = space.sample(np.random.default_rng(1), 12)
    sizes = space["resolution"].options
    grown = [[space.arch({**a.as_dict(), "resolution": r}) for r in sizes] for a in archs]
    for name in OF_NPUS:
        device = load_device(name)
        values = device.compile(layout)
        ms = np.array([values.of_archs(row) for row in grown])
        assert np.isfinite(ms).all()
        assert (ms > 0).all()
        assert (np.diff(ms, axis=1) > 0).all()
        low, high = values.of_archs([space.smallest(), space.largest()])
        assert low < high
        assert device.estimate_ms(archs[0]) == pytest.approx(values.of_archs(archs[:1])[0])


@pytest.mark.parametrize(
    ("recipe", "neighbour"),
    [("ofa-mbv3-w1.0", "mobilenet_v3_large"), ("ofa-proxyless", "mobilenet_v2"), ("ofa-resnet50d", "resnet50")],
)
def test_a_published_network_takes_as_long_as_some_arch_of_the_space_around_it(recipe, neighbour, npu, npu_data):
    """Its measured time, without normalisation, lies between the estimates of the smallest and largest arch."""
    space = make_layout(load_recipe(recipe).supernet).space
    ends = [space.arch({**a.as_dict(), "resolution": 224}) for a in (space.smallest(), space.largest())]
    seen = 0
    for source in npu.SOURCES:
        data = npu_data.measured(source)
        if neighbour in data.models:
            device = load_device(source.name)
            normalisation = device.profile.cost_model.input_normalisation_ms
            measured = data.ms[data.models.index(neighbour)] - normalisation
            low, high = (device.estimate_ms(arch) for arch in ends)
            assert low / 1.2 < measured < high, (source.name, low, measured, high)
            seen += 1
    assert seen >= 5


@pytest.mark.parametrize("name", ["hexagon-dsp", "edge-tpu", "myriad-vpu", "x86-server-cpu"])
def test_older_profiles_say_how_they_rank_npus_of_today(name, npu, npu_data):
    said = next(n for n in load_profile(name).notes if "Judged on" in n)
    taus = [npu.judge(load_profile(name).cost_model, npu_data.measured(s))[0] for s in npu.SOURCES]
    assert f"Kendall's tau {min(taus):.2f} to {max(taus):.2f}" in said
