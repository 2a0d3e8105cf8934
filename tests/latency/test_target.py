"""Targets: this machine and one made of numbers keep to the protocol, and profiles name theirs."""

import numpy as np
import onnx
import pytest
import yaml

from hwnas.errors import DeviceError, MeasurementError, PluginError, TableError, TableMismatchError
from hwnas.latency.build import build_table, needs_table
from hwnas.latency.check import check_table
from hwnas.latency.device import check_profile, load_profile, write_profile
from hwnas.latency.measure import measure, reference_model
from hwnas.latency.plan import TableConfig
from hwnas.latency.remote import RemoteHost
from hwnas.latency.table import load_device
from hwnas.latency.target import TARGETS, ThisMachine, make_target, target_of
from hwnas.latency.time_onnx import Burst, Facts
from hwnas.latency.validity import holds_now, mismatches
from hwnas.testing.target import TargetTests, tiny_layout

HERE = f"{__name__}:Simulator"
SMALL = TableConfig(n_networks=6, n_held_out=4, rounds=1)


class Simulator:
    """Says that a model takes a microsecond for every byte of it; has no providers and needs no reference model."""

    host = None

    def __init__(self, slowdown=1.0, device="a simulator"):
        self.slowdown, self.device = slowdown, device

    def facts(self):
        return Facts(self.device, "simulator-1")

    def bursts(self, models, names, reference, config, schedule):
        for model, session in schedule:
            try:
                read = onnx.load if isinstance(models[model], str) else onnx.load_from_string
                proto = read(models[model])
            except Exception as error:
                raise MeasurementError(f"{names[model]} is no ONNX model: {error}") from error
            shape = tuple(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim)[1:]
            ms = self.slowdown * len(proto.SerializeToString()) / 1000
            for _ in range(config.bursts):
                yield Burst(model, session, (ms,) * config.min_runs, 1.0, shape)


class TestSimulator(TargetTests):
    equal_within = 1.0001

    def make(self):
        return Simulator()


@pytest.mark.slow
class TestThisMachine(TargetTests):
    def make(self):
        return ThisMachine()


class Careless(Simulator):
    """Times in another order than asked, and lets a library's error through."""

    def bursts(self, models, names, reference, config, schedule):
        for model, session in sorted(schedule):
            onnx.load_from_string(models[model])
            yield Burst(model, session, (1.0 + model,) * config.min_runs, 1.0, (24, 14, 14))


def test_the_conformance_tests_find_a_careless_target():
    class Checked(TargetTests):
        def make(self):
            return Careless()

    with pytest.raises(AssertionError):
        Checked().test_every_session_is_timed_in_the_order_of_the_schedule()
    with pytest.raises(AssertionError):
        Checked().test_equal_models_take_equally_long()
    with pytest.raises(Exception, match="pars") as caught:
        Checked().test_a_file_that_is_no_model_is_a_measurement_error()
    assert not isinstance(caught.value, MeasurementError)


def test_whatever_a_target_raises_is_an_error_of_measuring():
    class Broken(Simulator):
        def bursts(self, *arguments):
            yield from ()
            raise KeyError("the phone")

    with pytest.raises(MeasurementError, match="target Broken failed: KeyError: 'the phone'"):
        measure([reference_model(1)], target=Broken())


# -- names -----------------------------------------------------------------------------------------------


def test_targets_are_found_by_name():
    assert TARGETS.names()[:2] == ["onnxruntime", "process"]
    assert isinstance(make_target("onnxruntime"), ThisMachine)
    board = make_target("ssh", {"host": "user@board"})
    assert isinstance(board, RemoteHost)
    assert board.host == "user@board"
    assert make_target(HERE, {"slowdown": 3.0}).slowdown == 3.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "onnxruntim",
            {},
            r"target 'onnxruntim' is unknown; known are onnxruntime, process, qai-hub, ssh.*mean 'onnxruntime'",
        ),
        ("ssh", {}, "target 'ssh' cannot be made with {}"),
        ("onnxruntime", {"speed": 2}, "cannot be made with {'speed': 2}"),
        ("no.such.module:Target", {}, "cannot be imported"),
    ],
)
def test_names_and_options_that_make_no_target_are_named(name, options, message):
    with pytest.raises(PluginError, match=message):
        make_target(name, options)


def test_a_profile_names_its_target_and_others_look_as_before(tmp_path):
    profile = load_profile("local-cpu")
    assert isinstance(target_of(profile), ThisMachine)
    assert not {"target", "target_options"} & set(profile.model_dump())
    mine = check_profile({**profile.model_dump(), "target": HERE, "target_options": {"slowdown": 2.5}}, "mine")
    assert target_of(mine).slowdown == 2.5
    write_profile(mine, tmp_path)
    assert load_profile(tmp_path) == mine
    assert list(mine.model_dump())[-4:] == ["target", "target_options", "in_8_bits", "notes"]
    with pytest.raises(DeviceError, match=r"target_options\.speed"):
        check_profile({**profile.model_dump(), "target_options": {"speed": [1]}}, "mine")


# -- tables ----------------------------------------------------------------------------------------------


