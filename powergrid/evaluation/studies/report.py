"""The report that a planner signs: policies on the same days, compared, as a page, as tables, and in a few lines."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from powergrid.errors import ScenarioError, find_number_problems
from powergrid.evaluation.baselines import BASELINES
from powergrid.evaluation.drawing.charts import find_looks
from powergrid.evaluation.optimum.report import recall_optima
from powergrid.evaluation.players import Policy, find_sides
from powergrid.evaluation.players.trained import add_notes
from powergrid.evaluation.replay.recorder import record_days
from powergrid.evaluation.report import describe_versions
from powergrid.evaluation.report.evaluation import say_telemetry
from powergrid.evaluation.report.numbers import PlayedDays
from powergrid.evaluation.report.seeds import group_seeds
from powergrid.evaluation.rollout import Progress, read_scenario
from powergrid.evaluation.statistics import CONFIDENCE
from powergrid.evaluation.studies.charts import Looks, draw_bars, draw_lines
from powergrid.evaluation.studies.compare import (
    NAMES,
    WORDS,
    Comparison,
    Sentence,
    compare,
    judge,
    name_title,
    write_number,
)
from powergrid.evaluation.studies.sections import (
    BRANCH_COLUMNS,
    HANDED_BACK_COLUMNS,
    MOVE_COLUMNS,
    Cell,
    Section,
    device_section,
    element_section,
    node_section,
    optimum_section,
    phase_section,
    rank_sections,
    unbalance_section,
)
from powergrid.evaluation.studies.summary import RANGES, Summary
from powergrid.files import make_folder, write_whole
from powergrid.grid.devices.spec import MOST_SEED
from powergrid.grid.profiles.profiles import pick_days
from powergrid.quantities import MEASURES, TERMS
from powergrid.scenario import Scenario, name_version

if TYPE_CHECKING:
    import pandas as pd

#: Whom policies are compared with unless told otherwise, the most important first.
AGAINST = ("native", "rule_based", "no_control")
_COMPARED = (
    *("policy", "against", "measure", "unit", "mean", "mean_against", "difference", "half_interval", "percent", "days"),
)
_CAVEAT = (
    f"Differences are paired day by day, with {CONFIDENCE:.0%} intervals of Student's t over the days; days of one "
    "week are alike, so that the truth is somewhat wider. Of every measure less is better. What intervals do not tell "
    "apart is not claimed."
)


@dataclass(frozen=True)
class PlannerReport:
    """What policies made of the same days, beside the feeder's own controls and engineers' rules.

    Attributes:
        scenario: The scenario that was played.
        subjects: Names of the policies that it is about.
        against: Names of those they are compared with.
        summaries: What the days of each came to, by name.
        facts: Where all this comes from: digests, versions, days, seed.
        notes: What has to be known of a policy's days, such as that it was trained on some, by policy.
        links: Pages that show a day step by step, by date.
        optima: Reward of the optimum of each day, by date, where all of them were found before.
        groups: Policies of one training with different seeds, by the name that they have together.
    """

    scenario: Scenario
    subjects: tuple[str, ...]
    against: tuple[str, ...]
    summaries: Mapping[str, Summary]
    facts: Mapping[str, Any]
    notes: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    optima: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Everybody who played."""
        return (*self.subjects, *self.against)

    @property
    def days(self) -> pd.DataFrame:
        """A row for each policy and day."""
        import pandas as pd

        frames = [self.summaries[name].days().assign(policy=name) for name in self.names]
        whole = pd.concat(frames, ignore_index=True)
        return whole[["policy", *(column for column in whole.columns if column != "policy")]]

    @property
    def rewards(self) -> PlayedDays:
        """The rewards of all days, with statistics over seeds and days."""
        kinds = {name: _kind_of(name) for name in self.names}
        days = [int(row["day"]) for row in self.summaries[self.names[0]].rows]
        return PlayedDays(self.days, kinds, {"days": days}, self.groups)

    def verdicts(self) -> dict[str, list[Sentence]]:
        """Return what may be said of each policy; nothing that the days do not tell."""
        days, notes = self.days, dict(self.notes)
        for name in self.subjects:
            notes[name] = " ".join(filter(None, (notes.get(name), self.summaries[name].say_handed_back())))
        return {name: judge(days, name, self.against, notes) for name in self.subjects}

    def comparisons(self) -> dict[tuple[str, str], list[Comparison]]:
        """Return every measure of each policy beside each of those it is compared with."""
        days = self.days
        return {(one, two): compare(days, one, two) for one in self.subjects for two in self.against}

    def worst_days(self, count: int = 5) -> list[str]:
        """Return the dates with most node-hours outside range A, as the first policy played them."""
        own = self.days.query("policy == @name", local_dict={"name": self.subjects[0]})
        ordered = own.sort_values(["range_a_node_hours", "violation_max_pu"], ascending=False, kind="stable")
        return [str(date) for date in ordered["date"].head(count)]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return all tables by name, as :meth:`write` names their files."""
        import pandas as pd

        weights = {name: self.scenario.weight_of(name) for name in TERMS}
        edges = next(iter(self.summaries.values())).histogram()[0]
        voltages = {name: summary.histogram()[1] for name, summary in self.summaries.items()}
        found = {
            "days": self.days,
            "comparisons": pd.DataFrame(
                [
                    (one, two, each.measure.name, each.measure.unit, each.mine, each.theirs, each.difference.mean,
                     each.difference.half, each.percent, each.n_days)
                    for (one, two), measures in self.comparisons().items()
                    for each in measures
                ],
                columns=_COMPARED,
            ),
            "voltages": pd.DataFrame({"from_pu": edges[:-1], "to_pu": edges[1:], **voltages}),
            "import": pd.DataFrame({name: pd.Series(s.duration()) for name, s in self.summaries.items()}),
        }  # fmt: skip
        parts: dict[str, Callable[[Summary], pd.DataFrame]] = {
            "nodes": Summary.nodes,
            "phases": Summary.phases,
            "unbalance": Summary.unbalance,
            "branches": Summary.branches,
            "moves": Summary.moves,
            "devices": Summary.devices,
            "handed_back": Summary.handed_back,
            "terms": lambda summary: summary.terms(weights),
        }
        for table, make in parts.items():
            frames = [make(self.summaries[name]).assign(policy=name) for name in self.names]
            found[table] = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
        if not len(found["handed_back"]):  # no limit says so
            del found["handed_back"]
        return found

    def as_html(self) -> str:
        """Return the report as one page that needs nothing else, also to be printed."""
        from jinja2 import Environment

        here = importlib.resources.files(__package__)
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(here.joinpath("report.html.jinja").read_text(encoding="utf-8"))
        named = {name: NAMES.get(name, name) for name in self.subjects}
        return template.render(
            title=name_title(self.subjects, f"on {self.scenario.name}"),
            subtitle=self._say_days(),
            css=here.joinpath("report.css").read_text(encoding="utf-8"),
            verdicts={named[name]: sentences for name, sentences in self.verdicts().items()},
            caveat=_CAVEAT,
            sections=list(_make_sections(self)),
            facts={key.replace("_", " "): value for key, value in self.facts.items()},
        )

    def _say_days(self) -> str:
        facts, days = self.facts, f"{self.facts['days']} days"
        whole = facts["split"] == "all"
        which = f", {facts['first_and_last_day']}" if whole else f" of the {facts['split']} split"
        return f"{days}{which}, feeder {facts['feeder']}"

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``report.html``, ``report.json`` (verdict, facts) and a CSV of each table, each whole or not at all."""
        folder = Path(folder)
        make_folder(folder)
        verdicts = {name: [str(each) for each in told] for name, told in self.verdicts().items()}
        kept = {"facts": dict(self.facts), "notes": dict(self.notes), "verdicts": verdicts}
        texts = {"report.html": self.as_html(), "report.json": json.dumps(kept, indent=1) + "\n"}
        texts |= {
            f"{name}.csv": table.to_csv(index=False, lineterminator="\n") for name, table in self.tables().items()
        }
        for file, text in texts.items():
            write_whole(folder / file, text)
        return [folder / file for file in texts]


