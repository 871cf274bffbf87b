"""Stresses reach the engine, policies meet them without training, and the matrix is what days came to."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import powergrid
from powergrid.cli import main
from powergrid.errors import ScenarioError
from powergrid.evaluation.replay.recorder import record_day
from powergrid.evaluation.replay.recording import DayRecording
from powergrid.evaluation.rollout import read_scenario
from powergrid.evaluation.stresses.play import stress_days
from powergrid.evaluation.stresses.readings import LossyPolicy, MissingReadings
from powergrid.evaluation.stresses.report import StressReport
from powergrid.evaluation.stresses.spec import STRESSES, Stress, find_stresses, find_worst_line, put_under
from powergrid.quantities import QUANTITIES
from powergrid.scenario import Scenario, load_scenario

#: A run of ieee13_mg, one iteration, trained without events.
RUN = Path(__file__).parents[2] / "training" / "runs" / "data" / "run_010"
DAY = 45


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return read_scenario({"env_name": "ieee13_mg", "episode_length": 6, "step_minutes": 240}, "test")


class Spy:
    """Act as a policy does and keep what it saw."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.seen = policy, list[dict[str, np.ndarray]]()
        self.digests, self.trained_scenario, self.spaces = policy.digests, policy.trained_scenario, policy.spaces

    def act(self, observations: Mapping[str, np.ndarray]) -> Any:
        self.seen.append({agent: seen.copy() for agent, seen in observations.items()})
        return self.policy.act(observations)


def played(scenario: Scenario, name: str = "no_control") -> DayRecording:
    return record_day(scenario, [name], DAY)[0]


def test_impedances_under_a_stress_are_the_engines_own(scenario: Scenario) -> None:
    already = load_scenario(scenario, {"feeder_changes.scale.line_r": 1.5})  # a factor comes on top of the scenario's
    under = put_under(already, STRESSES["lines_up_10"])
    with closing(scenario.simulate()) as before, closing(under.simulate()) as after:
        for key, factor in (("RMatrix", 1.65), ("XMatrix", 1.1)):
            for name in ("650632", "684611"):
                one, two = (
                    each.circuits[0].engine.get_floats(each.circuits[0].handles["Line"][name], "Line", key)
                    for each in (before, after)
                )
                assert two == pytest.approx(factor * one)


def test_load_and_sun_are_multiplied_on_every_step(scenario: Scenario) -> None:
    as_it_is = played(scenario)
    more = played(put_under(scenario, STRESSES["load_up_20"]))
    assert more.network["demand_kw"] == pytest.approx(1.2 * as_it_is.network["demand_kw"])
    assert more.network["demand_kvar"] == pytest.approx(1.2 * as_it_is.network["demand_kvar"])
    assert (more.network["source_p_kw"] > as_it_is.network["source_p_kw"]).all()
    less = played(put_under(scenario, STRESSES["less_sun"]))
    assert less.network["sun_pu"] == pytest.approx(0.7 * as_it_is.network["sun_pu"])
    assert less.devices.of("pv_1", "p_kw").sum() < 0.75 * as_it_is.devices.of("pv_1", "p_kw").sum()


def test_sun_of_another_day_is_that_day_and_nothing_else(scenario: Scenario) -> None:
    under = put_under(scenario, STRESSES["other_sun"])
    later = record_day(scenario, ["no_control"], DAY + 7)[0]
    now, as_it_is = played(under), played(scenario)
    assert now.network["sun_pu"] == pytest.approx(later.network["sun_pu"])
    assert now.network["demand_kw"] == pytest.approx(as_it_is.network["demand_kw"])
    assert np.abs(now.network["sun_pu"] - as_it_is.network["sun_pu"]).max() > 0.01
    again = pickle.loads(pickle.dumps(under))  # as worker processes get it
    assert again.digest() == under.digest() != scenario.digest()
    assert played(load_scenario(again, {"native_controls": True})).network["sun_pu"] == pytest.approx(
        later.network["sun_pu"]
    )


def test_sun_of_another_year_is_taken_by_date(scenario: Scenario, tmp_path: Path) -> None:
    times = pd.date_range("2020-01-01", "2020-12-31 23:00", freq="1h")  # a leap year, without demand or prices
    sun = np.where((times.hour >= 8) & (times.hour < 16), (times.month * 31 + times.day) / 1000.0, 0.0)
    pd.DataFrame({"time": times, "pv_pu": sun}).to_csv(tmp_path / "weather.csv", index=False)
    (tmp_path / "own.yaml").write_text("cloudy_2020: {sun_of: weather.csv}\n")
    own = find_stresses([str(tmp_path / "own.yaml")])["cloudy_2020"]
    recording = played(put_under(scenario, own))
    month, day = (int(part) for part in recording.date.split("-")[1:])
    assert recording.network["sun_pu"][:, 0] == pytest.approx([0, 0, *[(month * 31 + day) / 1000.0] * 2, 0, 0])
    pd.DataFrame({"time": times[:500], "pv_pu": sun[:500]})[: 24 * 20].to_csv(tmp_path / "weather.csv", index=False)
    with pytest.raises(ScenarioError, match="has no sun of 01-21 and of 344 other days of the year"):
        put_under(scenario, own)


