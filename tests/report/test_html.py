"""Reports: one offline file that shows every number, and pictures of the fronts."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from hwnas.errors import OutputError
from hwnas.report.data import Bands, Column, DeviceReport, LatencyCheck, RunReport
from hwnas.report.html import bands_figure, check_figure, front_figure, render, training_figure, write_report
from hwnas.report.plots import score_latency_front, shown_range

COLUMNS = (
    Column("top1_percent", "validation top-1", "%"), Column("test_top1_percent", "test top-1", "%"),
    Column("latency_ms", "latency", "ms"), Column("measured_ms", "measured", "ms"), Column("params", "params", ""),
    Column("macs", "MACs", ""), Column("introspectability", "introspectability", ""), Column("shape", "resolution", ""),
)  # fmt: skip


def model(key, top1, latency, **more):
    return {
        "key": key, "top1_percent": top1, "latency_ms": latency, "params": 12345.0, "macs": 6789012.0,
        "introspectability": 0.123456, "top1_stderr_percent": 0.5, "test_top1_percent": 88.25, "measured_ms": None,
        "shape": "12 px | 1-2 | 353", "knee": False, **more,
    }  # fmt: skip


MODELS = (model("aaa111", 90.0, 1.0), model("bbb222", 89.0, 1.5), model("ccc333", 97.5, 2.25, knee=True))


@pytest.fixture
def device():
    return DeviceReport(
        "my-dsp", "a DSP", "dsp", "modelled", "own measurements", "MIT", "runtime 1", "int8", ("a note <b>",),
        {
            "networks": "ten networks", "n_held_out": 10, "seed": 0, "mape_percent": 3.25, "within_5_percent": 80.0,
            "within_10_percent": 100.0, "r2": 0.98, "spearman": 0.99,
        },
        MODELS, [50.0, 90.0, 89.0, 97.5], [3.0, 1.0, 1.5, 2.25], "4 archs evaluated",
    )  # fmt: skip


@pytest.fixture
def report(device):
    check = LatencyCheck(["aaa111", "bbb222", "ccc333"], [1.0, 1.5, 2.25], [1.1, 1.4, 2.5], 8.25, 66.7, 1.0, 1.25)
    local = replace(device, name="my-cpu", origin="measured", error=None, check=check)
    return RunReport(
        "my run", "what it is", ("top1_percent", "latency_ms"), COLUMNS, Column("top1_percent", "top-1", "%"), 123456,
        4, {"train": 41, "validation": 17, "test": 19}, (device, local), {"my-dsp & my-cpu": 3},
        [{"phase": "full", "step": i, "loss": 2.0 / i} for i in (1, 2, 3)], {"created": "2026-11-01"},
        "top1_stderr_percent",
    )  # fmt: skip


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


def test_figures_inside_the_page_are_json(report):
    device = replace(report.devices[0], models=(model("</script><b>", 90.0, 1.0),))
    page = render(replace(report, devices=(device,)))
    assert "</script><b>" not in page
    text = page[page.index("const figures = ") + len("const figures = ") :]
    figures, _ = json.JSONDecoder().raw_decode(text)
    assert list(figures) == ["front-my-dsp", "training"]
    assert figures["front-my-dsp"]["data"][2]["customdata"][0] == "</script><b>"


def test_a_device_without_a_check_and_a_run_without_a_log_are_shown(report):
    page = render(replace(report, training=(), shared={}, devices=report.devices[:1], manifest={}))
    assert "my-dsp" in page


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
        columns=(*columns, *COLUMNS[2:]), devices=devices, objectives=("error_px", "latency_ms"),
    )  # fmt: skip
    page = html.unescape(render(other))
    for text in ("validation pixel error px", "test pixel error px", "validation pixel error, px", "7.125"):
        assert text in page, text
    assert "top-1" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)
    figure = front_figure(other, devices[0], "#000000")
    assert list(figure.data[2].y) == [10.0, 11.0, 2.5]
    assert figure.data[2].error_y.visible is False


def test_models_are_coloured_by_a_value_that_all_of_them_have(report, device):
    report = replace(report, objectives=("top1_percent", "latency_ms", "introspectability"))
    marker = front_figure(report, device, "#123456").data[2].marker
    assert list(marker.color) == [0.123456] * 3
    assert marker.colorbar.title.text == "introspectability"
    lacking = replace(device, models=[*MODELS[:2], model("ccc333", 97.5, 2.25, introspectability=None)])
    assert front_figure(report, lacking, "#123456").data[2].marker.color == "#123456"
    assert "–" in render(replace(report, devices=(lacking,)))


def test_traces_hold_the_numbers(report):
    figure = front_figure(report, report.devices[0], "#000000")
    evaluated, line, members = figure.data
    assert list(evaluated.x) == [3.0, 1.0, 1.5, 2.25]
    assert (list(line.x), list(line.y)) == ([1.0, 2.25], [90.0, 97.5])
    assert (list(members.x), list(members.y)) == ([1.0, 1.5, 2.25], [90.0, 89.0, 97.5])
    assert members.customdata[2] == "ccc333"
    assert list(members.error_y.array) == [0.5, 0.5, 0.5]
    _, points = check_figure(report.devices[1], "#000000").data
    assert (list(points.x), list(points.y)) == ([1.0, 1.5, 2.25], [1.1, 1.4, 2.5])
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
    assert '"bands-my-dsp": {' in page
    assert "bands-my-dsp" not in render(report)


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
