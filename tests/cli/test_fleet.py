"""`hwnas fleet` in a terminal and for machines."""

import json

import pytest
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.errors import SearchError


def test_a_fleet_is_shown_and_given_as_json(finished_run):
    text = CliRunner().invoke(app, ["fleet", str(finished_run), "--models", "1"])
    assert text.exit_code == 0
    assert "worst regret" in text.stdout
    assert "no other choice is better" in text.stdout
    found = json.loads(
        CliRunner()
        .invoke(app, ["fleet", str(finished_run), "--models", "1", "--limit", "hexagon-dsp:latency_ms<=1e6", "--json"])
        .stdout
    )
    assert len(found["keys"]) == 1
    assert found["devices"][0]["limit_ms"] == 1e6


@pytest.mark.parametrize("limit", ["5", "hexagon-dsp=3", ":latency_ms<=3", "latency_ms<3"])
def test_a_limit_of_another_form_is_named(finished_run, limit):
    result = CliRunner().invoke(app, ["fleet", str(finished_run), "--models", "1", "--limit", limit])
    assert isinstance(result.exception, SearchError)
    assert "is not of the form VALUE<=NUMBER or VALUE>=NUMBER" in str(result.exception)
