"""Reports: one offline file that shows every number, and pictures of the fronts."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from hwnas.errors import OutputError
from hwnas.report.data import Bands, Column
from hwnas.report.figures import bands_figure, check_figure, curves_figure, training_figure
from hwnas.report.html import render, write_report
from hwnas.report.plots import score_latency_front, shown_range


class Links(HTMLParser):
    """Everything that a browser would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [v for k, v in attributes if k in ("src", "srcset", "data") or (tag == "link" and k == "href")]


def test_a_page_loads_nothing(report):
    links = Links()
    page = render(report)
    links.feed(page)
    assert [link for link in links.found if link and not link.startswith("data:")] == []
    assert "@import" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_a_page_shows_every_model_and_where_numbers_come_from(report):
    page = html.unescape(re.sub(r"<script.*?</script>", "", render(report), flags=re.S))
    for text in (
        "my run", "what it is", "my-dsp", "my-cpu", "aaa111", "bbb222", "ccc333", "90.00", "97.50", "2.25", "12,345",
        "6,789,012", "0.1235", "88.25", "12 px | 1-2 | 353", "modelled", "measured", "own measurements", "MIT",
        "4 archs evaluated", "ten networks", "123,456",
    ):  # fmt: skip
        assert text in page, text


def test_text_of_users_is_escaped(report):
    page = render(replace(report, name="<script>alert(1)</script>"))
    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def embedded(page, name):
    """The JSON of one of the page's scripts."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, flags=re.S)
    return json.loads(found[1])


def test_what_the_scripts_read_is_json_whatever_users_wrote(report):
    device = replace(report.devices[0], models=({**report.devices[0].models[0], "key": "</script><b>"},))
    page = render(replace(report, devices=(device,)))
    assert "</script><b>" not in page
    assert embedded(page, "report-data")["devices"][0]["models"][0]["key"] == "</script><b>"
    assert list(embedded(page, "report-figures")) == ["training"]


def test_a_page_is_small_however_much_was_evaluated(full):
    n = 200_000
    many = {
        "evaluated_scores": [50 + i / n for i in range(n)], "evaluated_ms": [1 + i / n for i in range(n)],
        "evaluated": {"params": [float(i) for i in range(n)]},
    }  # fmt: skip
    steps = [{"phase": "full", "step": i, "loss": 1 / (i + 1)} for i in range(n)]
    page = render(replace(full, devices=[replace(d, **many) for d in full.devices], training=steps))
    assert len(page.encode()) < 6e6
    found = embedded(page, "report-data")["devices"][0]["evaluated"]
    assert len(found["latency_ms"]) == len(found["params"]) == 3000
    assert found["params"][-1] == n - 1
    assert embedded(page, "report-figures")["training"]["data"][0]["x"][-1] == n - 1


def test_a_device_without_a_check_and_a_run_without_a_log_are_shown(report):
    page = render(replace(report, training=(), shared={}, devices=report.devices[:1], manifest={}))
    assert "my-dsp" in page


def test_a_page_says_what_differs_between_runs_and_what_people_decided(full):
    page = html.unescape(re.sub(r"<script.*?</script>", "", render(full), flags=re.S))
    for text in (
        "this, other-run", "1 setting:", "search.seed", "Decisions: 1 settings, 0 acts", "train.batch_size",
        "10 of 20 archs", "(5, 4)",
    ):  # fmt: skip
        assert text in page, text
    alone = render(replace(full, runs=(), differences=(), decisions=()))
    assert "Runs beside each other" not in alone
    assert "Decisions by people" not in alone


def test_the_score_latency_front_by_hand(report, device):
    assert [m["key"] for m in score_latency_front(report, device)] == ["aaa111", "ccc333"]
    assert [m["key"] for m in score_latency_front(replace(report, score_direction="min"), device)] == [
        "aaa111",
        "bbb222",
    ]


def test_a_plot_leaves_out_the_worst_tenth_of_what_was_evaluated(report, device):
    device = replace(device, evaluated_scores=[5.0, *[80.0] * 18, 300.0], evaluated_ms=[1.0] * 20)
    low, high = shown_range(report, device)  # a tenth of 20 is 2: the smallest two are left out
    assert low == pytest.approx(80 - 0.05 * 220)
    assert high == pytest.approx(300 + 0.05 * 220)
    low, high = shown_range(replace(report, score_direction="min"), device)
    assert low == pytest.approx(5 - 0.05 * 92.5)
    assert high == pytest.approx(97.5 + 0.05 * 92.5)


def test_a_score_of_another_task_is_shown_by_its_name_and_unit(report):
    def of_error(m):
        return {**m, "error_px": 100 - m["top1_percent"], "test_error_px": 7.125}

    columns = (Column("error_px", "validation pixel error", "px"), Column("test_error_px", "test pixel error", "px"))
    devices = [replace(d, models=[of_error(m) for m in d.models]) for d in report.devices]
    other = replace(
        report, score=Column("error_px", "pixel error", "px"), score_direction="min", score_stderr="",
        columns=(*columns, *report.columns[2:]), devices=devices, objectives=("error_px", "latency_ms"),
    )  # fmt: skip
    page = html.unescape(render(other))
    for text in ("validation pixel error px", "test pixel error px", "validation pixel error, px", "7.125"):
        assert text in page, text
    assert "top-1" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)
    found = embedded(render(other), "report-data")
    assert found["score"] == {
        "name": "error_px",
        "title": "pixel error",
        "unit": "px",
        "origin": "",
        "direction": "min",
    }
    assert [m["values"]["error_px"] for m in found["devices"][0]["models"]] == [10.0, 11.0, 2.5]
    assert [m["score_stderr"] for m in found["devices"][0]["models"]] == [None] * 3


def test_traces_hold_the_numbers(report):
    _, points = check_figure(report.devices[1], "#000000").data
    assert (list(points.x), list(points.y)) == ([1.0, 1.5, 2.25], pytest.approx([1.1 / 1.25, 1.4 / 1.25, 2.5 / 1.25]))
    (trace,) = training_figure(report).data
    assert (list(trace.x), list(trace.y)) == ([1, 2, 3], [2.0, 1.0, 2.0 / 3])


def test_bands_of_several_runs_are_shown(report):
    device = replace(
        report.devices[0],
        bands=Bands(("one", "two"), ((1.0, 90.0), (2.0, 97.5)), ((1.0, 90.0),), ((2.0, 90.0), (3.0, 91.0))),
    )
    worst, best, median = bands_figure(report, device, "#000000").data
    assert (list(worst.x), list(worst.y)) == ([2.0, 3.0], [90.0, 91.0])
    assert (list(best.x), list(best.y), best.fill) == ([1.0, 2.0], [90.0, 97.5], "tonexty")
    assert (list(median.x), list(median.y)) == ([1.0], [90.0])
    page = render(replace(report, devices=(device,)))
    assert "Over 2 runs" in page
    assert "one, two" in page
    assert "bands-my-dsp" in embedded(page, "report-figures")
    assert "bands-my-dsp" not in render(report)


def test_curves_have_their_bands(full):
    low, high, random, search = (
        curves_figure(replace(full.devices[0], curves=full.devices[0].curves[::-1]), "#000000").data
    )  # fmt: skip
    assert (list(low.y), list(high.y), high.fill) == ([0.125, 0.375], [0.375, 0.625], "tonexty")
    assert (list(random.x), list(random.y)) == ([1, 2], [0.25, 0.5])
    assert (list(search.y), search.name) == ([0.5, 0.75], "1: hurricane")
    assert random.line.dash != search.line.dash


def test_files_are_written(report, tmp_path):
    path = write_report(report, tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == render(report)
    assert (tmp_path / "fronts.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fronts.png", "report.html"]


def test_the_same_report_gives_the_same_files(report, tmp_path):
    for name in ("a", "b"):
        write_report(report, tmp_path / name)
    for file in ("report.html", "fronts.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_place_that_cannot_be_written_is_named(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(report, tmp_path / "file")
