"""Device profiles: finding them, reading them, and one-line errors for damaged ones."""

import pytest
import yaml

from hwnas.errors import DeviceError
from hwnas.files import shipped_folder
from hwnas.latency.device import (
    DeviceProfile,
    ProfileError,
    beyond_measured,
    device_folder,
    load_profile,
    shipped_devices,
)

PROFILE = {
    "format": 1,
    "name": "my-board",
    "title": "a board",
    "kind": "cpu",
    "runtime": "onnxruntime 1.31",
    "precision": "fp32",
    "provider": "CPUExecutionProvider",
    "threads": 1,
    "batch_size": 1,
    "origin": "modelled",
    "source": "own measurements",
    "licence": "none needed",
    "error": {
        "networks": "ten networks",
        "n_held_out": 10,
        "seed": 0,
        "mape_percent": 3.0,
        "within_5_percent": 80.0,
        "within_10_percent": 100.0,
        "r2": 0.98,
        "spearman": 0.99,
    },
    "cost_model": {
        "network_overhead_ms": 0.5,
        "ops": {"conv": {"overhead_ms": 0.01, "gmacs_per_s": 10.0, "source": "fitted"}},
    },
    "notes": ["a note"],
}


def folder_of(tmp_path, values):
    folder = tmp_path / "board"
    folder.mkdir()
    text = values if isinstance(values, str) else yaml.safe_dump(values)
    (folder / "profile.yaml").write_text(text)
    return folder


def changed(path, value):
    values = yaml.safe_load(yaml.safe_dump(PROFILE))
    *parents, last = path.split(".")
    inner = values
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return values


def test_a_folder_of_ones_own_is_read(tmp_path):
    profile = load_profile(folder_of(tmp_path, PROFILE))
    assert isinstance(profile, DeviceProfile)
    assert profile.name == "my-board"
    assert profile.notes == ("a note",)
    assert profile.error is not None
    assert profile.error.n_held_out == 10


def test_a_profile_survives_its_own_dump(tmp_path):
    for name in shipped_devices():
        profile = load_profile(name)
        (tmp_path / name).mkdir()
        text = yaml.safe_dump(profile.model_dump(mode="json", exclude_none=False))
        (tmp_path / name / "profile.yaml").write_text(text)
        assert load_profile(tmp_path / name) == profile


def test_shipped_devices_are_found_by_name_and_by_folder():
    assert {"local-cpu", "hexagon-dsp", "myriad-vpu"} <= set(shipped_devices())
    folder = shipped_folder("latency_tables") / "hexagon-dsp"
    assert device_folder("hexagon-dsp") == folder
    assert load_profile("hexagon-dsp") == load_profile(folder)


def test_local_cpu_is_measured_on_the_spot():
    profile = load_profile("local-cpu")
    assert (profile.kind, profile.origin, profile.runtime) == ("cpu", "measured", "onnxruntime")
    assert (profile.provider, profile.threads) == ("CPUExecutionProvider", 1)
    assert profile.cost_model is None
    assert profile.error is None


@pytest.mark.parametrize("given", ["hexagon", "latency_tables/none", ""])
def test_an_unknown_device_names_the_value_the_choices_and_the_next_step(given):
    with pytest.raises(DeviceError) as caught:
        load_profile(given)
    message = str(caught.value)
    assert repr(given) in message
    assert "hexagon-dsp, " in message
    assert "profile.yaml" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (changed("cost_model.ops.conv.overhead_ms", -1.0), "cost_model.ops.conv.overhead_ms"),
        (changed("cost_model.ops.conv.gmacs_per_s", float("nan")), "cost_model.ops.conv.gmacs_per_s"),
        (changed("cost_model.network_overhead_ms", "0.5"), "cost_model.network_overhead_ms"),
        (changed("cost_model.ops.conv.same_as", "add"), "cost_model.ops.conv"),
        (changed("error.spearman", float("nan")), "error.spearman"),
        (changed("error.within_10_percent", 101.0), "error.within_10_percent"),
        (changed("cost_model", None), "cost_model and error must be given"),
        (changed("error", None), "cost_model and error must be given"),
        (changed("kind", "toaster"), "kind"),
        (changed("format", 2), "format"),
        (changed("threads", 0), "threads"),
        (changed("notes", [1]), "notes.0"),
        (changed("pofile", "x"), "pofile"),
        ({k: v for k, v in PROFILE.items() if k != "licence"}, "licence"),
        ("- a list\n", "mapping"),
        ("", "mapping"),
        ("name: [unclosed\n", "YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "YAML"),
    ],
)
def test_a_damaged_profile_is_one_line_with_file_and_field(tmp_path, values, field):
    folder = folder_of(tmp_path, values)
    with pytest.raises(DeviceError) as caught:
        load_profile(folder)
    message = str(caught.value)
    assert str(folder / "profile.yaml") in message
    assert field in message
    assert "\n" not in message


def test_a_profile_that_is_not_text_is_refused(tmp_path):
    folder = folder_of(tmp_path, "")
    (folder / "profile.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeviceError, match=r"profile\.yaml: cannot be read"):
        load_profile(folder)


def test_shipped_folders_are_found_in_a_wheel_and_in_a_checkout(tmp_path, monkeypatch):
    package = tmp_path / "site" / "hwnas"
    beside, inside = tmp_path / "site" / "latency_tables", package / "shipped" / "latency_tables"
    monkeypatch.setattr("hwnas.files.__file__", str(package / "files.py"))
    with pytest.raises(OSError, match=r"'latency_tables'.*install hwnas again"):
        shipped_folder("latency_tables")
    beside.mkdir(parents=True)
    assert shipped_folder("latency_tables") == beside
    inside.mkdir(parents=True)
    assert shipped_folder("latency_tables") == inside


@pytest.mark.parametrize(
    ("latencies_ms", "said"),
    [
        ([0.7, 5.0, 14.0], ""),  # within a factor of 1.5
        ([0.5, 5.0], "1 of 2 latencies are estimated at 0.5 ms"),
        ([0.1, 0.2, 40.0], "3 of 3 latencies are estimated at 0.1 to 40 ms"),
        ([], ""),
    ],
)
def test_latencies_unlike_all_measured_ones_are_named(latencies_ms, said):
    error = ProfileError.model_validate({**PROFILE["error"], "fastest_ms": 1.0, "slowest_ms": 10.0})
    text = beyond_measured(error, latencies_ms)
    assert text.startswith(said)
    assert bool(text) == bool(said)
    assert not text or "take 1 to 10 ms" in text
    assert beyond_measured(ProfileError.model_validate(PROFILE["error"]), latencies_ms) == ""
    assert beyond_measured(None, latencies_ms) == ""


def test_shipped_models_of_latency_say_how_long_the_networks_take_that_they_were_judged_by():
    modelled = [p for p in map(load_profile, shipped_devices()) if p.error is not None and p.cost_model is not None]
    modelled = [p for p in modelled if p.name != "x86-server-cpu"]  # its table of networks was not kept
    assert len(modelled) > 10
    for profile in modelled:
        for error in filter(None, (profile.error, profile.family_error)):
            assert 0 < error.fastest_ms < error.slowest_ms
