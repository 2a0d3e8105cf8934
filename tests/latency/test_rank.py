"""How differently devices rank archs: closed forms of the matrix, what is alike, and what cannot be ranked."""

import json
import sys

import numpy as np
import pytest
import scipy

from hwnas import rank_devices
from hwnas.cli.main import main
from hwnas.errors import DeviceError
from hwnas.latency.device import load_profile, write_profile
from hwnas.latency.table import load_device


@pytest.fixture
def copied(tmp_path):
    """A shipped device under another name, its times scaled."""

    def copy(name, base="edge-tpu", factor=1.0):
        profile = load_profile(base)
        model = profile.cost_model.model_dump()
        model["network_overhead_ms"] *= factor
        for cost in model["ops"].values():
            if cost["overhead_ms"] is not None:
                cost["overhead_ms"] *= factor
                for rate in ("gmacs_per_s", "gelements_per_s"):
                    cost[rate] = cost[rate] and cost[rate] / factor
        made = type(profile).model_validate(profile.model_dump() | {"name": name, "cost_model": model})
        (tmp_path / name).mkdir()
        write_profile(made, tmp_path / name)
        return str(tmp_path / name)

    return copy


def test_the_matrix_is_kendalls_tau_of_the_latencies(layout):
    found = rank_devices(layout, ["edge-tpu", "note10-cpu"], archs=50, seed=3)
    archs = layout.space.sample(np.random.default_rng(3), 50)
    a, b = ([load_device(n).estimate_ms(x) for x in archs] for n in ("edge-tpu", "note10-cpu"))
    expected = scipy.stats.kendalltau(a, b).statistic
    np.testing.assert_allclose(found.tau, [[1, expected], [expected, 1]], rtol=1e-9)
    assert expected < 0.999


def test_a_slower_device_of_the_same_order_is_named_as_alike(layout, copied):
    found = rank_devices(layout, [copied("one"), copied("two", factor=3.0), "note10-cpu"], archs=60)
    assert found.alike[0][:2] == ("one", "two")
    assert found.alike[0][2] == pytest.approx(1.0, abs=1e-9)


def test_by_default_every_shipped_device_with_latencies_is_ranked_and_the_rest_is_said(layout):
    found = rank_devices(layout, archs=20)
    assert set(found.not_ranked) == {"local-cpu", "local-cpu-int8", "cuda-gpu"}
    assert "tables build" in found.not_ranked["local-cpu"]
    assert {"qcs8550-int8", "edge-tpu"} <= set(found.devices)
    assert json.loads(json.dumps(found.as_dict()))["tau"][0][0] == 1.0


@pytest.mark.parametrize(
    ("devices", "options", "message"),
    [
        (["edge-tpu"], {}, "fewer than two devices .*give a second one"),
        (["edge-tpu", "local-cpu"], {}, "fewer than two devices .*local-cpu.*tables build"),
        (["edge-tpu", "edge-tpu"], {}, "'edge-tpu' stands twice"),
        (["edge-tpu", "no-such"], {}, "device 'no-such' is unknown"),
        (["edge-tpu", "note10-cpu"], {"archs": 3}, "3 archs are too few"),
    ],
)
def test_what_cannot_be_ranked_is_refused(devices, options, message, layout):
    with pytest.raises(DeviceError, match=message):
        rank_devices(layout, devices, **options)


def test_the_command_prints_the_matrix_and_json(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["hwnas", "devices", "rank", "digits-mbv3", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0
        return capsys.readouterr()

    said = call("--devices", "hexagon-dsp,myriad-vpu,note10-cpu", "--archs", "30")
    assert "alike: hexagon-dsp and myriad-vpu (0.9" in said.out
    assert "1 hexagon-dsp  1.00" in said.out
    found = json.loads(call("--devices", "hexagon-dsp,note10-cpu", "--archs", "30", "--json").out)
    assert found["devices"] == ["hexagon-dsp", "note10-cpu"]
    assert found["tau"][0][1] == found["tau"][1][0] < 0.9
