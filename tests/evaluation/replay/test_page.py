"""The page of a replay in a browser: it draws itself, follows the slider and the keys, tells what is pointed at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from powergrid.errors import ScenarioError
from powergrid.evaluation import DayRecording, record_day
from powergrid.evaluation.replay import page as page_module
from powergrid.evaluation.replay.page import make_page, write_page
from tests.evaluation.worlds import ALL_KINDS

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed here")
#: An hour a step, so that a day is short.
COARSE: dict[str, Any] = {**ALL_KINDS, "step_minutes": 60, "episode_length": 24}


@pytest.fixture(scope="module")
def recordings() -> list[DayRecording]:
    notes = {"native": ["</script><b>An <i>odd</i> note."]}
    return record_day({"scenario": COARSE}, ["native", "rule_based", "random"], "2018-07-15", notes=notes)


@pytest.fixture(scope="module")
def file(recordings: list[DayRecording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(recordings, tmp_path_factory.mktemp("page") / "day.html", ["day_native.parquet"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Any]:
    page, told = browser.new_page(viewport={"width": 1400, "height": 1000}), list[str]()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else told.append(request.url),
    )
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", state="attached")
    yield page
    page.close()
    assert told == []  # neither errors nor anything fetched


def point_at(page: Any, panel: int, x: float, y: float) -> str:
    """Move the mouse to a place of a diagram, in the scene's own lengths, and return what the tooltip says."""
    box = page.locator(".diagram").nth(panel).bounding_box()
    scene = json.loads(page.locator("#facts").text_content())["scene"]
    page.mouse.move(box["x"] + x / scene["width"] * box["width"], box["y"] + y / scene["height"] * box["height"])
    return str(page.locator("#tip").inner_text())


@needs_browser
def test_slider_and_keys_move_the_day(opened: Any, recordings: list[DayRecording]) -> None:
    from playwright.sync_api import expect

    slider, clock = opened.locator("#slider"), opened.locator("#clock")
    slider.fill("7")
    assert clock.inner_text() == "07:00"
    source = opened.locator(".now dd").first
    power = recordings[0].network["source_p_kw"][7, 0]
    assert source.inner_text() == f"{power:,.0f} kW".replace("-", "−")
    for key, time in (("ArrowRight", "08:00"), ("ArrowLeft", "07:00"), ("End", "23:00"), ("Home", "00:00")):
        opened.keyboard.press(key)
        assert clock.inner_text() == time
    opened.keyboard.press("Space")
    expect(clock).not_to_have_text("00:00")
    opened.keyboard.press("Space")
    assert opened.locator("#play").get_attribute("aria-label") == "Play"


@needs_browser
def test_tooltips_tell_voltage_tap_and_device_of_each_side(opened: Any, recordings: list[DayRecording]) -> None:
    opened.locator("#slider").fill("19")
    scene = json.loads(opened.locator("#facts").text_content())["scene"]
    bus = scene["buses"]["name"].index("671")
    for side, recording in enumerate(recordings[:2]):
        told = point_at(opened, side, *scene["buses"]["xy"][bus])
        assert "bus 671" in told
        assert f"{recording.nodes.of('671.2', 'v_pu')[19]:.4f} pu" in told
    names = [device["name"] for device in json.loads(opened.locator("#facts").text_content())["devices"]]
    battery = next(each for each in scene["symbols"] if each["devices"] == [names.index("ess")])
    told = point_at(opened, 1, battery["x"], battery["y"])
    assert "ess" in told
    assert f"{100 * recordings[1].devices.of('ess', 'soc')[19]:.0f} %" in told
    regulator = next(each for each in scene["symbols"] if each["kind"] == "regulator")
    tap = int(recordings[0].switchgear.of("transformer.reg1", "position")[19])
    told = point_at(opened, 0, regulator["x"], regulator["y"])
    assert f"reg1\ttap {tap:+d}".replace("+0", "0").replace("-", "−") in told
    opened.mouse.move(2, 2)
    assert opened.locator("#tip").is_hidden()


@needs_browser
def test_sides_can_be_chosen_and_foreign_text_stays_text(opened: Any) -> None:
    assert opened.locator(".panel h2").all_inner_texts() == ["native\nbaseline", "rule_based\nbaseline"]
    opened.locator("#right").select_option(label="random")
    assert opened.locator(".panel h2").nth(1).inner_text() == "random\nbaseline"
    assert "</script><b>An <i>odd</i> note." in opened.locator("#notes").inner_text()
    rows = opened.locator("#totals tbody tr")
    assert rows.count() == 3


