"""Does a page do what it promises in a real browser? Skipped without Chromium, or playwright to drive it."""

import os
import shlex
import shutil
from dataclasses import replace

import pytest

from hwnas.report.html import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
pytestmark = pytest.mark.slow
DARK, LIGHT = "rgb(18, 23, 28)", "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def browser():
    found = next((path for path in (os.environ.get("HWNAS_CHROMIUM"), *map(shutil.which, BROWSERS)) if path), None)
    if found is None:
        pytest.skip("no Chromium on the PATH; install one, or set HWNAS_CHROMIUM to its file")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is not installed")
    with driver.sync_playwright() as started:
        # Without a sandbox, since tests may run as root in a container; the page is our own.
        running = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page_file(full, tmp_path):
    return write_report(full, tmp_path)


@pytest.fixture
def open_page(browser, page_file):
    """Open the page; at the end nothing may have gone wrong in it, and nothing may have been asked of a network."""
    contexts, complaints, requests = [], [], []

    def opened(address="", path=page_file, **context):
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: requests.append(r.url))
        page.goto(f"{path.as_uri()}{address}")
        page.wait_for_selector("#front-my-cpu .point", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith((page_file.parent.as_uri(), "data:", "blob:"))] == []


def rows(page):
    """Device and key of the rows that are shown."""
    return page.eval_on_selector_all(
        "#models tbody tr", "rows => rows.filter(r => !r.hidden).map(r => `${r.dataset.device} ${r.dataset.key}`)"
    )


def traces(page, device):
    """Traces of a front's plot by name: keys and coordinates."""
    found = page.eval_on_selector(f"#front-{device}", "e => e.data.map(t => [t.name, t.customdata ?? null, t.x, t.y])")
    return {name: (keys, x, y) for name, keys, x, y in found}


def chosen_rows(page):
    return page.eval_on_selector_all(
        "#models tbody tr", "rows => rows.map(r => [r.dataset.device, r.dataset.key, r.className]).filter(r => r[2])"
    )


def click_point(page, figure, key):
    """Click where a point is drawn."""
    at = page.evaluate(
        """([id, key]) => {
            const e = document.getElementById(id), t = e.data.find(t => t.customdata?.includes(key));
            const i = t.customdata.indexOf(key), {xaxis: x, yaxis: y} = e._fullLayout, box = e.getBoundingClientRect();
            return [box.left + x._offset + x.d2p(t.x[i]), box.top + y._offset + y.d2p(t.y[i])];
        }""",
        [figure, key],
    )
    page.mouse.move(*at)
    page.wait_for_selector(
        f"#{figure} .hoverlayer .hovertext"
    )  # Plotly clicks on what the pointer was found to be over
    page.mouse.click(*at)


def test_a_click_on_a_point_chooses_it_everywhere(open_page):
    page = open_page(viewport={"width": 1280, "height": 1000})
    page.locator("#front-my-dsp").scroll_into_view_if_needed()
    click_point(page, "front-my-dsp", "ccc333")
    page.wait_for_selector("#model-panel code")
    assert chosen_rows(page) == [["my-dsp", "ccc333", "chosen"], ["my-cpu", "ccc333", "same"]]
    assert "ccc333 from the front of my-dsp" in page.inner_text("#model-panel")
    assert traces(page, "my-dsp")["chosen"][0] == ["ccc333"]
    assert traces(page, "my-cpu")["chosen"][1:] == ([2.25], [97.5])  # on that front, too
    assert page.eval_on_selector("#check-my-cpu", "e => e.data[1].selectedpoints") == [1]
    assert page.inner_text("#on-devices").count("yes") == 2
    assert "Chosen: ccc333 on my-dsp" in page.inner_text("#said")