def test_line_that_is_out_carries_nothing_all_day(scenario: Scenario) -> None:
    recording = played(put_under(scenario, Stress(outage=("Line.684611",))))
    for quantity in ("p_kw", "q_kvar", "loading_pu", "closed"):  # to rounding: the engine's zero of kW is 5e-9
        assert np.abs(recording.branches.of("line.684611", quantity)).max() < 1e-6
    assert not recording.nodes.of("611.3", "energised").any()
    assert np.abs(played(scenario).branches.of("line.684611", "p_kw")).max() > 10.0


def test_worst_line_is_the_most_loaded_that_a_quarter_of_the_load_depends_on(scenario: Scenario) -> None:
    loading = {"line.650632": 0.9, "line.632670": 0.8, "line.692675": 0.5, "line.632633": 0.6, "line.671684": 0.4}
    # downstream of 632 and 670 is most of the load; of 692 a quarter, of 633 and 684 a tenth
    assert find_worst_line(scenario, loading) == "line.632633"
    assert find_worst_line(scenario, loading | {"line.632633": 0.1}) == "line.692675"


def test_stress_that_changes_nothing_plays_the_same(scenario: Scenario) -> None:
    same = {"same": {"load": 1.0, "set": {"load_scale": scenario.load_scale, "voltage.v_max_pu": 1.05}}}
    policy = powergrid.load_policy(RUN)
    days = stress_days(scenario, [("run", policy)], same, against=["native", "no_control"], days=2).days
    one, two = (days[days["stress"] == name].drop(columns="stress") for name in ("undisturbed", "same"))
    pd.testing.assert_frame_equal(one.reset_index(drop=True), two.reset_index(drop=True))


def test_policy_trained_without_events_meets_them_and_sees_what_it_saw(scenario: Scenario) -> None:
    spy = Spy(powergrid.load_policy(RUN))
    stresses = {
        "out": {"outage": "Line.684611"},
        "dear": {"events": {"spike": {"kind": "price_spike", "factor": 1.5, "at_step": 0}}, "set": {"load_scale": 2.0}},
    }
    report = stress_days(scenario, [("run", spy)], stresses, against=[], days=1)
    steps = 6
    assert {len(seen[agent]) for seen in spy.seen for agent in ("MG1", "MG2")} == {28}
    before, out, dear = (spy.seen[i * steps] for i in range(3))
    for agent in ("MG1", "MG2"):  # an outage strikes in the first step: what is seen before it is the same
        np.testing.assert_array_equal(before[agent], out[agent])
    changed = np.flatnonzero(before["MG1"] != dear["MG1"])
    assert before["MG1"][9] == dear["MG1"][9]  # a price hours ahead, scaled as in training
    assert 4 in changed  # what energy costs
    assert 10 <= len(changed) < 28
    rows = report.days.set_index("stress")
    assert rows.loc["out", "unserved_kwh"] > 0.0 == rows.loc["undisturbed", "unserved_kwh"]