@pytest.fixture
def own_device(tmp_path):
    """A profile of one's own, whose table a run would build."""
    folder = tmp_path / "own"
    folder.mkdir()
    values = {**load_profile("local-cpu").model_dump(), "name": "own", "provider": None, "target": HERE,
              "target_options": {"slowdown": 2.0}}  # fmt: skip
    (folder / "profile.yaml").write_text(yaml.safe_dump({**values, "notes": ["none"]}))
    return folder


def test_a_table_of_a_target_of_ones_own_is_built_checked_and_holds(own_device, tmp_path):
    layout = tiny_layout()
    assert needs_table(load_device(own_device))
    made = build_table(layout, tmp_path / "table", own_device, "own", config=SMALL)
    assert (made.name, made.profile.title) == ("own", load_profile("local-cpu").title)
    assert (made.profile.target, made.profile.target_options) == (HERE, {"slowdown": 2.0})
    assert (made.profile.conditions["device"], made.profile.conditions["provider"]) == ("a simulator", "")
    assert not needs_table(made)
    assert holds_now(made)  # compared with the simulator, not with this machine
    found = check_table(layout, tmp_path / "table", 4, strict=True, config=SMALL)
    assert (found["machine_slowdown"], found["mismatches"]) == (1.0, [])
    slower = check_table(layout, tmp_path / "table", 4, target=HERE, target_options={"slowdown": 4.0}, config=SMALL)
    assert slower["machine_slowdown"] == pytest.approx(2.0)


def test_a_table_holds_no_longer_where_its_target_is_another(own_device, tmp_path):
    made = build_table(tiny_layout(), tmp_path / "table", own_device, config=SMALL)
    changed = made.profile.model_copy(update={"target_options": {"device": "another simulator"}})
    other = type(made)(changed, made.rows)
    assert not holds_now(other)
    (text,) = mismatches(other)
    assert "device is 'a simulator' in the table and 'another simulator' here" in text
    gone = type(made)(made.profile.model_copy(update={"target": "their-phone"}), made.rows)
    assert not holds_now(gone)
    with pytest.raises(TableMismatchError, match="its target cannot be used here: target 'their-phone' is unknown"):
        mismatches(gone, strict=True)


def test_a_target_that_is_chosen_is_the_one_of_the_table(tmp_path):
    made = build_table(tiny_layout(), tmp_path / "my-sim", target=HERE, target_options={"slowdown": 0.5}, config=SMALL)
    profile = load_device(tmp_path / "my-sim").profile
    assert made.profile == profile
    assert (profile.name, profile.target, profile.target_options) == ("my-sim", HERE, {"slowdown": 0.5})
    assert (profile.runtime, profile.provider) == ("simulator-1", None)
    assert profile.title == "a simulator, simulator-1, 1 thread(s), measured by hwnas"


def test_machines_behind_ssh_are_contacted_only_when_asked(monkeypatch, own_device):
    monkeypatch.setattr(RemoteHost, "facts", lambda self: pytest.fail("was contacted"))
    values = {**load_profile(own_device).model_dump(), "target": "ssh", "target_options": {"host": "user@board"}}
    board = check_profile(values, "board")
    write_profile(board, own_device)
    device = load_device(own_device)
    assert not needs_table(device)
    measured = type(device)(board.model_copy(update={"conditions": {"device": "x", "host": "user@board"}}))
    assert mismatches(measured, strict=True) == []
    assert not holds_now(measured)


def test_a_provider_is_not_asked_of_a_target_without_any():
    with pytest.raises(MeasurementError, match="simulator-1 has no execution providers; leave it out"):
        measure([b""], provider="CUDAExecutionProvider", target=Simulator())


@pytest.mark.parametrize("folder", ["My CPU", "my_cpu"])
def test_a_folder_whose_name_is_no_device_says_what_to_give(tmp_path, folder):
    with pytest.raises(DeviceError, match=rf"the folder is called '{folder}'.*--name my-cpu"):
        build_table(tiny_layout(), tmp_path / folder, target=Simulator(), config=SMALL)
    assert not (tmp_path / folder).exists()
    made = build_table(tiny_layout(), tmp_path / folder, name="my-cpu", target=Simulator(), config=SMALL)
    assert made.name == "my-cpu"
    with pytest.raises(TableError, match="holds a finished table"):
        build_table(tiny_layout(), tmp_path / folder, name="my-cpu", target=Simulator(), config=SMALL)


def test_what_is_not_timed_has_no_table_to_build(tmp_path):
    with pytest.raises(TableError, match="'hexagon-dsp' is not timed by ONNX Runtime"):
        build_table(tiny_layout(), tmp_path / "t", "hexagon-dsp")
    with pytest.raises(PluginError, match="are of no target; name it"):
        build_table(tiny_layout(), tmp_path / "t", target_options={"host": "board"})
    assert not (tmp_path / "t").exists()


def test_times_of_a_simulator_are_those_of_the_table(tmp_path):
    """A network takes what its bytes say: the table sums blocks, and the correction learns what they share."""
    made = build_table(tiny_layout(), tmp_path / "sim", target=Simulator(), config=TableConfig(n_networks=30, rounds=1))
    assert made.profile.error.mape_percent < 2
    assert np.isfinite(made.estimate_ms(tiny_layout().space.smallest()))
