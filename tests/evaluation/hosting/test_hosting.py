"""Hosting capacity: the same as a sweep in plain OpenDSS, kept and gone on with, and told as it is."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from powergrid.errors import PowerGridError, ScenarioError
from powergrid.evaluation.hosting import LIMITS, Hosting, HostingOptions, study, study_hosting, sweep
from powergrid.evaluation.hosting.additions import Placement, build, list_elements, place, shape_of
from powergrid.evaluation.hosting.limits import BINDING, USUAL, find_breach, pick_limits
from powergrid.evaluation.hosting.play import play
from powergrid.evaluation.hosting.sweep import Control
from powergrid.grid.circuit.circuit import network_of
from powergrid.grid.feeder import read_feeder
from powergrid.scenario import Scenario, load_scenario
from scripts.hosting_by_hand import compare

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SMALL = """
clear
new circuit.small basekv=12.47 pu=1.03 bus1=head mvasc3=150 mvasc1=120
new linecode.c nphases=3 r1=0.3 x1=0.4 r0=0.6 x0=1.2 c1=3 c0=2 units=km normamps=150
new line.one bus1=head bus2=mid linecode=c length=4 units=km
new line.two bus1=mid bus2=far linecode=c length=3 units=km
new line.leg bus1=far.2 bus2=leg.2 phases=1 r1=0.5 x1=0.4 c1=3 length=1 units=km normamps=100
new load.a bus1=mid kv=12.47 kw=900 pf=0.9
new load.b bus1=far kv=12.47 kw=700 kvar=300
new load.c bus1=leg.2 phases=1 kv=7.2 kw=120 kvar=40
new capacitor.cap bus1=far kv=12.47 kvar=300
set voltagebases=[12.47]
calcvoltagebases
"""
HOURLY = {"step_minutes": 60, "split": "all"}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    master = tmp_path_factory.mktemp("feeder") / "small" / "Master.dss"
    master.parent.mkdir()
    master.write_text(SMALL)
    return load_scenario(str(master), HOURLY)


@pytest.fixture(scope="module")
def ieee13() -> Scenario:
    return load_scenario("ieee13_voltvar", HOURLY | {"episode_length": 24, "divergence": {"policy": "hold"}})


@pytest.mark.parametrize(
    ("feeder", "control", "at", "step_kw", "most_kw"),
    [("ieee13", "native", "uniform", 1500, 4500), ("ieee34", "no_control", "890", 200, 600),
     ("small", "volt_var", "far", 1500, 6000)],
)  # fmt: skip
def test_capacity_by_cause_is_that_of_plain_opendss_within_a_step(
    feeder: str, control: str, at: str, step_kw: float, most_kw: float, small: Scenario, tmp_path: Path
) -> None:
    scenario = small if feeder == "small" else load_scenario(feeder, HOURLY)
    ours, by_hand = compare(scenario, control, at, 180, step_kw, most_kw, tmp_path)
    assert ours.keys() == LIMITS.keys()
    assert {name: abs(kw - by_hand[name]) <= step_kw for name, kw in ours.items()} == dict.fromkeys(ours, True)
    assert len(set(ours.values())) > 1  # not all at 0, nor all at the most


CONTROLS = ["native", "volt_var"]
OPTIONS = HostingOptions(placements=["uniform", "random"], seeds=1, share=0.7, step_kw=1200, most_kw=6000, dates=[200])


@pytest.fixture(scope="module")
def made(small: Scenario, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hosting, Path]:
    folder = tmp_path_factory.mktemp("hosting") / "here"
    return study_hosting(small, CONTROLS, folder, OPTIONS), folder


def test_capacity_is_the_size_below_the_first_that_breaks_something_new(made: tuple[Hosting, Path]) -> None:
    hosting, folder = made
    points, capacity = pd.read_parquet(folder / "points.parquet"), hosting.capacity
    assert len(capacity) == len(CONTROLS) * 2
    for row in capacity.to_dict("records"):
        own = points[(points.control == row["control"]) & (points.placement == row["placement"])]
        broken = own[own.limit.isin(BINDING) & (own.new > 0)].kw
        first = broken.min() if len(broken) else np.inf
        assert row["capacity_kw"] == max(own.kw[own.kw < first], default=0.0)
        assert row["nothing_broke"] == (not len(broken))
    by_cause = hosting.causes[hosting.causes.limit.isin(BINDING)].groupby(["control", "placement"]).capacity_kw.min()
    assert capacity.capacity_kw.max() > 0.0
    assert by_cause.to_dict() == capacity.set_index(["control", "placement"]).capacity_kw.to_dict()


def test_files_agree(made: tuple[Hosting, Path]) -> None:
    hosting, folder = made
    tables = hosting.tables()
    assert tables.keys() == {"capacity", "causes", "points", "buses", "already_broken", "limits"}
    with closing(sqlite3.connect(folder / "hosting.sqlite")) as database:
        for name, table in tables.items():
            assert len(pd.read_sql(f"select * from {name}", database)) == len(table)
            assert len(pd.read_parquet(folder / f"{name}.parquet")) == len(table)
    assert {file.name for file in folder.glob("*.png")} == {f"map_{name}.png" for name in CONTROLS}
    assert set(hosting.buses.bus) == {"mid", "far", "leg"}


def test_what_is_there_is_not_played_again(
    made: tuple[Hosting, Path], small: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosting, folder = made

    def refuse(*_: Any) -> None:
        raise AssertionError("played again")

    monkeypatch.setattr(study, "keep_part", refuse)
    again = study_hosting(small, CONTROLS, folder, OPTIONS)
    pd.testing.assert_frame_equal(again.capacity, hosting.capacity)
    with pytest.raises(ScenarioError, match="holds a study of another sizes kw"):
        study_hosting(small, CONTROLS, folder, replace(OPTIONS, step_kw=500))
    with pytest.raises(AssertionError, match="played again"):
        study_hosting(small, [*CONTROLS, "no_control"], folder, OPTIONS)


def test_halving_finds_what_going_up_finds(ieee13: Scenario) -> None:
    sizes = tuple(500.0 * (i + 1) for i in range(6))
    plan = sweep.Plan(ieee13, "pv", (), sizes, sizes, tuple(pick_limits(USUAL)), BINDING, (180,), 0)
    control, alone = Control("native", ("native", None)), Placement("each", {"671": 1.0})
    base = play(ieee13, control.player, plan.days, 0)
    found = [search(plan, ieee13, control, alone, base) for search in (sweep.sweep_up, sweep.sweep_halving)]
    up, halved = (
        sweep.Sweep(control="native", placement="each", seed=None, shares={}, points=points) for points in found
    )
    assert up.capacity(BINDING)[0] == halved.capacity(BINDING)[0]
    assert 0.0 < up.capacity(BINDING)[0] < sizes[-1]
    assert len(halved.points) < len(up.points)


def test_what_is_broken_already_does_not_count(ieee13: Scenario) -> None:
    base = play(ieee13, ("native", None), (180,), 0)
    larger = load_scenario(ieee13, {"feeder_changes": {"add": build("pv", 500.0, Placement("at", {"671": 1.0}), (),
                                                                    volt_var=False)}})  # fmt: skip
    played = play(larger, ("native", None), (180,), 0)
    (tight,) = pick_limits(["unbalance=0"])  # every bus is beyond it at every step
    assert find_breach(tight, base, base).new == 0
    worse = played.unbalance_pu > base.unbalance_pu.max(axis=0) + 1e-4
    assert find_breach(tight, played, base).new == int(np.count_nonzero(worse)) < played.unbalance_pu.size
    later = replace(base, unbalance_pu=np.roll(base.unbalance_pu, 1, axis=0))  # what moves an hour later is not new
    assert find_breach(tight, later, base).new == 0
    quiet = replace(base, unbalance_pu=np.zeros_like(base.unbalance_pu))
    assert find_breach(tight, played, quiet).new == int(np.count_nonzero(played.unbalance_pu > 1e-4))


@pytest.mark.parametrize("kind", ["pv", "storage", "ev", "load"])
def test_looking_at_a_trip_leaves_the_day_as_it_is(kind: Any, ieee13: Scenario) -> None:
    uniform = place(network_of(ieee13.read_feeder()), ["uniform"], [], 1.0)[0]
    hours = np.arange(24.0)
    added = build(kind, 900.0, uniform, shape_of(kind, 1.0 + hours, hours), volt_var=kind in ("pv", "storage"))
    larger = load_scenario(ieee13, {"feeder_changes": {"add": added}})
    without, tripped = (
        play(larger, ("native", None), (180,), 0, trips) for trips in ((), list_elements(kind, uniform))
    )
    assert np.array_equal(without.v_pu, tripped.v_pu)
    assert np.array_equal(without.reverse_kw, tripped.reverse_kw)
    assert tripped.step_pu.max() > 1e-3


def test_placements_are_where_they_say() -> None:
    network = network_of(read_feeder("ieee13"))
    uniform, end, one, other, named = place(network, ["uniform", "end", "random", "634,671"], [0, 1], 0.4)
    assert len(uniform.shares) == 9
    assert list(end.shares) == ["675"]
    assert len(one.shares) == len(other.shares) == 4
    assert one.shares != other.shares
    assert named.shares == {"634": 0.5, "671": 0.5}
    assert place(network, ["end, uniform"], [0], 0.4) == [end, uniform]
    with pytest.raises(ScenarioError, match="'end' stands for buses of its own"):
        place(network, ["634,end"], [0], 0.4)
    assert all(sum(each.shares.values()) == pytest.approx(1.0) for each in (uniform, end, one, other, named))


def test_the_worst_battery_charges_at_peak_and_discharges_at_least_demand() -> None:
    net = np.array([5.0, 4, 3, 2, 1, 0, -1, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 5])
    shape = np.array(shape_of("storage", net, net))
    assert set(np.flatnonzero(shape > 0)) == {5, 6, 7, 8}
    assert set(np.flatnonzero(shape < 0)) == {17, 18, 19, 20}
    assert shape.sum() == 0.0


@pytest.mark.parametrize(
    ("options", "controls", "told"),
    [
        ({"limits": ["anse_a", "thermal=x"]}, ["native"], "did you mean 'ansi_a'"),
        ({"placements": ["unform"]}, ["native"], "did you mean 'uniform'"),
        ({"dates": ["2017-01-01"]}, ["native"], "is no day of the profiles"),
        ({"kind": "pw"}, ["native"], "unknown kind 'pw'"),
        ({"step_kw": 10.0, "most_kw": 5.0}, ["native"], "0 sizes"),
        ({}, ["natve"], "did you mean 'native'"),
    ],
)
def test_wrong_wishes_are_told(
    options: dict[str, Any], controls: list[str], told: str, ieee13: Scenario, tmp_path: Path
) -> None:
    with pytest.raises(PowerGridError, match=told):
        study_hosting(ieee13, controls, tmp_path / "x", HostingOptions(**options))
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_page_switches_maps_and_needs_nothing_else(made: tuple[Hosting, Path]) -> None:
    from playwright.sync_api import sync_playwright

    _, folder = made
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 800, "height": 900})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        page.goto(f"file://{folder / 'report.html'}")
        assert page.locator(".map1").is_visible()
        page.locator("label[for=m2]").click()
        assert page.locator(".map2").is_visible()
        assert not page.locator(".map1").is_visible()
        tip = page.locator(".map2 circle.bus title").first.text_content() or ""
        assert "kW" in tip
        assert page.evaluate("document.documentElement.scrollWidth") <= 800
        chromium.close()
    assert said == []
