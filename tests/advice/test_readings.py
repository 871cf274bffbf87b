"""Names, units, numbers and shapes of readings, and what is said of those that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from powergrid.advice.catalogue import Catalogue
from powergrid.advice.files import read_batches, write_rows
from powergrid.advice.readings import check_readings, read_time
from powergrid.envs.core import GridTask
from powergrid.errors import ScenarioError
from powergrid.scenario import load_scenario


@pytest.fixture(scope="module")
def task() -> Iterator[GridTask]:
    built = GridTask(load_scenario("ieee13_voltvar", {"split": "all"}))
    yield built
    built.close()


@pytest.fixture(scope="module")
def catalogue(task: GridTask) -> Catalogue:
    return Catalogue(task)


def values(catalogue: Catalogue, given: Any) -> dict[str, float]:
    sound = check_readings(given, catalogue)
    assert sound.problems == []
    return {catalogue.readings[place].name: number for place, number in sound.values.items()}


@pytest.mark.parametrize(
    ("name", "number", "means", "is_"),
    [
        ("675.1.v_pu", 0.98, "675.1.v_pu", 0.98),
        ("BUS.675.1.V_PU", 0.98, "675.1.v_pu", 0.98),
        ("675.1.v_kv", 2.4018, "675.1.v_pu", 2.4018 / (4.16 / 3**0.5)),
        ("675.1.v_v", 2401.8, "675.1.v_pu", 2401.8 / (4160 / 3**0.5)),
        ("634.2.v [V]", 277.0, "634.2.v_pu", 277.0 / (480 / 3**0.5)),
        ("battery_1.soc_percent", 40, "battery_1.soc", 0.4),
        ("battery_1.p_mw", 0.05, "battery_1.p_kw", 50.0),
        ("line.650632.q_var", -5000, "line.650632.q_kvar", -5.0),
        ("line.650632.2.p_kw", -90.0, "line.650632.2.p_kw", -90.0),
        ("world.price_usd_per_mwh", 50, "world.price_usd_per_kwh", 0.05),
        ("regulator_1.tap_pu", 1.05, "regulator_1.tap", 8.0),
        ("capacitor_1.steps_on", "on", "capacitor_1.steps_on", 1.0),
        ("load.671.p_w", 4e5, "load.671.p_kw", 400.0),
    ],
)  # fmt: skip
def test_names_and_units_mean_what_an_engineer_means(
    catalogue: Catalogue, name: str, number: Any, means: str, is_: float
) -> None:
    assert values(catalogue, {name: number}) == {means: pytest.approx(is_, rel=1e-12)}


def test_bus_stands_for_its_nodes_line_to_line_too(catalogue: Catalogue) -> None:
    assert values(catalogue, {"645.v_pu": 0.97}) == {"645.2.v_pu": 0.97, "645.3.v_pu": 0.97}
    found = values(catalogue, {"671.v_ll_kv": 4.16})
    assert list(found) == ["671.1.v_pu", "671.2.v_pu", "671.3.v_pu"]
    assert list(found.values()) == pytest.approx([1.0] * 3)


def test_amperes_of_a_branch_are_its_loading(catalogue: Catalogue, task: GridTask) -> None:
    network = task.simulation.network
    amps = network.branches.norm_amps[network.branch_index["line.650632"]]
    assert values(catalogue, {"line.650632.i_ka": amps / 2000.0}) == {"line.650632.loading_pu": pytest.approx(0.5)}


def test_unit_may_stand_beside_the_number_and_the_time_too(catalogue: Catalogue) -> None:
    rows = [{"name": "675.1.v_pu", "value": "2.4018", "unit": "kV", "time": "2026-01-01T00:10"}]
    sound = check_readings({"time": "2026-01-01T00:15", "readings": rows}, catalogue)
    assert sound.problems == []
    assert sound.time == np.datetime64("2026-01-01T00:15")
    assert list(sound.values.values()) == [pytest.approx(1.0, abs=1e-4)]
    assert list(sound.times.values()) == [np.datetime64("2026-01-01T00:10")]


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("675.1.v_pu", float("nan"), "reading-not-finite"),
        ("675.1.v_pu", "inf", "reading-not-finite"),
        ("675.1.v_pu", "high", "reading-not-a-number"),
        ("675.1.v_pu", [1.0], "reading-not-a-number"),
        ("675.1.v_pu", True, "reading-not-a-number"),
        ("675.1.v_pu", 10**400, "reading-not-a-number"),
        ("675.1.v_pu", 2401.8, "reading-implausible"),
        ("675.1.v_pu", -0.1, "reading-implausible"),
        ("battery_1.soc", 40.0, "reading-implausible"),
        ("regulator_1.tap", 17, "reading-implausible"),
        ("regulator_1.tap", 2.5, "reading-implausible"),
        ("675.9.v_pu", 1.0, "reading-unknown"),
        ("x" * 10_000, 1.0, "reading-unknown"),
        ("battery_1.p_kvar", 1.0, "reading-unit"),
        ("675.1.v_pu", {"value": 1.0, "unit": "parsec"}, "reading-unit"),
        ("675.1.v_pu", {"value": 1.0, "time": "noon"}, "reading-time"),
    ],
)
def test_what_cannot_be_used_is_told_and_the_rest_is_used(
    catalogue: Catalogue, name: str, number: Any, code: str
) -> None:
    sound = check_readings({name: number, "671.1.v_pu": 0.99}, catalogue)
    assert [problem.code for problem in sound.problems] == [code]
    assert len(sound.values) == 1


def test_unknown_name_has_the_nearest_one_as_remedy(catalogue: Catalogue) -> None:
    (problem,) = check_readings({"battery_1.sox": 0.5}, catalogue).problems
    assert "battery_1.soc" in problem.remedy


def test_reading_given_twice_differently_is_told(catalogue: Catalogue) -> None:
    sound = check_readings({"675.1.v_pu": 0.98, "network.675.1.v_pu": 0.99}, catalogue)
    assert [problem.code for problem in sound.problems] == ["reading-twice"]
    assert list(sound.values.values()) == [0.98]


def test_missing_numbers_are_simply_missing(catalogue: Catalogue) -> None:
    assert values(catalogue, {"675.1.v_pu": None, "675.2.v_pu": "", "675.3.v_pu": "n/a"}) == {}


@pytest.mark.parametrize(
    "given", [None, 7, "readings", [3], {"readings": 3}, {"readings": {"time": 3}}, b"x", object()]
)
def test_whatever_is_sent_is_taken_without_an_exception(catalogue: Catalogue, given: Any) -> None:
    sound = check_readings(given, catalogue)
    assert sound.values == {}
    assert (sound.problems == []) == (given is None)


def test_many_problems_are_counted(catalogue: Catalogue) -> None:
    sound = check_readings({f"nothing_{i}": 1.0 for i in range(1000)}, catalogue)
    assert len(sound.problems) == 101
    assert sound.problems[-1].text == "900 more problems of readings"


@pytest.mark.parametrize("value", ["", "noon", 5, None, float("nan"), "0001-01-01", np.datetime64("NaT"), True])
def test_what_is_no_time_is_none(value: Any) -> None:
    assert read_time(value) is None


def test_times_are_read_on_their_own_clock() -> None:
    for value in (
        "2026-07-01T14:00",
        "2026-07-01 14:00:00",
        "2026-07-01T14:00:00+02:00",
        np.datetime64("2026-07-01T14:00"),
    ):
        assert read_time(value) == np.datetime64("2026-07-01T14:00")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".jsonl"])
def test_files_of_one_column_a_reading_come_back_in_order_of_time(tmp_path: Path, suffix: str) -> None:
    rows = [{"time": "2026-01-01T00:15:00", "675.1.v_pu": 0.98}, {"time": "2026-01-01T00:30:00", "675.1.v_pu": 0.97}]
    ordered = rows if "json" in suffix else rows[::-1]
    assert read_batches(write_rows(ordered, tmp_path / f"readings{suffix}")) == rows


def test_files_of_one_row_a_reading_are_batches_by_time(tmp_path: Path, catalogue: Catalogue) -> None:
    file = tmp_path / "long.csv"
    file.write_text(
        "time,name,value,unit\n2026-01-01 00:30,675.1.v,2.33,kV\n2026-01-01 00:15,675.1.v,2401.8,V\n"
        "2026-01-01 00:15,battery_1.soc,40,%\n2026-01-01 00:15,675.2.v,,V\n"
    )
    first, second = read_batches(file)
    assert values(catalogue, first) == {"675.1.v_pu": pytest.approx(1.0, abs=1e-4), "battery_1.soc": 0.4}
    assert list(values(catalogue, second)) == ["675.1.v_pu"]


def test_json_may_be_one_batch_or_several(tmp_path: Path) -> None:
    batch = {"time": "2026-01-01T00:15", "readings": {"675.1.v_pu": 0.98}}
    for content, count in ((batch, 1), ([batch, batch], 2), ([{"name": "675.1.v_pu", "value": 1.0}], 1)):
        (tmp_path / "r.json").write_text(json.dumps(content))
        assert len(read_batches(tmp_path / "r.json")) == count


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("r.json", "{", "is no JSON"),
        ("r.csv", "time\n2026-01-01\n", "holds no readings"),
        ("r.csv", "675.1.v_pu\n1.0\n1.0\n", "no column time"),
        ("r.doc", "x", "allowed endings"),
    ],
)
def test_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ScenarioError, match=told):
        read_batches(tmp_path / name)
    with pytest.raises(ScenarioError, match="no such file"):
        read_batches(tmp_path / "absent.csv")
