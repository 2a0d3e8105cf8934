"""What the scripts of a page know, and what a reader is warned of."""

from dataclasses import replace

import pytest

from hwnas.report.payload import payload, warnings_of


def test_models_have_their_values_and_how_uncertain_they_are(full):
    dsp, cpu = payload(full)["devices"]
    assert [m["key"] for m in dsp["models"]] == ["aaa111", "bbb222", "ccc333"]
    assert dsp["models"][2]["values"]["top1_percent"] == 97.5
    assert dsp["models"][2]["knee"] is True
    # The profile publishes 3.25 % for the one; the other has no error, and no spread of timings either.
    assert [m["latency_error_ms"] for m in dsp["models"]] == pytest.approx([0.0325, 0.04875, 0.073125], rel=1e-4)
    assert [m["latency_error_ms"] for m in cpu["models"]] == [None, None]
    timed = replace(full.devices[1], models=[{**m, "latency_stderr_ms": 0.02} for m in full.devices[1].models])
    assert payload(replace(full, devices=(timed,)))["devices"][0]["models"][0]["latency_error_ms"] == 0.02


def test_columns_are_those_with_numbers_and_know_their_range(full):
    found = {c["name"]: c["range"] for c in payload(full)["columns"]}
    assert found["latency_ms"] == [0.5, 2.25]
    assert found["params"] == [999.0, 12345.0]
    assert "shape" not in found  # text
    assert "measured_ms" not in found  # nothing is known


def test_blocks_stand_once_and_give_the_latency(full):
    found = payload(full)
    dsp = found["devices"][0]
    blocks = found["pieces"]["bbb222"]["blocks"]
    times = dsp["times"]
    assert times["constant_ms"] + sum(times["block_ms"][number] for _, number in blocks) == 1.0
    assert found["pieces"]["aaa111"]["by_layer"] == {"introspectability_by_layer": {"stem": 0.25, "head": 0.75}}


def test_a_front_narrower_than_the_error_of_its_profile_is_warned_of(full):
    dsp = full.devices[0]
    narrow = replace(dsp, unfitted=(), models=[{**m, "latency_ms": 1 + 0.01 * i} for i, m in enumerate(dsp.models)])
    (text,) = warnings_of(narrow)
    assert "differ by 2.0 %" in text
    assert "3.2 % off" in text
    assert warnings_of(replace(dsp, unfitted=())) == []  # 125 % wide
    assert warnings_of(replace(narrow, error=None)) == []  # nothing is published
    assert warnings_of(replace(narrow, models=narrow.models[:1])) == []  # nothing to tell apart


def test_what_is_outside_of_the_domain_of_a_profile_is_warned_of(full):
    (text,) = warnings_of(full.devices[0])
    assert "Up to 40 %" in text
    assert warnings_of(replace(full.devices[0], unfitted=[0.05, 0.0, 0.1])) == []


def test_latencies_unlike_all_that_was_measured_are_warned_of(full):
    dsp = replace(full.devices[0], unfitted=())
    assert warnings_of(replace(dsp, warnings=["2 of 3 latencies are estimated at 0.1 ms"])) == [
        "2 of 3 latencies are estimated at 0.1 ms."
    ]


def test_numbers_that_json_does_not_have_are_null(full):
    first, *others = full.devices[0].models
    dsp = replace(full.devices[0], models=[{**first, "introspectability": float("nan")}, *others])
    assert payload(replace(full, devices=(dsp,)))["devices"][0]["models"][0]["values"]["introspectability"] is None