class Echo:
    """Give what was seen back as the action."""

    def act(self, observations: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return observations


@pytest.mark.parametrize("shown", ["last", "zero"])
def test_missing_readings_are_held_or_zero_for_the_share_of_time_that_is_asked(shown: Any) -> None:
    names = {"A": ["world.time_of_day_sin", *(f"A.v{i}_pu" for i in range(40))]}
    spec, steps = MissingReadings(share=0.2, lasts_steps=5, shown=shown), 600
    given = np.random.default_rng(1).uniform(0.1, 1.0, (steps, 41)).astype(np.float32)

    def play(day: int) -> np.ndarray:
        lossy = LossyPolicy(Echo(), spec, seed=3)
        lossy.start_day(day, names)
        return np.stack([lossy.act({"A": row})["A"] for row in given])

    seen = play(7)
    lost = seen != given
    assert not lost[0].any()  # a day begins with all readings
    assert not lost[:, 0].any()  # and nobody needs a reading to know the time
    assert lost[:, 1:].mean() == pytest.approx(0.2, abs=0.03)
    held = np.vstack([np.zeros(41), seen[:-1]]) if shown == "last" else np.zeros_like(seen)
    np.testing.assert_array_equal(seen[lost], held[lost])
    spells = np.count_nonzero(np.diff(lost[:, 1:].astype(int), axis=0) == 1)
    assert lost[:, 1:].sum() / spells == pytest.approx(5.0, rel=0.15)
    np.testing.assert_array_equal(play(7), seen)
    assert (play(8) != seen).any()


@pytest.fixture(scope="module")
def report(scenario: Scenario) -> StressReport:
    stresses = {name: STRESSES[name] for name in ("load_up_20", "line_out", "missing_readings")}
    policy = powergrid.load_policy(RUN)
    return stress_days(scenario, [("run", policy)], stresses, days=3, seed=2, command="powergrid stress")


def test_matrix_is_what_days_came_to(report: StressReport) -> None:
    days, matrix = report.days, report.matrix()
    assert len(matrix) == 4 * 4 * 7
    assert len(days) == 4 * 4 * 3
    for row in matrix.to_dict("records"):
        own, native = (
            days[(days["stress"] == row["stress"]) & (days["policy"] == name)].set_index("day")[row["measure"]]
            for name in (row["policy"], "native")
        )
        assert row["unit"] == QUANTITIES[row["measure"]].unit
        assert row["mean"] == pytest.approx(own.mean())
        if row["policy"] != "native":
            gap = (own - native).to_numpy()
            assert row["difference"] == pytest.approx(gap.mean(), abs=1e-6)
            half = 4.302653 * gap.std(ddof=1) / 3**0.5  # Student's t of three days
            assert row["half_interval"] == pytest.approx(half, rel=1e-4, abs=1e-5)


def test_missing_readings_reach_policies_alone(report: StressReport) -> None:
    days = report.days.set_index(["stress", "policy", "day"]).sort_index()
    for name in report.names:
        same = days.loc["missing_readings", "reward"][name].equals(days.loc["undisturbed", "reward"][name])
        assert same == (name != "run")


def test_report_says_what_holds_and_fits_80_columns(report: StressReport, tmp_path: Path) -> None:
    shown = io.StringIO()
    Console(width=80, file=shown).print(report.table())
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    rewards = report.days.groupby(["stress", "policy"])["reward"].mean()
    for policy in report.names:  # no number is cut
        assert any(line.split()[:1] == [policy] and line.rstrip().endswith(f"{rewards['line_out', policy]:.2f}")
                   for line in lines)  # fmt: skip
    assert sum(line.strip() in report.summaries for line in lines) == 4  # none is broken over two lines
    assert report.facts["line_out"].startswith("line.")
    said = " ".join(map(str, report.verdicts()["run"]))
    assert "On 3 undisturbed days run had" in said
    assert "differs from what it was trained on" in said
    files = report.write(tmp_path)
    assert {file.name for file in files} == {
        "stress.html", "stress.json", "days.csv", "days.parquet", "matrix.csv", "matrix.parquet",
    }  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "matrix.parquet"), report.matrix())
    page = (tmp_path / "stress.html").read_text()
    assert "Demand that was not served" in page
    assert STRESSES["line_out"].description in page
    kept = json.loads((tmp_path / "stress.json").read_text())
    assert kept["stresses"]["load_up_20"] == {"description": STRESSES["load_up_20"].description, "load": 1.2}


def test_stress_on_which_nothing_depends_is_named_and_not_counted() -> None:
    scenario = read_scenario({"env_name": "ieee13_voltvar", "episode_length": 4}, "test")  # no sun there
    report = stress_days(scenario, ["no_control"], ["less_sun", "missing_readings"], against=["native"], days=2)
    said = [str(each) for each in report.verdicts()["no_control"]]
    assert said[-1].startswith("Nothing here depends on what less_sun, missing_readings changes")


def test_wrong_stresses_are_told_together(scenario: Scenario, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("hot: {lod: 1.2}\ndark: {sun: 3}\nidle: {description: none}\nnone: 3\n")
    with pytest.raises(ScenarioError) as error:
        find_stresses([str(tmp_path / "own.yaml")])
    said = str(error.value)
    assert "did you mean 'load'?" in said
    assert "dark.sun" in said
    assert "it changes nothing" in said
    with pytest.raises(ScenarioError, match=r"unknown stress 'load_up' .did you mean 'load_up_20'"):
        find_stresses(["load_up"])
    with pytest.raises(ScenarioError, match="undisturbed: is what days are called as they are"):
        find_stresses({"undisturbed": Stress(load=1.1)})
    wrong = {"a": {"outage": "Line.6846111"}, "b": {"set": {"load_scal": 2}}}
    with pytest.raises(ScenarioError) as error:
        stress_days(scenario, ["no_control"], wrong, against=[], days=1)
    assert "a: events.stress_outage_1: unknown branch 'Line.6846111' (did you mean 'line.684611'" in str(error.value)
    assert "b: " in str(error.value)


def test_command_plays_and_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["stress", "rule_based", "ieee13_mg", "--stress", "load_up_10", "--against", "native", "--days", "1",
              "--set", "episode_length=4", "--workers", "1", "--out", str(tmp_path / "out")])  # fmt: skip
    assert ended.value.code == 0
    assert "load_up_10" in capsys.readouterr().out
    assert (tmp_path / "out" / "stress.html").is_file()