@needs_browser
@pytest.mark.parametrize("width", [1400, 800])
def test_no_text_of_the_page_is_cut_and_nothing_overflows(browser: Any, file: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "[...document.querySelectorAll('.now dd, .panel h3, #bar, h1')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.textContent)"
    ) == []  # fmt: skip
    page.close()


@needs_browser
def test_on_paper_the_time_stands_where_it_does_on_the_screen(opened: Any) -> None:
    opened.locator("#slider").fill("12")

    def parts() -> list[float]:
        return list(opened.evaluate(
            "[...document.querySelectorAll('.cursor')].map(c => { const b = c.parentElement.getBoundingClientRect();"
            " return (c.getBoundingClientRect().x - b.x) / b.width; })"
        ))  # fmt: skip

    on_screen = parts()
    assert min(on_screen) > 0.5
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": 1054, "height": 726})  # A4 on its side less the margins
    assert parts() == pytest.approx(on_screen, abs=0.01)
    panel = opened.locator(".panel").first.bounding_box()
    assert panel["y"] + panel["height"] < 726  # tables and diagrams are on the first page


@needs_browser
def test_a_large_feeder_is_drawn_on_a_canvas_and_zoomed(browser: Any, tmp_path: Path) -> None:
    recording = record_day({"env_name": "ieee123_mg", "episode_length": 3}, ["no_control"], 195)
    text = make_page(recording).replace("const FEW = 150;", "const FEW = 10;")
    (tmp_path / "day.html").write_text(text, encoding="utf-8")
    page, told = browser.new_page(viewport={"width": 1400, "height": 1000}), list[str]()
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto((tmp_path / "day.html").as_uri())
    page.wait_for_selector("body[data-ready]", state="attached")
    inked = "(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some(Boolean))"
    assert page.evaluate(inked + "(document.querySelector('.diagram canvas'))")
    view = page.locator(".diagram svg").get_attribute("viewBox")
    page.locator(".zoom button").first.click()
    assert page.locator(".diagram svg").get_attribute("viewBox") != view
    page.keyboard.press("0")
    assert page.locator(".diagram svg").get_attribute("viewBox") == view
    page.close()
    assert told == []


@needs_browser
def test_devices_that_were_handed_back_are_marked(browser: Any, tmp_path: Path) -> None:
    config = {"env_name": "ieee13_voltvar", "never_worse_than": "native", "step_minutes": 60, "episode_length": 24}
    recordings = record_day(config, ["rule_based", "native"], "2018-07-15")
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(write_page(recordings, tmp_path / "day.html").as_uri())
    page.wait_for_selector("body[data-ready]", state="attached")
    scene = json.loads(page.locator("#facts").text_content())["scene"]
    handed = recordings[0].devices["handed_back"]
    assert 0 < recordings[0].totals()["handed_back"] < 24
    for step in (int(handed.sum(axis=1).argmax()), int(handed.sum(axis=1).argmin())):
        page.locator("#slider").fill(str(step))
        marked = page.locator(".diagram").first.locator(".handed-back[visibility=visible]").count()
        assert marked == sum(bool(handed[step, symbol["devices"]].any()) for symbol in scene["symbols"])
        told = [point_at(page, 0, symbol["x"], symbol["y"]) for symbol in scene["symbols"] if symbol["devices"]]
        assert any("its own control" in each for each in told) == bool(handed[step].any())
    assert "Handed back" in page.locator("#totals").inner_text()
    page.screenshot(path=str(tmp_path / "day.png"))
    page.close()


def test_a_page_that_would_be_too_large_is_thinned_and_says_so(
    recordings: list[DayRecording], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_page(recordings)
    assert "Left out of this page" not in whole
    monkeypatch.setattr(page_module, "MAX_BYTES", len(whole) - 1)
    thinned = make_page(recordings)
    assert len(thinned) < len(whole)
    assert "Left out of this page, to keep it small: reactive power of branches." in thinned
    monkeypatch.setattr(page_module, "MAX_BYTES", 1)
    assert "every second step" in make_page(recordings)


def test_a_page_holds_one_day(recordings: list[DayRecording]) -> None:
    other = record_day({"scenario": COARSE, "episode_length": 1}, ["native"], "2018-07-16")
    for wrong in ([], [recordings[0], *other]):
        with pytest.raises(ScenarioError, match="a page shows one day of one scenario"):
            make_page(wrong)
