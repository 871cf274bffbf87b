"""Reports: every number again from recorded days as tables, verdicts from days made by hand, the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from powergrid.cli import main
from powergrid.evaluation.drawing.charts import find_looks
from powergrid.evaluation.players import find_players
from powergrid.evaluation.replay.recorder import record_day, record_days
from powergrid.evaluation.replay.recording import DayRecording
from powergrid.evaluation.replay.tables import write_recording
from powergrid.evaluation.rollout import read_scenario
from powergrid.evaluation.studies.charts import draw_bars, draw_lines
from powergrid.evaluation.studies.compare import compare, judge, name_title
from powergrid.evaluation.studies.report import PlannerReport, report_days
from powergrid.evaluation.studies.summary import Summary
from powergrid.grid.profiles.profiles import pick_days
from powergrid.quantities import MEASURES, STUDY
from powergrid.scenario import Scenario, load_scenario
from tests.evaluation.replay.test_page import BROWSER, needs_browser
from tests.evaluation.worlds import ALL_KINDS
from tests.scenario.discovery.models import LOOPED, write

PLAYED = ["rule_based", "native"]


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return read_scenario(load_scenario(ALL_KINDS), "test")


@pytest.fixture(scope="module")
def report(scenario: Scenario) -> PlannerReport:
    return report_days(scenario, ["rule_based"], against=["native"], days=3, seed=5, command="powergrid report")


@pytest.fixture(scope="module")
def replayed(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[pd.DataFrame]]:
    """The same days as the files that a replay writes of them, by policy."""
    simulation = scenario.simulate()
    days = pick_days(simulation.days, 3).tolist()
    simulation.close()
    folder = tmp_path_factory.mktemp("replay")
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in PLAYED}
    for recording in record_days(scenario, find_players(PLAYED), days, seed=5):
        file = write_recording(recording, folder / f"{recording.policy}_{recording.date}.parquet")
        found[recording.policy].append(pd.read_parquet(file))
    return found


def of(table: pd.DataFrame, owner: str, quantity: str) -> pd.DataFrame:
    """Return a quantity of a replay file, a row a step and a column a thing."""
    own = table[(table["owner"] == owner) & (table["quantity"] == quantity)].astype({"name": str})
    return own.pivot_table(index="step", columns="name", values="value", observed=True, sort=False)


def outside(table: pd.DataFrame, low: float, high: float, neutrals: set[str]) -> pd.DataFrame:
    v_pu = of(table, "node", "v_pu")
    v_pu = v_pu[[name for name in v_pu.columns if name not in neutrals]]
    fed = of(table, "node", "energised").reindex(index=v_pu.index, columns=v_pu.columns).fillna(1.0) > 0.0
    return ((v_pu < low) | (v_pu > high)) & fed


@pytest.fixture(scope="module")
def neutrals(scenario: Scenario) -> set[str]:
    simulation = scenario.simulate()
    network = simulation.network
    simulation.close()
    return {name for name, neutral in zip(network.nodes, network.is_neutral, strict=True) if neutral}


@pytest.mark.parametrize("policy", PLAYED)
def test_every_number_of_a_day_is_that_of_its_replay_file(
    policy: str, report: PlannerReport, replayed: dict[str, list[pd.DataFrame]], neutrals: set[str], scenario: Scenario
) -> None:
    hours = scenario.step_minutes / 60.0
    for row, table in zip(report.summaries[policy].rows, replayed[policy], strict=True):
        for name, (low, high) in {"a": (0.95, 1.05), "b": (110 / 120, 127 / 120)}.items():
            count = int(outside(table, low, high, neutrals).to_numpy().sum())
            assert row[f"range_{name}_node_hours"] == pytest.approx(hours * count)
        assert row["low_a_node_hours"] + row["high_a_node_hours"] == pytest.approx(row["range_a_node_hours"])
        runs = outside(table, 0.95, 1.05, neutrals)
        texts = ("".join(runs[name].astype(int).astype(str)) for name in runs)
        longest = max((len(run) for text in texts for run in re.findall("1+", text)), default=0)
        assert row["longest_a_h"] == pytest.approx(hours * longest)
        moved = of(table, "switchgear", "moved").sum()
        banks = moved[[name for name in moved.index if str(name).startswith("capacitor.")]].sum()
        assert (row["bank_moves"], row["tap_moves"]) == (banks, moved.sum() - banks)
        switches = [name for name, spec in scenario.devices.items() if spec.kind == "switch"]
        switched = of(table, "device", "operations").reindex(columns=switches).sum().sum()
        assert row["operations"] == moved.sum() + switched == of(table, "network", "operations").sum().sum()
        assert row["battery_kwh"] == pytest.approx(of(table, "agent", "throughput_kwh").sum().sum())
        unbalanced = of(table, "network", "network_unbalance_pu") > 0.03
        assert row["unbalance_hours"] == pytest.approx(hours * int(unbalanced.to_numpy().sum()))
        assert row["import_peak_kw"] == of(table, "network", "source_p_kw").to_numpy().max()


def test_every_number_of_an_element_is_that_of_the_replay_files(
    report: PlannerReport, replayed: dict[str, list[pd.DataFrame]], neutrals: set[str], scenario: Scenario
) -> None:
    hours, tables = scenario.step_minutes / 60.0, report.tables()
    for policy, days in replayed.items():
        nodes = tables["nodes"].query("policy == @policy").set_index("node")
        v_pu = pd.concat([of(day, "node", "v_pu") for day in days])
        assert set(nodes.index) == set(v_pu.columns) - neutrals
        check_durations(nodes, days, hours, neutrals)
        check_phases(tables["phases"].query("policy == @policy").set_index("phase"), nodes)
        unbalance = tables["unbalance"].query("policy == @policy").set_index("bus")
        for kind, limit in (("sequence", 0.02), ("line", 0.03)):
            of_days = pd.concat([of(day, "bus", f"{kind}_unbalance_pu") for day in days])
            assert unbalance[f"{kind}_max_pu"].to_dict() == pytest.approx(of_days.max().to_dict())
            assert unbalance[f"{kind}_above_h"].to_dict() == pytest.approx((hours * (of_days > limit).sum()).to_dict())
            assert of_days.max(axis=None) > 0.01
        below = hours * (v_pu < 0.95).sum()
        assert nodes["below_a_h"].to_dict() == pytest.approx(below[list(nodes.index)].to_dict())
        assert nodes["v_min_pu"].to_dict() == pytest.approx(v_pu.min()[list(nodes.index)].to_dict())
        branches = tables["branches"].query("policy == @policy").set_index("branch")
        loading = pd.concat([of(day, "branch", "loading_pu") for day in days])[list(branches.index)]
        assert branches["loading_max_pu"].to_dict() == pytest.approx(loading.max().to_dict())
        assert branches["overload_h"].to_dict() == pytest.approx((hours * (loading > 1.0).sum()).to_dict())
        moves = tables["moves"].query("policy == @policy").set_index("element")
        moved = sum(of(day, "switchgear", "moved").sum() for day in days)
        for name in moved.index:
            assert moves.loc[name, "moves"] == moved[name]
            assert moves.loc[name, "moves_per_day"] == pytest.approx(moved[name] / len(days))
        devices = tables["devices"].query("policy == @policy").set_index("device")
        p_kw = pd.concat([of(day, "device", "p_kw") for day in days])
        for name in devices.index:
            assert devices.loc[name, "delivered_kwh"] == pytest.approx(hours * p_kw[name].clip(lower=0.0).sum())
        left = sum(of(day, "agent", "curtailed_kwh").to_numpy().sum() for day in days)
        assert devices["curtailed_kwh"].sum() == pytest.approx(left)
        terms = tables["terms"].query("policy == @policy").set_index("term")
        for term in terms.index:
            told = sum(of(day, "agent", term).to_numpy().sum() for day in days) / len(scenario.agents) / len(days)
            assert terms.loc[term, "per_day"] == pytest.approx(told)
            assert terms.loc[term, "usd_per_day"] == pytest.approx(told * scenario.weight_of(term))
        source = np.sort(np.concatenate([of(day, "network", "source_p_kw").to_numpy()[:, 0] for day in days]))[::-1]
        assert tables["import"][policy].to_numpy() == pytest.approx(source)


def check_durations(nodes: pd.DataFrame, days: list[pd.DataFrame], hours: float, neutrals: set[str]) -> None:
    for name, (low, high) in {"a": (0.95, 1.05), "b": (110 / 120, 127 / 120)}.items():
        longest, times = dict.fromkeys(nodes.index, 0.0), dict.fromkeys(nodes.index, 0)
        for day in days:
            apart = outside(day, low, high, neutrals)
            for node in nodes.index:
                runs = re.findall("1+", "".join(apart[node].astype(int).astype(str)))
                longest[node] = max(longest[node], hours * max(map(len, runs), default=0))
                times[node] += len(runs)
        assert nodes[f"longest_{name}_h"].to_dict() == pytest.approx(longest)
        assert nodes[f"times_{name}"].to_dict() == times
        total = sum(outside(day, low, high, neutrals).sum() for day in days)[list(nodes.index)]
        told = nodes[f"below_{name}_h"] + nodes[f"above_{name}_h"]
        assert told.to_dict() == pytest.approx((hours * total).to_dict())


def check_phases(phases: pd.DataFrame, nodes: pd.DataFrame) -> None:
    # on 13 nodes no transformer is of one phase, so that a node's number is its phase
    for phase in ("1", "2", "3"):
        own = nodes[[str(name).endswith(f".{phase}") for name in nodes.index]]
        assert phases.loc[phase, "nodes"] == len(own)
        for column in ("below_a_h", "above_a_h", "below_b_h", "above_b_h", "times_a", "times_b"):
            assert phases.loc[phase, column] == pytest.approx(own[column].sum())
        assert phases.loc[phase, "longest_a_h"] == own["longest_a_h"].max()
        assert phases.loc[phase, "v_min_pu"] == own["v_min_pu"].min()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> DayRecording:
    """An hour of a feeder with a split-phase service."""
    feeder = str(write(tmp_path_factory.mktemp("looped"), LOOPED))
    return record_day({"feeder": feeder, "episode_length": 4}, ["no_control"], 0)[0]


def test_legs_of_a_split_phase_service_count_on_the_phase_of_their_primary(recording: DayRecording) -> None:
    summary = Summary()
    summary.add(recording)
    nodes = summary.nodes().set_index("node")
    assert nodes.loc[["g.1", "g.2"], "phase"].tolist() == ["2", "2"]
    assert summary.phases().set_index("phase")["nodes"].to_dict() == nodes.groupby("phase").size().to_dict()
    assert "g" not in summary.unbalance()["bus"].tolist()


def test_hours_of_unbalance_are_counted_above_the_limit_of_each_definition(recording: DayRecording) -> None:
    n, bus = len(recording.buses.names), recording.buses.names[3]
    values = {"sequence_unbalance_pu": np.zeros((4, n)), "line_unbalance_pu": np.zeros((4, n))}
    values["sequence_unbalance_pu"][:, 3] = 0.019, 0.021, 0.031, 0.02
    values["line_unbalance_pu"][:, 3] = 0.021, 0.029, 0.031, 0.03
    summary = Summary()
    summary.add(replace(recording, buses=replace(recording.buses, values=values)))
    row = summary.unbalance().set_index("bus").loc[bus]
    assert row.to_dict() == pytest.approx(
        {"sequence_above_h": 0.5, "sequence_max_pu": 0.031, "line_above_h": 0.25, "line_max_pu": 0.031}
    )


def test_a_histogram_has_all_node_hours(report: PlannerReport) -> None:
    assert report.tables()["voltages"]["native"].sum() == pytest.approx(1.0)


def test_the_table_names_what_a_day_is_told_by(report: PlannerReport) -> None:
    columns = set(report.days.columns)
    assert {quantity.name for quantity in STUDY} <= columns
    assert {measure.name for measure in MEASURES} <= columns


# -- verdicts, from days that are made by hand


def make_days(**changes: dict[str, list[float]]) -> pd.DataFrame:
    """Return days of policies that are alike but for some measures."""
    n = max(len(values) for own in changes.values() for values in own.values())
    base = {measure.name: [10.0] * n for measure in MEASURES} | {"day": list(range(n)), "finished": [True] * n}
    base |= {"converged_share": [1.0] * n}
    return pd.concat([pd.DataFrame(base | own).assign(policy=name) for name, own in changes.items()], ignore_index=True)


def words(days: pd.DataFrame, **seen: str) -> str:
    return "\n".join(map(str, judge(days, "ppo", ["native"], seen)))


def test_what_is_better_is_told_with_its_interval_and_what_is_worse_beside_it() -> None:
    few, many, moves = [1.0, 2.0, 3.0, 2.0], [10.0, 12.0, 13.0, 13.0], [12.0, 12.5, 12.0, 12.5]
    told = words(make_days(ppo={"range_a_node_hours": few}, native={"range_a_node_hours": many}))
    assert "Better than the feeder's own controls: 10.0 fewer node-hours outside range A a day (" in told
    assert "worse" not in told
    told = words(make_days(ppo={"range_a_node_hours": few, "tap_moves": moves}, native={"range_a_node_hours": many}))
    assert told.index("A trade against the feeder's own controls:") < told.index("2.2 more tap moves a day")
    gap = compare(make_days(ppo={"tap_moves": few}, native={"tap_moves": many}), "ppo", "native")
    own = next(each for each in gap if each.measure.name == "tap_moves")
    assert (own.mine, own.theirs, own.difference.mean, own.sign) == (2.0, 12.0, -10.0, -1)


def test_nothing_is_claimed_where_the_days_do_not_tell() -> None:
    told = words(make_days(ppo={"losses_kwh": [1.0, 30.0, 5.0]}, native={"losses_kwh": [20.0, 5.0, 9.0]}))
    assert "Nothing tells it from the feeder's own controls on these 3 days." in told
    assert "Better" not in told
    told = words(make_days(ppo={"tap_moves": [40.0, 50.0, 45.0]}, native={"tap_moves": [4.0, 5.0, 5.0]}))
    assert "Nothing is gained over the feeder's own controls, and it is worse: 40.3 more tap moves a day" in told
    assert "One day does not tell" in words(make_days(ppo={"tap_moves": [1.0]}, native={"tap_moves": [9.0]}))


def test_percent_of_next_to_nothing_is_not_told() -> None:
    days = make_days(ppo={"losses_kwh": [900.0, 901.0, 902.0]}, native={"losses_kwh": [0.1, 0.1, 0.1]})
    assert "901 more kWh of losses a day (898 to 903)" in words(days)


def test_small_percentages_are_told_by_their_tenths() -> None:
    def percent(mine: float) -> str:
        days = make_days(ppo={"losses_kwh": [mine] * 3}, native={"losses_kwh": [1000.0] * 3})
        return next(e for e in compare(days, "ppo", "native") if e.measure.name == "losses_kwh").say_percent()

    assert [percent(kwh) for kwh in (1012.0, 997.0, 1000.3)] == ["+1 %", "\N{MINUS SIGN}0.3 %", ""]


def test_a_difference_that_nobody_minds_is_no_gain() -> None:
    told = words(make_days(ppo={"losses_kwh": [9.9, 9.9, 9.9]}, native={"losses_kwh": [10.0, 10.0, 10.0]}))
    assert "Nothing tells it" in told


def test_what_has_to_be_known_of_the_days_is_said() -> None:
    nothing = {"range_a_node_hours": [0.0] * 3}
    days = make_days(ppo=nothing, native=nothing | {"tap_moves": [30.0, 31.0, 32.0]})
    days.loc[0, "finished"] = False
    told = words(days, ppo="This policy was trained on these days.")
    assert "This policy was trained on these days." in told
    assert "There is no voltage to mend beyond the feeder's own controls" in told
    assert "1 of its 3 days were not finished" in told
    assert compare(days, "ppo", "native")[0].n_days == 2


# -- the page and the command


@pytest.mark.parametrize(
    ("policies", "title"),
    [
        (["rule_based"], "Engineers' rules on IEEE13_Own"),
        (["ppo_A", "native"], "ppo_A, the feeder's own controls on IEEE13_Own"),
    ],
)
def test_a_title_keeps_the_letters_of_names(policies: list[str], title: str) -> None:
    assert name_title(policies, "on IEEE13_Own") == title


def test_the_page_needs_nothing_else_and_says_what_the_verdict_says(report: PlannerReport) -> None:
    page = report.as_html()
    assert not re.findall(r"(?:src|href)=|url\(|@import", page.replace('href="http', ""))
    for sentence in report.verdicts()["rule_based"]:
        for part in (sentence.text, *sentence.better, *sentence.worse):
            assert part.replace("'", "&#39;") in page
    for value in report.facts.values():
        assert str(value).replace("'", "&#39;") in page


def test_no_two_policies_look_the_same_where_there_are_more_than_colours() -> None:
    names = [f"run {i}" for i in range(20)]
    known = find_looks(names[:3])
    looks = find_looks(reversed(names), known)
    assert {name: looks[name] for name in known} == known
    line = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    lines = draw_lines(dict.fromkeys(names, line), looks, x_label="day", y_label="hours", label="lines")
    bars = draw_bars({"row": dict.fromkeys(names, 1.0)}, looks, unit="USD", label="bars")
    for picture, shape in ((lines, "polyline|path"), (bars, "rect")):
        styles = re.findall(rf'<(?:{shape}) [^>]*style="([^"]+)"', picture)
        assert len(set(styles)) == len(names)
        assert sorted(styles) == sorted(2 * list(set(styles)))  # each as a line or a bar, and in the key


def test_the_page_ranks_rewards_with_the_seeds_of_a_training_as_one(report: PlannerReport) -> None:
    rule, native = report.summaries["rule_based"], report.summaries["native"]
    played = {"mg-0": rule, "mg-1": native, "rule_based": rule, "no_control": native}
    groups = {"mg (2 seeds)": ("mg-0", "mg-1")}
    made = replace(
        report, subjects=("mg-0", "mg-1"), against=("rule_based", "no_control"), summaries=played, groups=groups
    )
    days = made.days.pivot(index="policy", columns="day", values="reward")
    assert made.rewards.names == ("mg (2 seeds)", "rule_based", "no_control")
    assert made.rewards.reward("mg (2 seeds)").mean == pytest.approx(days.loc[["mg-0", "mg-1"]].to_numpy().mean())
    best = made.rewards.best_baseline
    page = made.as_html()
    assert "<h2>Rewards of all days</h2>" in page
    assert f"a higher reward than {best}, % of days".replace("_", "_<wbr>") in page
    assert page.count("mg (2 seeds)") > 2
    # days that one of them alone wins: half of all pairs and a half for each tie
    gain = made.rewards.improvement("mg (2 seeds)", "no_control").value
    assert gain == pytest.approx(0.5 * np.mean(days.loc["mg-0"] > days.loc["no_control"]) + 0.25)


@needs_browser
def test_no_table_is_cut_on_a_narrow_screen_or_on_paper(
    report: PlannerReport, scenario: Scenario, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    # four policies, as a report has unless told otherwise
    names, summary = ("rule_based", "native", "no_control", "random"), report.summaries["native"]
    whole = replace(report, against=names[1:], summaries=dict.fromkeys(names, summary))
    (tmp_path / "report.html").write_text(whole.as_html(), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto((tmp_path / "report.html").as_uri())
        for media, width in (("screen", 1400), ("screen", 800), ("print", 688)):  # 688: A4 less its margins
            page.emulate_media(media=media)
            page.set_viewport_size({"width": width, "height": 900})
            wide = "[...document.querySelectorAll('.wide, body')].filter(e => e.scrollWidth > e.clientWidth).length"
            assert page.evaluate(wide) == 0, (media, width)
        browser.close()


def test_the_command_writes_a_page_and_tables_and_tells_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short: list[Any] = ["--days", "2", "--replays", "0", "--set", "episode_length=8", "--out", str(tmp_path / "r")]
    with pytest.raises(SystemExit) as ended:
        main(["report", "rule_based", "ieee13_voltvar", *short, "--against", "no_control"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "On 2 days engineers' rules had" in " ".join(shown.split())
    files = {file.name for file in (tmp_path / "r").iterdir()}
    assert files >= {"report.html", "report.json", "days.csv", "comparisons.csv", "nodes.csv", "moves.csv"}
    kept = json.loads((tmp_path / "r" / "report.json").read_text())
    assert kept["facts"]["days"] == 2
    assert len(pd.read_csv(tmp_path / "r" / "days.csv")) == 4


def test_a_scenario_alone_asks_who_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # that a run alone plays on its own scenario, the page for planners shows
    with pytest.raises(SystemExit) as ended:
        main(["report", "ieee13_voltvar", "--out", str(tmp_path / "none")])
    assert ended.value.code == 1
    assert "who plays on ieee13_voltvar? name runs or baselines before it" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()


def test_worst_days_lead_to_their_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "no_control", "ieee13_voltvar", "--days", "3", "--replays", "1", "--out", str(tmp_path),
              "--against", "rule_based"])  # fmt: skip
    (page,) = (tmp_path / "days").iterdir()
    assert f'<a href="days/{page.name}">{page.stem}</a>' in (tmp_path / "report.html").read_text()
    days = pd.read_csv(tmp_path / "days.csv").query("policy == 'no_control'")
    assert days.loc[days["range_a_node_hours"].idxmax(), "date"] == page.stem