def report_days(
    env_config: Mapping[str, Any] | Scenario,
    policies: Sequence[str | tuple[str, Policy]],
    *,
    against: Sequence[str] = AGAINST,
    split: str = "test",
    days: int = 30,
    seed: int = 0,
    notes: Mapping[str, str] | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> PlannerReport:
    """Play the same days with policies and with those they are compared with, and report on them.

    Args:
        env_config: As for ``NetworkedGridEnv``: ``env_name`` or ``scenario``, and any scenario field by its key; or a
            scenario.
        policies: Names of baselines, or a name with an object that has ``act``; whom it is about.
        against: Names of baselines to compare with, the most important first; those among ``policies`` are left out.
        split: Which days: train, validation, test or all.
        days: How many; they are spread evenly over the split, all of it where it has fewer.
        seed: Seed of whatever is random in a day.
        notes: What has to be said of a policy's days, by its name.
        command: The command that made it, for the report to tell.
        progress: Called with the number of days played and to play.

    Raises:
        ScenarioError: the settings, a policy's name or the split are wrong.
        FeederError: the feeder does not compile or solve.
    """
    scenario = read_scenario(env_config, split)
    names, beside, players = find_sides(policies, against)
    problems = find_number_problems(1, days=days) + find_number_problems(0, MOST_SEED, seed=seed)
    if problems:
        raise ScenarioError("report", problems)
    simulation = scenario.simulate()
    chosen = pick_days(simulation.days, days).tolist()
    simulation.close()
    summaries = {name: Summary() for name, _ in players}
    for done, recording in enumerate(record_days(scenario, players, chosen, seed=seed), 1):
        summaries[recording.policy].add(recording)
        if progress is not None:
            progress(done, len(players) * len(chosen))
    first, *_, last = [row["date"] for row in (summaries[names[0]].rows * 2)]
    facts = describe_facts(scenario, seed, command) | {
        "split": split,
        "days": len(chosen),
        "first_and_last_day": f"{first} to {last}",
        "nodes_counted": int(summaries[names[0]].counted.sum()),
    }
    told = add_notes(notes or {}, policies, scenario)
    dates = [str(row["date"]) for row in summaries[names[0]].rows]
    kept = recall_optima(scenario, chosen, seed)
    optima = {date: kept[day].reward for date, day in zip(dates, chosen, strict=True)} if kept else {}
    groups = group_seeds(policies)
    return PlannerReport(scenario, names, beside, summaries, facts, told, optima=optima, groups=groups)


def _kind_of(name: str) -> str:
    entry = BASELINES.get(name)
    return "policy" if entry is None else "optimum" if entry.foresight else "baseline"


def describe_facts(scenario: Scenario, seed: int, command: str) -> dict[str, Any]:
    """Return where numbers come from: scenario, digests, versions, and the command if there was one."""
    own = scenario.feeder.lower().endswith(".dss")
    return {
        "scenario": scenario.name,
        "scenario_version": name_version(scenario),
        "feeder": Path(scenario.feeder).name if own else scenario.feeder,
        "step_minutes": scenario.step_minutes,
        "voltage_ranges": "; ".join(
            f"{name.upper()}: {low:.3g} to {high:.4g} pu" for name, (low, high) in RANGES.items()
        ),
        **say_telemetry(scenario),
        "seed": seed,
        "scenario_digest": scenario.digest(),
        "feeder_digest": scenario.read_feeder().digest,
        "profiles_digest": scenario.read_profiles().digest(),
        "versions": ", ".join(f"{name} {version}" for name, version in describe_versions().items()),
        **({"command": command} if command else {}),
    }


# -- the page, section by section


def _make_sections(report: PlannerReport) -> Iterable[Section]:
    looks = find_looks(report.names)
    tables = report.tables()
    yield _compare_section(report)
    if report.optima:
        rewards = {name: report.summaries[name].days().set_index("date")["reward"] for name in report.names}
        usd = len(report.scenario.agents) / report.scenario.reward.scale
        yield optimum_section(rewards, report.optima, usd)
    yield _days_section(report, looks)
    yield _voltage_section(report, tables["voltages"], looks)
    yield phase_section(report.names, tables["phases"], len(report.summaries[report.names[0]].rows))
    yield node_section(report.names, tables["nodes"])
    yield unbalance_section(report.names, tables["unbalance"])
    yield element_section(report.names, tables["branches"], "branch", BRANCH_COLUMNS, "Thermal loading")
    yield _import_section(report, looks)
    yield element_section(report.names, tables["moves"], "element", MOVE_COLUMNS, "Moves")
    yield _reward_section(report, tables["terms"], looks)
    yield from rank_sections(report.rewards, looks)
    yield device_section(report.names, tables["devices"])
    if "handed_back" in tables:
        title = "Handed back to the feeder's own controls"
        yield element_section(report.names, tables["handed_back"], "device", HANDED_BACK_COLUMNS, title)
    yield _worst_section(report)


def _compare_section(report: PlannerReport) -> Section:
    comparisons = report.comparisons()
    means = {name: report.summaries[name].days() for name in report.names}
    several = len(report.subjects) > 1
    heads = ["measure, a day", *report.names]
    heads += [f"{one} less {two}" if several else f"less {two}" for one, two in comparisons]
    rows = []
    for measure in MEASURES:
        if not any(days[measure.name].any() for days in means.values()):
            continue
        words = WORDS[measure.name][0]
        cells = [Cell(words)]
        cells += [Cell(write_number(float(days[measure.name].mean()))) for days in means.values()]
        for found in comparisons.values():
            own = next((each for each in found if each.measure is measure), None)
            cells.append(Cell("") if own is None else _as_difference(own))
        rows.append(cells)
    note = (
        "Means over the days. Differences: mean, 95 % interval and percentage; green is better and red is worse, where "
        "the interval excludes 0; grey is not told apart."
    )
    return Section("Measure by measure", heads=heads, rows=rows, note=note, keep=True)


def _as_difference(each: Comparison) -> Cell:
    mean, half = each.difference
    if each.empty or not np.isfinite(half):
        return Cell("0" if each.empty else write_number(mean, sign=True))
    ends = (write_number(mean + side, sign=True) for side in (-half, half))
    # a line may break before the percentage only
    told = filter(None, (" to ".join(ends), each.say_percent()))
    interval = ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in told)
    return Cell(write_number(mean, sign=True), interval, {-1: "better", 0: "", 1: "worse"}[each.sign])