def test_a_click_on_a_row_or_on_a_checked_latency_chooses_too(open_page):
    page = open_page(viewport={"width": 1280, "height": 1000})
    page.click("#models tr[data-key=bbb222]")
    assert chosen_rows(page) == [["my-dsp", "bbb222", "chosen"]]
    # It is on no front of my-cpu: its estimate there is the sum of its blocks, 0.125 + 0.25 + 0.125 ms.
    keys, x, y = traces(page, "my-cpu")["chosen"]
    assert (keys, x, y) == ([None], [0.5], [89])
    page.locator("#check-my-cpu").scroll_into_view_if_needed()
    click_point(page, "check-my-cpu", "ddd444")
    page.wait_for_function("document.querySelector('tr.chosen').dataset.key === 'ddd444'")
    assert chosen_rows(page)[0][:2] == ["my-cpu", "ddd444"]


def test_sliders_and_boxes_filter_points_and_rows(open_page):
    page = open_page()
    assert len(rows(page)) == 5
    page.click("#budget-box summary")
    box = page.locator("fieldset[data-column=latency_ms]")
    box.locator("input[type=number][data-end=high]").fill("1.5")
    assert rows(page) == ["my-dsp aaa111", "my-dsp bbb222", "my-cpu ddd444"]
    assert traces(page, "my-dsp")["models"][0] == ["aaa111", "bbb222"]
    assert traces(page, "my-dsp")["evaluated"][1] == [1, 1.5]
    assert page.inner_text("#budget-count") == "3 of 5 models are within"
    assert '--limit "latency_ms<=1.5"' in page.inner_text("#budget-limits")
    slider = page.locator("fieldset[data-column=top1_percent] input[type=range][data-end=low]")
    slider.focus()
    for _ in range(60):  # 200 steps from 89 to 97.5
        page.keyboard.press("ArrowRight")
    assert rows(page) == ["my-cpu ddd444"]
    page.click("#budget-reset")
    assert len(rows(page)) == 5
    assert slider.input_value() == "0"


def test_a_slider_at_the_place_of_a_model_keeps_it(open_page):
    page = open_page()
    page.click("#budget-box summary")
    slider = page.locator("fieldset[data-column=params] input[type=range][data-end=low]")
    slider.focus()
    page.keyboard.press("End")
    assert len(rows(page)) == 4  # all but that of 999 parameters; the largest stays in


def test_devices_axes_and_colours_are_the_readers(open_page):
    page = open_page()
    page.click(".chip[data-device=my-dsp]")
    assert rows(page) == ["my-cpu ddd444", "my-cpu ccc333"]
    assert not page.is_visible("#front-my-dsp")
    page.click(".chip[data-device=my-dsp]")
    page.select_option("#axis-x", "params")
    page.select_option("#colour", "introspectability")
    assert traces(page, "my-cpu")["models"][1] == [999, 12345]
    assert page.is_visible("#scale")
    assert (
        page.eval_on_selector("#front-my-cpu", "e => e.data.find(t => t.name === 'models').marker.colorscale")
        == "Cividis"
    )
    page.click("#models th button >> text=params")
    assert rows(page)[0] == "my-cpu ddd444"
    page.click("#models th button >> text=params")
    assert rows(page)[-1] == "my-cpu ddd444"