def _days_section(report: PlannerReport, looks: Looks) -> Section:
    days = report.summaries[report.names[0]].rows
    order = np.argsort([row["day"] for row in days], kind="stable")
    places = np.arange(len(order), dtype=np.float64)
    lines = {
        name: (places, np.array([row["range_a_node_hours"] for row in report.summaries[name].rows])[order])
        for name in report.names
    }
    picture = draw_lines(
        lines, looks, x_label="day", y_label="Node-hours outside range A", label="Node-hours outside range A by day",
        x_names=[str(days[i]["date"]) for i in order.tolist()],
    )  # fmt: skip
    return Section("Day by day", picture=picture, keep=True)


def _voltage_section(report: PlannerReport, voltages: pd.DataFrame, looks: Looks) -> Section:
    middle = ((voltages["from_pu"] + voltages["to_pu"]) / 2).to_numpy()
    used = np.flatnonzero(voltages[list(report.names)].to_numpy().any(axis=1))
    own = slice(max(used[0] - 1, 0), used[-1] + 2)
    lines = {name: (middle[own], 100.0 * voltages[name].to_numpy()[own]) for name in report.names}
    marks = [(RANGES["b"][0], "B"), (RANGES["a"][0], "A"), (RANGES["a"][1], "A"), (RANGES["b"][1], "B")]
    picture = draw_lines(
        lines, looks, x_label="voltage [pu]", y_label="Part of all node-hours [%], in bars of 0.0025 pu",
        label="Histogram of node voltages", marks=marks,
    )  # fmt: skip
    return Section("Voltages", picture=picture, keep=True, note="Dashed: limits of ranges A and B of ANSI C84.1.")


def _import_section(report: PlannerReport, looks: Looks) -> Section:
    lines = {}
    for name in report.names:
        kw = report.summaries[name].duration()
        places = np.unique(np.linspace(0, len(kw) - 1, 160).astype(int))
        lines[name] = 100.0 * (places + 1) / len(kw), kw[places]
    picture = draw_lines(
        lines, looks, x_label="part of the time [%]", y_label="Import from the source [kW], the highest first",
        label="Load duration curve of the source",
    )  # fmt: skip
    return Section("Import over time", picture=picture, keep=True)


def _reward_section(report: PlannerReport, terms: pd.DataFrame, looks: Looks) -> Section:
    by_term: dict[str, dict[str, float]] = {}
    for row in terms.to_dict("records"):
        by_term.setdefault(str(row["term"]), {})[str(row["policy"])] = float(row["usd_per_day"])
    rows = {term: own for term, own in by_term.items() if any(abs(value) > 1e-6 for value in own.values())}
    if not rows:
        return Section("Where the reward comes from", text="No term of the reward was more than 0.", keep=True)
    picture = draw_bars(rows, looks, unit="USD a day, weighed, mean over agents; less is better", label="Reward terms")
    return Section("Where the reward comes from", picture=picture, keep=True)


def _worst_section(report: PlannerReport) -> Section:
    found = {
        name: {row["date"]: row["range_a_node_hours"] for row in report.summaries[name].rows} for name in report.names
    }
    rows = [
        [Cell(date, link=report.links.get(date, "")), *(Cell(write_number(own[date])) for own in found.values())]
        for date in report.worst_days()
    ]
    first = NAMES.get(report.subjects[0], report.subjects[0])
    step_by_step = "Each date leads to the day, step by step." if report.links else ""
    return Section(
        "Worst days", heads=["date", *(f"{name}, node-h" for name in report.names)], rows=rows, keep=True,
        text=f"Days with most node-hours outside range A, as {first} played them.",
        note=step_by_step or "powergrid replay --date shows them step by step.",
    )  # fmt: skip