def test_everything_is_reached_by_keyboard(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the fronts"
    page.focus("#front-my-dsp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert chosen_rows(page)[0][:2] == ["my-dsp", "bbb222"]
    page.keyboard.press("ArrowLeft")
    assert chosen_rows(page)[0][:2] == ["my-dsp", "aaa111"]
    assert page.eval_on_selector_all("#models tbody tr", "rows => rows.filter(r => r.tabIndex === 0).length") == 1
    page.focus("#models tbody tr.chosen")
    page.keyboard.press("End")
    assert chosen_rows(page) == [["my-dsp", "ccc333", "same"], ["my-cpu", "ccc333", "chosen"]]
    assert page.evaluate("document.activeElement.dataset.key") == "ccc333"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    assert chosen_rows(page)[0][:2] == ["my-dsp", "bbb222"]
    for element in ("#axis-x", "#budget-box summary", ".chip", "#models th button"):
        page.focus(element)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"


def test_the_commands_of_a_model_are_copied(open_page, page_file):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.click("#models tr[data-key=aaa111]")
    button = page.locator("#commands button").first
    button.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"hwnas export {page_file.parent} --device my-dsp --select aaa111"
    assert button.inner_text() == "copied"


def test_a_page_without_a_clipboard_copies_the_older_way(open_page, page_file):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.click("#models tr[data-key=aaa111]")
    page.evaluate("window.read = navigator.clipboard.readText.bind(navigator.clipboard)")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.locator("#commands button").first.click()
    assert page.evaluate("read()") == f"hwnas export {page_file.parent} --device my-dsp --select aaa111"


def test_a_folder_with_spaces_is_quoted_for_the_shell(open_page, full, tmp_path):
    path = write_report(full, tmp_path / "it's a run")
    page = open_page(path=path)
    page.click("#models tr[data-key=aaa111]")
    words = shlex.split(page.inner_text("#commands code"))
    assert words[:3] == ["hwnas", "export", str(path.parent)]


def test_the_time_of_a_model_in_8_bits_is_divided_as_the_device_takes_it_in_8_bits(open_page, full, tmp_path):
    dsp, cpu = full.devices
    dsp = replace(dsp, block_ms_in_8_bits=[0.0625, 0.25, 0.03125], constant_ms_in_8_bits=0.5)
    pieces = {**full.pieces, "aaa111": replace(full.pieces["aaa111"], in_8_bits=True)}
    page = open_page(path=write_report(replace(full, devices=(dsp, cpu), pieces=pieces), tmp_path / "chosen"))
    fall = "e => e.data[0].x"
    page.click("#models tr[data-key=aaa111]")
    assert page.eval_on_selector("#waterfall", fall) == [0.5, 0.0625, 0.03125, 0]
    page.select_option("#on-device", "my-cpu")  # it has one precision
    assert page.eval_on_selector("#waterfall", fall) == [0, 0.125, 0.125, 0]
    page.click("#models tr[data-key=bbb222]")
    page.select_option("#on-device", "my-dsp")
    assert page.eval_on_selector("#waterfall", fall) == [0.125, 0.25, 0.5, 0.125, 0]


def test_a_chosen_model_has_its_blocks_its_time_and_its_story(open_page):
    page = open_page()
    page.click("#models tr[data-key=aaa111]")
    assert page.eval_on_selector_all(".blocks b", "all => all.map(e => e.textContent)") == ["stem", "head"]
    fall = "e => [e.data[0].y, e.data[0].x, e.data[0].measure.at(-1)]"
    assert page.eval_on_selector("#waterfall", fall) == [
        ["every network", "stem", "head", "total"], [0.125, 0.25, 0.125, 0], "total",
    ]  # fmt: skip
    page.select_option("#on-device", "my-cpu")
    assert page.eval_on_selector("#waterfall", fall)[1] == [0, 0.125, 0.125, 0]
    assert page.eval_on_selector("#layers-introspectability_by_layer", "e => e.data[0].x") == [0.25, 0.75]
    for text in ("as the supernet gave it", "8 epochs, best after 7", "INT8", "fine-tuned", "87.50"):
        assert text in page.inner_text("#stages"), text
    page.click("#models tr[data-key=bbb222]")
    assert "40 % of its estimated latency" in page.inner_text("#model-panel .warn")


def test_a_model_is_found_again_by_its_address(open_page):
    page = open_page()
    page.click("#models tr[data-key=bbb222]")
    assert page.url.endswith("#my-dsp/bbb222")
    again = open_page("#my-dsp/bbb222")
    assert chosen_rows(again)[0][:2] == ["my-dsp", "bbb222"]


def test_other_runs_stand_beside_with_their_names(open_page):
    page = open_page()
    assert traces(page, "my-dsp")["other-run"][1:] == ([1.75], [91])
    assert "other-run" not in traces(page, "my-cpu")


def test_uncertainty_is_drawn(open_page):
    page = open_page()
    bars = "e => { const t = e.data.find(t => t.name === 'models'); return [t.error_x?.array, t.error_y?.array]; }"
    level, upright = page.eval_on_selector("#front-my-dsp", bars)
    assert level == pytest.approx([0.0325, 0.04875, 0.073125], rel=1e-4)
    assert upright == [0.5, 0.5, 0.5]
    assert page.eval_on_selector("#front-my-cpu", bars)[0] is None


def test_a_phone_shows_everything_without_moving_the_page_sideways(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True)
    page.click("#models tr[data-key=aaa111]")
    page.click("#budget-box summary")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    widths = page.eval_on_selector_all(".figure", "all => all.map(e => e.getBoundingClientRect().right)")
    assert max(widths) <= 390
    assert (
        page.eval_on_selector_all(".main-svg", "all => Math.max(...all.map(e => e.getBoundingClientRect().right))")
        <= 390
    )


def test_a_page_is_dark_where_the_reader_wants_it_and_follows(open_page):
    page = open_page(color_scheme="dark")
    ink = "getComputedStyle(document.querySelector('#front-my-dsp .xtitle')).fill"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == DARK
    assert page.evaluate(ink) == "rgb(230, 235, 240)"
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{ink} === 'rgb(27, 37, 48)'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == LIGHT


def contrast(one, other):
    """Of two colours ``(r, g, b)``, as the Web Content Accessibility Guidelines 2.2 define it."""

    def luminance(colour):
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_its_ground(open_page, scheme):
    page = open_page(color_scheme=scheme)
    names = ("ink", "soft", "accent", "ground", "card", "mark", "warn-ink", "warn")
    found = {}
    for name in names:
        text = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
        found[name] = [int(text[i : i + 2], 16) for i in (1, 3, 5)]
    for ink, ground in (
        ("ink", "ground"), ("soft", "ground"), ("soft", "card"), ("accent", "ground"), ("ink", "mark"),
        ("warn-ink", "warn"),
    ):  # fmt: skip
        assert contrast(found[ink], found[ground]) >= 4.5, (ink, ground)


def test_a_page_is_printed_in_the_light_with_everything_open(open_page):
    page = open_page(color_scheme="dark")
    page.click("#models tr[data-key=aaa111]")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_function("getComputedStyle(document.querySelector('#front-my-dsp .xtitle')).fill === 'rgb(0, 0, 0)'")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == LIGHT
    assert not page.is_visible("#axis-x")
    assert not page.is_visible("#commands button")
    assert page.is_visible("#commands code")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.is_visible("text=(5, 4)")  # what was folded away
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.is_visible("text=(5, 4)")
    assert page.pdf().startswith(b"%PDF")


def test_nothing_can_be_sent_anywhere(open_page):
    page = open_page(viewport={"width": 1280, "height": 1000})
    page.hover("#front-my-dsp")
    titles = page.eval_on_selector_all(".modebar-btn", "all => all.map(e => e.dataset.title ?? '')")
    assert titles
    assert not [t for t in titles if any(word in t.lower() for word in ("cloud", "studio", "send", "upload", "share"))]


def test_names_of_users_are_text(open_page, full, tmp_path):
    name = "<img src=x onerror=alert(1)>"
    first, *others = full.devices[0].models
    stages = {first["key"]: [replace(s, note=name) for s in full.devices[0].stages[first["key"]]]}
    overlays = [replace(o, run=name) for o in full.devices[0].overlays]
    models = ({**first, "shape": name}, *others)
    device = replace(full.devices[0], title=name, stages=stages, overlays=overlays, models=models)
    path = write_report(replace(full, name=name, devices=(device, full.devices[1])), tmp_path)
    page = open_page(path=path)
    page.click("#models tr[data-key=aaa111]")
    assert page.locator("img").count() == 0
    assert name in page.inner_text("#model-panel")


def test_a_page_of_one_device_that_knows_little_works(open_page, report, tmp_path):
    bare = replace(report.devices[1], models=report.devices[1].models[:1], check=None)
    path = write_report(replace(report, devices=(bare,), training=()), tmp_path / "bare")
    page = open_page(path=path)
    page.click("#models tbody tr")
    assert chosen_rows(page) == [["my-cpu", "aaa111", "chosen"]]
    assert page.locator("#waterfall").count() == 0
